//! The activity log on disk: a ring of 512-byte sectors, appended to by sequence number. Each
//! sector holds a few slot updates and a piece of the whole table ("context"), so that any
//! `window` consecutive sectors hold all of it. What the slots mean is `activity.rs`.
//!
//! A batch is what one commit appends. Each of its sectors names the first of them, and says by
//! that: everything before was durable. So after a crash a missing sector of the last batch is a
//! batch that never ended, and a missing sector before it is a lie of the disk.

use crate::codec::{SECTOR, Sector, is_sealed, record, seal};
use alloc::vec;
use alloc::vec::Vec;

/// An empty slot of the table.
pub(crate) const NO_EXTENT: u32 = u32::MAX;
/// Slot updates that fit one sector.
pub(crate) const UPDATES: usize = 60;
/// Context entries of every sector.
pub(crate) const CONTEXT: usize = 24;

/// Sequence numbers that are read stay below: sums of them do not overflow, whatever a disk says.
pub(crate) const SEQUENCE_LIMIT: u64 = 1 << 62;
/// Metadata that has come beyond is refused: what is written to it next could become unreadable. No disk lives that long.
pub(crate) const OPENED_BELOW: u64 = SEQUENCE_LIMIT / 2;

const MAGIC: u64 = u32::from_le_bytes(*b"PlxL") as u64;
const UPDATE_SIZE: usize = 6;

record! {
    /// The fields of a log sector.
    FIELDS:
    MAGIC_F = "magic", 0, 4;
    CRC = "crc32", 4, 4;
    DEVICE = "device_uuid", 8, 8;
    SEQUENCE = "sequence", 16, 8;
    BATCH_START = "batch_start", 24, 8;
    POSITION = "position", 32, 4;
    UPDATE_COUNT = "update_count", 36, 2;
    CONTEXT_START = "context_start", 38, 2;
    UPDATES_F = "updates", 40, UPDATES * UPDATE_SIZE;
    CONTEXT_F = "context", 400, CONTEXT * 4;
    RESERVED = "reserved", 496, 16;
}

record! {
    /// The fields of one update in a log sector.
    UPDATE_FIELDS:
    UPDATE_SLOT = "slot", 0, 2;
    UPDATE_EXTENT = "extent", 2, 4;
}

/// Consecutive sectors that hold the whole table, and one to spare.
pub(crate) fn window(slots: u32) -> u64 {
    u64::from(slots).div_ceil(CONTEXT as u64) + 1
}

/// Most sectors of a batch: every slot changes once.
pub(crate) fn longest_batch(slots: u32) -> u64 {
    u64::from(slots).div_ceil(UPDATES as u64)
}

/// Fewest sectors of a ring: a batch, the window before it and the sectors behind it that a
/// longer batch could have used must not share a position.
pub(crate) fn least_sectors(slots: u32) -> u32 {
    u32::try_from(window(slots) + 2 * longest_batch(slots) + 1).expect("slots have 16 bits")
}

/// What makes a ring: who owns it, how long it is, how many slots its table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) device_uuid: u64,
    pub(crate) sectors: u32,
    pub(crate) slots: u32,
    /// Extents of the device: no sector may name one beyond.
    pub(crate) extents: u32,
}

/// A valid sector of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSector {
    pub(crate) sequence: u64,
    pub(crate) batch_start: u64,
    pub(crate) updates: Vec<(u16, u32)>,
    pub(crate) context: [u32; CONTEXT],
}

impl Ring {
    /// Where a sequence number lives.
    pub(crate) fn position(&self, sequence: u64) -> u32 {
        u32::try_from(sequence % u64::from(self.sectors)).expect("a remainder of 32 bits")
    }

    /// The slots whose context a sector carries: a function of its number alone, so that a sector
    /// can be written again without knowing what it held.
    pub(crate) fn context_slots(&self, sequence: u64) -> impl Iterator<Item = u16> + use<> {
        let slots = u64::from(self.slots);
        let start = sequence % slots * CONTEXT as u64;
        let slot = move |entry| u16::try_from((start + entry) % slots).expect("slots have 16 bits");
        (0..CONTEXT as u64).map(slot)
    }

    pub(crate) fn encode(
        &self,
        sequence: u64,
        batch_start: u64,
        updates: &[(u16, u32)],
        table: &[u32],
    ) -> Sector {
        let mut sector = [0; SECTOR];
        MAGIC_F.put(&mut sector, MAGIC);
        DEVICE.put(&mut sector, self.device_uuid);
        SEQUENCE.put(&mut sector, sequence);
        BATCH_START.put(&mut sector, batch_start);
        POSITION.put(&mut sector, self.position(sequence));
        UPDATE_COUNT.put(&mut sector, updates.len() as u64);
        for (index, &(slot, extent)) in updates.iter().enumerate() {
            let update = &mut sector[UPDATES_F.element(index, UPDATE_SIZE).range()];
            UPDATE_SLOT.put(update, slot);
            UPDATE_EXTENT.put(update, extent);
        }
        for (index, slot) in self.context_slots(sequence).enumerate() {
            if index == 0 {
                CONTEXT_START.put(&mut sector, slot);
            }
            CONTEXT_F.element(index, 4).put(&mut sector, table[usize::from(slot)]);
        }
        seal(&mut sector, CRC);
        sector
    }

    /// What the sector read at `position` holds, if it belongs there (MD-3).
    pub(crate) fn decode(&self, sector: &[u8], position: u32) -> Option<LogSector> {
        let believed = sector.len() == SECTOR
            && is_sealed(sector, CRC)
            && MAGIC_F.u64(sector) == MAGIC
            && DEVICE.u64(sector) == self.device_uuid
            && POSITION.u32(sector) == position;
        if !believed {
            return None;
        }
        let sequence = SEQUENCE.u64(sector);
        let batch_start = BATCH_START.u64(sector);
        let update_count = UPDATE_COUNT.u64(sector) as usize;
        if self.position(sequence) != position
            || batch_start > sequence
            || sequence > SEQUENCE_LIMIT
            || update_count > UPDATES
            || self.context_slots(sequence).next() != Some(CONTEXT_START.u16(sector))
        {
            return None;
        }
        let update = |index| {
            let update = &sector[UPDATES_F.element(index, UPDATE_SIZE).range()];
            (UPDATE_SLOT.u16(update), UPDATE_EXTENT.u32(update))
        };
        let updates: Vec<_> = (0..update_count).map(update).collect();
        let (words, _) = sector[CONTEXT_F.range()].as_chunks();
        let context: [u32; CONTEXT] = core::array::from_fn(|at| u32::from_le_bytes(words[at]));
        let known = |&extent: &u32| extent == NO_EXTENT || extent < self.extents;
        let legal = context.iter().all(known)
            && updates.iter().all(|(slot, extent)| u32::from(*slot) < self.slots && known(extent));
        legal.then_some(LogSector { sequence, batch_start, updates, context })
    }
}

/// The end of the ring to which sectors are appended.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    ring: Ring,
    /// Sequence number of the next sector.
    next: u64,
    repair: Repair,
}

/// What the first commit after an open does before it appends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repair {
    Nothing,
    /// Write the sectors of these sequence numbers, without updates. None is the newest, so it
    /// does not matter which batch they claim to be of.
    Refill(Vec<u64>),
    /// Write the whole ring anew.
    Reset,
}

/// Sectors to write, with their positions; one stage after the other.
pub(crate) type LogStages = Vec<Vec<(u32, Sector)>>;

/// A ring as found on disk.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) journal: Journal,
    /// Slot to extent; empty when the log is lost.
    pub(crate) table: Vec<u32>,
    /// The ring cannot say which extents were active.
    pub(crate) lost: bool,
}

impl Journal {
    /// A fresh ring, every sector valid and empty, and the sectors that make it.
    pub(crate) fn format(ring: Ring) -> (Self, Vec<(u32, Sector)>) {
        let table = vec![NO_EXTENT; ring.slots as usize];
        let sequences = 1..=u64::from(ring.sectors);
        let sectors = sequences.map(|n| (ring.position(n), ring.encode(n, n, &[], &table)));
        let next = u64::from(ring.sectors) + 1;
        (Self { ring, next, repair: Repair::Nothing }, sectors.collect())
    }

    /// Reads the ring. `sectors` are the decoded sectors by position, `None` where the sector is
    /// unreadable or invalid. `floor` is a sequence number known to have been reached.
    pub(crate) fn recover(ring: Ring, sectors: &[Option<LogSector>], floor: u64) -> Recovered {
        assert_eq!(sectors.len(), ring.sectors as usize, "the whole ring");
        let at = |sequence: u64| sectors[ring.position(sequence) as usize].as_ref();
        // The newest by sequence number: positions say nothing about age.
        let newest = sectors.iter().flatten().max_by_key(|sector| sector.sequence);
        let reached = newest.map_or(0, |sector| sector.sequence).max(floor.saturating_sub(1));
        let lost = Recovered {
            journal: Self { ring, next: reached + 1, repair: Repair::Reset },
            table: vec![NO_EXTENT; ring.slots as usize],
            lost: true,
        };
        let Some(newest) = newest else { return lost };
        let (batch_start, last) = (newest.batch_start, newest.sequence);
        let longest = longest_batch(ring.slots);
        let Some(window_start) = batch_start.checked_sub(window(ring.slots)) else {
            return lost;
        };
        // A floor above the newest sector: whole commits were lost.
        if last < reached || last - batch_start >= longest {
            return lost;
        }
        // Durable before the batch began: all must be there (MD-2, MD-3).
        if (window_start..batch_start).any(|n| at(n).is_none_or(|sector| sector.sequence != n)) {
            return lost;
        }
        // A sector is written whole or not at all: where a write of this batch, or of a longer
        // one, did not happen, the older sector is intact. An invalid one rotted, and nobody
        // knows what it said.
        if (batch_start..=last + longest).any(|n| at(n).is_none()) {
            return lost;
        }
        let mut table = vec![NO_EXTENT; ring.slots as usize];
        let mut refill = Vec::new();
        for n in window_start..=last {
            let Some(sector) = at(n).filter(|sector| sector.sequence == n) else {
                refill.push(n);
                continue;
            };
            for (slot, &extent) in ring.context_slots(n).zip(&sector.context) {
                table[usize::from(slot)] = extent;
            }
            for &(slot, extent) in &sector.updates {
                table[usize::from(slot)] = extent;
            }
        }
        // Rot elsewhere hides nothing today; left alone, it would once the ring has come round.
        let behind = (last + 1).saturating_sub(u64::from(ring.sectors));
        refill.extend((behind..window_start).filter(|&n| at(n).is_none()));
        let repair = if refill.is_empty() { Repair::Nothing } else { Repair::Refill(refill) };
        Recovered { journal: Self { ring, next: last + 1, repair }, table, lost: false }
    }

    /// Whether the next commit must repair the ring.
    pub(crate) fn needs_repair(&self) -> bool {
        self.repair != Repair::Nothing
    }

    /// Every sector with a lower sequence number is durable, once repaired.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The sectors that make `updates` durable. `table` is the table with them applied; it may
    /// show up early in repaired sectors, which is safe: what leaves had its bits written in an
    /// earlier stage, what enters is not relied upon yet.
    pub(crate) fn append(&mut self, updates: &[(u16, u32)], table: &[u32]) -> LogStages {
        let ring = self.ring;
        let mut stages = Vec::new();
        let repair = core::mem::replace(&mut self.repair, Repair::Nothing);
        match &repair {
            Repair::Nothing => {}
            Repair::Refill(sectors) => {
                let sector = |&n| (ring.position(n), ring.encode(n, n, &[], table));
                stages.push(sectors.iter().map(sector).collect());
            }
            Repair::Reset => {
                // One short of the ring: the batch below is the last, and vouches for these.
                let start = self.next;
                self.next += u64::from(ring.sectors) - 1;
                let sector = |n| (ring.position(n), ring.encode(n, start, &[], table));
                stages.push((start..self.next).map(sector).collect());
            }
        }
        let start = self.next;
        let mut batch = Vec::new();
        let empty: &[(u16, u32)] = &[];
        let forced = (repair == Repair::Reset && updates.is_empty()).then_some(empty);
        for chunk in updates.chunks(UPDATES).chain(forced) {
            batch.push((ring.position(self.next), ring.encode(self.next, start, chunk, table)));
            self.next += 1;
        }
        assert!(batch.len() as u64 <= longest_batch(ring.slots), "a slot changes once in a batch");
        stages.push(batch);
        stages
    }
}

//! The whole of one volume's metadata, and the one mechanism by which it becomes durable:
//! requests change memory and return a ticket, a commit carries everything requested so far, and
//! the order of its stages is what makes a crash between any two writes harmless. Reading it
//! back is `opening.rs`.

use crate::activity::{Activation, ActivityLog, Missing, Phase};
use crate::codec::Sector;
use crate::commit::{Bytes, Commit, MetaWrite, Ticket, join};
use crate::dirty::DirtyBitmap;
use crate::geometry::Geometry;
use crate::journal::{Journal, Recovered, Ring};
use crate::layout::Layout;
use crate::slot_bits::SlotBits;
use crate::superblock::{SlotKind, Superblock};
use crate::unit::{Identity, Level};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// One volume's metadata. A clone costs what is dirty or active, not the size of the device.
#[derive(Clone, Debug)]
pub struct Metadata {
    layout: Layout,
    superblock: Superblock,
    superblock_changed: bool,
    /// The copy that is written first: the one we can do without.
    first_copy: usize,
    slots: Vec<SlotBits>,
    log: ActivityLog,
    journal: Journal,
    /// All changed units go into the next commit.
    sync_wanted: bool,
    /// Commits started; a ticket is the number of the commit that carries the request.
    started: u64,
    /// Commits finished.
    finished: u64,
}

impl Metadata {
    /// Metadata in the state in which everything given is durable.
    pub(crate) fn assemble(
        superblock: Superblock,
        layout: Layout,
        slots: Vec<SlotBits>,
        log: ActivityLog,
        journal: Journal,
    ) -> Self {
        Self {
            layout,
            superblock,
            superblock_changed: false,
            first_copy: 0,
            slots,
            log,
            journal,
            sync_wanted: false,
            started: 0,
            finished: 0,
        }
    }

    /// Metadata as found on disk, with what the crash makes necessary done in memory. Everything
    /// that was active stays in the log, there and here, so that a crash before the first
    /// commit changes nothing. `stale_copy` is the superblock copy to repair.
    pub(crate) fn recovered(
        superblock: Superblock,
        layout: Layout,
        slots: Vec<SlotBits>,
        log: Recovered,
        stale_copy: Option<usize>,
        bad_units: u64,
    ) -> Self {
        let table = ActivityLog::recovered(log.table);
        let mut metadata = Self::assemble(superblock, layout, slots, table, log.journal);
        if let Some(copy) = stale_copy {
            // MD-1: the good copy is the only one; it is written when the other is good again.
            metadata.first_copy = copy;
            metadata.superblock_changed = true;
        }
        metadata.sync_wanted = bad_units > 0;
        let used = |slot: &usize| metadata.superblock.slots[*slot].kind != SlotKind::Free;
        let used: Vec<usize> = (0..metadata.slots.len()).filter(used).collect();
        let active: Vec<u32> = metadata.log.active().collect();
        for slot in used {
            if log.lost {
                metadata.fill_bits(slot);
            }
            for &extent in &active {
                // COV-2: a write to it may have reached one disk and not the other.
                let blocks = metadata.superblock.geometry.extent_blocks(extent);
                metadata.set_bits(slot, blocks);
            }
        }
        metadata
    }

    /// The superblock as it will be when everything pending is durable.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The shape of the data area.
    pub fn geometry(&self) -> &Geometry {
        &self.superblock.geometry
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Changes generations, flags or slots. What says how the disk is laid out, and the epoch and
    /// default of a slot, are not the caller's to change (asserted).
    pub fn edit(&mut self, f: impl FnOnce(&mut Superblock)) -> Ticket {
        let fixed = |superblock: &Superblock| {
            let epochs = superblock.slots.iter().map(|slot| (slot.epoch, slot.default_set));
            let place = (superblock.placement, superblock.device_size, superblock.data_size);
            let log = (superblock.al_slots, superblock.al_sectors, superblock.log_floor);
            let identity = (superblock.device_uuid, superblock.sequence, superblock.geometry);
            (identity, place, log, epochs.collect::<Vec<_>>())
        };
        let before = fixed(&self.superblock);
        f(&mut self.superblock);
        assert_eq!(before, fixed(&self.superblock), "an edit changed the layout");
        self.superblock_changed = true;
        self.next_ticket()
    }

    /// A slot's bitmap, as it is in memory.
    pub fn bits(&self, slot: usize) -> &DirtyBitmap {
        self.slots[slot].bits()
    }

    /// Sets bits in memory; returns how many were clear. They become durable with
    /// [`Self::sync_bits`], or before their extent leaves the log.
    pub fn set_bits(&mut self, slot: usize, blocks: Range<u64>) -> u64 {
        self.slots[slot].put(blocks, true)
    }

    /// Clears bits in memory; returns how many were set. Losing this costs a resync of the blocks
    /// and nothing else, so it need not be made durable soon.
    pub fn clear_bits(&mut self, slot: usize, blocks: Range<u64>) -> u64 {
        self.slots[slot].put(blocks, false)
    }

    /// Sets all bits of a slot, whatever its size.
    pub fn fill_bits(&mut self, slot: usize) -> Ticket {
        self.put_all(slot, true)
    }

    /// Clears all bits of a slot, whatever its size.
    pub fn clear_all_bits(&mut self, slot: usize) -> Ticket {
        self.put_all(slot, false)
    }

    fn put_all(&mut self, slot: usize, value: bool) -> Ticket {
        let record = &mut self.superblock.slots[slot];
        record.epoch = record.epoch.wrapping_add(1);
        record.default_set = value;
        self.slots[slot].put_all(value);
        self.superblock_changed = true;
        self.next_ticket()
    }

    /// Takes all changed bits into the next commit. If nothing is changed that is not on its way,
    /// no commit is needed: the ticket is that of the commit in flight, or durable already.
    pub fn sync_bits(&mut self) -> Ticket {
        self.sync_wanted |= self.slots.iter().any(SlotBits::is_changed);
        // A bitmap filled or cleared as a whole waits in the superblock.
        if self.sync_wanted || self.superblock_changed {
            self.next_ticket()
        } else {
            Ticket(self.started)
        }
    }

    /// Asks for all `extents` to be in the log, and makes them the most recently used. An extent
    /// being retired is kept if its place is still its own.
    pub fn activate(&mut self, extents: Range<u32>) -> Activation {
        assert!(extents.end <= self.geometry().extents(), "extents {extents:?} exist");
        match self.log.activate(extents) {
            // COV-1: only an extent whose log sector is durable is active.
            Ok(Phase::Stable) => Activation::Active,
            Ok(Phase::Sent) => Activation::Pending(Ticket(self.started)),
            Ok(Phase::New) => Activation::Pending(self.next_ticket()),
            Err(Missing(missing)) => Activation::Full { missing },
        }
    }

    /// Takes an extent out of the log with the next commit; bits of it that the disk lacks are
    /// written before, in the same commit. The caller knows that every write to the extent is
    /// stable on both nodes or has its bit set (COV-4). For an extent that is not in the log the
    /// ticket is that of the commit in flight, or durable already.
    pub fn retire(&mut self, extent: u32) -> Ticket {
        if self.log.retire(extent) { self.next_ticket() } else { Ticket(self.started) }
    }

    /// Whether an extent is in the stable log and not being retired.
    pub fn is_active(&self, extent: u32) -> bool {
        self.log.is_active(extent)
    }

    /// The extents for which [`Self::is_active`] holds, in order.
    pub fn active_extents(&self) -> impl Iterator<Item = u32> + '_ {
        self.log.active()
    }

    /// Extents that can be activated before another must be retired. One being retired makes
    /// room at once: a commit can give its place away.
    pub fn log_free(&self) -> u32 {
        self.log.free()
    }

    /// Makes an extent the most recently used one.
    pub fn touch(&mut self, extent: u32) {
        self.log.touch(extent);
    }

    /// The least recently used active extent that `evictable` accepts. Costs the extents refused.
    pub fn oldest_active(&self, evictable: impl Fn(u32) -> bool) -> Option<u32> {
        self.log.oldest(evictable)
    }

    /// Whether something waits for a commit.
    pub fn needs_commit(&self) -> bool {
        self.superblock_changed
            || self.sync_wanted
            || self.log.is_pending()
            || self.journal.needs_repair()
    }

    /// Everything pending as one commit; `None` if nothing is. Panics if one is in flight. If one
    /// of its writes fails, the disk is to be given up (IO-4): there is no way to take it back.
    pub fn start_commit(&mut self) -> Option<Commit> {
        assert_eq!(self.started, self.finished, "one commit at a time");
        if !self.needs_commit() {
            return None;
        }
        self.started += 1;
        // What earlier commits appended is durable; what this one appends comes later.
        let log_floor = self.journal.next_sequence();
        let change = self.log.start();
        let (units, summary) = self.slot_sectors(&change.leaving);
        let layout = self.layout;
        let log = self.journal.append(&change.updates, self.log.table());
        let place = |(position, sector)| (layout.log_sector(position), sector);
        let log = log.into_iter().map(|sectors| join(sectors.into_iter().map(place).collect()));
        let (bitmap, log) = ([units, summary].map(join), log.collect::<Vec<_>>());
        let bitmap_writes = bitmap.iter().map(Vec::len).sum();
        let writes_log = log.iter().any(|stage| !stage.is_empty());

        // Bits that turned out to be on disk already leave nothing to write. The superblock is
        // written instead, so that a commit always ends with an event.
        let mut stages = Vec::new();
        if self.superblock_changed || !writes_log && bitmap_writes == 0 {
            self.superblock.sequence += 1;
            self.superblock.log_floor = log_floor;
            self.superblock_changed = false;
            let copies = layout.superblocks();
            // MD-1: one whole copy at any time.
            let first = core::mem::replace(&mut self.first_copy, 0);
            stages.push(vec![self.superblock_write(copies[first])]);
            stages.push(vec![self.superblock_write(copies[1 - first])]);
        }
        stages.extend(bitmap.into_iter().chain(log).filter(|stage| !stage.is_empty()));
        Some(Commit { stages, writes_log, bitmap_writes })
    }

    /// All stages of the commit in flight are durable. Returns the highest durable ticket.
    pub fn finish_commit(&mut self) -> Ticket {
        assert_eq!(self.started, self.finished + 1, "a commit is in flight");
        self.finished = self.started;
        self.log.finish();
        self.durable()
    }

    /// The highest durable ticket.
    pub fn durable(&self) -> Ticket {
        Ticket(self.finished)
    }

    fn next_ticket(&self) -> Ticket {
        Ticket(self.started + 1)
    }

    /// One superblock copy.
    pub(crate) fn superblock_write(&self, offset: u64) -> MetaWrite {
        MetaWrite { offset, bytes: Bytes::Data(self.superblock.encode(offset)) }
    }

    /// Every summary sector, for create-md.
    pub(crate) fn summary_sectors(&mut self) -> PlacedSectors {
        self.slots.iter_mut().for_each(SlotBits::mark_summary);
        self.slot_sectors(&BTreeSet::new()).1
    }

    /// The sectors of units and of summaries that go into a commit: all that changed if a sync
    /// was asked for, else those with bits of extents that leave the log (COV-4).
    fn slot_sectors(&mut self, leaving: &BTreeSet<u32>) -> (PlacedSectors, PlacedSectors) {
        let sync = core::mem::replace(&mut self.sync_wanted, false);
        let (layout, geometry) = (self.layout, self.superblock.geometry);
        let device_uuid = self.superblock.device_uuid;
        let sequence = self.journal.next_sequence() as u32;
        let (mut units, mut summary) = (Vec::new(), Vec::new());
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let wanted: BTreeSet<u32> = if sync {
                slot.changed().into_iter().collect()
            } else {
                let blocks = leaving.iter().map(|&extent| geometry.extent_blocks(extent));
                blocks.flat_map(|blocks| slot.changed_in(blocks)).collect()
            };
            let record = &self.superblock.slots[index];
            let identity = |level: Level, n| Identity { device_uuid, slot: index, level, index: n };
            let sectors = slot.write(wanted, record, identity, sequence);
            let place_unit = |(n, sector)| (layout.unit(index, n), sector);
            units.extend(sectors.units.into_iter().map(place_unit));
            let place_summary = |(n, sector)| (layout.summary(index, n), sector);
            summary.extend(sectors.summary.into_iter().map(place_summary));
        }
        (units, summary)
    }
}

/// Sectors with their offsets.
pub(crate) type PlacedSectors = Vec<(u64, Sector)>;

/// The log ring a superblock describes.
pub(crate) fn ring_of(superblock: &Superblock) -> Ring {
    Ring {
        device_uuid: superblock.device_uuid,
        sectors: superblock.al_sectors,
        slots: superblock.al_slots,
        extents: superblock.geometry.extents(),
    }
}

/// The bitmaps a superblock describes, before a unit is read.
pub(crate) fn fresh_slots(superblock: &Superblock) -> Vec<SlotBits> {
    let blocks = superblock.geometry.blocks();
    superblock.slots.iter().map(|slot| SlotBits::new(blocks, slot.default_set)).collect()
}

//! Reading metadata back, as a step machine: it says what to read, takes what was read, and ends
//! with metadata or with a reason to refuse. It writes nothing; what it found to be bad
//! is repaired by the first commit.
//!
//! Superblocks, then log ring and summaries, then the units the summaries name: the cost is what
//! is dirty, not the size of the device.

use crate::codec::SECTOR;
use crate::journal::{Journal, OPENED_BELOW, Recovered};
use crate::layout::{Layout, Placement};
use crate::metadata::{Metadata, fresh_slots, ring_of};
use crate::slot_bits::SlotBits;
use crate::superblock::{IMPOSSIBLE_SEQUENCE, SUPERBLOCK_SIZE, Superblock, Unusable};
use crate::unit::{Identity, Level, Unit};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use thiserror::Error;

/// Longest single read, in bytes.
const LONGEST_READ: u32 = 128 * 1024;
/// A longer read that failed is repeated in pieces of this size.
const RETRY: u32 = 4096;
/// Most reads of bitmap units in one step: bounds the memory, not the units.
const READS_PER_STEP: usize = 32;

/// What to do next.
#[derive(Clone, Debug)]
pub enum OpenStep {
    /// Read these (offset, length), and hand the results to the next step in the same order. A
    /// result of another length counts as an error.
    Read(Vec<(u64, u32)>),
    /// Done.
    Done(Box<Opened>),
    /// Refused; nothing was changed.
    Refused(OpenError),
}

/// Metadata as found.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The metadata, recovered.
    pub metadata: Metadata,
    /// A superblock copy, or a sector of the log or of a bitmap, was bad or older than the rest;
    /// the first commit repairs it. Run it before telling anybody what was found.
    pub repaired: bool,
    /// Extents that were active, in order. They still are.
    pub recovered_extents: Vec<u32>,
    /// The log was not to be believed, and every bit of every slot is set.
    pub log_lost: bool,
    /// Bitmap sectors that were not to be believed; their bits are set.
    pub bad_units: u64,
}

/// Why metadata is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// There is none.
    #[error("no metadata found")]
    NoMetadata,
    /// There is some, and none of it can be believed.
    #[error("the metadata is corrupt: {why}")]
    Corrupt {
        /// What is wrong.
        why: &'static str,
    },
    /// It was written for another place: the device was moved, or is another one.
    #[error("the superblock at offset {found} was written for offset {recorded}")]
    WrongPlace {
        /// Where it was written.
        recorded: u64,
        /// Where it was found.
        found: u64,
    },
    /// It has a version this program does not know.
    #[error("metadata format version {version} is not known to this program")]
    UnknownVersion {
        /// The version found.
        version: u32,
    },
    /// It uses features this program does not know.
    #[error("unknown metadata features: incompatible {incompat:#x}, read-only {ro_compat:#x}")]
    UnknownFeature {
        /// Unknown incompatible features.
        incompat: u32,
        /// Unknown read-only-compatible features.
        ro_compat: u32,
    },
    /// The device is not as large as it was.
    #[error("the device has {found} bytes, its metadata was made for {recorded}")]
    SizeChanged {
        /// Size in the superblock.
        recorded: u64,
        /// Size now.
        found: u64,
    },
}

/// The step machine that reads metadata.
#[derive(Clone, Debug)]
pub struct Opening {
    placement: Placement,
    device_size: u64,
    fetch: Fetch,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Start,
    Superblocks,
    Areas(Box<Found>),
    Units(Box<Found>, Box<Recovered>),
    Over,
}

/// What is known so far.
#[derive(Clone, Debug)]
struct Found {
    superblock: Superblock,
    layout: Layout,
    stale_copy: Option<usize>,
    slots: Vec<SlotBits>,
    /// The next unit to ask for: slot and index.
    cursor: (usize, u32),
    /// Units asked for in this step.
    asked: Vec<(usize, u32)>,
    bad_units: u64,
}

impl Opening {
    /// Starts to open the metadata of a device or file of `device_size` bytes. Call
    /// [`Self::step`] with no results first.
    pub fn new(placement: Placement, device_size: u64) -> Self {
        Self { placement, device_size, fetch: Fetch::default(), state: State::Start }
    }

    /// Takes the results of the reads last asked for, in order, and says what is next. Panics
    /// after `Done` or `Refused`, or when the results are not as many as the reads.
    pub fn step(&mut self, results: Vec<Result<Vec<u8>, ()>>) -> OpenStep {
        if let Some(again) = self.fetch.take(results) {
            return OpenStep::Read(again);
        }
        match core::mem::replace(&mut self.state, State::Over) {
            State::Start => self.ask_superblocks(),
            State::Superblocks => match self.choose_superblock() {
                Ok(found) => self.ask_areas(found),
                Err(error) => OpenStep::Refused(error),
            },
            State::Areas(mut found) => {
                let log = self.read_areas(&mut found);
                if found.superblock.sequence.max(log.journal.next_sequence()) > OPENED_BELOW {
                    return OpenStep::Refused(OpenError::Corrupt { why: IMPOSSIBLE_SEQUENCE });
                }
                self.ask_units(found, Box::new(log))
            }
            State::Units(mut found, log) => {
                self.read_units(&mut found);
                self.ask_units(found, log)
            }
            State::Over => panic!("a step after the last"),
        }
    }

    fn ask_superblocks(&mut self) -> OpenStep {
        let Some(offsets) = Layout::superblock_offsets(self.device_size, self.placement) else {
            return OpenStep::Refused(OpenError::NoMetadata);
        };
        self.state = State::Superblocks;
        let reads = offsets.map(|offset| (offset, SUPERBLOCK_SIZE as u32)).to_vec();
        OpenStep::Read(self.fetch.ask(reads))
    }

    /// The newer of the valid copies. MD-3: one bad copy is repaired, two are refused.
    fn choose_superblock(&self) -> Result<Found, OpenError> {
        let offsets =
            Layout::superblock_offsets(self.device_size, self.placement).expect("asked for before");
        let copies = offsets.map(|offset| {
            let record = self.fetch.bytes(offset, SUPERBLOCK_SIZE);
            record.map_or(Err(Bad::Unreadable), |record| {
                Superblock::decode(record, offset).map_err(Bad::Unusable)
            })
        });
        // A newer program was here. Its other copy may be older than what it did since.
        for copy in &copies {
            match copy {
                Err(Bad::Unusable(Unusable::Version(version))) => {
                    return Err(OpenError::UnknownVersion { version: *version });
                }
                Err(Bad::Unusable(Unusable::Feature { incompat, ro_compat })) => {
                    let (incompat, ro_compat) = (*incompat, *ro_compat);
                    return Err(OpenError::UnknownFeature { incompat, ro_compat });
                }
                _ => {}
            }
        }
        let (mut superblock, stale_copy) = match copies {
            [Ok(first), Ok(second)] if first == second => (first, None),
            [Ok(first), Ok(second)] => {
                if first.device_uuid != second.device_uuid {
                    return Err(OpenError::Corrupt { why: "the two copies are of two devices" });
                }
                match first.sequence.cmp(&second.sequence) {
                    core::cmp::Ordering::Greater => (first, Some(1)),
                    core::cmp::Ordering::Less => (second, Some(0)),
                    core::cmp::Ordering::Equal => {
                        let why = "the two copies differ and are of the same age";
                        return Err(OpenError::Corrupt { why });
                    }
                }
            }
            [Ok(good), Err(_)] => (good, Some(1)),
            [Err(_), Ok(good)] => (good, Some(0)),
            [Err(first), Err(second)] => return Err(refusal(first, second, offsets)),
        };
        if stale_copy.is_some() {
            // The bad copy may have been the newer one, and may become readable again: what we
            // write next must not have its number.
            superblock.sequence += 1;
        }
        if superblock.placement != self.placement {
            return Err(OpenError::Corrupt { why: "it was made for the other kind of placement" });
        }
        let layout = superblock.layout().expect("checked when it was decoded");
        let same_size = match self.placement {
            Placement::Internal => superblock.device_size == self.device_size,
            Placement::External => layout.metadata_area().end <= self.device_size,
        };
        if !same_size {
            let recorded = superblock.device_size;
            return Err(OpenError::SizeChanged { recorded, found: self.device_size });
        }
        let slots = fresh_slots(&superblock);
        Ok(Found {
            superblock,
            layout,
            stale_copy,
            slots,
            cursor: (0, 0),
            asked: Vec::new(),
            bad_units: 0,
        })
    }

    fn ask_areas(&mut self, found: Found) -> OpenStep {
        let sectors = found.superblock.al_sectors;
        let mut reads = pieces(found.layout.log_sector(0), sectors);
        for (slot, bits) in found.slots.iter().enumerate() {
            reads.extend(pieces(found.layout.summary(slot, 0), bits.summary_count()));
        }
        self.state = State::Areas(Box::new(found));
        OpenStep::Read(self.fetch.ask(reads))
    }

    fn read_areas(&self, found: &mut Found) -> Recovered {
        let ring = ring_of(&found.superblock);
        let sector = |position| {
            let bytes = self.fetch.bytes(found.layout.log_sector(position), SECTOR)?;
            ring.decode(bytes, position)
        };
        let sectors: Vec<_> = (0..ring.sectors).map(sector).collect();
        let log = Journal::recover(ring, &sectors, found.superblock.log_floor);
        for slot in 0..found.slots.len() {
            for index in 0..found.slots[slot].summary_count() {
                let offset = found.layout.summary(slot, index);
                let summary = self.unit(found, slot, Level::Summary, index, offset);
                let record = &found.superblock.slots[slot];
                let believed = found.slots[slot].load_summary(index, summary.as_ref(), record);
                found.bad_units += u64::from(!believed);
            }
        }
        log
    }

    /// Asks for the next units that the summaries name, or ends.
    fn ask_units(&mut self, mut found: Box<Found>, log: Box<Recovered>) -> OpenStep {
        let mut reads = Vec::new();
        found.asked.clear();
        while reads.len() < READS_PER_STEP && found.cursor.0 < found.slots.len() {
            let (slot, from) = found.cursor;
            let most = LONGEST_READ / SECTOR as u32;
            let Some(units) = found.slots[slot].next_written(from, most) else {
                found.cursor = (slot + 1, 0);
                continue;
            };
            found.cursor.1 = units.end;
            reads.extend(pieces(found.layout.unit(slot, units.start), units.len() as u32));
            found.asked.extend(units.map(|unit| (slot, unit)));
        }
        if reads.is_empty() {
            return OpenStep::Done(Box::new(finish(*found, *log)));
        }
        self.state = State::Units(found, log);
        OpenStep::Read(self.fetch.ask(reads))
    }

    fn read_units(&self, found: &mut Found) {
        for (slot, index) in core::mem::take(&mut found.asked) {
            let offset = found.layout.unit(slot, index);
            let unit = self.unit(found, slot, Level::Unit, index, offset);
            let epoch = found.superblock.slots[slot].epoch;
            let believed = found.slots[slot].load_unit(index, unit.as_ref(), epoch);
            found.bad_units += u64::from(!believed);
        }
    }

    /// A sector of a slot, if it can be believed.
    fn unit(
        &self,
        found: &Found,
        slot: usize,
        level: Level,
        index: u32,
        offset: u64,
    ) -> Option<Unit> {
        let device_uuid = found.superblock.device_uuid;
        let identity = Identity { device_uuid, slot, level, index };
        Unit::decode(self.fetch.bytes(offset, SECTOR)?, identity)
    }
}

/// Why a superblock copy is no use.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Unreadable,
    Unusable(Unusable),
}

/// What to say when both copies are bad: what says most about what happened.
fn refusal(first: Bad, second: Bad, offsets: [u64; 2]) -> OpenError {
    let corrupt = |why| OpenError::Corrupt { why };
    let both = [(first, offsets[0]), (second, offsets[1])];
    for (bad, found) in both {
        if let Bad::Unusable(Unusable::WrongPlace { recorded }) = bad {
            return OpenError::WrongPlace { recorded, found };
        }
    }
    for (bad, _) in both {
        match bad {
            Bad::Unusable(Unusable::Malformed(why)) => return corrupt(why),
            Bad::Unusable(Unusable::Checksum) => return corrupt("wrong checksum"),
            Bad::Unreadable => return corrupt("the superblock cannot be read"),
            Bad::Unusable(_) => {}
        }
    }
    OpenError::NoMetadata
}

fn finish(found: Found, log: Recovered) -> Opened {
    let Found { superblock, layout, stale_copy, slots, bad_units, .. } = found;
    let log_lost = log.lost;
    let log_bad = log.journal.needs_repair();
    let metadata = Metadata::recovered(superblock, layout, slots, log, stale_copy, bad_units);
    let recovered_extents = metadata.active_extents().collect();
    let repaired = stale_copy.is_some() || log_bad || bad_units > 0;
    Opened { metadata, repaired, recovered_extents, log_lost, bad_units }
}

/// The reads of one step, and what came of them.
#[derive(Clone, Debug, Default)]
struct Fetch {
    asked: Vec<(u64, u32)>,
    got: BTreeMap<u64, Vec<u8>>,
}

impl Fetch {
    /// Forgets what was read before, and asks for more.
    fn ask(&mut self, reads: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
        self.got.clear();
        self.asked.clone_from(&reads);
        reads
    }

    /// Takes results; says what to read again. A bad sector must not take its neighbours with
    /// it, so a long read that fails is repeated in pieces.
    fn take(&mut self, results: Vec<Result<Vec<u8>, ()>>) -> Option<Vec<(u64, u32)>> {
        let asked = core::mem::take(&mut self.asked);
        assert_eq!(asked.len(), results.len(), "one result for each read");
        let mut again = Vec::new();
        for ((offset, len), result) in asked.into_iter().zip(results) {
            match result {
                Ok(bytes) if bytes.len() == len as usize => {
                    self.got.insert(offset, bytes);
                }
                _ if len > RETRY => {
                    let parts = (0..len).step_by(RETRY as usize);
                    again.extend(parts.map(|at| (offset + u64::from(at), RETRY.min(len - at))));
                }
                _ => {}
            }
        }
        self.asked.clone_from(&again);
        (!again.is_empty()).then_some(again)
    }

    /// Bytes read, unless the read failed.
    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let (start, bytes) = self.got.range(..=offset).next_back()?;
        let at = usize::try_from(offset - start).ok()?;
        bytes.get(at..at.checked_add(len)?)
    }
}

/// Reads of `count` sectors from `offset`.
fn pieces(offset: u64, count: u32) -> Vec<(u64, u32)> {
    let mut reads = vec![];
    let mut at = 0;
    let total = u64::from(count) * SECTOR as u64;
    while at < total {
        let len = (total - at).min(u64::from(LONGEST_READ));
        reads.push((offset + at, len as u32));
        at += len;
    }
    reads
}

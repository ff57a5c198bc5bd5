//! A long random life of one volume's metadata against a model: requests, commits that overlap
//! with requests, crashes at any write, and what must be known after each (COV-1, COV-4, MD-1,
//! MD-2), with the activity log's answers checked one by one.

mod common;

use bitmap::{Activation, Generation, MetaWrite, Metadata, Placement, Superblock, Ticket};
use common::{Disk, Random, bits, check_stages, formatted, params, sectors};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::OnceLock;

const AL_SLOTS: u32 = 5;
const PEERS: u8 = 2;

#[derive(Clone, Debug)]
enum Op {
    /// A write arrives: it needs its extents, and is on one disk only until it ends.
    Write(u64, u64),
    /// The oldest write ends: the peers have it, or they miss it.
    End(bool),
    Retire(u8),
    RetireOldest,
    Touch(u8),
    Resynced(u8, u64, u64),
    FullySynced(u8),
    Fill(u8),
    /// Bits that no active extent covers; they count once they are synced.
    Mark(u8, u64, u64),
    Sync,
    Mint,
    Commit,
    Start,
    Finish,
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..PEERS;
    // Blocks near each other, in two units.
    let block = || prop_oneof![0..40_u64, 3830..3860_u64];
    prop_oneof![
        10 => (block(), 1..4_u64).prop_map(|(block, len)| Op::Write(block, len)),
        8 => any::<bool>().prop_map(Op::End),
        4 => any::<u8>().prop_map(Op::Retire),
        2 => Just(Op::RetireOldest),
        2 => any::<u8>().prop_map(Op::Touch),
        3 => (slot(), block(), 1..9_u64).prop_map(|(slot, block, len)| Op::Resynced(slot, block, len)),
        1 => slot().prop_map(Op::FullySynced),
        1 => slot().prop_map(Op::Fill),
        2 => (slot(), block(), 1..9_u64).prop_map(|(slot, block, len)| Op::Mark(slot, block, len)),
        2 => Just(Op::Sync),
        1 => Just(Op::Mint),
        5 => Just(Op::Commit),
        4 => Just(Op::Start),
        4 => Just(Op::Finish),
        2 => any::<u64>().prop_map(Op::Crash),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Stable,
    Sent,
    New,
}

/// What the log must answer: extents, the least recently used first.
#[derive(Clone, Debug, Default)]
struct LogModel {
    entries: Vec<(u32, Phase)>,
    retiring: BTreeSet<u32>,
}

impl LogModel {
    fn phase(&self, extent: u32) -> Option<Phase> {
        self.entries.iter().find(|entry| entry.0 == extent).map(|entry| entry.1)
    }

    fn active(&self) -> BTreeSet<u32> {
        let stays =
            |entry: &&(u32, Phase)| entry.1 == Phase::Stable && !self.retiring.contains(&entry.0);
        self.entries.iter().filter(stays).map(|entry| entry.0).collect()
    }

    fn free(&self) -> u32 {
        AL_SLOTS - self.entries.len() as u32 + self.retiring.len() as u32
    }

    /// The weakest phase, or how many are missing.
    fn activate(&mut self, extents: std::ops::Range<u32>) -> Result<Phase, u32> {
        let new = extents.clone().filter(|&extent| self.phase(extent).is_none()).count() as u32;
        let kept = extents.clone().filter(|extent| self.retiring.contains(extent)).count() as u32;
        if new > self.free() - kept {
            return Err(new - (self.free() - kept));
        }
        self.retiring.retain(|extent| !extents.contains(extent));
        let mut weakest = Phase::Stable;
        for extent in extents {
            let phase = self.phase(extent).unwrap_or(Phase::New);
            if let Some(at) = self.entries.iter().position(|entry| entry.0 == extent) {
                self.entries.remove(at);
            } else if self.entries.len() as u32 == AL_SLOTS {
                let victim = self.retiring.pop_first().expect("there is room");
                self.entries.retain(|entry| entry.0 != victim);
            }
            self.entries.push((extent, phase));
            weakest = weakest.max(phase);
        }
        Ok(weakest)
    }

    fn start(&mut self) {
        let retiring = std::mem::take(&mut self.retiring);
        self.entries.retain(|entry| !retiring.contains(&entry.0));
        for entry in &mut self.entries {
            entry.1 = entry.1.min(Phase::Sent);
        }
    }

    fn finish(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.1 == Phase::Sent) {
            entry.1 = Phase::Stable;
        }
    }
}

struct World {
    disk: Disk,
    metadata: Metadata,
    log: LogModel,
    /// Blocks in which a peer differs, and it must be known whatever happens.
    differs: Vec<BTreeSet<u64>>,
    /// Blocks written on one disk whose fate is open: only the log covers them.
    open: Vec<u64>,
    /// Bits that count as soon as the ticket is durable: ticket, slot, the slot's epoch, blocks.
    promised: Vec<(Ticket, usize, u32, Vec<u64>)>,
    marked: Vec<(usize, u32, Vec<u64>)>,
    durable_record: Superblock,
    flight: Option<(Vec<Vec<MetaWrite>>, Superblock, Ticket)>,
    generation: u64,
    crashes: u64,
}

fn record(metadata: &Metadata) -> Superblock {
    Superblock { sequence: 0, log_floor: 0, ..metadata.superblock().clone() }
}

impl World {
    fn new(placement: Placement) -> Self {
        // Made once: it is the larger part of a short life.
        static NEW: [OnceLock<(Disk, Metadata)>; 2] = [OnceLock::new(), OnceLock::new()];
        let (disk, metadata) = NEW[placement as usize].get_or_init(|| {
            let size = if placement == Placement::Internal { 1 << 24 } else { 160 * 1024 };
            let (mut disk, mut metadata) = formatted(params(placement, size, AL_SLOTS, PEERS));
            for slot in 0..usize::from(PEERS) {
                metadata.clear_all_bits(slot);
            }
            disk.commit(&mut metadata);
            disk.settle();
            (disk, metadata)
        });
        let (disk, metadata) = (disk.clone(), metadata.clone());
        Self {
            durable_record: record(&metadata),
            disk,
            metadata,
            log: LogModel::default(),
            differs: vec![BTreeSet::new(); PEERS.into()],
            open: Vec::new(),
            promised: Vec::new(),
            marked: Vec::new(),
            flight: None,
            generation: 0x10,
            crashes: 0,
        }
    }

    fn next_ticket(&self) -> Ticket {
        self.metadata.clone().edit(|_| {})
    }

    fn extents_of(&self, block: u64, len: u64) -> std::ops::Range<u32> {
        let geometry = self.metadata.geometry();
        let len = len.min(geometry.blocks().saturating_sub(block));
        geometry.extents_of(geometry.block_bytes(block..block + len))
    }

    fn blocks(&self, block: u64, len: u64) -> std::ops::Range<u64> {
        let end = self.metadata.geometry().blocks();
        block.min(end)..(block + len).min(end)
    }

    fn is_set(&self, slot: usize, block: u64) -> bool {
        self.metadata.bits(slot).any(block..block + 1)
    }

    fn retire(&mut self, extent: u32) {
        let blocks = self.metadata.geometry().extent_blocks(extent);
        // COV-4 is the caller's: no write of open fate.
        if self.open.iter().any(|block| blocks.contains(block)) {
            return;
        }
        let ticket = self.metadata.retire(extent);
        if self.log.phase(extent).is_some() {
            assert_eq!(ticket, self.next_ticket());
            self.log.retiring.insert(extent);
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Write(block, len) => self.write(block, len),
            Op::End(missed) => {
                if self.open.is_empty() {
                    return;
                }
                let block = self.open.remove(0);
                if self.open.contains(&block) {
                    return;
                }
                for slot in 0..usize::from(PEERS) {
                    if missed {
                        self.metadata.set_bits(slot, block..block + 1);
                    } else if !self.is_set(slot, block) {
                        self.differs[slot].remove(&block);
                    }
                }
            }
            Op::Retire(extent) => self.retire(u32::from(extent) % 20),
            Op::RetireOldest => {
                let even = |extent: u32| extent.is_multiple_of(2);
                let model = self.log.entries.iter().find(|(extent, phase)| {
                    *phase == Phase::Stable && even(*extent) && !self.log.retiring.contains(extent)
                });
                let oldest = self.metadata.oldest_active(even);
                assert_eq!(oldest, model.map(|entry| entry.0));
                if let Some(extent) = oldest {
                    self.retire(extent);
                }
            }
            Op::Touch(extent) => {
                let extent = u32::from(extent) % 20;
                self.metadata.touch(extent);
                let here = self.log.entries.iter().position(|entry| entry.0 == extent);
                if let Some(at) = here.filter(|_| !self.log.retiring.contains(&extent)) {
                    let entry = self.log.entries.remove(at);
                    self.log.entries.push(entry);
                }
            }
            Op::Resynced(slot, block, len) => {
                let slot = usize::from(slot);
                for block in self.blocks(block, len) {
                    if !self.open.contains(&block) {
                        self.differs[slot].remove(&block);
                        self.metadata.clear_bits(slot, block..block + 1);
                        // If it is set again, that is another bit.
                        let marked = self.marked.iter_mut().map(|mark| (mark.0, &mut mark.2));
                        let promised = self.promised.iter_mut().map(|mark| (mark.1, &mut mark.3));
                        for (_, blocks) in marked.chain(promised).filter(|mark| mark.0 == slot) {
                            blocks.retain(|&other| other != block);
                        }
                    }
                }
            }
            Op::FullySynced(slot) => {
                if self.open.is_empty() {
                    self.differs[usize::from(slot)].clear();
                    self.metadata.clear_all_bits(slot.into());
                }
            }
            Op::Fill(slot) => {
                self.metadata.fill_bits(slot.into());
            }
            Op::Mark(slot, block, len) => {
                let slot = usize::from(slot);
                let range = self.blocks(block, len);
                self.metadata.set_bits(slot, range.clone());
                let epoch = self.metadata.superblock().slots[slot].epoch;
                self.marked.push((slot, epoch, range.collect()));
            }
            Op::Sync => {
                let ticket = self.metadata.sync_bits();
                for (slot, epoch, blocks) in std::mem::take(&mut self.marked) {
                    self.promised.push((ticket, slot, epoch, blocks));
                }
                self.keep_promises();
            }
            Op::Mint => {
                self.generation += 0x10;
                let generation = Generation(self.generation);
                self.metadata.edit(|superblock| superblock.mint(generation, |_| true));
            }
            Op::Commit => {
                self.start();
                self.finish();
            }
            Op::Start => self.start(),
            Op::Finish => self.finish(),
            Op::Crash(seed) => self.crash(seed),
        }
    }

    fn write(&mut self, block: u64, len: u64) {
        let extents = self.extents_of(block, len);
        let sent = self.flight.as_ref().map(|flight| flight.2);
        let next = self.next_ticket();
        let expected = match self.log.activate(extents.clone()) {
            Ok(Phase::Stable) => Activation::Active,
            Ok(Phase::Sent) => Activation::Pending(sent.expect("a commit is in flight")),
            Ok(Phase::New) => Activation::Pending(next),
            Err(missing) => Activation::Full { missing },
        };
        assert_eq!(self.metadata.activate(extents.clone()), expected);
        if expected == Activation::Active {
            assert!(extents.clone().all(|extent| self.metadata.is_active(extent)));
            for block in self.blocks(block, len) {
                self.open.push(block);
                for differs in &mut self.differs {
                    differs.insert(block);
                }
            }
        }
    }

    fn start(&mut self) {
        if self.flight.is_some() {
            return;
        }
        let ticket = self.next_ticket();
        let needed = self.metadata.needs_commit();
        let Some(commit) = self.metadata.start_commit() else {
            assert!(!needed);
            return;
        };
        assert!(needed);
        check_stages(&commit.stages);
        self.log.start();
        self.flight = Some((commit.stages, record(&self.metadata), ticket));
    }

    fn finish(&mut self) {
        let Some((stages, record, ticket)) = self.flight.take() else { return };
        self.disk.write_stages(&stages);
        assert_eq!(self.metadata.finish_commit(), ticket);
        assert_eq!(self.metadata.durable(), ticket);
        self.durable_record = record;
        self.log.finish();
        self.keep_promises();
    }

    /// Bits whose ticket is durable must be known from now on, if nothing cleared them since.
    fn keep_promises(&mut self) {
        let durable = self.metadata.durable();
        for (ticket, slot, epoch, blocks) in std::mem::take(&mut self.promised) {
            if ticket > durable {
                self.promised.push((ticket, slot, epoch, blocks));
            } else if self.metadata.superblock().slots[slot].epoch == epoch {
                self.differs[slot].extend(blocks);
            }
        }
    }

    fn crash(&mut self, seed: u64) {
        let mut random = Random(seed | 1);
        let mut records = vec![self.durable_record.clone()];
        if let Some((stages, record, _)) = self.flight.take() {
            records.push(record);
            let whole = random.below(stages.len() as u64) as usize;
            self.disk.write_stages(&stages[..whole]);
            for (offset, sector) in stages[whole].iter().flat_map(sectors) {
                if random.below(2) == 0 {
                    self.disk.put(offset, sector);
                }
            }
        }
        let opened = self.disk.open().expect("a crash is no reason to refuse");
        self.crashes += 1;
        assert!(!opened.log_lost && opened.bad_units == 0, "nothing was corrupt");
        assert!(records.contains(&record(&opened.metadata)), "MD-1");
        for slot in 0..usize::from(PEERS) {
            let found: BTreeSet<u64> = bits(&opened.metadata, slot).iter().collect();
            let lost: Vec<_> = self.differs[slot].difference(&found).collect();
            assert!(lost.is_empty(), "COV-2: slot {slot} forgot {lost:?}");
        }
        assert!(opened.recovered_extents.len() <= AL_SLOTS as usize);
        self.metadata = opened.metadata;
        self.durable_record = record(&self.metadata);
        let entries = opened.recovered_extents.iter().map(|&extent| (extent, Phase::Stable));
        self.log = LogModel { entries: entries.collect(), retiring: BTreeSet::new() };
        // Which of the recovered ones is older nobody knows any more: settle the order.
        for &extent in &opened.recovered_extents {
            self.metadata.touch(extent);
        }
        self.open.clear();
        self.promised.clear();
        self.marked.clear();
    }

    fn check(&self) {
        let active: BTreeSet<u32> = self.metadata.active_extents().collect();
        assert_eq!(active, self.log.active());
        assert_eq!(self.metadata.log_free(), self.log.free());
        for slot in 0..usize::from(PEERS) {
            // COV-7: what is known to differ is what is counted.
            let count = bits(&self.metadata, slot).iter().count() as u64;
            assert_eq!(self.metadata.bits(slot).count(), count);
            let open: BTreeSet<u64> = self.open.iter().copied().collect();
            for block in self.differs[slot].difference(&open) {
                assert!(self.is_set(slot, *block), "block {block} of slot {slot}");
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_difference_is_known(
        internal in any::<bool>(),
        ops in prop::collection::vec(op(), 1..250),
        last in any::<u64>(),
    ) {
        let placement = if internal { Placement::Internal } else { Placement::External };
        let mut world = World::new(placement);
        for op in ops.iter().chain([&Op::Crash(last), &Op::Start, &Op::Crash(!last)]) {
            world.run(op);
            world.check();
        }
        prop_assert!(world.crashes >= 2);
    }
}

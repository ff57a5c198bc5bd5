//! Every crash inside every metadata operation (reliability: MD-1, MD-2).
//!
//! The writes of an operation's commit are recorded stage by stage. For every stage, every subset
//! of its sectors (every subset of its writes with every tear, or a sample, where there are too
//! many) is put on the disk before, and the result is opened. What must hold then is derived
//! from the state before and the state after, never from the code under test. From every
//! different state found that way the same is done again with the first commit after recovery.

mod common;

use bitmap::{Activation, Generation, MetaWrite, Metadata, NodeId, OpenError, Opened, Placement};
use bitmap::{FormatParams, Superblock};
use common::{
    Blocks, Disk, Random, Sector, bits, blocks_of, check_stages, formatted, params, sectors,
};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

const INTERNAL: u64 = 640 * 1024 + 512;
const EXTERNAL: u64 = 160 * 1024;

/// How many of the subsets of a stage are tried.
#[derive(Clone, Copy)]
struct Effort {
    /// Sectors, or writes, up to which it is every subset.
    exhaustive: usize,
    /// How many it is beyond.
    samples: u64,
}

/// Inside an operation.
const FULL: Effort = Effort { exhaustive: 10, samples: 6000 };
/// Inside the first commit after each of the recoveries.
const AGAIN: Effort = Effort { exhaustive: 8, samples: 200 };

#[derive(Default)]
struct Tally {
    opened: u64,
    recoveries: u64,
}

/// Calls `visit` with every disk that a crash inside these stages can leave, and whether all is
/// done.
fn each_crash(
    disk: &Disk,
    stages: &[Vec<MetaWrite>],
    effort: Effort,
    mut visit: impl FnMut(&Disk, bool),
) {
    let mut done = disk.clone();
    visit(&done, false);
    for (n, stage) in stages.iter().enumerate() {
        let writes: Vec<Vec<(u64, Sector)>> = stage.iter().map(sectors).collect();
        let all: Vec<(u64, Sector)> = writes.concat();
        let mut crash = |lands: &dyn Fn(usize) -> bool| {
            let mut torn = done.clone();
            for (at, (offset, sector)) in all.iter().enumerate() {
                if lands(at) {
                    torn.put(*offset, *sector);
                }
            }
            visit(&torn, false);
        };
        if all.len() <= effort.exhaustive {
            for subset in 1..(1_usize << all.len()) - 1 {
                crash(&|at| subset >> at & 1 == 1);
            }
        } else {
            // Which write a sector belongs to, and its place in it.
            let place: Vec<(usize, usize)> = writes
                .iter()
                .enumerate()
                .flat_map(|(n, write)| (0..write.len()).map(move |at| (n, at)))
                .collect();
            let count = writes.len();
            let torn: u64 = writes.iter().map(|write| 2 * write.len() as u64).sum();
            let subsets = if count <= effort.exhaustive { 1_u64 << count } else { u64::MAX };
            let mut random = Random(all.len() as u64 + 77);
            if subsets.saturating_mul(torn + 1) <= effort.samples {
                for subset in 0..subsets {
                    crash(&|at| subset >> place[at].0 & 1 == 1);
                    for (victim, write) in writes.iter().enumerate() {
                        for cut in 1..write.len() {
                            // The front lands, or the rest does.
                            for front in [true, false] {
                                crash(&|at| {
                                    let (owner, index) = place[at];
                                    if owner == victim {
                                        (index < cut) == front
                                    } else {
                                        subset >> owner & 1 == 1
                                    }
                                });
                            }
                        }
                    }
                }
            } else {
                for _ in 0..effort.samples {
                    let subset = random.next();
                    let victim = random.below(count as u64) as usize;
                    let cut = random.below(writes[victim].len() as u64 + 1) as usize;
                    let front = random.below(2) == 0;
                    crash(&|at| {
                        let (owner, index) = place[at];
                        if owner == victim {
                            (index < cut) == front
                        } else {
                            subset >> (owner % 64) & 1 == 1
                        }
                    });
                }
            }
            // Within a write the disk has no order either.
            for _ in 0..effort.samples / 4 {
                let density = 1 + random.below(7);
                let lands: Vec<bool> = all.iter().map(|_| random.below(8) < density).collect();
                crash(&|at| lands[at]);
            }
        }
        done.write_stages(std::slice::from_ref(stage));
        visit(&done, n + 1 == stages.len());
    }
}

/// A superblock without its counters.
fn record(metadata: &Metadata) -> Superblock {
    Superblock { sequence: 0, log_floor: 0, ..metadata.superblock().clone() }
}

/// What tells two recovered states apart: what was found, and what the next commit would write.
fn digest(opened: &Opened) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", opened.metadata.superblock()).hash(&mut hasher);
    opened.recovered_extents.hash(&mut hasher);
    for slot in 0..opened.metadata.superblock().slots.len() {
        bits(&opened.metadata, slot).hash(&mut hasher);
    }
    let mut next = opened.metadata.clone();
    next.sync_bits();
    for write in next.start_commit().iter().flat_map(|commit| commit.stages.iter().flatten()) {
        sectors(write).hash(&mut hasher);
    }
    hasher.finish()
}

/// What is known before the crash, against which every state after it is checked.
struct Truth {
    name: String,
    old_record: Superblock,
    new_record: Superblock,
    slots: Vec<SlotTruth>,
    old_active: BTreeSet<u32>,
    new_active: BTreeSet<u32>,
}

struct SlotTruth {
    /// Covered before, and still to be covered.
    must: Blocks,
    /// Found when all is done.
    after: Blocks,
    /// May be found at any time.
    may: Blocks,
}

impl Truth {
    fn new(name: &str, before: &Opened, pending: &Metadata, after: &Metadata) -> Self {
        let old_active: BTreeSet<u32> = before.recovered_extents.iter().copied().collect();
        let new_active: BTreeSet<u32> = after.active_extents().collect();
        let kept = blocks_of(after, old_active.intersection(&new_active).copied());
        let slots = (0..pending.superblock().slots.len()).map(|slot| {
            let found = bits(&before.metadata, slot);
            let memory = bits(pending, slot);
            // Clearing all takes back what earlier commits made durable; what was set again is
            // covered by the log, or not yet.
            let (old, new) =
                (before.metadata.superblock().slots[slot], pending.superblock().slots[slot]);
            let cleared = old.epoch != new.epoch && !new.default_set;
            let covered =
                if cleared { blocks_of(after, old_active.iter().copied()) } else { found.clone() };
            let must = memory.intersection(&covered).union(&kept);
            let after_bits = memory.union(&blocks_of(after, new_active.iter().copied()));
            let mut may = found.union(&after_bits);
            if old.epoch != new.epoch && new.default_set {
                may.insert(0..pending.geometry().blocks());
            }
            SlotTruth { must, after: after_bits, may }
        });
        let slots = slots.collect();
        Self {
            name: name.to_owned(),
            old_record: record(&before.metadata),
            new_record: record(after),
            slots,
            old_active,
            new_active,
        }
    }

    fn check(&self, opened: &Opened, done: bool) {
        let name = &self.name;
        let found = record(&opened.metadata);
        // MD-1: the old record or the new one, whole, and the new one when it was relied upon.
        assert!(found == self.new_record || (!done && found == self.old_record), "{name}: MD-1");
        // MD-2: nothing was corrupt, so nothing is given up.
        assert!(!opened.log_lost, "{name}: MD-2, the log is lost");
        assert_eq!(opened.bad_units, 0, "{name}: MD-2, bad units");
        let recovered: BTreeSet<u32> = opened.recovered_extents.iter().copied().collect();
        let known: BTreeSet<u32> = self.old_active.union(&self.new_active).copied().collect();
        assert!(recovered.is_subset(&known), "{name}: MD-2, extents from nowhere");
        if done {
            assert_eq!(recovered, self.new_active, "{name}: MD-2, extents");
            assert!(!opened.repaired, "{name}: nothing to repair");
        }
        for (slot, truth) in self.slots.iter().enumerate() {
            let found = bits(&opened.metadata, slot);
            if done {
                assert_eq!(found, truth.after, "{name}: MD-2, bits of slot {slot}");
            }
            let lost: Vec<_> = truth.must.difference(&found).iter().collect();
            assert!(lost.is_empty(), "{name}: MD-2, slot {slot} lost {lost:?}");
            let extra: Vec<_> = found.difference(&truth.may).iter().collect();
            assert!(extra.is_empty(), "{name}: MD-2, slot {slot} from nowhere {extra:?}");
        }
    }
}

/// Crashes everywhere inside the commit of `pending`, and inside the first commit after each
/// recovery, `depth` times.
fn explore(name: &str, disk: &Disk, mut pending: Metadata, depth: u32, tally: &mut Tally) {
    let before = disk.open().unwrap_or_else(|error| panic!("{name}: before: {error}"));
    let memory = pending.clone();
    let commit = pending.start_commit().unwrap_or_else(|| panic!("{name}: nothing to write"));
    check_stages(&commit.stages);
    pending.finish_commit();
    assert!(!pending.needs_commit(), "{name}: one commit takes everything");
    let truth = Truth::new(name, &before, &memory, &pending);
    let effort = if depth == 2 { FULL } else { AGAIN };
    let mut states: BTreeMap<u64, (Disk, Opened)> = BTreeMap::new();
    each_crash(disk, &commit.stages, effort, |torn, done| {
        let opened = torn.open().unwrap_or_else(|error| panic!("{name}: refused: {error}"));
        tally.opened += 1;
        truth.check(&opened, done);
        if depth > 1 {
            states.entry(digest(&opened)).or_insert_with(|| (torn.clone(), opened));
        }
    });
    for (torn, opened) in states.into_values() {
        tally.recoveries += 1;
        if opened.metadata.needs_commit() {
            let name = format!("{name}, repair");
            explore(&name, &torn, opened.metadata.clone(), depth - 1, tally);
        }
        // The first commit may carry everything a node does after an attach. The edit reaches
        // over two sectors of the superblock, so that a tear of it is neither old nor new.
        let mut metadata = opened.metadata;
        metadata.sync_bits();
        metadata.edit(|superblock| {
            superblock.flags.crashed_primary ^= true;
            superblock.slots[0].flags.outdated ^= true;
        });
        for &extent in opened.recovered_extents.iter().take(5) {
            metadata.retire(extent);
        }
        let free = metadata.geometry().extents() - 3;
        metadata.activate(free..free + 1);
        explore(&format!("{name}, resume"), &torn, metadata, depth - 1, tally);
    }
}

/// A disk with a past: generations, bits in several units, active extents, a ring that came round.
fn lived_in(params: FormatParams) -> (Disk, Metadata) {
    let (mut disk, mut metadata) = formatted(params);
    for slot in 0..metadata.superblock().slots.len() {
        metadata.clear_all_bits(slot);
    }
    metadata.edit(|superblock| {
        superblock.mint(Generation(0x1001), |_| false);
        superblock.flags.consistent = true;
        superblock.flags.was_up_to_date = true;
    });
    disk.commit(&mut metadata);
    metadata.edit(|superblock| superblock.mint(Generation(0x2001), |_| true));
    let blocks = metadata.geometry().blocks();
    for slot in 0..metadata.superblock().slots.len() {
        for block in [0, 1, 7, 40, blocks / 2, blocks - 1] {
            metadata.set_bits(slot, block..block + 1);
        }
    }
    metadata.sync_bits();
    disk.commit(&mut metadata);
    for round in 0..40 {
        let extent = 2 + round % 3;
        metadata.activate(extent..extent + 1);
        disk.commit(&mut metadata);
        metadata.retire(extent);
        disk.commit(&mut metadata);
    }
    assert_eq!(metadata.activate(4..6), Activation::Pending(next(&metadata)));
    metadata.set_bits(0, 9..10);
    disk.commit(&mut metadata);
    disk.settle();
    (disk, metadata)
}

/// The ticket a request made now gets.
fn next(metadata: &Metadata) -> bitmap::Ticket {
    let mut metadata = metadata.clone();
    metadata.edit(|_| {})
}

fn each_device(mut test: impl FnMut(&str, Disk, Metadata)) {
    for (name, placement, size, slots, peers) in [
        ("internal", Placement::Internal, INTERNAL, 4, 1),
        ("external", Placement::External, EXTERNAL, 3, 2),
    ] {
        let (disk, metadata) = lived_in(params(placement, size, slots, peers));
        test(name, disk, metadata);
    }
}

fn operation(name: &str, request: impl Fn(&mut Metadata)) {
    let mut tally = Tally::default();
    each_device(|device, disk, mut metadata| {
        request(&mut metadata);
        explore(&format!("{name}, {device}"), &disk, metadata, 2, &mut tally);
    });
    println!("{name}: {} opened, {} recoveries crashed again", tally.opened, tally.recoveries);
    assert!(tally.opened > 200, "{name}: only {} states", tally.opened);
}

#[test]
fn mint() {
    operation("mint", |metadata| {
        metadata.edit(|superblock| superblock.mint(Generation(0x3001), |_| true));
    });
}

#[test]
fn flag_edit() {
    operation("flag edit", |metadata| {
        metadata.edit(|superblock| superblock.flags.primary_ind = true);
    });
}

#[test]
fn adopt_at_the_end_of_a_resync() {
    operation("adopt", |metadata| {
        metadata.edit(|superblock| {
            superblock.adopt(Generation(0x5001), &[Generation(0x4001), Generation(0x2001)]);
            superblock.flags.was_up_to_date = true;
        });
        metadata.clear_all_bits(0);
    });
}

#[test]
fn peer_in_sync() {
    operation("peer in sync", |metadata| {
        metadata.edit(|superblock| superblock.peer_in_sync(NodeId(1)));
        let blocks = metadata.geometry().blocks();
        metadata.clear_bits(0, 0..blocks);
        metadata.sync_bits();
    });
}

#[test]
fn activate() {
    operation("activate", |metadata| {
        assert!(matches!(metadata.activate(20..21), Activation::Pending(_)));
    });
}

#[test]
fn activate_many_sectors() {
    let mut params = params(Placement::External, EXTERNAL, 200, 1);
    params.al_sectors += 3;
    let (mut disk, mut metadata) = lived_in(params);
    let mut tally = Tally::default();
    metadata.activate(30..70);
    disk.commit(&mut metadata);
    for extent in 40..60 {
        metadata.retire(extent);
    }
    metadata.set_bits(0, 85..110);
    assert!(matches!(metadata.activate(100..258), Activation::Pending(_)));
    explore("activate many", &disk, metadata, 2, &mut tally);
    println!("activate many: {} opened", tally.opened);
}

#[test]
fn retire_with_set_bits() {
    operation("retire", |metadata| {
        metadata.set_bits(0, 8..12);
        metadata.retire(4);
        metadata.retire(5);
    });
}

#[test]
fn retire_gives_its_place_away() {
    operation("swap", |metadata| {
        metadata.set_bits(0, 8..10);
        metadata.retire(4);
        let room = metadata.log_free();
        assert!(matches!(metadata.activate(30..30 + room), Activation::Pending(_)));
        // It comes back, in another place if there is one.
        assert!(!matches!(metadata.activate(4..5), Activation::Active));
    });
}

/// An extent that was retired, lost its place, and came back in another one of the same batch:
/// half of that is the extent twice, or not at all.
#[test]
fn an_extent_changes_its_place() {
    let mut tally = Tally::default();
    let (mut disk, mut metadata) = lived_in(params(Placement::External, EXTERNAL, 130, 1));
    metadata.activate(10..130);
    let room = metadata.log_free();
    metadata.activate(140..140 + room);
    disk.commit(&mut metadata);
    for extent in 10..130 {
        metadata.retire(extent);
    }
    metadata.set_bits(0, 20..60);
    assert!(matches!(metadata.activate(200..310), Activation::Pending(_)));
    assert!(matches!(metadata.activate(10..13), Activation::Pending(_)));
    explore("moved", &disk, metadata, 2, &mut tally);
    println!("moved: {} opened, {} recoveries", tally.opened, tally.recoveries);
    assert!(tally.recoveries >= 4);
}

#[test]
fn log_wrap_around() {
    let mut tally = Tally::default();
    // A log of three sectors a batch; start at each position of the ring, the last few included.
    let params = params(Placement::External, EXTERNAL, 130, 1);
    let ring = params.al_sectors;
    let (mut disk, mut metadata) = lived_in(params);
    metadata.activate(10..70);
    disk.commit(&mut metadata);
    for position in 0..ring {
        let mut here = metadata.clone();
        for extent in 10..70 {
            here.retire(extent);
        }
        here.set_bits(0, 20..60);
        assert!(matches!(here.activate(200..320), Activation::Pending(_)));
        let depth = if position % 5 == 0 { 2 } else { 1 };
        explore(&format!("wrap at {position}"), &disk, here, depth, &mut tally);
        metadata.activate(5..6);
        metadata.retire(5);
        metadata.activate(5..6);
        metadata.activate(700 + position..701 + position);
        disk.commit(&mut metadata);
        metadata.retire(700 + position);
        disk.commit(&mut metadata);
    }
    println!("wrap: {} opened, {} recoveries", tally.opened, tally.recoveries);
}

#[test]
fn fill() {
    operation("fill", |metadata| {
        metadata.fill_bits(0);
    });
    operation("fill and clear some", |metadata| {
        metadata.fill_bits(0);
        metadata.clear_bits(0, 3..30);
        metadata.sync_bits();
    });
}

#[test]
fn clear_all() {
    operation("clear all", |metadata| {
        metadata.clear_all_bits(0);
    });
    operation("clear all and set some that are active", |metadata| {
        metadata.clear_all_bits(0);
        metadata.set_bits(0, 8..11);
        metadata.retire(4);
        metadata.sync_bits();
    });
}

#[test]
fn sync_after_set_and_clear() {
    operation("sync", |metadata| {
        metadata.clear_bits(0, 0..5);
        metadata.set_bits(0, 50..60);
        metadata.sync_bits();
    });
    operation("sync a unit never written", |metadata| {
        let blocks = metadata.geometry().blocks();
        metadata.set_bits(0, blocks / 4..blocks / 4 + 1);
        metadata.sync_bits();
    });
    operation("sync a unit that is clean again", |metadata| {
        let half = metadata.geometry().blocks() / 2;
        metadata.clear_bits(0, half - 1..half + 1);
        metadata.set_bits(0, 70..71);
        metadata.sync_bits();
    });
}

/// A unit whose place on disk holds what it was before it became all default.
#[test]
fn a_unit_that_was_default_and_is_not_again() {
    let mut tally = Tally::default();
    each_device(|device, mut disk, mut metadata| {
        for value in [true, false] {
            let all = 0..metadata.geometry().blocks();
            let put = |metadata: &mut Metadata, range, value| {
                if value { metadata.set_bits(0, range) } else { metadata.clear_bits(0, range) }
            };
            if value {
                metadata.fill_bits(0);
            } else {
                metadata.clear_all_bits(0);
            }
            put(&mut metadata, 20..70, !value);
            metadata.sync_bits();
            disk.commit(&mut metadata);
            put(&mut metadata, all.clone(), value);
            metadata.sync_bits();
            disk.commit(&mut metadata);
            let mut changed = metadata.clone();
            put(&mut changed, 0..9, !value);
            changed.sync_bits();
            explore(&format!("default {value}, {device}"), &disk, changed, 2, &mut tally);
        }
    });
    assert!(tally.opened > 200);
}

#[test]
fn everything_at_once() {
    operation("everything", |metadata| {
        metadata.set_bits(0, 8..12);
        metadata.clear_bits(0, 40..41);
        metadata.retire(5);
        metadata.activate(11..13);
        metadata.sync_bits();
        metadata.edit(|superblock| {
            superblock.peer_in_sync(NodeId(1));
            superblock.mint(Generation(0x7001), |_| true);
        });
    });
}

/// Also from states a crash left: one copy bad or older, a hole in the ring.
#[test]
fn first_open_and_repair() {
    let mut tally = Tally::default();
    each_device(|device, disk, metadata| {
        let copies = copies(&disk);
        for bad in copies {
            let mut disk = disk.clone();
            disk.unreadable.extend((0..8).map(|n| bad + n * 512));
            let opened = disk.open().expect("one copy is good");
            assert!(opened.repaired && opened.metadata.needs_commit());
            assert_eq!(record(&opened.metadata), record(&metadata));
            explore(&format!("repair {bad}, {device}"), &disk, opened.metadata, 2, &mut tally);
        }
        let opened = disk.open().expect("it is good");
        assert!(!opened.repaired && !opened.metadata.needs_commit());
        let mut metadata = opened.metadata;
        metadata.sync_bits();
        explore(&format!("first open, {device}"), &disk, metadata, 2, &mut tally);
    });
    assert!(tally.opened > 1000);
}

/// Offsets of the superblock copies.
fn copies(disk: &Disk) -> [u64; 2] {
    bitmap::Layout::superblock_offsets(disk.size(), disk.placement).expect("it is large enough")
}

/// A crash inside create-md leaves what was there, nothing, or the new metadata; never a mixture.
#[test]
fn format() {
    for (placement, size) in [(Placement::Internal, INTERNAL), (Placement::External, EXTERNAL)] {
        let mut old_params = params(placement, size, 5, 2);
        old_params.device_uuid = 0xdead;
        old_params.al_sectors += 1;
        let (old_disk, _) = lived_in(old_params);
        let old = old_disk.open().expect("it is good");
        let virgin = Disk::new(placement, size);
        for (name, disk) in [("virgin", &virgin), ("over old", &old_disk)] {
            let new = Metadata::format(params(placement, size, 4, 1)).expect("it fits");
            let (metadata, stages) = new;
            check_stages(&stages);
            let (mut none, mut olds, mut news) = (0, 0, 0);
            let mut repairs = BTreeMap::new();
            each_crash(disk, &stages, FULL, |torn, done| match torn.open() {
                Ok(opened) if opened.metadata.superblock().device_uuid == 0xdead => {
                    assert!(!done, "{name}");
                    assert_eq!(record(&opened.metadata), record(&old.metadata), "{name}");
                    assert_eq!(opened.recovered_extents, old.recovered_extents, "{name}");
                    assert!(!opened.log_lost && opened.bad_units == 0, "{name}");
                    for slot in 0..2 {
                        assert_eq!(bits(&opened.metadata, slot), bits(&old.metadata, slot));
                    }
                    olds += 1;
                }
                Ok(opened) => {
                    assert_eq!(record(&opened.metadata), record(&metadata), "{name}");
                    assert!(!opened.log_lost && opened.bad_units == 0, "{name}");
                    assert!(opened.recovered_extents.is_empty(), "{name}");
                    assert_eq!(bits(&opened.metadata, 0), bits(&metadata, 0), "{name}");
                    assert!(!(done && opened.repaired), "{name}");
                    news += 1;
                    if opened.repaired {
                        repairs.entry(digest(&opened)).or_insert_with(|| (torn.clone(), opened));
                    }
                }
                Err(OpenError::NoMetadata | OpenError::Corrupt { .. }) => {
                    assert!(!done, "{name}: refused when done");
                    none += 1;
                }
                Err(error) => panic!("{name}: {error}"),
            });
            for (torn, opened) in repairs.into_values() {
                let mut tally = Tally::default();
                explore(&format!("{name}, repair"), &torn, opened.metadata, 2, &mut tally);
            }
            println!("format {name}: {none} refused, {olds} old, {news} new");
            assert!(none > 300 && news > 100);
            assert_eq!(olds > 100, name == "over old");
        }
    }
}

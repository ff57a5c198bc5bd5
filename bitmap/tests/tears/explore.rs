//! One operation on a disk with a past, crashed everywhere.

use crate::common::{Disk, check_stages, formatted, params};
use crate::crash::{AGAIN, FULL, each_crash};
use crate::truth::{Truth, digest};
use bitmap::{Activation, FormatParams, Generation, Metadata, Opened, Placement};
use std::collections::BTreeMap;

pub(crate) const INTERNAL: u64 = 640 * 1024 + 512;
pub(crate) const EXTERNAL: u64 = 160 * 1024;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) recoveries: u64,
}

/// Crashes everywhere inside the commit of `pending`, and inside the first commit after each
/// recovery, `depth` times.
pub(crate) fn explore(
    name: &str,
    disk: &Disk,
    mut pending: Metadata,
    depth: u32,
    tally: &mut Tally,
) {
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
pub(crate) fn lived_in(params: FormatParams) -> (Disk, Metadata) {
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
pub(crate) fn next(metadata: &Metadata) -> bitmap::Ticket {
    let mut metadata = metadata.clone();
    metadata.edit(|_| {})
}

pub(crate) fn each_device(mut test: impl FnMut(&str, Disk, Metadata)) {
    for (name, placement, size, slots, peers) in [
        ("internal", Placement::Internal, INTERNAL, 4, 1),
        ("external", Placement::External, EXTERNAL, 3, 2),
    ] {
        let (disk, metadata) = lived_in(params(placement, size, slots, peers));
        test(name, disk, metadata);
    }
}

pub(crate) fn operation(name: &str, request: impl Fn(&mut Metadata)) {
    let mut tally = Tally::default();
    each_device(|device, disk, mut metadata| {
        request(&mut metadata);
        explore(&format!("{name}, {device}"), &disk, metadata, 2, &mut tally);
    });
    println!("{name}: {} opened, {} recoveries crashed again", tally.opened, tally.recoveries);
    assert!(tally.opened > 200, "{name}: only {} states", tally.opened);
}

//! One story a metadata operation.

use crate::common::params;
use crate::explore::{EXTERNAL, Tally, each_device, explore, lived_in, operation};
use bitmap::{Activation, Generation, Metadata, NodeId, Placement};

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

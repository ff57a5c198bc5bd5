//! The first open, the repair of what a crash left, and create-md.

use crate::common::{Disk, bits, check_stages, params};
use crate::crash::{FULL, each_crash};
use crate::explore::{EXTERNAL, INTERNAL, Tally, each_device, explore, lived_in};
use crate::truth::{digest, record};
use bitmap::{Metadata, OpenError, Placement};
use std::collections::BTreeMap;

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

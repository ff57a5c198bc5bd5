//! MD-3: a metadata sector that is unreadable, rotten, of another place, of another device, or
//! older than it should be is repaired, or refused, or costs a superset; never a block.

mod common;

use bitmap::{
    Generation, Layout, Metadata, OpenError, OpenStep, Opened, Opening, Placement, Superblock,
};
use common::{Blocks, Disk, Sector, bits, blocks_of, formatted, params};
use std::collections::BTreeSet;

const INTERNAL: u64 = 640 * 1024;
const EXTERNAL: u64 = 160 * 1024;

/// Every sector that the metadata can occupy.
fn metadata_sectors(disk: &Disk, metadata: &Metadata) -> Vec<u64> {
    let area = metadata.layout().metadata_area();
    (area.start..area.end.min(disk.size())).step_by(512).collect()
}

/// A device with bits in two units per slot, active extents, and a ring that came round; and the
/// disk as it was before the last commit of each kind.
fn device(placement: Placement) -> (Disk, Metadata) {
    let size = if placement == Placement::Internal { INTERNAL } else { EXTERNAL };
    let (mut disk, mut metadata) = formatted(params(placement, size, 30, 2));
    metadata.clear_all_bits(0);
    metadata.edit(|superblock| superblock.mint(Generation(0xa0), |_| true));
    let blocks = metadata.geometry().blocks();
    for slot in 0..2 {
        metadata.set_bits(slot, 3..5);
        metadata.clear_bits(slot, blocks - 9..blocks - 1);
        metadata.set_bits(slot, blocks - 3..blocks);
    }
    metadata.sync_bits();
    disk.commit(&mut metadata);
    for round in 0..60 {
        let extent = 20 + round % 5;
        metadata.activate(extent..extent + 1);
        disk.commit(&mut metadata);
        metadata.set_bits(1, u64::from(extent) * 2..u64::from(extent) * 2 + 1);
        if round % 3 == 0 {
            metadata.retire(extent);
        }
    }
    metadata.sync_bits();
    disk.commit(&mut metadata);
    disk.settle();
    (disk, metadata)
}

/// What must be known whatever rots.
struct Truth {
    record: Superblock,
    active: BTreeSet<u32>,
    covered: Vec<Blocks>,
}

impl Truth {
    fn new(metadata: &Metadata) -> Self {
        let active: BTreeSet<u32> = metadata.active_extents().collect();
        let hot = blocks_of(metadata, active.iter().copied());
        let covered = (0..2).map(|slot| bits(metadata, slot).union(&hot)).collect();
        Self { record: record(metadata), active, covered }
    }

    /// The node knows all it must, and after the first commit the disk is as good as new.
    fn check(&self, what: &str, mut disk: Disk, opened: Opened) {
        let expected =
            Superblock { slots: opened.metadata.superblock().slots.clone(), ..self.record.clone() };
        assert_eq!(record(&opened.metadata), expected, "{what}: superblock");
        if !opened.log_lost {
            assert_eq!(record(&opened.metadata), self.record, "{what}: slots");
            let recovered: BTreeSet<u32> = opened.recovered_extents.iter().copied().collect();
            assert_eq!(recovered, self.active, "{what}: extents");
        }
        for (slot, covered) in self.covered.iter().enumerate() {
            let found = bits(&opened.metadata, slot);
            let lost: Vec<u64> = covered.difference(&found).iter().collect();
            let (count, first) = (lost.len(), lost.first());
            assert!(count == 0, "{what}: slot {slot} forgot {count} blocks from {first:?} on");
        }
        // "Repaired" and "superset" are told.
        let clean = !opened.repaired && !opened.log_lost && opened.bad_units == 0;
        assert_eq!(clean, !opened.metadata.needs_commit(), "{what}: told");
        let mut metadata = opened.metadata;
        let before: Vec<Blocks> = (0..2).map(|slot| bits(&metadata, slot)).collect();
        metadata.sync_bits();
        disk.commit(&mut metadata);
        let again = disk.open().unwrap_or_else(|error| panic!("{what}: again: {error}"));
        assert!(!again.repaired && !again.log_lost && again.bad_units == 0, "{what}: repaired");
        assert_eq!(record(&again.metadata), record(&metadata), "{what}: repaired");
        for (slot, before) in before.iter().enumerate() {
            assert_eq!(&bits(&again.metadata, slot), before, "{what}: repaired");
        }
    }
}

/// Makes a sector unreadable.
fn fail(disk: &mut Disk, at: u64) {
    disk.unreadable.insert(at);
}

fn record(metadata: &Metadata) -> Superblock {
    Superblock { sequence: 0, log_floor: 0, ..metadata.superblock().clone() }
}

fn open(what: &str, disk: &Disk) -> Opened {
    disk.open().unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn each_device(mut test: impl FnMut(Disk, Metadata)) {
    for placement in [Placement::Internal, Placement::External] {
        let (disk, metadata) = device(placement);
        test(disk, metadata);
    }
}

/// All is set, some of it is cleared, and set again: then the unit on disk has bits too few, and only the summary knows.
#[test]
fn without_a_summary_no_unit_that_was_given_up_is_believed() {
    let (mut disk, mut metadata) = formatted(params(Placement::External, EXTERNAL, 30, 2));
    let blocks = metadata.geometry().blocks();
    metadata.fill_bits(0);
    for round in 0..2 {
        match round {
            0 => metadata.clear_bits(0, 3..blocks - 3),
            _ => metadata.set_bits(0, 3..blocks - 3),
        };
        metadata.sync_bits();
        disk.commit(&mut metadata);
    }
    disk.settle();
    let truth = Truth::new(&metadata);
    assert_eq!(truth.covered[0].iter().count() as u64, blocks);
    for at in metadata_sectors(&disk, &metadata) {
        let mut rotten = disk.clone();
        fail(&mut rotten, at);
        let opened = open("a sector is unreadable", &rotten);
        truth.check("a sector is unreadable", rotten, opened);
    }
}

/// Each sector in turn is damaged in several ways.
#[test]
fn one_bad_sector() {
    each_device(|disk, metadata| {
        let truth = Truth::new(&metadata);
        let (mut other, _) = formatted(bitmap::FormatParams {
            device_uuid: 99,
            ..params(disk.placement, disk.size(), 30, 2)
        });
        other.settle();
        let sectors = metadata_sectors(&disk, &metadata);
        let (mut lost, mut bad, mut repaired) = (0, 0, 0);
        for &at in &sectors {
            let mut flipped = disk.sector(at);
            flipped[(at / 512 % 512) as usize] ^= 1 << (at / 512 % 8);
            let ways: [(&str, Option<Sector>); 5] = [
                ("unreadable", None),
                ("flipped", Some(flipped)),
                ("zeros", Some([0; 512])),
                ("garbage", Some([0xa5; 512])),
                ("of another device", Some(other.sector(at))),
            ];
            for (way, sector) in ways {
                let mut rotten = disk.clone();
                match sector {
                    Some(sector) => rotten.put(at, sector),
                    None => fail(&mut rotten, at),
                }
                let what = format!("sector {at} {way}");
                let opened = open(&what, &rotten);
                lost += u32::from(opened.log_lost);
                bad += u32::from(opened.bad_units > 0);
                repaired += u32::from(opened.repaired);
                truth.check(&what, rotten, opened);
            }
        }
        println!(
            "{} sectors: {lost} log lost, {bad} bad units, {repaired} repaired",
            sectors.len()
        );
        assert!(lost > 10 && bad > 10 && repaired > 60);
    });
}

/// Each sector in turn shows what belongs at another place of the same device.
#[test]
fn one_misplaced_sector() {
    each_device(|disk, metadata| {
        let truth = Truth::new(&metadata);
        let sectors = metadata_sectors(&disk, &metadata);
        let used: Vec<u64> =
            sectors.iter().copied().filter(|&at| disk.sector(at)[..4] != [0; 4]).collect();
        for (n, &at) in sectors.iter().enumerate() {
            // The neighbours, and some from further away.
            for step in [1, 2, 7, 8, 31, 128] {
                let from = used[(n + step) % used.len()];
                let mut rotten = disk.clone();
                rotten.put(at, disk.sector(from));
                let what = format!("sector {from} at {at}");
                let opened = open(&what, &rotten);
                truth.check(&what, rotten, opened);
            }
        }
        // The superblock copies change places.
        let [first, second] = copies(&disk);
        let mut swapped = disk.clone();
        for n in 0..8 {
            swapped.put(first + n * 512, disk.sector(second + n * 512));
            swapped.put(second + n * 512, disk.sector(first + n * 512));
        }
        let expected = OpenError::WrongPlace { recorded: second, found: first };
        assert_eq!(swapped.open().expect_err("both are wrong"), expected);
    });
}

/// Any number of sectors at once, one superblock copy among them or none.
#[test]
fn many_bad_sectors() {
    each_device(|disk, metadata| {
        let truth = Truth::new(&metadata);
        let [first, second] = copies(&disk);
        let is_copy = |at: u64, copy: u64| (copy..copy + 4096).contains(&at);
        let mut random = common::Random(42);
        for round in 0..400 {
            let spared = if round % 2 == 0 { first } else { second };
            let density = 1 + random.below(60);
            let mut rotten = disk.clone();
            for at in metadata_sectors(&disk, &metadata) {
                if is_copy(at, spared) || random.below(64) >= density {
                    continue;
                }
                match random.below(4) {
                    0 => fail(&mut rotten, at),
                    1 => rotten.put(at, [random.next() as u8; 512]),
                    2 => rotten.put(at, disk.sector(first + random.below(8) * 512)),
                    _ => {
                        let mut flipped = disk.sector(at);
                        flipped[random.below(512) as usize] ^= 1 << random.below(8);
                        rotten.put(at, flipped);
                    }
                }
            }
            let what = format!("round {round}, density {density}");
            let opened = open(&what, &rotten);
            truth.check(&what, rotten, opened);
        }
    });
}

fn copies(disk: &Disk) -> [u64; 2] {
    Layout::superblock_offsets(disk.size(), disk.placement).expect("it is large enough")
}

/// A write that the disk took and never did, and nobody noticed until the next commit was durable.
/// The one that cannot show is a whole commit of the log or of known units, if nothing came after.
#[test]
fn one_lost_write() {
    each_device(|mut disk, mut metadata| {
        for round in 0..50_u32 {
            // First the superblock and a unit that this epoch has not seen, then the log alone.
            metadata.edit(|superblock| superblock.flags.primary_ind ^= true);
            metadata.fill_bits(0);
            metadata.clear_bits(0, 7..9);
            let extent = 40 + round % 7;
            metadata.activate(extent..extent + 1);
            let recent = metadata.oldest_active(|other| other != extent && other != 60);
            metadata.retire(recent.expect("there are some"));
            let commit = metadata.start_commit().expect("there is much");
            metadata.sync_bits();
            let before = disk.clone();
            disk.write_stages(&commit.stages);
            metadata.finish_commit();
            let between = metadata.clone();
            metadata.sync_bits();
            if metadata.is_active(60) {
                metadata.retire(60);
            } else {
                metadata.activate(60..61);
            }
            let next = metadata.start_commit().expect("an extent comes or goes");
            metadata.finish_commit();

            for stage in &commit.stages {
                for (at, _) in stage.iter().flat_map(common::sectors) {
                    let what = format!("round {round}, lost write at {at}");
                    // Superblocks show at once.
                    let superblock =
                        copies(&disk).iter().any(|copy| (copy..&(copy + 4096)).contains(&&at));
                    let mut liar = disk.clone();
                    liar.put(at, before.sector(at));
                    if superblock {
                        let opened = open(&what, &liar);
                        Truth::new(&between).check(&what, liar.clone(), opened);
                    }
                    liar.write_stages(&next.stages);
                    let opened = open(&what, &liar);
                    Truth::new(&metadata).check(&what, liar, opened);
                }
            }
            disk.write_stages(&next.stages);
            disk.settle();
        }
    });
}

/// A superblock copy whose write never happened, whole: the other one is newer.
#[test]
fn one_lost_copy() {
    each_device(|disk, metadata| {
        for lost in copies(&disk) {
            let (mut liar, mut metadata) = (disk.clone(), metadata.clone());
            metadata.edit(|superblock| superblock.flags.have_quorum ^= true);
            let commit = metadata.start_commit().expect("an edit");
            metadata.finish_commit();
            let happened = |write: &&bitmap::MetaWrite| write.offset != lost;
            commit.stages.iter().flatten().filter(happened).for_each(|write| liar.write(write));
            let what = format!("lost copy at {lost}");
            let opened = open(&what, &liar);
            assert!(opened.repaired);
            Truth::new(&metadata).check(&what, liar, opened);
        }
    });
}

/// A newer copy that could not be read, is readable again, and was not overwritten although the
/// disk said so: what was written since has a higher number all the same.
#[test]
fn a_copy_that_comes_back() {
    each_device(|mut disk, mut metadata| {
        metadata.edit(|superblock| superblock.flags.have_quorum ^= true);
        let crashed = metadata.start_commit().expect("an edit");
        disk.write_stages(&crashed.stages[..1]);
        let [first, _] = copies(&disk);
        let mut hidden = disk.clone();
        fail(&mut hidden, first);
        let mut metadata = open("hidden", &hidden).metadata;
        metadata.edit(|superblock| superblock.flags.consistent ^= true);
        let commit = metadata.start_commit().expect("an edit");
        metadata.finish_commit();
        let happened = |write: &&bitmap::MetaWrite| write.offset != first;
        commit.stages.iter().flatten().filter(happened).for_each(|write| disk.write(write));
        let opened = open("it is back", &disk);
        Truth::new(&metadata).check("it is back", disk, opened);
    });
}

/// A whole commit of the log that never happened shows as soon as a superblock is written after.
#[test]
fn a_lost_log_commit_shows_in_the_superblock() {
    each_device(|mut disk, mut metadata| {
        metadata.activate(60..61);
        let lost = metadata.start_commit().expect("an extent is new");
        assert_eq!(lost.stages.len(), 1);
        metadata.finish_commit();
        assert!(!open("nobody knows", &disk).log_lost);
        metadata.edit(|superblock| superblock.flags.consistent ^= true);
        disk.commit(&mut metadata);
        let opened = open("a floor", &disk);
        assert!(opened.log_lost);
        Truth::new(&metadata).check("a floor", disk, opened);
    });
}

/// Both superblock copies bad: refused, with a reason.
#[test]
fn both_copies_bad() {
    each_device(|disk, _| {
        let [first, second] = copies(&disk);
        let damage = |disk: &mut Disk, at: u64, way: u32| match way {
            0 => {
                disk.unreadable.insert(at + 512);
            }
            1 => disk.put(at + 3 * 512, [7; 512]),
            _ => disk.put(at, [0; 512]),
        };
        for ways in 0..9 {
            let mut rotten = disk.clone();
            damage(&mut rotten, first, ways % 3);
            damage(&mut rotten, second, ways / 3);
            match rotten.open().expect_err("both are bad") {
                OpenError::NoMetadata => assert_eq!(ways, 8),
                OpenError::Corrupt { .. } => assert_ne!(ways, 8),
                error => panic!("{error}"),
            }
        }
    });
}

/// Puts `bytes` at `at` of a superblock's copy, and makes its checksum right.
fn forge(disk: &mut Disk, copy: u64, at: usize, bytes: &[u8]) {
    let offsets = (copy..copy + 4096).step_by(512);
    let mut record: Vec<u8> = offsets.flat_map(|at| disk.sector(at)).collect();
    record[at..at + bytes.len()].copy_from_slice(bytes);
    record[12..16].fill(0);
    let crc = crc32fast::hash(&record);
    record[12..16].copy_from_slice(&crc.to_le_bytes());
    for (n, sector) in record.chunks(512).enumerate() {
        disk.put(copy + n as u64 * 512, sector.try_into().expect("a sector"));
    }
}

/// Numbers no disk lives to reach are refused while all that was written can still be read, not once it no longer can.
#[test]
fn a_disk_at_the_end_of_its_numbers_is_refused() {
    let limit = 1 << 61;
    // The superblock's own number, and the log's, which goes on behind its floor.
    for at in [24, 104] {
        each_device(|disk, _| {
            let with = |number: u64| {
                let mut forged = disk.clone();
                let [first, second] = copies(&disk);
                forge(&mut forged, first, at, &number.to_le_bytes());
                forge(&mut forged, second, at, &number.to_le_bytes());
                forged
            };
            let why = "an impossible sequence number";
            for beyond in [limit + 1, 2 * limit, 2 * limit + 1, u64::MAX] {
                assert_eq!(with(beyond).open().err(), Some(OpenError::Corrupt { why }));
            }
            let mut last = with(limit);
            let mut opened = last.open().expect("the last that is opened");
            assert_eq!(opened.log_lost, at == 104);
            for _ in 0..99 {
                opened.metadata.edit(|superblock| superblock.flags.consistent ^= true);
                opened.metadata.activate(60..61);
                last.commit(&mut opened.metadata);
                opened.metadata.retire(60);
            }
            assert_eq!(
                last.open().err(),
                Some(OpenError::Corrupt { why }),
                "and not as an older one"
            );
        });
    }
}

/// A newer program was here, and its other copy may be older than what it did since.
#[test]
fn a_copy_of_another_version() {
    each_device(|disk, _| {
        for copy in copies(&disk) {
            let forged = |at: usize, value: u8| {
                let mut forged = disk.clone();
                forge(&mut forged, copy, at, &[value]);
                forged.open().expect_err("it is not ours to read")
            };
            assert_eq!(forged(8, 9), OpenError::UnknownVersion { version: 9 });
            let feature = OpenError::UnknownFeature { incompat: 2, ro_compat: 0 };
            assert_eq!(forged(48, 2), feature);
            let feature = OpenError::UnknownFeature { incompat: 0, ro_compat: 4 };
            assert_eq!(forged(44, 4), feature);
        }
    });
}

/// Both copies valid, same number, not the same: nobody can say which to believe.
#[test]
fn two_truths() {
    each_device(|disk, metadata| {
        let [first, _] = copies(&disk);
        let mut left = metadata.clone();
        left.edit(|superblock| superblock.flags.consistent ^= true);
        let mut right = metadata;
        right.edit(|superblock| superblock.flags.have_quorum ^= true);
        let left = left.start_commit().expect("an edit");
        let right = right.start_commit().expect("an edit");
        let mut torn = disk.clone();
        for write in left.stages.iter().chain(&right.stages).flatten() {
            let from_left = left.stages.iter().flatten().any(|other| other == write);
            if (write.offset == first) == from_left {
                torn.write(write);
            }
        }
        assert!(matches!(torn.open(), Err(OpenError::Corrupt { .. })));
    });
}

/// A copy of an earlier life, which create-md was told it had made unreadable.
#[test]
fn copies_of_two_devices() {
    each_device(|disk, _| {
        let (other, _) = formatted(bitmap::FormatParams {
            device_uuid: 99,
            ..params(disk.placement, disk.size(), 30, 2)
        });
        for copy in copies(&disk) {
            let mut mixed = disk.clone();
            for at in (copy..copy + 4096).step_by(512) {
                mixed.put(at, other.sector(at));
            }
            assert!(matches!(mixed.open(), Err(OpenError::Corrupt { .. })));
        }
    });
}

/// A read that fails is repeated in pieces: a bad sector takes its page with it, not the area.
#[test]
fn an_unreadable_sector_takes_its_page() {
    let ring =
        bitmap::FormatParams { al_sectors: 64, ..params(Placement::Internal, INTERNAL, 4, 1) };
    let (disk, metadata) = formatted(ring);
    // The log ends where copy 1 starts. Its newest sector, number 64, is at position 0; what
    // matters are those before it and the one behind.
    let start = copies(&disk)[1] - 64 * 512;
    for position in 0..64 {
        let mut rotten = disk.clone();
        fail(&mut rotten, start + position * 512);
        let opened = open("one sector", &rotten);
        assert_eq!(opened.log_lost, position / 8 == 0 || position / 8 == 7, "{position}");
        assert!(opened.repaired);
    }
    assert_eq!(metadata.log_free(), 4);
}

#[test]
fn a_unit_that_is_not_believed_is_told_and_repaired() {
    each_device(|mut disk, metadata| {
        let edge = metadata_sectors(&disk, &metadata);
        let units = edge.iter().filter(|&&at| disk.sector(at)[..4] == *b"PlxB");
        // The last such sector is a unit of the last slot; summaries come before units.
        let unit = *units.max().expect("units were written");
        disk.put(unit, [7; 512]);
        let opened = open("a rotten unit", &disk);
        assert_eq!((opened.bad_units, opened.log_lost), (1, false));
        assert!(opened.repaired && opened.metadata.needs_commit());
    });
}

/// What lies behind what was asked for may be unreadable, too, and is nothing to the one who asked.
#[test]
fn a_read_that_failed_is_repeated_for_the_same_bytes() {
    let disk = formatted(params(Placement::External, EXTERNAL, 200, 2)).0;
    let mut opening = Opening::new(Placement::External, EXTERNAL);
    let OpenStep::Read(copies) = opening.step(vec![]) else { panic!("superblocks") };
    let read = |&(at, len): &(u64, u32)| {
        let sectors = (at..at + u64::from(len)).step_by(512);
        Ok(sectors.flat_map(|at| disk.sector(at)).collect())
    };
    let OpenStep::Read(areas) = opening.step(copies.iter().map(read).collect()) else {
        panic!("log and summaries")
    };
    let bytes = |reads: &[(u64, u32)]| -> Vec<u64> {
        reads.iter().flat_map(|&(at, len)| at..at + u64::from(len)).collect()
    };
    let long: Vec<_> = areas.iter().copied().filter(|&(_, len)| len > 4096).collect();
    assert!(long.iter().any(|(_, len)| len % 4096 != 0), "{areas:?}");
    let OpenStep::Read(again) = opening.step(vec![Err(()); areas.len()]) else {
        panic!("the same again")
    };
    assert_eq!(bytes(&again), bytes(&long));
    assert!(again.iter().all(|&(_, len)| len <= 4096), "{again:?}");
    // Short ones that fail are not asked for a second time.
    let done = opening.step(vec![Err(()); again.len()]);
    assert!(!matches!(done, OpenStep::Read(reads) if reads.contains(&again[0])));
}

#[test]
fn a_device_that_changed_is_refused() {
    let (disk, metadata) = device(Placement::Internal);
    let tail = disk.open_as(Placement::Internal, INTERNAL + 512).expect_err("it grew");
    assert_eq!(tail, OpenError::SizeChanged { recorded: INTERNAL, found: INTERNAL + 512 });
    assert_eq!(
        disk.open_as(Placement::Internal, INTERNAL - 4096).expect_err("it shrank"),
        OpenError::NoMetadata
    );
    assert_eq!(
        disk.open_as(Placement::External, INTERNAL).expect_err("it is internal"),
        OpenError::NoMetadata
    );
    for size in [0, 512, 4096, 65536] {
        let error = disk.open_as(Placement::Internal, size).expect_err("far too small");
        assert_eq!(error, OpenError::NoMetadata);
    }
    assert_eq!(metadata.superblock().placement, Placement::Internal);

    let (disk, metadata) = device(Placement::External);
    let end = metadata.layout().metadata_area().end;
    assert!(disk.open_as(Placement::External, end).is_ok());
    assert!(matches!(
        disk.open_as(Placement::External, end - 512),
        Err(OpenError::SizeChanged { .. })
    ));
}

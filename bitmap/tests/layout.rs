//! Where things lie: areas never meet each other or the data, and a large device costs what is
//! dirty.

mod common;

use bitmap::{
    AREA_ALIGN, Activation, ByteRange, Bytes, COPY_DISTANCE, FormatParams, Layout, LayoutError,
    MetaWrite, Metadata, NodeId, OpenStep, Opening, Placement, SECTOR, SUPERBLOCK_SIZE,
};
use common::{Sector, check_stages, formatted, params, sectors};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn range(write: &MetaWrite) -> ByteRange {
    ByteRange::new(write.offset, write.bytes.len())
}

proptest! {
    #[test]
    fn areas_do_not_meet(
        internal in any::<bool>(),
        pages in 20..100_000_u64,
        tail in 0..4096_u64,
        data_pages in 1..1_000_000_u64,
        peers in 0..=31_u8,
        al_slots in 1..3000_u32,
        spare in 0..100_u32,
        block_shift in 12..=20_u32,
        extent_shift in 0..=4_u32,
    ) {
        let placement = if internal { Placement::Internal } else { Placement::External };
        let device_size = pages * 4096 + tail;
        let params = FormatParams {
            data_size: (!internal).then_some(data_pages * 4096 + tail),
            slots: (0..peers).map(NodeId).collect(),
            node_id: NodeId(31),
            al_sectors: params(placement, 0, al_slots, 0).al_sectors + spare,
            block_size: 1 << block_shift,
            extent_size: 1 << (block_shift + extent_shift),
            ..params(placement, device_size, al_slots, 0)
        };
        let (metadata, stages) = match Metadata::format(params.clone()) {
            Ok(made) => made,
            Err(LayoutError::TooSmall { needed, found }) => {
                prop_assert_eq!(found, device_size);
                prop_assert!(needed > found / 4096 * 4096);
                // External metadata says exactly what would do.
                if !internal {
                    let enough = FormatParams { device_size: needed, ..params.clone() };
                    prop_assert!(Metadata::format(enough).is_ok());
                    let less = FormatParams { device_size: needed - 1, ..params };
                    prop_assert!(Metadata::format(less).is_err());
                }
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        check_stages(&stages);
        let area = metadata.layout().metadata_area();
        let data = metadata.geometry().size;
        prop_assert_eq!(data % AREA_ALIGN, 0);
        prop_assert!(area.end <= device_size);
        if internal {
            prop_assert_eq!(area, ByteRange { start: data, end: device_size });
        } else {
            prop_assert_eq!(data, data_pages * 4096);
        }
        // The slots' zeros and the copies' are the areas; the log lies between, whole.
        let zeros = |write: &&MetaWrite| matches!(write.bytes, Bytes::Zeros(_));
        let mut areas: Vec<ByteRange> = stages.iter().flatten().filter(zeros).map(range).collect();
        prop_assert_eq!(areas.len(), if peers == 0 { 2 } else { 3 });
        let log: u64 = u64::from(metadata.superblock().al_sectors) * SECTOR as u64;
        for write in stages.iter().flatten() {
            prop_assert!(area.contains(&range(write)), "{:?} in {:?}", range(write), area);
            prop_assert!(write.offset % SECTOR as u64 == 0);
        }
        areas.sort_unstable();
        for pair in areas.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "{:?}", pair);
            prop_assert!(pair[0].start % AREA_ALIGN == 0 && pair[1].start % AREA_ALIGN == 0);
        }
        let copies = areas.iter().filter(|area| area.len() == 4096).count();
        prop_assert!(copies >= 2);
        // Sectors written as data that are in no zeroed area are the log.
        let outside: u64 = stages
            .iter()
            .flatten()
            .filter(|write| !zeros(write))
            .flat_map(sectors)
            .filter(|(at, _)| !areas.iter().any(|area| area.contains(&ByteRange::new(*at, 512))))
            .count() as u64;
        prop_assert_eq!(outside * SECTOR as u64, log);
    }
}

#[test]
fn a_size_is_honoured_up_to_what_there_is() {
    for placement in [Placement::Internal, Placement::External] {
        let all = params(placement, 1 << 20, 4, 1);
        let (_, whole) = formatted(all.clone());
        let room = whole.geometry().size;
        for (wanted, size) in [
            (4096, 4096),
            (room - 4096, room - 4096),
            // Whole blocks, and the last one is not begun.
            (room - 1, room - 4096),
            (room, room),
            (room + 4096, room),
            (u64::MAX, room),
        ] {
            let (disk, made) = formatted(FormatParams { size: Some(wanted), ..all.clone() });
            assert_eq!((made.geometry().size, made.superblock().data_size), (size, room));
            // Metadata stays where it is: at the end, if it is internal.
            assert_eq!(made.layout(), whole.layout(), "{wanted}");
            let opened = disk.open().expect("it was made").metadata;
            assert_eq!(opened.geometry(), made.geometry(), "{wanted}");
            assert_eq!(opened.bits(0).count(), size / 4096, "{wanted}");
        }
        for none in [0, 4095] {
            assert!(Metadata::format(FormatParams { size: Some(none), ..all.clone() }).is_err());
        }
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    let good = params(Placement::External, 1 << 20, 100, 1);
    assert!(Metadata::format(good.clone()).is_ok());
    type Spoil = fn(&mut FormatParams);
    let bad: [(&str, Spoil); 14] = [
        ("slots", |params| params.slots = (0..32).map(NodeId).collect()),
        ("own id", |params| params.slots = vec![NodeId(0)]),
        ("twice", |params| params.slots = vec![NodeId(3), NodeId(3)]),
        ("id", |params| params.slots = vec![NodeId(32)]),
        ("own id too large", |params| params.node_id = NodeId(32)),
        ("no log", |params| params.al_slots = 0),
        ("log", |params| params.al_slots = 65_535),
        ("ring", |params| params.al_sectors -= 1),
        ("ring too large", |params| params.al_sectors = 65_537),
        ("block", |params| params.block_size = 2048),
        ("block not a power", |params| params.block_size = 4096 * 3),
        ("extent", |params| params.extent_size = 2048),
        ("logical", |params| params.logical_block_size = 8192),
        ("no data size", |params| params.data_size = None),
    ];
    for (name, spoil) in bad {
        let mut params = good.clone();
        spoil(&mut params);
        let error = Metadata::format(params).err();
        assert!(matches!(error, Some(LayoutError::Parameter(_))), "{name}: {error:?}");
    }
}

/// What is just legal, and what is just not.
#[test]
fn parameters_at_the_ends_of_their_ranges() {
    let good = params(Placement::External, 1 << 30, 100, 1);
    type Set = fn(&mut FormatParams, u32);
    let ends: [(&str, Set, &[u32], &[u32]); 5] = [
        ("slots of the log", |params, n| params.al_slots = n, &[1, 65_534], &[0, 65_535]),
        ("ring", |params, n| params.al_sectors = n, &[65_536], &[65_537]),
        // An extent is not smaller than a block.
        (
            "block",
            |params, n| (params.block_size, params.extent_size) = (n, n),
            &[4096, 1 << 20],
            &[2048, 12_288, 1 << 21],
        ),
        (
            "extent",
            |params, n| params.extent_size = n,
            &[4096, 1 << 30],
            &[2048, 12_288, (1 << 30) + 4096, 1 << 31],
        ),
        (
            "logical block",
            |params, n| params.logical_block_size = n,
            &[512, 4096],
            &[256, 1536, 8192],
        ),
    ];
    for (name, set, legal, illegal) in ends {
        for (&n, is_legal) in
            legal.iter().map(|n| (n, true)).chain(illegal.iter().map(|n| (n, false)))
        {
            let mut params = FormatParams { al_sectors: 10_000, ..good.clone() };
            set(&mut params, n);
            let made = Metadata::format(params);
            assert_eq!(made.is_ok(), is_legal, "{name} {n}: {:?}", made.err());
        }
    }
    let peers = |count| FormatParams {
        node_id: NodeId(31),
        slots: (0..count).map(NodeId).collect(),
        ..good.clone()
    };
    assert!(Metadata::format(peers(31)).is_ok());
    // Extents are counted in 32 bits, and one number says that there is none.
    let large = |pages: u64| FormatParams {
        data_size: Some(pages << 12),
        extent_size: 4096,
        device_size: 1 << 40,
        ..good.clone()
    };
    let most = u64::from(u32::MAX) - 1;
    assert!(Metadata::format(large(most)).is_ok());
    assert!(Metadata::format(large(most + 1)).is_err());
    // So are units.
    let refused = Metadata::format(large(1 << 45)).err();
    assert!(matches!(refused, Some(LayoutError::Parameter(_))), "{refused:?}");
}

#[test]
fn the_copies_of_the_superblock_are_where_they_are_looked_for() {
    let least = COPY_DISTANCE + SUPERBLOCK_SIZE as u64;
    for size in [least, least + 4095, 1 << 20] {
        let end = size / 4096 * 4096;
        let internal = Layout::superblock_offsets(size, Placement::Internal);
        assert_eq!(internal, Some([end - 4096, end - 4096 - (64 << 10)]), "{size}");
        let external = Layout::superblock_offsets(size, Placement::External);
        assert_eq!(external, Some([0, 64 << 10]), "{size}");
    }
    for placement in [Placement::Internal, Placement::External] {
        assert_eq!(Layout::superblock_offsets(least - 1, placement), None);
    }
}

/// Neighbours are written at once, and no write is longer than one buffer should be.
#[test]
fn a_long_ring_is_written_in_pieces_of_128_kibibytes() {
    let long = FormatParams { al_sectors: 600, ..params(Placement::External, 1 << 20, 4, 0) };
    let (metadata, stages) = Metadata::format(long).expect("it fits");
    let lens = |write: &MetaWrite| write.bytes.len();
    let ring = &stages[1];
    assert_eq!(
        ring.iter().map(lens).collect::<Vec<_>>(),
        [128 << 10, 128 << 10, 600 * 512 - (256 << 10)]
    );
    assert!(ring.windows(2).all(|pair| range(&pair[0]).end == pair[1].offset));
    assert!(stages.iter().flatten().all(|write| !write.bytes.is_empty()));
    assert!(Bytes::Zeros(0).is_empty() && Bytes::Data(vec![]).is_empty());
    assert!(metadata.layout().metadata_area().end <= 1 << 20);

    // It is read in the same pieces, and nothing behind it.
    let mut opening = Opening::new(Placement::External, 1 << 20);
    assert!(matches!(opening.step(vec![]), OpenStep::Read(copies) if copies.len() == 2));
    let copies = metadata_copies(&stages);
    let OpenStep::Read(areas) = opening.step(copies) else { panic!("the ring") };
    let written = |write: &MetaWrite| (write.offset, lens(write) as u32);
    assert_eq!(areas, ring.iter().map(written).collect::<Vec<_>>());
}

/// What is read of the superblocks that the last two stages wrote.
fn metadata_copies(stages: &[Vec<MetaWrite>]) -> Vec<Result<Vec<u8>, ()>> {
    let data = |stage: &Vec<MetaWrite>| match &stage[0].bytes {
        Bytes::Data(data) => Ok(data.clone()),
        Bytes::Zeros(_) => Err(()),
    };
    stages[stages.len() - 2..].iter().map(data).collect()
}

/// A disk of any size; what was never written is zeros.
#[derive(Default)]
struct Sparse(BTreeMap<u64, Sector>);

impl Sparse {
    fn write(&mut self, stages: &[Vec<MetaWrite>]) -> u64 {
        let mut written = 0;
        for write in stages.iter().flatten() {
            written += write.bytes.len();
            if let Bytes::Data(_) = write.bytes {
                self.0.extend(sectors(write));
            }
        }
        written
    }

    fn open(&self, placement: Placement, size: u64) -> (Metadata, u64) {
        let mut opening = Opening::new(placement, size);
        let (mut results, mut read) = (Vec::new(), 0);
        loop {
            match opening.step(results) {
                OpenStep::Read(reads) => {
                    let sectors = |&(at, len): &(u64, u32)| {
                        let sector = |at| self.0.get(&at).copied().unwrap_or([0; SECTOR]);
                        read += u64::from(len);
                        Ok((at..at + u64::from(len)).step_by(SECTOR).flat_map(sector).collect())
                    };
                    results = reads.iter().map(sectors).collect();
                }
                OpenStep::Done(opened) => return (opened.metadata, read),
                OpenStep::Refused(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn sixteen_tebibytes_cost_what_is_dirty() {
    let size = 16_u64 << 40;
    let usual = FormatParams {
        al_sectors: 256,
        extent_size: 4 << 20,
        ..params(Placement::Internal, size, 1237, 1)
    };
    let (mut metadata, stages) = Metadata::format(usual).expect("it fits");
    let mut disk = Sparse::default();
    disk.write(&stages);
    let overhead = size - metadata.geometry().size;
    assert!(overhead < 600 << 20, "{overhead} bytes of metadata");

    let mut commit = |metadata: &mut Metadata| {
        let commit = metadata.start_commit().expect("something is pending");
        let written = disk.write(&commit.stages);
        metadata.finish_commit();
        (written, disk.open(Placement::Internal, size))
    };
    let blocks = metadata.geometry().blocks();
    let few = 1 << 20;

    metadata.clear_all_bits(0);
    let (written, (opened, read)) = commit(&mut metadata);
    assert!(written == 8192 && read < few, "{written} written, {read} read");
    assert_eq!(opened.bits(0).count(), 0);

    for n in 0..100 {
        metadata.set_bits(0, blocks / 101 * n..blocks / 101 * n + 1);
    }
    metadata.sync_bits();
    let (written, (opened, read)) = commit(&mut metadata);
    assert!(written <= 200 * 512 && read < few, "{written} written, {read} read");
    assert!(opened.bits(0).runs().eq(metadata.bits(0).runs()));

    metadata.fill_bits(0);
    metadata.clear_bits(0, 5..blocks / 1000);
    metadata.sync_bits();
    let (_, (opened, read)) = commit(&mut metadata);
    assert!(read < few + blocks / 1000 / 3840 * 512, "{read} read");
    assert!(opened.bits(0).runs().eq(metadata.bits(0).runs()));

    let last = metadata.geometry().extents() - 1;
    assert!(matches!(metadata.activate(last..last + 1), Activation::Pending(_)));
    let (written, (opened, _)) = commit(&mut metadata);
    assert_eq!(written, 512, "one sector activates an extent");
    assert!(opened.is_active(last) && opened.active_extents().eq([last]));
    assert!(opened.dump().contains(&format!("active-extents   {last}")));
}

//! MD-3, MD-4: every encoded unit decodes to what it was, only in its own place, and not at all
//! with any bit flipped.

use crate::codec::{SECTOR, seal};
use crate::generation::{Generation, HISTORY};
use crate::geometry::{Geometry, NodeId};
use crate::journal::{CONTEXT, NO_EXTENT, Ring, SEQUENCE_LIMIT, UPDATES};
use crate::layout::{Layout, Placement};
use crate::superblock::{
    CRC, DeviceFlags, MAX_SLOTS, Slot, SlotFlags, SlotKind, Superblock, Unusable,
};
use crate::unit::{Identity, Level, Unit};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn flags() -> impl Strategy<Value = DeviceFlags> {
    any::<[bool; 7]>().prop_map(|[a, b, c, d, e, f, g]| DeviceFlags {
        consistent: a,
        was_up_to_date: b,
        primary_ind: c,
        crashed_primary: d,
        al_clean: e,
        have_quorum: f,
        primary_lost_quorum: g,
    })
}

fn slot() -> impl Strategy<Value = Slot> {
    let kind = prop_oneof![Just(SlotKind::Free), Just(SlotKind::Peer), Just(SlotKind::Named)];
    let numbers = (0..=31_u8, any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>());
    (kind, numbers, any::<[bool; 6]>()).prop_map(
        |(kind, (node, uuid, dagtag, epoch, default_set), [a, b, c, d, e, f])| Slot {
            kind,
            node: NodeId(node),
            bitmap_uuid: Generation(uuid),
            dagtag,
            flags: SlotFlags {
                no_bitmap: a,
                outdated: b,
                fencing: c,
                full_sync: d,
                device_seen: e,
                lost_member: f,
            },
            epoch,
            default_set,
        },
    )
}

fn geometry() -> impl Strategy<Value = (Geometry, u64, Placement)> {
    // Pages of device and of data, and the powers of two of the sizes.
    (100_u64..1 << 16, 1_u64..1 << 24, 12_u32..=20, 0_u32..=4, 9_u32..=12, any::<bool>()).prop_map(
        |(device, data, block, extent, logical, internal)| {
            let placement = if internal { Placement::Internal } else { Placement::External };
            let geometry = Geometry {
                size: data * 4096,
                block_size: 1 << block,
                extent_size: 1 << (block + extent),
                logical_block_size: 1 << logical,
            };
            (geometry, (device << 24) + 513, placement)
        },
    )
}

prop_compose! {
    fn superblock()(
        (mut geometry, device_size, placement) in geometry(),
        slots in prop::collection::vec(slot(), 0..=MAX_SLOTS),
        flags in flags(),
        history in prop::collection::vec(any::<u64>(), HISTORY),
        [device_uuid, current, exposed_dagtag] in any::<[u64; 3]>(),
        (sequence, log_floor) in (0..1_u64 << 62, 0..1_u64 << 62),
        (resize_generation, members, node_id) in (any::<u32>(), any::<u32>(), 0..=31_u8),
        (al_slots, spare) in (1..5000_u32, 0..3000_u32),
        shrunk in any::<bool>(),
    ) -> Superblock {
        let al_sectors = crate::journal::least_sectors(al_slots) + spare;
        let given = (placement == Placement::External).then_some(geometry.size);
        let layout = Layout::new(
            placement, device_size, given, slots.len() as u8, al_slots, al_sectors,
            geometry.block_size,
        ).expect("the device is large");
        geometry.size = layout.data_size();
        if shrunk {
            geometry.size = (geometry.size / 8192).max(1) * 4096;
        }
        Superblock {
            device_uuid, node_id: NodeId(node_id), sequence, placement, device_size,
            data_size: layout.data_size(), geometry, resize_generation, al_slots, al_sectors,
            log_floor, flags, members, current: Generation(current),
            exposed_dagtag,
            history: core::array::from_fn(|n| Generation(history[n])),
            slots, compat: 0, ro_compat: 0, incompat: 0,
        }
    }
}

/// One superblock to break.
fn example() -> Superblock {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = superblock().new_tree(&mut runner).expect("the strategy rejects nothing");
    proptest::strategy::ValueTree::current(&tree)
}

/// Flips every bit of a record in turn.
fn each_flip(record: &[u8], mut accepted: impl FnMut(&[u8]) -> bool) {
    let mut record = record.to_vec();
    assert!(accepted(&record), "the record itself is good");
    for bit in 0..record.len() * 8 {
        record[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepted(&record), "bit {bit} flipped");
        record[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #[test]
    fn superblock_round_trip(superblock in superblock(), offset in any::<u64>()) {
        let record = superblock.encode(offset);
        prop_assert_eq!(Superblock::decode(&record, offset), Ok(superblock));
    }

    #[test]
    fn superblock_decode_is_total(
        superblock in superblock(),
        damage in prop::collection::vec((16..4096_usize, any::<u8>()), 1..8),
    ) {
        // With a right checksum, so that the fields are looked at.
        let mut record = superblock.encode(0);
        for (at, value) in damage {
            record[at] = value;
        }
        seal(&mut record, CRC);
        if let Ok(decoded) = Superblock::decode(&record, 0) {
            prop_assert!(decoded.layout().is_ok());
            prop_assert!(decoded.geometry.extents() > 0);
            prop_assert_eq!(Superblock::decode(&decoded.encode(0), 0), Ok(decoded));
        }
    }

    #[test]
    fn unit_round_trip(
        bits in prop::collection::vec(any::<u8>(), 480),
        (device_uuid, slot, index) in (any::<u64>(), 0..31_usize, any::<u32>()),
        (epoch, sequence) in any::<(u32, u32)>(),
    ) {
        let identity = Identity { device_uuid, slot, level: Level::Unit, index };
        let unit = Unit { epoch, sequence, bits: bits.try_into().unwrap() };
        prop_assert_eq!(Unit::decode(&unit.encode(identity), identity), Some(unit));
    }

    #[test]
    fn log_sector_round_trip(
        ring in (1..2000_u32, 0..100_u32).prop_map(|(slots, spare)| ring(slots, spare)),
        sequence in 1..1_u64 << 62,
        back in 0..20_u64,
        updates in prop::collection::vec((any::<u16>(), prop_oneof![0..64_u32, Just(NO_EXTENT)]), 0..=UPDATES),
    ) {
        let updates: Vec<_> =
            updates.into_iter().map(|(slot, extent)| (slot % ring.slots as u16, extent)).collect();
        let table: Vec<u32> = (0..ring.slots).map(|slot| slot % 64).collect();
        let start = sequence.saturating_sub(back);
        let sector = ring.encode(sequence, start, &updates, &table);
        let decoded = ring.decode(&sector, ring.position(sequence)).expect("it is good");
        prop_assert_eq!(decoded.sequence, sequence);
        prop_assert_eq!(decoded.batch_start, start);
        prop_assert_eq!(&decoded.updates, &updates);
        let slots: Vec<u16> = ring.context_slots(sequence).collect();
        prop_assert_eq!(slots.len(), CONTEXT);
        for (slot, extent) in slots.into_iter().zip(decoded.context) {
            prop_assert_eq!(extent, table[usize::from(slot)]);
        }
        let elsewhere = (ring.position(sequence) + 1) % ring.sectors;
        prop_assert_eq!(ring.decode(&sector, elsewhere), None);
    }
}

fn ring(slots: u32, spare: u32) -> Ring {
    let sectors = crate::journal::least_sectors(slots) + spare;
    Ring { device_uuid: 7, sectors, slots, extents: 64 }
}

#[test]
fn every_flip_of_a_superblock_is_rejected() {
    let superblock = example();
    each_flip(&superblock.encode(8192), |record| Superblock::decode(record, 8192).is_ok());
}

#[test]
fn every_flip_of_a_unit_and_of_a_summary_is_rejected() {
    for level in [Level::Unit, Level::Summary] {
        let identity = Identity { device_uuid: 9, slot: 3, level, index: 77 };
        let unit = Unit { epoch: 5, sequence: 6, bits: core::array::from_fn(|n| n as u8) };
        each_flip(&unit.encode(identity), |record| Unit::decode(record, identity).is_some());
    }
}

#[test]
fn every_flip_of_a_log_sector_is_rejected() {
    let ring = ring(100, 0);
    let table: Vec<u32> =
        (0..100).map(|slot| if slot % 3 == 0 { NO_EXTENT } else { slot % 64 }).collect();
    let sector = ring.encode(1234, 1230, &[(5, 6), (7, NO_EXTENT)], &table);
    let position = ring.position(1234);
    each_flip(&sector, |record| ring.decode(record, position).is_some());
}

#[test]
fn a_record_of_another_place_is_rejected() {
    let superblock = example();
    let moved = Superblock::decode(&superblock.encode(0), 65536);
    assert_eq!(moved, Err(Unusable::WrongPlace { recorded: 0 }));

    let identity = Identity { device_uuid: 9, slot: 3, level: Level::Unit, index: 77 };
    let sector = Unit { epoch: 5, sequence: 6, bits: [0; 480] }.encode(identity);
    for other in [
        Identity { device_uuid: 8, ..identity },
        Identity { slot: 2, ..identity },
        Identity { level: Level::Summary, ..identity },
        Identity { index: 78, ..identity },
    ] {
        assert_eq!(Unit::decode(&sector, other), None, "{other:?}");
    }

    let ours = ring(10, 5);
    let sector = ours.encode(40, 40, &[], &[0; 10]);
    let other = Ring { device_uuid: 8, ..ours };
    assert_eq!(other.decode(&sector, ours.position(40)), None);
    // A ring of another length puts the same sector at another place.
    let shorter = Ring { sectors: ours.sectors - 1, ..ours };
    assert_eq!(shorter.decode(&sector, ours.position(40)), None);
}

#[test]
fn unknown_versions_and_features_are_refused() {
    let superblock = example();
    let with = |at: usize, value: u32| {
        let mut record = superblock.encode(0);
        record[at..at + 4].copy_from_slice(&value.to_le_bytes());
        seal(&mut record, CRC);
        Superblock::decode(&record, 0)
    };
    assert_eq!(with(8, 2), Err(Unusable::Version(2)));
    assert_eq!(with(8, 0), Err(Unusable::Version(0)));
    for bit in 0..32 {
        let feature = 1_u32 << bit;
        let incompat = Unusable::Feature { incompat: feature, ro_compat: 0 };
        assert_eq!(with(48, feature), Err(incompat));
        let ro_compat = Unusable::Feature { incompat: 0, ro_compat: feature };
        assert_eq!(with(44, feature), Err(ro_compat));
        let mut both = superblock.clone();
        (both.incompat, both.ro_compat) = (feature, feature);
        let refused = Unusable::Feature { incompat: feature, ro_compat: feature };
        assert_eq!(Superblock::decode(&both.encode(0), 0), Err(refused));
        // A compatible one is lost by rewriting, so it is not claimed any more.
        assert_eq!(with(40, feature), Ok(superblock.clone()));
    }
}

/// A right checksum says that it was written so, not that it can be.
#[test]
fn a_superblock_whose_fields_cannot_be_is_malformed() {
    type Spoil = fn(&mut Superblock);
    let decoded = |placement, spoil: Spoil| {
        let mut superblock = Superblock { placement, ..example() };
        superblock.slots = vec![Slot { node: NodeId(31), ..superblock.slots[0] }];
        superblock.geometry.block_size = 8192;
        superblock.geometry.extent_size = 8192;
        let layout = superblock.layout().expect("the device is large");
        superblock.data_size = layout.data_size();
        superblock.geometry.size = superblock.data_size;
        spoil(&mut superblock);
        Superblock::decode(&superblock.encode(0), 0)
    };
    let legal: [Spoil; 4] = [
        |_| {},
        |it| it.geometry.size -= 4096,
        |it| (it.sequence, it.log_floor) = (SEQUENCE_LIMIT, 0),
        |it| (it.sequence, it.log_floor) = (0, SEQUENCE_LIMIT),
    ];
    let illegal: [Spoil; 10] = [
        |it| it.geometry.size += 4096,
        |it| it.geometry.size -= 512,
        |it| it.data_size += 512,
        |it| it.geometry.extent_size = 4096,
        |it| it.geometry.logical_block_size = 256,
        |it| it.device_size = 4096,
        |it| it.sequence = SEQUENCE_LIMIT + 1,
        |it| it.log_floor = SEQUENCE_LIMIT + 1,
        |it| it.node_id = NodeId(32),
        |it| it.slots[0].node = NodeId(32),
    ];
    for placement in [Placement::Internal, Placement::External] {
        for (n, spoil) in legal.into_iter().enumerate() {
            assert!(decoded(placement, spoil).is_ok(), "{placement:?} {n}");
        }
        for (n, spoil) in illegal.into_iter().enumerate() {
            let found = decoded(placement, spoil);
            assert!(matches!(found, Err(Unusable::Malformed(_))), "{placement:?} {n}: {found:?}");
        }
    }
    // What no superblock in memory can say: placement, slots, flags; of a slot: kind, flags, default.
    for (at, value) in [(53, 2), (54, 32), (112, 0x80), (512, 3), (514, 0x40), (536, 2)] {
        let mut record = example().encode(0);
        record[at] = value;
        seal(&mut record, CRC);
        let found = Superblock::decode(&record, 0);
        assert!(matches!(found, Err(Unusable::Malformed(_))), "byte {at}: {found:?}");
    }
}

#[test]
fn no_record_is_all_zeros_or_all_ones() {
    for fill in [0, 0xff] {
        let record = [fill; 4096];
        assert!(Superblock::decode(&record, 0).is_err());
        let sector = [fill; SECTOR];
        assert_eq!(ring(10, 0).decode(&sector, 0), None);
        let identity = Identity { device_uuid: 0, slot: 0, level: Level::Unit, index: 0 };
        assert_eq!(Unit::decode(&sector, identity), None);
    }
}

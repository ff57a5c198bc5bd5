//! Rotation of generation identifiers.

use crate::format::FormatParams;
use crate::generation::{Generation, HISTORY};
use crate::geometry::NodeId;
use crate::layout::Placement;
use crate::metadata::Metadata;
use crate::superblock::Superblock;
use std::vec;

const NONE: Generation = Generation::NONE;
const A: Generation = Generation(0xa0);
const B: Generation = Generation(0xb0);
const C: Generation = Generation(0xc0);

fn fresh() -> Superblock {
    let params = FormatParams {
        placement: Placement::External,
        device_size: 1 << 20,
        data_size: Some(1 << 20),
        size: None,
        node_id: NodeId(0),
        device_uuid: 1,
        slots: vec![NodeId(1), NodeId(2)],
        al_slots: 4,
        al_sectors: 16,
        block_size: 4096,
        extent_size: 1 << 16,
        logical_block_size: 512,
    };
    Metadata::format(params).expect("it fits").0.superblock().clone()
}

fn real() -> Superblock {
    Superblock { current: A, ..fresh() }
}

fn uuids(superblock: &Superblock) -> [Generation; 2] {
    [superblock.slots[0].bitmap_uuid, superblock.slots[1].bitmap_uuid]
}

#[test]
fn a_lacking_peer_keeps_the_generation_it_shared() {
    let mut superblock = real();
    superblock.mint(B, |node| node == NodeId(1));
    assert_eq!((superblock.current, uuids(&superblock)), (B, [A, NONE]));
    // It is in a slot, so it is not in the history.
    assert_eq!(superblock.history[0], NONE);
    // An older bitmap UUID is the right one; the other peer starts to lack now.
    superblock.mint(C, |_| true);
    assert_eq!((superblock.current, uuids(&superblock)), (C, [A, B]));
    assert_eq!(superblock.history[0], NONE);
}

#[test]
fn a_generation_no_slot_holds_goes_into_the_history() {
    let mut superblock = real();
    superblock.mint(B, |_| false);
    assert_eq!((superblock.current, uuids(&superblock)), (B, [NONE, NONE]));
    assert_eq!(superblock.history[..2], [A, NONE]);
    superblock.mint(C, |_| false);
    assert_eq!(superblock.history[..3], [B, A, NONE]);
}

#[test]
fn the_first_generation_marks_slots_as_new_born() {
    for current in [Generation::JUST_CREATED, NONE] {
        let mut superblock = Superblock { current, ..fresh() };
        superblock.mint(A, |node| node == NodeId(2));
        assert_eq!(uuids(&superblock), [NONE, Generation::JUST_CREATED]);
        assert_eq!(superblock.history, [NONE; HISTORY]);
        superblock.peer_in_sync(NodeId(2));
        assert_eq!(uuids(&superblock), [NONE, NONE]);
        assert_eq!(superblock.history, [NONE; HISTORY]);
    }
}

#[test]
fn a_peer_in_sync_gives_its_generation_to_the_history() {
    let mut superblock = real();
    superblock.mint(B, |_| true);
    superblock.peer_in_sync(NodeId(1));
    assert_eq!(uuids(&superblock), [NONE, A]);
    assert_eq!(superblock.history[..2], [A, NONE]);
    superblock.peer_in_sync(NodeId(2));
    assert_eq!(superblock.history[..2], [A, NONE], "once is enough");
    superblock.peer_in_sync(NodeId(9));
    assert_eq!(superblock.history[..2], [A, NONE], "a node we do not know");
}

#[test]
fn adopting_puts_the_new_line_before_the_old_one() {
    let mut superblock = real();
    superblock.history[..2].copy_from_slice(&[Generation(0x10), Generation(0x20)]);
    superblock.slots[0].bitmap_uuid = B;
    superblock.slots[1].bitmap_uuid = C;
    superblock.adopt(B, &[Generation(0x30), Generation(0x20), B, NONE]);
    assert_eq!((superblock.current, uuids(&superblock)), (B, [NONE, C]));
    let expected = [A, Generation(0x30), Generation(0x20), Generation(0x10), NONE];
    assert_eq!(superblock.history[..5], expected);
}

#[test]
fn data_descend_from_what_they_are_what_a_slot_or_the_history_holds_and_from_nothing() {
    let mut superblock = real();
    superblock.slots[1].bitmap_uuid = B;
    superblock.history[1] = C;
    let known = [A, B, C, NONE, Generation::JUST_CREATED];
    assert!(known.iter().all(|&generation| superblock.descends_from(generation)));
    assert!(!superblock.descends_from(Generation(0xd0)));
    assert_eq!(superblock.past(), [C], "without the empty places");
}

#[test]
fn the_history_keeps_the_newest() {
    let mut superblock = real();
    for n in 0..100 {
        superblock.mint(Generation(1000 + n), |_| false);
    }
    assert_eq!(superblock.history[0], Generation(1098));
    assert_eq!(superblock.history[HISTORY - 1], Generation(1098 - 31));
    let theirs: [Generation; HISTORY] = core::array::from_fn(|n| Generation(5000 + n as u64));
    superblock.adopt(C, &theirs);
    assert_eq!(superblock.history[0], Generation(1099));
    assert_eq!(superblock.history[1..], theirs[..HISTORY - 1]);
}

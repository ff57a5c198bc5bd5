//! The sparse dirty bitmap against a plain vector of bools, and its cost on a large device.

use bitmap::{ByteRange, DirtyBitmap, Geometry, LEAF_BITS};
use proptest::prelude::*;
use std::ops::Range;
use std::time::Instant;

#[derive(Clone, Debug)]
enum Op {
    Set(u64, u64),
    Clear(u64, u64),
    Fill,
    ClearAll,
}

fn op() -> impl Strategy<Value = Op> {
    // Ends on leaf borders are where mistakes live.
    let point = prop_oneof![
        3 => any::<u64>(),
        1 => (0..8_u64, 0..3_u64).prop_map(|(leaf, off)| leaf * LEAF_BITS + off),
    ];
    let len = prop_oneof![3 => 0..40_u64, 1 => 0..9000_u64, 1 => Just(LEAF_BITS)];
    prop_oneof![
        8 => (point.clone(), len.clone()).prop_map(|(at, len)| Op::Set(at, len)),
        8 => (point, len).prop_map(|(at, len)| Op::Clear(at, len)),
        1 => Just(Op::Fill),
        1 => Just(Op::ClearAll),
    ]
}

fn range(len: u64, at: u64, count: u64) -> Range<u64> {
    let start = at % (len + 1);
    start..(start + count).min(len)
}

fn model_runs(model: &[bool]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (n, _) in model.iter().enumerate().filter(|(_, set)| **set) {
        match runs.last_mut() {
            Some(run) if run.end == n as u64 => run.end += 1,
            _ => runs.push(n as u64..n as u64 + 1),
        }
    }
    runs
}

proptest! {
    #[test]
    fn behaves_as_a_vector(
        len in prop_oneof![1..200_u64, Just(LEAF_BITS), 1..20_000_u64],
        ops in prop::collection::vec(op(), 0..30),
        probes in prop::collection::vec((any::<u64>(), 0..9000_u64), 20),
    ) {
        let mut bitmap = DirtyBitmap::new(len);
        let mut model = vec![false; len as usize];
        for op in ops {
            let before = bitmap.clone();
            let runs_before = model_runs(&model);
            let (changed, expected) = match op {
                Op::Set(at, count) | Op::Clear(at, count) => {
                    let value = matches!(op, Op::Set(..));
                    let range = range(len, at, count);
                    let part = &mut model[range.start as usize..range.end as usize];
                    let expected = part.iter().filter(|bit| **bit != value).count() as u64;
                    part.fill(value);
                    let changed = if value { bitmap.set(range) } else { bitmap.clear(range) };
                    (changed, expected)
                }
                Op::Fill => { bitmap.fill(); model.fill(true); (0, 0) }
                Op::ClearAll => { bitmap.clear_all(); model.fill(false); (0, 0) }
            };
            prop_assert_eq!(changed, expected);
            prop_assert_eq!(bitmap.count(), model.iter().filter(|bit| **bit).count() as u64);
            prop_assert_eq!(bitmap.runs().collect::<Vec<_>>(), model_runs(&model));
            // A clone shares leaves, and must not share changes.
            prop_assert_eq!(before.runs().collect::<Vec<_>>(), runs_before);
        }
        prop_assert_eq!((bitmap.len(), bitmap.is_empty()), (len, false));
        for (at, count) in probes {
            let range = range(len, at, count);
            let part = &model[range.start as usize..range.end as usize];
            prop_assert_eq!(bitmap.any(range.clone()), part.iter().any(|bit| *bit));
            prop_assert_eq!(bitmap.all(range.clone()), part.iter().all(|bit| *bit));
            let max = count + 1;
            let next = model_runs(&model).into_iter().find(|run| run.end > range.start).map(|run| {
                let start = run.start.max(range.start);
                start..run.end.min(start + max)
            });
            prop_assert_eq!(bitmap.next_run(range.start, max), next);
        }
    }

    #[test]
    fn ranges_round_the_safe_way(
        pages in 1..200_u64, shift in 12..15_u32, start in 0..1_000_000_u64, len in 0..1_000_000_u64,
    ) {
        let geometry = Geometry {
            size: pages * 4096,
            block_size: 1 << shift,
            extent_size: 1 << (shift + 2),
            logical_block_size: 512,
        };
        let bytes = ByteRange::new(start, len);
        let out = geometry.blocks_out(bytes);
        let inner = geometry.blocks_in(bytes);
        for block in 0..geometry.blocks() {
            let whole = geometry.block_bytes(block..block + 1);
            prop_assert_eq!(out.contains(&block), bytes.overlaps(&whole), "block {}", block);
            prop_assert_eq!(inner.contains(&block), bytes.contains(&whole), "block {}", block);
        }
        let extents = geometry.extents_of(bytes);
        for extent in 0..geometry.extents() {
            let whole = geometry.extent_bytes(extent);
            prop_assert_eq!(extents.contains(&extent), bytes.overlaps(&whole));
            prop_assert_eq!(geometry.extent_blocks(extent), geometry.blocks_out(whole));
        }
        let unit = u64::from(geometry.block_size);
        prop_assert!(bytes.align_out(unit).contains(&bytes));
        if let Some(inner) = bytes.align_in(unit) {
            prop_assert!(bytes.contains(&inner) && inner.start % unit == 0 && inner.end % unit == 0);
        } else {
            prop_assert!((0..300_000 / unit).all(|n| !bytes.contains(&ByteRange::new(n * unit, unit))));
        }
        let other = ByteRange::new(len, start);
        prop_assert_eq!(bytes.intersect(other).is_some(), bytes.overlaps(&other));
    }
}

/// 16 TiB of 4 KiB blocks. The bound is far above what it takes, and far below what
/// a walk over bits or leaves would.
#[test]
fn size_costs_nothing() {
    let bits = 1_u64 << 32;
    assert!(DirtyBitmap::new(0).is_empty());
    let started = Instant::now();
    for _ in 0..100 {
        let mut bitmap = DirtyBitmap::new(bits);
        assert_eq!(bitmap.next_run(0, u64::MAX), None);
        assert_eq!(bitmap.set(bits - 1..bits), 1);
        assert_eq!(bitmap.next_run(0, u64::MAX), Some(bits - 1..bits));
        assert_eq!(bitmap.next_run(0, 0), None, "no bits are no run");
        bitmap.fill();
        assert_eq!(bitmap.count(), bits);
        assert_eq!(bitmap.next_run(5, u64::MAX), Some(5..bits));
        assert_eq!(bitmap.clear(bits / 2..bits / 2 + 1), 1);
        assert_eq!(bitmap.runs().collect::<Vec<_>>(), [0..bits / 2, bits / 2 + 1..bits]);
        assert!(!bitmap.all(0..bits) && bitmap.all(0..bits / 2));
        assert_eq!(bitmap.clone().count(), bits - 1);
        bitmap.clear_all();
        assert!(!bitmap.any(0..bits));
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

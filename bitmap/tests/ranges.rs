//! Ranges and the shape of a data area against sets of bytes, one by one: every range there is on devices of a few bytes.

use bitmap::{ByteRange, Geometry};
use std::collections::BTreeSet;
use std::ops::Range;

const END: u64 = 9;

/// Every range that ends by `END`; also those that end before they begin.
fn ranges() -> impl Iterator<Item = ByteRange> {
    (0..=END).flat_map(|start| (0..=END).map(move |end| ByteRange { start, end }))
}

fn bytes(range: ByteRange) -> BTreeSet<u64> {
    (range.start..range.end).collect()
}

fn whole<T: Copy + Ord>(parts: Range<T>) -> Option<Range<T>> {
    (parts.start < parts.end).then_some(parts)
}

#[test]
fn two_ranges_are_two_sets_of_bytes() {
    for a in ranges() {
        assert_eq!(a.len(), bytes(a).len() as u64, "{a:?}");
        assert_eq!(a.is_empty(), bytes(a).is_empty(), "{a:?}");
        for b in ranges() {
            let both: BTreeSet<u64> = bytes(a).intersection(&bytes(b)).copied().collect();
            assert_eq!(a.overlaps(&b), !both.is_empty(), "{a:?} {b:?}");
            assert_eq!(a.contains(&b), bytes(b).is_subset(&bytes(a)), "{a:?} {b:?}");
            let shared = a.intersect(b);
            assert_eq!(shared.map_or(BTreeSet::new(), bytes), both, "{a:?} {b:?}");
            assert_eq!(shared.is_some(), !both.is_empty(), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_range_of_units_is_the_smallest_around_and_the_largest_inside() {
    for (range, unit) in ranges().flat_map(|range| (1..=4).map(move |unit| (range, unit))) {
        let of = |n: u64| ByteRange::new(n * unit, unit);
        let units = |keep: &dyn Fn(&ByteRange) -> bool| -> BTreeSet<u64> {
            (0..=END).map(of).filter(|unit| keep(unit)).flat_map(bytes).collect()
        };
        let touched = units(&|unit| !bytes(*unit).is_disjoint(&bytes(range)));
        assert_eq!(bytes(range.align_out(unit)), touched, "{range:?} {unit}");
        let covered = units(&|unit| bytes(*unit).is_subset(&bytes(range)));
        let inside = range.align_in(unit);
        assert_eq!(inside.map_or(BTreeSet::new(), bytes), covered, "{range:?} {unit}");
        assert_eq!(inside.is_some(), !covered.is_empty(), "{range:?} {unit}");
    }
    // Where it begins, an empty one says too.
    let none = ByteRange::new(7, 0).align_out(4);
    assert_eq!(none, ByteRange { start: 4, end: 4 });
}

#[test]
fn blocks_and_extents_of_a_device_are_those_of_its_bytes() {
    for (size, block_size) in (1..=END).flat_map(|size| [1, 2, 4].map(|block| (size, block))) {
        let extent_size = 2 * block_size;
        let geometry = Geometry { size, block_size, extent_size, logical_block_size: 1 };
        let (block, extent) = (u64::from(block_size), u64::from(extent_size));
        // What the device has of each: a list of sets.
        let parts = |unit: u64| -> Vec<BTreeSet<u64>> {
            (0..size).step_by(unit as usize).map(|at| (at..size.min(at + unit)).collect()).collect()
        };
        let (blocks, extents) = (parts(block), parts(extent));
        assert_eq!(geometry.blocks(), blocks.len() as u64, "{geometry:?}");
        assert_eq!(geometry.extents() as usize, extents.len(), "{geometry:?}");
        for range in ranges() {
            let what = format!("{geometry:?} {range:?}");
            let touched = |part: &BTreeSet<u64>| !part.is_disjoint(&bytes(range));
            let covered = |part: &BTreeSet<u64>| part.is_subset(&bytes(range));
            let of = |parts: &[BTreeSet<u64>], keep: &dyn Fn(&BTreeSet<u64>) -> bool| {
                let first = parts.iter().position(keep)? as u64;
                Some(first..parts.iter().rposition(keep)? as u64 + 1)
            };
            assert_eq!(whole(geometry.blocks_out(range)), of(&blocks, &touched), "{what}");
            assert_eq!(whole(geometry.blocks_in(range)), of(&blocks, &covered), "{what}");
            let extents = of(&extents, &touched).map(|some| some.start as u32..some.end as u32);
            assert_eq!(whole(geometry.extents_of(range)), extents, "{what}");
            // A range of blocks, by the same numbers.
            let theirs: BTreeSet<u64> = (range.start..range.end)
                .filter_map(|n| blocks.get(n as usize))
                .flatten()
                .copied()
                .collect();
            assert_eq!(bytes(geometry.block_bytes(range.start..range.end)), theirs, "{what}");
        }
        for (index, part) in extents.iter().enumerate() {
            let index = index as u32;
            assert_eq!(&bytes(geometry.extent_bytes(index)), part, "{geometry:?} {index}");
            let theirs = geometry.block_bytes(geometry.extent_blocks(index));
            assert_eq!(&bytes(theirs), part, "{geometry:?} {index}");
        }
        // Nothing is behind the end.
        assert!(geometry.extent_bytes(geometry.extents()).is_empty(), "{geometry:?}");
    }
}

//! One dirty bitmap in memory: a bit per block, sparse, so that 16 TiB that are clean or all
//! dirty cost nothing, and a clone costs what is neither. Nothing here is about disks, except that
//! a leaf has as many bits as an on-disk unit.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use bitvec::array::BitArray;
use bitvec::order::Lsb0;
use core::fmt;
use core::ops::Range;

/// Bits of a leaf, and of an on-disk unit.
pub const LEAF_BITS: u64 = 3840;
/// Bytes of a leaf.
pub(crate) const LEAF_BYTES: usize = (LEAF_BITS / 8) as usize;

type Words = [u64; LEAF_BYTES / 8];

/// A bit per block.
#[derive(Clone, Debug)]
pub struct DirtyBitmap {
    len: u64,
    ones: u64,
    /// What a leaf that is not in the map holds, in every bit.
    default: bool,
    leaves: BTreeMap<u32, Leaf>,
}

/// A leaf that differs from the default.
#[derive(Clone, Debug)]
enum Leaf {
    /// Every bit is the opposite of the default.
    Flipped,
    /// Some bits are set and some are clear.
    Mixed(Arc<Mixed>),
}

#[derive(Clone)]
struct Mixed {
    ones: u64,
    /// Bits behind the end of the bitmap are clear.
    bits: BitArray<Words, Lsb0>,
}

/// The same bits print the same, wherever they are in memory.
impl fmt::Debug for Mixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.bits.data.iter().enumerate().filter(|(_, word)| **word != 0);
        f.debug_map().entries(words).finish()
    }
}

impl DirtyBitmap {
    /// `bits` bits, all clear.
    pub fn new(bits: u64) -> Self {
        assert!(bits.div_ceil(LEAF_BITS) <= u64::from(u32::MAX), "leaves are counted in 32 bits");
        Self { len: bits, ones: 0, default: false, leaves: BTreeMap::new() }
    }

    /// Sets a range; returns how many of its bits were clear.
    pub fn set(&mut self, range: Range<u64>) -> u64 {
        let changed = self.put(range, true);
        self.ones += changed;
        changed
    }

    /// Clears a range; returns how many of its bits were set.
    pub fn clear(&mut self, range: Range<u64>) -> u64 {
        let changed = self.put(range, false);
        self.ones -= changed;
        changed
    }

    /// Sets every bit, whatever the size.
    pub fn fill(&mut self) {
        self.leaves.clear();
        self.default = true;
        self.ones = self.len;
    }

    /// Clears every bit, whatever the size.
    pub fn clear_all(&mut self) {
        self.leaves.clear();
        self.default = false;
        self.ones = 0;
    }

    /// Bits set.
    pub fn count(&self) -> u64 {
        self.ones
    }

    /// Bits there are, set or clear.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bits, set or clear.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a bit of the range is set.
    pub fn any(&self, range: Range<u64>) -> bool {
        self.first(range, true).is_some()
    }

    /// Whether all bits of the range are set.
    pub fn all(&self, range: Range<u64>) -> bool {
        self.first(range, false).is_none()
    }

    /// The first run of set bits at or behind `from`, cut at `max` bits.
    pub fn next_run(&self, from: u64, max: u64) -> Option<Range<u64>> {
        let start = self.first(from..self.len, true)?;
        let limit = start.saturating_add(max).min(self.len);
        let end = self.first(start..limit, false).unwrap_or(limit);
        (start < end).then_some(start..end)
    }

    /// All runs of set bits, in order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let run = self.next_run(from, u64::MAX)?;
            from = run.end;
            Some(run)
        })
    }

    /// Leaves, whole or partial.
    pub(crate) fn leaf_count(&self) -> u32 {
        u32::try_from(self.len.div_ceil(LEAF_BITS)).expect("checked in new")
    }

    /// The bits of one leaf.
    pub(crate) fn leaf_range(&self, leaf: u32) -> Range<u64> {
        let start = u64::from(leaf) * LEAF_BITS;
        start..(start + LEAF_BITS).min(self.len)
    }

    /// One leaf as bytes, bit 0 lowest in byte 0. Bits behind the end are clear.
    pub(crate) fn leaf_bytes(&self, leaf: u32) -> [u8; LEAF_BYTES] {
        let bits = match self.leaves.get(&leaf) {
            Some(Leaf::Mixed(mixed)) => mixed.bits,
            Some(Leaf::Flipped) => self.uniform(leaf, !self.default),
            None => self.uniform(leaf, self.default),
        };
        let mut bytes = [0; LEAF_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(bits.data) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Replaces one leaf. Bits behind the end are ignored.
    pub(crate) fn load_leaf(&mut self, leaf: u32, bytes: &[u8; LEAF_BYTES]) {
        let mut bits = BitArray::<Words, Lsb0>::ZERO;
        for (word, chunk) in bits.data.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        }
        bits &= self.uniform(leaf, true);
        self.ones -= self.leaf_ones(leaf);
        let ones = bits.count_ones() as u64;
        self.ones += ones;
        self.keep(leaf, Mixed { ones, bits });
    }

    fn leaf_len(&self, leaf: u32) -> u64 {
        let range = self.leaf_range(leaf);
        range.end - range.start
    }

    fn leaf_ones(&self, leaf: u32) -> u64 {
        let uniform = |value| if value { self.leaf_len(leaf) } else { 0 };
        match self.leaves.get(&leaf) {
            Some(Leaf::Mixed(mixed)) => mixed.ones,
            Some(Leaf::Flipped) => uniform(!self.default),
            None => uniform(self.default),
        }
    }

    /// A leaf's bits if all within the bitmap have `value`.
    fn uniform(&self, leaf: u32, value: bool) -> BitArray<Words, Lsb0> {
        let mut bits = BitArray::ZERO;
        bits[..self.leaf_len(leaf) as usize].fill(value);
        bits
    }

    /// Stores a leaf in its cheapest form: one value per state, so that a map entry says that a
    /// bit differs from the default.
    fn keep(&mut self, leaf: u32, mixed: Mixed) {
        if mixed.ones == 0 {
            self.keep_uniform(leaf, false);
        } else if mixed.ones == self.leaf_len(leaf) {
            self.keep_uniform(leaf, true);
        } else {
            self.leaves.insert(leaf, Leaf::Mixed(Arc::new(mixed)));
        }
    }

    fn keep_uniform(&mut self, leaf: u32, value: bool) {
        if value == self.default {
            self.leaves.remove(&leaf);
        } else {
            self.leaves.insert(leaf, Leaf::Flipped);
        }
    }

    /// Gives a range `value`; returns how many bits changed. The caller corrects `ones`.
    fn put(&mut self, range: Range<u64>, value: bool) -> u64 {
        assert!(range.end <= self.len, "bits {range:?} of {}", self.len);
        let mut changed = 0;
        let mut at = range.start;
        while at < range.end {
            let leaf = leaf_of(at);
            let bounds = self.leaf_range(leaf);
            let end = range.end.min(bounds.end);
            if at == bounds.start && end == bounds.end {
                let ones = self.leaf_ones(leaf);
                changed += if value { (end - at) - ones } else { ones };
                self.keep_uniform(leaf, value);
            } else {
                changed += self.put_part(leaf, at - bounds.start..end - bounds.start, value);
            }
            at = end;
        }
        changed
    }

    /// Gives a part of one leaf `value`; returns how many bits changed.
    fn put_part(&mut self, leaf: u32, part: Range<u64>, value: bool) -> u64 {
        let part = part.start as usize..part.end as usize;
        let uniform = match self.leaves.get(&leaf) {
            Some(Leaf::Mixed(_)) => None,
            Some(Leaf::Flipped) => Some(!self.default),
            None => Some(self.default),
        };
        if uniform == Some(value) {
            return 0;
        }
        if let Some(value) = uniform {
            let mixed = Mixed { ones: self.leaf_ones(leaf), bits: self.uniform(leaf, value) };
            self.leaves.insert(leaf, Leaf::Mixed(Arc::new(mixed)));
        }
        let size = self.leaf_len(leaf);
        let Some(Leaf::Mixed(mixed)) = self.leaves.get_mut(&leaf) else {
            unreachable!("made mixed above");
        };
        let mixed = Arc::make_mut(mixed);
        let before = mixed.bits[part.clone()].count_ones();
        mixed.bits[part.clone()].fill(value);
        let changed = if value { part.len() - before } else { before } as u64;
        mixed.ones = if value { mixed.ones + changed } else { mixed.ones - changed };
        if mixed.ones == 0 || mixed.ones == size {
            self.keep_uniform(leaf, value);
        }
        changed
    }

    /// The first bit of the range that has `value`. Costs the leaves that differ from the
    /// default on the way, never the bits.
    fn first(&self, range: Range<u64>, value: bool) -> Option<u64> {
        let end = range.end.min(self.len);
        if range.start >= end {
            return None;
        }
        let mut at = range.start;
        for (&leaf, state) in self.leaves.range(leaf_of(at)..=leaf_of(end - 1)) {
            let bounds = self.leaf_range(leaf);
            if at < bounds.start {
                // The leaves between are not in the map: they hold the default.
                if value == self.default {
                    return Some(at);
                }
                at = bounds.start;
            }
            let found = match state {
                Leaf::Flipped => (value != self.default).then_some(at),
                Leaf::Mixed(mixed) => {
                    let part = &mixed.bits
                        [(at - bounds.start) as usize..(bounds.end - bounds.start) as usize];
                    let first = if value { part.first_one() } else { part.first_zero() };
                    first.map(|index| at + index as u64)
                }
            };
            if let Some(found) = found {
                return (found < end).then_some(found);
            }
            at = bounds.end;
        }
        (at < end && value == self.default).then_some(at)
    }
}

fn leaf_of(bit: u64) -> u32 {
    u32::try_from(bit / LEAF_BITS).expect("checked in new")
}

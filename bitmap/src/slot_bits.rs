//! One slot's bitmap: the bits in memory, what of them the disk does not have yet, and which
//! units the disk has at all. The bytes of a unit are `unit.rs`; when it is written is decided in
//! `metadata.rs`.
//!
//! A slot has an epoch and a default in the superblock. A unit counts only if the summary says
//! it was written in this epoch; else all its bits are the default. So filling or clearing
//! a bitmap of any size is one superblock update.

use crate::codec::Sector;
use crate::dirty::{DirtyBitmap, LEAF_BITS};
use crate::superblock::Slot;
use crate::unit::{Identity, Level, Unit};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;

/// A bitmap and its state on disk.
#[derive(Clone, Debug)]
pub(crate) struct SlotBits {
    bits: DirtyBitmap,
    /// Units whose bits changed since they were last part of a commit.
    changed: BTreeSet<u32>,
    /// One bit per unit: written in this epoch.
    written: DirtyBitmap,
    /// Summary sectors whose bits changed since they were last part of a commit.
    summary_changed: BTreeSet<u32>,
}

/// Sectors of one slot to write, by index. The units go first: a summary that says "written" must
/// never be on disk before the unit is.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotSectors {
    pub(crate) units: Vec<(u32, Sector)>,
    pub(crate) summary: Vec<(u32, Sector)>,
}

impl SlotBits {
    /// A bitmap of `blocks` bits of which no unit is written.
    pub(crate) fn new(blocks: u64, default_set: bool) -> Self {
        let mut bits = DirtyBitmap::new(blocks);
        if default_set {
            bits.fill();
        }
        let written = DirtyBitmap::new(u64::from(bits.leaf_count()));
        Self { bits, changed: BTreeSet::new(), written, summary_changed: BTreeSet::new() }
    }

    pub(crate) fn bits(&self) -> &DirtyBitmap {
        &self.bits
    }

    /// Gives blocks a value, in memory; returns how many changed.
    pub(crate) fn put(&mut self, blocks: Range<u64>, value: bool) -> u64 {
        let mut total = 0;
        let mut at = blocks.start;
        while at < blocks.end {
            let unit = unit_of(at);
            let end = blocks.end.min(self.bits.leaf_range(unit).end);
            assert!(at < end, "blocks {blocks:?} of {}", self.bits.len());
            let part = at..end;
            let changed = if value { self.bits.set(part) } else { self.bits.clear(part) };
            if changed > 0 {
                self.changed.insert(unit);
            }
            total += changed;
            at = end;
        }
        total
    }

    /// Gives all blocks a value; the caller starts a new epoch with that default.
    pub(crate) fn put_all(&mut self, value: bool) {
        // A summary sector that waits to be repaired still does.
        let summary_changed = core::mem::take(&mut self.summary_changed);
        *self = Self { summary_changed, ..Self::new(self.bits.len(), value) };
    }

    /// Whether the disk lacks a change.
    pub(crate) fn is_changed(&self) -> bool {
        !self.changed.is_empty() || !self.summary_changed.is_empty()
    }

    /// Changed units.
    pub(crate) fn changed(&self) -> Vec<u32> {
        self.changed.iter().copied().collect()
    }

    /// Changed units that hold bits of `blocks`.
    pub(crate) fn changed_in(&self, blocks: Range<u64>) -> impl Iterator<Item = u32> + '_ {
        let units = unit_of(blocks.start)..unit_of(blocks.end + LEAF_BITS - 1);
        self.changed.range(units).copied()
    }

    /// The sectors that make `units` durable.
    pub(crate) fn write(
        &mut self,
        units: impl IntoIterator<Item = u32>,
        slot: &Slot,
        identity: impl Fn(Level, u32) -> Identity,
        sequence: u32,
    ) -> SlotSectors {
        let mut sectors = SlotSectors::default();
        let encode = |level, index, bits| {
            Unit { epoch: slot.epoch, sequence, bits }.encode(identity(level, index))
        };
        for unit in units {
            self.changed.remove(&unit);
            let range = self.bits.leaf_range(unit);
            let summary_bit = u64::from(unit)..u64::from(unit) + 1;
            let written = self.written.any(summary_bit.clone());
            let is_default =
                if slot.default_set { self.bits.all(range) } else { !self.bits.any(range) };
            if is_default && !written {
                continue;
            }
            if is_default {
                // The summary alone says so, and the next attach need not read the unit.
                self.written.clear(summary_bit);
                self.summary_changed.insert(unit_of(u64::from(unit)));
                continue;
            }
            sectors.units.push((unit, encode(Level::Unit, unit, self.bits.leaf_bytes(unit))));
            if !written {
                self.written.set(summary_bit);
                self.summary_changed.insert(unit_of(u64::from(unit)));
            }
        }
        for index in core::mem::take(&mut self.summary_changed) {
            let bits = self.written.leaf_bytes(index);
            sectors.summary.push((index, encode(Level::Summary, index, bits)));
        }
        sectors
    }

    /// Every summary sector, for create-md.
    pub(crate) fn mark_summary(&mut self) {
        self.summary_changed.extend(0..self.written.leaf_count());
    }

    /// Summary sectors there are.
    pub(crate) fn summary_count(&self) -> u32 {
        self.written.leaf_count()
    }

    /// Takes a summary sector read from disk; `false` if it was not to be believed. Then nobody
    /// knows which of its units count (MD-2). A unit that became like the default was not written
    /// again, and still is what it was before. With all clear by default that has bits too many:
    /// units are read, and those that were not written in this epoch count as set. With all set
    /// it has bits too few: all stay set.
    pub(crate) fn load_summary(&mut self, index: u32, found: Option<&Unit>, slot: &Slot) -> bool {
        match found {
            // Of an older epoch: none of its units was written in this one.
            Some(summary) if summary.epoch != slot.epoch => {}
            Some(summary) => self.written.load_leaf(index, &summary.bits),
            None => {
                if !slot.default_set {
                    self.written.set(self.written.leaf_range(index));
                }
                self.summary_changed.insert(index);
            }
        }
        found.is_some()
    }

    /// The next units to read at or behind `from`, at most `max`.
    pub(crate) fn next_written(&self, from: u32, max: u32) -> Option<Range<u32>> {
        let run = self.written.next_run(u64::from(from), u64::from(max))?;
        let index = |n| u32::try_from(n).expect("units are counted in 32 bits");
        Some(index(run.start)..index(run.end))
    }

    /// Takes a unit that the summary vouches for; `false` if it was not to be believed. Then all
    /// its bits are set (MD-2).
    pub(crate) fn load_unit(&mut self, index: u32, found: Option<&Unit>, epoch: u32) -> bool {
        match found.filter(|unit| unit.epoch == epoch) {
            Some(unit) => {
                self.bits.load_leaf(index, &unit.bits);
                true
            }
            None => {
                self.bits.set(self.bits.leaf_range(index));
                self.changed.insert(index);
                false
            }
        }
    }
}

/// The unit of a block; likewise the summary sector of a unit.
fn unit_of(block: u64) -> u32 {
    u32::try_from(block / LEAF_BITS).expect("units are counted in 32 bits")
}

//! What must hold after a crash, from the state before and the state after.

use crate::common::{Blocks, bits, blocks_of, sectors};
use bitmap::{Metadata, Opened, Superblock};
use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A superblock without its counters.
pub(crate) fn record(metadata: &Metadata) -> Superblock {
    Superblock { sequence: 0, log_floor: 0, ..metadata.superblock().clone() }
}

/// What tells two recovered states apart: what was found, and what the next commit would write.
pub(crate) fn digest(opened: &Opened) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", opened.metadata.superblock()).hash(&mut hasher);
    opened.recovered_extents.hash(&mut hasher);
    for slot in 0..opened.metadata.superblock().slots.len() {
        bits(&opened.metadata, slot).hash(&mut hasher);
    }
    let mut next = opened.metadata.clone();
    next.sync_bits();
    for write in next.start_commit().iter().flat_map(|commit| commit.stages.iter().flatten()) {
        sectors(write).hash(&mut hasher);
    }
    hasher.finish()
}

/// What is known before the crash, against which every state after it is checked.
pub(crate) struct Truth {
    name: String,
    old_record: Superblock,
    new_record: Superblock,
    slots: Vec<SlotTruth>,
    old_active: BTreeSet<u32>,
    new_active: BTreeSet<u32>,
}

pub(crate) struct SlotTruth {
    /// Covered before, and still to be covered.
    must: Blocks,
    /// Found when all is done.
    after: Blocks,
    /// May be found at any time.
    may: Blocks,
}

impl Truth {
    pub(crate) fn new(name: &str, before: &Opened, pending: &Metadata, after: &Metadata) -> Self {
        let old_active: BTreeSet<u32> = before.recovered_extents.iter().copied().collect();
        let new_active: BTreeSet<u32> = after.active_extents().collect();
        let kept = blocks_of(after, old_active.intersection(&new_active).copied());
        let slots = (0..pending.superblock().slots.len()).map(|slot| {
            let found = bits(&before.metadata, slot);
            let memory = bits(pending, slot);
            // Clearing all takes back what earlier commits made durable; what was set again is
            // covered by the log, or not yet.
            let (old, new) =
                (before.metadata.superblock().slots[slot], pending.superblock().slots[slot]);
            let cleared = old.epoch != new.epoch && !new.default_set;
            let covered =
                if cleared { blocks_of(after, old_active.iter().copied()) } else { found.clone() };
            let must = memory.intersection(&covered).union(&kept);
            let after_bits = memory.union(&blocks_of(after, new_active.iter().copied()));
            let mut may = found.union(&after_bits);
            if old.epoch != new.epoch && new.default_set {
                may.insert(0..pending.geometry().blocks());
            }
            SlotTruth { must, after: after_bits, may }
        });
        let slots = slots.collect();
        Self {
            name: name.to_owned(),
            old_record: record(&before.metadata),
            new_record: record(after),
            slots,
            old_active,
            new_active,
        }
    }

    pub(crate) fn check(&self, opened: &Opened, done: bool) {
        let name = &self.name;
        let found = record(&opened.metadata);
        // MD-1: the old record or the new one, whole, and the new one when it was relied upon.
        assert!(found == self.new_record || (!done && found == self.old_record), "{name}: MD-1");
        // MD-2: nothing was corrupt, so nothing is given up.
        assert!(!opened.log_lost, "{name}: MD-2, the log is lost");
        assert_eq!(opened.bad_units, 0, "{name}: MD-2, bad units");
        let recovered: BTreeSet<u32> = opened.recovered_extents.iter().copied().collect();
        let known: BTreeSet<u32> = self.old_active.union(&self.new_active).copied().collect();
        assert!(recovered.is_subset(&known), "{name}: MD-2, extents from nowhere");
        if done {
            assert_eq!(recovered, self.new_active, "{name}: MD-2, extents");
            assert!(!opened.repaired, "{name}: nothing to repair");
        }
        for (slot, truth) in self.slots.iter().enumerate() {
            let found = bits(&opened.metadata, slot);
            if done {
                assert_eq!(found, truth.after, "{name}: MD-2, bits of slot {slot}");
            }
            let lost: Vec<_> = truth.must.difference(&found).iter().collect();
            assert!(lost.is_empty(), "{name}: MD-2, slot {slot} lost {lost:?}");
            let extra: Vec<_> = found.difference(&truth.may).iter().collect();
            assert!(extra.is_empty(), "{name}: MD-2, slot {slot} from nowhere {extra:?}");
        }
    }
}

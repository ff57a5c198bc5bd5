//! The activity log in memory: which extents have a slot, which of those slots are stable, and
//! which were used last. What a slot looks like on disk is `journal.rs`; which bits must be stable
//! before an extent leaves is `metadata.rs`.

use crate::commit::Ticket;
use crate::journal::NO_EXTENT;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Answer to [`crate::Metadata::activate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Every extent is in the stable log: writes may be submitted (COV-1).
    Active,
    /// Every extent has a place, and all are stable when this ticket is durable.
    Pending(Ticket),
    /// There is no room, and nothing was assigned.
    Full {
        /// Extents that must be retired before it fits.
        missing: u32,
    },
}

/// Slots and the extents in them.
#[derive(Clone, Debug)]
pub(crate) struct ActivityLog {
    /// Slot to extent, as it will be on disk when everything pending is.
    table: Vec<u32>,
    /// Slots whose entry was not part of a commit yet.
    changed: BTreeSet<u16>,
    free: BTreeSet<u16>,
    entries: BTreeMap<u32, Entry>,
    /// Stamp to extent, oldest first, without those being retired.
    recency: BTreeMap<u64, u32>,
    clock: u64,
    /// Extents that keep their slot only until the next commit starts, or another needs it.
    retiring: BTreeSet<u32>,
    /// Extents that lost their slot since the last commit started.
    leaving: BTreeSet<u32>,
    /// Extents that are new in the commit in flight.
    sent: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u16,
    phase: Phase,
    stamp: u64,
}

/// How far an extent's slot has got. A later phase is the weaker promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// On stable storage.
    Stable,
    /// In the commit in flight.
    Sent,
    /// Waits for the next commit.
    New,
}

/// Extents that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) u32);

/// What the log contributes to a commit.
#[derive(Clone, Debug)]
pub(crate) struct LogChange {
    /// Extents that are gone when it is durable: their bits must be stable before (COV-4).
    pub(crate) leaving: BTreeSet<u32>,
    /// Slots to update.
    pub(crate) updates: Vec<(u16, u32)>,
}

impl ActivityLog {
    /// An empty log.
    pub(crate) fn new(slots: u32) -> Self {
        Self::recovered(vec![NO_EXTENT; slots as usize])
    }

    /// The log as found on disk. An extent that is there twice keeps its first slot.
    pub(crate) fn recovered(table: Vec<u32>) -> Self {
        let mut log = Self {
            table,
            changed: BTreeSet::new(),
            free: BTreeSet::new(),
            entries: BTreeMap::new(),
            recency: BTreeMap::new(),
            clock: 0,
            retiring: BTreeSet::new(),
            leaving: BTreeSet::new(),
            sent: Vec::new(),
        };
        for index in 0..log.table.len() {
            let slot = u16::try_from(index).expect("the layout limits slots to 16 bits");
            let extent = log.table[index];
            if extent == NO_EXTENT {
                log.free.insert(slot);
            } else if log.entries.contains_key(&extent) {
                log.table[index] = NO_EXTENT;
                log.changed.insert(slot);
                log.free.insert(slot);
            } else {
                log.enter(extent, slot, Phase::Stable);
            }
        }
        log
    }

    /// Gives every extent a slot; returns the weakest phase among them.
    pub(crate) fn activate(&mut self, extents: Range<u32>) -> Result<Phase, Missing> {
        let asked = u32::try_from(extents.len()).expect("extents are counted in 32 bits");
        let held = extents.clone().filter(|extent| self.entries.contains_key(extent)).count();
        let kept = self.retiring.range(extents.clone()).count();
        let missing = (asked as usize) - held;
        let room = self.free() as usize - kept;
        if missing > room {
            let missing = u32::try_from(missing - room).expect("less than was asked");
            return Err(Missing(missing));
        }
        let mut weakest = Phase::Stable;
        // First those that stay: they must not lose their slot to the others.
        for extent in extents.clone() {
            if self.retiring.remove(&extent) {
                let stamp = self.entries[&extent].stamp;
                self.recency.insert(stamp, extent);
            }
        }
        for extent in extents {
            let phase = match self.entries.get(&extent) {
                Some(entry) => entry.phase,
                None => {
                    let slot = self.take_slot();
                    self.table[usize::from(slot)] = extent;
                    self.changed.insert(slot);
                    self.enter(extent, slot, Phase::New);
                    Phase::New
                }
            };
            self.touch(extent);
            weakest = weakest.max(phase);
        }
        Ok(weakest)
    }

    /// Marks an extent for leaving; `false` if it is not in the log and not on its way out.
    pub(crate) fn retire(&mut self, extent: u32) -> bool {
        if let Some(entry) = self.entries.get(&extent) {
            self.recency.remove(&entry.stamp);
            self.retiring.insert(extent);
            return true;
        }
        self.leaving.contains(&extent)
    }

    /// Whether an extent is stable and stays.
    pub(crate) fn is_active(&self, extent: u32) -> bool {
        let stable = |entry: &Entry| entry.phase == Phase::Stable;
        self.entries.get(&extent).is_some_and(stable) && !self.retiring.contains(&extent)
    }

    /// Stable extents that stay, in order.
    pub(crate) fn active(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.keys().copied().filter(|&extent| self.is_active(extent))
    }

    /// Extents that fit before another must be retired. A slot whose extent is being retired
    /// counts: the same commit can give it to another.
    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.free.len() + self.retiring.len()).expect("at most all slots")
    }

    /// Makes an extent the most recently used one.
    pub(crate) fn touch(&mut self, extent: u32) {
        let Some(entry) = self.entries.get_mut(&extent) else {
            return;
        };
        if entry.stamp + 1 == self.clock || self.recency.remove(&entry.stamp).is_none() {
            return; // it is already, or it is being retired
        }
        entry.stamp = self.clock;
        self.recency.insert(self.clock, extent);
        self.clock += 1;
    }

    /// The least recently used active extent that `evictable` accepts.
    pub(crate) fn oldest(&self, evictable: impl Fn(u32) -> bool) -> Option<u32> {
        let mut by_age = self.recency.values().copied();
        by_age.find(|&extent| self.entries[&extent].phase == Phase::Stable && evictable(extent))
    }

    /// Whether something waits for a commit.
    pub(crate) fn is_pending(&self) -> bool {
        !self.changed.is_empty() || !self.retiring.is_empty() || !self.leaving.is_empty()
    }

    /// Everything pending goes into a commit now.
    pub(crate) fn start(&mut self) -> LogChange {
        for extent in core::mem::take(&mut self.retiring) {
            let slot = self.leave(extent);
            self.table[usize::from(slot)] = NO_EXTENT;
            self.changed.insert(slot);
            self.free.insert(slot);
        }
        let mut updates = Vec::with_capacity(self.changed.len());
        for slot in core::mem::take(&mut self.changed) {
            let extent = self.table[usize::from(slot)];
            updates.push((slot, extent));
            if let Some(entry) = self.entries.get_mut(&extent) {
                entry.phase = Phase::Sent;
                self.sent.push(extent);
            }
        }
        LogChange { leaving: core::mem::take(&mut self.leaving), updates }
    }

    /// The commit is durable.
    pub(crate) fn finish(&mut self) {
        for extent in core::mem::take(&mut self.sent) {
            // It may have left in the meantime, and even come back as a new one.
            if let Some(entry) = self.entries.get_mut(&extent)
                && entry.phase == Phase::Sent
            {
                entry.phase = Phase::Stable;
            }
        }
    }

    /// Slot to extent.
    pub(crate) fn table(&self) -> &[u32] {
        &self.table
    }

    fn enter(&mut self, extent: u32, slot: u16, phase: Phase) {
        let stamp = self.clock;
        self.clock += 1;
        self.entries.insert(extent, Entry { slot, phase, stamp });
        self.recency.insert(stamp, extent);
    }

    /// Takes an extent out; its bits must be written before its slot is.
    fn leave(&mut self, extent: u32) -> u16 {
        let entry = self.entries.remove(&extent).expect("a retiring extent has an entry");
        self.leaving.insert(extent);
        entry.slot
    }

    fn take_slot(&mut self) -> u16 {
        if let Some(slot) = self.free.pop_first() {
            return slot;
        }
        let victim = self.retiring.pop_first().expect("the room was counted");
        self.leave(victim)
    }
}

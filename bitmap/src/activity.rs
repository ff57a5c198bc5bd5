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

/// The end of a list of slots.
const NIL: u16 = u16::MAX;

/// Slots and the extents in them.
#[derive(Clone, Debug)]
pub(crate) struct ActivityLog {
    /// Slot to extent, as it will be on disk when everything pending is.
    table: Vec<u32>,
    /// What else is known of each slot in use.
    places: Vec<Place>,
    /// Extent to slot.
    slots: BTreeMap<u32, u16>,
    free: Vec<u16>,
    /// Ends of the list of slots by use, without those being retired.
    oldest: u16,
    newest: u16,
    /// Slots whose entry was not part of a commit yet.
    changed: BTreeSet<u16>,
    /// Extents that keep their slot only until the next commit starts, or another needs it.
    retiring: BTreeSet<u32>,
    /// Extents that lost their slot since the last commit started.
    leaving: BTreeSet<u32>,
    /// Slots that are new in the commit in flight.
    sent: Vec<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    phase: Phase,
    older: u16,
    newer: u16,
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
        let count = table.len();
        let mut log = Self {
            table,
            places: vec![Place { phase: Phase::Stable, older: NIL, newer: NIL }; count],
            slots: BTreeMap::new(),
            free: Vec::new(),
            oldest: NIL,
            newest: NIL,
            changed: BTreeSet::new(),
            retiring: BTreeSet::new(),
            leaving: BTreeSet::new(),
            sent: Vec::new(),
        };
        for index in 0..count {
            let slot = u16::try_from(index).expect("the layout limits slots to 16 bits");
            let extent = log.table[index];
            if extent != NO_EXTENT && log.slots.contains_key(&extent) {
                log.table[index] = NO_EXTENT;
                log.changed.insert(slot);
            }
            if log.table[index] == NO_EXTENT {
                log.free.push(slot);
            } else {
                log.slots.insert(extent, slot);
                log.link(slot);
            }
        }
        log
    }

    /// Gives every extent a slot; returns the weakest phase among them.
    pub(crate) fn activate(&mut self, extents: Range<u32>) -> Result<Phase, Missing> {
        let held = |extent: &u32| self.slots.contains_key(extent);
        let missing = extents.len() - extents.clone().filter(held).count();
        if missing > 0 {
            let kept = self.retiring.range(extents.clone()).count();
            let room = self.free() as usize - kept;
            if missing > room {
                let missing = u32::try_from(missing - room).expect("less than was asked");
                return Err(Missing(missing));
            }
        }
        // First those that stay: they must not lose their slot to the others.
        if !self.retiring.is_empty() {
            for extent in extents.clone() {
                if self.retiring.remove(&extent) {
                    self.link(self.slots[&extent]);
                }
            }
        }
        let mut weakest = Phase::Stable;
        for extent in extents {
            let slot = match self.slots.get(&extent) {
                Some(&slot) => slot,
                None => self.enter(extent),
            };
            self.make_newest(slot);
            weakest = weakest.max(self.places[usize::from(slot)].phase);
        }
        Ok(weakest)
    }

    /// Marks an extent for leaving; `false` if it is not in the log and not on its way out.
    pub(crate) fn retire(&mut self, extent: u32) -> bool {
        if let Some(&slot) = self.slots.get(&extent) {
            if self.retiring.insert(extent) {
                self.unlink(slot);
            }
            return true;
        }
        self.leaving.contains(&extent)
    }

    /// Whether an extent is stable and stays.
    pub(crate) fn is_active(&self, extent: u32) -> bool {
        let stable = |&slot: &u16| self.places[usize::from(slot)].phase == Phase::Stable;
        self.slots.get(&extent).is_some_and(stable) && !self.retiring.contains(&extent)
    }

    /// Stable extents that stay, in order.
    pub(crate) fn active(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.keys().copied().filter(|&extent| self.is_active(extent))
    }

    /// Extents that fit before another must be retired. A slot whose extent is being retired
    /// counts: the same commit can give it to another.
    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.free.len() + self.retiring.len()).expect("at most all slots")
    }

    /// Makes an extent the most recently used one, if it is there and stays.
    pub(crate) fn touch(&mut self, extent: u32) {
        if let Some(&slot) = self.slots.get(&extent)
            && !self.retiring.contains(&extent)
        {
            self.make_newest(slot);
        }
    }

    /// The least recently used active extent that `evictable` accepts.
    pub(crate) fn oldest(&self, evictable: impl Fn(u32) -> bool) -> Option<u32> {
        let place = |slot: u16| &self.places[usize::from(slot)];
        let some = |slot: u16| (slot != NIL).then_some(slot);
        core::iter::successors(some(self.oldest), |&slot| some(place(slot).newer))
            .filter(|&slot| place(slot).phase == Phase::Stable)
            .map(|slot| self.table[usize::from(slot)])
            .find(|&extent| evictable(extent))
    }

    /// Whether something waits for a commit.
    pub(crate) fn is_pending(&self) -> bool {
        !self.changed.is_empty() || !self.retiring.is_empty()
    }

    /// Everything pending goes into a commit now.
    pub(crate) fn start(&mut self) -> LogChange {
        for extent in core::mem::take(&mut self.retiring) {
            let slot = self.leave(extent);
            self.table[usize::from(slot)] = NO_EXTENT;
            self.changed.insert(slot);
            self.free.push(slot);
        }
        let mut updates = Vec::with_capacity(self.changed.len());
        for slot in core::mem::take(&mut self.changed) {
            updates.push((slot, self.table[usize::from(slot)]));
            self.places[usize::from(slot)].phase = Phase::Sent;
            self.sent.push(slot);
        }
        LogChange { leaving: core::mem::take(&mut self.leaving), updates }
    }

    /// The commit is durable.
    pub(crate) fn finish(&mut self) {
        for slot in core::mem::take(&mut self.sent) {
            // It may have been given to another extent in the meantime.
            let place = &mut self.places[usize::from(slot)];
            if place.phase == Phase::Sent {
                place.phase = Phase::Stable;
            }
        }
    }

    /// Slot to extent.
    pub(crate) fn table(&self) -> &[u32] {
        &self.table
    }

    /// Gives a new extent a slot.
    fn enter(&mut self, extent: u32) -> u16 {
        let slot = self.free.pop().unwrap_or_else(|| {
            let victim = self.retiring.pop_first().expect("the room was counted");
            self.leave(victim)
        });
        self.table[usize::from(slot)] = extent;
        self.places[usize::from(slot)].phase = Phase::New;
        self.slots.insert(extent, slot);
        self.changed.insert(slot);
        self.link(slot);
        slot
    }

    /// Takes a retiring extent out; its bits must be written before its slot is.
    fn leave(&mut self, extent: u32) -> u16 {
        self.leaving.insert(extent);
        self.slots.remove(&extent).expect("a retiring extent has a slot")
    }

    fn make_newest(&mut self, slot: u16) {
        if self.newest != slot {
            self.unlink(slot);
            self.link(slot);
        }
    }

    /// Puts a slot at the newest end of the list.
    fn link(&mut self, slot: u16) {
        let older = core::mem::replace(&mut self.newest, slot);
        let place = &mut self.places[usize::from(slot)];
        (place.older, place.newer) = (older, NIL);
        match older {
            NIL => self.oldest = slot,
            _ => self.places[usize::from(older)].newer = slot,
        }
    }

    /// Takes a slot out of the list.
    fn unlink(&mut self, slot: u16) {
        let Place { older, newer, .. } = self.places[usize::from(slot)];
        match older {
            NIL => self.oldest = newer,
            _ => self.places[usize::from(older)].newer = newer,
        }
        match newer {
            NIL => self.newest = older,
            _ => self.places[usize::from(newer)].older = older,
        }
    }
}

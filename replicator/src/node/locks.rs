//! Range locks: overlapping operations run in the order in which they asked, the same on both nodes because both
//! ask in stream order (CONV). Nothing here knows what an operation is.
//!
//! The table is small (requests in flight), so it is scanned, which costs a few instructions for each; its size is bounded by
//! `Limits::requests` plus what one peer may have in flight.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bitmap::ByteRange;

/// Who asks; rises with every new operation, and so is its place in the queue.
pub(super) type Ticket = u64;

#[derive(Clone, Debug)]
struct Entry {
    ticket: Ticket,
    volume: usize,
    range: ByteRange,
    shared: bool,
    /// Earlier entries that are in the way.
    blockers: u32,
}

impl Entry {
    fn conflicts(&self, other: &Self) -> bool {
        self.volume == other.volume
            && !(self.shared && other.shared)
            && self.range.overlaps(&other.range)
    }
}

/// Every range that is locked or waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    /// By rising ticket.
    entries: VecDeque<Entry>,
}

impl Locks {
    /// Joins the queue; true if nothing is in the way. `ticket` must be larger than all before.
    pub(super) fn acquire(
        &mut self,
        ticket: Ticket,
        volume: usize,
        range: ByteRange,
        shared: bool,
    ) -> bool {
        let last = self.entries.back();
        assert!(
            last.is_none_or(|last| last.ticket < ticket),
            "a lock is asked for out of order (CONV)"
        );
        let mut entry = Entry { ticket, volume, range, shared, blockers: 0 };
        for earlier in &self.entries {
            entry.blockers += u32::from(earlier.conflicts(&entry));
        }
        let granted = entry.blockers == 0;
        self.entries.push_back(entry);
        granted
    }

    /// Leaves the queue; says who may go now, in order.
    pub(super) fn release(&mut self, ticket: Ticket) -> Vec<Ticket> {
        let at = self.entries.binary_search_by_key(&ticket, |entry| entry.ticket);
        let gone = at.ok().and_then(|at| self.entries.remove(at));
        let (Ok(at), Some(gone)) = (at, gone) else {
            panic!("every operation holds its lock once")
        };
        let mut woken = Vec::new();
        for entry in self.entries.range_mut(at..) {
            if gone.conflicts(entry) {
                entry.blockers -= 1;
                if entry.blockers == 0 {
                    woken.push(entry.ticket);
                }
            }
        }
        woken
    }

    /// How many are locked or wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

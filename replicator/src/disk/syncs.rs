//! When the success of a flush may be believed, if several run at a time.
//!
//! IO-4: the kernel tells of a failed write-back once for each open file description, to whichever
//! flush (or write with RWF_DSYNC) asks first. Of two that run together one may get the error and
//! the other a success it has no right to, and the success may be seen first. So a success is held
//! back until everything durable that was running when it came has ended as well; if one of those
//! failed, the success is not believed.

use std::collections::VecDeque;

/// The durable operations of one description. `T` is a success held back.
#[derive(Debug)]
pub(super) struct Syncs<T> {
    /// Whether each is running, from ticket `first` on; the first is, if there is any.
    running: VecDeque<bool>,
    first: u64,
    /// With the ticket before which all must have ended. In order.
    held: VecDeque<(u64, T)>,
}

impl<T> Default for Syncs<T> {
    fn default() -> Self {
        Self { running: VecDeque::new(), first: 0, held: VecDeque::new() }
    }
}

impl<T> Syncs<T> {
    /// Before it is handed to the kernel.
    pub(super) fn start(&mut self) -> u64 {
        self.running.push_back(true);
        self.first + self.running.len() as u64 - 1
    }

    /// It has ended, well or not.
    pub(super) fn end(&mut self, ticket: u64) {
        let running = &mut self.running[(ticket - self.first) as usize];
        assert!(*running, "IO-4: a durable operation ended twice");
        *running = false;
        while self.running.front() == Some(&false) {
            self.running.pop_front();
            self.first += 1;
        }
    }

    /// Keeps a success until [`Self::release`] lets it go.
    pub(super) fn hold(&mut self, success: T) {
        self.held.push_back((self.first + self.running.len() as u64, success));
    }

    /// The next success with which nothing runs any more that ran when it came.
    pub(super) fn release(&mut self) -> Option<T> {
        let (all_before, _) = self.held.front()?;
        if !self.running.is_empty() && self.first < *all_before {
            return None;
        }
        self.held.pop_front().map(|(_, success)| success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_waits_for_those_that_ran_with_it_and_for_no_later_one() {
        let mut syncs = Syncs::default();
        let (a, b) = (syncs.start(), syncs.start());
        syncs.end(b);
        syncs.hold('b');
        assert_eq!(syncs.release(), None, "a may have taken the error that was meant for b");
        let c = syncs.start();
        syncs.end(a);
        syncs.hold('a');
        assert_eq!(syncs.release(), Some('b'), "c started after b had ended");
        assert_eq!(syncs.release(), None, "c ran with a");
        syncs.end(c);
        assert_eq!(syncs.release(), Some('a'));
        assert_eq!(syncs.release(), None);
    }

    #[test]
    fn alone_it_is_released_at_once() {
        let mut syncs = Syncs::default();
        for round in 0..3 {
            let ticket = syncs.start();
            syncs.end(ticket);
            syncs.hold(round);
            assert_eq!(syncs.release(), Some(round));
        }
    }
}

//! How much may be in flight: requests and payload bytes of one connection and of all. What is
//! taken is given back when the reply is sent, so a client that does not read gets no more room,
//! and a server without room does not read. It knows nothing of what a request is.

use super::limits::Limits;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What all connections have in flight.
#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: Cell<usize>,
    bytes: Cell<u64>,
    /// How often something was given back.
    given: Cell<u64>,
    /// Connections that found no room; at most one entry each.
    waiting: RefCell<Vec<Waker>>,
}

/// One connection's share. Dropping it gives back all of it.
#[derive(Debug)]
pub(super) struct Account {
    limits: Limits,
    all: Rc<Budget>,
    requests: usize,
    bytes: u64,
    /// What `all.given` was when there was no room.
    refused_at: u64,
}

impl Account {
    pub(super) fn new(limits: Limits, all: Rc<Budget>) -> Self {
        Self { limits, all, requests: 0, bytes: 0, refused_at: 0 }
    }

    /// Takes room for a request with `bytes` of payload, if there is.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        // LIM: both bounds hold for every connection; the shared ones may be passed by
        // `reserved_bytes` per connection.
        let own_room = self.requests < self.limits.requests
            && self.bytes.saturating_add(bytes) <= self.limits.bytes;
        if !own_room || !self.shared_room(bytes) {
            self.refused_at = self.all.given.get();
            return false;
        }
        self.requests += 1;
        self.bytes += bytes;
        self.all.requests.set(self.all.requests.get() + 1);
        self.all.bytes.set(self.all.bytes.get() + bytes);
        true
    }

    fn shared_room(&self, bytes: u64) -> bool {
        let reserved = self.requests == 0 && bytes <= self.limits.reserved_bytes;
        reserved
            || self.all.requests.get() < self.limits.all_requests
                && self.all.bytes.get() + bytes <= self.limits.all_bytes
    }

    /// Gives back one request that was taken with `bytes`.
    pub(super) fn give(&mut self, bytes: u64) {
        self.requests = self.requests.checked_sub(1).expect("given back once");
        self.bytes = self.bytes.checked_sub(bytes).expect("given back as it was taken");
        self.all.give(1, bytes);
    }

    /// Ready when anybody has given something back since room was refused.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if self.all.given.get() != self.refused_at {
            return Poll::Ready(());
        }
        let mut waiting = self.all.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Budget {
    fn give(&self, requests: usize, bytes: u64) {
        self.requests.set(self.requests.get() - requests);
        self.bytes.set(self.bytes.get() - bytes);
        self.given.set(self.given.get().wrapping_add(1));
        if !self.waiting.borrow().is_empty() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Requests and bytes in flight over all connections.
    pub(super) fn in_flight(&self) -> (usize, u64) {
        (self.requests.get(), self.bytes.get())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.all.give(self.requests, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let reserved_bytes = 10;
        Limits {
            requests: 3,
            bytes: 100,
            all_requests: 4,
            all_bytes: 150,
            reserved_bytes,
            ..Limits::DEFAULT
        }
    }

    #[test]
    fn both_bounds_of_a_connection_hold() {
        let mut one = Account::new(limits(), Rc::default());
        assert!(one.take(60) && !one.take(41) && one.take(40));
        assert!(one.take(0) && !one.take(0), "three requests");
        one.give(40);
        assert!(!one.take(41) && one.take(40));
    }

    #[test]
    fn the_shared_bounds_hold_but_starve_nobody() {
        let all = Rc::new(Budget::default());
        let mut one = Account::new(limits(), Rc::clone(&all));
        let mut two = Account::new(limits(), Rc::clone(&all));
        assert!(one.take(100));
        assert!(!two.take(51), "the bytes of all");
        assert!(two.take(50));
        assert!(one.take(0) && two.take(0));
        assert!(!one.take(0) && !two.take(0), "the requests of all");
        let mut three = Account::new(limits(), Rc::clone(&all));
        assert!(!three.take(11));
        assert!(three.take(10), "the reserve");
        assert!(!three.take(0), "only the first");
        drop(one);
        assert_eq!(all.in_flight(), (3, 60));
        assert!(three.take(20));
        drop((two, three));
        assert_eq!(all.in_flight(), (0, 0));
    }
}

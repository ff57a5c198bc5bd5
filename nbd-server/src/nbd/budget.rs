//! How much may be in flight: requests and payload bytes of one connection and of all. What is
//! taken is given back when the reply is sent, so a client that does not read gets no more room,
//! and a server without room does not read. It knows nothing of what a request is.

use super::limits::Limits;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// What all connections have in flight.
#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: Cell<usize>,
    bytes: Cell<u64>,
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
}

impl Account {
    pub(super) fn new(limits: Limits, all: Rc<Budget>) -> Self {
        Self { limits, all, requests: 0, bytes: 0 }
    }

    /// Takes room for a request with `bytes` of payload, if there is.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        // LIM: both bounds hold for every connection; the shared ones may be passed by
        // `reserved_bytes` per connection.
        if self.requests >= self.limits.requests || self.bytes + bytes > self.limits.bytes {
            return false;
        }
        if !self.shared_room(bytes) {
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

    /// Wakes the task when anybody gives something back.
    pub(super) fn wake_on_room(&self, context: &Context<'_>) {
        let mut waiting = self.all.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }
}

impl Budget {
    fn give(&self, requests: usize, bytes: u64) {
        self.requests.set(self.requests.get() - requests);
        self.bytes.set(self.bytes.get() - bytes);
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

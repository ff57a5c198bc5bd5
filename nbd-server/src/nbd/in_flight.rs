//! The requests of one connection that the device has: what to remember of each, and where their
//! completions arrive. At steady state no request allocates. It neither encodes nor sends.

use super::reply::Ticket;
use crate::device::{Completions, IoError, Outcome, Reply};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type Completed<B> = (u64, Result<Outcome<B>, IoError>);

pub(super) struct InFlight<B: 'static> {
    /// Indexed by tag. LIM: as long as the most requests that were ever in flight together.
    tickets: Vec<Option<Ticket>>,
    free: Vec<usize>,
    inbox: Rc<Inbox<B>>,
    /// Completions taken out of the inbox and not handed on yet, last one first.
    taken: Vec<Completed<B>>,
}

/// Shared with the replies that the device holds; outlives the connection if it must.
struct Inbox<B> {
    completed: RefCell<Vec<Completed<B>>>,
    /// Set while the connection sleeps. Taken by the first completion, so that a whole turn of
    /// completions costs one wake-up.
    waker: Cell<Option<Waker>>,
}

impl<B: 'static> Completions<B> for Inbox<B> {
    fn complete(&self, tag: u64, result: Result<Outcome<B>, IoError>) {
        self.completed.borrow_mut().push((tag, result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<B: 'static> InFlight<B> {
    pub(super) fn new() -> Self {
        let inbox = Inbox { completed: RefCell::default(), waker: Cell::new(None) };
        Self { tickets: Vec::new(), free: Vec::new(), inbox: Rc::new(inbox), taken: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.tickets.len()
    }

    /// Notes a request; the device is to be given the result.
    pub(super) fn insert(&mut self, ticket: Ticket) -> Reply<B> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.tickets.push(None);
            self.tickets.len() - 1
        });
        self.tickets[index] = Some(ticket);
        Reply::new(Rc::clone(&self.inbox) as Rc<dyn Completions<B>>, index as u64)
    }

    /// The next request that completed.
    pub(super) fn completed(&mut self) -> Option<(Ticket, Result<Outcome<B>, IoError>)> {
        if self.taken.is_empty() {
            // Both keep their memory.
            std::mem::swap(&mut self.taken, &mut *self.inbox.completed.borrow_mut());
            self.taken.reverse();
        }
        let (tag, result) = self.taken.pop()?;
        let index = usize::try_from(tag).expect("insert() made the tag from an index");
        let ticket = self.tickets[index].take().expect("a Reply completes once");
        self.free.push(index);
        Some((ticket, result))
    }

    /// Ready when a completion is there; else wakes the task when one comes.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if !self.taken.is_empty() || !self.inbox.completed.borrow().is_empty() {
            return Poll::Ready(());
        }
        self.inbox.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::reply::Wants;

    fn ticket(cookie: u64) -> Ticket {
        let wants = Wants::Status;
        Ticket { cookie, offset: 0, length: 0, wants, structured: false, charge: 0 }
    }

    #[test]
    fn completions_come_back_in_order_of_completion_and_slots_are_reused() {
        let mut in_flight = InFlight::<Vec<u8>>::new();
        for round in 0..100 {
            let replies: Vec<_> = (0..3).map(|n| in_flight.insert(ticket(round + n))).collect();
            for reply in replies.into_iter().rev() {
                reply.complete(Ok(Outcome::Done));
            }
            for n in [2, 1, 0] {
                assert_eq!(in_flight.completed().unwrap().0.cookie, round + n);
            }
            assert!(in_flight.completed().is_none() && in_flight.is_empty());
        }
        assert_eq!(in_flight.tickets.len(), 3);
    }

    #[test]
    fn a_dropped_reply_is_an_error_and_one_after_the_connection_is_harmless() {
        let mut in_flight = InFlight::<Vec<u8>>::new();
        drop(in_flight.insert(ticket(1)));
        assert_eq!(in_flight.completed().unwrap().1, Err(IoError::ShuttingDown));
        let late = in_flight.insert(ticket(2));
        drop(in_flight);
        late.complete(Ok(Outcome::Done));
    }
}

//! Drives the transmission phase of one connection. One turn: take completions, receive what is
//! there, decode all of it, submit it as one batch, take what completed at once, send all replies as
//! one. It holds no parser and no encoder, and starts no task.

use super::budget::Account;
use super::in_flight::InFlight;
use super::limits::{LARGE_MEMORY, LARGE_PAYLOAD, Limits, SLICES};
use super::negotiation::{Negotiated, is_no_error};
use super::protocol::REQUEST_HEADER;
use super::receive::Receiver;
use super::reply::Replies;
use super::transmission::{Intake, Step, Transmission};
use super::transport::Transport;
use crate::closing::Closing;
use crate::device::{BlockDevice, Operation, Outcome, Request};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

pub(super) struct Connection<'a, T, D: BlockDevice> {
    transport: &'a T,
    receiver: &'a mut Receiver,
    limits: Limits,
    device: D,
    requests: Transmission<D::Buffer>,
    in_flight: InFlight<D::Buffer>,
    replies: Replies<D::Buffer>,
    account: Account,
    batch: Vec<Request<D::Buffer>>,
    client: Client,
    /// There was no room for the next request.
    full: bool,
    /// Requests until another large payload is no longer expected.
    expect_large: u32,
}

/// What may still be expected of the client, and why no more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Client {
    Talking,
    /// It gets the replies to what it asked, and nothing more is received.
    Leaving(Departure),
    /// Nothing reaches it any more. What it asked for is still waited for: its effects must not
    /// come later than the end of the connection.
    Gone(Departure),
}

/// How a connection ended; for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Departure {
    #[error("the client disconnected")]
    Disconnected,
    #[error("the client hung up without a word")]
    HungUp,
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    #[error("the stream broke: {0}")]
    Broke(String),
    #[error("closed by the server: {0}")]
    Closed(Rc<str>),
    #[error("requests were still in flight at the deadline after: {0}")]
    Deadline(Rc<str>),
}

/// Memory and room for requests, as the decoder asks for it.
struct Room<'a, D> {
    account: &'a mut Account,
    device: &'a D,
}

impl<D: BlockDevice> Intake<D::Buffer> for Room<'_, D> {
    fn admit(&mut self, bytes: u64) -> bool {
        self.account.take(bytes)
    }

    fn allocate(&mut self, length: u32) -> D::Buffer {
        self.device.allocate(length)
    }
}

impl<'a, T: Transport, D: BlockDevice> Connection<'a, T, D> {
    pub(super) fn new(
        transport: &'a T,
        receiver: &'a mut Receiver,
        negotiated: Negotiated<D>,
        limits: Limits,
        account: Account,
    ) -> Self {
        let Negotiated { session, device, geometry, .. } = negotiated;
        geometry.check();
        assert!(
            u64::from(geometry.maximum) <= limits.bytes,
            "the longest request is never admitted"
        );
        Self {
            transport,
            receiver,
            limits,
            device,
            requests: Transmission::new(session, geometry),
            in_flight: InFlight::new(),
            replies: Replies::default(),
            account,
            batch: Vec::new(),
            client: Client::Talking,
            full: false,
            expect_large: 0,
        }
    }

    /// Serves until the client leaves or one of the owners closes, and all that was asked is
    /// answered or lost.
    pub(super) async fn run(mut self, mut server: Closing) -> Departure {
        let mut device = self.device.watch();
        let mut closing = pin!(async move {
            tokio::select! {
                reason = device.closed() => reason,
                reason = server.closed() => reason,
            }
        });
        let mut closed: Option<(Rc<str>, Pin<Box<Sleep>>)> = None;
        // What came together with the end of the handshake: the stream may hold nothing more than its end.
        self.decode();
        loop {
            self.turn();
            if let Some(departure) = self.departure(closed.as_ref().map(|(reason, _)| reason)) {
                return departure;
            }
            let mut slept = false;
            let woken = poll_fn(|context| {
                if let Some((reason, deadline)) = &mut closed {
                    if deadline.as_mut().poll(context).is_ready() {
                        return Poll::Ready(Woken::Deadline(Rc::clone(reason)));
                    }
                } else if let Poll::Ready(reason) = closing.as_mut().poll(context) {
                    return Poll::Ready(Woken::Closing(reason));
                }
                let work = self.poll_work(context).map(|()| Woken::Work);
                slept |= work.is_pending();
                work
            });
            match woken.await {
                Woken::Work if slept => {}
                // There is more at once: first everybody else's turn, the device's owner's too.
                Woken::Work => yield_now().await,
                Woken::Closing(reason) => {
                    self.requests.close();
                    closed = Some((reason, Box::pin(sleep(self.limits.drain))));
                }
                Woken::Deadline(reason) => return Departure::Deadline(reason),
            }
        }
    }

    /// Why the connection ends now, if it does.
    fn departure(&self, closed: Option<&Rc<str>>) -> Option<Departure> {
        if !self.in_flight.is_empty() || !self.replies.is_empty() {
            return None;
        }
        match &self.client {
            Client::Leaving(departure) | Client::Gone(departure) => Some(departure.clone()),
            // All that was received has been answered: see turn().
            Client::Talking => closed.map(|reason| Departure::Closed(Rc::clone(reason))),
        }
    }

    fn turn(&mut self) {
        self.collect();
        self.take_in();
        loop {
            self.decode();
            self.submit();
            self.collect();
            let made_room = self.send();
            if !(self.full && made_room) {
                return;
            }
        }
    }

    /// Receives what is there, up to about the receive buffer's size: in one go, or, where large
    /// payloads are expected, piece by piece, each to where it belongs.
    fn take_in(&mut self) {
        let mut room = self.limits.receive_buffer;
        while self.listens() {
            let (asked, received) = self.receive();
            room = room.saturating_sub(received);
            // Less than asked means that the socket is empty.
            if received < asked || room == 0 {
                return;
            }
            self.decode();
        }
    }

    /// Whether the next thing the client says is wanted.
    fn listens(&self) -> bool {
        // LIM: without room nothing is received, so the client has to wait.
        self.client == Client::Talking && !self.full
    }

    fn poll_work(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Each that is not ready has noted the waker, so none may be skipped before all are asked.
        let completed = self.in_flight.poll(context).is_ready();
        let readable = self.listens() && self.transport.poll_readable(context).is_ready();
        let writable = !self.replies.is_empty() && self.transport.poll_writable(context).is_ready();
        let room = self.full && self.account.poll_room(context).is_ready();
        if completed || readable || writable || room { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Receives once, straight into a payload if one is incomplete. Returns how many bytes there was
    /// room for, and how many came.
    fn receive(&mut self) -> (usize, usize) {
        let unread = self.receiver.unread().len();
        let mut spare = self.receiver.spare();
        let missing = self.requests.missing();
        let is_large = missing.as_ref().is_some_and(|missing| missing.len() >= LARGE_PAYLOAD);
        if is_large || self.expect_large > 0 {
            // What is read ahead is copied, so only the next header is: a payload that follows is
            // large too, most likely.
            spare = &mut spare[..REQUEST_HEADER - unread];
        }
        let rest = missing.as_ref().map_or(0, |missing| missing.len());
        let asked = rest + spare.len();
        let received = if let Some(missing) = missing {
            let into = &mut [IoSliceMut::new(missing), IoSliceMut::new(spare)];
            self.transport.receive(into).inspect(|received| {
                self.requests.filled(rest.min(*received));
                self.receiver.received(received.saturating_sub(rest));
            })
        } else {
            let received = self.transport.receive(&mut [IoSliceMut::new(spare)]);
            received.inspect(|received| self.receiver.received(*received))
        };
        match &received {
            Ok(0) => self.client = Client::Leaving(Departure::HungUp),
            Ok(_) => {}
            Err(error) if is_no_error(error) => {}
            Err(error) => self.lose(error),
        }
        (asked, received.unwrap_or(0))
    }

    /// Decodes all that has arrived and has room.
    fn decode(&mut self) {
        if !matches!(self.client, Client::Talking) {
            return;
        }
        self.full = false;
        let mut input = self.receiver.unread();
        let before = input.len();
        let mut room = Room { account: &mut self.account, device: &self.device };
        loop {
            match self.requests.next(&mut input, &mut room) {
                Step::Starved => break,
                Step::Full => {
                    self.full = true;
                    break;
                }
                Step::Submit(ticket, operation) => {
                    self.expect_large = match &operation {
                        Operation::Write { data, .. } if data.as_ref().len() >= LARGE_PAYLOAD => {
                            LARGE_MEMORY
                        }
                        _ => self.expect_large.saturating_sub(1),
                    };
                    let reply = self.in_flight.insert(ticket);
                    self.batch.push(Request { operation, reply });
                }
                Step::Answer(ticket, result) => {
                    self.replies.push(&ticket, result.map(|()| Outcome::Done));
                }
                Step::Disconnect => {
                    self.client = Client::Leaving(Departure::Disconnected);
                    break;
                }
                Step::Violation(why) => {
                    self.client = Client::Leaving(Departure::Violation(why));
                    break;
                }
            }
        }
        let consumed = before - input.len();
        self.receiver.consume(consumed);
    }

    /// Hands what was decoded to the device.
    fn submit(&mut self) {
        if !self.batch.is_empty() {
            self.device.submit(&mut self.batch);
            assert!(self.batch.is_empty(), "the device takes the whole batch");
        }
    }

    /// Turns what has completed into replies.
    fn collect(&mut self) {
        while let Some((ticket, result)) = self.in_flight.completed() {
            if matches!(self.client, Client::Gone(_)) {
                self.account.give(ticket.charge);
            } else {
                self.replies.push(&ticket, result);
            }
        }
    }

    /// Sends what fits; returns whether a reply is gone and made room.
    fn send(&mut self) -> bool {
        let mut made_room = false;
        while !self.replies.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.replies.gather(&mut slices);
            match self.transport.send(&slices[..used]) {
                Ok(sent) => self.replies.sent(sent, |charge| {
                    self.account.give(charge);
                    made_room = true;
                }),
                Err(error) if is_no_error(&error) => break,
                Err(error) => self.lose(&error),
            }
        }
        made_room
    }

    /// The stream is broken.
    fn lose(&mut self, error: &io::Error) {
        self.replies.clear(|charge| self.account.give(charge));
        self.client = match std::mem::replace(&mut self.client, Client::Talking) {
            Client::Talking => Client::Gone(Departure::Broke(error.to_string())),
            Client::Leaving(departure) | Client::Gone(departure) => Client::Gone(departure),
        };
    }
}

enum Woken {
    Work,
    Closing(Rc<str>),
    Deadline(Rc<str>),
}

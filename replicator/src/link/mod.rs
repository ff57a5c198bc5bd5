//! The sockets between nodes: one TCP stream per peer, made, authenticated, batched, closed. Knows no decisions: which
//! link is wanted, and what a message means, is the node's.
//!
//! ```text
//!             dial ──┐                       ┌── incoming ── messages ──► Links::poll
//!                    ├─ handshake ─► Link ───┤
//!  listener ─ accept ┘   (proof)             └── outgoing ◄─ messages ─── Links::send, flush_turn
//! ```
//!
//! The lower node-id dials, the higher accepts. Handshakes run as tasks of their own; a link that is up has no task: the
//! owner of [`Links`] reads and writes all of them from its loop, so that one turn costs one receive and one gathered
//! send per link, and so that it may spin: each [`Links::poll`] asks the kernel.

mod asked;
mod closing;
mod config;
mod error;
mod handshake;
mod incoming;
mod listener;
mod log;
mod outgoing;
mod proof;
mod socket;
mod stream;

pub use config::{LinkConfig, LinkLimits, LinkTiming, PeerAddress, Secret};
pub use error::{LinkError, StartError};

use crate::buffers::{Buffer, Pool};
use crate::node::{BufferId, LinkDown, LinkEvent, LinkId};
use crate::wire::{Answer, Message};
use bitmap::NodeId;
use handshake::{Fresh, Outcome};
use log::LogGate;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use stream::Link;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep_until};

/// What links bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// For `Event::Link`.
    Link(LinkId, LinkEvent),
    /// For `Event::Peer`, in stream order.
    Message(LinkId, Message),
}

/// All links of one resource on one node. Belongs to a tokio runtime of one thread, with I/O and time.
pub struct Links {
    config: Arc<LinkConfig>,
    pool: Pool,
    address: Option<SocketAddr>,
    /// Links that are up; at most one a peer.
    links: Vec<Link>,
    /// Attempts of ours that run as tasks.
    dials: Vec<Dial>,
    /// Attempts that wait for the peer to dial.
    wanted: Vec<Wanted>,
    /// Authenticated connections that wait for the node to want them; at most one a peer.
    waiting: Vec<Waiting>,
    /// Events that arose outside `poll`.
    pending: Vec<Arrival>,
    /// What the tasks found.
    outcomes: mpsc::Receiver<Outcome>,
    report: mpsc::Sender<Outcome>,
    /// The listener, and what dials.
    tasks: JoinSet<()>,
    closing: JoinSet<()>,
    /// Wakes the owner at the next deadline of `wanted` or `waiting`.
    timer: Option<Pin<Box<Sleep>>>,
    gate: LogGate,
}

struct Dial {
    id: LinkId,
    task: AbortHandle,
}

struct Wanted {
    id: LinkId,
    peer: NodeId,
    deadline: Instant,
}

struct Waiting {
    fresh: Fresh,
    deadline: Instant,
}

impl Links {
    /// Listens, if a peer is to dial us. Received payloads come from `pool`.
    pub async fn new(config: LinkConfig, pool: Pool) -> Result<Self, StartError> {
        config.check()?;
        let config = Arc::new(config);
        let (report, outcomes) = mpsc::channel(config.limits.unauthenticated.max(1));
        let mut tasks = JoinSet::new();
        let mut address = None;
        if config.dialing_peers().next().is_some() {
            let bound =
                TcpListener::bind(config.listen).await.and_then(|l| Ok((l.local_addr()?, l)));
            let (local, listener) =
                bound.map_err(|source| StartError::Listen { address: config.listen, source })?;
            address = Some(local);
            tasks.spawn(listener::listen(listener, config.clone(), report.clone()));
        }
        Ok(Self {
            config,
            pool,
            address,
            links: vec![],
            dials: vec![],
            wanted: vec![],
            waiting: vec![],
            pending: vec![],
            outcomes,
            report,
            tasks,
            closing: JoinSet::new(),
            timer: None,
            gate: LogGate::default(),
        })
    }

    /// Where we listen; none if every peer is dialled by us.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Peers to which there is a stream now.
    pub fn linked(&self) -> Vec<NodeId> {
        self.links.iter().map(|link| link.peer).collect()
    }

    /// `Action::Connect`: one attempt, bounded in time, that ends in `Up` or `Down`.
    pub fn connect(&mut self, id: LinkId, peer: NodeId) {
        let Some(address) = self.config.address_of(peer) else {
            panic!("node {} is not a configured peer", peer.0)
        };
        while self.tasks.try_join_next().is_some() {}
        if self.config.me < peer {
            let dial = handshake::dial(self.config.clone(), id, peer, address, self.report.clone());
            self.dials.push(Dial { id, task: self.tasks.spawn(dial) });
            return;
        }
        let waits = self.waiting.iter().position(|waiting| waiting.fresh.peer == peer);
        if let Some(fresh) = waits.map(|at| self.waiting.swap_remove(at).fresh)
            && fresh.is_open()
        {
            let up = self.establish(id, fresh, Some(Answer::Begin));
            self.pending.push(up);
            return;
        }
        let deadline = Instant::now() + self.config.timing.hello + self.config.timing.wait;
        self.wanted.push(Wanted { id, peer, deadline });
    }

    /// `Action::Send`: queues a message; it leaves with `flush_turn`. `payload` gives the buffer the message names. To a
    /// link that is gone, nothing happens.
    pub fn send(&mut self, id: LinkId, message: Message, payload: impl FnOnce(BufferId) -> Buffer) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
            let payload = message.buffer().map(payload);
            link.send(&message, payload, self.config.limits.send_bytes);
        }
    }

    /// Sends what was queued: once at the end of each turn. What a socket does not take now goes out from `poll`.
    pub fn flush_turn(&mut self) {
        for link in &mut self.links {
            link.flush();
        }
    }

    /// `Action::Close`: forgets a link or an attempt. What was sent before still goes out, for a bounded time, in the
    /// background. Nothing more comes from this id.
    pub fn close(&mut self, id: LinkId) {
        self.pending.retain(|(Arrival::Link(from, _) | Arrival::Message(from, _))| *from != id);
        self.wanted.retain(|wanted| wanted.id != id);
        if let Some(at) = self.dials.iter().position(|dial| dial.id == id) {
            self.dials.swap_remove(at).task.abort();
        }
        if let Some(at) = self.links.iter().position(|link| link.id == id) {
            let mut link = self.links.swap_remove(at);
            link.flush();
            while self.closing.try_join_next().is_some() {}
            // LIM: beyond the bound a link is cut instead.
            if self.closing.len() < self.config.limits.closing
                && let Some((socket, outgoing)) = link.into_parts()
            {
                self.closing.spawn(closing::close(socket, outgoing, self.config.timing.linger));
            }
        }
    }

    /// Waits until everything closed has gone out, or has run out of time; before the process ends.
    pub async fn closed(&mut self) {
        while self.closing.join_next().await.is_some() {}
    }

    /// Takes what has arrived, without waiting; `name` names the payloads. A call takes about 1 MiB a link at most, so
    /// that no peer starves another.
    ///
    /// If nothing has arrived, the task of `context` is woken when something does; after another method was called, poll
    /// again before sleeping.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut name: impl FnMut(Buffer) -> BufferId,
        arrivals: &mut Vec<Arrival>,
    ) {
        let before = arrivals.len();
        arrivals.append(&mut self.pending);
        // `report` is ours, so the channel never ends.
        while let Poll::Ready(Some(outcome)) = self.outcomes.poll_recv(context) {
            self.handshake_ended(outcome, arrivals);
        }
        self.expire(context, arrivals);
        let mut at = 0;
        while at < self.links.len() {
            let link = &mut self.links[at];
            link.resume();
            match link.receive(&self.pool, &mut name, arrivals) {
                Ok(()) => at += 1,
                Err(error) => arrivals.push(self.broken(at, &error)),
            }
        }
        if arrivals.len() == before {
            // All are asked: each must remember whom to wake.
            let ready = self.links.iter().filter(|link| link.poll_ready(context).is_ready());
            if ready.count() > 0 {
                context.waker().wake_by_ref();
            }
        }
    }

    fn handshake_ended(&mut self, outcome: Outcome, arrivals: &mut Vec<Arrival>) {
        match outcome {
            Outcome::Dialed { id, result } => {
                let Some(at) = self.dials.iter().position(|dial| dial.id == id) else { return };
                self.dials.swap_remove(at);
                arrivals.push(match result {
                    Ok(fresh) => self.establish(id, fresh, None),
                    Err(error) => {
                        // A peer that is away is nothing new at every attempt.
                        if error.is_absence() {
                            tracing::debug!(resource = self.config.resource, "{error}");
                        } else {
                            self.gate.warn(&self.config.resource, format_args!("{error}"));
                        }
                        down(id, error.into_down())
                    }
                });
            }
            Outcome::Accepted(fresh) => {
                // A connection that is dead already must not break one that lives.
                if !fresh.is_open() {
                    return;
                }
                let peer = fresh.peer;
                // The dialer would not dial if its old link were good. NET-1: the node hears of the old one's end first.
                if let Some(at) = self.links.iter().position(|link| link.peer == peer) {
                    arrivals.push(self.broken(at, &LinkError::Replaced));
                }
                if let Some(at) = self.wanted.iter().position(|wanted| wanted.peer == peer) {
                    let id = self.wanted.swap_remove(at).id;
                    arrivals.push(self.establish(id, fresh, Some(Answer::Begin)));
                } else {
                    self.waiting.retain(|waiting| waiting.fresh.peer != peer);
                    let deadline = Instant::now() + self.config.timing.wait;
                    self.waiting.push(Waiting { fresh, deadline });
                }
            }
            Outcome::Refused { peer, text } => {
                if let Some(at) = self.wanted.iter().position(|wanted| wanted.peer == peer) {
                    let id = self.wanted.swap_remove(at).id;
                    arrivals.push(down(id, LinkDown::Rejected(text)));
                }
            }
        }
    }

    fn establish(&mut self, id: LinkId, fresh: Fresh, greeting: Option<Answer>) -> Arrival {
        let (peer, incarnation) = (fresh.peer, fresh.session.incarnation);
        let mut link = Link::new(id, fresh, greeting);
        link.flush();
        self.links.push(link);
        tracing::info!(resource = self.config.resource, "link to node {} is up", peer.0);
        Arrival::Link(id, LinkEvent::Up { incarnation })
    }

    fn broken(&mut self, at: usize, error: &LinkError) -> Arrival {
        let link = self.links.swap_remove(at);
        let peer = link.peer.0;
        tracing::warn!(resource = self.config.resource, "link to node {peer} is gone: {error}");
        down(link.id, LinkDown::Broken)
    }

    /// Ends what has waited long enough, and sets the timer to what is next.
    fn expire(&mut self, context: &mut Context<'_>, arrivals: &mut Vec<Arrival>) {
        if self.wanted.is_empty() && self.waiting.is_empty() {
            self.timer = None;
            return;
        }
        let now = Instant::now();
        self.waiting.retain(|waiting| waiting.deadline > now);
        for wanted in self.wanted.extract_if(.., |wanted| wanted.deadline <= now) {
            arrivals.push(down(wanted.id, LinkDown::Unreachable));
        }
        let deadlines = self.wanted.iter().map(|wanted| wanted.deadline);
        let deadlines = deadlines.chain(self.waiting.iter().map(|waiting| waiting.deadline));
        let Some(next) = deadlines.min() else { return };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        if timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}

fn down(id: LinkId, why: LinkDown) -> Arrival {
    Arrival::Link(id, LinkEvent::Down(why))
}

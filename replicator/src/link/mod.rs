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

mod closing;
mod config;
mod error;
mod handshake;
mod incoming;
mod listener;
mod log;
mod outgoing;
mod peer;
mod proof;
mod reads;
mod socket;
mod stream;

pub use config::{LinkConfig, LinkLimits, LinkTiming, PeerAddress, Secret};
pub use error::{LinkError, StartError};

use crate::buffers::{Buffer, Pool};
use crate::node::{BufferId, LinkDown, LinkEvent, LinkId};
use crate::wire::{Answer, Message};
use bitmap::NodeId;
use error::HandshakeError;
use handshake::{Outcome, What};
use log::LogGate;
use peer::{Attempt, Peer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use stream::Link;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

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
    peers: Vec<Peer>,
    /// Events that arose outside `poll`.
    pending: Vec<Arrival>,
    /// What the tasks found.
    outcomes: mpsc::Receiver<Outcome>,
    report: mpsc::Sender<Outcome>,
    /// The listener, and what dials.
    tasks: JoinSet<()>,
    closing: JoinSet<()>,
    gate: LogGate,
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
            peers: config.peers.iter().map(|peer| Peer::new(peer.node)).collect(),
            config,
            pool,
            address,
            pending: vec![],
            outcomes,
            report,
            tasks,
            closing: JoinSet::new(),
            gate: LogGate::default(),
        })
    }

    /// Where we listen; none if every peer is dialled by us.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Peers to which there is a stream now.
    pub fn linked(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|peer| peer.link.is_some()).map(|peer| peer.node).collect()
    }

    /// Why somebody who says to be this peer was sent away since there was a link to it. It may have been a stranger: for
    /// people, not for decisions.
    pub fn complaint(&self, node: NodeId) -> Option<&str> {
        self.peers.iter().find(|peer| peer.node == node)?.complaint.as_deref()
    }

    /// `Action::Connect`: one attempt, bounded in time, that ends in `Up` or `Down`.
    pub fn connect(&mut self, id: LinkId, node: NodeId) {
        while self.tasks.try_join_next().is_some() {}
        let timing = self.config.timing;
        let peer = self.peers.iter_mut().find(|peer| peer.node == node);
        let peer = peer.unwrap_or_else(|| panic!("node {} is not a configured peer", node.0));
        assert!(peer.link.is_none() && peer.attempt.is_none(), "one link to node {}", node.0);
        if self.config.me < node {
            let dial = handshake::dial(self.config.clone(), id, node, self.report.clone());
            peer.attempt = Some((id, Attempt::Dials(self.tasks.spawn(dial))));
        } else if let Some((fresh, _)) = peer.fresh.take().filter(|(fresh, _)| fresh.is_open()) {
            self.pending.push(peer.establish(id, fresh, Some(Answer::Begin)));
        } else {
            let until = Box::pin(sleep(timing.hello + timing.wait));
            peer.attempt = Some((id, Attempt::Awaits(until)));
        }
    }

    /// `Action::Send`: queues a message; it leaves with `flush_turn`. `payload` gives the buffer the message names. To a
    /// link that is gone, nothing happens.
    pub fn send(&mut self, id: LinkId, message: Message, payload: impl FnOnce(BufferId) -> Buffer) {
        let mut links = self.peers.iter_mut().filter_map(|peer| peer.link.as_mut());
        if let Some(link) = links.find(|link| link.id == id) {
            let payload = message.buffer().map(payload);
            link.send(&message, payload, self.config.limits.send_bytes);
        }
    }

    /// Sends what was queued: once at the end of each turn. What a socket does not take now goes out from `poll`.
    pub fn flush_turn(&mut self) {
        self.peers.iter_mut().filter_map(|peer| peer.link.as_mut()).for_each(Link::flush);
    }

    /// `Action::Close`: forgets a link or an attempt. What was sent before still goes out, for a bounded time, in the
    /// background. Nothing more comes from this id.
    pub fn close(&mut self, id: LinkId) {
        self.pending.retain(|(Arrival::Link(from, _) | Arrival::Message(from, _))| *from != id);
        for peer in &mut self.peers {
            if let Some((_, Attempt::Dials(task))) =
                peer.attempt.take_if(|(sought, _)| *sought == id)
            {
                task.abort();
            }
            let Some(mut link) = peer.link.take_if(|link| link.id == id) else { continue };
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
        for peer in &mut self.peers {
            arrivals.extend(peer.expire(context));
            let Some(link) = &mut peer.link else { continue };
            link.resume();
            let ahead = self.config.limits.read_ahead();
            if let Err(error) = link.receive(ahead, &self.pool, &mut name, arrivals) {
                arrivals.extend(peer.broken(&error));
            }
        }
        if arrivals.len() == before {
            // All are asked: each must remember whom to wake.
            let links = self.peers.iter().filter_map(|peer| peer.link.as_ref());
            if links.filter(|link| link.poll_ready(context).is_ready()).count() > 0 {
                context.waker().wake_by_ref();
            }
        }
    }

    fn handshake_ended(&mut self, outcome: Outcome, arrivals: &mut Vec<Arrival>) {
        let Outcome { node, what } = outcome;
        let peer = self.peers.iter_mut().find(|peer| peer.node == node);
        let peer = peer.expect("handshakes are with configured peers");
        match what {
            What::Dialed { id, address, result } => {
                if peer.attempt.as_ref().is_none_or(|(sought, _)| *sought != id) {
                    return;
                }
                let error = match result {
                    Ok(fresh) => return arrivals.push(peer.establish(id, fresh, None)),
                    Err(error) => error,
                };
                let text = format!("connection to node {} at {address}: {error}", node.0);
                // A peer that is away is nothing new at every attempt.
                if matches!(error, HandshakeError::Io(_) | HandshakeError::Late) {
                    tracing::debug!("{text}");
                } else {
                    self.gate.warn(&text);
                }
                // Only a whole hello that does not fit needs the operator; everything else may be the network.
                arrivals.extend(peer.failed(match error {
                    HandshakeError::Mismatch(_) => LinkDown::Rejected(text),
                    _ => LinkDown::Unreachable,
                }));
            }
            What::Accepted(fresh) => {
                // A connection that is dead already must not break one that lives.
                if !fresh.is_open() {
                    return;
                }
                // The dialer would not dial if its old link were good. NET-1: the node hears of the old one's end first.
                arrivals.extend(peer.broken(&LinkError::Replaced));
                if let Some((id, _)) = peer.attempt {
                    arrivals.push(peer.establish(id, fresh, Some(Answer::Begin)));
                } else {
                    peer.fresh = Some((fresh, Box::pin(sleep(self.config.timing.wait))));
                }
            }
            What::Refused { proved: true, text } => {
                arrivals.extend(peer.failed(LinkDown::Rejected(text)));
            }
            What::Refused { proved: false, text } => peer.complaint = Some(text),
        }
    }
}

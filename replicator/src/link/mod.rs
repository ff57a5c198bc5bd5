//! The sockets between nodes: one TCP stream per peer, made, authenticated, batched, closed. Knows no decisions: which
//! link is wanted, and what a message means, is the node's.
//!
//! ```text
//!             dial ──┐                       ┌── incoming ── messages ──► Links::poll
//!                    ├─ handshake ─► Link ───┤
//!  listener ─ accept ┘   (proof)             └── outgoing ◄─ messages ─── Links::send, flush_turn
//! ```
//!
//! The lower node-id dials, the higher accepts. Strangers shake hands in the listener's task; all else is polled: the owner
//! of [`Links`] reads and writes them from its loop, so that one turn costs one receive and one gathered send per link, and
//! so that it may spin: each [`Links::poll`] asks the kernel.

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

pub use config::{LinkConfig, LinkTiming, PeerAddress, SEND_BYTES, Secret};
pub use error::{LinkError, StartError};

use crate::buffers::{Buffer, Pool};
use crate::node::{BufferId, Event, LinkDown, LinkId};
use crate::wire::Message;
use bitmap::NodeId;
use config::{CLOSING, LINGER, UNAUTHENTICATED};
use listener::{Outcome, What};
use peer::{Peer, State};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use stream::Link;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// All links of one resource on one node. Belongs to a tokio runtime of one thread, with I/O and time.
pub struct Links {
    config: Arc<LinkConfig>,
    pool: Pool,
    address: Option<SocketAddr>,
    peers: Vec<Peer>,
    /// Events that arose outside `poll`.
    pending: Vec<Event>,
    /// Who has dialled us; none if nobody shall.
    callers: Option<mpsc::Receiver<Outcome>>,
    /// Listens until it is dropped.
    _listener: JoinSet<()>,
    closing: JoinSet<()>,
}

impl Links {
    /// Listens, if a peer is to dial us. Received payloads come from `pool`.
    pub async fn new(config: LinkConfig, pool: Pool) -> Result<Self, StartError> {
        config.check()?;
        let config = Arc::new(config);
        let (mut address, mut callers) = (None, None);
        let mut tasks = JoinSet::new();
        if config.dialing_peers().next().is_some() {
            let bound =
                TcpListener::bind(config.listen).await.and_then(|l| Ok((l.local_addr()?, l)));
            let (local, listener) =
                bound.map_err(|source| StartError::Listen { address: config.listen, source })?;
            let (report, outcomes) = mpsc::channel(UNAUTHENTICATED);
            tasks.spawn(listener::listen(listener, config.clone(), report));
            (address, callers) = (Some(local), Some(outcomes));
        }
        Ok(Self {
            peers: config.peers.iter().copied().map(Peer::new).collect(),
            config,
            pool,
            address,
            pending: vec![],
            callers,
            _listener: tasks,
            closing: JoinSet::new(),
        })
    }

    /// Where we listen; none if every peer is dialled by us.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Peers to which there is a stream now.
    pub fn linked(&self) -> Vec<NodeId> {
        let up = self.peers.iter().filter(|peer| matches!(peer.state, State::Up(_)));
        up.map(|peer| peer.at.node).collect()
    }

    /// Why somebody who says to be this peer was sent away since there was a link to it. It may have been a stranger: for
    /// people, not for decisions.
    pub fn complaint(&self, node: NodeId) -> Option<&str> {
        self.peers.iter().find(|peer| peer.at.node == node)?.complaint.as_deref()
    }

    /// `Action::Connect`: one attempt, bounded in time, that ends in `Up` or `Down`.
    pub fn connect(&mut self, id: LinkId, node: NodeId) {
        let (config, timing) = (self.config.clone(), self.config.timing);
        let peer = peer_of(&mut self.peers, node);
        match std::mem::take(&mut peer.state) {
            State::Idle if config.me < node => {
                peer.state = State::Sought(id, Box::pin(handshake::dial(config, peer.at)));
            }
            State::Offered(fresh, _) if fresh.is_open() => {
                self.pending.push(peer.establish(id, fresh));
            }
            State::Idle | State::Offered(..) => {
                let wait = handshake::wait(timing.hello + timing.wait);
                peer.state = State::Sought(id, Box::pin(wait));
            }
            _ => panic!("one link to node {}", node.0),
        }
    }

    /// `Action::Send`: queues a message; it leaves with `flush_turn`. `payload` gives the buffer the message names. To a
    /// link that is gone, nothing happens.
    pub fn send(&mut self, id: LinkId, message: Message, payload: impl FnOnce(BufferId) -> Buffer) {
        let mut links = self.peers.iter_mut().filter_map(Peer::link);
        if let Some(link) = links.find(|link| link.id == id) {
            let payload = message.buffer().map(payload);
            link.send(&message, payload, self.config.send_bytes);
        }
    }

    /// Sends what was queued: once at the end of each turn. What a socket does not take now goes out from `poll`.
    pub fn flush_turn(&mut self) {
        self.peers.iter_mut().filter_map(Peer::link).for_each(Link::flush);
    }

    /// `Action::Close`: forgets a link or an attempt. What was sent before still goes out, for a bounded time, in the
    /// background. Nothing more comes from this id.
    pub fn close(&mut self, id: LinkId) {
        self.pending.retain(|event| !matches!(event, Event::Link(from, _) if *from == id));
        for peer in &mut self.peers {
            match std::mem::take(&mut peer.state) {
                State::Up(mut link) if link.id == id => {
                    link.flush();
                    while self.closing.try_join_next().is_some() {}
                    // LIM: beyond the bound a link is cut instead.
                    if self.closing.len() < CLOSING {
                        self.closing.spawn(link.close(LINGER));
                    }
                }
                State::Sought(sought, _) if sought == id => {}
                other => peer.state = other,
            }
        }
    }

    /// Waits until everything closed has gone out, or has run out of time; before the process ends.
    pub async fn closed(&mut self) {
        while self.closing.join_next().await.is_some() {}
    }

    /// Takes what has arrived, without waiting: `Event::Peer` in stream order, and `Event::Link`; `name` names the
    /// payloads. A call takes about 1 MiB a link at most, so
    /// that no peer starves another.
    ///
    /// If nothing has arrived, the task of `context` is woken when something does; after another method was called, poll
    /// again before sleeping.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut name: impl FnMut(Buffer) -> BufferId,
        arrivals: &mut Vec<Event>,
    ) {
        let before = arrivals.len();
        arrivals.append(&mut self.pending);
        while let Some(callers) = &mut self.callers
            && let Poll::Ready(Some(outcome)) = callers.poll_recv(context)
        {
            self.called(outcome, arrivals);
        }
        for peer in &mut self.peers {
            arrivals.extend(peer.poll(context));
            let Some(link) = peer.link() else { continue };
            link.resume();
            let ahead = self.config.read_ahead();
            if let Err(error) = link.receive(ahead, &self.pool, &mut name, arrivals) {
                arrivals.extend(peer.broken(&error));
            }
        }
        if arrivals.len() == before {
            // All are asked: each must remember whom to wake.
            let links = self.peers.iter_mut().filter_map(Peer::link);
            if links.filter(|link| link.poll_ready(context).is_ready()).count() > 0 {
                context.waker().wake_by_ref();
            }
        }
    }

    /// Somebody has dialled us.
    fn called(&mut self, (node, what): Outcome, arrivals: &mut Vec<Event>) {
        let peer = peer_of(&mut self.peers, node);
        match what {
            What::Accepted(fresh) => {
                // A connection that is dead already must not break one that lives.
                if !fresh.is_open() {
                    return;
                }
                // The dialer would not dial if its old link were good. NET-1: the node hears of the old one's end first.
                arrivals.extend(peer.broken(&LinkError::Replaced));
                if let State::Sought(id, _) = peer.state {
                    arrivals.push(peer.establish(id, fresh));
                } else {
                    let until = sleep(self.config.timing.wait);
                    peer.state = State::Offered(fresh, Box::pin(until));
                }
            }
            What::Refused { proved: true, text } => {
                arrivals.extend(peer.failed(LinkDown::Rejected(text)));
            }
            What::Refused { proved: false, text } => peer.complaint = Some(text),
        }
    }
}

fn peer_of(peers: &mut [Peer], node: NodeId) -> &mut Peer {
    let peer = peers.iter_mut().find(|peer| peer.at.node == node);
    peer.unwrap_or_else(|| panic!("node {} is not a configured peer", node.0))
}

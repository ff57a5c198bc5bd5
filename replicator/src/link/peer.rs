//! One peer as the links see it, from the wish for a link to its end. Knows no other peer.
//!
//! ```text
//!        ┌── connect ──► Sought ─── dialled, or it dials ──┐
//!  Idle ─┤                 └ out of time, refused: Idle    ├──► Up ── broken, closed ──► Idle
//!        └── it dials ─► Offered ── connect ───────────────┘
//! ```

use super::config::PeerAddress;
use super::error::{HandshakeError, LinkError};
use super::handshake::Fresh;
use super::log::LogGate;
use super::stream::Link;
use crate::node::{Event, LinkDown, LinkEvent, LinkId};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Sleep;

pub(super) struct Peer {
    pub(super) at: PeerAddress,
    pub(super) state: State,
    /// Why somebody who says to be this peer was last sent away. For people: it may be a stranger.
    pub(super) complaint: Option<String>,
    gate: LogGate,
}

#[derive(Default)]
pub(super) enum State {
    /// There is nothing, and nothing is wanted.
    #[default]
    Idle,
    /// The node has asked for a link.
    Sought(LinkId, Attempt),
    /// An authenticated connection waits for the node to want it, no longer than this.
    Offered(Fresh, Pin<Box<Sleep>>),
    /// There is a link.
    Up(Box<Link>),
}

/// Dials, or only waits for the peer to do so.
pub(super) type Attempt = Pin<Box<dyn Future<Output = Result<Fresh, HandshakeError>>>>;

impl Peer {
    pub(super) fn new(at: PeerAddress) -> Self {
        Self { at, state: State::Idle, complaint: None, gate: LogGate::default() }
    }

    pub(super) fn link(&mut self) -> Option<&mut Link> {
        if let State::Up(link) = &mut self.state { Some(link) } else { None }
    }

    /// Makes a link of a connection.
    pub(super) fn establish(&mut self, id: LinkId, fresh: Fresh) -> Event {
        let incarnation = fresh.session.incarnation;
        let mut link = Box::new(Link::new(id, fresh));
        link.flush();
        (self.state, self.complaint) = (State::Up(link), None);
        tracing::info!("link to node {} is up", self.at.node.0);
        Event::Link(id, LinkEvent::Up { incarnation })
    }

    /// The link, if there is one, has ended.
    pub(super) fn broken(&mut self, error: &LinkError) -> Option<Event> {
        let id = self.link()?.id;
        tracing::warn!("link to node {} is gone: {error}", self.at.node.0);
        Some(self.down(id, LinkDown::Broken))
    }

    /// The attempt, if there is one, has failed.
    pub(super) fn failed(&mut self, why: LinkDown) -> Option<Event> {
        let State::Sought(id, _) = self.state else { return None };
        Some(self.down(id, why))
    }

    fn down(&mut self, id: LinkId, why: LinkDown) -> Event {
        self.state = State::Idle;
        Event::Link(id, LinkEvent::Down(why))
    }

    /// Goes on with what is on the way to a link, and ends what has waited long enough; else `context` is woken when
    /// there is something to do.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Option<Event> {
        match &mut self.state {
            State::Sought(id, attempt) => {
                let Poll::Ready(result) = attempt.as_mut().poll(context) else { return None };
                let id = *id;
                match result {
                    Ok(fresh) => Some(self.establish(id, fresh)),
                    Err(error) => self.unreached(&error),
                }
            }
            State::Offered(_, until) => {
                if until.as_mut().poll(context).is_ready() {
                    self.state = State::Idle;
                }
                None
            }
            State::Idle | State::Up(_) => None,
        }
    }

    fn unreached(&mut self, error: &HandshakeError) -> Option<Event> {
        let PeerAddress { node, address } = self.at;
        let text = format!("connection to node {} at {address}: {error}", node.0);
        // A peer that is away is nothing new at every attempt.
        if matches!(error, HandshakeError::Io(_) | HandshakeError::Late) {
            tracing::debug!("{text}");
        } else {
            self.gate.warn(&text);
        }
        // Only a whole hello that does not fit needs the operator; everything else may be the network.
        self.failed(match error {
            HandshakeError::Mismatch(_) => LinkDown::Rejected(text),
            _ => LinkDown::Unreachable,
        })
    }
}

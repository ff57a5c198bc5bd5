//! One peer as the links see it: the link that is up, or what is on the way to one. Knows no other peer.

use super::error::LinkError;
use super::handshake::Fresh;
use super::stream::Link;
use crate::node::{Event, LinkDown, LinkEvent, LinkId};
use crate::wire::Answer;
use bitmap::NodeId;
use std::pin::Pin;
use std::task::Context;
use tokio::task::AbortHandle;
use tokio::time::Sleep;

pub(super) struct Peer {
    pub(super) node: NodeId,
    /// The link that is up.
    pub(super) link: Option<Link>,
    /// What the node has asked for and has not got yet.
    pub(super) attempt: Option<(LinkId, Attempt)>,
    /// An authenticated connection that waits for the node to want it, no longer than this.
    pub(super) fresh: Option<(Fresh, Pin<Box<Sleep>>)>,
    /// Why somebody who says to be this peer was last sent away. For people: it may be a stranger.
    pub(super) complaint: Option<String>,
}

/// How a link is sought.
pub(super) enum Attempt {
    /// A task dials.
    Dials(AbortHandle),
    /// The peer is to dial, before this is over.
    Awaits(Pin<Box<Sleep>>),
}

impl Peer {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, link: None, attempt: None, fresh: None, complaint: None }
    }

    /// Makes a link of a connection.
    pub(super) fn establish(
        &mut self,
        id: LinkId,
        fresh: Fresh,
        greeting: Option<Answer>,
    ) -> Event {
        let incarnation = fresh.session.incarnation;
        (self.attempt, self.complaint) = (None, None);
        self.link.insert(Link::new(id, fresh, greeting)).flush();
        tracing::info!("link to node {} is up", self.node.0);
        Event::Link(id, LinkEvent::Up { incarnation })
    }

    /// The link, if there is one, has ended.
    pub(super) fn broken(&mut self, error: &LinkError) -> Option<Event> {
        let link = self.link.take()?;
        tracing::warn!("link to node {} is gone: {error}", self.node.0);
        Some(down(link.id, LinkDown::Broken))
    }

    /// The attempt, if there is one, has failed.
    pub(super) fn failed(&mut self, why: LinkDown) -> Option<Event> {
        self.attempt.take().map(|(id, _)| down(id, why))
    }

    /// Ends what has waited long enough; else `context` is woken when it has.
    pub(super) fn expire(&mut self, context: &mut Context<'_>) -> Option<Event> {
        let mut is_over = |until: &mut Pin<Box<Sleep>>| until.as_mut().poll(context).is_ready();
        self.fresh.take_if(|(_, until)| is_over(until));
        let over = self.attempt.take_if(|(_, attempt)| match attempt {
            Attempt::Awaits(until) => is_over(until),
            Attempt::Dials(_) => false,
        });
        over.map(|(id, _)| down(id, LinkDown::Unreachable))
    }
}

fn down(id: LinkId, why: LinkDown) -> Event {
    Event::Link(id, LinkEvent::Down(why))
}

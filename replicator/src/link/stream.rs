//! A link that is up: one socket, what waits to go out, what is coming in.

use super::LinkInput;
use super::asked::Asked;
use super::error::LinkError;
use super::handshake::Fresh;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::socket::Socket;
use crate::buffers::{Buffer, Pool};
use crate::node::LinkId;
use crate::wire::{Answer, Decoder, Encoder, Integrity, Message};
use bitmap::NodeId;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: NodeId,
    socket: Socket,
    incoming: Incoming,
    outgoing: Outgoing,
    asked: Asked,
    /// Sending has failed. What the peer sent before is still received: it may say why.
    failed: Option<LinkError>,
}

impl Link {
    pub(super) fn new(id: LinkId, fresh: Fresh, greeting: Option<Answer>) -> io::Result<Self> {
        let socket = Socket::new(OwnedFd::from(fresh.stream.into_std()?))?;
        let greeting = greeting.map_or(vec![], |answer| answer.encode().to_vec());
        Ok(Self::over(id, fresh.peer, socket, fresh.session.integrity, &greeting))
    }

    fn over(
        id: LinkId,
        peer: NodeId,
        socket: Socket,
        integrity: Integrity,
        greeting: &[u8],
    ) -> Self {
        Self {
            id,
            peer,
            socket,
            incoming: Incoming::new(Decoder::new(integrity)),
            outgoing: Outgoing::new(Encoder::new(integrity), greeting),
            asked: Asked::default(),
            failed: None,
        }
    }

    /// Queues. Beyond `limit` bytes the link breaks: the peer takes nothing any more, or the node's bound is broken.
    pub(super) fn send(&mut self, message: &Message, payload: Option<Buffer>, limit: usize) {
        if self.failed.is_some() {
            return;
        }
        self.asked.sent(message);
        self.outgoing.push(message, payload);
        let bytes = self.outgoing.bytes();
        if bytes > limit {
            self.failed = Some(LinkError::SendQueue { bytes, limit });
        }
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.outgoing.write(&self.socket)
        {
            self.failed = Some(error.into());
        }
    }

    /// Goes on with what the socket did not take before.
    pub(super) fn resume(&mut self) {
        if self.outgoing.is_blocked() {
            self.flush();
        }
    }

    /// Takes what has arrived. An error is the end of the link; what came before it was taken.
    pub(super) fn receive(
        &mut self,
        pool: &Pool,
        inputs: &mut VecDeque<(LinkId, LinkInput)>,
    ) -> Result<(), LinkError> {
        let Self { id, asked, incoming, socket, .. } = self;
        let before = inputs.len();
        incoming.receive(socket, pool, &mut |message, payload| {
            asked.received(&message, payload.as_ref().map(Buffer::len))?;
            inputs.push_back((*id, LinkInput::Message(message, payload)));
            Ok(())
        })?;
        match self.failed.take() {
            Some(error) if inputs.len() == before => Err(error),
            failed => {
                self.failed = failed;
                Ok(())
            }
        }
    }

    /// Ready when `receive` or `resume` has something to do.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.failed.is_some() || self.socket.poll_readable(context).is_ready() {
            return Poll::Ready(());
        }
        if self.outgoing.is_blocked() {
            return self.socket.poll_writable(context);
        }
        Poll::Pending
    }

    /// What a graceful close needs; none if nothing can be sent any more.
    pub(super) fn into_parts(self) -> Option<(Socket, Outgoing)> {
        self.failed.is_none().then_some((self.socket, self.outgoing))
    }
}

//! A link that is up: one socket, what waits to go out, what is coming in.

use super::Arrival;
use super::error::LinkError;
use super::handshake::Fresh;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::reads::{Asked, Owed};
use super::socket::Socket;
use crate::buffers::{Buffer, Pool};
use crate::node::{BufferId, LinkId};
use crate::wire::{Answer, Decoder, Encoder, Message};
use std::task::{Context, Poll};

/// LIM: turns in which a link is still received from after sending has failed; far more than a socket holds.
const LAST_TURNS: u32 = 16;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    socket: Socket,
    incoming: Incoming,
    outgoing: Outgoing,
    asked: Asked,
    owed: Owed,
    /// Sending has failed. What the peer sent before is still received: it may say why.
    failed: Option<LinkError>,
    /// So many more times: a peer that goes on sending must not keep it.
    last_turns: u32,
}

impl Link {
    /// `greeting` goes out before the first frame.
    pub(super) fn new(id: LinkId, fresh: Fresh, greeting: Option<Answer>) -> Self {
        let Fresh { stream, session } = fresh;
        let greeting = greeting.map_or(vec![], |answer| answer.encode().to_vec());
        Self {
            id,
            socket: Socket::new(stream),
            incoming: Incoming::new(Decoder::new(session.integrity)),
            outgoing: Outgoing::new(Encoder::new(session.integrity), &greeting),
            asked: Asked::default(),
            owed: Owed::default(),
            failed: None,
            last_turns: LAST_TURNS,
        }
    }

    /// Queues. Beyond `limit` bytes the link breaks: the peer takes nothing any more, or the node's bound is broken.
    pub(super) fn send(&mut self, message: &Message, payload: Option<Buffer>, limit: usize) {
        if self.failed.is_some() {
            return;
        }
        self.asked.sent(message);
        self.owed.sent(message);
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

    /// Takes what has arrived. An error is the end of the link; what came before it was taken. Reads of the peer wait
    /// while there are `ahead` bytes to send.
    pub(super) fn receive(
        &mut self,
        ahead: usize,
        pool: &Pool,
        name: &mut impl FnMut(Buffer) -> BufferId,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), LinkError> {
        let Self { id, asked, owed, incoming, outgoing, socket, .. } = self;
        let (before, queued) = (arrivals.len(), outgoing.bytes());
        let mut pass = |owed: &mut Owed, message: Option<Message>| {
            arrivals.extend(message.map(|message| Arrival::Message(*id, message)));
            while let Some(read) = owed.next(queued, ahead)? {
                arrivals.push(Arrival::Message(*id, read));
            }
            Ok(())
        };
        pass(owed, None)?;
        incoming.receive(socket, pool, &mut |mut message, payload| {
            asked.received(&message, payload.as_ref().map(Buffer::len))?;
            if let Some(buffer) = payload {
                message.name_buffer(name(buffer));
            }
            let message = owed.received(message)?;
            pass(owed, message)
        })?;
        match self.failed.take() {
            Some(error) if arrivals.len() == before || self.last_turns == 0 => Err(error),
            Some(error) => {
                self.last_turns -= 1;
                self.failed = Some(error);
                Ok(())
            }
            None => Ok(()),
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

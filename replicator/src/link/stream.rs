//! A link that is up: one socket, what waits to go out, what is coming in.

use super::error::LinkError;
use super::handshake::Fresh;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::reads::Reads;
use super::socket::Socket;
use crate::buffers::{Buffer, Pool};
use crate::node::{BufferId, Event, LinkId};
use crate::wire::{Decoder, Encoder, Message};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// LIM: turns in which a link is still received from after sending has failed; far more than a socket holds.
const LAST_TURNS: u32 = 16;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    socket: Socket,
    incoming: Incoming,
    outgoing: Outgoing,
    reads: Reads,
    /// Sending has failed. What the peer sent before is still received: it may say why.
    /// So many more times: a peer that goes on sending must not keep it.
    failed: Option<(LinkError, u32)>,
}

impl Link {
    pub(super) fn new(id: LinkId, fresh: Fresh) -> Self {
        let Fresh { stream, session, begin } = fresh;
        let begin = begin.map_or(vec![], |answer| answer.encode().to_vec());
        Self {
            id,
            socket: Socket::new(stream),
            incoming: Incoming::new(Decoder::new(session.integrity)),
            outgoing: Outgoing::new(Encoder::new(session.integrity), begin),
            reads: Reads::default(),
            failed: None,
        }
    }

    /// Queues. Beyond `limit` bytes the link breaks: the peer takes nothing any more, or the node's bound is broken.
    pub(super) fn send(&mut self, message: &Message, payload: Option<Buffer>, limit: usize) {
        if self.failed.is_some() {
            return;
        }
        self.reads.sent(message);
        self.outgoing.push(message, payload);
        let bytes = self.outgoing.bytes;
        if bytes > limit {
            self.failed = Some((LinkError::SendQueue { bytes, limit }, LAST_TURNS));
        }
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.outgoing.write(&self.socket)
        {
            self.failed = Some((error.into(), LAST_TURNS));
        }
    }

    /// Goes on with what the socket did not take before.
    pub(super) fn resume(&mut self) {
        if self.outgoing.blocked {
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
        arrivals: &mut Vec<Event>,
    ) -> Result<(), LinkError> {
        let Self { id, reads, incoming, outgoing, socket, .. } = self;
        let (before, queued) = (arrivals.len(), outgoing.bytes);
        let mut pass = |reads: &mut Reads, message: Option<Message>| {
            arrivals.extend(message.map(|message| Event::Peer(*id, message)));
            while let Some(read) = reads.next(queued, ahead)? {
                arrivals.push(Event::Peer(*id, read));
            }
            Ok(())
        };
        pass(reads, None)?;
        incoming.receive(socket, pool, &mut |message, payload| {
            let mut message = reads.received(message, payload.as_deref().map(<[u8]>::len))?;
            if let (Some(message), Some(buffer)) = (&mut message, payload) {
                message.name_buffer(name(buffer));
            }
            pass(reads, message)
        })?;
        match self.failed.take() {
            Some((error, turns)) if arrivals.len() == before || turns == 0 => Err(error),
            Some((error, turns)) => {
                self.failed = Some((error, turns - 1));
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
        if self.outgoing.blocked {
            return self.socket.poll_writable(context);
        }
        Poll::Pending
    }

    /// The end: what was sent before goes out first, then the peer gets to read it, all of it no longer than `linger`.
    pub(super) fn close(self, linger: Duration) -> impl Future<Output = ()> + use<> {
        let Self { socket, outgoing, failed, .. } = self;
        async move {
            if failed.is_none() {
                // Whatever comes of it, the link is gone.
                let _ = timeout(linger, drain(socket, outgoing)).await;
            }
        }
    }
}

async fn drain(socket: Socket, mut outgoing: Outgoing) -> io::Result<()> {
    loop {
        outgoing.write(&socket)?;
        if outgoing.bytes == 0 {
            break;
        }
        poll_fn(|context| socket.poll_writable(context)).await;
    }
    socket.finish()?;
    // Bytes that nobody reads make the kernel reset the connection, and the reset may overtake what we have sent: read
    // until the peer closes too.
    let mut nothing = [0; 4096];
    loop {
        match socket.read(&mut [IoSliceMut::new(&mut nothing)])? {
            Some(0) => return Ok(()),
            Some(_) => {}
            None => poll_fn(|context| socket.poll_readable(context)).await,
        }
    }
}

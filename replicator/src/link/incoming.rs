//! What arrives on one link: many small messages per receive, large payloads straight into their buffers.

use super::error::LinkError;
use super::socket::Socket;
use crate::buffers::{Buffer, BufferMut, Pool};
use crate::wire::{DIRECT_PAYLOAD, Decoded, Decoder, MAX_BODY, Message};
use std::io::IoSliceMut;

/// Bytes asked of the kernel at once.
const RECEIVE: usize = 256 << 10;

/// The same while large payloads come in: what is received here of the next payload must be copied. A write's header and
/// message take 72 bytes.
const RECEIVE_BETWEEN: usize = 128;

/// Another large payload is expected until so many messages came without one. More would make small messages dearer, which need a
/// receive each then; fewer would have payloads copied where large and small ones come mixed.
const LARGE_MEMORY: u32 = 4;

/// Bytes after which a turn ends although more may be there.
pub(super) const RECEIVE_TURN: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Incoming {
    decoder: Decoder,
    /// Received and not decoded: the first `filled` bytes. Its memory beyond what is used is never touched.
    batch: Box<[u8]>,
    filled: usize,
    /// The decoder goes on when this much is there.
    need: usize,
    /// The payload being received.
    payload: Option<Partial>,
    /// Messages until another large payload is no longer expected.
    expect_large: u32,
}

#[derive(Debug)]
struct Partial {
    buffer: BufferMut,
    filled: usize,
}

impl Partial {
    /// So many bytes have arrived; how many of them are its.
    fn grow(&mut self, bytes: usize) -> usize {
        let own = bytes.min(self.buffer.len() - self.filled);
        self.filled += own;
        own
    }

    fn is_whole(&self) -> bool {
        self.filled == self.buffer.len()
    }
}

impl Incoming {
    pub(super) fn new(decoder: Decoder) -> Self {
        // The longest wish of the decoder, and a whole receive behind it.
        let batch = vec![0; MAX_BODY + DIRECT_PAYLOAD + RECEIVE].into_boxed_slice();
        Self { decoder, batch, filled: 0, need: 1, payload: None, expect_large: 0 }
    }

    /// Hands everything that is there to `take`, within the bound of a turn.
    pub(super) fn receive(
        &mut self,
        socket: &Socket,
        pool: &Pool,
        take: &mut impl FnMut(Message, Option<Buffer>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut turn = 0;
        while turn < RECEIVE_TURN {
            let (asked, received) = self.fill(socket)?;
            match received {
                None => break,
                Some(0) if self.filled == 0 && self.decoder.at_boundary() => {
                    return Err(LinkError::Closed);
                }
                Some(0) => return Err(LinkError::Cut),
                Some(bytes) => {
                    turn += bytes;
                    self.arrived(bytes, pool, take)?;
                    // A stream socket gives all it has: less than asked means empty.
                    if bytes < asked {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// One receive: bytes asked for, bytes received.
    fn fill(&mut self, socket: &Socket) -> Result<(usize, Option<usize>), LinkError> {
        let window = if self.expect_large > 0 { RECEIVE_BETWEEN } else { RECEIVE };
        let end = self.filled + window.max(self.need.saturating_sub(self.filled));
        let batch = &mut self.batch[self.filled..end];
        let asked = batch.len();
        Ok(match &mut self.payload {
            Some(partial) => {
                let rest = &mut partial.buffer.as_mut()[partial.filled..];
                let asked = asked + rest.len();
                (asked, socket.read(&mut [IoSliceMut::new(rest), IoSliceMut::new(batch)])?)
            }
            None => (asked, socket.read(&mut [IoSliceMut::new(batch)])?),
        })
    }

    fn arrived(
        &mut self,
        mut bytes: usize,
        pool: &Pool,
        take: &mut impl FnMut(Message, Option<Buffer>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        if let Some(partial) = &mut self.payload {
            bytes -= partial.grow(bytes);
        }
        self.filled += bytes;
        let mut input = &self.batch[..self.filled];
        loop {
            if let Some(partial) = self.payload.take_if(|partial| partial.is_whole()) {
                let message = self.decoder.payload_received(partial.buffer.as_ref())?;
                take(message, Some(partial.buffer.freeze()))?;
            }
            if self.payload.is_some() || input.len() < self.need {
                break;
            }
            match self.decoder.decode(&mut input)? {
                Decoded::Need(bytes) => self.need = bytes,
                Decoded::Message(message, payload) => {
                    self.expect_large = self.expect_large.saturating_sub(1);
                    self.need = 1;
                    take(message, payload.map(|bytes| pool.copy_of(bytes)))?;
                }
                Decoded::Payload(len) => {
                    (self.expect_large, self.need) = (LARGE_MEMORY, 1);
                    let mut buffer = pool.take(len);
                    let filled = len.min(input.len());
                    let (here, rest) = input.split_at(filled);
                    buffer.as_mut()[..filled].copy_from_slice(here);
                    input = rest;
                    self.payload = Some(Partial { buffer, filled });
                }
            }
        }
        let left = input.len();
        self.batch.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        Ok(())
    }
}

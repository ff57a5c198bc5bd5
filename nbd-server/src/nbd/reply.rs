//! The sending half of the transmission phase: results in, gathered slices out. Payloads are
//! never copied; headers lie back to back, so that neighbours without payload leave as one slice.
//! No socket here, and no decision about requests.

use super::protocol::{
    BASE_ALLOCATION_ID, CHUNK_DONE, CHUNK_MAGIC, Put, SIMPLE_REPLY_MAGIC, STATE_HOLE, STATE_ZERO,
    chunk, errno,
};
use crate::device::{Extent, IoError, Outcome};
use std::collections::VecDeque;
use std::io::IoSlice;

/// What must be remembered of a request to answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The client's name for it.
    pub cookie: u64,
    /// First byte of its range.
    pub offset: u64,
    /// Length of its range.
    pub length: u32,
    /// What the client wants to know.
    pub wants: Wants,
    /// Structured replies are on. Then whatever may carry a payload is answered with chunks, even
    /// if it fails; the rest with the shorter simple reply.
    pub structured: bool,
    /// Bytes it was admitted with.
    pub charge: u64,
}

/// What a successful reply carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Nothing.
    Status,
    /// What was read.
    Data,
    /// At least one extent, and at most so many.
    Extents(usize),
}

/// Replies that are waiting to be sent.
#[derive(Debug)]
pub struct Replies<B> {
    /// Headers of `queue`, in order. The first `heads_sent` bytes belong to replies gone.
    heads: Vec<u8>,
    heads_sent: usize,
    queue: VecDeque<Queued<B>>,
    /// Bytes of the first reply in the queue that are sent.
    front_sent: usize,
}

#[derive(Debug)]
struct Queued<B> {
    head: usize,
    data: Option<B>,
    charge: u64,
}

/// Sent header bytes are removed when there are this many, not before: it moves the rest.
const COMPACT: usize = 16 << 10;

impl<B> Default for Replies<B> {
    fn default() -> Self {
        Self { heads: Vec::new(), heads_sent: 0, queue: VecDeque::new(), front_sent: 0 }
    }
}

impl<B: AsRef<[u8]>> Replies<B> {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues the reply to `ticket`.
    pub fn push(&mut self, ticket: &Ticket, result: Result<Outcome<B>, IoError>) {
        let start = self.heads.len();
        let mut data = None;
        let chunks = ticket.structured && ticket.wants != Wants::Status;
        match (ticket.wants, result) {
            (_, Err(error)) if chunks => self.error(ticket, error),
            (_, Err(error)) => self.simple(ticket, errno(error)),
            (Wants::Status, Ok(Outcome::Done)) => self.simple(ticket, 0),
            // Only the empty range: a chunk with data holds at least one byte of it.
            (Wants::Data, Ok(Outcome::Done)) if ticket.length == 0 && chunks => {
                self.chunk(ticket, chunk::NONE, 0);
            }
            (Wants::Data, Ok(Outcome::Done)) if ticket.length == 0 => self.simple(ticket, 0),
            (Wants::Data, Ok(Outcome::Data(read))) => {
                assert_eq!(read.as_ref().len(), ticket.length as usize, "what the device read");
                if chunks {
                    self.chunk(ticket, chunk::OFFSET_DATA, 8 + read.as_ref().len());
                    self.heads.u64(ticket.offset);
                } else {
                    self.simple(ticket, 0);
                }
                data = Some(read);
            }
            (Wants::Extents(limit), Ok(Outcome::Extents(extents))) if chunks => {
                self.extents(ticket, &extents, limit);
            }
            (wants, Ok(_)) => panic!("the device answered {wants:?} with something else"),
        }
        let head = self.heads.len() - start;
        self.queue.push_back(Queued { head, data, charge: ticket.charge });
    }

    fn simple(&mut self, ticket: &Ticket, error: u32) {
        self.heads.u32(SIMPLE_REPLY_MAGIC).u32(error).u64(ticket.cookie);
    }

    fn chunk(&mut self, ticket: &Ticket, kind: u16, length: usize) {
        let length = u32::try_from(length).expect("no payload is near 4 GiB");
        self.heads.u32(CHUNK_MAGIC).u16(CHUNK_DONE).u16(kind).u64(ticket.cookie).u32(length);
    }

    fn error(&mut self, ticket: &Ticket, error: IoError) {
        let text = error.to_string();
        self.chunk(ticket, chunk::ERROR, 6 + text.len());
        let length = u16::try_from(text.len()).expect("our own short texts");
        self.heads.u32(errno(error)).u16(length).bytes(text.as_bytes());
    }

    fn extents(&mut self, ticket: &Ticket, extents: &[Extent], limit: usize) {
        let extents = merged(extents, ticket.length, limit);
        assert!(!extents.is_empty(), "a device knows at least one extent");
        self.chunk(ticket, chunk::BLOCK_STATUS, 4 + 8 * extents.len());
        self.heads.u32(BASE_ALLOCATION_ID);
        for (length, state) in extents {
            self.heads.u32(length).u32(state);
        }
    }

    /// Lays what is to be sent next into `slices`; returns how many are used.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut skip = self.front_sent;
        // The run of headers that becomes the next slice.
        let (mut start, mut end) = (self.heads_sent, self.heads_sent);
        for reply in &self.queue {
            end += reply.head;
            let cut = skip.min(reply.head);
            start += cut;
            skip -= cut;
            let Some(data) = &reply.data else { continue };
            if used + 2 > slices.len() {
                return used;
            }
            if start < end {
                slices[used] = IoSlice::new(&self.heads[start..end]);
                used += 1;
            }
            start = end;
            slices[used] = IoSlice::new(&data.as_ref()[skip..]);
            used += 1;
            skip = 0;
        }
        if start < end && used < slices.len() {
            slices[used] = IoSlice::new(&self.heads[start..end]);
            used += 1;
        }
        used
    }

    /// `bytes` of what was gathered are sent. Calls `done` with the charge of each reply that is
    /// gone with them.
    pub fn sent(&mut self, bytes: usize, mut done: impl FnMut(u64)) {
        self.front_sent += bytes;
        while let Some(front) = self.queue.front() {
            let length = front.head + front.data.as_ref().map_or(0, |data| data.as_ref().len());
            if self.front_sent < length {
                break;
            }
            self.front_sent -= length;
            self.heads_sent += front.head;
            done(front.charge);
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            assert_eq!(self.front_sent, 0, "more was sent than there was");
            self.heads.clear();
            self.heads_sent = 0;
        } else if self.heads_sent >= COMPACT {
            self.heads.drain(..self.heads_sent);
            self.heads_sent = 0;
        }
    }

    /// Throws all away, for a client that is gone.
    pub fn clear(&mut self, mut done: impl FnMut(u64)) {
        self.queue.drain(..).for_each(|reply| done(reply.charge));
        self.heads.clear();
        (self.heads_sent, self.front_sent) = (0, 0);
    }
}

/// Extents as the wire wants them: neighbours in the same state joined, cut to `length` in all.
fn merged(extents: &[Extent], length: u32, limit: usize) -> Vec<(u32, u32)> {
    let mut left = length;
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(extents.len().min(limit));
    for extent in extents {
        let take = u32::try_from(extent.length).unwrap_or(u32::MAX).min(left);
        let hole = if extent.hole { STATE_HOLE } else { 0 };
        let state = hole | if extent.zero { STATE_ZERO } else { 0 };
        let full = merged.len() == limit;
        match merged.last_mut() {
            _ if take == 0 => break,
            Some(last) if last.1 == state => last.0 += take,
            _ if full => break,
            _ => merged.push((take, state)),
        }
        left -= take;
    }
    merged
}

#[cfg(test)]
mod tests;

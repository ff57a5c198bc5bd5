//! The reads under way on one link, asked by either end. Of ours, an answer must be to one of them and as long as asked: the
//! node knows buffers by name only, so this is where a wrong length is stopped (NET-2). The peer's are passed on only as fast
//! as the answers go out: what we read ahead for a peer that takes nothing would have to be kept (LIM).

use super::error::LinkError;
use crate::wire::Message;
use std::collections::{HashMap, VecDeque};

/// Reads under way on one link, in each direction; the node's limits keep it far below.
const MAX_READS: usize = 1 << 16;

/// Reads asked and not answered. A name is of one read, whatever its kind.
#[derive(Debug, Default)]
struct Open {
    by_id: HashMap<u64, Read>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    /// Part of a resync.
    sync: bool,
    len: u64,
}

impl Open {
    fn insert(&mut self, id: u64, read: Read) -> Option<Read> {
        self.bytes += read.len;
        self.by_id.insert(id, read)
    }

    fn remove(&mut self, id: u64) -> Option<Read> {
        let read = self.by_id.remove(&id)?;
        self.bytes -= read.len;
        Some(read)
    }
}

/// The read a message asks for.
fn asked_by(message: &Message) -> Option<(u64, Read)> {
    match *message {
        Message::Read { id, range, .. } => Some((id, Read { sync: false, len: range.len() })),
        Message::SyncRead { id, range, .. } => Some((id, Read { sync: true, len: range.len() })),
        _ => None,
    }
}

/// The read a message answers.
fn answered_by(message: &Message) -> Option<u64> {
    match *message {
        Message::ReadData { id, .. } | Message::SyncData { id, .. } => Some(id),
        _ => None,
    }
}

/// Ours.
#[derive(Debug, Default)]
pub(super) struct Asked(Open);

impl Asked {
    /// Remembers what is asked.
    pub(super) fn sent(&mut self, message: &Message) {
        if let Some((id, read)) = asked_by(message) {
            assert!(self.0.by_id.len() < MAX_READS, "LIM: more reads than a node may ask");
            self.0.insert(id, read);
        }
    }

    /// Compares an answer with what was asked, and forgets it.
    pub(super) fn received(
        &mut self,
        message: &Message,
        payload: Option<usize>,
    ) -> Result<(), LinkError> {
        let Some(id) = answered_by(message) else { return Ok(()) };
        let fits = |read: &Read| match message {
            Message::SyncData { .. } => read.sync,
            // A refusal answers both kinds.
            _ => payload.is_none() || !read.sync,
        };
        let read = self.0.remove(id).filter(fits);
        let asked = read.ok_or(LinkError::Read(id, "an answer to a read that was not asked"))?.len;
        match payload {
            Some(found) if found as u64 != asked => {
                Err(LinkError::AnswerLength { id, asked, found: found as u64 })
            }
            _ => Ok(()),
        }
    }
}

/// The peer's: those the node works on, and those that wait. Nothing depends on their place among other messages (a read
/// that comes later finds what is newer), so these alone wait.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Passed on and not answered.
    open: Open,
    waiting: VecDeque<Message>,
}

impl Owed {
    /// Keeps a read until `next` gives it out; everything else comes back.
    pub(super) fn received(&mut self, message: Message) -> Result<Option<Message>, LinkError> {
        let Some((id, _)) = asked_by(&message) else { return Ok(Some(message)) };
        if self.open.by_id.len() + self.waiting.len() >= MAX_READS {
            return Err(LinkError::Read(id, "more reads than a node may ask"));
        }
        self.waiting.push_back(message);
        Ok(None)
    }

    /// The next read whose answer, with all that is owed and `queued`, keeps below `limit` bytes; one always may.
    pub(super) fn next(
        &mut self,
        queued: usize,
        limit: usize,
    ) -> Result<Option<Message>, LinkError> {
        let Some((id, read)) = self.waiting.front().and_then(asked_by) else { return Ok(None) };
        let ahead = self.open.bytes + queued as u64;
        if ahead > 0 && ahead + read.len > limit as u64 {
            return Ok(None);
        }
        if self.open.insert(id, read).is_some() {
            return Err(LinkError::Read(id, "asked again before it was answered"));
        }
        Ok(self.waiting.pop_front())
    }

    /// Takes note of an answer to the peer.
    pub(super) fn sent(&mut self, message: &Message) {
        if let Some(id) = answered_by(message) {
            self.open.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitmap::ByteRange;

    fn read(id: u64, len: u64) -> Message {
        let (volume, range) = (0, ByteRange::new(0, len));
        match id % 2 {
            0 => Message::SyncRead { id, volume, range },
            _ => Message::Read { id, volume, range },
        }
    }

    #[test]
    fn reads_are_given_out_in_order_as_far_as_their_answers_fit() -> Result<(), LinkError> {
        let mut owed = Owed::default();
        assert_eq!(owed.received(Message::Ping)?, Some(Message::Ping), "nothing else waits");
        for (id, len) in [(1, 500), (2, 60), (3, 60), (4, 10)] {
            assert_eq!(owed.received(read(id, len))?, None);
        }
        assert_eq!(owed.next(1, 100)?, None, "something is to be sent first");
        assert_eq!(owed.next(0, 100)?, Some(read(1, 500)), "one always may");
        assert_eq!(owed.next(0, 100)?, None);
        owed.sent(&Message::ReadData { id: 1, buffer: None });
        assert_eq!(owed.next(0, 100)?, Some(read(2, 60)));
        assert_eq!(owed.next(0, 100)?, None, "4 would fit, but 3 came first");
        owed.sent(&Message::SyncData { id: 2, buffer: None });
        assert_eq!(owed.next(40, 100)?, Some(read(3, 60)));
        assert_eq!(owed.next(30, 100)?, Some(read(4, 10)));
        Ok(())
    }

    #[test]
    fn a_peer_cannot_ask_without_end_nor_twice_by_one_name() {
        let mut owed = Owed::default();
        for id in 0..MAX_READS as u64 {
            assert!(owed.received(read(id, 1)).is_ok());
        }
        assert!(owed.received(read(7_000_000, 1)).is_err());
        let mut owed = Owed::default();
        assert!(owed.received(read(1, 1)).is_ok() && owed.received(read(1, 1)).is_ok());
        assert!(owed.next(0, 100).is_ok());
        assert!(owed.next(0, 100).is_err());
    }
}

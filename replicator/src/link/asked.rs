//! The reads under way on one link. Of ours, an answer must be to one of them and as long as asked: the node knows buffers
//! by name only, so this is where a wrong length is stopped (NET-2). The peer's are passed on only as fast as the answers
//! go out: what we read ahead for a peer that takes nothing would have to be kept (LIM).

use super::error::LinkError;
use crate::wire::Message;
use std::collections::{HashMap, VecDeque};

/// Reads under way on one link, in each direction; the node's limits keep it far below.
const MAX_ASKED: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Read,
    Sync,
}

/// Ours, and how many bytes each asks for.
#[derive(Debug, Default)]
pub(super) struct Asked(HashMap<(Kind, u64), u64>);

impl Asked {
    /// Remembers what is asked.
    pub(super) fn sent(&mut self, message: &Message) {
        let (key, range) = match *message {
            Message::Read { id, range, .. } => ((Kind::Read, id), range),
            Message::SyncRead { id, range, .. } => ((Kind::Sync, id), range),
            _ => return,
        };
        assert!(self.0.len() < MAX_ASKED, "LIM: more reads than a node may ask");
        self.0.insert(key, range.len());
    }

    /// Compares an answer with what was asked, and forgets it.
    pub(super) fn received(
        &mut self,
        message: &Message,
        payload: Option<usize>,
    ) -> Result<(), LinkError> {
        let (kind, id) = match *message {
            Message::ReadData { id, .. } => (Kind::Read, id),
            Message::SyncData { id, .. } => (Kind::Sync, id),
            _ => return Ok(()),
        };
        let asked = self.0.remove(&(kind, id));
        let asked = asked.ok_or(LinkError::Read(id, "an answer to a read that was not asked"))?;
        match payload {
            Some(found) if found as u64 != asked => {
                Err(LinkError::AnswerLength { id, asked, found: found as u64 })
            }
            _ => Ok(()),
        }
    }
}

/// The peer's `Read`s: those the node works on, and those that wait. Nothing depends on their place among other messages,
/// so these alone wait; what a resync asks is bounded by who asks.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Passed on and not answered, and how many bytes each asks for.
    open: HashMap<u64, u64>,
    bytes: u64,
    waiting: VecDeque<Message>,
}

impl Owed {
    /// Keeps a read until `next` gives it out; everything else comes back.
    pub(super) fn received(&mut self, message: Message) -> Result<Option<Message>, LinkError> {
        let Message::Read { id, .. } = message else { return Ok(Some(message)) };
        if self.open.len() + self.waiting.len() >= MAX_ASKED {
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
        let Some(Message::Read { id, range, .. }) = self.waiting.front() else { return Ok(None) };
        let (id, len, ahead) = (*id, range.len(), self.bytes + queued as u64);
        if ahead > 0 && ahead + len > limit as u64 {
            return Ok(None);
        }
        if self.open.insert(id, len).is_some() {
            return Err(LinkError::Read(id, "asked again before it was answered"));
        }
        self.bytes += len;
        Ok(self.waiting.pop_front())
    }

    /// Takes note of an answer to the peer.
    pub(super) fn sent(&mut self, message: &Message) {
        if let Message::ReadData { id, .. } = message {
            self.bytes -= self.open.remove(id).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitmap::ByteRange;

    fn read(id: u64, len: u64) -> Message {
        Message::Read { id, volume: 0, range: ByteRange::new(0, len) }
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
        owed.sent(&Message::ReadData { id: 2, buffer: None });
        assert_eq!(owed.next(40, 100)?, Some(read(3, 60)));
        assert_eq!(owed.next(30, 100)?, Some(read(4, 10)));
        Ok(())
    }

    #[test]
    fn a_peer_cannot_ask_without_end_nor_twice_by_one_name() {
        let mut owed = Owed::default();
        for id in 0..MAX_ASKED as u64 {
            assert!(owed.received(read(id, 1)).is_ok());
        }
        assert!(owed.received(read(7_000_000, 1)).is_err());
        let mut owed = Owed::default();
        assert!(owed.received(read(1, 1)).is_ok() && owed.received(read(1, 1)).is_ok());
        assert!(owed.next(0, 100).is_ok());
        assert!(owed.next(0, 100).is_err());
    }
}

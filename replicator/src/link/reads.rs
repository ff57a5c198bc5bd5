//! The reads under way on one link, asked by either end. Of ours, an answer must be to one of them and as long as asked: the
//! node knows buffers by name only, so this is where a wrong length is stopped (NET-2). The peer's are passed on only as fast
//! as the answers go out: what we read ahead for a peer that takes nothing would have to be kept (LIM).

use super::error::LinkError;
use crate::wire::Message;
use bitmap::ByteRange;
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
    kind: Kind,
    len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Sync,
    /// Only digests come, however much is compared.
    Compare,
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
    let read = |id, kind, range: ByteRange| Some((id, Read { kind, len: range.len() }));
    match *message {
        Message::Read { id, range, .. } => read(id, Kind::Client, range),
        Message::SyncRead { id, range, .. } => read(id, Kind::Sync, range),
        Message::SyncCompare { id, range, .. } => read(id, Kind::Compare, range),
        _ => None,
    }
}

/// The read a message answers.
fn answered_by(message: &Message) -> Option<u64> {
    match *message {
        Message::ReadData { id, .. }
        | Message::SyncData { id, .. }
        | Message::SyncDiffers { id, .. } => Some(id),
        _ => None,
    }
}

/// Of both ends. Nothing depends on the place of the peer's among other messages (a read that comes later finds what is
/// newer), so these alone wait.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Ours.
    asked: Open,
    /// The peer's, passed on and not answered.
    owed: Open,
    /// The peer's, not passed on.
    waiting: VecDeque<Message>,
}

impl Reads {
    /// Remembers what we ask, forgets what we answer.
    pub(super) fn sent(&mut self, message: &Message) {
        if let Some((id, read)) = asked_by(message) {
            assert!(self.asked.by_id.len() < MAX_READS, "LIM: more reads than a node may ask");
            self.asked.insert(id, read);
        } else if let Some(id) = answered_by(message) {
            self.owed.remove(id);
        }
    }

    /// Compares an answer, with so many bytes, with what was asked, and forgets that. Keeps a read until `next` gives it
    /// out; everything else comes back.
    pub(super) fn received(
        &mut self,
        message: Message,
        payload: Option<usize>,
    ) -> Result<Option<Message>, LinkError> {
        if let Some((id, _)) = asked_by(&message) {
            if self.owed.by_id.len() + self.waiting.len() >= MAX_READS {
                return Err(LinkError::Read(id, "more reads than a node may ask"));
            }
            self.waiting.push_back(message);
            return Ok(None);
        }
        if let Some(id) = answered_by(&message) {
            let fits = |read: &Read| match message {
                Message::SyncData { .. } => read.kind == Kind::Sync,
                Message::SyncDiffers { .. } => read.kind == Kind::Compare,
                // A refusal answers all kinds.
                _ => payload.is_none() || read.kind == Kind::Client,
            };
            let read = self.asked.remove(id).filter(fits);
            let unasked = LinkError::Read(id, "an answer to a read that was not asked");
            let asked = read.ok_or(unasked)?.len;
            if let Some(found) = payload.map(|len| len as u64).filter(|&found| found != asked) {
                return Err(LinkError::AnswerLength { id, asked, found });
            }
        }
        Ok(Some(message))
    }

    /// The next read whose answer, with all that is owed and `queued`, keeps below `limit` bytes; one always may.
    pub(super) fn next(
        &mut self,
        queued: usize,
        limit: usize,
    ) -> Result<Option<Message>, LinkError> {
        let Some((id, read)) = self.waiting.front().and_then(asked_by) else { return Ok(None) };
        let ahead = self.owed.bytes + queued as u64;
        if ahead > 0 && ahead + read.len > limit as u64 {
            return Ok(None);
        }
        if self.owed.insert(id, read).is_some() {
            return Err(LinkError::Read(id, "asked again before it was answered"));
        }
        Ok(self.waiting.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: u64, len: u64) -> Message {
        let (volume, range) = (0, ByteRange::new(0, len));
        match id % 2 {
            0 => Message::SyncRead { id, volume, range },
            _ => Message::Read { id, volume, range },
        }
    }

    #[test]
    fn reads_are_given_out_in_order_as_far_as_their_answers_fit() -> Result<(), LinkError> {
        let mut reads = Reads::default();
        assert_eq!(reads.received(Message::Ping, None)?, Some(Message::Ping), "nothing else waits");
        for (id, len) in [(1, 500), (2, 60), (3, 60), (4, 10)] {
            assert_eq!(reads.received(read(id, len), None)?, None);
        }
        assert_eq!(reads.next(1, 100)?, None, "something is to be sent first");
        assert_eq!(reads.next(0, 100)?, Some(read(1, 500)), "one always may");
        assert_eq!(reads.next(0, 100)?, None);
        reads.sent(&Message::ReadData { id: 1, buffer: None });
        assert_eq!(reads.next(0, 100)?, Some(read(2, 60)));
        assert_eq!(reads.next(0, 100)?, None, "4 would fit, but 3 came first");
        reads.sent(&Message::SyncData { id: 2, serves: false, buffer: None });
        assert_eq!(reads.next(40, 100)?, Some(read(3, 60)));
        assert_eq!(reads.next(30, 100)?, Some(read(4, 10)));
        Ok(())
    }

    #[test]
    fn a_peer_cannot_ask_without_end_nor_twice_by_one_name() {
        let mut reads = Reads::default();
        for id in 0..MAX_READS as u64 {
            assert!(reads.received(read(id, 1), None).is_ok());
        }
        assert!(reads.received(read(7_000_000, 1), None).is_err());
        let mut reads = Reads::default();
        assert!(
            reads.received(read(1, 1), None).is_ok() && reads.received(read(1, 1), None).is_ok()
        );
        assert!(reads.next(0, 100).is_ok());
        assert!(reads.next(0, 100).is_err());
    }
}

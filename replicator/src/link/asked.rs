//! The reads asked of a peer: an answer must be to one of them, and as long as asked. The node knows buffers by name only,
//! so this is where a wrong length is stopped (NET-2).

use super::error::LinkError;
use crate::wire::Message;
use std::collections::HashMap;

/// Reads under way on one link; the node's limits keep it far below.
const MAX_ASKED: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Read,
    Sync,
}

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
        let asked = self.0.remove(&(kind, id)).ok_or(LinkError::Unasked(id))?;
        match payload {
            Some(found) if found as u64 != asked => {
                Err(LinkError::AnswerLength { id, asked, found: found as u64 })
            }
            _ => Ok(()),
        }
    }
}

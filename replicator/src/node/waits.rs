//! The one way to wait for several completions: a countdown with a continuation.
//!
//! "Persist before tell" is made of it: whatever may only be said when something is durable is a continuation of a
//! countdown on the tickets and flushes it depends on. A continuation runs exactly once, with `false` if a disk
//! it waited for was lost.

use super::table::Table;
use super::types::{CommandId, LinkId, VolumeNumber};
use alloc::vec::Vec;

/// Names a countdown.
pub(super) type WaitId = u64;

/// What to do when the last completion is in.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// An operation's extents are in the stable log.
    Logged(u64),
    /// The local part of a client's FLUSH is done.
    FlushedLocal(u64),
    /// Something an acknowledgement waited for is stable.
    Recheck(u64),
    /// A flush the peer asked for is done.
    FlushedForPeer { peer: usize, link: Option<LinkId>, number: u64, barrier: bool },
    /// What the verdict demands is stable.
    HandshakeStable { peer: usize, link: LinkId },
    /// The target's blocks are flushed: tell the source.
    CommitFlushed { link: LinkId, volume: usize },
    /// The source has flushed for a commit: clear and tell the target.
    CommitAtSource { link: LinkId, volume: usize, id: u64, runs: Vec<(u64, u64)> },
    /// The source has rotated the target's slot: grant.
    Grant { link: LinkId, volume: usize },
    /// The target has flushed the last of it: become UpToDate.
    GrantFlushed { link: LinkId, volume: usize },
    /// The target is stably UpToDate.
    InSync { link: LinkId, volume: usize },
    /// Attach has written what it had to.
    Attached { command: CommandId, volume: VolumeNumber },
    /// A step of a role change.
    RoleChange,
    /// Outdated is stable: leave the peer.
    Leave(LinkId),
    /// Outdated is stable: tell the peer that demanded it.
    Obey(LinkId),
    /// Outdated is stable: tell the operator.
    Outdated(CommandId),
    /// Nothing to tell.
    Nothing,
}

/// All countdowns.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    next: WaitId,
    open: Table<WaitId, Wait>,
}

#[derive(Clone, Debug)]
struct Wait {
    left: u32,
    ok: bool,
    then: Then,
}

impl Waits {
    /// A countdown of one, which the caller holds until all others are added (`add`), then counts down itself.
    pub(super) fn open(&mut self, then: Then) -> WaitId {
        self.next += 1;
        self.open.insert(self.next, Wait { left: 1, ok: true, then });
        self.next
    }

    /// One completion more to wait for.
    pub(super) fn add(&mut self, id: WaitId) -> WaitId {
        self.open.get_mut(&id).expect("the caller holds it open").left += 1;
        id
    }

    /// One completion is in. The continuation, if it was the last.
    pub(super) fn down(&mut self, id: WaitId, ok: bool) -> Option<(Then, bool)> {
        let wait = self.open.get_mut(&id).expect("counted down once per completion");
        wait.left -= 1;
        wait.ok &= ok;
        if wait.left > 0 {
            return None;
        }
        let wait = self.open.remove(&id)?;
        Some((wait.then, wait.ok))
    }
}

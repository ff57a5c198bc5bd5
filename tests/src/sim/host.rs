//! One machine: the process that runs on it, its clock, its buffers, and what waits for it while it is paused.

use super::clock::Clock;
use replicator::node::{Command, Event, Node, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// An operator's command that was not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) command: Command,
    pub(super) since: u64,
}

/// A disk operation the process waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Io {
    pub(super) kind: IoKind,
    pub(super) volume: usize,
    /// Read: the buffer to fill, and whether zeros are to be told.
    pub(super) into: Option<(u64, bool)>,
}

/// Kinds of disk operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum IoKind {
    Read,
    Digest,
    Write,
    Flush,
    ReadMeta,
    WriteMeta,
}

/// Something for the process: the event, and for a completed operation the volume, and the number its disk is to be told.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) event: Event,
    pub(super) handed: Option<(usize, u32)>,
}

/// One machine.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) process: Option<Box<Node>>,
    /// Counts processes: events for an earlier one are dropped.
    pub(super) life: u32,
    /// Counts what processes were given to handle.
    pub(super) turns: u64,
    pub(super) clock: Clock,
    pub(super) paused: bool,
    /// The whole machine is: its clock stands, too.
    pub(super) frozen: bool,
    /// When a pause began, or the last one ended.
    pub(super) rescheduled: u64,
    /// ROLE-5: when, by its clock, the process woke from a pause longer than the detection time as a connected Primary.
    pub(super) zombie_since: Option<Time>,
    pub(super) inbox: VecDeque<Incoming>,
    pub(super) tick_at: u64,
    pub(super) buffers: BTreeMap<u64, Arc<[u64]>>,
    pub(super) next_buffer: u64,
    /// Buffers that came with client writes, and with resync data.
    pub(super) client_buffers: BTreeSet<u64>,
    pub(super) resync_buffers: BTreeSet<u64>,
    pub(super) ios: BTreeMap<u64, Io>,
    /// A script says of these that the next to end fails: by volume and kind.
    pub(super) doomed: Vec<(usize, IoKind)>,
    /// Client operations the process has, and those the front end holds back.
    pub(super) accepted: usize,
    pub(super) waiting: VecDeque<u64>,
    pub(super) commands: BTreeMap<u64, Pending>,
    /// The process dies in the middle of a coming batch of actions; does the power fail, too?
    pub(super) dies: Option<bool>,
    /// An operator took the connection away, and wants it so.
    pub(super) disconnected: bool,
    /// An operator suspended its I/O.
    pub(super) suspended: bool,
    /// The next `connect` gives this node's data up.
    pub(super) victim: bool,
    /// The last warning of its process.
    pub(super) warning: String,
}

impl Host {
    /// A machine with no process.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            process: None,
            life: 0,
            turns: 0,
            clock,
            paused: false,
            frozen: false,
            rescheduled: 0,
            zombie_since: None,
            inbox: VecDeque::new(),
            tick_at: u64::MAX,
            buffers: BTreeMap::new(),
            next_buffer: 0,
            client_buffers: BTreeSet::new(),
            resync_buffers: BTreeSet::new(),
            ios: BTreeMap::new(),
            doomed: Vec::new(),
            accepted: 0,
            waiting: VecDeque::new(),
            commands: BTreeMap::new(),
            dies: None,
            disconnected: false,
            suspended: false,
            victim: false,
            warning: String::new(),
        }
    }

    /// A process is there.
    pub(super) fn running(&self) -> bool {
        self.process.is_some()
    }

    /// The process is gone; what belonged to it, too.
    pub(super) fn forget_process(&mut self) {
        self.process = None;
        self.life += 1;
        (self.paused, self.frozen) = (false, false);
        self.zombie_since = None;
        self.inbox.clear();
        self.tick_at = u64::MAX;
        self.buffers.clear();
        self.client_buffers.clear();
        self.resync_buffers.clear();
        self.ios.clear();
        self.accepted = 0;
        self.waiting.clear();
        self.commands.clear();
        self.suspended = false;
        self.dies = None;
    }

    /// A name for a buffer the surroundings hold.
    pub(super) fn new_buffer(&mut self, content: Arc<[u64]>) -> u64 {
        self.next_buffer += 1;
        self.buffers.insert(self.next_buffer, content);
        self.next_buffer
    }
}

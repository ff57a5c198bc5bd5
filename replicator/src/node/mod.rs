//! The state machine of one resource on one node: every decision, no I/O, no clock, no threads, no payload.
//!
//! ```text
//!            client requests ──┐                 ┌── disk operations
//!             peer messages  ──┤   ┌────────┐    ├── peer messages
//!          disk completions  ──┼──►│  Node  │────┼── client replies
//!              link up, down ──┤   └────────┘    ├── links wanted and closed
//!      time, admin commands  ──┘                 └── answers, notices
//! ```
//!
//! Reading order: `types` (events, actions), `request` (a client's operation), `apply` and `peer_op` (a peer's), `volume` (the local disk,
//! durability, the activity log), `replica` (attach, failure), `peer` (the connection), `handshake` and `verdict`, `resync`,
//! `source`, `compare` and `pace`, `role`, `fencing`, `admin`; `locks`, `waits` and `table` are the mechanisms all of them use; `check` holds what is always true.

mod admin;
mod apply;
mod check;
mod compare;
mod copies;
mod fencing;
mod handshake;
mod lease;
mod locks;
mod log;
mod pace;
mod peer;
mod peer_op;
mod replica;
mod request;
mod resync;
mod role;
mod set;
mod source;
mod status;
mod table;
mod types;
mod verdict;
mod volume;
mod waits;

pub use status::*;
pub use types::*;
pub use verdict::{Relation, Tie, mirror, relate, tie, verdict};

use crate::config::Config;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::Generation;
use lease::Lease;
use locks::Locks;
use peer::Peer;
use peer_op::PeerOp;
use request::{ClientOp, Parent};
use role::RoleChange;
use table::Table;
use volume::Volume;
use waits::{Then, WaitId, Waits};

/// One resource on one node.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    now: Time,
    incarnation: u64,
    entropy: u64,
    ids: Ids,
    role: Role,
    volumes: Vec<Volume>,
    peers: Vec<Peer>,
    ops: Table<u64, Op>,
    locks: Locks,
    waits: Waits,
    ios: Table<IoId, Io>,
    requests: Table<u64, Parent>,
    /// Of those, how many have no answer yet.
    unanswered: usize,
    /// When the last came.
    served: Option<Time>,
    /// Client operations that may not run now; looked at again when `regate` is set.
    parked: BTreeSet<u64>,
    regate: bool,
    opens: BTreeSet<OpenId>,
    change: Option<RoleChange>,
    /// Clients that wait for the promotion their open started.
    opening: Vec<OpenId>,
    down: Option<admin::GoingDown>,
    /// A client's open made us Primary; the last close makes us Secondary again.
    auto_promoted: bool,
    /// Writes accepted from clients, in order; the author's dagtag.
    dagtag: u64,
    epoch: u64,
    epoch_acknowledged: bool,
    /// Operations that have ended on every copy: the clock of `ExtentUse::last` and of un-flushed writes.
    finished: u64,
    /// ROLE-5: this Primary slept longer than the detection time and has not shaken hands since.
    paused: bool,
    /// An operator suspended I/O.
    suspended_by_user: bool,
    /// And wants it to go on.
    resuming: bool,
    lease: Lease,
    /// This Primary has no UpToDate data within reach, and that was told.
    degraded: bool,
    /// Until then requests that nobody can serve wait for the peer.
    hold_until: Option<Time>,
    checkpoint_at: Option<Time>,
    /// Deferred steps of the event being handled; empty between events.
    work: VecDeque<Work>,
    out: Vec<Action>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    io: u64,
    link: u64,
    op: u64,
    request: u64,
    buffer: u64,
    generation: u64,
    handler: u64,
}

/// An operation that holds, or waits for, a range lock.
#[derive(Clone, Debug)]
enum Op {
    Client(ClientOp),
    Peer(PeerOp),
}

#[derive(Clone, Debug)]
struct Io {
    volume: usize,
    purpose: Purpose,
    /// The buffer a read fills; it is given up only when the read has ended.
    into: Option<BufferId>,
}

/// What a disk operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Op(u64),
    Commit,
    Flush,
    Opening,
}

/// A step to take before `handle` returns.
#[derive(Clone, Debug)]
enum Work {
    Op(u64),
    FeedLog(usize),
    Then(Then, bool),
}

impl Node {
    /// A node that has no disk yet, no link, and is Secondary. `seed` makes new generation identifiers and the incarnation:
    /// it must never repeat (the surroundings take it from the system's random source at each start).
    pub fn new(config: Config, now: Time, seed: u64) -> Self {
        assert!(config.peers.len() <= 1, "this release runs with one peer");
        let volumes: Vec<_> =
            config.volumes.iter().map(|v| Volume::new(v.number, v.placement)).collect();
        let peers = config.peers.iter().map(|&node| Peer::new(node, volumes.len())).collect();
        let mut node = Self {
            now,
            incarnation: 0,
            entropy: seed,
            ids: Ids::default(),
            role: Role::Secondary,
            volumes,
            peers,
            ops: Table::default(),
            locks: Locks::default(),
            waits: Waits::default(),
            ios: Table::default(),
            requests: Table::default(),
            unanswered: 0,
            served: None,
            parked: BTreeSet::new(),
            regate: false,
            opens: BTreeSet::new(),
            change: None,
            opening: Vec::new(),
            down: None,
            auto_promoted: false,
            dagtag: 0,
            epoch: 0,
            epoch_acknowledged: false,
            finished: 0,
            paused: false,
            suspended_by_user: false,
            resuming: false,
            lease: Lease::None,
            degraded: false,
            hold_until: None,
            checkpoint_at: None,
            work: VecDeque::new(),
            out: Vec::new(),
            config,
        };
        node.incarnation = node.random() | 1;
        node
    }

    /// Random number of this process, told to peers by the link layer; never 0.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The only way in.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        let slept = self.now;
        self.now = self.now.max(now);
        // ROLE-5: the clock and the deadlines come before anything that waited. Who slept has missed a deadline.
        if self.deadline().is_some_and(|at| at <= self.now) {
            self.notice_pause(slept);
            self.timers();
            self.settle();
        }
        match event {
            Event::Request(request) => self.request(request),
            Event::Open(id) => self.open(id),
            Event::Close(id) => self.close(id),
            Event::Disk(io, result) => self.disk_event(io, result),
            Event::Peer(link, message) => self.message(link, message),
            Event::Link(link, event) => self.link_event(link, event),
            Event::Admin(id, command) => self.command(id, command),
            Event::Handler(id, result) => self.handler_done(id, result),
            Event::Tick => {}
        }
        self.settle();
        self.check();
        out.append(&mut self.out);
    }

    /// Takes the deferred steps until nothing is left to do at this moment.
    fn settle(&mut self) {
        loop {
            while let Some(work) = self.work.pop_front() {
                match work {
                    Work::Op(id) => self.step(id),
                    Work::FeedLog(v) => self.serve_log_queue(v),
                    Work::Then(then, ok) => self.then(then, ok),
                }
            }
            self.suspension_step();
            self.role_step();
            self.handshake_step();
            self.down_step();
            self.detach_in_order();
            self.pump_targets();
            if core::mem::take(&mut self.regate) {
                self.work.extend(self.parked.iter().map(|&id| Work::Op(id)));
            }
            for v in 0..self.volumes.len() {
                self.kick_commit(v);
            }
            // After the commits: a disk is let go when nothing is left to be written to it.
            let let_go = self.detach_step();
            if self.work.is_empty() && !let_go {
                break;
            }
        }
        self.watch_states();
        self.arm_checkpoint();
    }

    /// An operation may go on.
    fn step(&mut self, id: u64) {
        match self.ops.get(&id) {
            Some(Op::Client(_)) => self.client_step(id),
            Some(Op::Peer(_)) => self.peer_op_step(id),
            None => {}
        }
    }

    fn count_down(&mut self, wait: WaitId, ok: bool) {
        if let Some((then, ok)) = self.waits.down(wait, ok) {
            self.work.push_back(Work::Then(then, ok));
        }
    }

    fn then(&mut self, then: Then, ok: bool) {
        match then {
            Then::Logged(op) => self.logged(op, ok),
            Then::FlushedLocal(op) => self.flushed_local(op, ok),
            Then::Recheck(op) => self.work.push_back(Work::Op(op)),
            Then::FlushedForPeer { peer, link, number, barrier } => {
                self.flushed_for_peer(peer, link, number, barrier, ok);
            }
            Then::HandshakeStable { peer, link } => self.handshake_stable(peer, link, ok),
            Then::CommitFlushed { link, volume } => self.commit_flushed(link, volume, ok),
            Then::CommitAtSource { link, volume, id, runs } => {
                self.commit_at_source(link, volume, id, &runs, ok);
            }
            Then::Grant { link, volume } => self.grant(link, volume, ok),
            Then::GrantFlushed { link, volume } => self.grant_flushed(link, volume, ok),
            Then::InSync { link, volume } => self.now_in_sync(link, volume, ok),
            Then::Attached { command, volume } => self.attached(command, volume, ok),
            Then::Leave(link) => self.leave(link),
            Then::Obey(link) => self.obeyed(link),
            Then::Outdated(command) => self.outdated(command, ok),
            // Both are looked at in every round of `settle`.
            Then::RoleChange | Then::Nothing => {}
        }
    }

    fn disk_event(&mut self, io: IoId, result: Result<DiskDone, DiskError>) {
        let io = self.ios.remove(&io).expect("every disk operation ends once");
        let v = io.volume;
        self.volumes[v].outstanding -= 1;
        match io.purpose {
            Purpose::Op(op) => self.op_io_done(v, op, io.into, result),
            Purpose::Commit if self.volumes[v].committing() => {
                self.commit_done(v, result.is_ok());
            }
            Purpose::Flush if self.volumes[v].usable() => self.flush_done(v, result.is_ok()),
            Purpose::Opening => self.opening_read(v, result),
            Purpose::Commit | Purpose::Flush => {}
        }
    }

    /// When `Event::Tick` is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let peers = self.peers.iter().filter_map(|p| p.deadline(&self.config.timing));
        peers.chain(self.hold_until).chain(self.checkpoint_at).chain(self.lease.deadline()).min()
    }

    fn timers(&mut self) {
        self.lease_timer();
        for p in 0..self.peers.len() {
            self.peer_timers(p);
        }
        if self.hold_until.is_some_and(|at| self.now >= at) {
            self.end_hold();
        }
        if self.checkpoint_at.is_some_and(|at| self.now >= at) {
            self.checkpoint_at = None;
            self.flush_everywhere();
            for v in 0..self.volumes.len() {
                // What one round has flushed the next lets go, if it was quiet meanwhile.
                self.cool(v, self.config.timing.checkpoint);
            }
        }
    }

    /// A checkpoint is due while something is not flushed or an extent is active.
    fn arm_checkpoint(&mut self) {
        let wanted = self.volumes.iter().any(|v| v.usable() && (v.needs_flush() || v.log_in_use()))
            || self.peers.iter().any(Peer::wants_flush);
        if wanted && self.checkpoint_at.is_none() {
            self.checkpoint_at = Some(self.now.plus_ms(self.config.timing.checkpoint));
        }
    }

    fn notice(&mut self, level: Level, text: String) {
        self.out.push(Action::Notice(Notice { level, text }));
    }

    fn volume_index(&self, number: VolumeNumber) -> Option<usize> {
        self.volumes.iter().position(|v| v.number == number)
    }

    fn new_buffer(&mut self) -> BufferId {
        self.ids.buffer += 1;
        BufferId(NODE_BUFFER | self.ids.buffer)
    }

    fn new_op(&mut self) -> u64 {
        self.ids.op += 1;
        self.ids.op
    }

    /// GI-3: from the seed of this process and a count; never from a clock.
    fn new_generation(&mut self) -> Generation {
        loop {
            // The lowest bit is DRBD's "was Primary" mark and stays clear in identifiers.
            let generation = Generation(self.random() & !1);
            if generation.is_real() {
                return generation;
            }
        }
    }

    fn random(&mut self) -> u64 {
        self.ids.generation += 1;
        split_mix(self.entropy, self.ids.generation)
    }
}

/// The number `count` of SplitMix64 with this seed.
fn split_mix(seed: u64, count: u64) -> u64 {
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_numbers_are_those_that_split_mix_is_published_with() {
        let first = [1, 2, 3].map(|count| super::split_mix(1_234_567, count));
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, published);
    }
}

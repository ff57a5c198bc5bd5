//! One operation that a peer wants of our disk, or that a resync does here: range lock, activity log where we keep the peer's, disk, answer.
//! When it may begin, and what waits for it, is in `apply.rs`.

use super::apply::weight;
use super::compare;
use super::resync::Fetched;
use super::types::{Action, BufferId, DiskDone, DiskError, DiskOp, LinkId};
use super::waits::Then;
use super::{Node, Op, Purpose, Work};
use crate::digest::Digest;
use crate::wire::{Content, Message};
use alloc::vec::Vec;
use bitmap::{ByteRange, Generation, Ticket};

/// One operation a peer wants.
#[derive(Clone, Debug)]
pub(super) struct PeerOp {
    pub(super) peer: usize,
    link: Option<LinkId>,
    pub(super) volume: usize,
    pub(super) range: ByteRange,
    pub(super) kind: Kind,
    /// Of a comparison: what the peer holds.
    pub(super) theirs: Vec<Digest>,
    /// Has its range, and its extents in the log if it needs them.
    ready: bool,
    /// With the disk now.
    pub(super) running: bool,
    /// Holds its extents in the activity log.
    pub(super) extents: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write {
        content: Content,
        fua: bool,
        dagtag: u64,
        log: bool,
    },
    Read {
        id: u64,
        into: Option<BufferId>,
    },
    /// As source of a resync.
    SyncRead {
        id: u64,
        into: Option<BufferId>,
    },
    /// As its target.
    Fetch {
        id: u64,
        content: Content,
    },
    /// As source of a resync that compares.
    Compare {
        id: u64,
        unit: u64,
    },
    /// As its target.
    Digest {
        id: u64,
    },
}

impl PeerOp {
    pub(super) fn writes(&self) -> bool {
        matches!(self.kind, Kind::Write { .. } | Kind::Fetch { .. })
    }

    /// This peer wants it, and is answered when it ends.
    pub(super) fn is_asked_by(&self, p: usize) -> bool {
        self.peer == p && !matches!(self.kind, Kind::Fetch { .. } | Kind::Digest { .. })
    }

    /// Bytes of resync this peer will get by it.
    pub(super) fn resync_bytes(&self, p: usize) -> u64 {
        match self.kind {
            Kind::SyncRead { .. } | Kind::Compare { .. } if self.peer == p => self.range.len(),
            _ => 0,
        }
    }
}

/// What a `DiskOp::Digest` brought.
fn digests(done: DiskDone) -> Vec<Digest> {
    match done {
        DiskDone::Digests(digests) => digests,
        DiskDone::Ok | DiskDone::Zero | DiskDone::Meta(_) => unreachable!("no digests: {done:?}"),
    }
}

impl Node {
    pub(super) fn begin_op(&mut self, p: usize, v: usize, range: ByteRange, kind: Kind) -> u64 {
        let id = self.new_op();
        let link = self.peers[p].rx.link;
        let op = PeerOp {
            peer: p,
            link,
            volume: v,
            range,
            kind,
            theirs: Vec::new(),
            ready: false,
            running: false,
            extents: false,
        };
        let writes = op.writes();
        if writes {
            self.peers[p].rx.active.insert(id, ());
        }
        self.ops.insert(id, Op::Peer(op));
        if self.locks.acquire(id, v, self.lock_range(v, range), !writes) {
            self.peer_op_locked(id);
        }
        id
    }

    pub(super) fn peer_op(&mut self, id: u64) -> &mut PeerOp {
        match self.ops.get_mut(&id) {
            Some(Op::Peer(op)) => op,
            Some(Op::Client(_)) | None => panic!("operation {id} is a peer's"),
        }
    }

    /// Its range is free.
    pub(super) fn peer_op_locked(&mut self, id: u64) {
        let op = self.peer_op(id);
        let (v, logs) = (op.volume, matches!(op.kind, Kind::Write { log: true, .. }));
        if logs && self.volumes[v].usable() {
            self.log_wanted(id);
        } else {
            self.peer_op_ready(id);
        }
    }

    /// Nothing keeps it from running any more.
    pub(super) fn peer_op_ready(&mut self, id: u64) {
        self.peer_op(id).ready = true;
        self.work.push_back(Work::Op(id));
    }

    pub(super) fn peer_op_step(&mut self, id: u64) {
        let op = self.peer_op(id).clone();
        if op.running || !op.ready {
            return;
        }
        let (p, v) = (op.peer, op.volume);
        // A disk that went away, or another one that came instead, is no place for this.
        if !self.volumes[v].usable() {
            return self.end_peer_op(id, false);
        }
        if matches!(op.kind, Kind::Write { log: true, .. })
            && let Some(ticket) = self.live_on(p, v)
        {
            return self.after_durable(v, ticket, Then::Recheck(id));
        }
        self.peer_op(id).running = true;
        match op.kind {
            Kind::Write { content, fua, log, .. } => {
                if log {
                    self.missed_by(p, v, op.range);
                }
                self.write_disk(v, op.range, content, fua, id);
            }
            Kind::Read { id: name, .. } => {
                let into = self.new_buffer();
                self.peer_op(id).kind = Kind::Read { id: name, into: Some(into) };
                self.read_for_peer(id, v, op.range, into, false);
            }
            Kind::SyncRead { id: name, .. } => {
                let into = self.new_buffer();
                self.peer_op(id).kind = Kind::SyncRead { id: name, into: Some(into) };
                self.read_for_peer(id, v, op.range, into, true);
            }
            Kind::Compare { unit, .. } => {
                let geometry = self.volumes[v].geometry().expect("usable");
                if self.volumes[v].state > super::DiskState::Inconsistent
                    && compare::is_sound(geometry, op.range, unit, op.theirs.len())
                {
                    self.digest_disk(v, op.range, id);
                } else {
                    self.peer_read_failed(id);
                }
            }
            Kind::Digest { .. } => self.digest_disk(v, op.range, id),
            Kind::Fetch { id: name, content } => {
                if self.fetch_may_apply(p, name) {
                    self.write_disk(v, op.range, content, false, id);
                } else {
                    self.end_peer_op(id, false);
                }
            }
        }
    }

    /// Our own part of a comparison, as its target.
    pub(super) fn begin_digest(&mut self, p: usize, v: usize, range: ByteRange, id: u64) {
        self.begin_op(p, v, range, Kind::Digest { id });
    }

    fn digest_disk(&mut self, v: usize, range: ByteRange, id: u64) {
        let block = self.volumes[v].geometry().expect("usable").block_size;
        self.disk(v, DiskOp::Digest { range, block }, Purpose::Op(id));
    }

    fn read_for_peer(
        &mut self,
        id: u64,
        v: usize,
        range: ByteRange,
        into: BufferId,
        detect_zero: bool,
    ) {
        if self.volumes[v].state > super::DiskState::Inconsistent {
            self.disk(v, DiskOp::Read { range, into, detect_zero }, Purpose::Op(id));
        } else {
            self.peer_read_failed(id);
        }
    }

    /// GI-2: an author without a disk lives on ours. Before we tell it of anything done here we hold, stable, a new current
    /// generation with the old one as its bitmap generation, so that its own disk is known to be behind. What is not stable yet.
    pub(super) fn live_on(&mut self, p: usize, v: usize) -> Option<Ticket> {
        let slot = self.slot(p, v)?;
        if !self.peers[p].rx.author_diskless.contains(v) {
            return None;
        }
        let sb = self.volumes[v].meta.as_ref()?.superblock();
        if self.volumes[v].good() && sb.slots[slot].bitmap_uuid == Generation::NONE {
            let (node, generation) = (self.peers[p].node, self.new_generation());
            let volume = &mut self.volumes[v];
            volume.exposed = generation;
            let mint = |sb: &mut bitmap::Superblock| sb.mint(generation, |n| n == node);
            volume.generation_ticket = volume.meta.as_mut().map(|meta| meta.edit(mint));
        }
        self.volumes[v].generation_ticket.filter(|&ticket| !self.volumes[v].durable(ticket))
    }

    /// We cannot serve it.
    fn peer_read_failed(&mut self, id: u64) {
        let op = self.peer_op(id).clone();
        if let Kind::Read { id: name, .. }
        | Kind::SyncRead { id: name, .. }
        | Kind::Compare { id: name, .. } = op.kind
        {
            self.answer(&op, Message::ReadData { id: name, buffer: None });
        }
        self.end_peer_op(id, false);
    }

    fn answer(&mut self, op: &PeerOp, message: Message) {
        if op.link.is_some() && self.peers[op.peer].link == op.link {
            self.send(op.peer, message);
        }
    }

    /// Any operation's disk operation ended.
    pub(super) fn op_io_done(
        &mut self,
        v: usize,
        id: u64,
        into: Option<BufferId>,
        result: Result<DiskDone, DiskError>,
    ) {
        if !matches!(self.ops.get(&id), Some(Op::Peer(_))) {
            return self.client_io_done(v, id, into, result);
        }
        let op = self.peer_op(id).clone();
        let Ok(done) = result else {
            if let Kind::Digest { id: name } = op.kind {
                // What cannot be read is written anew.
                self.digested(op.peer, name, None);
                return self.end_peer_op(id, false);
            }
            if !op.writes() {
                self.read_failed(v);
                return self.peer_read_failed(id);
            }
            self.disk_failed(v, "a write failed");
            return self.end_peer_op(id, false);
        };
        match op.kind {
            Kind::Write { fua, dagtag, .. } => {
                if !fua {
                    self.wrote(v);
                }
                if self.volumes[v].usable() {
                    self.target_covered(op.peer, v, op.range);
                    self.answer(&op, Message::Written(dagtag));
                }
            }
            Kind::Fetch { .. } => self.wrote(v),
            Kind::Compare { id: name, unit } => {
                let own = digests(done);
                let (units, told) = compare::answer(&own, unit, &op.theirs);
                self.equal_at_source(op.peer, v, own.len() - told.len());
                let serves = self.serves();
                let differs = Message::SyncDiffers { id: name, serves, units, digests: told };
                self.answer(&op, differs);
            }
            Kind::Digest { id: name } => self.digested(op.peer, name, Some(digests(done))),
            Kind::Read { id: name, into } => {
                self.answer(&op, Message::ReadData { id: name, buffer: into });
            }
            Kind::SyncRead { id: name, into } => {
                let buffer = into.filter(|_| done != DiskDone::Zero);
                self.sent_for_resync(op.peer, v, op.range, buffer.is_some());
                self.answer(&op, Message::SyncData { id: name, serves: self.serves(), buffer });
            }
        }
        self.end_peer_op(id, true);
    }

    pub(super) fn end_peer_op(&mut self, id: u64, done: bool) {
        let Some(Op::Peer(op)) = self.ops.remove(&id) else { unreachable!("a peer's") };
        let (p, v) = (op.peer, op.volume);
        match op.kind {
            Kind::Write { content: Content::Data(buffer), .. } => {
                self.out.push(Action::Release(buffer));
            }
            Kind::Fetch { id: name, content } => {
                if let Content::Data(buffer) = content {
                    self.out.push(Action::Release(buffer));
                }
                self.fetched(p, name, if done { Fetched::Written } else { Fetched::Dropped });
            }
            Kind::Read { into, .. } | Kind::SyncRead { into, .. } => {
                self.out.extend(into.map(Action::Release));
            }
            Kind::Write { content: Content::Zero { .. }, .. }
            | Kind::Compare { .. }
            | Kind::Digest { .. } => {}
        }
        if let Kind::Write { .. } = op.kind {
            self.peers[p].rx.held -= weight(op.range);
        }
        if op.writes() {
            self.finished += 1;
            self.peers[p].rx.active.remove(&id);
        }
        if op.extents {
            self.drop_extents(v, op.range);
        }
        self.unlock(id);
        self.pump_rx(p);
    }
}

//! The life of a client's request: lock, activity log, submit to the local disk and to peers, count the copies, acknowledge.
//!
//! A request becomes one operation, or several where it is too large for the activity log. An operation ends when every copy it
//! was sent to has it or is lost; it is acknowledged earlier, when the copies that count have it.

use super::apply::weight;
use super::set::Set;
use super::types::{
    Action, BufferId, DiskDone, DiskError, DiskOp, Protocol, Request, RequestError, RequestId,
    RequestOp, Role,
};
use super::waits::Then;
use super::{Node, Op, Purpose, Work};
use crate::wire::{Content, Message, PeerWrite};
use bitmap::ByteRange;

/// A client's request until its last operation has ended.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    /// The client's name for it.
    pub(super) id: RequestId,
    /// Operations it was cut into, and those not acknowledged.
    pieces: u32,
    pub(super) unacknowledged: u32,
    /// Operations not ended.
    pub(super) unfinished: u32,
    pub(super) result: Result<Option<BufferId>, RequestError>,
    /// The client's payload, released at the end.
    pub(super) payload: Option<BufferId>,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub(super) struct ClientOp {
    /// Our name of its request, which rises; the client's need not.
    pub(super) request: u64,
    pub(super) volume: usize,
    pub(super) range: ByteRange,
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    /// The local copy's part.
    pub(super) local: Part,
    /// Peers that were asked, that have received it, that have written it (stably, for FLUSH and FUA).
    pub(super) sent: Set,
    pub(super) received: Set,
    pub(super) written: Set,
    pub(super) acknowledged: bool,
    /// Failed before it ran: it must not run any more.
    pub(super) cancelled: bool,
    /// Holds its extents in the activity log.
    pub(super) extents: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read { into: Option<BufferId> },
    Write { content: Content, fua: bool, dagtag: u64 },
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for its range.
    Locking,
    /// Waits for its extents to be stable in the activity log.
    Logging,
    /// May run as soon as I/O is open.
    Parked,
    /// With the disks.
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Not asked, or lost.
    Absent,
    Waiting,
    Done,
}

/// May operations run?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Hold(&'static str),
    Fail(RequestError),
}

impl ClientOp {
    pub(super) fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read { .. })
    }

    pub(super) fn is_flush(&self) -> bool {
        self.kind == Kind::Flush
    }

    pub(super) fn locks(&self) -> bool {
        !self.is_flush()
    }

    /// One that only lacks its acknowledgement does not: a paused Primary keeps those until a handshake has decided (ROLE-5).
    pub(super) fn changes_data_now(&self) -> bool {
        !self.is_read() && self.stage == Stage::Running && self.under_way()
    }

    /// Something of it is with a disk or a peer.
    pub(super) fn under_way(&self) -> bool {
        self.local == Part::Waiting || !self.unfinished().is_empty()
    }

    /// Peers that were asked and have not written it.
    pub(super) fn unfinished(&self) -> Set {
        self.sent.without(self.written)
    }
}

impl Node {
    pub(super) fn request(&mut self, request: Request) {
        assert!(self.unanswered < self.config.limits.requests, "LIM: the front end queues");
        let refuse = |node: &mut Self, error| {
            if let RequestOp::Write { buffer, .. } = request.op {
                node.out.push(Action::Reply(request.id, Err(error)));
                node.out.push(Action::Release(buffer));
            } else {
                node.out.push(Action::Reply(request.id, Err(error)));
            }
        };
        let Some(v) = self.volume_index(request.volume) else {
            return refuse(self, RequestError::Io);
        };
        // ROLE-5: a Secondary acknowledges nothing; ROLE-3: nor does one that is about to be.
        if self.role != Role::Primary || self.demoting() {
            return refuse(self, RequestError::NotPrimary);
        }
        let mut parent = Parent {
            id: request.id,
            pieces: 0,
            unacknowledged: 0,
            unfinished: 0,
            result: Ok(None),
            payload: None,
        };
        let mut longest = u64::MAX;
        let (range, kind) = match request.op {
            RequestOp::Read(range) => (range, Kind::Read { into: None }),
            RequestOp::Write { range, buffer, fua } => {
                parent.payload = Some(buffer);
                (range, Kind::Write { content: Content::Data(buffer), fua, dagtag: 0 })
            }
            RequestOp::Zero { range, unmap, fua } => {
                longest = self.longest_piece(v);
                (range, Kind::Write { content: Content::Zero { unmap }, fua, dagtag: 0 })
            }
            RequestOp::Flush => (ByteRange::new(0, 0), Kind::Flush),
        };
        // Cut at multiples of the piece: an unaligned one would touch one extent more.
        let first = range.start / longest;
        let pieces = range.end.div_ceil(longest).saturating_sub(first).max(1);
        parent.pieces = u32::try_from(pieces).expect("a request has few pieces");
        (parent.unacknowledged, parent.unfinished) = (parent.pieces, parent.pieces);
        self.unanswered += 1;
        self.served = Some(self.now);
        self.ids.request += 1;
        let name = self.ids.request;
        self.requests.insert(name, parent);
        for piece in first..first + pieces {
            let start = range.start.max(piece * longest);
            let end = range.end.min((piece + 1).saturating_mul(longest));
            self.start(name, v, ByteRange { start, end }, kind);
        }
    }

    /// DUR-5: an operator's word puts an older copy in the place of the one that clients were served from. A request of which a
    /// piece is there alone fails as a whole.
    pub(super) fn fail_begun(&mut self, v: usize) {
        for op in self.ops.values() {
            if let Op::Client(op) = op
                && op.volume == v
                && let Some(parent) = self.requests.get_mut(&op.request)
                && (1..parent.pieces).contains(&parent.unacknowledged)
            {
                parent.result = Err(RequestError::Io);
            }
        }
    }

    /// Bytes of a piece that takes no more of the activity log than one operation may.
    fn longest_piece(&self, v: usize) -> u64 {
        let limits = &self.config.limits;
        let meta = self.volumes[v].meta.as_ref();
        meta.map_or(limits.piece_bytes, |meta| {
            let slots = meta.superblock().al_slots.min(limits.extents_per_request).max(1);
            limits.piece_bytes.min(u64::from(slots) * u64::from(meta.geometry().extent_size))
        })
    }

    pub(super) fn start(&mut self, request: u64, v: usize, range: ByteRange, kind: Kind) {
        let id = self.new_op();
        let op = ClientOp {
            request,
            volume: v,
            range,
            kind,
            stage: Stage::Locking,
            local: Part::Absent,
            sent: Set::default(),
            received: Set::default(),
            written: Set::default(),
            acknowledged: false,
            cancelled: false,
            extents: false,
        };
        let granted =
            !op.locks() || self.locks.acquire(id, v, self.lock_range(v, range), op.is_read());
        self.ops.insert(id, Op::Client(op));
        if granted {
            self.lock_granted(id);
        }
    }

    /// Locks cover whole logical blocks: a smaller write reads, changes and writes back its block.
    pub(super) fn lock_range(&self, v: usize, range: ByteRange) -> ByteRange {
        let unit = self.volumes[v].geometry().map_or(4096, |g| u64::from(g.logical_block_size));
        range.align_out(unit.max(4096))
    }

    pub(super) fn client(&mut self, id: u64) -> &mut ClientOp {
        match self.ops.get_mut(&id) {
            Some(Op::Client(op)) => op,
            Some(Op::Peer(_)) | None => panic!("operation {id} is a client's"),
        }
    }

    pub(super) fn lock_granted(&mut self, id: u64) {
        if let Some(Op::Client(op)) = self.ops.get_mut(&id) {
            op.stage =
                if matches!(op.kind, Kind::Write { .. }) { Stage::Logging } else { Stage::Parked };
            if op.stage == Stage::Logging {
                return self.log_wanted(id);
            }
        }
        self.work.push_back(Work::Op(id));
    }

    /// May this operation run now?
    fn gate(&self, op: &ClientOp) -> Gate {
        let volume = &self.volumes[op.volume];
        if let Some(why) = self.suspended() {
            return Gate::Hold(why);
        }
        if !op.is_read() && self.meeting() {
            return Gate::Hold("handshake");
        }
        if !op.is_read() && self.wanted_away(op.volume) {
            return Gate::Hold("detach");
        }
        if !op.is_read() && self.peers.iter().any(|p| p.congested(&self.config.limits)) {
            return Gate::Hold("peer is slow");
        }
        if volume.good() || self.peers.iter().any(|p| p.good(op.volume)) {
            // A disk that came while we served without one is Outdated, or a target, until a handshake said what it is.
            return Gate::Open;
        }
        if volume.lifting
            || self.meeting()
            || self.hold_until.is_some()
            || self.config.suspend_no_data
        {
            return Gate::Hold("no-data");
        }
        Gate::Fail(RequestError::Io)
    }

    /// Why I/O is held, for the status.
    pub(super) fn held(&self) -> Option<&'static str> {
        if let Some(why) = self.suspended() {
            // LIVE-2: also what lacks nothing but its acknowledgement.
            return Some(why);
        }
        self.parked.iter().find_map(|id| match self.ops.get(id) {
            Some(Op::Client(op)) => match self.gate(op) {
                Gate::Hold(why) => Some(why),
                Gate::Open | Gate::Fail(_) => None,
            },
            Some(Op::Peer(_)) | None => None,
        })
    }

    pub(super) fn client_step(&mut self, id: u64) {
        let op = self.client(id);
        match op.stage {
            Stage::Locking | Stage::Logging => {}
            Stage::Parked if op.cancelled => self.end(id),
            Stage::Parked => {
                let op = op.clone();
                match self.gate(&op) {
                    Gate::Open => {
                        self.parked.remove(&id);
                        self.submit(id);
                    }
                    Gate::Hold(_) => {
                        self.parked.insert(id);
                    }
                    Gate::Fail(error) => {
                        self.parked.remove(&id);
                        self.fail(id, error);
                    }
                }
            }
            Stage::Running => self.count_copies(id),
        }
    }

    pub(super) fn submit(&mut self, id: u64) {
        let op = self.client(id);
        op.stage = Stage::Running;
        match op.kind {
            Kind::Read { .. } => self.submit_read(id),
            Kind::Write { .. } => self.submit_write(id),
            Kind::Flush => self.submit_flush(id),
        }
    }

    fn submit_read(&mut self, id: u64) {
        let (v, range) = {
            let op = self.client(id);
            (op.volume, op.range)
        };
        if self.readable_here(v, range) {
            let into = self.new_buffer();
            let op = self.client(id);
            op.local = Part::Waiting;
            op.kind = Kind::Read { into: Some(into) };
            self.disk(v, DiskOp::Read { range, into, detect_zero: false }, Purpose::Op(id));
        } else if let Some(p) = self.peers.iter().position(|p| p.good(v)) {
            self.client(id).sent.insert(p);
            let volume = self.volumes[v].number;
            self.send(p, Message::Read { id, volume, range });
        } else {
            self.park(id);
        }
    }

    /// RES-5: a target reads only what is known to be in sync.
    fn readable_here(&self, v: usize, range: ByteRange) -> bool {
        let volume = &self.volumes[v];
        volume.good() || (volume.usable() && self.in_sync_here(v, range))
    }

    fn submit_write(&mut self, id: u64) {
        let op = self.client(id).clone();
        let Kind::Write { content, fua, .. } = op.kind else { unreachable!("a write") };
        let (v, range) = (op.volume, op.range);
        if self.volumes[v].usable() {
            if !op.extents {
                // The disk came back while this operation was held without a log.
                self.client(id).stage = Stage::Logging;
                return self.log_wanted(id);
            }
            self.client(id).local = Part::Waiting;
            self.taint_fetches(v, range);
            self.write_disk(v, range, content, fua, id);
        }
        self.dagtag += 1;
        if self.config.protocol != Protocol::C && self.epoch_acknowledged {
            // ORD-2: what was acknowledged before this write was accepted belongs to an earlier epoch.
            self.epoch += 1;
            self.epoch_acknowledged = false;
        }
        self.client(id).kind = Kind::Write { content, fua, dagtag: self.dagtag };
        for p in 0..self.peers.len() {
            if self.peers[p].replicates(v) {
                self.client(id).sent.insert(p);
                self.peers[p].in_flight += weight(range);
                let write = PeerWrite {
                    volume: self.volumes[v].number,
                    range,
                    content,
                    fua,
                    author: self.config.node,
                    dagtag: self.dagtag,
                    epoch: self.epoch,
                    want_received: self.config.protocol == Protocol::B,
                };
                self.peers[p].awaited.insert(self.dagtag, id);
                self.peers[p].sent_bytes += range.len();
                self.send(p, Message::Write(write));
            } else {
                self.missed_by(p, v, range);
            }
        }
        self.count_copies(id);
    }

    pub(super) fn write_disk(
        &mut self,
        v: usize,
        range: ByteRange,
        content: Content,
        fua: bool,
        op: u64,
    ) {
        let op_ = match content {
            Content::Data(buffer) => DiskOp::Write { range, buffer, fua },
            Content::Zero { unmap } => DiskOp::Zero { range, unmap, fua },
        };
        self.disk(v, op_, Purpose::Op(op));
    }

    /// A peer does not get this write: its bit is set while the extent is active in the stable log (IO-3).
    pub(super) fn missed_by(&mut self, p: usize, v: usize, range: ByteRange) {
        let Some(slot) = self.slot(p, v) else { return };
        let meta = self.volumes[v].meta.as_mut().expect("a slot is in the metadata");
        let blocks = meta.geometry().blocks_out(range);
        meta.set_bits(slot, blocks);
    }

    fn submit_flush(&mut self, id: u64) {
        let v = self.client(id).volume;
        if self.volumes[v].usable() {
            self.client(id).local = Part::Waiting;
            let wait = self.waits.open(Then::FlushedLocal(id));
            self.flush_local(v, wait);
        }
        // Both flush in parallel. Where the peer is not waited for, it still flushes before anything later (ORD-1).
        let waited = self.waits_for_peer_flush(v);
        for p in 0..self.peers.len() {
            if self.peers[p].replicates(v) {
                self.client(id).sent.insert(p);
                let number = self.flush_peer(p, !waited);
                self.peers[p].flush_ops.push_back((number, id));
            }
        }
        self.count_copies(id);
    }

    pub(super) fn waits_for_peer_flush(&self, v: usize) -> bool {
        (self.config.protocol == Protocol::C && self.config.flush_peer) || !self.volumes[v].good()
    }

    pub(super) fn flushed_local(&mut self, id: u64, ok: bool) {
        if let Some(Op::Client(op)) = self.ops.get_mut(&id)
            && op.local == Part::Waiting
        {
            op.local = if ok { Part::Done } else { Part::Absent };
            self.count_copies(id);
        }
    }

    /// A disk operation of this operation ended.
    pub(super) fn client_io_done(
        &mut self,
        v: usize,
        id: u64,
        into: Option<BufferId>,
        result: Result<DiskDone, DiskError>,
    ) {
        let op = match self.ops.get_mut(&id) {
            Some(Op::Client(op)) if op.local == Part::Waiting => op,
            // The disk was given up meanwhile.
            _ => return self.out.extend(into.map(Action::Release)),
        };
        match result {
            Ok(_) => {
                op.local = Part::Done;
                if let Kind::Write { fua, .. } = op.kind
                    && !fua
                {
                    self.wrote(v);
                }
                self.count_copies(id);
            }
            Err(DiskError) => {
                op.local = Part::Absent;
                let Kind::Read { into } = op.kind else {
                    return self.disk_failed(v, "a write failed");
                };
                op.kind = Kind::Read { into: None };
                self.out.extend(into.map(Action::Release));
                self.read_failed(v);
                if self.volumes[v].usable() {
                    self.fail(id, RequestError::Io);
                } else {
                    self.work.push_back(Work::Op(id));
                }
            }
        }
    }
}

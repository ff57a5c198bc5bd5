//! The life of a client's request: lock, activity log, submit to the local disk and to peers, count the copies, acknowledge.
//!
//! A request becomes one operation, or several where it is too large for the activity log. An operation ends when every copy it
//! was sent to has it or is lost; it is acknowledged earlier, when the copies that count have it.

use super::types::{
    Action, BufferId, DiskDone, DiskError, DiskOp, DiskState, Protocol, Request, RequestError,
    RequestId, RequestOp, Role,
};
use super::waits::Then;
use super::{Node, Op, Purpose, Work};
use crate::wire::{Content, Message, PeerWrite};
use alloc::vec::Vec;
use bitmap::{Activation, ByteRange, Generation};

/// A client's request until its last operation has ended.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    /// Operations not acknowledged.
    unacknowledged: u32,
    /// Operations not ended.
    unfinished: u32,
    result: Result<Option<BufferId>, RequestError>,
    /// The client's payload, released at the end.
    payload: Option<BufferId>,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub(super) struct ClientOp {
    request: RequestId,
    pub(super) volume: usize,
    pub(super) range: ByteRange,
    kind: Kind,
    stage: Stage,
    /// The local copy's part.
    local: Part,
    /// Peers, one bit each by index: asked, has received, has written (stably, for FLUSH and FUA).
    sent: u32,
    received: u32,
    written: u32,
    acknowledged: bool,
    /// Failed before it ran: it must not run any more.
    cancelled: bool,
    /// Holds its extents in the activity log.
    extents: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read { into: Option<BufferId> },
    Write { content: Content, fua: bool, dagtag: u64 },
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
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
enum Part {
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
    fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read { .. })
    }

    fn is_flush(&self) -> bool {
        self.kind == Kind::Flush
    }

    fn locks(&self) -> bool {
        !self.is_flush()
    }

    /// Something of it is with a disk or a peer, or only its acknowledgement is missing.
    pub(super) fn changes_data_now(&self) -> bool {
        !self.is_read() && self.stage == Stage::Running
    }

    pub(super) fn sent_to(&self, p: usize) -> bool {
        self.sent & (1 << p) != 0
    }
}

impl Node {
    pub(super) fn request(&mut self, request: Request) {
        assert!(self.requests.len() < self.config.limits.requests, "LIM: the front end queues");
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
        let mut parent =
            Parent { unacknowledged: 0, unfinished: 0, result: Ok(None), payload: None };
        let pieces = match request.op {
            RequestOp::Read(range) => Vec::from([(range, Kind::Read { into: None })]),
            RequestOp::Write { range, buffer, fua } => {
                parent.payload = Some(buffer);
                Vec::from([(range, Kind::Write { content: Content::Data(buffer), fua, dagtag: 0 })])
            }
            RequestOp::Zero { range, unmap, fua } => {
                let kind = Kind::Write { content: Content::Zero { unmap }, fua, dagtag: 0 };
                self.pieces(v, range).into_iter().map(|range| (range, kind)).collect()
            }
            RequestOp::Flush => Vec::from([(ByteRange::new(0, 0), Kind::Flush)]),
        };
        parent.unacknowledged = u32::try_from(pieces.len()).expect("a request has few pieces");
        parent.unfinished = parent.unacknowledged;
        self.requests.insert(request.id, parent);
        for (range, kind) in pieces {
            self.start(request.id, v, range, kind);
        }
    }

    /// Cuts a range so that no piece takes more of the activity log than one operation may.
    fn pieces(&self, v: usize, range: ByteRange) -> Vec<ByteRange> {
        let limits = &self.config.limits;
        let meta = self.volumes[v].meta.as_ref();
        let piece = meta.map_or(limits.piece_bytes, |meta| {
            let slots = meta.superblock().al_slots.min(limits.extents_per_request).max(1);
            limits.piece_bytes.min(u64::from(slots) * u64::from(meta.geometry().extent_size))
        });
        let mut pieces = Vec::new();
        let mut start = range.start;
        while start < range.end {
            // Cut at multiples of the piece: an unaligned one would touch one extent more.
            let end = (start / piece + 1).saturating_mul(piece).min(range.end);
            pieces.push(ByteRange { start, end });
            start = end;
        }
        pieces
    }

    fn start(&mut self, request: RequestId, v: usize, range: ByteRange, kind: Kind) {
        let id = self.new_op();
        let op = ClientOp {
            request,
            volume: v,
            range,
            kind,
            stage: Stage::Locking,
            local: Part::Absent,
            sent: 0,
            received: 0,
            written: 0,
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

    fn client(&mut self, id: u64) -> &mut ClientOp {
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

    /// COV-1: asks for the operation's extents; nothing is submitted or sent before they are stable in the log.
    pub(super) fn log_wanted(&mut self, id: u64) {
        let v = self.op_volume(id);
        self.volumes[v].log_queue.push_back(id);
        self.serve_log_queue(v);
    }

    fn op_volume(&self, id: u64) -> usize {
        match &self.ops[&id] {
            Op::Client(op) => op.volume,
            Op::Peer(op) => op.volume,
        }
    }

    pub(super) fn serve_log_queue(&mut self, v: usize) {
        while let Some(&id) = self.volumes[v].log_queue.front() {
            let range = match self.ops.get(&id) {
                Some(Op::Client(op)) => op.range,
                Some(Op::Peer(op)) => op.range,
                None => panic!("an operation that waits for the log exists"),
            };
            let extents = self.extents_of(v, range);
            let Some(meta) = self.volumes[v].meta.as_mut() else {
                // No disk, no log.
                self.volumes[v].log_queue.pop_front();
                self.logged(id, false);
                continue;
            };
            match meta.activate(extents.clone()) {
                Activation::Active => {
                    for extent in extents {
                        meta.touch(extent);
                    }
                    self.volumes[v].log_queue.pop_front();
                    self.take_extents(id, v, range);
                    self.logged(id, true);
                }
                Activation::Pending(ticket) => {
                    self.volumes[v].log_queue.pop_front();
                    self.take_extents(id, v, range);
                    self.after_durable(v, ticket, Then::Logged(id));
                }
                Activation::Full { missing } => return self.make_room(v, missing),
            }
        }
    }

    fn take_extents(&mut self, id: u64, v: usize, range: ByteRange) {
        self.hold_extents(v, range);
        match self.ops.get_mut(&id) {
            Some(Op::Client(op)) => op.extents = true,
            Some(Op::Peer(op)) => op.extents = true,
            None => panic!("an operation that waits for the log exists"),
        }
    }

    /// The extents are stable; or the disk, and with it the log, is gone.
    pub(super) fn logged(&mut self, id: u64, ok: bool) {
        match self.ops.get_mut(&id) {
            Some(Op::Client(op)) if op.stage == Stage::Logging => {
                op.extents &= ok;
                op.stage = Stage::Parked;
                self.work.push_back(Work::Op(id));
            }
            Some(Op::Peer(_)) => self.peer_op_logged(id, ok),
            Some(Op::Client(_)) | None => {}
        }
    }

    /// May this operation run now?
    fn gate(&self, op: &ClientOp) -> Gate {
        let volume = &self.volumes[op.volume];
        if self.paused {
            return Gate::Hold("paused");
        }
        if !op.is_read() && self.handshaking() {
            return Gate::Hold("handshake");
        }
        if !op.is_read() && self.peers.iter().any(|p| p.in_flight > self.config.limits.peer_bytes) {
            return Gate::Hold("peer is slow");
        }
        if volume.good() || self.peers.iter().any(|p| p.good(op.volume)) {
            // A disk that came while we served without one is Outdated, or a target, until a handshake said what it is.
            return Gate::Open;
        }
        if self.handshaking() || self.hold_until.is_some() || self.config.suspend_no_data {
            return Gate::Hold("no-data");
        }
        Gate::Fail(RequestError::Io)
    }

    /// Why I/O is held, for the status.
    pub(super) fn held(&self) -> Option<&'static str> {
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

    fn submit(&mut self, id: u64) {
        let op = self.client(id);
        op.stage = Stage::Running;
        (op.local, op.sent, op.received, op.written) = (Part::Absent, 0, 0, 0);
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
            self.client(id).sent = 1 << p;
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
                self.client(id).sent |= 1 << p;
                self.peers[p].in_flight += range.len();
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
            if self.peers[p].connected() && self.peers[p].replicates(v) {
                self.client(id).sent |= 1 << p;
                let number = self.flush_peer(p, !waited);
                self.peers[p].flush_ops.push_back((number, id));
            }
        }
        self.count_copies(id);
    }

    fn waits_for_peer_flush(&self, v: usize) -> bool {
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
        result: Result<DiskDone, DiskError>,
    ) {
        let Some(Op::Client(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let read_into = match op.kind {
            Kind::Read { into } => into,
            Kind::Write { .. } | Kind::Flush => None,
        };
        if op.local != Part::Waiting {
            // The disk was given up meanwhile.
            return;
        }
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
                if let Some(into) = read_into {
                    op.kind = Kind::Read { into: None };
                    self.out.push(Action::Release(into));
                }
                self.disk_failed(v, "an operation on the data failed");
            }
        }
    }

    /// Which peers have done all that this operation's acknowledgement asks of them?
    fn peers_done(&self, op: &ClientOp) -> u32 {
        let written_only = match op.kind {
            // FUA is durable on every UpToDate copy; and a copy that is the only good one must really have it.
            Kind::Write { fua, .. } => fua || !self.volumes[op.volume].good(),
            Kind::Flush => {
                return if self.waits_for_peer_flush(op.volume) { op.written } else { op.sent };
            }
            Kind::Read { .. } => true,
        };
        match self.config.protocol {
            Protocol::A if !written_only => op.sent,
            Protocol::B if !written_only => op.received | op.written,
            Protocol::A | Protocol::B | Protocol::C => op.written,
        }
    }

    /// Acknowledges when the copies that count have it; ends when every copy that was asked has it or is lost.
    pub(super) fn count_copies(&mut self, id: u64) {
        let op = self.client(id).clone();
        if op.stage != Stage::Running {
            return;
        }
        if op.is_read() {
            return self.finish_read(id, &op);
        }
        let v = op.volume;
        // A SyncTarget, ours or a peer's, gets the write and is never counted.
        let counted: u32 =
            (0..self.peers.len()).filter(|&p| self.peers[p].counted(v)).map(|p| 1 << p).sum();
        let local_counts = self.volumes[v].good();
        let done = self.peers_done(&op);
        let pending = (local_counts && op.local == Part::Waiting) || op.sent & counted & !done != 0;
        let taken = (local_counts && op.local == Part::Done) || op.sent & counted & done != 0;
        if !op.acknowledged && !pending {
            if !taken {
                // No good copy took it: wait for one, or fail. Nothing of it may still be with the local disk.
                if op.local != Part::Waiting {
                    self.park(id);
                }
                return;
            }
            self.acknowledge(id);
        }
        let op = self.client(id);
        if op.acknowledged && op.local != Part::Waiting && op.sent & !op.written == 0 {
            self.end(id);
        }
    }

    fn finish_read(&mut self, id: u64, op: &ClientOp) {
        let Kind::Read { into } = op.kind else { unreachable!("a read") };
        if op.cancelled {
            if op.local != Part::Waiting {
                self.out.extend(into.map(Action::Release));
                self.end(id);
            }
            return;
        }
        let have = op.local == Part::Done || op.sent & op.written != 0;
        if have && !self.paused {
            self.client(id).acknowledged = true;
            let parent =
                self.requests.get_mut(&op.request).expect("a request outlives its operations");
            parent.result = Ok(into);
            parent.unacknowledged = 0;
            self.out.push(Action::Reply(op.request, Ok(into)));
            self.end(id);
        } else if have || (op.local == Part::Absent && op.sent == 0) {
            self.park(id);
        }
    }

    /// Back to the gate: what was done so far is done again.
    fn park(&mut self, id: u64) {
        let op = self.client(id);
        op.stage = Stage::Parked;
        (op.local, op.sent, op.received, op.written) = (Part::Absent, 0, 0, 0);
        if let Kind::Read { into: Some(into) } = op.kind {
            op.kind = Kind::Read { into: None };
            self.out.push(Action::Release(into));
        }
        self.parked.insert(id);
        self.work.push_back(Work::Op(id));
    }

    /// GI-2: the first acknowledgement that covers a write some so-far UpToDate peer may lack waits until a new current
    /// generation is stable.
    fn acknowledge(&mut self, id: u64) {
        // ROLE-5: not before the pause is over.
        if self.paused {
            return;
        }
        if self.must_mint() {
            self.mint();
        }
        if let Some((v, ticket)) = self.generation_not_durable() {
            self.after_durable(v, ticket, Then::Recheck(id));
            return;
        }
        let op = self.client(id);
        op.acknowledged = true;
        let request = op.request;
        self.epoch_acknowledged |= !op.is_flush();
        let parent = self.requests.get_mut(&request).expect("a request outlives its operations");
        parent.unacknowledged -= 1;
        if parent.unacknowledged == 0 {
            self.out.push(Action::Reply(request, parent.result));
        }
    }

    fn generation_not_durable(&self) -> Option<(usize, bitmap::Ticket)> {
        self.volumes.iter().enumerate().find_map(|(v, volume)| {
            let ticket = volume.generation_ticket?;
            (volume.meta.is_some() && !volume.durable(ticket)).then_some((v, ticket))
        })
    }

    /// A peer that shared our current generation lacks something now.
    fn must_mint(&self) -> bool {
        (0..self.peers.len()).any(|p| self.lacks(p))
    }

    fn lacks(&self, p: usize) -> bool {
        (0..self.volumes.len()).any(|v| {
            if self.peers[p].counted(v) || !self.volumes[v].good() {
                return false;
            }
            let Some(slot) = self.slot(p, v) else {
                return false;
            };
            let meta = self.volumes[v].meta.as_ref().expect("a slot is in the metadata");
            meta.superblock().slots[slot].bitmap_uuid == Generation::NONE
                && meta.bits(slot).count() > 0
        })
    }

    /// Starts a new generation on every volume.
    pub(super) fn mint(&mut self) {
        let lacking: Vec<_> = (0..self.peers.len())
            .filter(|&p| !self.peers[p].all_counted())
            .map(|p| self.peers[p].node)
            .collect();
        for v in 0..self.volumes.len() {
            let generation = self.new_generation();
            let volume = &mut self.volumes[v];
            if let Some(meta) = volume.meta.as_mut().filter(|_| volume.state == DiskState::UpToDate)
            {
                let ticket = meta.edit(|sb| sb.mint(generation, |node| lacking.contains(&node)));
                volume.generation_ticket = Some(ticket);
                volume.exposed = generation;
            }
        }
    }

    fn fail(&mut self, id: u64, error: RequestError) {
        let op = self.client(id);
        let request = op.request;
        if !op.acknowledged {
            op.acknowledged = true;
            let parent =
                self.requests.get_mut(&request).expect("a request outlives its operations");
            parent.result = Err(error);
            parent.unacknowledged -= 1;
            if parent.unacknowledged == 0 {
                self.out.push(Action::Reply(request, parent.result));
            }
        }
        self.end(id);
    }

    /// Every copy has it or is lost: unlock.
    fn end(&mut self, id: u64) {
        let Some(Op::Client(op)) = self.ops.remove(&id) else { unreachable!("a client's") };
        assert!(op.acknowledged, "IO-1: an operation ends after its answer");
        self.parked.remove(&id);
        let v = op.volume;
        if let Kind::Write { fua, .. } = op.kind {
            self.finished += 1;
            for p in 0..self.peers.len() {
                if op.sent_to(p) {
                    self.target_covered(p, v, op.range);
                    if !fua {
                        self.peers[p].unflushed.push_back((self.finished, v, op.range));
                    }
                }
            }
            if op.extents {
                self.drop_extents(v, op.range);
            }
            self.bound_unflushed();
        }
        if op.locks() {
            self.unlock(id);
        }
        let parent = self.requests.get_mut(&op.request).expect("a request outlives its operations");
        parent.unfinished -= 1;
        if parent.unfinished == 0 {
            let parent = self.requests.remove(&op.request).expect("just found");
            for buffer in parent.payload.into_iter().chain(parent.result.ok().flatten()) {
                self.out.push(Action::Release(buffer));
            }
        }
    }

    pub(super) fn unlock(&mut self, id: u64) {
        for woken in self.locks.release(id) {
            match self.ops[&woken] {
                Op::Client(_) => self.lock_granted(woken),
                Op::Peer(_) => self.peer_op_locked(woken),
            }
        }
    }

    // ---- what peers and disks do to operations ----

    pub(super) fn peer_received(&mut self, p: usize, dagtag: u64) {
        if let Some(&id) = self.peers[p].awaited.get(&dagtag) {
            self.client(id).received |= 1 << p;
            self.count_copies(id);
        }
    }

    pub(super) fn peer_written(&mut self, p: usize, dagtag: u64) {
        if let Some(id) = self.peers[p].awaited.remove(&dagtag) {
            let op = self.client(id);
            op.written |= 1 << p;
            let bytes = op.range.len();
            self.peers[p].in_flight -= bytes;
            self.regate |= !self.parked.is_empty();
            self.count_copies(id);
        }
    }

    pub(super) fn peer_flushed_op(&mut self, p: usize, id: u64) {
        if let Some(Op::Client(op)) = self.ops.get_mut(&id) {
            op.written |= 1 << p;
            self.count_copies(id);
        }
    }

    pub(super) fn peer_read_done(&mut self, p: usize, id: u64, buffer: Option<BufferId>) {
        match self.ops.get_mut(&id) {
            Some(Op::Client(op)) if op.is_read() && op.sent_to(p) && op.stage == Stage::Running => {
                if let Some(buffer) = buffer {
                    op.kind = Kind::Read { into: Some(buffer) };
                    op.written = op.sent;
                } else {
                    // The peer's disk is going; its link will follow.
                    op.sent = 0;
                }
                self.count_copies(id);
            }
            _ => self.out.extend(buffer.map(Action::Release)),
        }
    }

    /// The link to this peer is gone: what was with it counts as missing there.
    pub(super) fn peer_lost(&mut self, p: usize) {
        let ids: Vec<_> = self.ops.keys().copied().collect();
        for id in ids {
            let Some(Op::Client(op)) = self.ops.get_mut(&id) else {
                continue;
            };
            if !op.sent_to(p) {
                continue;
            }
            let (v, range, kind) = (op.volume, op.range, op.kind);
            let written = op.written & (1 << p) != 0;
            op.sent &= !(1 << p);
            op.received &= !(1 << p);
            op.written &= !(1 << p);
            if let Kind::Write { .. } = kind {
                self.missed_by(p, v, range);
                if !self.volumes[v].usable() && !written {
                    // Neither copy has it for sure: it goes again to whoever answers next, acknowledged or not.
                    self.park(id);
                }
            }
            self.work.push_back(Work::Op(id));
        }
        self.peers[p].awaited.clear();
        self.peers[p].in_flight = 0;
        self.peers[p].flush_ops.clear();
    }

    /// The local disk of this volume is gone.
    pub(super) fn local_lost(&mut self, v: usize) {
        self.volumes[v].extents.clear();
        let ids: Vec<_> = self.ops.keys().copied().collect();
        for id in ids {
            if let Some(Op::Client(op)) = self.ops.get_mut(&id)
                && op.volume == v
            {
                op.extents = false;
                if op.stage == Stage::Running && op.local == Part::Waiting {
                    op.local = Part::Absent;
                }
                self.work.push_back(Work::Op(id));
            }
        }
        self.feed_log(v);
    }

    /// Pending requests fail: this node stops being Primary under them.
    pub(super) fn fail_requests(&mut self, error: RequestError) {
        let ids: Vec<_> = self.ops.keys().copied().collect();
        for id in ids {
            if let Some(Op::Client(op)) = self.ops.get_mut(&id)
                && !op.acknowledged
            {
                // What runs is awaited; what does not run yet never will.
                op.cancelled = true;
                op.acknowledged = true;
                let request = op.request;
                let parent =
                    self.requests.get_mut(&request).expect("a request outlives its operations");
                parent.result = Err(error);
                parent.unacknowledged -= 1;
                if parent.unacknowledged == 0 {
                    self.out.push(Action::Reply(request, parent.result));
                }
                self.work.push_back(Work::Op(id));
            }
        }
    }
}

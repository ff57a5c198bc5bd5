//! Which copies have an operation, when its client is answered, and when it ends: the acknowledgement rules of protocols A, B
//! and C, the new generation before the first acknowledgement alone (GI-2), and what the loss of a peer or a disk does to
//! operations under way.

use super::apply::weight;
use super::request::{ClientOp, Kind, Part, Stage};
use super::resync::Fetched;
use super::set::Set;
use super::types::{Action, BufferId, DiskState, Protocol, RequestError};
use super::waits::Then;
use super::{Node, Op, Work};
use alloc::vec::Vec;
use bitmap::Generation;

impl Node {
    /// Which peers have done all that this operation's acknowledgement asks of them?
    fn peers_done(&self, op: &ClientOp) -> Set {
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
            Protocol::B if !written_only => op.received.or(op.written),
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
        // A SyncTarget, ours or a peer's, gets the write and is never counted. Our own disk is awaited also then: it may be
        // UpToDate by the time of the next FLUSH, whose flush covers only what was completed before (DUR-1).
        let counted = (0..self.peers.len()).filter(|&p| self.peers[p].counted(v)).collect();
        let (asked, done) = (op.sent.and(counted), self.peers_done(&op));
        let pending = op.local == Part::Waiting || !asked.without(done).is_empty();
        let taken =
            (self.volumes[v].good() && op.local == Part::Done) || !asked.and(done).is_empty();
        if !op.acknowledged && !pending {
            if !taken {
                // No good copy took it: wait for one, or fail.
                return self.park(id);
            }
            self.acknowledge(id);
        }
        let op = self.client(id);
        if op.acknowledged && !op.under_way() {
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
        let have = op.local == Part::Done || !op.sent.and(op.written).is_empty();
        if have && self.suspended().is_none() {
            self.settle_op(id, Ok(into));
            self.end(id);
        } else if have || (op.local == Part::Absent && op.sent.is_empty()) {
            self.park(id);
        }
    }

    /// Back to the gate: what was done so far is done again.
    pub(super) fn park(&mut self, id: u64) {
        let op = self.client(id);
        op.stage = Stage::Parked;
        op.local = Part::Absent;
        (op.sent, op.received, op.written) = Default::default();
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
        // ROLE-5, ROLE-4: not while nobody may be answered.
        if self.suspended().is_some() {
            return;
        }
        let (v, flush) = (self.client(id).volume, self.client(id).is_flush());
        if (0..self.peers.len()).any(|p| self.lacks(p, v, flush)) {
            if flush {
                self.mark_unsure();
            }
            self.mint();
        }
        if !flush {
            self.volumes[v].mark();
        }
        if let Some((v, ticket)) = self.generation_not_durable() {
            self.after_durable(v, ticket, Then::Recheck(id));
            return;
        }
        self.epoch_acknowledged |= !self.client(id).is_flush();
        self.settle_op(id, Ok(None));
    }

    /// What the client is told of this operation is settled; the last operation of a request answers it (IO-1).
    fn settle_op(&mut self, id: u64, result: Result<Option<BufferId>, RequestError>) {
        let op = self.client(id);
        assert!(!op.acknowledged, "IO-1: an operation is settled once");
        op.acknowledged = true;
        let request = op.request;
        let parent = self.requests.get_mut(&request).expect("a request outlives its operations");
        if parent.result.is_ok() {
            parent.result = result;
        }
        parent.unacknowledged -= 1;
        if parent.unacknowledged == 0 {
            self.unanswered -= 1;
            self.out.push(Action::Reply(parent.id, parent.result));
        }
    }

    fn generation_not_durable(&self) -> Option<(usize, bitmap::Ticket)> {
        self.volumes.iter().enumerate().find_map(|(v, volume)| {
            let ticket = volume.generation_ticket?;
            (volume.meta.is_some() && !volume.durable(ticket)).then_some((v, ticket))
        })
    }

    /// Does a peer that shared our current generation of some volume lack something that this acknowledgement, of a write or a
    /// FLUSH to volume `to`, covers? SB-1: a write to one volume is a reason for a generation of each: the peer may have gone on
    /// with another.
    fn lacks(&self, p: usize, to: usize, flush: bool) -> bool {
        let missed = !flush && !self.peers[p].counted(to);
        (0..self.volumes.len()).any(|v| {
            self.fork_slot(p, v).is_some_and(|slot| {
                let meta = self.volumes[v].meta.as_ref().expect("a slot is in the metadata");
                missed
                    || meta.bits(slot).count() > 0
                    // A target lacks what was not copied yet, and its superblock may not say so yet.
                    || self.peers[p].replicates(v)
                    || (flush && self.peers[p].unsure)
            })
        })
    }

    /// The slot of a peer that shares our current generation of this volume, as far as the superblock says, and does not get
    /// what is written from now on. None if our own copy is not good: then there is nothing to tell apart.
    fn fork_slot(&self, p: usize, v: usize) -> Option<usize> {
        let volume = &self.volumes[v];
        let slot = self.slot(p, v).filter(|_| volume.good() && !self.peers[p].counted(v))?;
        let slots = &volume.meta.as_ref()?.superblock().slots;
        (slots[slot].bitmap_uuid == Generation::NONE).then_some(slot)
    }

    /// SB-1: what a lost Primary may lack is known to it alone. That a FLUSH covered it is said by one block: a side without any
    /// mark would count as one that has acknowledged nothing.
    fn mark_unsure(&mut self) {
        for p in (0..self.peers.len()).filter(|&p| self.peers[p].unsure) {
            for v in 0..self.volumes.len() {
                let Some(slot) = self.slot(p, v).filter(|_| self.volumes[v].good()) else {
                    continue;
                };
                let meta = self.volumes[v].meta.as_mut().expect("a slot is in the metadata");
                if meta.bits(slot).count() == 0 {
                    meta.set_bits(slot, 0..1);
                    meta.sync_bits();
                }
            }
        }
    }

    /// Starts a new generation on every volume of which a peer that shares the present one may miss what follows. Not where all
    /// peers have everything: a peer that is not told of it would hold the same data under an older name. Nor a second one for
    /// the same peer: it would be known by too old a name (RES-4).
    pub(super) fn mint(&mut self) {
        for v in 0..self.volumes.len() {
            let lacking = (0..self.peers.len()).filter(|&p| self.fork_slot(p, v).is_some());
            let lacking: Vec<_> = lacking.map(|p| self.peers[p].node).collect();
            if lacking.is_empty() {
                continue;
            }
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

    pub(super) fn fail(&mut self, id: u64, error: RequestError) {
        if !self.client(id).acknowledged {
            self.settle_op(id, Err(error));
        }
        self.end(id);
    }

    /// Every copy has it or is lost: unlock.
    pub(super) fn end(&mut self, id: u64) {
        let Some(Op::Client(op)) = self.ops.remove(&id) else { unreachable!("a client's") };
        assert!(op.acknowledged, "IO-1: an operation ends after its answer");
        self.parked.remove(&id);
        let v = op.volume;
        if let Kind::Write { fua, .. } = op.kind {
            self.finished += 1;
            for p in 0..self.peers.len() {
                if op.sent.contains(p) {
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
            self.client(id).received.insert(p);
            self.count_copies(id);
        }
    }

    pub(super) fn peer_written(&mut self, p: usize, dagtag: u64) {
        if let Some(id) = self.peers[p].awaited.remove(&dagtag) {
            let op = self.client(id);
            op.written.insert(p);
            let bytes = weight(op.range);
            self.peers[p].in_flight -= bytes;
            self.regate |= !self.parked.is_empty();
            self.count_copies(id);
        }
    }

    pub(super) fn peer_flushed_op(&mut self, p: usize, id: u64) {
        if let Some(Op::Client(op)) = self.ops.get_mut(&id) {
            op.written.insert(p);
            self.count_copies(id);
        }
    }

    pub(super) fn peer_read_done(&mut self, p: usize, id: u64, buffer: Option<BufferId>) {
        match self.ops.get_mut(&id) {
            Some(Op::Client(op))
                if op.is_read() && op.sent.contains(p) && op.stage == Stage::Running =>
            {
                let Some(buffer) = buffer else {
                    // It was the last good copy.
                    return self.fail(id, RequestError::Io);
                };
                op.kind = Kind::Read { into: Some(buffer) };
                op.written = op.sent;
                self.count_copies(id);
            }
            _ => match buffer {
                Some(buffer) => self.out.push(Action::Release(buffer)),
                None if self.copy_instead(p, id) => {}
                None => self.fetched(p, id, Fetched::Failed),
            },
        }
    }

    /// The link to this peer is gone: what was with it counts as missing there.
    pub(super) fn peer_lost(&mut self, p: usize) {
        let ids: Vec<_> = self.ops.keys().collect();
        let mut behind = false;
        for id in ids {
            let Some(Op::Client(op)) = self.ops.get_mut(&id) else {
                continue;
            };
            if !op.sent.contains(p) {
                continue;
            }
            let (v, range, kind) = (op.volume, op.range, op.kind);
            let waits_here = op.local == Part::Waiting;
            let written = op.written.contains(p);
            let has = op.is_flush() || op.received.or(op.written).contains(p);
            behind |= op.acknowledged && !op.cancelled && !has;
            for set in [&mut op.sent, &mut op.received, &mut op.written] {
                set.remove(p);
            }
            if let Kind::Write { .. } = kind {
                self.missed_by(p, v, range);
                if !self.volumes[v].good() && !written && !waits_here {
                    // No good copy has it for sure: it goes again to whoever answers next, acknowledged or not.
                    self.park(id);
                }
            }
            self.work.push_back(Work::Op(id));
        }
        if behind && self.config.protocol == Protocol::A {
            // GI-2: clients were told already of what the peer lacks. Under B and C it was none that counted: it has that before it
            // is granted to be UpToDate; and no mark may say that anything was acknowledged without it (ROLE-4).
            self.mint();
        }
        self.peers[p].awaited.clear();
        self.peers[p].in_flight = 0;
        self.peers[p].flush_ops.clear();
    }

    /// The local disk of this volume is gone.
    pub(super) fn local_lost(&mut self, v: usize) {
        self.volumes[v].extents.clear();
        let ids: Vec<_> = self.ops.keys().collect();
        for id in ids {
            match self.ops.get_mut(&id) {
                Some(Op::Client(op)) if op.volume == v => {
                    op.extents = false;
                    if op.stage == Stage::Running && op.local == Part::Waiting {
                        op.local = Part::Absent;
                        if let Kind::Read { into } = &mut op.kind {
                            // Given up when the read comes back.
                            *into = None;
                        }
                    }
                    self.work.push_back(Work::Op(id));
                }
                Some(Op::Peer(op)) if op.volume == v => op.extents = false,
                Some(Op::Client(_) | Op::Peer(_)) | None => {}
            }
        }
        self.feed_log(v);
    }

    /// Pending requests fail: this node stops being Primary under them.
    pub(super) fn fail_requests(&mut self, error: RequestError) {
        let ids: Vec<_> = self.ops.keys().collect();
        for id in ids {
            if let Some(Op::Client(op)) = self.ops.get_mut(&id)
                && (!op.acknowledged || op.stage == Stage::Parked)
            {
                // What runs is awaited; what does not run yet never will.
                op.cancelled = true;
                if !op.acknowledged {
                    self.settle_op(id, Err(error));
                }
                self.work.push_back(Work::Op(id));
            }
        }
    }
}

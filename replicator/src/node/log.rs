//! The activity log as operations use it: nothing is submitted or sent before its extents are stable in the log (COV-1), and an
//! extent leaves the log only when all that was written to it is stable everywhere or marked (COV-4).

use super::request::Stage;
use super::waits::Then;
use super::{Node, Op, Work};
use alloc::vec::Vec;
use bitmap::{Activation, ByteRange};

impl Node {
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
                    self.flush_ahead(v, extents.len());
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
                assert!(ok || !op.extents, "COV-4: a disk that is gone keeps no extents");
                op.stage = Stage::Parked;
                self.work.push_back(Work::Op(id));
            }
            Some(Op::Peer(op)) => {
                assert!(ok || !op.extents, "COV-4: a disk that is gone keeps no extents");
                self.peer_op_ready(id);
            }
            Some(Op::Client(_)) | None => {}
        }
    }

    /// Extents of a range in the volume's geometry.
    pub(super) fn extents_of(&self, v: usize, range: ByteRange) -> core::ops::Range<u32> {
        self.volumes[v].geometry().map_or(0..0, |g| g.extents_of(range))
    }

    pub(super) fn hold_extents(&mut self, v: usize, range: ByteRange) {
        for extent in self.extents_of(v, range) {
            let extent = self.volumes[v].extents.entry(extent).or_default();
            extent.refs += 1;
        }
    }

    /// The operation `finished` has ended: the extents stay in the log until all sinks are stable up to it (COV-4).
    pub(super) fn drop_extents(&mut self, v: usize, range: ByteRange) {
        let (finished, now) = (self.finished, self.now);
        for extent in self.extents_of(v, range) {
            if let Some(extent) = self.volumes[v].extents.get_mut(&extent) {
                extent.refs = extent.refs.saturating_sub(1);
                extent.last = finished;
                extent.touched = now;
            }
        }
        self.feed_log(v);
    }

    /// May this extent leave the log? COV-4: everything written to it is stable on the local disk, and stable on each
    /// replicating peer or marked in its bitmap (`retire` makes the marks stable first).
    fn clean_extent(&self, v: usize, extent: u32) -> bool {
        let Some(extent) = self.volumes[v].extents.get(&extent) else {
            return true;
        };
        extent.refs == 0 && extent.last <= self.stable_everywhere(v)
    }

    /// Operations up to this one are stable on every copy that has them.
    fn stable_everywhere(&self, v: usize) -> u64 {
        let finished = self.finished;
        let peers = self.peers.iter().filter(|p| p.replicates(v));
        let local = self.volumes[v].stable_up_to(finished);
        peers.map(|p| p.stable_up_to(finished)).fold(local, u64::min)
    }

    /// Serves the operations that wait for room in the log.
    pub(super) fn feed_log(&mut self, v: usize) {
        if !self.volumes[v].log_queue.is_empty() {
            self.work.push_back(super::Work::FeedLog(v));
        }
    }

    /// So many extents more are in the log. They can leave it only after a flush everywhere (COV-4), which takes a while; it is asked
    /// for while there is room still, so that a pass over cold extents need not stand still for it.
    fn flush_ahead(&mut self, v: usize, entered: usize) {
        let volume = &mut self.volumes[v];
        let meta = volume.meta.as_ref().expect("only a disk has a log");
        let slots = meta.superblock().al_slots;
        volume.entered += entered as u32;
        if volume.entered >= slots / 4 && meta.log_free() < slots / 2 {
            volume.entered = 0;
            self.flush_everywhere();
        }
    }

    /// Makes room for `missing` extents, or arranges that room will come.
    pub(super) fn make_room(&mut self, v: usize, missing: u32) {
        for _ in 0..missing {
            let meta = self.volumes[v].meta.as_ref().expect("only a disk has a log");
            let Some(victim) = meta.oldest_active(|extent| self.clean_extent(v, extent)) else {
                self.flush_everywhere();
                return;
            };
            self.retire(v, victim);
        }
    }

    fn retire(&mut self, v: usize, extent: u32) {
        assert!(self.clean_extent(v, extent), "COV-4: only a clean extent leaves the log");
        let volume = &mut self.volumes[v];
        volume.extents.remove(&extent);
        let ticket = volume.meta.as_mut().expect("only a disk has a log").retire(extent);
        self.after_durable(v, ticket, Then::Nothing);
        self.feed_log(v);
    }

    /// Flushes all disks and peers that hold un-flushed writes, in the background.
    pub(super) fn flush_everywhere(&mut self) {
        for v in 0..self.volumes.len() {
            if self.volumes[v].wants_flush() {
                let wait = self.waits.open(Then::Nothing);
                self.flush_local(v, wait);
            }
        }
        for p in 0..self.peers.len() {
            if self.peers[p].wants_flush() {
                self.flush_peer(p, false);
            }
        }
    }

    /// Every extent that is clean and was not used for a while leaves the log, each by itself.
    pub(super) fn cool(&mut self, v: usize, idle_ms: u64) {
        let Some(meta) = self.volumes[v].meta.as_ref() else {
            return;
        };
        let cold: Vec<_> = meta
            .active_extents()
            .filter(|&extent| {
                let touched =
                    self.volumes[v].extents.get(&extent).map_or(super::Time(0), |e| e.touched);
                self.now.ms_since(touched) >= idle_ms && self.clean_extent(v, extent)
            })
            .collect();
        for extent in cold {
            self.retire(v, extent);
        }
    }

    /// Is the log empty, and stably so?
    pub(super) fn log_empty(&self, v: usize) -> bool {
        let volume = &self.volumes[v];
        !volume.log_in_use() && volume.quiet()
    }
}

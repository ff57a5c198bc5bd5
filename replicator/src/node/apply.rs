//! What a peer asks of our disk: its writes, reads and flushes, and both sides of a resync. In stream order where they overlap,
//! epoch by epoch (ORD-2), barrier by barrier (ORD-1).

use super::compare;
use super::resync::Fetched;
use super::types::{Action, BufferId, DiskDone, DiskError, DiskOp, LinkId, Protocol};
use super::waits::Then;
use super::{Node, Op, Purpose, Work};
use crate::digest::Digest;
use crate::wire::{Content, Message, PeerWrite};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use bitmap::{ByteRange, Generation, Ticket};
use core::mem::replace;

/// LIM: bytes of a peer's writes and flushes that were received and are not carried out. All else it may ask for once at a
/// time, and its reads wait in the link. The largest `max-buffers` is half of this: who keeps to its own limits stays below.
const RECEIVED: u64 = 1 << 30;

/// What the smallest of them counts as: a buffer has whole pages.
const PAGE: u64 = 4096;

/// The receiving end of a link. Writes received stay after the link is gone, and are applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Receiver {
    /// The link all this came over; none once that is lost: nobody waits for answers any more (NET-1).
    link: Option<LinkId>,
    queue: VecDeque<Message>,
    /// Bytes of the writes and flushes not carried out, queued or begun.
    held: u64,
    /// Writes being applied.
    active: BTreeSet<u64>,
    /// What must wait until the writes received before it are applied: the last operation begun before it, and it.
    after: VecDeque<(u64, After)>,
    epoch: u64,
    /// A flush runs that nothing may overtake.
    barrier: bool,
    /// Nothing is applied before our superblock says Inconsistent (RES-1).
    pub(super) hold: bool,
    /// Volumes, one bit each by index, whose author has no disk: we keep its log and bits.
    pub(super) author_diskless: u32,
}

#[derive(Clone, Debug)]
enum After {
    Flush { number: u64, barrier: bool },
    Commit { volume: usize, id: u64, runs: Vec<(u64, u64)> },
    Finish { volume: usize },
    Grant { volume: usize, current: Generation, history: Vec<Generation> },
}

/// One operation a peer wants.
#[derive(Clone, Debug)]
pub(super) struct PeerOp {
    peer: usize,
    link: Option<LinkId>,
    pub(super) volume: usize,
    pub(super) range: ByteRange,
    kind: Kind,
    /// Of a comparison: what the peer holds.
    theirs: Vec<Digest>,
    /// Has its range, and its extents in the log if it needs them.
    ready: bool,
    /// With the disk now.
    running: bool,
    /// Holds its extents in the activity log.
    pub(super) extents: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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

/// What a write counts as until it is carried out, where it is sent and where it is received.
pub(super) fn weight(range: ByteRange) -> u64 {
    range.len().max(PAGE)
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

impl Receiver {
    pub(super) fn idle(&self) -> bool {
        self.queue.is_empty() && self.active.is_empty() && self.after.is_empty() && !self.barrier
    }
}

impl Node {
    /// A message that acts on data.
    pub(super) fn receive(&mut self, p: usize, message: Message) -> Result<(), &'static str> {
        let payload = message.buffer();
        let checked = self.check_message(p, &message);
        let link = self.peers[p].link;
        let rx = &mut self.peers[p].rx;
        let held = rx.held
            + match &message {
                Message::Write(write) => weight(write.range),
                Message::Flush { .. } => PAGE,
                _ => 0,
            };
        if checked.is_err() || held > RECEIVED {
            self.out.extend(payload.map(Action::Release));
            return checked.and(Err("more writes at a time than any `max-buffers` allows"));
        }
        rx.held = held;
        rx.link = link;
        rx.queue.push_back(message);
        self.pump_rx(p);
        Ok(())
    }

    /// Hostile until here: volume and range must exist, and be asked for once at a time.
    fn check_message(&mut self, p: usize, message: &Message) -> Result<(), &'static str> {
        let place = match message {
            Message::Write(PeerWrite { volume, range, .. })
            | Message::Read { volume, range, .. }
            | Message::SyncRead { volume, range, .. }
            | Message::SyncCompare { volume, range, .. } => Some((*volume, Some(*range))),
            Message::SyncCommit { volume, .. }
            | Message::SyncFinish { volume }
            | Message::SyncGrant { volume, .. } => Some((*volume, None)),
            Message::SyncData { id, .. } => {
                let known = self.fetch_range(p, *id).is_some();
                return if known { Ok(()) } else { Err("resync data that was not asked for") };
            }
            _ => None,
        };
        let Some((volume, range)) = place else {
            return Ok(());
        };
        let v = self.volume_index(volume).ok_or("a volume that does not exist")?;
        let size = self.volumes[v].size;
        if range.is_some_and(|range| range.start >= range.end || range.end > size) {
            return Err("a range outside the volume");
        }
        if let Message::SyncCompare { range, unit, digests, .. } = message
            && let Some(geometry) = self.volumes[v].geometry()
            && !compare::is_sound(geometry, *range, *unit, digests.len())
        {
            return Err("a comparison of odd pieces");
        }
        let resync = &mut self.peers[p].volumes[v];
        let again = match (message, &mut resync.target) {
            (Message::SyncCommit { .. } | Message::SyncFinish { .. }, _) => {
                replace(&mut resync.source.asked, true)
            }
            (Message::SyncGrant { .. }, Some(target)) => replace(&mut target.granted, true),
            _ => false,
        };
        if again { Err("a step of a resync before the last was answered") } else { Ok(()) }
    }

    /// Starts what may start.
    pub(super) fn pump_rx(&mut self, p: usize) {
        loop {
            let by_epoch = self.config.protocol != Protocol::C;
            let rx = &mut self.peers[p].rx;
            if rx.hold || rx.barrier {
                break;
            }
            if let Some(Message::Write(write)) = rx.queue.front()
                && by_epoch
            {
                // ORD-2: one epoch is complete before the next begins.
                if write.epoch != rx.epoch && !rx.active.is_empty() {
                    break;
                }
                rx.epoch = write.epoch;
            }
            let Some(message) = rx.queue.pop_front() else {
                break;
            };
            self.begin(p, message);
        }
        self.run_after(p);
    }

    fn begin(&mut self, p: usize, message: Message) {
        let index = |node: &Self, number| node.volume_index(number).expect("checked on receipt");
        let after = match message {
            Message::Write(write) => {
                let v = index(self, write.volume);
                let log = self.peers[p].rx.author_diskless & (1 << v) != 0;
                self.peers[p].received_bytes += write.range.len();
                if write.want_received && self.peers[p].rx.link.is_some() {
                    self.send(p, Message::Received(write.dagtag));
                }
                let PeerWrite { range, content, fua, dagtag, .. } = write;
                self.begin_op(p, v, range, Kind::Write { content, fua, dagtag, log });
                return;
            }
            Message::Read { id, volume, range } => {
                let v = index(self, volume);
                self.begin_op(p, v, range, Kind::Read { id, into: None });
                return;
            }
            Message::SyncRead { id, volume, range } => {
                let v = index(self, volume);
                self.begin_op(p, v, range, Kind::SyncRead { id, into: None });
                return;
            }
            Message::SyncCompare { id, volume, range, unit, digests } => {
                let v = index(self, volume);
                let op = self.begin_op(p, v, range, Kind::Compare { id, unit });
                self.peer_op(op).theirs = digests;
                return;
            }
            Message::SyncData { id, buffer } => {
                let content = buffer.map_or(Content::Zero { unmap: true }, Content::Data);
                if let Some((v, range)) = self.fetch_range(p, id) {
                    self.peers[p].received_bytes += buffer.map_or(0, |_| range.len());
                    self.begin_op(p, v, range, Kind::Fetch { id, content });
                } else {
                    self.out.extend(buffer.map(Action::Release));
                }
                return;
            }
            Message::Flush { number, barrier } => {
                self.peers[p].rx.barrier |= barrier;
                After::Flush { number, barrier }
            }
            Message::SyncCommit { id, volume, runs } => {
                After::Commit { volume: index(self, volume), id, runs }
            }
            Message::SyncFinish { volume } => After::Finish { volume: index(self, volume) },
            Message::SyncGrant { volume, current, history } => {
                After::Grant { volume: index(self, volume), current, history }
            }
            other => unreachable!("{other:?} is not queued"),
        };
        let last = self.ids.op;
        self.peers[p].rx.after.push_back((last, after));
    }

    /// Runs what waited for the writes received before it.
    fn run_after(&mut self, p: usize) {
        while let Some(&(last, _)) = self.peers[p].rx.after.front() {
            if self.peers[p].rx.active.first().is_some_and(|&oldest| oldest <= last) {
                return;
            }
            let (_, after) = self.peers[p].rx.after.pop_front().expect("just seen");
            let link = self.peers[p].rx.link;
            match after {
                After::Flush { number, barrier } => {
                    let then = Then::FlushedForPeer { peer: p, link, number, barrier };
                    let wait = self.waits.open(then);
                    for v in 0..self.volumes.len() {
                        if self.volumes[v].usable() {
                            self.waits.add(wait);
                            self.flush_local(v, wait);
                        }
                        if let Some(ticket) = self.live_on(p, v) {
                            self.waits.add(wait);
                            self.wait_ticket(v, ticket, wait);
                        }
                    }
                    self.count_down(wait, true);
                }
                After::Commit { volume, id, runs } => self.sync_commit(p, volume, id, runs),
                After::Finish { volume } => self.sync_finish(p, volume),
                After::Grant { volume, current, history } => {
                    self.sync_grant(p, volume, current, history);
                }
            }
        }
    }

    pub(super) fn flushed_for_peer(
        &mut self,
        p: usize,
        link: Option<LinkId>,
        number: u64,
        barrier: bool,
        ok: bool,
    ) {
        self.peers[p].rx.held -= PAGE;
        if barrier {
            self.peers[p].rx.barrier = false;
        }
        if ok && link.is_some() && self.peers[p].link == link {
            self.send(p, Message::Flushed(number));
        }
        self.pump_rx(p);
    }

    fn begin_op(&mut self, p: usize, v: usize, range: ByteRange, kind: Kind) -> u64 {
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
            self.peers[p].rx.active.insert(id);
        }
        self.ops.insert(id, Op::Peer(op));
        if self.locks.acquire(id, v, self.lock_range(v, range), !writes) {
            self.peer_op_locked(id);
        }
        id
    }

    fn peer_op(&mut self, id: u64) -> &mut PeerOp {
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
            self.peer_op(id).ready = true;
            self.work.push_back(Work::Op(id));
        }
    }

    pub(super) fn peer_op_logged(&mut self, id: u64, ok: bool) {
        let op = self.peer_op(id);
        op.extents &= ok;
        op.ready = true;
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
            Kind::Compare { .. } => {
                if self.volumes[v].state > super::DiskState::Inconsistent {
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
    fn live_on(&mut self, p: usize, v: usize) -> Option<Ticket> {
        let slot = self.slot(p, v)?;
        if self.peers[p].rx.author_diskless & (1 << v) == 0 {
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
                self.answer(&op, Message::SyncDiffers { id: name, units, digests: told });
            }
            Kind::Digest { id: name } => self.digested(op.peer, name, Some(digests(done))),
            Kind::Read { id: name, into } => {
                self.answer(&op, Message::ReadData { id: name, buffer: into });
            }
            Kind::SyncRead { id: name, into } => {
                let buffer = into.filter(|_| done != DiskDone::Zero);
                self.sent_for_resync(op.peer, v, op.range, buffer.is_some());
                self.answer(&op, Message::SyncData { id: name, buffer });
            }
        }
        self.end_peer_op(id, true);
    }

    fn end_peer_op(&mut self, id: u64, done: bool) {
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

    /// The link is gone. Writes that were received, and the flushes between them, are still carried out.
    pub(super) fn rx_lost(&mut self, p: usize) {
        let rx = &mut self.peers[p].rx;
        rx.link = None;
        let mut released = Vec::new();
        rx.queue.retain(|message| {
            let keep = matches!(message, Message::Write(_) | Message::Flush { .. });
            if !keep {
                released.extend(message.buffer());
            }
            keep
        });
        rx.after.retain(|(_, after)| matches!(after, After::Flush { .. }));
        self.out.extend(released.into_iter().map(Action::Release));
        // What has not begun and is no write ends here: it may wait for a client's operation that itself waits for the next
        // handshake, and that waits until nothing of this link is left.
        let ended: Vec<_> = self
            .ops
            .iter()
            .filter_map(|(id, op)| match op {
                Op::Peer(op) => {
                    let write = matches!(op.kind, Kind::Write { .. });
                    (op.peer == p && !op.running && !write).then_some(id)
                }
                Op::Client(_) => None,
            })
            .collect();
        for id in ended {
            self.end_peer_op(id, false);
        }
    }

    /// Is nothing that changes data or durable facts under way? Then facts are what they will stay (GI-6).
    pub(super) fn quiescent(&self) -> bool {
        self.peers.iter().all(|p| p.rx.idle())
            && self.volumes.iter().all(|v| v.quiet() && v.state != super::DiskState::Attaching)
            && self.ops.values().all(|op| match op {
                Op::Client(op) => !op.changes_data_now(),
                Op::Peer(op) => !op.writes(),
            })
    }
}

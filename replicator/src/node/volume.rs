//! A volume's local disk as the node sees it: its state, its metadata and the one pipeline that makes metadata durable, its
//! flushes, and which extents of the activity log may be forgotten.

use super::types::{Action, DiskOp, DiskState, IoId, VolumeNumber};
use super::waits::{Then, WaitId};
use super::{Io, Node, Purpose};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bitmap::{Generation, Geometry, MetaWrite, Metadata, Opening, Placement, Ticket};

/// One volume.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) number: VolumeNumber,
    pub(super) placement: Placement,
    pub(super) state: DiskState,
    /// Present while the disk is in use.
    pub(super) meta: Option<Metadata>,
    /// After the disk was given up: what still has to be written to it.
    pub(super) farewell: Option<Metadata>,
    /// The disk that failed last, by its device id: it may not have taken the farewell.
    pub(super) failed: Option<u64>,
    /// A verdict found that this Outdated disk has all there is; UpToDate as soon as that is stable.
    pub(super) lifting: bool,
    /// Consistent because the Primary that it mirrored was lost: it holds all that was acknowledged until then.
    pub(super) followed: bool,
    /// A forced promotion declares this disk good.
    pub(super) forced: bool,
    /// Operators who wait for the end of a detach.
    pub(super) detaching: Vec<super::CommandId>,
    /// While Attaching.
    pub(super) opening: Option<Box<Attaching>>,
    /// Operations outstanding on the disk; a disk is let go only at 0, so that no late write meets a later attach.
    pub(super) outstanding: u32,
    commit: Option<VecDeque<Vec<MetaWrite>>>,
    tickets: BTreeMap<Ticket, Vec<WaitId>>,
    flush: Flusher,
    pub(super) extents: BTreeMap<u32, ExtentUse>,
    /// Extents that entered the log since a flush was asked for because of them.
    pub(super) entered: u32,
    /// Operations that wait for room in the activity log, first in first out.
    pub(super) log_queue: VecDeque<u64>,
    /// Last edit of a generation or of the mark of a Primary; nothing is acknowledged before it is durable (GI-2).
    pub(super) generation_ticket: Option<Ticket>,
    /// Size and current generation as clients were last shown them; survive the loss of the disk.
    pub(super) size: u64,
    pub(super) exposed: Generation,
    pub(super) al_writes: u64,
    pub(super) bm_writes: u64,
}

/// An attach under way.
#[derive(Clone, Debug)]
pub(super) struct Attaching {
    pub(super) opening: Opening,
    /// What was read; what has to be written to it before the disk is in use is being written.
    pub(super) metadata: Option<Metadata>,
    pub(super) backing: super::Backing,
    pub(super) command: super::CommandId,
}

/// What holds an extent in the activity log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExtentUse {
    /// Operations in flight.
    pub(super) refs: u32,
    /// The last operation that ended here (`Node::finished`): the extent is clean when every sink is stable up to it.
    pub(super) last: u64,
    /// When that was.
    pub(super) touched: super::Time,
}

/// Local flushes. One runs, one may be wanted after it; nobody joins one that runs already (DUR-1).
#[derive(Clone, Debug, Default)]
struct Flusher {
    /// Writes were handed to us as completed since the last flush was submitted.
    dirty: bool,
    waiting: VecDeque<WaitId>,
    /// One runs, for so many of the first that wait.
    running: Option<usize>,
    /// What the running flush makes stable: operations that had ended when it was submitted.
    covers: u64,
    /// Operations up to this one are stable on the local disk.
    stable: u64,
}

impl Volume {
    pub(super) fn new(number: VolumeNumber, placement: Placement) -> Self {
        Self {
            number,
            placement,
            state: DiskState::Diskless,
            meta: None,
            farewell: None,
            failed: None,
            lifting: false,
            followed: false,
            forced: false,
            detaching: Vec::new(),
            opening: None,
            outstanding: 0,
            commit: None,
            tickets: BTreeMap::new(),
            flush: Flusher::default(),
            extents: BTreeMap::new(),
            entered: 0,
            log_queue: VecDeque::new(),
            generation_ticket: None,
            size: 0,
            exposed: Generation::NONE,
            al_writes: 0,
            bm_writes: 0,
        }
    }

    /// Can data be read and written here at all?
    pub(super) fn usable(&self) -> bool {
        self.state >= DiskState::Inconsistent
    }

    /// Is it UpToDate as soon as its superblock is stable, whatever becomes of the link?
    pub(super) fn turning_good(&self) -> bool {
        let flags = self.meta.as_ref().map(|meta| &meta.superblock().flags);
        let granted = flags.is_some_and(|f| f.consistent && f.was_up_to_date);
        self.lifting || (self.state == DiskState::Inconsistent && granted)
    }

    pub(super) fn good(&self) -> bool {
        self.state == DiskState::UpToDate
    }

    /// Had this disk its part in all that the peer ever acknowledged while it was there?
    pub(super) fn sure(&self) -> bool {
        self.good() || (self.state == DiskState::Consistent && self.followed)
    }

    /// Does this peer lack every block, for all that is known?
    pub(super) fn all_marked(&self, slot: usize) -> bool {
        let all = |meta: &Metadata| meta.bits(slot).count() == meta.geometry().blocks();
        self.meta.as_ref().is_some_and(all)
    }

    pub(super) fn geometry(&self) -> Option<&Geometry> {
        self.meta.as_ref().map(Metadata::geometry)
    }

    /// The metadata: of a disk in use, of one being given up, or of one that is to be used.
    fn any_meta(&mut self) -> Option<&mut Metadata> {
        let arriving = self.opening.as_mut().and_then(|it| it.metadata.as_mut());
        self.meta.as_mut().or(self.farewell.as_mut()).or(arriving)
    }

    /// A commit is under way.
    pub(super) fn committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Extents in the activity log.
    pub(super) fn active_extents(&self) -> u32 {
        let count = self.meta.as_ref().map_or(0, |m| m.active_extents().count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Is any extent active?
    pub(super) fn log_in_use(&self) -> bool {
        self.meta.as_ref().is_some_and(|m| m.active_extents().next().is_some())
    }

    /// Nothing of it is in flight or waits to become durable.
    pub(super) fn quiet(&self) -> bool {
        self.commit.is_none() && self.meta.as_ref().is_none_or(|m| !m.needs_commit())
    }

    pub(super) fn durable(&self, ticket: Ticket) -> bool {
        self.meta.as_ref().is_some_and(|m| m.durable() >= ticket)
    }

    /// From here on a crash is one of a Primary: acknowledged writes may be here alone. Not from the promotion on: who took
    /// over and wrote nothing must not look as good as the one that crashed before (DUR-4).
    pub(super) fn mark(&mut self) {
        if let Some(meta) = self.meta.as_mut().filter(|m| !m.superblock().flags.primary_ind) {
            self.generation_ticket = Some(meta.edit(|sb| sb.flags.primary_ind = true));
        }
    }

    /// No more.
    pub(super) fn unmark(&mut self) -> Option<Ticket> {
        let meta = self.meta.as_mut().filter(|m| m.superblock().flags.primary_ind)?;
        Some(meta.edit(|sb| sb.flags.primary_ind = false))
    }

    /// Operations up to this one, of those that have `finished`, are stable here.
    pub(super) fn stable_up_to(&self, finished: u64) -> u64 {
        if self.needs_flush() { self.flush.stable } else { finished }
    }

    /// Is a flush or a commit under way?
    pub(super) fn stabilises(&self) -> bool {
        self.flush.running.is_some() || self.commit.is_some()
    }

    /// Has anything completed that no flush covers?
    pub(super) fn needs_flush(&self) -> bool {
        self.flush.dirty || self.flush.running.is_some()
    }

    /// Writes completed that no flush under way or wanted covers.
    pub(super) fn wants_flush(&self) -> bool {
        self.usable()
            && self.flush.dirty
            && self.flush.waiting.len() == self.flush.running.unwrap_or(0)
    }

    /// A fresh disk: whatever an earlier process left in the page cache is not known to be stable.
    pub(super) fn begin(&mut self, meta: Metadata, state: DiskState) {
        self.state = state;
        self.size = meta.geometry().size;
        (self.followed, self.failed) = (false, None);
        self.exposed = meta.superblock().current;
        self.meta = Some(meta);
        self.flush = Flusher { dirty: true, ..Flusher::default() };
    }
}

impl Node {
    /// Runs the continuation when `ticket` is durable. This is the mechanism behind "persist before tell".
    pub(super) fn wait_ticket(&mut self, v: usize, ticket: Ticket, wait: WaitId) {
        let volume = &mut self.volumes[v];
        if volume.any_meta().is_some_and(|meta| meta.durable() >= ticket) {
            self.count_down(wait, true);
        } else {
            volume.tickets.entry(ticket).or_default().push(wait);
        }
    }

    /// Shorthand: one ticket, one continuation.
    pub(super) fn after_durable(&mut self, v: usize, ticket: Ticket, then: Then) {
        let wait = self.waits.open(then);
        self.wait_ticket(v, ticket, wait);
    }

    /// As [`Self::after_durable`], for several volumes; at once, if there is nothing to wait for.
    pub(super) fn after_all_durable(&mut self, tickets: Vec<(usize, Ticket)>, then: Then) {
        let wait = self.waits.open(then);
        for (v, ticket) in tickets {
            self.waits.add(wait);
            self.wait_ticket(v, ticket, wait);
        }
        self.count_down(wait, true);
    }

    /// Starts a commit of everything pending, if none is under way: group commit.
    pub(super) fn kick_commit(&mut self, v: usize) {
        let volume = &mut self.volumes[v];
        if volume.commit.is_some() {
            return;
        }
        let Some(meta) = volume.any_meta() else {
            return;
        };
        let Some(commit) = meta.start_commit() else {
            return;
        };
        volume.al_writes += u64::from(commit.writes_log);
        volume.bm_writes += commit.bitmap_writes as u64;
        volume.commit = Some(commit.stages.into());
        self.next_stage(v);
    }

    /// Writes the next stage, or ends the commit and tells who waited.
    fn next_stage(&mut self, v: usize) {
        let volume = &mut self.volumes[v];
        let stages = volume.commit.as_mut().expect("a commit is under way");
        while let Some(stage) = stages.pop_front() {
            if !stage.is_empty() {
                self.disk(v, DiskOp::WriteMeta(stage), Purpose::Commit);
                return;
            }
        }
        volume.commit = None;
        let durable = volume.any_meta().expect("a commit belongs to metadata").finish_commit();
        let mut done = Vec::new();
        while let Some(first) = volume.tickets.first_entry() {
            if *first.key() > durable {
                break;
            }
            done.extend(first.remove());
        }
        for wait in done {
            self.count_down(wait, true);
        }
        self.feed_log(v);
    }

    pub(super) fn commit_done(&mut self, v: usize, ok: bool) {
        if ok {
            self.next_stage(v);
        } else {
            // Nothing more can be written to it, not even a farewell.
            self.volumes[v].commit = None;
            self.disk_failed(v, "a metadata write failed");
            self.volumes[v].farewell = None;
        }
    }

    /// A data write was handed to us as completed.
    pub(super) fn wrote(&mut self, v: usize) {
        self.volumes[v].flush.dirty = true;
    }

    /// Counts `wait` down when every write completed so far is stable on the local disk.
    pub(super) fn flush_local(&mut self, v: usize, wait: WaitId) {
        let flush = &mut self.volumes[v].flush;
        if !flush.dirty && flush.running.is_none() {
            self.count_down(wait, true);
            return;
        }
        flush.waiting.push_back(wait);
        self.start_flush(v);
    }

    fn start_flush(&mut self, v: usize) {
        let covers = self.finished;
        let flush = &mut self.volumes[v].flush;
        if flush.running.is_some() || flush.waiting.is_empty() {
            return;
        }
        // A flush covers what was reaped before it is submitted: later completions make the disk dirty again.
        flush.running = Some(flush.waiting.len());
        flush.dirty = false;
        flush.covers = covers;
        self.disk(v, DiskOp::Flush, Purpose::Flush);
    }

    pub(super) fn flush_done(&mut self, v: usize, ok: bool) {
        let flush = &mut self.volumes[v].flush;
        let covered = flush.running.take().expect("one flush runs");
        if !ok {
            // IO-4: a failed flush kills the disk for good; a later one that succeeds would prove nothing.
            self.disk_failed(v, "a flush failed");
            return;
        }
        flush.stable = flush.covers;
        for _ in 0..covered {
            let wait = self.volumes[v].flush.waiting.pop_front().expect("it waits until now");
            self.count_down(wait, true);
        }
        self.start_flush(v);
        self.feed_log(v);
    }

    /// Everybody who waited for this disk is told that it is gone.
    pub(super) fn abandon_waiters(&mut self, v: usize) {
        let volume = &mut self.volumes[v];
        let mut waiters: Vec<_> =
            core::mem::take(&mut volume.tickets).into_values().flatten().collect();
        waiters.extend(volume.flush.waiting.drain(..));
        volume.flush.running = None;
        for wait in waiters {
            self.count_down(wait, false);
        }
    }

    pub(super) fn disk(&mut self, v: usize, op: DiskOp, purpose: Purpose) {
        self.ids.io += 1;
        let io = IoId(self.ids.io);
        self.volumes[v].outstanding += 1;
        let into = match op {
            DiskOp::Read { into, .. } => Some(into),
            _ => None,
        };
        self.ios.insert(io, Io { volume: v, purpose, into });
        let volume = self.volumes[v].number;
        self.out.push(Action::Disk { io, volume, op });
    }
}

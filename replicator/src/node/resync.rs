//! Copying what may differ. The target pulls, run by run; source and target flush before either clears a bit (COV-3); the
//! target becomes UpToDate by one superblock update after its last flush (RES-2).
//!
//! The source serves reads under its range lock, so what it sends and what its clients write share one order in the stream.
//! A target that is Primary drops what it asked for before a client's write touched it, and asks again (COV-5).

use super::compare::{Compare, UNITS, Worth};
use super::pace::Pace;
use super::types::{DiskState, Level, LinkId, Occasion, ReplicationState, VolumeNumber};
use super::waits::Then;
use super::{Node, Time};
use crate::wire::{Message, ranges};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use bitmap::{ByteRange, DirtyBitmap, Generation};
use core::ops::Range;

/// Runs in one message.
const RUNS: usize = 4096;
/// Blocks in one piece: 1 MiB of 4 KiB blocks.
const PIECE: u64 = 256;

/// What was copied is settled after so many milliseconds, however little it is: a link that breaks every few seconds while clients have
/// most of the disk is no reason to copy the same again and again.
const COMMIT_AFTER: u64 = 1000;

/// What a source remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// The target has asked for a commit, or for the end, and was not answered: it asks for one thing at a time.
    pub(super) asked: bool,
}

/// What a target remembers.
#[derive(Clone, Debug)]
pub(super) struct Target {
    bits_complete: bool,
    /// Inconsistent is stable (RES-1).
    pub(super) stable: bool,
    /// Blocks to ask for.
    todo: DirtyBitmap,
    cursor: u64,
    fetches: BTreeMap<u64, Fetch>,
    pub(super) compares: BTreeMap<u64, Compare>,
    pub(super) worth: Worth,
    pub(super) pace: Pace,
    /// Bytes of both.
    pub(super) asked: u64,
    /// Blocks that now hold the source's content, not yet flushed on both sides.
    written: DirtyBitmap,
    /// Since when there are any.
    written_since: Option<Time>,
    commit: Option<Commit>,
    finishing: bool,
    /// Some blocks could not be read at the source; they are tried again then.
    retry_at: Option<Time>,
    grant: Option<(Generation, Vec<Generation>)>,
    /// A grant was received.
    pub(super) granted: bool,
    /// ROLE-4: a Primary that parts from us hears that we are out of the way. So we stay, whatever grant is under way.
    renounced: bool,
}

#[derive(Clone, Debug)]
struct Fetch {
    blocks: Range<u64>,
    /// A client wrote here since it was asked for.
    tainted: bool,
}

#[derive(Clone, Debug)]
struct Commit {
    id: u64,
    runs: Vec<(u64, u64)>,
}

/// What became of a piece that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    Written,
    /// Older than a client's write: to be asked for again.
    Dropped,
    /// The source cannot read it: to be asked for again later.
    Failed,
}

impl Target {
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            bits_complete: false,
            stable: false,
            todo: DirtyBitmap::new(blocks),
            cursor: 0,
            fetches: BTreeMap::new(),
            compares: BTreeMap::new(),
            worth: Worth::default(),
            pace: Pace::default(),
            asked: 0,
            written: DirtyBitmap::new(blocks),
            written_since: None,
            commit: None,
            finishing: false,
            retry_at: None,
            grant: None,
            granted: false,
            renounced: false,
        }
    }

    /// When blocks that could not be read are tried again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        let waits = self.idle() && !self.finishing;
        self.retry_at.filter(|_| waits)
    }

    /// Asked for and not written yet: pieces, and bytes.
    pub(super) fn in_flight(&self) -> (u64, u64) {
        ((self.fetches.len() + self.compares.len()) as u64, self.asked)
    }

    /// Nothing is left to ask for, and nothing that was asked is to come.
    fn all_asked(&self) -> bool {
        self.todo.count() == 0 && self.fetches.is_empty() && self.compares.is_empty()
    }

    /// These blocks now hold the source's content.
    pub(super) fn note_copied(&mut self, blocks: Range<u64>, now: Time) {
        self.written.set(blocks);
        self.written_since.get_or_insert(now);
    }

    /// It will not be up to date by this resync.
    pub(super) fn renounce(&mut self) {
        self.renounced = true;
        self.grant = None;
    }

    fn idle(&self) -> bool {
        self.all_asked() && self.written.count() == 0 && self.commit.is_none()
    }
}

impl Node {
    /// Sends our bits for a volume that is going to be copied.
    pub(super) fn send_bits(&mut self, p: usize, v: usize) {
        let Some(slot) = self.slot(p, v) else { return };
        let meta = self.volumes[v].meta.as_ref().expect("a slot is in the metadata");
        self.peers[p].volumes[v].bits_left = Some((meta.bits(slot).clone(), 0));
        self.send_more_bits(p);
    }

    /// LIM: a part of a bitmap goes out, and the next when the peer has answered: the link's queue has a bound.
    pub(super) fn send_more_bits(&mut self, p: usize) {
        let mut room = self.config.limits.bitmap_runs;
        for v in 0..self.volumes.len() {
            let volume = self.volumes[v].number;
            while room > 0
                && let Some((bits, from)) = &mut self.peers[p].volumes[v].bits_left
            {
                let mut runs = Vec::new();
                while runs.len() < RUNS.min(room)
                    && let Some(run) = bits.next_run(*from, u64::MAX)
                {
                    *from = run.end;
                    runs.push((run.start, run.end - run.start));
                }
                room -= runs.len().max(1);
                let last = bits.next_run(*from, 1).is_none();
                if last {
                    self.peers[p].volumes[v].bits_left = None;
                }
                self.send(p, Message::Bits { volume, runs, last });
            }
        }
        if self.peers[p].volumes.iter().any(|v| v.bits_left.is_some()) {
            self.send(p, Message::Ping);
        }
    }

    /// The union of both bitmaps is copied (COV-2).
    pub(super) fn their_bits(
        &mut self,
        p: usize,
        volume: VolumeNumber,
        runs: &[(u64, u64)],
        last: bool,
    ) -> Result<(), &'static str> {
        let v = self.volume_index(volume).ok_or("a volume that does not exist")?;
        let slot = self.slot(p, v).ok_or("bits for a volume without a disk")?;
        let replication = match self.peers[p].volumes[v].replication {
            ReplicationState::WfBitMapS => ReplicationState::SyncSource,
            ReplicationState::WfBitMapT => ReplicationState::SyncTarget,
            _ => return Err("bits while no resync is agreed"),
        };
        let meta = self.volumes[v].meta.as_mut().expect("a slot is in the metadata");
        let blocks = meta.geometry().blocks();
        for run in ranges(runs) {
            if run.start >= run.end || run.end > blocks {
                return Err("bits outside the volume");
            }
            meta.set_bits(slot, run);
        }
        if !last {
            return Ok(());
        }
        let bits = meta.bits(slot).clone();
        let total = bits.count();
        let bytes = total.saturating_mul(u64::from(meta.geometry().block_size));
        let now = self.now;
        let peer = &mut self.peers[p].volumes[v];
        peer.replication = replication;
        peer.began = now;
        peer.progress = super::Resync { total: bytes, ..super::Resync::default() };
        if let Some(target) = &mut peer.target {
            target.todo = bits;
            target.bits_complete = true;
        }
        let word = self.peers[p].volumes[v].replication;
        let node = self.peers[p].node.0;
        self.notice(
            Level::Info,
            format!("volume {volume}: {word:?} with node {node}, {total} blocks to copy"),
        );
        Ok(())
    }

    // ---- target ----

    /// RES-5: does this range of an Inconsistent disk hold what the source holds?
    pub(super) fn in_sync_here(&self, v: usize, range: ByteRange) -> bool {
        (0..self.peers.len()).any(|p| {
            let Some(target) = &self.peers[p].volumes[v].target else {
                return false;
            };
            let Some(slot) = self.slot(p, v) else {
                return false;
            };
            let meta = self.volumes[v].meta.as_ref().expect("a slot is in the metadata");
            let blocks = meta.geometry().blocks_out(range);
            self.peers[p].good(v)
                && target.bits_complete
                && target.stable
                && !meta.bits(slot).any(blocks)
        })
    }

    /// Asks for more, commits, finishes: whatever is due on volumes we are the target of.
    pub(super) fn pump_targets(&mut self) {
        for p in 0..self.peers.len() {
            for v in 0..self.volumes.len() {
                if self.peers[p].connected() && self.peers[p].volumes[v].target.is_some() {
                    self.pump_target(p, v);
                }
            }
        }
    }

    fn pump_target(&mut self, p: usize, v: usize) {
        let volume = &self.peers[p].volumes[v];
        let target = volume.target.as_ref().expect("asked by pump_targets");
        // COV-6: a source that hears of a bit when the copy has passed it keeps it for ever.
        let told = volume.bits_left.is_none();
        if !told || !target.bits_complete || !target.stable || self.peers[p].rx.hold {
            return;
        }
        self.ask(p, v);
        let slot = self.slot(p, v).expect("a target has a disk");
        let limit = self.config.limits.resync_commit_blocks;
        let target = self.peers[p].volumes[v].target.as_mut().expect("still a target");
        let late =
            target.written_since.is_some_and(|since| self.now.ms_since(since) >= COMMIT_AFTER);
        let enough = target.all_asked() || target.written.count() >= limit || late;
        if target.commit.is_none() && target.written.count() > 0 && enough {
            // COV-3: flush here first, then at the source, then clear there, then here.
            let runs: Vec<_> =
                target.written.runs().take(RUNS).map(|r| (r.start, r.end - r.start)).collect();
            for run in ranges(&runs) {
                target.written.clear(run);
            }
            // What found no room in this commit is old enough for the next.
            target.written_since = target.written_since.filter(|_| target.written.count() > 0);
            self.ids.op += 1;
            target.commit = Some(Commit { id: self.ids.op, runs });
            let link = self.peers[p].link.expect("connected");
            let wait = self.waits.open(Then::CommitFlushed { link, volume: v });
            self.flush_local(v, wait);
            return;
        }
        if target.idle() && !target.finishing {
            let bits = self.volumes[v].meta.as_ref().expect("a target has a disk").bits(slot);
            if bits.count() == 0 {
                target.finishing = true;
                let volume = self.volumes[v].number;
                self.send(p, Message::SyncFinish { volume });
            } else if target.retry_at.is_none_or(|at| self.now >= at) {
                // Bits that no pass has covered yet, or that the source could not read.
                target.retry_at = None;
                target.todo = bits.clone();
                target.cursor = 0;
                self.ask(p, v);
            }
        }
    }

    fn ask(&mut self, p: usize, v: usize) {
        let (now, serves, limits) = (self.now, self.serves(), &self.config.limits);
        let unit = limits.compare_unit;
        let geometry = *self.volumes[v].geometry().expect("a target has a disk");
        let mut pieces = Vec::new();
        let target = self.peers[p].volumes[v].target.as_mut().expect("a target");
        let mut asked = target.asked;
        // A flush is a part of a batch: it is the disk's word on how fast it is.
        let busy = asked > 0 || target.commit.is_some();
        let limit = target.pace.limit(limits, now, serves, busy);
        let piece = PIECE.min(unit * UNITS).min(limit / u64::from(geometry.block_size)).max(1);
        while asked < limit {
            let next = target.todo.next_run(target.cursor, piece);
            let Some(blocks) = next.or_else(|| target.todo.next_run(0, piece)) else {
                break;
            };
            target.todo.clear(blocks.clone());
            target.cursor = blocks.end;
            asked += geometry.block_bytes(blocks.clone()).len();
            pieces.push(blocks);
            target.pace.asked(now);
        }
        for blocks in pieces {
            let id = self.new_op();
            let target = self.peers[p].volumes[v].target.as_mut().expect("a target");
            let trying = !target.compares.is_empty();
            if blocks.end - blocks.start >= unit && target.worth.compares(trying) {
                let range = geometry.block_bytes(blocks.clone());
                target.asked += range.len();
                target.compares.insert(id, Compare::new(blocks));
                self.begin_digest(p, v, range, id);
            } else {
                self.fetch(p, v, blocks);
            }
        }
    }

    /// Asks for the bytes of these blocks.
    pub(super) fn fetch(&mut self, p: usize, v: usize, blocks: Range<u64>) {
        let geometry = self.volumes[v].geometry().expect("a target has a disk");
        let (volume, range) = (self.volumes[v].number, geometry.block_bytes(blocks.clone()));
        let id = self.new_op();
        let target = self.peers[p].volumes[v].target.as_mut().expect("a target");
        target.asked += range.len();
        target.fetches.insert(id, Fetch { blocks, tainted: false });
        self.send(p, Message::SyncRead { id, volume, range });
    }

    /// Where the answer to a `SyncRead` belongs.
    pub(super) fn fetch_range(&self, p: usize, id: u64) -> Option<(usize, ByteRange)> {
        self.peers[p].volumes.iter().enumerate().find_map(|(v, volume)| {
            let fetch = volume.target.as_ref()?.fetches.get(&id)?;
            Some((v, self.volumes[v].geometry()?.block_bytes(fetch.blocks.clone())))
        })
    }

    /// COV-5: a client's write makes what was asked for before it stale.
    pub(super) fn taint_fetches(&mut self, v: usize, range: ByteRange) {
        let Some(geometry) = self.volumes[v].geometry().copied() else {
            return;
        };
        let written = geometry.blocks_out(range);
        for peer in &mut self.peers {
            if let Some(target) = &mut peer.volumes[v].target {
                for fetch in target.fetches.values_mut() {
                    fetch.tainted |=
                        fetch.blocks.start < written.end && written.start < fetch.blocks.end;
                }
            }
        }
    }

    /// The piece has its lock: may it be written?
    pub(super) fn fetch_may_apply(&self, p: usize, id: u64) -> bool {
        self.peers[p].volumes.iter().any(|volume| {
            volume.target.as_ref().and_then(|t| t.fetches.get(&id)).is_some_and(|f| !f.tainted)
        })
    }

    pub(super) fn fetched(&mut self, p: usize, id: u64, how: Fetched) {
        for v in 0..self.volumes.len() {
            let Some(geometry) = self.volumes[v].geometry().copied() else {
                continue;
            };
            let slot = self.slot(p, v);
            let volume = &mut self.peers[p].volumes[v];
            let Some(target) = &mut volume.target else {
                continue;
            };
            let Some(fetch) = target.fetches.remove(&id) else {
                continue;
            };
            target.asked -= geometry.block_bytes(fetch.blocks.clone()).len();
            match how {
                Fetched::Written => {
                    volume.progress.copied += geometry.block_bytes(fetch.blocks.clone()).len();
                    target.note_copied(fetch.blocks, self.now);
                }
                Fetched::Failed => {
                    target.retry_at = Some(self.now.plus_ms(self.config.timing.checkpoint));
                }
                // Again, except for what became right by other means.
                Fetched::Dropped => {
                    let meta = self.volumes[v].meta.as_ref().expect("a target has a disk");
                    let bits = meta.bits(slot.expect("a target has a disk"));
                    for block in fetch.blocks {
                        if bits.any(block..block + 1) && !target.written.any(block..block + 1) {
                            target.todo.set(block..block + 1);
                        }
                    }
                }
            }
        }
    }

    /// A write that covers whole blocks brings them in sync without a copy.
    pub(super) fn target_covered(&mut self, p: usize, v: usize, range: ByteRange) {
        let Some(slot) = self.slot(p, v) else { return };
        let meta = self.volumes[v].meta.as_ref().expect("a slot is in the metadata");
        let blocks = meta.geometry().blocks_in(range);
        let Some(target) = &mut self.peers[p].volumes[v].target else {
            return;
        };
        if blocks.is_empty() || !target.bits_complete || !meta.bits(slot).all(blocks.clone()) {
            return;
        }
        if target
            .commit
            .as_ref()
            .is_some_and(|c| ranges(&c.runs).any(|r| r.start < blocks.end && blocks.start < r.end))
        {
            // On its way to be cleared already.
            return;
        }
        target.todo.clear(blocks.clone());
        target.note_copied(blocks, self.now);
    }

    /// Our flush for a commit is done.
    pub(super) fn commit_flushed(&mut self, link: LinkId, v: usize, ok: bool) {
        let Some(p) = self.peer_of(link).filter(|_| ok) else {
            return;
        };
        let volume = self.volumes[v].number;
        let commit = self.peers[p].volumes[v].target.as_ref().and_then(|t| t.commit.clone());
        if let Some(Commit { id, runs }) = commit {
            self.send(p, Message::SyncCommit { id, volume, runs });
        }
    }

    /// The source has flushed too.
    pub(super) fn sync_committed(&mut self, p: usize, id: u64) -> Result<(), &'static str> {
        let found = (0..self.volumes.len()).find(|&v| {
            self.peers[p].volumes[v]
                .target
                .as_ref()
                .is_some_and(|t| t.commit.as_ref().is_some_and(|c| c.id == id))
        });
        let v = found.ok_or("an answer to a commit that was not asked for")?;
        let slot = self.slot(p, v).ok_or("a commit without a disk")?;
        let target = self.peers[p].volumes[v].target.as_mut().expect("just found");
        let commit = target.commit.take().expect("just found");
        let meta = self.volumes[v].meta.as_mut().expect("a target has a disk");
        for run in ranges(&commit.runs) {
            meta.clear_bits(slot, run);
        }
        // Progress survives a restart.
        meta.sync_bits();
        Ok(())
    }

    /// The source lets us become UpToDate: what was received before is applied; now it is flushed.
    pub(super) fn sync_grant(
        &mut self,
        p: usize,
        v: usize,
        current: Generation,
        history: Vec<Generation>,
    ) {
        let Some(link) = self.peers[p].link else {
            return;
        };
        if let Some(target) =
            self.peers[p].volumes[v].target.as_mut().filter(|t| t.finishing && !t.renounced)
        {
            target.grant = Some((current, history));
            let wait = self.waits.open(Then::GrantFlushed { link, volume: v });
            self.flush_local(v, wait);
        }
    }

    /// RES-2: after the flush, one update removes Inconsistent and takes over the source's generation.
    pub(super) fn grant_flushed(&mut self, link: LinkId, v: usize, ok: bool) {
        let Some(p) = self.peer_of(link).filter(|_| ok) else {
            return;
        };
        let node = self.peers[p].node;
        let target = self.peers[p].volumes[v].target.as_mut();
        let Some((current, history)) = target.and_then(|t| t.grant.take()) else {
            return;
        };
        let meta = self.volumes[v].meta.as_mut().expect("a target has a disk");
        let ticket = meta.edit(|sb| {
            sb.peer_in_sync(node);
            sb.adopt(current, &history);
            sb.flags.consistent = true;
            sb.flags.was_up_to_date = true;
            sb.flags.crashed_primary = false;
        });
        self.volumes[v].exposed = current;
        self.after_durable(v, ticket, Then::InSync { link, volume: v });
    }

    /// Stably UpToDate: tell.
    pub(super) fn now_in_sync(&mut self, link: LinkId, v: usize, ok: bool) {
        let consistent =
            self.volumes[v].meta.as_ref().is_some_and(|m| m.superblock().flags.consistent);
        // ROLE-2: or it was outdated meanwhile.
        if !ok || !consistent || self.volumes[v].state != DiskState::Inconsistent {
            return;
        }
        self.volumes[v].state = DiskState::UpToDate;
        self.regate = true;
        // The link may be gone; the superblock stands.
        let Some(p) = self.peer_of(link) else { return };
        self.end_resync(p, v);
        self.peers[p].volumes[v].target = None;
        let volume = self.volumes[v].number;
        self.send(p, Message::InSync { volume });
        self.run_handler(Occasion::AfterResyncTarget, Some(p), Some(v));
    }

    pub(super) fn end_resync(&mut self, p: usize, v: usize) {
        let now = self.now;
        let volume = &mut self.peers[p].volumes[v];
        volume.replication = ReplicationState::Established;
        volume.progress.milliseconds = now.ms_since(volume.began);
        let (number, node) = (self.volumes[v].number, self.peers[p].node.0);
        let super::Resync { copied, equal, .. } = self.peers[p].volumes[v].progress;
        self.notice(
            Level::Info,
            format!(
                "volume {number}: in sync with node {node}, {} bytes copied, {equal} were equal",
                copied - equal
            ),
        );
    }

    /// Milliseconds a running resync has taken.
    pub(super) fn resync_time(&self, p: usize, v: usize) -> u64 {
        let volume = &self.peers[p].volumes[v];
        if volume.replication >= ReplicationState::SyncSource {
            self.now.ms_since(volume.began.max(Time(0)))
        } else {
            volume.progress.milliseconds
        }
    }
}

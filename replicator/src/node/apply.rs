//! What a peer asks of our disk: its writes, reads and flushes, and both sides of a resync. In stream order where they overlap,
//! epoch by epoch (ORD-2), barrier by barrier (ORD-1).

use super::peer_op::Kind;
use super::set::Set;
use super::table::Table;
use super::types::{Action, LinkId, Protocol};
use super::waits::Then;
use super::{Node, Op};
use crate::wire::{Content, Message, PeerWrite};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bitmap::{ByteRange, Generation};
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
    pub(super) link: Option<LinkId>,
    queue: VecDeque<Message>,
    /// Bytes of the writes and flushes not carried out, queued or begun.
    pub(super) held: u64,
    /// Writes being applied.
    pub(super) active: Table<u64, ()>,
    /// What must wait until the writes received before it are applied: the last operation begun before it, and it.
    after: VecDeque<(u64, After)>,
    epoch: u64,
    /// A flush runs that nothing may overtake.
    barrier: bool,
    /// Nothing is applied before our superblock says Inconsistent (RES-1).
    pub(super) hold: bool,
    /// Volumes, one bit each by index, whose author has no disk: we keep its log and bits.
    pub(super) author_diskless: Set,
}

#[derive(Clone, Debug)]
enum After {
    Flush { number: u64, barrier: bool },
    Commit { volume: usize, id: u64, runs: Vec<(u64, u64)> },
    Finish { volume: usize },
    Grant { volume: usize, current: Generation, history: Vec<Generation> },
}

/// What a write counts as until it is carried out, where it is sent and where it is received.
pub(super) fn weight(range: ByteRange) -> u64 {
    range.len().max(PAGE)
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
                let log = self.peers[p].rx.author_diskless.contains(v);
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
            Message::SyncData { id, serves, buffer } => {
                let content = buffer.map_or(Content::Zero { unmap: true }, Content::Data);
                if let Some((v, range)) = self.fetch_range(p, id) {
                    if let Some(target) = &mut self.peers[p].volumes[v].target {
                        target.pace.source_serves = serves;
                    }
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
            if self.peers[p].rx.active.keys().next().is_some_and(|oldest| oldest <= last) {
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

//! The peer as we know it, and the connection to it: connecting, keep-alive, loss. What is said over it is dispatched here
//! and handled where it belongs.

use super::Node;
use super::apply::Receiver;
use super::fencing::Fence;
use super::handshake::Handshake;
use super::resync::{Source, Target};
use super::table::Table;
use super::types::{
    Action, ConnectionState, DiskState, HandlerId, Level, LinkDown, LinkEvent, LinkId, Occasion,
    ReplicationState, Role, Time,
};
use super::volume::Volume;
use crate::config::{Fencing, Limits, Timing};
use crate::wire::Message;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::{ByteRange, DirtyBitmap, Generation, NodeId};

/// A peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) state: ConnectionState,
    pub(super) link: Option<LinkId>,
    /// Does the operator want a connection?
    pub(super) wanted: bool,
    pub(super) reason: String,
    retry_at: Option<Time>,
    backoff: u64,
    heard: Time,
    /// It was asked whether it lives: until when it may answer.
    pinged: Option<Time>,
    pub(super) incarnation: u64,
    pub(super) handshake: Handshake,
    pub(super) discard_my_data: bool,
    pub(super) role: Role,
    /// What it wrote as Primary, or before we were started, may not be stable there, and no bit of ours says so. (Its own
    /// activity log does.) A FLUSH alone then makes a promise that it may not hold (GI-2).
    pub(super) unsure: bool,
    /// ROLE-4: may we go on without it?
    pub(super) fence: Fence,
    /// The run of its handler that has not ended.
    pub(super) fence_run: Option<HandlerId>,
    /// Since it was last heard of it is known to hold no data that could be promoted.
    pub(super) outdated: bool,
    /// It and we have the same data, and that was told.
    pub(super) same: bool,
    /// We let it become Primary, and have not heard yet whether it did.
    pub(super) promoting: bool,
    /// It waits for this node's answer whether it may be promoted.
    pub(super) asks: bool,
    /// Operators who wait for us to have left it.
    pub(super) leaving: Vec<super::CommandId>,
    /// `down` is leaving it.
    pub(super) leaving_down: bool,
    /// Said after the handshake: its end of the verdict is stable.
    pub(super) ready: bool,
    pub(super) volumes: Vec<PeerVolume>,
    pub(super) rx: Receiver,
    /// Bytes of writes sent and not yet written there, small ones counted as pages.
    pub(super) in_flight: u64,
    /// Our writes there that are not written yet: dagtag to operation.
    pub(super) awaited: Table<u64, u64>,
    /// Writes that ended but are not known to be stable there: when (`Node::finished`), volume, range.
    pub(super) unflushed: VecDeque<(u64, usize, ByteRange)>,
    flush_number: u64,
    /// Flushes asked for and not answered: number, and what it covers.
    flushes: VecDeque<(u64, u64)>,
    /// Clients' FLUSHes among them.
    pub(super) flush_ops: VecDeque<(u64, u64)>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
}

/// A peer's volume.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerVolume {
    pub(super) disk: DiskState,
    pub(super) replication: ReplicationState,
    /// The peer's incarnation at the last completed handshake of this process that compared the two disks; 0: none.
    pub(super) last_incarnation: u64,
    /// As source: told the target that it may become UpToDate. Its acknowledgements count from then on.
    pub(super) granted: bool,
    /// Without a disk: what the peer was left behind at, if our clients have seen what it lacked (slot's bitmap generation).
    pub(super) left_at: Generation,
    pub(super) source: Source,
    /// What is left of our bits to be sent, and from where on.
    pub(super) bits_left: Option<(DirtyBitmap, u64)>,
    pub(super) target: Option<Target>,
    pub(super) progress: super::Resync,
    pub(super) began: Time,
}

impl Peer {
    pub(super) fn new(node: NodeId, volumes: usize) -> Self {
        Self {
            node,
            state: ConnectionState::StandAlone,
            link: None,
            wanted: false,
            reason: String::new(),
            retry_at: None,
            backoff: 0,
            heard: Time(0),
            pinged: None,
            incarnation: 0,
            handshake: Handshake::None,
            discard_my_data: false,
            role: Role::Unknown,
            unsure: true,
            fence: Fence::Unknown,
            fence_run: None,
            outdated: false,
            same: false,
            promoting: false,
            asks: false,
            leaving: Vec::new(),
            leaving_down: false,
            ready: false,
            volumes: (0..volumes).map(|_| PeerVolume::default()).collect(),
            rx: Receiver::default(),
            in_flight: 0,
            awaited: Table::default(),
            unflushed: VecDeque::new(),
            flush_number: 0,
            flushes: VecDeque::new(),
            flush_ops: VecDeque::new(),
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    pub(super) fn connected(&self) -> bool {
        self.state == ConnectionState::Connected
    }

    /// Is it Primary, or let become that, for all that was heard?
    pub(super) fn may_be_primary(&self) -> bool {
        self.role == Role::Primary || self.promoting
    }

    /// Does it get our writes to this volume?
    pub(super) fn replicates(&self, v: usize) -> bool {
        self.connected()
            && self.volumes[v].disk >= DiskState::Inconsistent
            && self.volumes[v].disk != DiskState::DUnknown
    }

    /// Must it have a write before the write is acknowledged?
    pub(super) fn counted(&self, v: usize) -> bool {
        self.replicates(v)
            && (self.volumes[v].disk == DiskState::UpToDate || self.volumes[v].granted)
    }

    /// Is more under way to it than may be? No client waits for a target: it would fall behind as far as it is let, and each later
    /// write to the same blocks waits for that.
    pub(super) fn congested(&self, limits: &Limits) -> bool {
        let any_target = (0..self.volumes.len()).any(|v| self.replicates(v) && !self.counted(v));
        self.in_flight > if any_target { limits.target_bytes } else { limits.peer_bytes }
    }

    /// Can it serve reads, and take writes in place of our own disk?
    pub(super) fn good(&self, v: usize) -> bool {
        self.ready && self.connected() && self.volumes[v].disk == DiskState::UpToDate
    }

    /// Operations up to this one, of those that have `finished`, are stable there.
    pub(super) fn stable_up_to(&self, finished: u64) -> u64 {
        self.unflushed.front().map_or(finished, |&(first, ..)| first - 1)
    }

    /// Everything that ended there is known to be stable there.
    pub(super) fn all_stable(&self) -> bool {
        self.unflushed.is_empty()
    }

    /// Holds un-flushed writes that no flush under way covers.
    pub(super) fn wants_flush(&self) -> bool {
        self.connected()
            && self.unflushed.back().is_some_and(|&(last, ..)| {
                self.flushes.back().is_none_or(|&(_, covers)| covers < last)
            })
    }

    pub(super) fn deadline(&self, timing: &Timing) -> Option<Time> {
        let alive = self
            .link
            .filter(|_| self.state >= ConnectionState::Handshaking)
            .map(|_| self.pinged.unwrap_or(self.heard.plus_ms(timing.ping_interval)));
        let targets = self.volumes.iter().filter_map(|v| v.target.as_ref());
        let resyncs = targets.flat_map(|t| t.retry_at().into_iter().chain(t.pace.deadline()));
        let others = self.retry_at.into_iter().chain(self.fence_at());
        resyncs.chain(alive).chain(others).chain(self.handshake.deadline()).min()
    }

    /// When it is tried again to fence it.
    pub(super) fn fence_at(&self) -> Option<Time> {
        let Fence::Failed { again, .. } = self.fence else { return None };
        again.filter(|_| self.state < ConnectionState::Handshaking && self.fence_run.is_none())
    }
}

impl Node {
    pub(super) fn peer_of(&self, link: LinkId) -> Option<usize> {
        self.peers.iter().position(|p| p.link == Some(link))
    }

    /// Index of the bitmap slot for a peer in a volume's metadata.
    pub(super) fn slot(&self, p: usize, v: usize) -> Option<usize> {
        self.volumes[v].meta.as_ref()?.superblock().slot_of(self.peers[p].node)
    }

    pub(super) fn send(&mut self, p: usize, message: Message) {
        if let Some(link) = self.peers[p].link {
            self.out.push(Action::Send(link, message));
        }
    }

    /// Is anything being made stable, here or at a peer? It takes a disk's time.
    pub fn awaits_stable(&self) -> bool {
        self.volumes.iter().any(Volume::stabilises)
            || self.peers.iter().any(|peer| !peer.flushes.is_empty())
    }

    /// Asks for a flush of everything sent so far; its number.
    pub(super) fn flush_peer(&mut self, p: usize, barrier: bool) -> u64 {
        let finished = self.finished;
        let peer = &mut self.peers[p];
        peer.flush_number += 1;
        let number = peer.flush_number;
        peer.flushes.push_back((number, finished));
        self.send(p, Message::Flush { number, barrier });
        number
    }

    fn flushed(&mut self, p: usize, number: u64) -> Result<(), &'static str> {
        let peer = &mut self.peers[p];
        match peer.flushes.pop_front() {
            Some((asked, covers)) if asked == number => {
                while peer.unflushed.front().is_some_and(|&(at, ..)| at <= covers) {
                    peer.unflushed.pop_front();
                }
            }
            Some(_) | None => return Err("an answer to a flush that was not asked for"),
        }
        while let Some(&(asked, op)) = self.peers[p].flush_ops.front() {
            if asked > number {
                break;
            }
            self.peers[p].flush_ops.pop_front();
            self.peer_flushed_op(p, op);
        }
        for v in 0..self.volumes.len() {
            self.feed_log(v);
        }
        Ok(())
    }

    /// LIM: too many un-flushed writes start a flush.
    pub(super) fn bound_unflushed(&mut self) {
        for p in 0..self.peers.len() {
            let peer = &self.peers[p];
            if peer.unflushed.len() > self.config.limits.unflushed / 2 && peer.flushes.is_empty() {
                self.flush_peer(p, false);
            }
        }
    }

    // ---- connecting ----

    pub(super) fn want_link(&mut self, p: usize) {
        let peer = &mut self.peers[p];
        if !peer.wanted || peer.link.is_some() {
            return;
        }
        self.ids.link += 1;
        let link = LinkId(self.ids.link);
        peer.link = Some(link);
        peer.retry_at = None;
        peer.state = ConnectionState::Connecting;
        self.out.push(Action::Connect(link, peer.node));
    }

    /// Ends the link, processes its loss, and tries again at once: some fact that matters to the verdict has changed.
    pub(super) fn restart_link(&mut self, p: usize, why: &str) {
        if self.peers[p].link.is_some() && self.peers[p].state >= ConnectionState::Handshaking {
            self.drop_link(p, why);
            if self.role == Role::Primary && !self.peers[p].leaving.is_empty() {
                return self.stand_alone(p, why.into());
            }
            self.want_link(p);
        }
    }

    pub(super) fn restart_links(&mut self, why: &str) {
        for p in 0..self.peers.len() {
            self.restart_link(p, why);
        }
    }

    /// Ends the link and processes its loss.
    pub(super) fn drop_link(&mut self, p: usize, why: &str) {
        let Some(link) = self.peers[p].link.take() else {
            return;
        };
        self.out.push(Action::Close(link));
        self.lost(p, why);
    }

    /// Gives the connection up until the operator says `connect`.
    pub(super) fn stand_alone(&mut self, p: usize, why: String) {
        self.drop_link(p, &why);
        let peer = &mut self.peers[p];
        peer.wanted = false;
        peer.retry_at = None;
        peer.state = ConnectionState::StandAlone;
        peer.reason = why;
        self.fence_due(p);
        self.left(p);
        self.regate = true;
    }

    pub(super) fn link_event(&mut self, link: LinkId, event: LinkEvent) {
        // NET-1: an event of an earlier link changes nothing.
        let Some(p) = self.peer_of(link) else { return };
        match event {
            LinkEvent::Up { incarnation } => {
                let (now, peer) = (self.now, &mut self.peers[p]);
                peer.state = ConnectionState::Handshaking;
                peer.heard = now;
                peer.pinged = None;
                peer.backoff = 0;
                peer.incarnation = incarnation;
                peer.outdated = false;
                // DUR-5: its clients have seen what is given up, also where the peer is no longer Primary.
                if self.role == Role::Primary && self.peers[p].fence.is_lost() {
                    self.yield_role(p);
                }
                self.begin_handshake(p);
            }
            LinkEvent::Down(why) => {
                self.peers[p].link = None;
                match why {
                    LinkDown::Unreachable => self.retry(p, "the peer cannot be reached"),
                    LinkDown::Broken => {
                        self.lost(p, "the connection broke");
                        self.retry(p, "the connection broke");
                    }
                    LinkDown::Rejected(why) => {
                        self.lost(p, &why);
                        self.notice(Level::Error, format!("node {}: {why}", self.peers[p].node.0));
                        self.stand_alone(p, why);
                    }
                }
            }
        }
    }

    /// Tries again after a pause that doubles up to a bound.
    fn retry(&mut self, p: usize, why: &str) {
        let timing = self.config.timing;
        if !self.peers[p].leaving.is_empty() {
            return self.stand_alone(p, why.into());
        }
        self.fence_due(p);
        let (now, peer) = (self.now, &mut self.peers[p]);
        if !peer.wanted {
            return;
        }
        peer.state = ConnectionState::Unconnected;
        if peer.reason.is_empty() {
            peer.reason = why.into();
        }
        peer.retry_at = Some(now.plus_ms(peer.backoff));
        peer.backoff = (peer.backoff * 2).clamp(timing.reconnect_min, timing.reconnect_max);
    }

    /// The whole of a link's loss, before any new one is shaken hands on.
    fn lost(&mut self, p: usize, why: &str) {
        let was = self.peers[p].state;
        if was < ConnectionState::Handshaking {
            return;
        }
        let acted = was == ConnectionState::Connected || self.has_agreed(p);
        if acted && self.role == Role::Primary {
            self.fence_lost(p);
        } else if self.peers[p].may_be_primary() {
            self.no_longer_sure();
        }
        self.peers[p].state = ConnectionState::Unconnected;
        self.peers[p].handshake = Handshake::None;
        self.peers[p].unsure |= self.peers[p].may_be_primary();
        self.peers[p].role = Role::Unknown;
        self.peers[p].promoting = false;
        self.peers[p].asks = false;
        self.peers[p].ready = false;
        self.peers[p].reason = why.into();
        if was == ConnectionState::Connected {
            self.run_handler(Occasion::Disconnected, Some(p), None);
            let text = format!("connection to node {} lost: {why}", self.peers[p].node.0);
            self.notice(Level::Warning, text);
        }
        self.rx_lost(p);
        // What the peer had not flushed counts as missing there (COV-2, COV-3).
        for (_, v, range) in core::mem::take(&mut self.peers[p].unflushed) {
            self.missed_by(p, v, range);
        }
        self.peers[p].flushes.clear();
        for volume in &mut self.peers[p].volumes {
            volume.disk = DiskState::DUnknown;
            volume.replication = ReplicationState::Off;
            volume.granted = false;
            volume.source = Source::default();
            volume.target = None;
            volume.bits_left = None;
        }
        self.peer_lost(p);
        if !self.volumes.iter().all(super::Volume::good) {
            // Only the peer had good data: requests wait for it a while.
            self.hold();
        }
        self.regate = true;
        for v in 0..self.volumes.len() {
            self.feed_log(v);
        }
    }

    pub(super) fn hold(&mut self) {
        if self.role == Role::Primary && self.hold_until.is_none() {
            self.hold_until = Some(self.now.plus_ms(self.config.timing.connect_wait));
        }
    }

    /// Nobody came in time: the loss is accepted.
    pub(super) fn end_hold(&mut self) {
        if self.handshaking() {
            // It is there: the handshake, which has its own end, decides.
            self.hold_until = Some(self.now.plus_ms(self.config.timing.ping_interval));
            return;
        }
        self.hold_until = None;
        if self.paused {
            self.notice(Level::Warning, "no peer answered after the pause: going on alone".into());
        }
        self.end_pause();
        self.regate = true;
    }

    /// ROLE-5: it may serve again. LIVE-1: also what had ended on every copy meanwhile, and was not acknowledged.
    pub(super) fn end_pause(&mut self) {
        if core::mem::take(&mut self.paused) {
            self.wake_suspended();
        }
    }

    /// ROLE-5: a Primary that slept longer than the detection time serves nothing until a handshake answered, or until the
    /// time to connect is over and the loss is processed.
    pub(super) fn notice_pause(&mut self, slept: Time) {
        let timing = self.config.timing;
        let pause = self.now.ms_since(slept);
        let watched =
            (0..self.peers.len()).any(|p| self.peers[p].state >= ConnectionState::Handshaking);
        if self.role == Role::Primary
            && watched
            && pause > timing.ping_interval + timing.ping_timeout
        {
            self.paused = true;
            self.notice(
                Level::Warning,
                format!("this process was paused for {pause} ms: I/O waits for the peer"),
            );
            self.restart_links("this node was paused");
            self.hold_until = Some(self.now.plus_ms(timing.connect_wait));
        }
    }

    pub(super) fn peer_timers(&mut self, p: usize) {
        let (now, timing) = (self.now, self.config.timing);
        if self.peers[p].retry_at.is_some_and(|at| now >= at) {
            self.peers[p].retry_at = None;
            self.want_link(p);
        }
        self.fence_again(p);
        for volume in &mut self.peers[p].volumes {
            volume.target.iter_mut().for_each(|target| target.pace.timer(now));
        }
        if self.peers[p].link.is_none() || self.peers[p].state < ConnectionState::Handshaking {
            return;
        }
        let quiet = now.ms_since(self.peers[p].heard);
        let unanswered = self.peers[p].pinged.is_some_and(|due| now >= due);
        if unanswered || quiet >= timing.ping_interval + timing.ping_timeout {
            self.drop_link(p, "the peer does not answer");
            self.retry(p, "the peer does not answer");
        } else if self.peers[p].handshake.deadline().is_some_and(|at| now >= at) {
            self.drop_link(p, "the handshake took too long");
            self.retry(p, "the handshake took too long");
        } else if quiet >= timing.ping_interval && self.peers[p].pinged.is_none() {
            let due = self.peers[p].heard.plus_ms(timing.ping_interval + timing.ping_timeout);
            self.ping(p, due);
        }
    }

    fn ping(&mut self, p: usize, due: Time) {
        self.peers[p].pinged = Some(due);
        self.send(p, Message::Ping);
    }

    /// Somebody waits for this peer: if it is dead that is known after `ping_timeout`, without waiting for `ping_interval` first.
    /// Not without fencing: then nothing would stop one that stood still for that moment from serving beside us.
    pub(super) fn probe(&mut self, p: usize) {
        let due = self.now.plus_ms(self.config.timing.ping_timeout);
        let fencing = self.config.fencing != Fencing::DontCare;
        if fencing && self.peers[p].pinged.is_none_or(|other| due < other) {
            self.ping(p, due);
        }
    }

    // ---- messages ----

    pub(super) fn message(&mut self, link: LinkId, message: Message) {
        let payload = message.buffer();
        // NET-1: an event of an earlier link changes nothing.
        let Some(p) = self.peer_of(link) else {
            self.out.extend(payload.map(Action::Release));
            return;
        };
        self.peers[p].heard = self.now;
        self.peers[p].pinged = None;
        if let Err(why) = self.dispatch(p, message) {
            self.notice(
                Level::Error,
                format!("node {} broke the protocol: {why}", self.peers[p].node.0),
            );
            self.drop_link(p, why);
            self.retry(p, why);
        }
    }

    fn dispatch(&mut self, p: usize, message: Message) -> Result<(), &'static str> {
        let handshake = matches!(message, Message::Facts(_) | Message::Agreed(_));
        let always = matches!(message, Message::Ping | Message::Pong | Message::Bye { .. });
        if handshake == self.peers[p].connected() && !always {
            self.out.extend(message.buffer().map(Action::Release));
            return Err("a message that does not belong here");
        }
        match message {
            Message::Facts(facts) => return self.their_facts(p, facts),
            Message::Agreed(agreed) => return self.their_agreed(p, agreed),
            Message::Ready { currents } => return self.their_ready(p, &currents),
            Message::Received(dagtag) => self.peer_received(p, dagtag),
            Message::Written(dagtag) => self.peer_written(p, dagtag),
            Message::Flushed(number) => return self.flushed(p, number),
            Message::ReadData { id, buffer } => self.peer_read_done(p, id, buffer),
            Message::Bits { volume, runs, last } => return self.their_bits(p, volume, &runs, last),
            Message::SyncDiffers { id, serves, units, digests } => {
                return self.sync_differs(p, id, serves, units, &digests);
            }
            Message::SyncCommitted { id } => return self.sync_committed(p, id),
            Message::InSync { volume } => return self.peer_in_sync(p, volume),
            Message::PromoteRequest => self.promote_request(p),
            Message::PromoteReply { granted } => self.promote_reply(p, granted),
            Message::RoleIs { role } => {
                self.peers[p].role = role;
                self.peers[p].promoting = false;
            }
            Message::Invalidate => self.invalidated_by_peer(p),
            Message::Bye { outdate, outdated } => self.bye(p, outdate, outdated),
            Message::Ping => self.send(p, Message::Pong),
            Message::Pong => self.send_more_bits(p),
            // These act on data, so their order among each other counts.
            Message::Write(_)
            | Message::Flush { .. }
            | Message::Read { .. }
            | Message::SyncRead { .. }
            | Message::SyncCompare { .. }
            | Message::SyncData { .. }
            | Message::SyncCommit { .. }
            | Message::SyncFinish { .. }
            | Message::SyncGrant { .. } => return self.receive(p, message),
        }
        Ok(())
    }
}

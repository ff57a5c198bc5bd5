//! Suspended I/O, and the operator's programs: fencing a lost peer before anything is acknowledged without it (ROLE-4), and the
//! other handlers.
//!
//! A lost peer may have been promoted elsewhere, unless it was outdated or shot, or is known to hold no good data. Until the
//! handler `fence-peer` says so, or an operator does (`resume-io`), no client is answered and nobody is promoted.

use super::types::{
    Action, CommandId, ConnectionState, DiskState, Handler, HandlerId, Level, Occasion, Protocol,
    RefusalKind, Role, Time,
};
use super::waits::Then;
use super::{Node, Volume, Work};
use crate::config::Fencing;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::{Metadata, NodeId};

/// What stands between us and going on without a peer.
#[derive(Clone, Debug, Default)]
pub(super) enum Fence {
    /// Nothing is known: it is connected, or nobody needed to know.
    #[default]
    Unknown,
    /// This Primary lost it, and tries again at once: the handler is run when that fails.
    Due,
    /// The handler runs.
    Running,
    /// The handler ended so, or (none) an operator gave his word, while a handshake ran: facts stand still until that ends (GI-6).
    Answered(Option<Result<i32, String>>),
    /// It did not help: why, and when a Primary runs it again (it may be running already: `Peer::fence_run`); never, where the
    /// peer is Primary, too.
    Failed { why: String, again: Option<Time> },
    /// It is out of the way.
    Fenced,
}

impl Fence {
    /// Of a Primary: the peer is Primary, too, and what is here was given up.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Failed { again: None, .. })
    }
}

impl Node {
    /// Why no client may be answered now, whatever the disks hold.
    pub(super) fn suspended(&self) -> Option<&'static str> {
        let fencing = |p: &super::Peer| match p.fence {
            Fence::Due | Fence::Running | Fence::Answered(_) | Fence::Failed { .. } => true,
            Fence::Unknown | Fence::Fenced => false,
        };
        if self.paused {
            Some("paused")
        } else if self.role == Role::Primary && self.peers.iter().any(fencing) {
            Some("fencing")
        } else if self.role == Role::Primary && self.lease.is_over() {
            Some("lease")
        } else if self.suspended_by_user {
            Some("user")
        } else {
            None
        }
    }

    /// It may serve again, if nothing else suspends it. LIVE-1: also what had ended on every copy meanwhile, and was not
    /// acknowledged.
    pub(super) fn wake_suspended(&mut self) {
        self.regate = true;
        self.work.extend(self.ops.keys().map(Work::Op));
    }

    /// ROLE-4: may this peer, of which nothing is heard, go on without us for all we know?
    pub(super) fn unfenced(&self, p: usize) -> bool {
        !self.peers[p].connected() && !self.out_of_the_way(p) && !self.ahead(p)
    }

    fn out_of_the_way(&self, p: usize) -> bool {
        let peer = &self.peers[p];
        self.config.fencing == Fencing::DontCare
            || peer.outdated
            || matches!(peer.fence, Fence::Fenced)
    }

    /// Was a generation begun here without this peer, as Primary of all volumes? Then it was fenced before, and nobody promotes
    /// it, without force, until the two disks have met. (Under A clients may have been told before it was lost. A volume on whose
    /// disk a diskless peer lived says nothing of the others.)
    fn ahead(&self, p: usize) -> bool {
        let mut volumes = self.volumes.iter();
        self.config.protocol != Protocol::A && volumes.all(|volume| self.newer(volume, p))
    }

    fn newer(&self, volume: &super::Volume, p: usize) -> bool {
        let lacks = |meta| left_behind(meta, self.peers[p].node);
        volume.state >= DiskState::Consistent && volume.meta.as_ref().is_some_and(lacks)
    }

    /// ROLE-4: is what is on a disk that is being attached good, whatever the peers do, or did while it was not? (One that is
    /// connected says so when they shake hands on this disk.)
    pub(super) fn surely_good(&self, meta: &Metadata) -> bool {
        let synchronous = self.config.protocol != Protocol::A;
        let left_behind = |p: usize| synchronous && left_behind(meta, self.peers[p].node);
        (0..self.peers.len()).all(|p| self.out_of_the_way(p) || left_behind(p))
    }

    /// Did these disks have their part in all that the peer ever acknowledged? Without them it would have fenced this node
    /// before.
    fn sure(&self) -> bool {
        self.volumes.iter().all(super::Volume::sure)
    }

    /// This Primary has lost a peer that was connected.
    pub(super) fn fence_lost(&mut self, p: usize) {
        let peer = &self.peers[p];
        // RES-1: a target is stably Inconsistent before anything is copied; nobody promotes it without force. Before it was
        // ready it may have done what the handshake said, or not: it is what it was, or better.
        let bad = |v: usize| {
            peer.replicates(v) && !peer.counted(v) && peer.volumes[v].disk < DiskState::Consistent
        };
        let heard = peer.ready && (peer.outdated || (0..self.volumes.len()).any(bad));
        let known = heard || self.ahead(p);
        if self.config.fencing == Fencing::DontCare {
            return;
        }
        self.peers[p].fence = if known { Fence::Fenced } else { Fence::Due };
        // LIVE-1: it may have been suspended before the handshake that was lost.
        self.wake_suspended();
    }

    /// ROLE-4: it is here, and what the handshake made of it is stable there.
    pub(super) fn fence_ready(&mut self, p: usize) {
        let was_suspended = self.suspended().is_some();
        self.peers[p].fence = Fence::Unknown;
        if was_suspended {
            self.wake_suspended();
        }
    }

    /// It does not come back by itself.
    pub(super) fn fence_due(&mut self, p: usize) {
        if matches!(self.peers[p].fence, Fence::Due) {
            self.fence(p);
        }
    }

    /// Runs the handler; when the former run, which the peer's return has overtaken, has ended.
    pub(super) fn fence(&mut self, p: usize) {
        self.peers[p].fence = Fence::Due;
        if self.peers[p].fence_run.is_none() {
            self.peers[p].fence = Fence::Running;
            self.run_fence_peer(p);
        }
    }

    fn run_fence_peer(&mut self, p: usize) {
        let id = self.run_handler(Occasion::FencePeer, Some(p), None);
        self.peers[p].fence_run = Some(id);
    }

    /// LIVE-4: what could not fence the peer may be able to by now.
    pub(super) fn fence_again(&mut self, p: usize) {
        if self.peers[p].fence_at().is_some_and(|at| self.now >= at) {
            self.run_fence_peer(p);
        }
    }

    pub(super) fn run_handler(
        &mut self,
        occasion: Occasion,
        p: Option<usize>,
        v: Option<usize>,
    ) -> HandlerId {
        self.ids.handler += 1;
        let id = HandlerId(self.ids.handler);
        let mut up_to_date = 0;
        if self.sure() {
            up_to_date |= 1 << self.config.node.0;
        }
        for peer in &self.peers {
            if (0..self.volumes.len()).all(|v| peer.good(v)) {
                up_to_date |= 1 << peer.node.0;
            }
        }
        let peer = p.map(|p| &self.peers[p]);
        let handler = Handler {
            occasion,
            peer: peer.map(|p| p.node),
            volume: v.map(|v| self.volumes[v].number),
            connection: peer.map_or(ConnectionState::StandAlone, |p| p.state),
            up_to_date,
        };
        self.out.push(Action::Handler(id, handler));
        id
    }

    /// A handler ended.
    pub(super) fn handler_done(&mut self, id: HandlerId, result: Result<i32, String>) {
        let Some(p) = self.peers.iter().position(|peer| peer.fence_run == Some(id)) else {
            return self.resync_allowed(id, &result);
        };
        let peer = &mut self.peers[p];
        peer.fence_run = None;
        match peer.fence {
            Fence::Running | Fence::Failed { .. } => peer.fence = Fence::Answered(Some(result)),
            // This one the peer's return has overtaken.
            Fence::Due if peer.state < ConnectionState::Handshaking => self.fence(p),
            Fence::Unknown | Fence::Due | Fence::Answered(_) | Fence::Fenced => {}
        }
    }

    /// Acts on what was answered, unless a handshake runs.
    pub(super) fn suspension_step(&mut self) {
        if self.handshaking() {
            return;
        }
        for p in 0..self.peers.len() {
            let connected = self.peers[p].connected();
            if let Fence::Answered(answer) = &mut self.peers[p].fence {
                match answer.take() {
                    // It is back. What it is now, it says soon; or it is lost again.
                    _ if connected => self.peers[p].fence = Fence::Due,
                    Some(result) => self.fence_answer(p, result),
                    None => self.fenced(p, "on the operator's word"),
                }
            }
        }
        self.lease_step();
        if core::mem::take(&mut self.resuming) {
            self.suspended_by_user = false;
            self.wake_suspended();
        }
    }

    /// What the exit codes say is DRBD's convention.
    fn fence_answer(&mut self, p: usize, result: Result<i32, String>) {
        let node = self.peers[p].node.0;
        // Nothing is newer than what its clients were told, also where a volume of a Primary has no disk here.
        let sure = self.role == Role::Primary || self.sure();
        let mut again =
            (self.role == Role::Primary).then(|| self.now.plus_ms(self.config.timing.fence_retry));
        let why = match result {
            // It is Outdated; or (3) Inconsistent, or without a disk: what that one holds nobody knows.
            Ok(code @ (3 | 4)) if code == 4 || sure => {
                self.peers[p].outdated = true;
                return self.fenced(p, "outdated");
            }
            Ok(3) => {
                "says that the peer has no good data (3), but this node has not met it since it started: a disk that is not attached there may be newer".into()
            }
            // Being off does not make what is here the newest.
            Ok(code @ (5 | 7)) if !sure => {
                format!(
                    "says that the peer is off ({code}), but this node has not met it since it started: newer data may be there"
                )
            }
            // Nothing was reached. That it is dead is a guess, which only `resource-only` acts on.
            Ok(5) if self.config.fencing == Fencing::ResourceOnly => {
                return self.fenced(p, "unreachable, and taken for dead");
            }
            Ok(5) => {
                "took the peer for dead (5); `fencing resource-and-stonith` wants it shot".into()
            }
            Ok(6) => {
                for v in 0..self.volumes.len() {
                    self.set_outdated(v);
                }
                // What is here has lost, whatever becomes of that Primary.
                again = None;
                "says that the peer is Primary (6): this node's data is outdated".into()
            }
            Ok(7) => return self.fenced(p, "shot"),
            Ok(code) => format!("failed with exit code {code}"),
            Err(why) => why,
        };
        let text = format!("node {node}: fence-peer {why}");
        self.notice(Level::Error, text);
        self.peers[p].fence = Fence::Failed { why, again };
    }

    /// GI-2: what is acknowledged from here on is preceded by a new generation, as after any loss.
    fn fenced(&mut self, p: usize, how: &str) {
        let text = format!("node {} is fenced: {how}", self.peers[p].node.0);
        self.notice(Level::Info, text);
        self.peers[p].fence = Fence::Fenced;
        self.wake_suspended();
    }

    /// Why this peer is not fenced, for people.
    pub(super) fn fence_failure(&self, p: usize) -> Option<String> {
        let Fence::Failed { why, .. } = &self.peers[p].fence else { return None };
        Some(format!(
            "fence-peer {why}. When node {} is surely down: `polluxadm resume-io` here",
            self.peers[p].node.0
        ))
    }

    /// The Primary that we mirrored has vanished: whether it goes on without us is not known.
    pub(super) fn no_longer_sure(&mut self) {
        if self.config.fencing != Fencing::DontCare {
            for volume in self.volumes.iter_mut().filter(|v| v.good()) {
                (volume.state, volume.followed) = (DiskState::Consistent, true);
            }
        }
    }

    /// What was known for this term as Primary.
    pub(super) fn forget_fences(&mut self) {
        for peer in &mut self.peers {
            peer.fence = Fence::Unknown;
        }
    }

    // ---- commands ----

    pub(super) fn suspend_io(&mut self, id: CommandId) {
        self.suspended_by_user = true;
        self.resuming = false;
        self.out.push(Action::Done(id, Ok(())));
    }

    pub(super) fn resume_io(&mut self, id: CommandId) {
        if self.suspended_by_user && !self.resuming {
            self.resuming = true;
            if let Some(why @ ("paused" | "fencing" | "lease")) = self.suspended() {
                // The end of a snapshot is no word about the peer.
                let text = format!(
                    "I/O stays suspended: {why}; see `polluxadm status`, then, if need be, `polluxadm resume-io` again"
                );
                return self.refuse(id, RefusalKind::State, text);
            }
            return self.out.push(Action::Done(id, Ok(())));
        }
        for peer in &mut self.peers {
            match peer.fence {
                Fence::Due | Fence::Running | Fence::Answered(_) | Fence::Failed { .. } => {
                    peer.fence = Fence::Answered(None);
                }
                Fence::Unknown | Fence::Fenced => {}
            }
        }
        self.out.push(Action::Done(id, Ok(())));
    }

    /// ROLE-2: what others write from now on is not here. Done when that is stable.
    pub(super) fn outdate_by_hand(&mut self, id: CommandId) {
        if self.role == Role::Primary {
            let text = "this node is Primary: its data is in use".into();
            return self.refuse(id, RefusalKind::Primary, text);
        }
        if self.peers.iter().any(|p| p.state >= ConnectionState::Handshaking) {
            let text = "the peer is connected, its data is the same: `polluxadm disconnect` outdates this node if the peer is Primary".into();
            return self.refuse(id, RefusalKind::Connected, text);
        }
        let newest = |&p: &usize| {
            self.volumes.iter().enumerate().any(|(v, volume)| {
                self.newer(volume, p) || self.slot(p, v).is_some_and(|slot| volume.all_marked(slot))
            })
        };
        if let Some(p) = (0..self.peers.len()).find(newest) {
            let text = format!(
                "this node holds what node {} lacks: it is the newest. Connect them",
                self.peers[p].node.0
            );
            return self.refuse(id, RefusalKind::State, text);
        }
        if let Some(volume) = self.volumes.iter().find(|v| v.state == DiskState::Attaching) {
            let text = format!("volume {} is being attached: try again", volume.number);
            return self.refuse(id, RefusalKind::Busy, text);
        }
        // Not what a superblock that is being written makes UpToDate: it would be that after the peer was told that it is bad.
        let bad = |v: &&Volume| v.state < DiskState::Outdated && !v.turning_good();
        if let Some(volume) = self.volumes.iter().find(bad) {
            let text = format!("volume {} is {:?}: worse already", volume.number, volume.state);
            return self.refuse(id, RefusalKind::NotOutdatable, text);
        }
        let mut tickets = Vec::new();
        for v in 0..self.volumes.len() {
            tickets.extend(self.set_outdated(v).map(|ticket| (v, ticket)));
        }
        self.after_all_durable(tickets, Then::Outdated(id));
    }

    /// Our disk is Outdated at once; stably, when the ticket is durable.
    pub(super) fn set_outdated(&mut self, v: usize) -> Option<bitmap::Ticket> {
        let volume = &mut self.volumes[v];
        if volume.state < DiskState::Outdated && !volume.turning_good() {
            return None;
        }
        volume.state = DiskState::Outdated;
        volume.lifting = false;
        Some(volume.meta.as_mut()?.edit(|sb| sb.flags.was_up_to_date = false))
    }

    pub(super) fn outdated(&mut self, id: CommandId, ok: bool) {
        if ok {
            self.out.push(Action::Done(id, Ok(())));
        } else {
            self.refuse(id, RefusalKind::NoDisk, "a disk failed meanwhile".into());
        }
    }

    // ---- states that a handler is told of when they begin ----

    pub(super) fn watch_states(&mut self) {
        if self.hold_until.is_some() || self.meeting() {
            // The peer may have it all: requests wait for it, and so does an alarm that may halt this node.
            return;
        }
        let good = |v: usize| self.volumes[v].good() || self.peers.iter().any(|p| p.good(v));
        let degraded = self.role == Role::Primary && !(0..self.volumes.len()).all(good);
        if degraded && !self.degraded {
            self.run_handler(Occasion::PriOnInconDegr, None, None);
        }
        self.degraded = degraded;
        for p in 0..self.peers.len() {
            let peer = &self.peers[p];
            let same = (0..self.volumes.len()).all(|v| self.volumes[v].good() && peer.good(v));
            if same && !peer.same && self.config.fencing != Fencing::DontCare {
                self.run_handler(Occasion::UnfencePeer, Some(p), None);
            }
            self.peers[p].same = same;
        }
    }
}

/// Does the peer lack something that was acknowledged here?
fn left_behind(meta: &Metadata, peer: NodeId) -> bool {
    let sb = meta.superblock();
    sb.slot_of(peer).is_some_and(|slot| sb.slots[slot].bitmap_uuid.is_real())
}

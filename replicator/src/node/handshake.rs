//! Two nodes meet: facts both ways, the same verdict on both ends, then what the verdict demands is made stable before anything
//! is copied. While it runs a Primary holds new writes and flushes, so that no fact changes under the verdict (GI-6).

use super::lease::Lease;
use super::resync::Target;
use super::set::Set;
use super::types::{
    ConnectionState, DiskState, HandlerId, Level, LinkId, Occasion, ReplicationState, RequestError,
    Role, Time,
};
use super::verdict::{mirror, verdict};
use super::waits::Then;
use super::{Action, Node};
use crate::wire::{Agreed, Facts, Message, RefuseReason, VolumeFacts, VolumeVerdict};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::Generation;

/// Where a handshake stands.
#[derive(Clone, Debug)]
pub(super) enum Handshake {
    /// None runs.
    None,
    /// One runs.
    Running(Box<Running>),
}

/// What was said so far.
#[derive(Clone, Debug)]
pub(super) struct Running {
    deadline: Time,
    ours: Option<Box<Facts>>,
    theirs: Option<Box<Facts>>,
    agreed: Option<Agreed>,
    their_agreed: Option<Agreed>,
    permission: Permission,
}

/// May this disk become the target of a resync? Asked before the verdict is said: the peer acts on it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    NotAsked,
    Asked(HandlerId),
    Given,
    /// The verdict was said.
    Used,
}

impl Running {
    /// An operator's program runs, here or there. Its time has a bound of its own.
    fn waits_for_permission(&self) -> bool {
        let there = self.agreed.as_ref().is_some_and(|agreed| is_target(&mirror(agreed)));
        there || matches!(self.permission, Permission::Asked(_))
    }
}

fn is_target(agreed: &Agreed) -> bool {
    let target = |verdict: &VolumeVerdict| matches!(verdict, VolumeVerdict::Target { .. });
    matches!(agreed, Agreed::Go(verdicts) if verdicts.iter().any(target))
}

impl Handshake {
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::None => None,
            Self::Running(running) => (!running.waits_for_permission()).then_some(running.deadline),
        }
    }
}

impl Node {
    /// Does a handshake run with any peer?
    pub(super) fn handshaking(&self) -> bool {
        self.peers.iter().any(|p| p.state == ConnectionState::Handshaking)
    }

    /// The peer is there, and it is not settled yet what it has.
    pub(super) fn meeting(&self) -> bool {
        self.handshaking() || self.peers.iter().any(|p| p.connected() && !p.ready)
    }

    pub(super) fn begin_handshake(&mut self, p: usize) {
        self.peers[p].handshake = Handshake::Running(Box::new(Running {
            deadline: self.now.plus_ms(self.config.timing.handshake),
            ours: None,
            theirs: None,
            agreed: None,
            their_agreed: None,
            permission: Permission::NotAsked,
        }));
    }

    fn running(&mut self, p: usize) -> Option<&mut Running> {
        match &mut self.peers[p].handshake {
            Handshake::None => None,
            Handshake::Running(running) => Some(running),
        }
    }

    pub(super) fn their_facts(&mut self, p: usize, facts: Box<Facts>) -> Result<(), &'static str> {
        if facts.node != self.peers[p].node {
            return Err("facts of another node");
        }
        if facts.incarnation != self.peers[p].incarnation {
            return Err("facts of another process than the link's");
        }
        let running = self.running(p).ok_or("facts outside a handshake")?;
        if running.theirs.replace(facts).is_some() {
            return Err("facts twice");
        }
        Ok(())
    }

    pub(super) fn their_agreed(&mut self, p: usize, agreed: Agreed) -> Result<(), &'static str> {
        let running = self.running(p).ok_or("a verdict outside a handshake")?;
        if running.theirs.is_none() || running.their_agreed.replace(agreed).is_some() {
            return Err("a verdict without facts");
        }
        Ok(())
    }

    /// Takes every step that is due.
    pub(super) fn handshake_step(&mut self) {
        for p in 0..self.peers.len() {
            if self.peers[p].state != ConnectionState::Handshaking {
                continue;
            }
            // Facts are said when they stand: nothing of the old link, no write, no metadata update is under way. And when they
            // last: a target that gives its copy up must find all of it at the source, whatever becomes of that (DUR-3).
            if self.running(p).is_some_and(|r| r.ours.is_none())
                && self.quiescent()
                && self.all_flushed()
            {
                let facts = Box::new(self.facts(p));
                self.send(p, Message::Facts(facts.clone()));
                if let Some(running) = self.running(p) {
                    running.ours = Some(facts);
                }
            }
            let Some(running) = self.running(p) else {
                continue;
            };
            if let (Some(ours), Some(theirs), None) =
                (&running.ours, &running.theirs, &running.agreed)
            {
                running.agreed = Some(verdict(ours, theirs));
            }
            self.agree(p);
            self.conclude(p);
        }
    }

    /// Says the verdict, as soon as the operator's program has nothing against it.
    fn agree(&mut self, p: usize) {
        let Some(running) = self.running(p) else { return };
        match (&running.agreed, running.permission) {
            (None, _) | (Some(_), Permission::Asked(_) | Permission::Used) => {}
            (Some(agreed), Permission::NotAsked) if is_target(agreed) => {
                let id = self.run_handler(Occasion::BeforeResyncTarget, Some(p), None);
                self.running(p).expect("just seen").permission = Permission::Asked(id);
            }
            (Some(agreed), Permission::NotAsked | Permission::Given) => {
                let agreed = agreed.clone();
                running.permission = Permission::Used;
                self.send(p, Message::Agreed(agreed));
            }
        }
    }

    /// Is everything stable that was ever written here? If not, it soon is.
    fn all_flushed(&mut self) -> bool {
        let flushed = |volume: &super::Volume| !volume.usable() || !volume.needs_flush();
        if self.volumes.iter().all(flushed) {
            return true;
        }
        self.flush_everywhere();
        false
    }

    fn conclude(&mut self, p: usize) {
        let Some(running) = self.running(p) else {
            return;
        };
        let (Some(agreed), Some(their_agreed)) = (&running.agreed, &running.their_agreed) else {
            return;
        };
        if running.permission != Permission::Used {
            return;
        }
        // GI-4: both ends must have come to the same verdict, or neither acts.
        if *their_agreed != mirror(agreed) {
            let text =
                format!("node {}: the two ends came to different verdicts", self.peers[p].node.0);
            self.notice(Level::Error, text.clone());
            return self.stand_alone(p, text);
        }
        let agreed = agreed.clone();
        let (Some(ours), Some(theirs)) = (running.ours.take(), running.theirs.take()) else {
            return;
        };
        match agreed {
            Agreed::Go(volumes) => self.go(p, &volumes, &ours, &theirs),
            Agreed::IStepDown => {
                self.yield_role(p);
                self.restart_link(p, "this node stops being Primary");
            }
            Agreed::YouStepDown => {
                self.restart_link(p, "the peer stops being Primary");
            }
            Agreed::Refuse(reason) => {
                let text = self.refusal_text(p, &reason, &ours, &theirs);
                self.notice(Level::Error, text.clone());
                if reason == RefuseReason::SplitBrain {
                    self.run_handler(Occasion::InitialSplitBrain, Some(p), None);
                    self.run_handler(Occasion::SplitBrain, Some(p), None);
                }
                let yields = !theirs.suspended || theirs.node < ours.node;
                if ours.suspended && theirs.role == Role::Primary && yields {
                    // ROLE-5: also in a split brain it is not made deeper.
                    self.yield_role(p);
                }
                self.end_pause();
                self.hold_until = None;
                self.stand_alone(p, text);
            }
        }
    }

    fn facts(&self, p: usize) -> Facts {
        let peer = &self.peers[p];
        let volumes = self.volumes.iter().enumerate().map(|(v, volume)| {
            let sb =
                volume.meta.as_ref().filter(|_| volume.usable()).map(bitmap::Metadata::superblock);
            let slot = self.slot(p, v).filter(|_| volume.usable());
            let bits =
                slot.zip(volume.meta.as_ref()).map_or(0, |(slot, meta)| meta.bits(slot).count());
            VolumeFacts {
                number: volume.number,
                disk: if volume.usable() { volume.state } else { DiskState::Diskless },
                size: volume.geometry().filter(|_| volume.usable()).map_or(0, |g| g.size),
                current: sb.map_or(volume.exposed, |sb| sb.current),
                bitmap: sb
                    .zip(slot)
                    .map_or(peer.volumes[v].left_at, |(sb, slot)| sb.slots[slot].bitmap_uuid),
                history: sb.map(bitmap::Superblock::past).unwrap_or_default(),
                bits,
                crashed_primary: sb.is_some_and(|sb| sb.flags.crashed_primary),
                peer_incarnation: peer.volumes[v].last_incarnation,
            }
        });
        Facts {
            node: self.config.node,
            incarnation: self.incarnation,
            protocol: self.config.protocol,
            role: self.role,
            suspended: matches!(self.suspended(), Some("paused" | "fencing" | "lease")),
            discard_my_data: peer.discard_my_data,
            volumes: volumes.collect(),
        }
    }

    /// The operator's program has decided, if this is its end.
    pub(super) fn resync_allowed(&mut self, id: HandlerId, result: &Result<i32, String>) {
        for p in 0..self.peers.len() {
            let Some(running) = self.running(p).filter(|r| r.permission == Permission::Asked(id))
            else {
                continue;
            };
            match result {
                Ok(0) => running.permission = Permission::Given,
                Ok(_) | Err(_) => {
                    let text = match result {
                        Ok(code) => format!("failed with exit code {code}"),
                        Err(why) => why.clone(),
                    };
                    let text = format!(
                        "before-resync-target {text}: the resync is not begun. Mend it, then `polluxadm connect`"
                    );
                    self.notice(Level::Error, text.clone());
                    self.stand_alone(p, text);
                }
            }
        }
    }

    /// Has this node said a verdict? The peer may act on it already.
    pub(super) fn has_agreed(&mut self, p: usize) -> bool {
        self.running(p).is_some_and(|running| running.permission == Permission::Used)
    }

    /// The verdict is carried out.
    fn go(&mut self, p: usize, verdicts: &[VolumeVerdict], ours: &Facts, theirs: &Facts) {
        let link = self.peers[p].link.expect("a handshake has a link");
        let peer = &mut self.peers[p];
        peer.state = ConnectionState::Connected;
        peer.handshake = Handshake::None;
        peer.role = theirs.role;
        peer.reason = String::new();
        peer.discard_my_data = false;
        peer.promoting = false;
        // GI-2: of a disk that is not there nothing was found out.
        peer.unsure &= theirs.volumes.iter().any(|volume| volume.disk < DiskState::Inconsistent);
        peer.rx.author_diskless = Set::default();
        self.end_pause();
        let mut tickets = Vec::new();
        for (v, &verdict) in verdicts.iter().enumerate() {
            let (our, their) = (&ours.volumes[v], &theirs.volumes[v]);
            self.peers[p].volumes[v].disk = their.disk;
            self.peers[p].volumes[v].replication = ReplicationState::Established;
            if their.disk < DiskState::Inconsistent {
                self.peers[p].rx.author_diskless.insert(v);
            }
            if verdict != VolumeVerdict::Idle {
                // DUR-3: until the two disks have met, what the peer's former life had acknowledged is known to be here.
                self.peers[p].volumes[v].last_incarnation = self.peers[p].incarnation;
            }
            let ticket = match verdict {
                VolumeVerdict::Idle => {
                    // ROLE-4: a side without a disk knows only what it has last seen; its disk may hold something newer.
                    let seen = |disk: &VolumeFacts, seen: Generation| {
                        let known = [disk.current, disk.bitmap].into_iter();
                        known.chain(disk.history.iter().copied()).any(|g| g == seen && g.is_real())
                    };
                    let known = match our.disk < their.disk {
                        true => seen(their, our.current),
                        false => seen(our, their.current),
                    };
                    if known && their.disk == DiskState::Consistent {
                        self.peers[p].volumes[v].disk = DiskState::UpToDate;
                    }
                    self.volumes[v].lifting = known && our.disk == DiskState::Consistent;
                    None
                }
                VolumeVerdict::NoSync => self.same(p, v),
                VolumeVerdict::Source { full } => {
                    // A target is Inconsistent from now on, whatever it was.
                    self.peers[p].volumes[v].disk = DiskState::Inconsistent;
                    self.peers[p].volumes[v].replication = ReplicationState::WfBitMapS;
                    if theirs.discard_my_data && our.disk == DiskState::Outdated {
                        self.fail_begun(v);
                    }
                    let lifted = self.lift(v);
                    self.all_bits(p, v, full).or(lifted)
                }
                VolumeVerdict::Target { full } => {
                    self.peers[p].volumes[v].disk = DiskState::UpToDate;
                    if ours.discard_my_data {
                        let text = format!(
                            "volume {}: {} blocks written here are given up",
                            our.number, our.bits
                        );
                        self.notice(Level::Warning, text);
                    }
                    self.become_target(p, v, their, full)
                }
            };
            tickets.extend(ticket.map(|ticket| (v, ticket)));
        }
        self.after_all_durable(tickets, Then::HandshakeStable { peer: p, link });
        if self.volumes.iter().enumerate().all(|(v, volume)| {
            volume.good() || self.peers[p].volumes[v].disk == DiskState::UpToDate
        }) {
            self.hold_until = None;
        }
        self.regate = true;
        // Operations that waited for the end of a pause.
        self.work.extend(self.ops.keys().map(super::Work::Op));
    }

    /// Same content: whatever kept track of a difference ends, and who was left behind is not any more.
    fn same(&mut self, p: usize, v: usize) -> Option<bitmap::Ticket> {
        let slot = self.slot(p, v)?;
        let node = self.peers[p].node;
        self.peers[p].volumes[v].disk = DiskState::UpToDate;
        let lifted = self.lift(v);
        let meta = self.volumes[v].meta.as_mut()?;
        let sb = meta.superblock();
        let noted = sb.slots[slot].bitmap_uuid != Generation::NONE || sb.flags.crashed_primary;
        let settled = noted.then(|| {
            meta.edit(|sb| {
                sb.peer_in_sync(node);
                sb.flags.crashed_primary = false;
            })
        });
        settled.or(lifted)
    }

    /// Outdated no more, as soon as that is stable; or surely not Outdated.
    fn lift(&mut self, v: usize) -> Option<bitmap::Ticket> {
        let volume = &mut self.volumes[v];
        volume.lifting = matches!(volume.state, DiskState::Outdated | DiskState::Consistent);
        let meta = volume.meta.as_mut().filter(|_| volume.lifting)?;
        Some(meta.edit(|sb| sb.flags.was_up_to_date = true))
    }

    fn all_bits(&mut self, p: usize, v: usize, full: bool) -> Option<bitmap::Ticket> {
        let slot = self.slot(p, v)?;
        let meta = self.volumes[v].meta.as_mut()?;
        full.then(|| meta.fill_bits(slot))
    }

    /// RES-1: nothing is applied, neither copied nor replicated, before Inconsistent is stable.
    fn become_target(
        &mut self,
        p: usize,
        v: usize,
        their: &VolumeFacts,
        full: bool,
    ) -> Option<bitmap::Ticket> {
        let slot = self.slot(p, v)?;
        let volume = &mut self.volumes[v];
        volume.state = DiskState::Inconsistent;
        volume.forced = false;
        let meta = volume.meta.as_mut()?;
        let blocks = meta.geometry().blocks();
        if full {
            meta.fill_bits(slot);
        }
        let ticket = meta.edit(|sb| {
            sb.flags.consistent = false;
            sb.flags.was_up_to_date = false;
            // RES-4: from here on what this disk lacks is what the source marked since that generation; if the end of this
            // resync is missed, it is still known by it.
            let basis = if their.bitmap.is_real() { their.bitmap } else { their.current };
            if sb.current != basis {
                sb.adopt(basis, &[]);
            }
        });
        let peer = &mut self.peers[p];
        peer.rx.hold = true;
        peer.volumes[v].replication = ReplicationState::WfBitMapT;
        peer.volumes[v].target = Some(Target::new(blocks));
        Some(ticket)
    }

    /// What the verdict demands of us is stable: now it is told, and copying may begin.
    pub(super) fn handshake_stable(&mut self, p: usize, link: LinkId, ok: bool) {
        for volume in &mut self.volumes {
            if core::mem::take(&mut volume.lifting) && ok && volume.usable() {
                volume.state = DiskState::UpToDate;
                self.regate = true;
            }
        }
        // Even if the link is gone: what was received over it is applied now (a lost disk drops it).
        self.peers[p].rx.hold = false;
        if !ok || self.peers[p].link != Some(link) {
            return self.pump_rx(p);
        }
        let currents = self
            .volumes
            .iter()
            .map(|v| v.meta.as_ref().map_or(Generation::NONE, |m| m.superblock().current))
            .collect();
        self.send(p, Message::Ready { currents });
        for v in 0..self.volumes.len() {
            if let Some(target) = &mut self.peers[p].volumes[v].target {
                target.stable = true;
            }
            if self.peers[p].volumes[v].replication > ReplicationState::Established {
                self.send_bits(p, v);
            }
        }
        self.pump_rx(p);
    }

    pub(super) fn their_ready(
        &mut self,
        p: usize,
        currents: &[Generation],
    ) -> Result<(), &'static str> {
        if currents.len() != self.volumes.len() {
            return Err("generations of other volumes");
        }
        self.peers[p].ready = true;
        self.fence_ready(p);
        let theirs = self.peers[p].volumes.iter_mut();
        for ((volume, &current), their) in self.volumes.iter_mut().zip(currents).zip(theirs) {
            // ROLE-4: a disk that may be old proves nothing of itself, also not when it meets us again.
            let good = their.disk == DiskState::UpToDate;
            if !volume.usable() && good && current != Generation::NONE {
                volume.exposed = current;
                their.left_at = Generation::NONE;
            }
        }
        self.regate = true;
        Ok(())
    }

    /// ROLE-5: the peer took over while we slept.
    pub(super) fn yield_role(&mut self, p: usize) {
        self.notice(
            Level::Error,
            "the peer became Primary while this node was away: pending requests fail".into(),
        );
        self.run_handler(Occasion::PriLost, Some(p), None);
        self.role = Role::Secondary;
        self.paused = false;
        self.hold_until = None;
        self.forget_fences();
        self.lease = Lease::None;
        self.abort_change("the peer became Primary");
        self.fail_requests(RequestError::NotPrimary);
        self.out.push(Action::CloseExports("the peer became Primary".into()));
        for volume in &mut self.volumes {
            volume.unmark();
        }
    }

    /// What happened, what both sides hold, what to type.
    fn refusal_text(
        &self,
        p: usize,
        reason: &RefuseReason,
        ours: &Facts,
        theirs: &Facts,
    ) -> String {
        let node = self.peers[p].node.0;
        let sides = |f: &Facts| {
            let volumes = f.volumes.iter().map(|v| {
                format!(
                    "volume {} {:?} generation {} ({} blocks changed)",
                    v.number, v.disk, v.current, v.bits
                )
            });
            volumes.collect::<alloc::vec::Vec<_>>().join(", ")
        };
        let sides = format!("here: {}; node {node}: {}", sides(ours), sides(theirs));
        match reason {
            RefuseReason::SplitBrain => format!(
                "split brain with node {node}: both sides hold writes the other lacks. {sides}. On the side whose changes are to be thrown away: `polluxadm secondary`, then `polluxadm connect --discard-my-data`; on the other: `polluxadm connect`"
            ),
            RefuseReason::Stale => format!(
                "only older data is good: {sides}. To go on with the older data: `polluxadm connect --discard-my-data` where the newer is; to keep the newer as it is: `polluxadm primary --force` there"
            ),
            RefuseReason::Unrelated => format!(
                "unrelated data on node {node}: the two disks never held the same. {sides}. On the side that is to be overwritten: `polluxadm create-md --force`, then `polluxadm up`; on the other: `polluxadm connect`"
            ),
            RefuseReason::TwoPrimaries => format!(
                "both this node and node {node} are Primary. {sides}. On one of them: `polluxadm secondary`, then on both `polluxadm connect`"
            ),
            RefuseReason::Incompatible(why) => {
                format!("configuration differs from node {node}: {why}")
            }
        }
    }
}

//! Two nodes meet: facts both ways, the same verdict on both ends, then what the verdict demands is made stable before anything
//! is copied. While it runs a Primary holds new writes and flushes, so that no fact changes under the verdict (GI-6).

use super::resync::Target;
use super::types::{
    ConnectionState, DiskState, Level, LinkId, ReplicationState, RequestError, Role, Time,
};
use super::verdict::{mirror, verdict};
use super::waits::Then;
use super::{Action, Node};
use crate::wire::{Agreed, Facts, Message, RefuseReason, VolumeFacts, VolumeVerdict};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
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
}

impl Handshake {
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::None => None,
            Self::Running(running) => Some(running.deadline),
        }
    }
}

impl Node {
    /// Does a handshake run with any peer?
    pub(super) fn handshaking(&self) -> bool {
        self.peers.iter().any(|p| p.state == ConnectionState::Handshaking)
    }

    pub(super) fn begin_handshake(&mut self, p: usize) {
        self.peers[p].handshake = Handshake::Running(Box::new(Running {
            deadline: self.now.plus_ms(self.config.timing.handshake),
            ours: None,
            theirs: None,
            agreed: None,
            their_agreed: None,
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
                let agreed = verdict(ours, theirs);
                running.agreed = Some(agreed.clone());
                self.send(p, Message::Agreed(agreed));
            }
            self.conclude(p);
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
                self.yield_role();
                self.restart_link(p, "this node stops being Primary");
            }
            Agreed::YouStepDown => {
                self.restart_link(p, "the peer stops being Primary");
            }
            Agreed::Refuse(reason) => {
                let text = self.refusal_text(p, &reason, &ours, &theirs);
                self.notice(Level::Error, text.clone());
                let yields = !theirs.was_paused || theirs.node < ours.node;
                if self.paused && theirs.role == Role::Primary && yields {
                    // ROLE-5: also in a split brain it is not made deeper.
                    self.yield_role();
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
                    .map_or(Generation::NONE, |(sb, slot)| sb.slots[slot].bitmap_uuid),
                history: sb
                    .map(|sb| sb.history.iter().copied().filter(|g| g.is_real()).collect())
                    .unwrap_or_default(),
                bits,
                crashed_primary: sb.is_some_and(|sb| sb.flags.crashed_primary),
            }
        });
        Facts {
            node: self.config.node,
            incarnation: self.incarnation,
            peer_incarnation: peer.last_incarnation,
            protocol: self.config.protocol,
            role: self.role,
            was_paused: self.paused,
            discard_my_data: peer.discard_my_data,
            volumes: volumes.collect(),
        }
    }

    /// The verdict is carried out.
    fn go(&mut self, p: usize, verdicts: &[VolumeVerdict], ours: &Facts, theirs: &Facts) {
        let link = self.peers[p].link.expect("a handshake has a link");
        let peer = &mut self.peers[p];
        peer.state = ConnectionState::Connected;
        peer.handshake = Handshake::None;
        peer.last_incarnation = peer.incarnation;
        peer.role = theirs.role;
        peer.reason = String::new();
        peer.discard_my_data = false;
        peer.promoting = false;
        // GI-2: of a disk that is not there nothing was found out.
        peer.unsure &= theirs.volumes.iter().any(|volume| volume.disk < DiskState::Inconsistent);
        peer.rx.author_diskless = 0;
        self.end_pause();
        let wait = self.waits.open(Then::HandshakeStable { peer: p, link });
        for (v, &verdict) in verdicts.iter().enumerate() {
            let (our, their) = (&ours.volumes[v], &theirs.volumes[v]);
            self.peers[p].volumes[v].disk = their.disk;
            self.peers[p].volumes[v].replication = ReplicationState::Established;
            if their.disk < DiskState::Inconsistent {
                self.peers[p].rx.author_diskless |= 1 << v;
            }
            let ticket = match verdict {
                VolumeVerdict::Idle => None,
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
                    if our.disk > DiskState::Inconsistent && ours.discard_my_data {
                        let text = format!(
                            "volume {}: {} blocks written here are given up",
                            our.number, our.bits
                        );
                        self.notice(Level::Warning, text);
                    }
                    self.become_target(p, v, their, full)
                }
            };
            if let Some(ticket) = ticket {
                self.waits.add(wait);
                self.wait_ticket(v, ticket, wait);
            }
        }
        self.count_down(wait, true);
        if self.volumes.iter().enumerate().all(|(v, volume)| {
            volume.good() || self.peers[p].volumes[v].disk == DiskState::UpToDate
        }) {
            self.hold_until = None;
        }
        self.regate = true;
        // Operations that waited for the end of a pause.
        self.work.extend(self.ops.keys().map(|&id| super::Work::Op(id)));
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

    /// Outdated no more, as soon as that is stable.
    fn lift(&mut self, v: usize) -> Option<bitmap::Ticket> {
        let volume = &mut self.volumes[v];
        volume.lifting = volume.state == DiskState::Outdated;
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
        for (volume, &current) in self.volumes.iter_mut().zip(currents) {
            if !volume.usable() && current != Generation::NONE {
                volume.exposed = current;
            }
        }
        self.regate = true;
        Ok(())
    }

    /// ROLE-5: the peer took over while we slept.
    fn yield_role(&mut self) {
        self.notice(
            Level::Error,
            "the peer became Primary while this node was away: pending requests fail".into(),
        );
        self.role = Role::Secondary;
        self.paused = false;
        self.hold_until = None;
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

//! The operator's commands, and the status the operator sees.

use super::handshake::Handshake;
use super::resync::Target;
use super::types::{
    Action, Command, CommandId, ConnectionState, DiskState, LinkId, RefusalKind, ReplicationState,
    Role, VolumeNumber,
};
use super::waits::Then;
use super::{Node, Op, PeerStatus, PeerVolumeStatus, Resync, Status, VolumeStatus};
use crate::config::Fencing;
use crate::wire::Message;
use alloc::format;
use alloc::vec::Vec;
use bitmap::NodeId;

/// Why a connection that the operator ended is not there.
const LEFT: &str = "disconnected by the operator; `polluxadm connect` connects again";

/// `down` under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoingDown {
    command: CommandId,
}

impl Node {
    pub(super) fn command(&mut self, id: CommandId, command: Command) {
        match command {
            Command::Attach(volume, backing) => self.attach(id, volume, backing),
            Command::Detach(volume) => self.detach(id, volume),
            Command::Connect { discard_my_data } => self.connect(id, discard_my_data),
            Command::Disconnect => {
                if self.peers.is_empty() {
                    return self.out.push(Action::Done(id, Ok(())));
                }
                for p in 0..self.peers.len() {
                    self.disconnect(p, Some(id));
                }
            }
            Command::Primary { force } => self.promote(Some(id), force),
            Command::Secondary { force } => self.demote(Some(id), force),
            Command::Invalidate => self.invalidate(Some(id)),
            Command::InvalidateRemote => self.invalidate_remote(id),
            Command::Outdate => self.outdate_by_hand(id),
            Command::SuspendIo => self.suspend_io(id),
            Command::ResumeIo => self.resume_io(id),
            Command::Lease(until) => self.set_lease(id, until),
            Command::Down => self.go_down(id),
        }
        self.down_step();
    }

    fn connect(&mut self, id: CommandId, discard_my_data: bool) {
        if discard_my_data && self.role == Role::Primary {
            let text = "a Primary's data is not discarded: `polluxadm secondary` first".into();
            return self.refuse(id, RefusalKind::State, text);
        }
        if self.down.is_some() {
            return self.refuse(id, RefusalKind::Busy, "the resource is going down".into());
        }
        for p in 0..self.peers.len() {
            let peer = &mut self.peers[p];
            peer.wanted = true;
            peer.discard_my_data = discard_my_data;
            if peer.state == ConnectionState::StandAlone {
                peer.reason.clear();
            }
            self.want_link(p);
        }
        self.out.push(Action::Done(id, Ok(())));
    }

    /// Leaves the peer. A Secondary that leaves its Primary is Outdated, stably, before it goes; one that a Primary leaves is told
    /// to be.
    fn disconnect(&mut self, p: usize, command: Option<CommandId>) {
        let connected = self.peers[p].connected();
        if connected && self.role == Role::Secondary && self.peers[p].may_be_primary() {
            let link = self.peers[p].link.expect("connected");
            self.peers[p].leaving.extend(command);
            return self.outdate(p, Then::Leave(link));
        }
        let primary = self.role == Role::Primary;
        if connected {
            self.send(p, Message::Bye { outdate: primary, outdated: false });
        }
        if connected && primary && self.config.fencing != Fencing::DontCare {
            // ROLE-4: its answer, or its loss, ends this.
            return self.peers[p].leaving.extend(command);
        }
        self.peers[p].leaving.extend(command);
        self.stand_alone(p, LEFT.into());
    }

    /// ROLE-2: Outdated is on disk, so that it survives a restart. Not if the peer has no good disk to go on with: ours is then
    /// the last.
    fn outdate(&mut self, p: usize, then: Then) {
        let mut tickets = Vec::new();
        for v in 0..self.volumes.len() {
            let (volume, peer) = (&self.volumes[v], &self.peers[p]);
            // Also what is about to be up to date, and a peer that is about to be ready.
            let good = volume.good() || volume.turning_good();
            if good && peer.connected() && peer.volumes[v].disk == DiskState::UpToDate {
                // A resync that has come to its end stays so.
                self.peers[p].volumes[v].target = None;
                tickets.extend(self.set_outdated(v).map(|ticket| (v, ticket)));
            } else if let Some(target) = &mut self.peers[p].volumes[v].target {
                target.renounce();
            }
        }
        self.after_all_durable(tickets, then);
    }

    /// Is any data here known to be no one's newest? Then this node is not promoted before it has met the peer.
    fn is_outdated(&self) -> bool {
        let bad = |v: &super::Volume| v.usable() && v.state <= DiskState::Outdated;
        self.volumes.iter().any(bad)
    }

    /// Outdated is stable: leave.
    pub(super) fn leave(&mut self, link: LinkId) {
        for p in 0..self.peers.len() {
            if self.peers[p].link == Some(link) {
                self.send(p, Message::Bye { outdate: false, outdated: self.is_outdated() });
            }
            if !self.peers[p].leaving.is_empty() || self.down.is_some() {
                self.stand_alone(p, LEFT.into());
            }
        }
        self.down_step();
    }

    /// A Primary that leaves us is told that we are Outdated.
    pub(super) fn obeyed(&mut self, link: LinkId) {
        if let Some(p) = self.peer_of(link) {
            let outdated = self.is_outdated();
            self.send(p, Message::Bye { outdate: false, outdated });
        }
    }

    pub(super) fn left(&mut self, p: usize) {
        for command in core::mem::take(&mut self.peers[p].leaving) {
            self.out.push(Action::Done(command, Ok(())));
        }
    }

    /// The peer leaves on purpose; it closes the link.
    pub(super) fn bye(&mut self, p: usize, outdate: bool, outdated: bool) {
        self.peers[p].outdated |= outdated;
        if outdate && self.role == Role::Secondary {
            let link = self.peers[p].link.expect("it came over one");
            self.outdate(p, Then::Obey(link));
        }
        if !self.peers[p].leaving.is_empty() && self.role == Role::Primary {
            return self.stand_alone(p, LEFT.into());
        }
        if matches!(self.peers[p].handshake, Handshake::None) {
            self.peers[p].reason = "the peer was disconnected by its operator".into();
        }
    }

    fn invalidate(&mut self, command: Option<CommandId>) {
        let why = (0..self.volumes.len()).find_map(|v| {
            let (number, state) = (self.volumes[v].number, self.volumes[v].state);
            if !self.volumes[v].usable() {
                return Some((RefusalKind::NoDisk, format!("volume {number} has no disk here ({state:?})")));
            }
            let good = self.peers.iter().any(|p| p.good(v));
            (!good).then(|| {
                let text = format!("volume {number}: no connected peer has UpToDate data to copy from: `polluxadm connect`, or wait for the resync");
                (RefusalKind::NotConnected, text)
            })
        });
        if let Some((kind, text)) = why {
            if let Some(command) = command {
                self.refuse(command, kind, text);
            }
            return;
        }
        for v in 0..self.volumes.len() {
            for p in 0..self.peers.len() {
                let slot = self.slot(p, v);
                if let (Some(slot), Some(meta)) = (slot, self.volumes[v].meta.as_mut()) {
                    meta.fill_bits(slot);
                    meta.edit(|sb| {
                        sb.flags.consistent = false;
                        sb.flags.was_up_to_date = false;
                    });
                }
            }
            self.volumes[v].state = DiskState::Inconsistent;
        }
        self.out.extend(command.map(|command| Action::Done(command, Ok(()))));
        self.restart_links("this node's data was invalidated");
    }

    fn invalidate_remote(&mut self, id: CommandId) {
        let good = self.volumes.iter().all(super::Volume::good);
        if !good {
            let text = "this node's own data is not UpToDate: nothing to copy from".into();
            return self.refuse(id, RefusalKind::NoUpToDateData, text);
        }
        let Some(p) = self.peers.iter().position(|p| p.connected() && p.role != Role::Primary)
        else {
            let text = "no connected Secondary to invalidate: `polluxadm connect`".into();
            return self.refuse(id, RefusalKind::NotConnected, text);
        };
        self.send(p, Message::Invalidate);
        self.out.push(Action::Done(id, Ok(())));
    }

    pub(super) fn invalidated_by_peer(&mut self, p: usize) {
        if self.role == Role::Secondary && self.peers[p].connected() {
            self.invalidate(None);
        }
    }

    fn go_down(&mut self, id: CommandId) {
        if !self.opens.is_empty() {
            let text =
                format!("{} clients have the device open: disconnect them first", self.opens.len());
            return self.refuse(id, RefusalKind::InUse, text);
        }
        if self.down.is_some() || self.change.is_some() {
            let text = "another change is under way; try again".into();
            return self.refuse(id, RefusalKind::Busy, text);
        }
        self.demote(None, false);
        self.down = Some(GoingDown { command: id });
    }

    /// `down`: Secondary, then disconnected, then detached.
    pub(super) fn down_step(&mut self) {
        let Some(GoingDown { command }) = self.down else {
            return;
        };
        if self.role == Role::Primary {
            return;
        }
        for p in 0..self.peers.len() {
            if self.peers[p].state != ConnectionState::StandAlone {
                if self.peers[p].leaving_down {
                    return;
                }
                self.peers[p].leaving_down = true;
                self.disconnect(p, None);
            }
        }
        if self.peers.iter().any(|p| p.state != ConnectionState::StandAlone) {
            return;
        }
        for v in 0..self.volumes.len() {
            if self.volumes[v].usable() {
                self.release_disk(v);
            }
        }
        if self.volumes.iter().all(|v| v.state == DiskState::Diskless) {
            self.down = None;
            for peer in &mut self.peers {
                peer.leaving_down = false;
            }
            self.out.push(Action::Done(command, Ok(())));
        }
    }

    /// A snapshot.
    pub fn status(&self) -> Status {
        Status {
            node: self.config.node,
            role: self.role,
            suspended: self.held(),
            open: self.opens.len(),
            requests: self.unanswered,
            operations: self.ops.len(),
            volumes: self.volumes.iter().map(|v| self.volume_status(v)).collect(),
            peers: (0..self.peers.len()).map(|p| self.peer_status(p)).collect(),
        }
    }

    /// For each peer, each volume: are both copies good, and known to be equal?
    pub fn in_sync(&self) -> impl Iterator<Item = (NodeId, VolumeNumber, bool)> {
        let each = |p| (0..self.volumes.len()).map(move |v| (p, v));
        (0..self.peers.len()).flat_map(each).map(|(p, v)| {
            let (peer, volume) = (&self.peers[p], &self.volumes[v]);
            let good = DiskState::UpToDate;
            let is_good = peer.connected()
                && peer.volumes[v].replication == ReplicationState::Established
                && volume.state == good
                && peer.volumes[v].disk == good;
            let bits = |(slot, meta): (usize, &bitmap::Metadata)| meta.bits(slot).count();
            let is_equal = is_good
                && self.slot(p, v).zip(volume.meta.as_ref()).is_some_and(|it| bits(it) == 0);
            (peer.node, volume.number, is_equal)
        })
    }

    fn volume_status(&self, volume: &super::Volume) -> VolumeStatus {
        let sb = volume.meta.as_ref().map(bitmap::Metadata::superblock);
        VolumeStatus {
            number: volume.number,
            disk: volume.state,
            size: volume.size,
            current: sb.map_or(volume.exposed, |sb| sb.current),
            history: sb.map(bitmap::Superblock::past).unwrap_or_default(),
            al_extents: sb.map_or(0, |sb| sb.al_slots),
            active_extents: volume.active_extents(),
            al_writes: volume.al_writes,
            bm_writes: volume.bm_writes,
            crashed_primary: sb.is_some_and(|sb| sb.flags.crashed_primary),
            followed: volume.sure(),
        }
    }

    fn peer_status(&self, p: usize) -> PeerStatus {
        let peer = &self.peers[p];
        let mut volumes: Vec<_> = (0..self.volumes.len())
            .map(|v| {
                let meta = self.volumes[v].meta.as_ref();
                let slot = self.slot(p, v).zip(meta);
                let block = meta.map_or(0, |m| u64::from(m.geometry().block_size));
                PeerVolumeStatus {
                    number: self.volumes[v].number,
                    replication: peer.volumes[v].replication,
                    disk: if peer.connected() { peer.volumes[v].disk } else { DiskState::DUnknown },
                    bitmap: slot.map_or(bitmap::Generation::NONE, |(slot, m)| {
                        m.superblock().slots[slot].bitmap_uuid
                    }),
                    out_of_sync: slot.map_or(0, |(slot, m)| m.bits(slot).count() * block),
                    resync: Resync {
                        milliseconds: self.resync_time(p, v),
                        ..peer.volumes[v].progress
                    },
                    sent: peer.sent_bytes,
                    received: peer.received_bytes,
                    pending: 0,
                    unacked: 0,
                }
            })
            .collect();
        let mut resync_in_flight = 0;
        for (status, volume) in volumes.iter_mut().zip(&peer.volumes) {
            if let Some((pieces, bytes)) = volume.target.as_ref().map(Target::in_flight) {
                status.pending = pieces;
                resync_in_flight += bytes;
            }
        }
        for op in self.ops.values() {
            match op {
                Op::Client(op) => {
                    let waits = op.unfinished().contains(p);
                    volumes[op.volume].pending += u64::from(waits);
                }
                Op::Peer(op) => {
                    volumes[op.volume].unacked += u64::from(op.is_asked_by(p));
                    resync_in_flight += op.resync_bytes(p);
                }
            }
        }
        PeerStatus {
            node: peer.node,
            connection: peer.state,
            role: peer.role,
            reason: self.fence_failure(p).unwrap_or_else(|| peer.reason.clone()),
            in_flight: peer.in_flight,
            congested: peer.congested(&self.config.limits),
            resync_in_flight,
            volumes,
        }
    }
}

//! Our own disks: attach, detach, failure. A disk is let go only when every operation on it has come back.

use super::request::Stage;
use super::types::{
    Action, Backing, CommandId, DiskDone, DiskError, DiskOp, DiskState, Level, Occasion, Refusal,
    RefusalKind, Role, VolumeNumber,
};
use super::volume::Attaching;
use super::waits::Then;
use super::{Node, Op, Purpose};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::{Generation, OpenStep, Opened, Opening, Placement, Ticket};

impl Node {
    pub(super) fn attach(&mut self, command: CommandId, number: VolumeNumber, backing: Backing) {
        let Some(v) = self.volume_index(number) else {
            return self.refuse(
                command,
                RefusalKind::State,
                format!("there is no volume {number}"),
            );
        };
        let volume = &mut self.volumes[v];
        if volume.state != DiskState::Diskless {
            let text = format!(
                "volume {number} has a disk already ({:?}); `polluxadm detach` first",
                volume.state
            );
            return self.refuse(command, RefusalKind::State, text);
        }
        volume.state = DiskState::Attaching;
        let holds_metadata = match volume.placement {
            Placement::Internal => backing.data_size,
            Placement::External => backing.meta_size.unwrap_or(0),
        };
        let opening = Opening::new(volume.placement, holds_metadata);
        volume.opening = Some(Box::new(Attaching { opening, metadata: None, backing, command }));
        self.opening_step(v, Vec::new());
    }

    pub(super) fn opening_read(&mut self, v: usize, result: Result<DiskDone, DiskError>) {
        match result {
            Ok(DiskDone::Meta(results)) => self.opening_step(v, results),
            Ok(DiskDone::Ok | DiskDone::Zero | DiskDone::Digests(_)) | Err(DiskError) => {
                self.attach_failed(v, "the metadata cannot be read".into());
            }
        }
    }

    fn opening_step(&mut self, v: usize, results: Vec<Result<Vec<u8>, ()>>) {
        let attaching = self.volumes[v].opening.as_mut().expect("an attach is under way");
        match attaching.opening.step(results) {
            OpenStep::Read(ranges) => self.disk(v, DiskOp::ReadMeta(ranges), Purpose::Opening),
            OpenStep::Refused(error) => self.attach_failed(v, format!("{error}")),
            OpenStep::Done(opened) => match self.misfit(v, &opened) {
                Some(why) => self.attach_failed(v, why),
                None => self.take_disk(v, *opened),
            },
        }
    }

    fn misfit(&self, v: usize, opened: &Opened) -> Option<String> {
        let sb = opened.metadata.superblock();
        let backing = self.volumes[v].opening.as_ref().expect("an attach is under way").backing;
        if sb.node_id != self.config.node {
            return Some(format!(
                "the metadata belongs to node-id {}, this node is {}: correct `node-id`, or `polluxadm create-md`",
                sb.node_id.0, self.config.node.0
            ));
        }
        if let Some(peer) = self.config.peers.iter().find(|&&peer| sb.slot_of(peer).is_none()) {
            return Some(format!(
                "the metadata has no bitmap for node-id {}: `polluxadm create-md` with the present configuration",
                peer.0
            ));
        }
        let (size, room) = (sb.geometry.size, sb.data_size);
        if backing.data_size < size {
            return Some(format!(
                "the disk has {} bytes, the metadata says {size}: a smaller disk is not attached",
                backing.data_size
            ));
        }
        let wanted = self.config.volumes[v].size;
        // Volumes are made of whole blocks.
        (wanted / 4096 * 4096 > size).then(|| {
            let next = if wanted <= room {
                "`polluxadm create-md` makes it anew (a full resync follows)".into()
            } else {
                format!("write `size {}s;`, then `polluxadm down` and `polluxadm up`", size / 512)
            };
            format!("`size` says {wanted} bytes, the metadata has {size} of the {room} there are for data: {next}")
        })
    }

    fn attach_failed(&mut self, v: usize, why: String) {
        let volume = &mut self.volumes[v];
        let attaching = volume.opening.take().expect("an attach is under way");
        volume.state = DiskState::Diskless;
        let number = volume.number;
        self.out.push(Action::CloseDisk(number));
        self.refuse(attaching.command, RefusalKind::Metadata, format!("volume {number}: {why}"));
    }

    fn take_disk(&mut self, v: usize, opened: Opened) {
        let Opened { mut metadata, repaired, recovered_extents, log_lost, bad_units } = opened;
        let volume = &mut self.volumes[v];
        let sb = metadata.superblock();
        let failed = volume.failed == Some(sb.device_uuid);
        // Its own mark, of this very run, is no crash.
        let crashed = sb.flags.primary_ind && self.role == Role::Secondary;
        let ticket = (crashed || repaired || log_lost || failed).then(|| {
            metadata.edit(|sb| {
                sb.flags.consistent &= !failed;
                sb.flags.was_up_to_date &= !failed;
                sb.flags.crashed_primary |= crashed;
                sb.flags.primary_ind &= !crashed;
            })
        });
        volume.opening.as_mut().expect("an attach is under way").metadata = Some(metadata);
        let number = volume.number;
        if crashed || log_lost || bad_units > 0 || repaired {
            self.notice(
                Level::Warning,
                format!(
                    "volume {number}: recovered after a crash: {} active extents{}{}{}",
                    recovered_extents.len(),
                    if crashed { ", was Primary" } else { "" },
                    if log_lost {
                        ", activity log damaged: every block counts as changed"
                    } else {
                        ""
                    },
                    if repaired { ", a damaged superblock copy is repaired" } else { "" },
                ),
            );
        }
        self.admit(v, ticket);
    }

    /// Takes the disk into use when its superblock says, stably, what it is: the role may change while that is written.
    fn admit(&mut self, v: usize, mut unwritten: Option<Ticket>) {
        let primary = self.role == Role::Primary;
        let volume = &mut self.volumes[v];
        let (number, mut attaching) = (volume.number, volume.opening.take().expect("under way"));
        let mut metadata = attaching.metadata.take().expect("it was read");
        // ROLE-4: a Primary served without this disk, or what was last seen of the volume is not on it: whatever the disk says of
        // itself, others went on.
        let behind = primary || !metadata.superblock().descends_from(volume.exposed);
        let flags = &metadata.superblock().flags;
        if flags.primary_ind != primary || (behind && flags.was_up_to_date) {
            unwritten = Some(metadata.edit(|sb| {
                sb.flags.primary_ind = primary;
                sb.flags.was_up_to_date &= !behind;
            }));
        }
        if let Some(ticket) = unwritten {
            let then = Then::Attached { command: attaching.command, volume: number };
            attaching.metadata = Some(metadata);
            volume.opening = Some(attaching);
            return self.after_durable(v, ticket, then);
        }
        let flags = &metadata.superblock().flags;
        let state = if !flags.consistent {
            DiskState::Inconsistent
        } else if !flags.was_up_to_date {
            DiskState::Outdated
        } else if !self.surely_good(&metadata) {
            // Until we have met the peer, or it is out of the way (ROLE-4).
            DiskState::Consistent
        } else {
            DiskState::UpToDate
        };
        self.volumes[v].begin(metadata, state);
        self.notice(Level::Info, format!("volume {number}: disk {state:?}"));
        self.out.push(Action::Done(attaching.command, Ok(())));
        self.restart_links("a disk was attached here");
        self.regate = true;
    }

    /// What was to be written to the superblock first is stable.
    pub(super) fn attached(&mut self, command: CommandId, number: VolumeNumber, ok: bool) {
        let v = self.volume_index(number).expect("volumes stay");
        if !ok {
            let text = format!("volume {number}: the metadata cannot be written");
            return self.refuse(command, RefusalKind::Metadata, text);
        }
        self.admit(v, None);
    }

    pub(super) fn detach(&mut self, command: CommandId, number: VolumeNumber) {
        let Some(v) = self.volume_index(number) else {
            return self.refuse(
                command,
                RefusalKind::State,
                format!("there is no volume {number}"),
            );
        };
        match self.volumes[v].state {
            DiskState::Diskless => self.out.push(Action::Done(command, Ok(()))),
            DiskState::Attaching => {
                let text = format!("volume {number} is being attached; try again");
                self.refuse(command, RefusalKind::Busy, text);
            }
            _ => {
                self.volumes[v].detaching.push(command);
                self.regate = true;
            }
        }
    }

    /// Operators want this disk away: writes and flushes are held until it is.
    pub(super) fn wanted_away(&self, v: usize) -> bool {
        self.volumes[v].usable() && !self.volumes[v].detaching.is_empty()
    }

    /// A Primary gives its disk up in order: what clients were told is stable at the peer first (under A it may not even have
    /// been there), for from then on that is the only copy.
    pub(super) fn detach_in_order(&mut self) {
        for v in 0..self.volumes.len() {
            if !self.wanted_away(v) {
                continue;
            }
            if self.role == Role::Primary {
                if self.handshaking() {
                    continue;
                }
                if !self.peers.iter().any(|p| p.good(v)) {
                    self.refuse_detach(v);
                    continue;
                }
                let under_way = |op: &Op| match op {
                    Op::Client(op) => op.volume == v && op.stage == Stage::Running && !op.is_read(),
                    Op::Peer(_) => false,
                };
                let drained = !self.ops.values().any(under_way);
                if !drained || self.peers.iter().any(|p| p.connected() && !p.all_stable()) {
                    self.flush_everywhere();
                    continue;
                }
            }
            self.let_go(v, DiskState::Detaching, "the disk was detached");
        }
    }

    fn refuse_detach(&mut self, v: usize) {
        let number = self.volumes[v].number;
        for command in core::mem::take(&mut self.volumes[v].detaching) {
            let text = format!(
                "volume {number}: this node is Primary and no peer has UpToDate data: `polluxadm secondary` or wait for the resync, then `polluxadm detach`"
            );
            self.refuse(command, RefusalKind::NoUpToDateData, text);
        }
        self.regate = true;
    }

    /// A write, a flush or a metadata operation failed: the disk is dead for good (IO-4); the peer goes on.
    pub(super) fn disk_failed(&mut self, v: usize, why: &str) {
        if !self.volumes[v].usable() && self.volumes[v].state != DiskState::Attaching {
            return;
        }
        let number = self.volumes[v].number;
        self.notice(
            Level::Error,
            format!(
                "volume {number}: {why}: the disk is given up. Replace it, then `polluxadm attach`"
            ),
        );
        let volume = &mut self.volumes[v];
        if let Some(meta) = &mut volume.meta {
            // It lost writes, nobody knows which: if it can still be told so, it will not be taken for good when it comes back; and
            // while this process lives, if it cannot, neither.
            volume.failed = Some(meta.superblock().device_uuid);
            meta.edit(|sb| {
                sb.flags.consistent = false;
                sb.flags.was_up_to_date = false;
            });
        }
        self.let_go(v, DiskState::Failed, why);
    }

    /// A read failed. No write was lost, so the disk stays what it is: it is let go where a peer can serve in its place
    /// (`on-io-error detach`), and kept where it is the last good copy; the one request fails then.
    pub(super) fn read_failed(&mut self, v: usize) {
        let number = self.volumes[v].number;
        if self.volumes[v].usable() && self.peers.iter().any(|p| p.good(v)) {
            let text = format!(
                "volume {number}: a read failed: the disk is let go, the peer serves. Replace it, then `polluxadm attach`"
            );
            self.notice(Level::Error, text);
            self.let_go(v, DiskState::Failed, "a read failed");
        } else {
            self.run_handler(Occasion::LocalIoError, None, Some(v));
            let text =
                format!("volume {number}: a read failed, and no other good copy is within reach");
            self.notice(Level::Error, text);
        }
    }

    /// As for `down`: nobody uses it any more.
    pub(super) fn release_disk(&mut self, v: usize) {
        self.let_go(v, DiskState::Detaching, "the disk was detached");
    }

    fn let_go(&mut self, v: usize, state: DiskState, why: &str) {
        let others_go_on = self.peers.iter().any(|p| p.connected() && p.good(v))
            && (self.role == Role::Primary || self.peers.iter().any(super::Peer::may_be_primary));
        let volume = &mut self.volumes[v];
        if !volume.usable() && volume.state != DiskState::Attaching {
            return;
        }
        if let Some(meta) = volume.meta.as_mut().filter(|_| others_go_on) {
            // ROLE-2: what others write from now on is not here; it must not be promoted when it comes back.
            meta.edit(|sb| sb.flags.was_up_to_date = false);
        }
        if let Some(sb) = volume.meta.as_ref().map(bitmap::Metadata::superblock) {
            for peer in &mut self.peers {
                let slot = sb.slot_of(peer.node).map(|slot| &sb.slots[slot]);
                peer.volumes[v].left_at = slot.map_or(Generation::NONE, |slot| slot.bitmap_uuid);
            }
        }
        volume.state = state;
        volume.opening = None;
        volume.farewell = volume.meta.take();
        volume.generation_ticket = None;
        if state == DiskState::Failed {
            // It is told who has good data: not this disk any more, and the peer, while there is a link to it.
            self.run_handler(Occasion::LocalIoError, None, Some(v));
        }
        self.abandon_waiters(v);
        self.local_lost(v);
        // A disk less is a fact that matters to the verdict. The loss of the link comes before anything is counted again:
        // nothing is acknowledged by the peer alone before it holds a new generation.
        self.restart_links(why);
        self.regate = true;
    }

    /// Disks whose last operation came back are let go. Was any?
    pub(super) fn detach_step(&mut self) -> bool {
        let mut any = false;
        for v in 0..self.volumes.len() {
            let volume = &mut self.volumes[v];
            if !matches!(volume.state, DiskState::Failed | DiskState::Detaching)
                || volume.outstanding > 0
            {
                continue;
            }
            if volume.farewell.as_ref().is_some_and(bitmap::Metadata::needs_commit) {
                // `kick_commit` is about to write it.
                continue;
            }
            volume.farewell = None;
            volume.state = DiskState::Diskless;
            any = true;
            let (number, commands) = (volume.number, core::mem::take(&mut volume.detaching));
            self.out.push(Action::CloseDisk(number));
            for command in commands {
                self.out.push(Action::Done(command, Ok(())));
            }
        }
        any
    }

    pub(super) fn refuse(&mut self, command: CommandId, kind: RefusalKind, text: String) {
        self.out.push(Action::Done(command, Err(Refusal { kind, text })));
    }
}

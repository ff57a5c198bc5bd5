//! Primary and Secondary: promotion, demotion, and the clients that have the export open.

use super::Node;
use super::fencing::Fence;
use super::lease::Lease;
use super::types::{
    Action, CommandId, DiskState, Level, LinkId, OpenId, Refusal, RefusalKind, RequestError, Role,
};
use super::waits::Then;
use crate::wire::Message;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::Ticket;

/// Why links are made anew after `primary --force`.
const FORCED: &str = "this node's data was declared good by force";

/// A change of role under way.
#[derive(Clone, Debug)]
pub(super) struct RoleChange {
    /// Who asked: operators, or nobody (auto-promote, down).
    commands: Vec<CommandId>,
    force: bool,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// May we? Looked at again whenever the connection changes.
    Check,
    /// The handler is asked whether the lost peer is out of the way.
    Fence(usize),
    /// The peer on this link was asked.
    Asked(LinkId),
    /// What was received is applied first; `None`: no peer is connected.
    Drain(Option<LinkId>),
    /// With force: the claim that our data is good is being written.
    Claim(Option<LinkId>, Vec<(usize, Ticket)>),
    /// Demotion: every accepted request is answered, everything is flushed, the log runs empty.
    Quiesce,
    /// The mark of a Primary is being removed.
    Unmark(Vec<(usize, Ticket)>),
}

impl Node {
    pub(super) fn demoting(&self) -> bool {
        self.change.as_ref().is_some_and(|c| matches!(c.stage, Stage::Quiesce | Stage::Unmark(_)))
    }

    pub(super) fn promote(&mut self, command: Option<CommandId>, force: bool) {
        // What an operator orders, only an operator ends.
        self.auto_promoted &= command.is_none();
        let demoting = self.demoting() || self.down.is_some();
        match &mut self.change {
            Some(change) if !demoting && (change.force || !force) => {
                return change.commands.extend(command);
            }
            None if self.down.is_none() => {}
            Some(_) | None => return self.end_change(command, Err(busy())),
        }
        // A Primary whose good data is gone may be told to go on with what it has.
        let served = (0..self.volumes.len())
            .all(|v| self.volumes[v].good() || self.peers.iter().any(|p| p.good(v)));
        if self.role == Role::Primary && (served || !force) {
            return self.end_change(command, Ok(()));
        }
        let commands = command.into_iter().collect();
        self.change = Some(RoleChange { commands, force, stage: Stage::Check });
    }

    pub(super) fn demote(&mut self, command: Option<CommandId>, force: bool) {
        let demoting = self.demoting();
        match &mut self.change {
            Some(change) if demoting => return change.commands.extend(command),
            Some(_) => return self.end_change(command, Err(busy())),
            None => {}
        }
        if self.role != Role::Primary {
            return self.end_change(command, Ok(()));
        }
        if !self.opens.is_empty() {
            if !force {
                let text = format!(
                    "{} clients have the device open: disconnect them, or `polluxadm secondary --force` (their requests fail)",
                    self.opens.len()
                );
                return self.end_change(command, Err(Refusal { kind: RefusalKind::InUse, text }));
            }
            self.out.push(Action::CloseExports("this node becomes Secondary".into()));
            self.fail_requests(RequestError::NotPrimary);
        }
        let commands = command.into_iter().collect();
        self.change = Some(RoleChange { commands, force, stage: Stage::Quiesce });
    }

    fn end_change(
        &mut self,
        commands: impl IntoIterator<Item = CommandId>,
        result: Result<(), Refusal>,
    ) {
        if let Err(refusal) = &result {
            if self.role == Role::Secondary {
                self.forget_fences();
            }
            self.auto_promoted = false;
            for open in core::mem::take(&mut self.opening) {
                self.opens.remove(&open);
                self.out.push(Action::Opened(open, Err(refusal.clone())));
            }
        }
        let done = |command| Action::Done(command, result.clone());
        self.out.extend(commands.into_iter().map(done));
    }

    /// The change under way cannot go on.
    pub(super) fn abort_change(&mut self, why: &str) {
        if let Some(change) = self.change.take() {
            let refusal = Refusal { kind: RefusalKind::State, text: why.into() };
            self.end_change(change.commands, Err(refusal));
        }
    }

    fn refuse_change(&mut self, kind: RefusalKind, text: String) {
        let commands = self.change.take().map(|change| change.commands);
        self.end_change(commands.into_iter().flatten(), Err(Refusal { kind, text }));
        self.tell_role();
    }

    fn tell_role(&mut self) {
        for p in 0..self.peers.len() {
            if self.peers[p].connected() {
                self.send(p, Message::RoleIs { role: self.role });
            }
        }
    }

    /// Takes the steps that are due. Facts stand still while a handshake runs, and the role is one of them (GI-6).
    pub(super) fn role_step(&mut self) {
        while !self.handshaking() {
            let Some(change) = self.change.clone() else {
                return;
            };
            let link = self.peers.iter().find(|p| p.connected()).and_then(|p| p.link);
            let next = match change.stage {
                Stage::Check => match self.may_promote(change.force) {
                    Err((kind, text)) => return self.refuse_change(kind, text),
                    Ok(()) => match link {
                        None if let Some(p) = self.to_be_fenced(change.force) => {
                            self.fence(p);
                            Stage::Fence(p)
                        }
                        Some(link) => {
                            let p = self.peer_of(link).expect("just found");
                            self.send(p, Message::PromoteRequest);
                            // It may have been shot a moment ago.
                            self.probe(p);
                            Stage::Asked(link)
                        }
                        None => Stage::Drain(None),
                    },
                },
                Stage::Fence(_) if link.is_some() => Stage::Check,
                Stage::Fence(p) => match &self.peers[p].fence {
                    Fence::Due | Fence::Running | Fence::Answered(_) => return,
                    Fence::Failed { why, .. } => {
                        let text = format!(
                            "node {} may be Primary: fence-peer {why}. Connect it, or, if it is surely down, `polluxadm primary --force`",
                            self.peers[p].node.0
                        );
                        return self.refuse_change(RefusalKind::PeerNotOutdated, text);
                    }
                    Fence::Unknown | Fence::Fenced => Stage::Check,
                },
                // Another link, or none: everything is asked again.
                Stage::Asked(asked) if Some(asked) != link => Stage::Check,
                Stage::Asked(_) => return,
                Stage::Drain(with) if with != link => Stage::Check,
                Stage::Drain(with) => {
                    // ORD-2: everything received is applied before the first own request. RES-1: and what the handshake
                    // found is stable, before a claim by force says otherwise.
                    if !self.peers.iter().all(|p| p.rx.idle() && (p.ready || !p.connected())) {
                        return;
                    }
                    Stage::Claim(with, self.claim(change.force))
                }
                // The operator's claim is on disk already: a new handshake judges it, after this node is Primary.
                Stage::Claim(with, _)
                    if with != link && self.volumes.iter().any(|volume| volume.forced) =>
                {
                    self.restart_links(FORCED);
                    let link = self.peers.iter().find(|p| p.connected()).and_then(|p| p.link);
                    let Stage::Claim(_, tickets) = change.stage else {
                        unreachable!("just matched")
                    };
                    Stage::Claim(link, tickets)
                }
                Stage::Claim(with, _) if with != link => Stage::Check,
                Stage::Claim(with, ref tickets) => {
                    if !self.all_durable(tickets) {
                        return;
                    }
                    // ROLE-2: good data may have gone while the claim was written.
                    let served = |(v, volume): (usize, &super::Volume)| {
                        // A Consistent one is, where the peers are out of the way.
                        volume.good()
                            || (volume.forced && volume.usable())
                            || (volume.state == DiskState::Consistent && with.is_none())
                            || self.peers.iter().any(|p| p.good(v))
                    };
                    if self.volumes.iter().enumerate().all(served) {
                        return self.now_primary(change.commands, change.force);
                    }
                    Stage::Check
                }
                Stage::Quiesce => {
                    if !self.quiesce() {
                        return;
                    }
                    Stage::Unmark(self.unmark())
                }
                Stage::Unmark(ref tickets) => {
                    if !self.all_durable(tickets) {
                        return;
                    }
                    return self.now_secondary(change.commands);
                }
            };
            if let Some(change) = &mut self.change {
                change.stage = next;
            }
        }
    }

    fn all_durable(&mut self, tickets: &[(usize, Ticket)]) -> bool {
        let open = tickets.iter().find(|&&(v, ticket)| {
            self.volumes[v].meta.is_some() && !self.volumes[v].durable(ticket)
        });
        if let Some(&(v, ticket)) = open {
            self.after_durable(v, ticket, Then::RoleChange);
        }
        open.is_none()
    }

    fn may_promote(&self, force: bool) -> Result<(), (RefusalKind, String)> {
        if let Some(peer) = self.peers.iter().find(|p| p.promoting) {
            let text = format!("node {} becomes Primary", peer.node.0);
            return Err((RefusalKind::TwoPrimaries, text));
        }
        if self.lease.is_over() && !force {
            let text = "the lease on being Primary has run out: renew it first".into();
            return Err((RefusalKind::State, text));
        }
        for (v, volume) in self.volumes.iter().enumerate() {
            // ROLE-2: without force only with UpToDate data within reach.
            // A Consistent disk is as good as the peers let it be: see `to_be_fenced`.
            let least = match self.peers.iter().any(super::Peer::connected) {
                true => DiskState::UpToDate,
                false => DiskState::Consistent,
            };
            let ours = volume.state >= least || (force && volume.usable());
            if ours || self.peers.iter().any(|p| p.good(v)) {
                continue;
            }
            if volume.state == DiskState::Attaching {
                let text =
                    format!("volume {}: its disk is being attached; try again", volume.number);
                return Err((RefusalKind::NoUpToDateData, text));
            }
            let peers: Vec<_> = self
                .peers
                .iter()
                .map(|p| format!("node {} {:?} {:?}", p.node.0, p.state, p.volumes[v].disk))
                .collect();
            let text = format!(
                "volume {}: no UpToDate data within reach (here {:?}; {}): connect the node that has it, or, if that data is lost for good, `polluxadm primary --force`",
                volume.number,
                volume.state,
                peers.join(", ")
            );
            return Err((RefusalKind::NoUpToDateData, text));
        }
        Ok(())
    }

    /// ROLE-4: a peer that may have been promoted without us.
    fn to_be_fenced(&self, force: bool) -> Option<usize> {
        (0..self.peers.len()).find(|&p| !force && self.unfenced(p))
    }

    /// With force: the claim that our data is good.
    fn claim(&mut self, force: bool) -> Vec<(usize, Ticket)> {
        let mut tickets = Vec::new();
        for v in 0..self.volumes.len() {
            let served = self.volumes[v].state >= DiskState::Consistent
                || self.peers.iter().any(|p| p.good(v));
            if force && !served {
                let generation = self.new_generation();
                let volume = &mut self.volumes[v];
                let Some(meta) = volume.meta.as_mut() else {
                    continue;
                };
                let ticket = meta.edit(|sb| {
                    sb.mint(generation, |_| true);
                    sb.flags.consistent = true;
                    sb.flags.was_up_to_date = true;
                });
                tickets.push((v, ticket));
                volume.exposed = generation;
                volume.forced = true;
            }
        }
        tickets
    }

    fn unmark(&mut self) -> Vec<(usize, Ticket)> {
        let volumes = self.volumes.iter_mut().enumerate();
        volumes.filter_map(|(v, volume)| Some((v, volume.unmark()?))).collect()
    }

    fn now_primary(&mut self, commands: Vec<CommandId>, force: bool) {
        self.change = None;
        self.role = Role::Primary;
        let mut forced = false;
        for v in 0..self.volumes.len() {
            let volume = &mut self.volumes[v];
            if force && core::mem::take(&mut volume.forced) && volume.usable() {
                volume.state = DiskState::UpToDate;
                forced = true;
                self.fail_begun(v);
            }
            let volume = &mut self.volumes[v];
            if volume.state == DiskState::Consistent {
                volume.state = DiskState::UpToDate;
            }
        }
        for peer in self.peers.iter_mut().filter(|p| !p.connected()) {
            // Every one is, or was declared to be by force.
            peer.fence = Fence::Fenced;
        }
        self.notice(Level::Info, "role Primary".into());
        self.tell_role();
        for p in 0..self.peers.len() {
            // A word about the data before this is not about what is written from now on.
            self.peers[p].discard_my_data = false;
        }
        if forced {
            self.restart_links(FORCED);
        }
        for open in core::mem::take(&mut self.opening) {
            self.out.push(Action::Opened(open, Ok(())));
        }
        self.end_change(commands, Ok(()));
        // LIVE-1: also a Primary that was suspended, whose operator has used force.
        self.wake_suspended();
        if self.auto_promoted && self.opens.is_empty() {
            // Whoever opened it did not wait.
            self.demote(None, false);
        }
    }

    /// ROLE-3: every accepted request answered, everything stable or marked, the log empty.
    fn quiesce(&mut self) -> bool {
        if !self.requests.is_empty() || !self.opens.is_empty() {
            return false;
        }
        self.flush_everywhere();
        for v in 0..self.volumes.len() {
            self.cool(v, 0);
        }
        (0..self.volumes.len()).all(|v| self.log_empty(v))
    }

    fn now_secondary(&mut self, commands: Vec<CommandId>) {
        self.change = None;
        self.role = Role::Secondary;
        self.auto_promoted = false;
        self.paused = false;
        self.hold_until = None;
        self.forget_fences();
        self.lease = Lease::None;
        self.notice(Level::Info, "role Secondary".into());
        self.tell_role();
        self.end_change(commands, Ok(()));
        for p in 0..self.peers.len() {
            if core::mem::take(&mut self.peers[p].asks) {
                self.promote_request(p);
            }
        }
    }

    // ---- the peer's promotion ----

    pub(super) fn promote_request(&mut self, p: usize) {
        if self.role == Role::Primary && self.lease.is_over() {
            // ROLE-6: it answers nobody any more, and the lock is that node's now. What it acknowledged, both have.
            self.peers[p].asks = true;
            if self.change.is_none() {
                self.demote(None, true);
            }
            return;
        }
        let ours = self.change.as_ref().is_some_and(|c| {
            matches!(c.stage, Stage::Asked(_) | Stage::Drain(_) | Stage::Claim(..))
        });
        // Both asked at once: the lower node-id wins.
        let granted = self.role == Role::Secondary
            && !(ours && self.config.node < self.peers[p].node)
            && !self
                .change
                .as_ref()
                .is_some_and(|c| matches!(c.stage, Stage::Drain(_) | Stage::Claim(..)));
        self.peers[p].promoting |= granted;
        self.send(p, Message::PromoteReply { granted });
    }

    pub(super) fn promote_reply(&mut self, p: usize, granted: bool) {
        let link = self.peers[p].link;
        let node = self.peers[p].node.0;
        let Some(change) = &mut self.change else {
            return;
        };
        match change.stage {
            Stage::Asked(asked) if Some(asked) == link => {}
            _ => return,
        }
        if granted {
            change.stage = Stage::Drain(link);
        } else {
            let text =
                format!("node {node} is Primary, or becomes it: on it `polluxadm secondary` first");
            self.refuse_change(RefusalKind::TwoPrimaries, text);
        }
    }

    // ---- clients ----

    pub(super) fn open(&mut self, id: OpenId) {
        let refusal = if self.demoting() || self.down.is_some() {
            Some("this node is becoming Secondary".into())
        } else if self.role == Role::Primary {
            self.opens.insert(id);
            self.out.push(Action::Opened(id, Ok(())));
            return;
        } else if self.config.auto_promote {
            None
        } else {
            Some("this node is Secondary; make it Primary with `polluxadm primary`, or connect to the node that is".into())
        };
        if let Some(text) = refusal {
            let refusal = Refusal { kind: RefusalKind::State, text };
            self.out.push(Action::Opened(id, Err(refusal)));
            return;
        }
        self.opens.insert(id);
        self.opening.push(id);
        if self.change.is_none() {
            self.promote(None, false);
            self.auto_promoted = self.change.is_some();
        }
    }

    pub(super) fn close(&mut self, id: OpenId) {
        self.opens.remove(&id);
        self.opening.retain(|&open| open != id);
        if self.opens.is_empty() && self.auto_promoted && self.change.is_none() {
            self.demote(None, false);
        }
    }
}

fn busy() -> Refusal {
    Refusal {
        kind: RefusalKind::Busy,
        text: "another change of role is under way; try again".into(),
    }
}

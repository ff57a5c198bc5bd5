//! The pair of nodes as the promise sees it: who counted for what, what each copy must hold, who was alone.
//!
//! It is told what happens (`invoke`, `answered`, `killed`, `observe`, ...) and answers with a violation or not. The
//! checks themselves are in the files of their families; this one only keeps the facts they need.

use super::replica::Depth;
use super::{Check, Copies, History, Kind, OpId, Outcome, Replica, StableFacts, Violation};
use super::{Token, View};
use replicator::node::{DiskState, Protocol, Role};
use std::collections::{BTreeMap, BTreeSet};

/// An operator's word that allows what is otherwise forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// This node's data may be thrown away.
    Discard,
    /// This node's data counts, whatever it is.
    Force,
}

/// What a source had promised to its target.
#[derive(Clone, Debug)]
pub(super) struct Promised {
    /// Its copy then.
    pub(super) copy: Replica,
    /// Its generation, which the target takes over when it is done.
    current: u64,
}

/// Everything the checkers know.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What clients did.
    pub history: History,
    pub(super) protocol: Protocol,
    pub(super) flush_peer: bool,
    pub(super) replicas: [Replica; 2],
    /// Newest acknowledged write a Primary must serve.
    pub(super) service: [Vec<OpId>; 2],
    /// What reads of a Primary have shown: writer, and the stamps between which it was seen.
    pub(super) seen: [BTreeMap<u32, (Token, u64, u64)>; 2],
    pub(super) views: [View; 2],
    /// Its disk failed when it had accepted something that the other may lack.
    pub(super) ruined: [bool; 2],
    /// What it said before its present turn.
    pub(super) before: [View; 2],
    /// Stamps since when a node counts on its own copy, and on its peer's.
    pub(super) own_good: [Option<u64>; 2],
    pub(super) peer_good: [Option<u64>; 2],
    /// Both say that both are good, over one link; since which stamp.
    pub(super) together: Option<u64>,
    /// Stamp at which that last ended.
    apart: u64,
    /// Since the two were last together: has this node accepted anything that may not be on the other?
    pub(super) touched: [bool; 2],
    /// The same of the volumes that share its roles: one generation covers them all.
    pub(super) elsewhere: [bool; 2],
    /// Was it, or its copy, promoted since then, with no good peer in sight?
    pub(super) took_over: [bool; 2],
    /// Acknowledged any write since then: under A nobody knows whether the other has it.
    pub(super) wrote: [bool; 2],
    /// Acknowledged anything alone, and still has it for certain?
    pub(super) alone: [bool; 2],
    pub(super) alone_stable: [bool; 2],
    /// It, or its diskless peer, acknowledged what the other's disk lacks, whatever a power cut took of that?
    ahead: [bool; 2],
    /// Acknowledged anything alone since the two last shook hands?
    pub(super) unheard: [bool; 2],
    pub(super) kept_running: [bool; 2],
    pub(super) lost_power: [bool; 2],
    /// Stamp of the last death of each node's process.
    pub(super) died: [u64; 2],
    pub(super) discard: [bool; 2],
    pub(super) forced: [bool; 2],
    /// Its disk has said so since, whatever became of the order.
    pub(super) claimed: [bool; 2],
    /// It said Outdated, and nobody has brought it up to date since.
    pub(super) outdated: [bool; 2],
    /// A verdict was carried out while it said so: what that lifts may be stable after the link is gone, or the process.
    pub(super) met: [bool; 2],
    /// A source has called its target up to date, and counts it since.
    pub(super) grant: [bool; 2],
    /// What was promised to a target then; it may learn of it after the source has died.
    pub(super) promised: [Option<Box<Promised>>; 2],
    pub(super) generations: [BTreeSet<u64>; 2],
    /// Blocks that a resync may copy.
    pub(super) marked: Vec<bool>,
}

impl Cluster {
    /// Two nodes that never held anything.
    pub fn new(sectors: u32, protocol: Protocol, flush_peer: bool) -> Self {
        let none = || vec![0; sectors as usize];
        Self {
            history: History::default(),
            protocol,
            flush_peer,
            replicas: [Replica::new(sectors), Replica::new(sectors)],
            service: [none(), none()],
            seen: Default::default(),
            views: Default::default(),
            before: Default::default(),
            ruined: [false; 2],
            own_good: [None; 2],
            peer_good: [None; 2],
            together: None,
            apart: 0,
            touched: [false; 2],
            elsewhere: [false; 2],
            took_over: [false; 2],
            wrote: [false; 2],
            alone: [false; 2],
            alone_stable: [false; 2],
            ahead: [false; 2],
            unheard: [false; 2],
            kept_running: [true; 2],
            lost_power: [false; 2],
            died: [0; 2],
            discard: [false; 2],
            forced: [false; 2],
            claimed: [false; 2],
            outdated: [false; 2],
            met: [false; 2],
            grant: [false; 2],
            promised: [None, None],
            generations: Default::default(),
            marked: vec![false; sectors.div_ceil(8) as usize],
        }
    }

    /// What a node last said of itself.
    pub fn view(&self, node: usize) -> &View {
        &self.views[node]
    }

    /// A node is about to handle an event: what it does in this turn may have been decided before what it says after it.
    pub fn turn(&mut self, node: usize) {
        self.before[node] = self.views[node];
    }

    /// It, or its diskless peer, has acknowledged what the other's disk lacks.
    pub fn acknowledged_alone(&self, node: usize) -> bool {
        self.ahead[node]
    }

    fn forget_alone(&mut self, node: usize) {
        self.alone[node] = false;
        self.alone_stable[node] = false;
        self.ahead[node] = false;
    }

    /// What it last said before its present turn.
    pub fn view_before(&self, node: usize) -> &View {
        &self.before[node]
    }

    /// What a node was when it decided what it does now. A disk that is given up in order had its part in what is answered in
    /// the same turn.
    pub(super) fn acting(&self, node: usize) -> &View {
        let in_order = self.views[node].disk == DiskState::Detaching;
        if in_order { &self.before[node] } else { &self.views[node] }
    }

    /// What a copy must hold.
    pub fn replica(&self, node: usize) -> &Replica {
        &self.replicas[node]
    }

    /// Both copies are good, and both nodes say so.
    pub fn together(&self) -> bool {
        self.together.is_some()
    }

    /// What is held against a node since the two were the same, for a trace.
    pub fn flags(&self, node: usize) -> String {
        let flag = |on: bool, name: &'static str| if on { name } else { "" };
        [
            flag(self.together.is_some(), " together"),
            flag(self.touched[node], " touched"),
            flag(self.alone[node], " alone"),
            flag(self.alone_stable[node], " alone-stable"),
            flag(!self.kept_running[node], " restarted"),
            flag(self.lost_power[node], " lost-power"),
            flag(self.discard[node], " discard"),
            flag(self.forced[node], " forced"),
        ]
        .concat()
    }

    /// Since which stamp both copies are good.
    pub fn together_since(&self) -> Option<u64> {
        self.together
    }

    /// Stamp at which the two last ceased to be the same.
    pub fn apart_since(&self) -> u64 {
        self.apart
    }

    /// An order to take this node's data as good was refused.
    pub fn revoke_force(&mut self, node: usize) {
        self.forced[node] = false;
    }

    /// Whether an operator has declared this node's data good since the two last met.
    pub fn forced(&self, node: usize) -> bool {
        self.forced[node]
    }

    /// Whether an operator's order is pending that allows newer data to be overwritten.
    pub fn ordered(&self) -> bool {
        self.discard != [false; 2] || self.forced != [false; 2]
    }

    /// The operator gives an order.
    pub fn order(&mut self, node: usize, order: Order) {
        match order {
            Order::Discard => self.discard[node] = true,
            Order::Force => self.forced[node] = true,
        }
    }

    /// A client sends an operation to a node.
    pub fn invoke(&mut self, node: usize, kind: Kind, start: u32, len: u32, fua: bool) -> OpId {
        if kind != Kind::Read {
            // Without a disk it lives on its peer's, which so takes what its own lacks.
            self.touched[node] |= !self.views[node].peer_good();
            self.touched[1 - node] |= !self.views[node].own_good();
        }
        self.history.invoke(node, kind, start, len, fua)
    }

    /// A client is answered. `facts` reads a node's metadata as it would be after a power cut now.
    pub fn answered(
        &mut self,
        id: OpId,
        ok: bool,
        copies: &impl Copies,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        let op = *self.history.op(id);
        self.history.end(id, if ok { Outcome::Ok } else { Outcome::Failed });
        if !ok || op.kind == Kind::Read {
            return Ok(());
        }
        let (n, peer) = (op.node, 1 - op.node);
        self.acknowledging_role(n)?;
        self.acknowledging_generation(id, copies, facts)?;
        let own = self.own_good[n].is_some_and(|since| since <= op.invoked);
        // What a node said before it died may be heard after.
        let both = self.peer_good[n].is_some_and(|since| since <= op.invoked)
            && self.died[peer] < op.invoked;
        let depth = if op.fua { Depth::Stable } else { Depth::Cache };
        let synchronous = self.protocol == Protocol::C;
        let view = *self.acting(n);
        if !view.own_good() {
            // It lives on its peer's disk, which now has what its own lacks.
            self.touched[peer] = true;
            self.ahead[peer] = true;
        }
        if !view.peer_good() && !self.grant[n] {
            // A FLUSH that makes nothing stable here that the other may lack is no difference between the two.
            self.alone[n] |= op.writes() || self.lacks(peer, op.invoked, copies);
            self.ahead[n] |= self.alone[n];
            self.unheard[n] |= op.writes() && !view.connected();
            self.alone_stable[n] |= op.fua || (op.kind == Kind::Flush && self.alone[n]);
        }
        if op.writes() {
            self.here_or_lost(n, id, copies)?;
            self.wrote[n] = true;
            // The only good copy may have died with it since it said so.
            let gone = !view.own_good() && self.died[peer] >= op.invoked;
            for s in op.sectors().filter(|_| !gone) {
                let s = s as usize;
                self.service[n][s] = self.history.newer_of(self.service[n][s], id);
            }
            if own {
                self.replicas[n].acknowledged(&self.history, id, depth);
            }
            if both {
                match self.protocol {
                    Protocol::A => {}
                    Protocol::B => {
                        self.replicas[peer].acknowledged(&self.history, id, Depth::Memory);
                    }
                    Protocol::C => self.replicas[peer].acknowledged(&self.history, id, depth),
                }
            }
            if op.fua && own {
                self.must_be_stable(n, id, copies, if both { "DUR-1" } else { "DUR-4" })?;
            }
            if op.fua && both && synchronous {
                self.must_be_stable(peer, id, copies, "DUR-1")?;
            }
        }
        if op.kind == Kind::Flush {
            if own {
                for w in self.replicas[n].flushed(&self.history, op.invoked) {
                    self.must_be_stable(n, w, copies, if both { "DUR-1" } else { "DUR-4" })?;
                }
            }
            if both && synchronous && self.flush_peer {
                for w in self.replicas[peer].flushed(&self.history, op.invoked) {
                    self.must_be_stable(peer, w, copies, "DUR-1")?;
                }
            }
        }
        Ok(())
    }

    /// A process started on this node.
    pub fn started(&mut self, node: usize) {
        self.set_view(node, View::default());
    }

    /// The process of a node died.
    pub fn killed(&mut self, node: usize) {
        let lost: Vec<OpId> =
            self.history.open().filter(|(_, op)| op.node == node).map(|(id, _)| id).collect();
        for id in lost {
            self.touched[node] |= self.history.op(id).kind != Kind::Read;
            self.history.end(id, Outcome::Lost);
        }
        self.replicas[node].killed();
        self.outdated[node] &= !self.met[node];
        self.met[node] = false;
        self.kept_running[node] = false;
        self.died[node] = self.history.stamp();
        self.set_view(node, View::default());
        self.seen[node].clear();
        self.grant[node] = false;
    }

    /// The power of a node failed (its process is dead already).
    ///
    /// True if the only good copy lost what nobody had flushed: two losses, of which the promise covers one.
    pub fn power_cut(&mut self, node: usize) -> bool {
        self.replicas[node].power_cut();
        self.lost_power[node] = true;
        let two_losses = !self.views[1 - node].own_good();
        if two_losses {
            self.service[1 - node].clone_from(&self.replicas[node].stable);
            self.seen[1 - node].clear();
        }
        self.alone[node] = self.alone_stable[node];
        two_losses
    }

    /// A node's disk gave an error for a write or a flush: nothing is promised of that copy.
    pub fn disk_failed(&mut self, node: usize) {
        self.ruined[node] |= self.touched[node];
        self.replicas[node].void();
        self.forget_alone(node);
    }

    /// A node got another disk.
    pub fn disk_replaced(&mut self, node: usize) {
        self.replicas[node].void();
        self.forget_alone(node);
        self.outdated[node] = false;
        self.ruined[node] = false;
    }

    /// A source tells its target that it is up to date.
    pub fn granted(&mut self, source: usize) {
        self.grant[source] = true;
        let (copy, current) = (self.replicas[source].clone(), self.views[source].current);
        self.promised[1 - source] = Some(Box::new(Promised { copy, current }));
    }

    fn set_view(&mut self, n: usize, view: View) {
        let stamp = self.history.stamp();
        let since = |was: Option<u64>, now: bool| if now { was.or(Some(stamp)) } else { None };
        self.own_good[n] = since(self.own_good[n], view.own_good());
        if self.peer_good[n].is_some() && !view.peer_good() {
            let open = self.history.open().any(|(_, op)| op.node == n && op.kind != Kind::Read);
            self.touched[n] |= open || (self.protocol == Protocol::A && self.wrote[n]);
        }
        self.peer_good[n] = since(self.peer_good[n], view.peer_good());
        self.views[n] = view;
        if view.connected() {
            self.unheard = [false; 2];
        } else {
            self.grant[n] = false;
        }
        let mirrored = self.views[0].mirrored() && self.views[1].mirrored();
        if !mirrored && self.together.take().is_some() {
            self.apart = stamp;
        }
    }

    /// A node says what it is now. `linked`: both ends of one live link know it.
    pub fn observe(
        &mut self,
        n: usize,
        view: View,
        linked: bool,
        copies: &impl Copies,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        let old = self.views[n];
        self.set_view(n, view);
        self.claimed[n] |= self.forced[n] && old.current != view.current;
        let peer = self.views[1 - n];
        // What is new while its peer is there without a disk may have been acknowledged, or not.
        self.ahead[n] |= old.current != view.current
            && view.connected()
            && view.own_good()
            && (view.role == Role::Primary || peer.role == Role::Primary)
            && peer.disk < DiskState::Inconsistent;
        self.generation_changed(n, &old, view)?;
        if old.disk == DiskState::Attaching && view.own_good() && !view.connected() {
            self.came_back_good(n)?;
        }
        if view.disk == DiskState::Outdated {
            // Said before it is stable, it may be forgotten: nobody was told yet that it is so for good.
            self.outdated[n] |= facts(n).is_some_and(|f| f.outdated());
        } else if view.disk == DiskState::Inconsistent
            || (view.own_good() && (view.connected() || self.met[n]))
        {
            (self.outdated[n], self.met[n]) = (false, false);
        }
        if view.disk == DiskState::Inconsistent && old.disk != DiskState::Inconsistent {
            if old.disk != DiskState::Attaching {
                self.unnoticed_split()?;
                self.newer_overwritten(n, copies)?;
                if view.role == Role::Primary && self.discard[n] {
                    // An operator gave its data up: from now on it serves what its peer holds.
                    self.service[n].clone_from(&self.replicas[1 - n].memory);
                    self.seen[n].clear();
                }
            }
            self.replicas[n].void();
            self.forget_alone(n);
        }
        if view.disk < DiskState::Inconsistent && old.disk >= DiskState::Inconsistent {
            self.ruined[n] |= self.touched[n];
        }
        if view.disk == DiskState::Inconsistent && old.disk == DiskState::Attaching {
            // It died before it could use the promise.
            self.promised[n] = None;
        }
        if view.own_good()
            && matches!(old.disk, DiskState::Inconsistent | DiskState::Attaching)
            && !self.forced[n]
            && self.promised[n].as_ref().is_some_and(|p| p.current == view.current)
            && let Some(promised) = self.promised[n].take()
        {
            self.finished(n, &promised.copy, copies, facts)?;
            self.replicas[n].assign(&promised.copy);
            // Whatever only the source had is on both now.
            (0..2).for_each(|n| self.forget_alone(n));
        }
        let declared = self.forced[n] && view.own_good() && !old.own_good();
        let lost = view.role == Role::Primary && old.own_good() && !view.own_good();
        if lost && !view.peer_good() && self.lost_power[1 - n] {
            // Two losses: what is left is the peer's copy, without what nobody had flushed there.
            self.service[n].clone_from(&self.replicas[1 - n].memory);
            self.seen[n].clear();
        }
        if view.role == Role::Primary && view.own_good() && !old.own_good() && self.discard[1 - n] {
            // It lived on its peer's data, which an operator gave up.
            self.service[n].clone_from(&self.replicas[n].memory);
            self.seen[n].clear();
        }
        if view.role == Role::Primary && (old.role != Role::Primary || declared) {
            self.promoted(n, copies)?;
        }
        self.two_primaries(linked)?;
        let mirrored = self.views[0].mirrored() && self.views[1].mirrored();
        if self.together.is_none() && mirrored && linked {
            self.became_together()?;
        }
        Ok(())
    }

    fn became_together(&mut self) -> Check {
        self.unnoticed_split()?;
        self.together = Some(self.history.stamp());
        // Under A and B the last acknowledged writes may still be on their way.
        if self.protocol == Protocol::C {
            let [a, b] = &mut self.replicas;
            a.join(b, &self.history, self.flush_peer);
            b.join(a, &self.history, self.flush_peer);
        }
        self.touched = [false; 2];
        self.elsewhere = [false; 2];
        self.took_over = [false; 2];
        self.wrote = [false; 2];
        self.ruined = [false; 2];
        (0..2).for_each(|n| self.forget_alone(n));
        self.kept_running = [true; 2];
        self.lost_power = [false; 2];
        self.discard = [false; 2];
        self.forced = [false; 2];
        self.claimed = [false; 2];
        self.grant = [false; 2];
        self.promised = [None, None];
        self.marked.fill(false);
        // A running Primary's unanswered operations are on their way to both from here on.
        Ok(())
    }

    fn promoted(&mut self, n: usize, copies: &impl Copies) -> Check {
        let peer = 1 - n;
        // Or it lives on its peer's copy, and that one takes over.
        self.took_over[n] |= !self.views[n].peer_good();
        self.took_over[peer] |= !self.views[n].own_good();
        self.seen[n].clear();
        self.remembers_outdated(n)?;
        if self.views[n].own_good() && !self.forced[n] {
            self.holds_promises(n, copies)?;
        }
        let sectors = self.service[n].len();
        self.service[n] = if self.forced[n] {
            vec![0; sectors]
        } else if self.views[n].own_good() {
            self.replicas[n].memory.clone()
        } else if self.views[n].peer_good() {
            self.replicas[peer].memory.clone()
        } else {
            return Err(Violation::new(
                "ROLE-2",
                format!(
                    "node {n} became Primary without access to UpToDate data: {:?}",
                    self.views[n]
                ),
            ));
        };
        if self.forced[n] {
            self.replicas[n].void();
            self.touched[n] = true;
        }
        Ok(())
    }
}

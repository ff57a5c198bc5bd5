//! The people and programs that command: a cluster manager that wants one Primary, and an operator with plans, or (in one
//! seed of ten) with none.

use super::client::Place;
use super::deed::Deed;
use super::host::Pending;
use super::script::Stream;
use super::story::needs_no_telling;
use super::volume::{self, Volume};
use super::world::{MS, What, World};
use crate::model::{Order, View};
use replicator::node::{
    Backing, Command, CommandId, ConnectionState, DiskState, Event, Refusal, Role,
};

impl World {
    /// Gives a command to a node.
    pub(super) fn command(&mut self, n: usize, command: Command) {
        if self.knobs.leases && matches!(command, Command::Primary { .. }) && !self.take_lock(n) {
            return;
        }
        self.next_command += 1;
        self.give(n, self.next_command, command);
    }

    /// The same, with a name for it.
    pub(super) fn give(&mut self, n: usize, id: u64, command: Command) {
        if !self.hosts[n].running() {
            return;
        }
        if self.trace > 0 && !(self.tells_a_story() && needs_no_telling(&command)) {
            self.say(&format!("{n} command {command:?}"));
        }
        match &command {
            // Given is given: it may be stable before anybody is told that it is.
            Command::Primary { force: true } => {
                for Volume { model, disks, .. } in &mut self.volumes {
                    if !model.view(n).own_good() {
                        model.order(n, Order::Force);
                        model.history.accept_first_content(disks.0[n].number);
                    }
                }
            }
            Command::Connect { discard_my_data: true } | Command::Invalidate => self.discard(n),
            Command::InvalidateRemote => self.discard(1 - n),
            Command::Attach(volume, _) => {
                let disk = self.disk(n, volume::index(*volume));
                if !disk.in_use {
                    disk.open();
                }
            }
            _ => {}
        }
        let pending = Pending { command: command.clone(), since: self.now };
        self.hosts[n].commands.insert(id, pending);
        self.feed(n, Event::Admin(CommandId(id), command), None);
    }

    fn discard(&mut self, n: usize) {
        for volume in &mut self.volumes {
            volume.model.order(n, Order::Discard);
        }
    }

    /// A command is answered.
    pub(super) fn done(&mut self, n: usize, id: CommandId, result: Result<(), Refusal>) {
        let Some(pending) = self.hosts[n].commands.remove(&id.0) else {
            return self.violate("IO-1", format!("node {n} answers {id:?} twice, or nobody asked"));
        };
        if self.trace > 0 && !(self.tells_a_story() && result.is_ok()) {
            let text = result
                .as_ref()
                .map_or_else(|r| format!("refused: {:?} {}", r.kind, r.text), |()| "done".into());
            self.say(&format!("{n} {:?}: {text}", pending.command));
        }
        let ok = result.is_ok();
        if !ok {
            self.counters.mark("operator: a command was refused");
        }
        match pending.command {
            Command::Outdate => self.outdate_answered(n, id.0, &result),
            Command::Attach(volume, _) if !ok => {
                let v = volume::index(volume);
                // Not attached, or already: either way try again later.
                if self.volumes[v].model.view(n).disk == DiskState::Diskless {
                    self.disk(n, v).close();
                }
                if let Err(refusal) = &result
                    && !self.excused
                    && refusal.kind == replicator::node::RefusalKind::Metadata
                {
                    let story = format!("node {n} refuses its own metadata: {}", refusal.text);
                    return self.violate("MD-1", story);
                }
                self.after(500 * MS, What::Retry { node: n });
            }
            Command::Attach(volume, _) => {
                if let Some(at) = self.still_decayed(n, volume::index(volume)) {
                    // MD-3: what decayed was noticed, and is whole again before anybody relies on it.
                    let story =
                        format!("node {n} is attached, and metadata at {at} is still decayed");
                    self.violate("MD-3", story);
                }
            }
            Command::Primary { force } => {
                if ok {
                    self.refusals = 0;
                    // The first time there is nothing anywhere.
                    if force && self.initialised {
                        self.overridden(n);
                    }
                } else {
                    self.refusals += 1;
                    if force {
                        let models = self.volumes.iter_mut().map(|volume| &mut volume.model);
                        models.for_each(|model| model.revoke_force(n));
                    }
                }
            }
            Command::Secondary { .. } if ok => {
                self.check_each(|volume| volume.model.demoted(n));
                let open = |c: &super::client::Client| matches!(c.place, Place::Open(m) | Place::Leaving(m) if m == n);
                if self.clients.iter().any(open) {
                    self.violate(
                        "ROLE-3",
                        format!("node {n} says it is Secondary while clients have it open"),
                    );
                }
            }
            Command::Down if ok => {
                self.counters.mark("operator: took a node down");
                let life = self.hosts[n].life;
                self.after(0, What::Exit { node: n, life });
            }
            _ => {}
        }
    }

    /// Attaches and connects what should be.
    pub(super) fn bring_up(&mut self, n: usize) {
        if !self.hosts[n].running() {
            return;
        }
        for v in 0..self.volumes.len() {
            let disk = self.disk(n, v);
            if !disk.in_use && !disk.detached && !disk.dead {
                let backing = Backing { data_size: disk.size, meta_size: None };
                self.command(n, Command::Attach(volume::number(v), backing));
            }
            if !self.hosts[n].running() {
                return;
            }
        }
        let alone = self.view(n).connection == ConnectionState::StandAlone;
        if alone && !self.hosts[n].disconnected {
            self.command(n, Command::Connect { discard_my_data: false });
        }
    }

    /// A cluster manager's round: somebody must be Primary, everybody attached and connected.
    pub(super) fn manager(&mut self) {
        self.watch_waiting();
        let delay = self.rng.of(Stream::Rounds, |rng| rng.between(200, 800)) * MS;
        self.after(delay, What::Manager);
        if self.is_scripted() && self.initialised && !self.calm {
            return;
        }
        let first = (self.seed % 2) as usize;
        if !self.initialised {
            let ready =
                (0..2).all(|n| self.views(n).all(|view| view.disk >= DiskState::Inconsistent));
            if self.view(first).role == Role::Primary {
                self.initialised = true;
            } else if ready && self.hosts[first].commands.is_empty() {
                self.command(first, Command::Primary { force: true });
            }
            return;
        }
        for n in 0..2 {
            if self.hosts[n].running() && self.hosts[n].commands.is_empty() {
                self.look_after(n);
            }
        }
        self.want_primary();
    }

    fn look_after(&mut self, n: usize) {
        let view = *self.view(n);
        let eager = self.calm || self.rng.one_in(8);
        let without = |volume: &&Volume| {
            let disk = &volume.disks.0[n];
            volume.model.view(n).disk == DiskState::Diskless && !disk.in_use && !disk.detached
        };
        if let Some(volume) = self.volumes.iter().find(without)
            && eager
        {
            if !volume.disks.0[n].dead {
                self.manage(Deed::BringUp { node: n });
            }
            return;
        }
        if view.connection == ConnectionState::StandAlone && !self.hosts[n].disconnected && eager {
            self.reconcile(n);
        }
    }

    /// A node stands alone and nobody wanted it to.
    fn reconcile(&mut self, n: usize) {
        let other = 1 - n;
        let step_down = |node| Deed::Command { node, command: Command::Secondary { force: true } };
        if !self.split {
            let both = |v: &Self| (0..2).all(|n| v.view(n).role == Role::Primary);
            if both(self) {
                return self.manage(step_down(n));
            }
            let command = Command::Connect { discard_my_data: false };
            return self.manage(Deed::Command { node: n, command });
        }
        // The operator decides whose data is given up: what is not good anyway, else a Secondary's, if there is one.
        let good = [0, 1].map(|n| self.good(n));
        let bad = if good == [true, false] { 1 } else { 0 };
        if good[0] != good[1] && self.view(bad).role == Role::Primary {
            return self.manage(step_down(bad));
        }
        let victim = match (self.view(n).role, self.view(other).role) {
            (Role::Primary, Role::Primary) => return self.manage(step_down(n)),
            _ if good[0] != good[1] => bad,
            (Role::Primary, _) => other,
            (_, Role::Primary) => n,
            _ => (self.seed / 2 % 2) as usize,
        };
        self.manage(Deed::Victim { node: victim });
    }

    /// A node's data is given up after a split brain, if the other has better.
    pub(super) fn give_up(&mut self, victim: usize) {
        let runs = self.hosts[victim].running();
        if !self.split || !runs || !self.views(1 - victim).any(View::own_good) {
            return;
        }
        self.counters.mark("split brain: the operator chose a victim");
        if std::mem::take(&mut self.unrelated) {
            // `create-md --force`, then `up`.
            self.split = false;
            let v = self.some_volume();
            return self.replace_disk(victim, v);
        }
        self.hosts[victim].victim = true;
        self.command(victim, Command::Connect { discard_my_data: true });
        if self.view(1 - victim).connection == ConnectionState::StandAlone {
            self.command(1 - victim, Command::Connect { discard_my_data: false });
        }
        self.split = false;
    }

    fn want_primary(&mut self) {
        let seen = |w: &Self, n: usize| w.hosts[n].running() && !w.hosts[n].paused;
        let is_primary = |w: &Self, n: usize| w.view(n).role == Role::Primary;
        let primary = (0..2).any(|n| seen(self, n) && is_primary(self, n));
        let blind = self.network.partitioned && !self.calm && self.rng.one_in(10);
        let hopeless = self.calm && (0..2).all(|n| !self.good(n));
        if primary && hopeless && self.excused {
            self.refusals += 1;
            if self.refusals > 60 {
                // A Primary that waits for good data which is gone for ever.
                let n = usize::from(!is_primary(self, 0));
                if self.hosts[n].commands.is_empty() {
                    self.command(n, Command::Secondary { force: true });
                }
            }
            return;
        }
        if primary && !blind {
            return;
        }
        if self.split && !self.calm {
            return;
        }
        let candidates: Vec<usize> = (0..2)
            .filter(|&n| seen(self, n) && !is_primary(self, n) && self.hosts[n].commands.is_empty())
            .collect();
        if candidates.is_empty() {
            return;
        }
        let good: Vec<usize> = candidates.iter().copied().filter(|&n| self.good(n)).collect();
        let from = if good.is_empty() { &candidates } else { &good };
        let n = from[self.rng.below(from.len() as u64) as usize];
        let alone = candidates.len() == 1;
        if alone && !self.knobs.failover && !self.calm && !self.rng.one_in(20) {
            return;
        }
        if blind {
            self.counters.mark("operator: promoted the other side of a partition");
        }
        let mut force = false;
        if self.calm && self.refusals > 40 {
            if !self.excused {
                let views = [0, 1].map(|n| self.views(n).collect::<Vec<_>>());
                let story =
                    format!("no node can become Primary, and no disk was ever lost: {views:#?}");
                return self.violate("LIVE-1", story);
            }
            self.counters.mark("operator: had to force a Primary");
            force = true;
        }
        self.manage(Deed::Command { node: n, command: Command::Primary { force } });
    }

    /// An operator's whim.
    pub(super) fn operator(&mut self) {
        if self.calm {
            return;
        }
        if let Some(mean) = self.knobs.operator {
            let delay = self.rng.wait(mean) + MS;
            self.after(delay, What::Operator);
        }
        if !self.initialised {
            return;
        }
        let n = self.rng.below(2) as usize;
        if !self.hosts[n].running() {
            return;
        }
        if self.knobs.cruel && self.rng.percent(60) {
            return self.cruelty(n);
        }
        let v = self.some_volume();
        let view = *self.volumes[v].model.view(n);
        let primary = view.role == Role::Primary;
        if self.fencing() && self.rng.one_in(3) {
            return self.suspend(n);
        }
        match self.rng.below(9) {
            0 | 1 if primary => {
                let force = self.rng.percent(50);
                if !force {
                    for client in 0..self.clients.len() {
                        if self.clients[client].place == Place::Open(n) {
                            self.perform(Deed::Leave { client });
                        }
                    }
                }
                if self.view(n).requests > 0 {
                    self.counters.mark("operator: demoted with requests in flight");
                }
                self.order(n, Command::Secondary { force });
            }
            2 if self.hosts[n].disconnected => self.perform(Deed::Join { node: n }),
            2 => self.perform(Deed::Part { node: n }),
            3 if self.disk(n, v).detached => self.perform(Deed::Reattach { node: n, v }),
            3 if view.disk == DiskState::UpToDate => self.perform(Deed::Detach { node: n, v }),
            3 => {}
            4 if !primary && view.peer_good() => self.order(n, Command::Invalidate),
            5 if primary && view.mirrored() => self.order(n, Command::InvalidateRemote),
            6 if !primary => self.order(n, Command::Down),
            7 if !primary && view.connected() && self.view(1 - n).role == Role::Primary => {
                // A planned switch: the other first.
                self.order(1 - n, Command::Secondary { force: true });
                self.order(n, Command::Primary { force: false });
            }
            _ => self.perform(Deed::BringUpAll),
        }
    }

    fn order(&mut self, node: usize, command: Command) {
        self.perform(Deed::Command { node, command });
    }

    fn cruelty(&mut self, n: usize) {
        let v = self.some_volume();
        let disk = self.disk(n, v);
        let (in_use, backing) = (disk.in_use, Backing { data_size: disk.size, meta_size: None });
        let command = match self.rng.below(12) {
            0 => Command::Primary { force: true },
            1 => Command::Primary { force: false },
            2 => Command::Secondary { force: true },
            3 => Command::Secondary { force: false },
            4 => Command::Connect { discard_my_data: true },
            5 => Command::Connect { discard_my_data: false },
            6 => Command::Disconnect,
            7 => Command::Invalidate,
            8 => Command::InvalidateRemote,
            9 => Command::Detach(volume::number(v)),
            10 if !in_use => Command::Attach(volume::number(v), backing),
            10 => Command::Down,
            _ => Command::Down,
        };
        self.perform(Deed::Cruel { node: n, command });
    }
}

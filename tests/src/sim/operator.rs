//! The people and programs that command: a cluster manager that wants one Primary, and an operator with plans, or (in one
//! seed of ten) with none.

use super::client::Place;
use super::host::Pending;
use super::world::{MS, What, World};
use crate::model::Order;
use replicator::node::{
    Backing, Command, CommandId, ConnectionState, DiskState, Event, Refusal, Role,
};

impl World {
    /// Gives a command to a node.
    pub(super) fn command(&mut self, n: usize, command: Command) {
        if !self.hosts[n].running() {
            return;
        }
        if self.trace > 0 {
            self.say(&format!("{n} command {command:?}"));
        }
        match &command {
            Command::Primary { force: true } if !self.model.view(n).own_good() => {
                self.model.order(n, Order::Force);
                self.model.history.accept_first_content(self.disks.0[n].number);
            }
            Command::Connect { discard_my_data: true } | Command::Invalidate => {
                self.model.order(n, Order::Discard);
            }
            Command::InvalidateRemote => self.model.order(1 - n, Order::Discard),
            Command::Attach(..) if !self.hosts[n].disk_open => {
                self.hosts[n].disk_open = true;
                self.disks.0[n].open();
            }
            _ => {}
        }
        self.next_command += 1;
        let id = self.next_command;
        let pending = Pending { command: command.clone(), since: self.now };
        self.hosts[n].commands.insert(id, pending);
        self.feed(n, Event::Admin(CommandId(id), command), None);
    }

    /// A command is answered.
    pub(super) fn done(&mut self, n: usize, id: CommandId, result: Result<(), Refusal>) {
        let Some(pending) = self.hosts[n].commands.remove(&id.0) else {
            return self.violate("IO-1", format!("node {n} answers {id:?} twice, or nobody asked"));
        };
        if self.trace > 0 {
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
            Command::Attach(..) if !ok => {
                // Not attached, or already: either way try again later.
                if self.model.view(n).disk == DiskState::Diskless {
                    self.hosts[n].disk_open = false;
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
            Command::Attach(..) if self.disks.0[n].fragile() => {
                // MD-3: what decayed was noticed, and is whole again before anybody relies on it.
                let story = format!("node {n} is attached, and a superblock copy is still decayed");
                self.violate("MD-3", story);
            }
            Command::Primary { force } => {
                if ok {
                    self.refusals = 0;
                } else {
                    self.refusals += 1;
                    if force {
                        self.model.revoke_force(n);
                    }
                }
            }
            Command::Secondary { .. } if ok => {
                let check = self.model.demoted(n);
                self.check(check);
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
        let disk = &self.disks.0[n];
        if !self.hosts[n].disk_open && !self.hosts[n].detached && !disk.dead {
            let backing = Backing { data_size: disk.size, meta_size: None };
            self.command(n, Command::Attach(0, backing));
        }
        if !self.hosts[n].running() {
            return;
        }
        let alone = self.model.view(n).connection == ConnectionState::StandAlone;
        if alone && !self.hosts[n].disconnected {
            self.command(n, Command::Connect { discard_my_data: false });
        }
    }

    /// A cluster manager's round: somebody must be Primary, everybody attached and connected.
    pub(super) fn manager(&mut self) {
        self.watch_waiting();
        let delay = self.rng.between(200, 800) * MS;
        self.after(delay, What::Manager);
        let first = (self.seed % 2) as usize;
        if !self.initialised {
            let ready = (0..2).all(|n| self.model.view(n).disk >= DiskState::Inconsistent);
            if self.model.view(first).role == Role::Primary {
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
        let view = *self.model.view(n);
        let eager = self.calm || self.rng.one_in(8);
        if view.disk == DiskState::Diskless
            && !self.hosts[n].disk_open
            && !self.hosts[n].detached
            && eager
        {
            if self.disks.0[n].dead {
                return;
            }
            self.bring_up(n);
            return;
        }
        if view.connection == ConnectionState::StandAlone && !self.hosts[n].disconnected && eager {
            self.reconcile(n);
        }
    }

    /// A node stands alone and nobody wanted it to.
    fn reconcile(&mut self, n: usize) {
        let other = 1 - n;
        if !self.split {
            let both = |v: &Self| (0..2).all(|n| v.model.view(n).role == Role::Primary);
            if both(self) {
                return self.command(n, Command::Secondary { force: true });
            }
            return self.command(n, Command::Connect { discard_my_data: false });
        }
        // The operator decides whose data is given up: what is not good anyway, else a Secondary's, if there is one.
        let good = [0, 1].map(|n| self.model.view(n).own_good());
        let bad = if good == [true, false] { 1 } else { 0 };
        if good[0] != good[1] && self.model.view(bad).role == Role::Primary {
            return self.command(bad, Command::Secondary { force: true });
        }
        let victim = match (self.model.view(n).role, self.model.view(other).role) {
            (Role::Primary, Role::Primary) => {
                return self.command(n, Command::Secondary { force: true });
            }
            _ if good[0] != good[1] => bad,
            (Role::Primary, _) => other,
            (_, Role::Primary) => n,
            _ => (self.seed / 2 % 2) as usize,
        };
        if !self.hosts[victim].running() || !self.model.view(1 - victim).own_good() {
            return;
        }
        self.counters.mark("split brain: the operator chose a victim");
        if std::mem::take(&mut self.unrelated) {
            // `create-md --force`, then `up`.
            self.split = false;
            return self.replace_disk(victim);
        }
        self.hosts[victim].victim = true;
        self.command(victim, Command::Connect { discard_my_data: true });
        if self.model.view(1 - victim).connection == ConnectionState::StandAlone {
            self.command(1 - victim, Command::Connect { discard_my_data: false });
        }
        self.split = false;
    }

    fn want_primary(&mut self) {
        let seen = |w: &Self, n: usize| w.hosts[n].running() && !w.hosts[n].paused;
        let is_primary = |w: &Self, n: usize| w.model.view(n).role == Role::Primary;
        let primary = (0..2).any(|n| seen(self, n) && is_primary(self, n));
        let blind = self.network.partitioned && !self.calm && self.rng.one_in(10);
        let hopeless = self.calm && (0..2).all(|n| !self.model.view(n).own_good());
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
        let good: Vec<usize> =
            candidates.iter().copied().filter(|&n| self.model.view(n).own_good()).collect();
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
                let views = [self.model.view(0), self.model.view(1)];
                let story =
                    format!("no node can become Primary, and no disk was ever lost: {views:#?}");
                return self.violate("LIVE-1", story);
            }
            self.counters.mark("operator: had to force a Primary");
            force = true;
        }
        self.command(n, Command::Primary { force });
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
        let view = *self.model.view(n);
        let primary = view.role == Role::Primary;
        match self.rng.below(9) {
            0 | 1 if primary => {
                let force = self.rng.percent(50);
                if !force {
                    for c in 0..self.clients.len() {
                        if self.clients[c].place == Place::Open(n) {
                            self.leave(c);
                        }
                    }
                }
                if self.model.view(n).requests > 0 {
                    self.counters.mark("operator: demoted with requests in flight");
                }
                self.command(n, Command::Secondary { force });
            }
            2 => {
                self.hosts[n].disconnected = !self.hosts[n].disconnected;
                if self.hosts[n].disconnected {
                    self.command(n, Command::Disconnect);
                } else {
                    self.command(n, Command::Connect { discard_my_data: false });
                }
            }
            3 => {
                if self.hosts[n].detached {
                    self.hosts[n].detached = false;
                    self.bring_up(n);
                } else if view.disk == DiskState::UpToDate {
                    self.hosts[n].detached = true;
                    self.command(n, Command::Detach(0));
                }
            }
            4 if !primary && view.peer_good() => self.command(n, Command::Invalidate),
            5 if primary && view.mirrored() => self.command(n, Command::InvalidateRemote),
            6 if !primary => self.command(n, Command::Down),
            7 if !primary && view.connected() && self.model.view(1 - n).role == Role::Primary => {
                // A planned switch: the other first.
                self.command(1 - n, Command::Secondary { force: true });
                self.command(n, Command::Primary { force: false });
            }
            _ => {
                for n in 0..2 {
                    self.hosts[n].detached = false;
                    self.hosts[n].disconnected = false;
                    self.bring_up(n);
                }
            }
        }
    }

    fn cruelty(&mut self, n: usize) {
        self.excused = true;
        self.counters.mark("operator: was cruel");
        let disk = &self.disks.0[n];
        let backing = Backing { data_size: disk.size, meta_size: None };
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
            9 => Command::Detach(0),
            10 if !self.hosts[n].disk_open => Command::Attach(0, backing),
            10 => Command::Down,
            _ => Command::Down,
        };
        self.command(n, command);
    }
}

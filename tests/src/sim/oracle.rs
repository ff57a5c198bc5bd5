//! The fork-and-recover oracle: at any moment, copy the world, pull plugs in the copy, and see what recovery would do.
//!
//! It finds a hole in what a node knows at the moment it opens, not hours later when somebody falls in.

use super::Rng;
use super::script::Stream;
use super::volume::Volume;
use super::world::{MS, What, World};
use crate::model::{View, Violation, same_content};
use replicator::node::{Command, ConnectionState, DiskState, Role};

/// What happens to a machine in a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    RunsOn,
    Killed,
    PowerCut,
}

/// One future.
#[derive(Clone, Copy, Debug)]
struct Future {
    fates: [Fate; 2],
    /// This node never comes back.
    lost: Option<usize>,
}

impl Future {
    fn draw(rng: &mut Rng) -> Self {
        let fate = |rng: &mut Rng| {
            *rng.pick(&[Fate::RunsOn, Fate::Killed, Fate::PowerCut, Fate::PowerCut])
        };
        loop {
            let fates = [fate(rng), fate(rng)];
            if fates == [Fate::RunsOn; 2] {
                continue;
            }
            let lost = match rng.below(3) {
                0 => Some(rng.below(2) as usize).filter(|&n| fates[n] != Fate::RunsOn),
                _ => None,
            };
            return Self { fates, lost };
        }
    }
}

impl World {
    /// Forks if enough has happened since the last time, or something interesting has.
    pub(super) fn fork_if_due(&mut self) {
        let every = self.knobs.fork_every;
        if self.forked || every == 0 || !self.initialised || self.now < self.forks_from {
            return;
        }
        let due = self.since_fork >= every || (self.fork_soon && self.since_fork >= every / 16);
        if !due {
            return;
        }
        self.since_fork = 0;
        self.fork_soon = false;
        if !self.may_be_judged() {
            return;
        }
        let fresh = self.seed ^ self.events.wrapping_mul(0x9e37_79b9);
        let fresh = self.rng.same(Stream::Forks, fresh);
        let chance = self.fork_chance.unwrap_or(fresh);
        let mut rng = Rng::new(chance);
        let future = Future::draw(&mut rng);
        let mut fork = self.fork(rng.clone(), 0);
        fork.live_through(future);
        self.counters.mark("fork: lived through");
        self.counters.add(&fork.counters);
        self.events = fork.events;
        if let Some(mut violation) = fork.verdict() {
            if self.trace > 0 {
                self.say(&format!("---- fork {future:?} ----"));
                let mut again = self.fork(rng, self.trace);
                again.live_through(future);
            }
            self.fork_chance = Some(chance);
            violation.story = format!("in a fork with {future:?}: {}", violation.story);
            self.check(Err(violation));
        }
    }

    /// Nobody but the nodes has a part in what becomes of this: what an operator or a cluster manager has to put right is not judged.
    fn may_be_judged(&self) -> bool {
        let odd = |n: usize| {
            let host = &self.hosts[n];
            // A disk that was let go comes back only by somebody's command.
            let let_go = |view: &View| {
                view.disk < DiskState::Inconsistent && view.disk != DiskState::Attaching
            };
            let bad = |volume: &Volume| {
                let disk = &volume.disks.0[n];
                disk.dead || disk.hangs || disk.detached
            };
            host.running() && self.views(n).any(let_go)
                || self.volumes.iter().any(bad)
                || host.disconnected
        };
        let leaving = |n: usize| {
            self.view(n).connection == ConnectionState::StandAlone
                || self.hosts[n].commands.values().any(|p| {
                    matches!(p.command, Command::Down | Command::Detach(_) | Command::Disconnect)
                })
        };
        let paused = self.hosts.iter().any(|h| h.paused);
        !paused && (0..2).all(|n| !(odd(n) || leaving(n) && self.hosts[n].running()))
    }

    /// Lives through each of a set of futures; how many, the events in them, and what was broken.
    pub(super) fn all_futures(&self) -> (u64, u64, Option<Violation>) {
        use Fate::{PowerCut, RunsOn};
        let both_come_back = [[RunsOn; 2], [PowerCut, RunsOn], [RunsOn, PowerCut], [PowerCut; 2]]
            .map(|fates| Future { fates, lost: None });
        let one_is_lost = [0, 1].map(|n| Future { fates: [PowerCut; 2], lost: Some(n) });
        let (mut forks, mut events) = (0, 0);
        if !self.may_be_judged() {
            return (forks, events, None);
        }
        for future in both_come_back.into_iter().chain(one_is_lost) {
            let mut fork = self.fork(Rng::new(forks), 0);
            fork.live_through(future);
            forks += 1;
            events += fork.events - self.events;
            if let Some(mut violation) = fork.verdict() {
                violation.story = format!("in a fork with {future:?}: {}", violation.story);
                return (forks, events, Some(violation));
            }
        }
        (forks, events, None)
    }

    fn fork(&self, rng: Rng, trace: u8) -> Self {
        let mut fork = self.clone();
        fork.forked = true;
        fork.two_primaries = false;
        fork.calm = true;
        fork.hushed = true;
        fork.rng = rng;
        fork.trace = trace;
        fork.counters = Default::default();
        fork.hash = 0;
        fork
    }

    fn live_through(&mut self, future: Future) {
        let before = [*self.view(0), *self.view(1)];
        let good = [self.good(0), self.good(1)];
        let up = [self.hosts[0].running(), self.hosts[1].running()];
        let following: Option<Vec<u64>> =
            self.volumes.iter().map(|volume| volume.model.together_since()).collect();
        self.network.partitioned = false;
        self.lost = future.lost;
        for n in 0..2 {
            self.volumes.iter_mut().for_each(|volume| volume.disks.0[n].slow = false);
            self.hosts[n].dies = None;
            match future.fates[n] {
                Fate::RunsOn => {}
                Fate::Killed => self.kill(n, false),
                Fate::PowerCut => self.kill(n, true),
            }
            if future.lost != Some(n) {
                self.after(10 * MS, What::Start { node: n });
            }
            if self.knobs.leases {
                // Nobody competes for the lock any more.
                self.command(n, Command::Lease(None));
            }
        }
        if future.fates == [Fate::PowerCut; 2] {
            self.check_each(|Volume { model, disks, facts, .. }| {
                model.equal_generations(disks, &mut |n| facts.read(disks, n))
            });
        }
        if let Some(since) = &following {
            for (n, view) in before.iter().enumerate() {
                if view.role != Role::Primary && future.fates[n] == Fate::PowerCut {
                    self.in_order(n, since, false);
                }
            }
        }
        match future.lost {
            Some(lost) => {
                let n = 1 - lost;
                let good =
                    up[n] && good[n] && (before[n].role == Role::Primary || following.is_some());
                self.survive_alone(
                    n,
                    good,
                    following.filter(|_| future.fates[n] != Fate::PowerCut),
                );
            }
            None => self.come_together(before, good, up),
        }
    }

    /// DUR-2, DUR-3, ORD-2: the other is lost for ever; this one is promoted and serves.
    fn survive_alone(&mut self, n: usize, good: bool, followed: Option<Vec<u64>>) {
        let was_primary = self.view(n).role == Role::Primary;
        let detected = self.now + 60_000 * MS;
        self.run_to(detected, |w| {
            w.views(n).all(|view| view.disk > DiskState::Attaching && !view.connected())
        });
        for round in 0..40 {
            if self.violation.is_some() || self.view(n).role == Role::Primary {
                break;
            }
            if self.hosts[n]
                .commands
                .values()
                .all(|p| !matches!(p.command, Command::Primary { .. }))
            {
                // A node that has not seen its peer since it started asks an operator, where it must fence.
                let force = self.fencing() && round > 20;
                self.command(n, Command::Primary { force });
            }
            self.run_until(self.now + 500 * MS);
        }
        if self.violation.is_some() {
            return;
        }
        if self.view(n).role != Role::Primary {
            if good {
                let story = format!(
                    "node {n} was good, its peer is lost, and it cannot be promoted: {:?}",
                    self.view(n)
                );
                self.violate("DUR-2", story);
            }
            return;
        }
        self.counters.mark("fork: a survivor was promoted");
        // Let what it had in flight end.
        self.run_to(self.now + 30_000 * MS, |w| w.disks().all(|disk| disk.busy() == 0));
        if self.good(n) {
            self.check_each(|volume| volume.model.holds_promises(n, &volume.disks));
            if let Some(since) = followed
                && !was_primary
            {
                self.in_order(n, &since, true);
            }
        }
    }

    /// COV-2 (and COV-4 and MD-2, whose breach it is that leaves a difference unknown), GI-7, RES-3, RES-4, SB-1, SB-4: both come back and shake hands over a perfect link.
    fn come_together(&mut self, before: [View; 2], good: [bool; 2], up: [bool; 2]) {
        let settled =
            self.run_to(self.now + 90_000 * MS, |w| w.settled() || (0..2).any(|n| w.split_told(n)));
        if self.violation.is_some() {
            return;
        }
        if settled && self.settled() {
            self.counters.mark("fork: both came together");
            self.check_each(|volume| same_content(&volume.disks, "COV-2"));
            for n in 0..2 {
                self.check_each(|volume| volume.model.holds_promises(n, &volume.disks));
            }
            return;
        }
        let alone = before.iter().any(|v| v.connection == ConnectionState::StandAlone);
        // A node whose process was dead already said nothing of itself.
        let expected = (0..2).any(|n| up[n] && good[n]);
        let refused = self.split || self.two_primaries;
        let ordered = self.volumes.iter().any(|volume| volume.model.ordered());
        if self.parted().may_be_split() || ordered || refused || self.excused {
            return self.counters.mark("fork: stayed apart, and may");
        }
        if alone && up == [true; 2] || !expected {
            return;
        }
        self.apart("GI-7");
    }

    fn in_order(&mut self, n: usize, since: &[u64], powered: bool) {
        for (v, &since) in since.iter().enumerate() {
            let volume = &self.volumes[v];
            let check = volume.model.in_order(n, since, powered, &volume.disks);
            self.check(check);
        }
    }

    fn split_told(&self, n: usize) -> bool {
        self.split && self.view(n).connection == ConnectionState::StandAlone
    }
}

//! The fork-and-recover oracle: at any moment, copy the world, pull plugs in the copy, and see what recovery would do.
//!
//! It finds a hole in what a node knows at the moment it opens, not hours later when somebody falls in.

use super::Rng;
use super::world::{MS, What, World};
use crate::model::same_content;
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
        if self.forked || every == 0 || !self.initialised || self.violation.is_some() {
            return;
        }
        let due = self.since_fork >= every || (self.fork_soon && self.since_fork >= every / 16);
        if !due {
            return;
        }
        self.since_fork = 0;
        self.fork_soon = false;
        let odd = |n: usize| {
            let host = &self.hosts[n];
            // A disk that was let go comes back only by somebody's command.
            let let_go = host.running() && self.model.view(n).disk < DiskState::Inconsistent;
            let let_go = let_go && self.model.view(n).disk != DiskState::Attaching;
            let_go || self.disks.0[n].dead || host.disk_hangs || host.detached || host.disconnected
        };
        let leaving = |n: usize| {
            self.model.view(n).connection == ConnectionState::StandAlone
                || self.hosts[n].commands.values().any(|p| {
                    matches!(p.command, Command::Down | Command::Detach(_) | Command::Disconnect)
                })
        };
        if odd(0)
            || odd(1)
            || leaving(0) && self.hosts[0].running()
            || leaving(1) && self.hosts[1].running()
            || self.hosts.iter().any(|h| h.paused)
        {
            return;
        }
        let mut rng = Rng::new(self.seed ^ self.events.wrapping_mul(0x9e37_79b9));
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
            violation.story = format!("in a fork with {future:?}: {}", violation.story);
            self.check(Err(violation));
        }
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
        let mut before = [*self.model.view(0), *self.model.view(1)];
        let up = [self.hosts[0].running(), self.hosts[1].running()];
        let following = self.model.together_since();
        self.network.partitioned = false;
        self.lost = future.lost;
        for n in 0..2 {
            self.hosts[n].disk_slow = false;
            self.hosts[n].dies = None;
            match future.fates[n] {
                Fate::RunsOn => {}
                Fate::Killed => self.kill(n, false),
                Fate::PowerCut => self.kill(n, true),
            }
            if future.lost != Some(n) {
                self.after(10 * MS, What::Start { node: n });
            }
        }
        if future.fates == [Fate::PowerCut; 2] {
            let Self { model, disks, facts, .. } = self;
            let check = model.equal_generations(disks, &mut |n| facts.read(disks, n));
            self.check(check);
        }
        if let Some(since) = following {
            for (n, view) in before.iter().enumerate() {
                if view.role != Role::Primary && future.fates[n] == Fate::PowerCut {
                    let check = self.model.in_order(n, since, false, &self.disks);
                    self.check(check);
                }
            }
        }
        // A node whose process was dead already said nothing of itself.
        for (view, _) in before.iter_mut().zip(up).filter(|(_, up)| !up) {
            view.disk = DiskState::Consistent;
        }
        match future.lost {
            Some(lost) => {
                let n = 1 - lost;
                let good = up[n]
                    && before[n].own_good()
                    && (before[n].role == Role::Primary || following.is_some());
                self.survive_alone(
                    n,
                    good,
                    following.filter(|_| future.fates[n] != Fate::PowerCut),
                );
            }
            None => self.come_together(before, up),
        }
    }

    /// DUR-2, DUR-3, ORD-2: the other is lost for ever; this one is promoted and serves.
    fn survive_alone(&mut self, n: usize, good: bool, followed: Option<u64>) {
        let was_primary = self.model.view(n).role == Role::Primary;
        let detected = self.now + 60_000 * MS;
        self.run_to(detected, |w| {
            let view = w.model.view(n);
            view.disk > DiskState::Attaching && !view.connected()
        });
        for _ in 0..40 {
            if self.violation.is_some() || self.model.view(n).role == Role::Primary {
                break;
            }
            if self.hosts[n]
                .commands
                .values()
                .all(|p| !matches!(p.command, Command::Primary { .. }))
            {
                self.command(n, Command::Primary { force: false });
            }
            self.run_until(self.now + 500 * MS);
        }
        if self.violation.is_some() {
            return;
        }
        if self.model.view(n).role != Role::Primary {
            if good {
                let story = format!(
                    "node {n} was good, its peer is lost, and it cannot be promoted: {:?}",
                    self.model.view(n)
                );
                self.violate("DUR-2", story);
            }
            return;
        }
        self.counters.mark("fork: a survivor was promoted");
        // Let what it had in flight end.
        self.run_to(self.now + 30_000 * MS, |w| w.disks.0[n].busy() == 0);
        if self.model.view(n).own_good() {
            let check = self.model.holds_promises(n, &self.disks);
            self.check(check);
            if let Some(since) = followed
                && !was_primary
            {
                let check = self.model.in_order(n, since, true, &self.disks);
                self.check(check);
            }
        }
    }

    /// COV-2 (and COV-4 and MD-2, whose breach it is that leaves a difference unknown), GI-7, RES-3, RES-4, SB-1, SB-4: both come back and shake hands over a perfect link.
    fn come_together(&mut self, before: [crate::model::View; 2], up: [bool; 2]) {
        let settled =
            self.run_to(self.now + 90_000 * MS, |w| w.settled() || (0..2).any(|n| w.split_told(n)));
        if self.violation.is_some() {
            return;
        }
        if settled && self.settled() {
            self.counters.mark("fork: both came together");
            let check = same_content(&self.disks, "COV-2");
            self.check(check);
            for n in 0..2 {
                let check = self.model.holds_promises(n, &self.disks);
                self.check(check);
            }
            return;
        }
        let alone = before.iter().any(|v| v.connection == ConnectionState::StandAlone);
        let expected = (0..2).any(|n| up[n] && before[n].own_good());
        let refused = self.split || self.two_primaries;
        if self.model.may_be_split() || self.model.ordered() || refused || self.excused {
            return self.counters.mark("fork: stayed apart, and may");
        }
        if alone && up == [true; 2] || !expected {
            return;
        }
        self.apart("GI-7");
    }

    fn split_told(&self, n: usize) -> bool {
        self.split && self.model.view(n).connection == ConnectionState::StandAlone
    }
}

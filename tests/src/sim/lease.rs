//! An agent on each machine that promotes its node only while it holds a lock kept elsewhere, and what that has to mean: nobody
//! answers a client whose lock may be another's (ROLE-6). Agents are late, and cut off from the lock.

use super::deed::Deed;
use super::world::{MS, What, World};
use replicator::node::{Command, Role, Time};

/// How long the lock is kept for its holder who is not heard of.
const TTL: u64 = 3000 * MS;
/// How much earlier the holder gives it up. Clocks differ in their rates.
const MARGIN: u64 = 500 * MS;

/// The lock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lock {
    holder: Option<usize>,
    until: u64,
}

impl Lock {
    fn may_be_taken(self, n: usize, now: u64) -> bool {
        now >= self.until || self.holder == Some(n)
    }
}

impl World {
    /// A round of a node's agent.
    pub(super) fn agent(&mut self, n: usize) {
        let delay = self.rng.between(200, 900) * MS;
        self.after(delay, What::Agent { node: n });
        let cut_off = !self.calm && self.rng.one_in(3);
        if cut_off || !self.hosts[n].running() {
            return;
        }
        if self.view(n).role == Role::Primary {
            self.take_lock(n);
        } else if self.now >= self.lock.until && !self.calm && self.rng.one_in(8) {
            // Its holder is late: perhaps it is dead.
            if !self.is_scripted() {
                let command = Command::Primary { force: false };
                self.perform(Deed::Command { node: n, command });
            }
        }
    }

    /// Takes or renews the lock, if it is free, and tells the node for how long.
    pub(super) fn take_lock(&mut self, n: usize) -> bool {
        if self.forked {
            return true;
        }
        if !self.lock.may_be_taken(n, self.now) {
            return false;
        }
        if self.lock.holder != Some(n) && self.view(1 - n).role == Role::Primary {
            self.counters.mark("lease: taken from a Primary that let it run out");
        }
        self.lock = Lock { holder: Some(n), until: self.now + TTL };
        let Time(now) = self.hosts[n].clock.read(self.now);
        self.command(n, Command::Lease(Some(Time(now + TTL - MARGIN))));
        true
    }

    /// ROLE-6, at the answer of a request that went well.
    pub(super) fn may_answer(&mut self, n: usize) {
        if !self.knobs.leases || self.forked {
            return;
        }
        if self.lock.holder != Some(n) || self.now >= self.lock.until {
            let story =
                format!("node {n} answers a client, and does not hold the lock: {:?}", self.lock);
            self.violate("ROLE-6", story);
        }
    }
}

//! The storage of both nodes, as far as Pollux promises it: what is on the disks, who answers, what the handler `fence-peer` comes to.

use super::{TTL, World};
use agent::decide::{Arbiter, Event, Lock};

impl World {
    pub(super) fn answers(&self, n: usize) -> bool {
        let storage = &self.nodes[n].storage;
        let by_right = storage.lease.is_none_or(|until| self.now < until);
        self.daemon_awake(n) && storage.up && storage.primary && by_right
    }

    /// Links break and are made, copies are made good.
    pub(super) fn connect(&mut self) {
        let up = |n| self.daemon_awake(n) && self.nodes[n].storage.up;
        let whole = !self.link_cut && (0..2).all(up);
        for n in 0..2 {
            // Who slept learns it when he speaks.
            let broken = !whole || !self.nodes[1 - n].storage.connected;
            if self.nodes[n].storage.connected && broken && self.daemon_awake(n) {
                self.nodes[n].storage.connected = false;
                self.nodes[n].storage.fenced_peer = false;
            }
        }
        let connected = self.nodes.iter().all(|node| node.storage.connected);
        if whole && !connected && self.nodes.iter().all(|node| !node.storage.connected) {
            let versions = [0, 1].map(|n| self.nodes[n].storage.version);
            let primaries = [0, 1].map(|n| self.nodes[n].storage.primary);
            if primaries == [true, true] {
                // Whose lease has ended steps down; Pollux talks to nobody before.
                for n in 0..2 {
                    if !self.answers(n) {
                        self.nodes[n].storage.primary = false;
                    }
                }
                return;
            }
            let newest = versions[0].max(versions[1]);
            if newest < self.acknowledged {
                self.fail("HA-2", "what was acknowledged is on no disk");
            }
            self.tell(format!("connected, {versions:?}"));
            for n in 0..2 {
                if self.nodes[n].storage.primary && self.nodes[n].storage.version < newest {
                    if self.answers(n) {
                        self.fail("HA-2", &format!("node {n} is Primary with old data"));
                    }
                    self.nodes[n].storage.primary = false;
                }
                let storage = &mut self.nodes[n].storage;
                (storage.version, storage.outdated) = (newest, false);
                (storage.connected, storage.fenced_peer) = (true, false);
                if std::mem::take(&mut self.nodes[n].barred) {
                    self.event(n, Event::Lock(Lock::Free));
                }
            }
            // unfence-peer, and what the agents tidy.
            if self.plan.arbiter == Arbiter::Etcd {
                self.etcd.outdated = [false; 2];
            }
        }
    }

    /// The handler fence-peer of node `n`: may it go on without the other?
    fn fence_peer(&mut self, n: usize) -> bool {
        let other = 1 - n;
        let Some(agent) = &self.nodes[n].agent else { return false };
        match self.plan.arbiter {
            Arbiter::Etcd => {
                let held = self
                    .etcd
                    .lock
                    .is_some_and(|held| held.node == n && held.revision == self.nodes[n].revision);
                if held && !self.etcd_cut[n] {
                    self.etcd.outdated[other] = true;
                    return true;
                }
                false
            }
            Arbiter::Fencing => {
                if !agent.phase.wants_peer_gone() || agent.unfit.is_some() {
                    return false;
                }
                // Off does not make what is here the newest.
                let sure = self.nodes[n].storage.version >= self.acknowledged;
                if agent.is_fenced() {
                    return sure;
                }
                if agent.silence(self.now) < TTL {
                    if self.word(other).is_none() || !self.daemon_awake(other) {
                        return false;
                    }
                    let version = self.nodes[n].storage.version;
                    if !self.nodes[other].storage.up {
                        self.nodes[other].barred = true;
                        self.event(other, Event::Lock(Lock::Barred));
                        return sure;
                    }
                    let storage = &mut self.nodes[other].storage;
                    // Who holds what the other lacks refuses.
                    let newest = storage.version > version;
                    if !storage.primary && !storage.connected && !newest {
                        storage.outdated = true;
                        return true;
                    }
                    return false;
                }
                self.shots += 1;
                self.power_off(other, "the handler shot it");
                if let Some(agent) = &mut self.nodes[n].agent {
                    agent.fenced_for_daemon();
                }
                sure
            }
        }
    }

    pub(super) fn promote(&mut self, n: usize) -> Result<(), String> {
        let other = 1 - n;
        let storage = self.nodes[n].storage.clone();
        if !storage.up || !self.daemon_awake(n) {
            return Err("down".into());
        }
        if storage.primary {
            return Ok(());
        }
        if storage.connected {
            if self.nodes[other].storage.primary {
                if self.answers(other) || !self.daemon_awake(other) {
                    return Err("the peer is Primary".into());
                }
                self.nodes[other].storage.primary = false;
                self.nodes[other].storage.lease = None;
            }
        } else {
            if storage.outdated {
                return Err("Outdated".into());
            }
            if !self.fence_peer(n) {
                return Err("the peer is not fenced".into());
            }
            self.nodes[n].storage.fenced_peer = true;
        }
        self.tell(format!("node {n}: Primary"));
        self.nodes[n].storage.primary = true;
        Ok(())
    }

    /// A client of each node writes.
    pub(super) fn write(&mut self) {
        for n in 0..2 {
            if !self.answers(n) || !self.nodes[n].services {
                continue;
            }
            let other = 1 - n;
            if self.nodes[n].storage.connected {
                let version = self.acknowledged + 1;
                self.nodes[other].storage.version = version;
                self.nodes[n].storage.version = version;
            } else {
                if !self.nodes[n].storage.fenced_peer {
                    self.nodes[n].storage.fenced_peer = self.fence_peer(n);
                    continue;
                }
                if self.nodes[n].storage.version < self.acknowledged {
                    self.fail("HA-2", &format!("node {n} goes on with old data"));
                }
                self.nodes[n].storage.version = self.acknowledged + 1;
            }
            self.acknowledged += 1;
            if self.answers(other) && !self.nodes[n].storage.connected {
                self.fail("HA-1", "two nodes acknowledge");
            }
        }
    }
}

//! The lives of processes and machines: start, death, power cut, pause. What happens to what they were doing is here; what
//! they do is not.

use super::Clock;
use super::host::Incoming;
use super::world::{MS, What, World};
use crate::model::Kind;
use replicator::node::{Event, Node, Role};

impl World {
    /// A process starts: a new node over the same disk, attached and connected.
    pub(super) fn start(&mut self, n: usize) {
        if self.hosts[n].running() || self.lost == Some(n) {
            return;
        }
        let seed = self.rng.next();
        let host = &mut self.hosts[n];
        let now = host.clock.read(self.now);
        host.process = Some(Box::new(Node::new(self.knobs.config(n), now, seed)));
        self.model.started(n);
        if self.trace > 0 {
            self.say(&format!("{n} process starts"));
        }
        self.bring_up(n);
    }

    /// The process dies, perhaps with the power.
    pub(super) fn kill(&mut self, n: usize, power: bool) {
        if !self.hosts[n].running() && !power {
            return;
        }
        if self.trace > 0 {
            self.say(&format!("{n} {}", if power { "POWER CUT" } else { "KILLED" }));
        }
        if self.hosts[n].running() {
            if !self.ops.is_empty() {
                self.counters.mark("crash: with requests in flight");
            }
            if self.model.view(n).target() {
                self.counters.mark("crash: of a sync target");
            }
            self.model.killed(n);
            self.lose_clients(n);
        }
        self.hosts[n].forget_process();
        if power {
            let before = self.superblock(n);
            let loss = self.disks.0[n].power_cut(&mut self.rng);
            let after = self.superblock(n).map(|number| number + 1);
            if before.is_some() && after < before {
                // MD-1: what was written in full had been relied upon. (A repair counts one more.)
                let story = format!("a power cut took superblock {before:?} from node {n}");
                self.violate("MD-1", story);
            }
            if loss.writes > 0 {
                self.counters.mark("power cut: lost completed unflushed writes");
            }
            if loss.torn_meta > 0 {
                self.counters.mark("power cut: tore a metadata write");
            }
            if loss.torn > 0 {
                self.counters.mark("power cut: tore a data write");
            }
            if self.model.power_cut(n) {
                self.lower_floors();
            }
            let rate = self.hosts[n].clock.rate_ppm();
            self.hosts[n].clock = Clock::booted(self.now, MS, rate);
        } else {
            self.disks.0[n].kill(&mut self.rng);
        }
        self.hang_up(n, power);
    }

    /// The number of the superblock that an attach would find now.
    fn superblock(&mut self, n: usize) -> Option<u64> {
        Some(self.facts.read(&self.disks, n)?.metadata.superblock().sequence)
    }

    /// What reads under way must show is looked at again: good data was lost, or given up by an operator.
    pub(super) fn lower_floors(&mut self) {
        for (&id, op) in &mut self.ops {
            if self.model.history.op(id).kind == Kind::Read {
                op.floors = self.model.read_floors(id);
            }
        }
    }

    /// A process stops being scheduled for a while.
    pub(super) fn pause(&mut self, n: usize, length: u64) {
        let host = &mut self.hosts[n];
        if !host.running() || host.paused {
            return;
        }
        host.paused = true;
        host.rescheduled = self.now;
        let life = host.life;
        if self.trace > 0 {
            self.say(&format!("{n} PAUSED for {} ms", length / MS));
        }
        self.after(length, What::Resume { node: n, life });
    }

    /// Everything that waited comes at once.
    pub(super) fn resume(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        if !host.paused {
            return;
        }
        host.paused = false;
        let node_ms = |ns: u64, rate: u64| ns / MS * rate / 1_000_000;
        let slept = node_ms(self.now - host.rescheduled, host.clock.rate_ppm());
        host.rescheduled = self.now;
        let view = self.model.view(n);
        let detection = self.knobs.timing.ping_interval + self.knobs.timing.ping_timeout;
        if slept > detection + 50 && view.role == Role::Primary && view.connected() {
            host.zombie_since = Some(self.now);
            self.counters.mark("pause: of a connected Primary, longer than the detection time");
            if self.model.view(1 - n).role == Role::Primary {
                self.counters.mark("pause: the peer was promoted meanwhile");
            }
        }
        let waiting = std::mem::take(&mut self.hosts[n].inbox);
        let life = self.hosts[n].life;
        if self.trace > 0 {
            self.say(&format!("{n} RESUMES, {} events waited", waiting.len()));
        }
        for Incoming { event, handed } in waiting {
            if self.hosts[n].life == life && self.violation.is_none() {
                self.feed(n, event, handed);
            }
        }
        if self.hosts[n].life == life {
            self.feed(n, Event::Tick, None);
        }
    }
}

//! The lives of processes and machines: start, death, power cut, pause. What happens to what they were doing is here; what
//! they do is not.

use super::Clock;
use super::host::{Incoming, Pending};
use super::volume::{self, Volume, operation};
use super::world::{MS, What, World};
use crate::model::{Kind, View};
use replicator::node::{Action, Command, DiskState, Event, Node, ReplicationState, Role};
use replicator::wire::{Agreed, Message};

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
        for volume in &mut self.volumes {
            volume.model.started(n);
        }
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
            if self.views(n).any(View::target) {
                self.counters.mark("crash: of a sync target");
            }
            if self.views(n).any(|view| view.replication == ReplicationState::SyncSource) {
                self.counters.mark("crash: of a sync source");
            }
            if self.views(n).any(|view| view.disk == DiskState::Attaching) {
                self.counters.mark("crash: in an attach");
            }
            let logging = |volume: &Volume| volume.disks.0[n].writes_metadata();
            if !self.ops.is_empty() && self.volumes.iter().any(logging) {
                self.counters.mark("crash: requests wait for a metadata write");
            }
            for volume in &mut self.volumes {
                volume.model.killed(n);
            }
            self.lose_clients(n);
            let forced = |p: &Pending| p.command == Command::Primary { force: true };
            if self.initialised && self.hosts[n].commands.values().any(forced) {
                // It was not answered, and may have been done.
                self.overridden(n);
            }
        }
        self.hosts[n].forget_process();
        self.fenced[n].runs.clear();
        for v in 0..self.volumes.len() {
            self.volumes[v].disks.0[n].close();
            if power {
                self.cut_power(n, v);
            } else {
                self.volumes[v].disks.0[n].kill(&mut self.rng);
            }
        }
        if power {
            let rate = self.hosts[n].clock.rate_ppm();
            self.hosts[n].clock = Clock::booted(self.now, MS, rate);
        }
        self.hang_up(n, power);
    }

    /// The process dies between two actions of a batch. Actions to different sinks commute, so any merge of
    /// the sinks' queues may have been on the way.
    pub(super) fn die_in_batch(&mut self, n: usize, out: Vec<Action>, power: bool) {
        self.counters.mark("crash: between two actions of one batch");
        let carries_out =
            |action: &Action| matches!(action, Action::Send(_, Message::Agreed(Agreed::Go(_))));
        if out.iter().any(carries_out) {
            // What it does with its disks may get out, and its word not.
            self.volumes.iter_mut().for_each(|volume| volume.model.meets(n));
        }
        let mut sinks: [Vec<Action>; 5] = Default::default();
        for action in out {
            let sink = match action {
                Action::Disk { volume, .. } | Action::CloseDisk(volume) => {
                    4 * volume::index(volume)
                }
                Action::Send(..) | Action::Connect(..) | Action::Close(_) => 1,
                Action::Reply(..) | Action::Opened(..) | Action::CloseExports(_) => 2,
                // The memory dies with the process.
                Action::Release(_) | Action::Notice(_) => continue,
                Action::Done(..) | Action::Handler(..) => 3,
            };
            sinks[sink].push(action);
        }
        for sink in &mut sinks {
            sink.reverse();
        }
        let total = sinks.iter().map(Vec::len).sum::<usize>() as u64;
        for _ in 0..self.rng.below(total + 1) {
            let left: Vec<usize> = (0..sinks.len()).filter(|&s| !sinks[s].is_empty()).collect();
            let Some(&sink) = left.get(self.rng.below(left.len() as u64) as usize) else { break };
            let action = sinks[sink].pop().expect("not empty");
            self.act(n, action);
        }
        self.kill(n, power);
        let delay = self.rng.spread(10 * MS, 10_000 * MS);
        self.after(delay, What::Start { node: n });
    }

    fn cut_power(&mut self, n: usize, v: usize) {
        // The number of the superblock that an attach would find now.
        let superblock = |volume: &mut Volume| {
            Some(volume.facts.read(&volume.disks, n)?.metadata.superblock().sequence)
        };
        let volume = &mut self.volumes[v];
        let before = superblock(volume);
        let loss = volume.disks.0[n].power_cut(&mut self.rng);
        let after = superblock(volume).map(|number| number + 1);
        let two_losses = volume.model.power_cut(n);
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
        if two_losses {
            self.lower_floors();
        }
    }

    /// What reads under way must show is looked at again: good data was lost, or given up by an operator.
    pub(super) fn lower_floors(&mut self) {
        for (&id, pending) in &mut self.ops {
            let (v, op) = operation(id);
            let model = &self.volumes[v].model;
            if model.history.op(op).kind == Kind::Read {
                for (floor, now) in pending.floors.iter_mut().zip(model.read_floors(op)) {
                    if model.history.newer_of(*floor, now) == *floor {
                        *floor = now;
                    }
                }
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

    /// A whole machine stops for a while, its clock with it, as a guest that is stopped.
    pub(super) fn freeze(&mut self, n: usize, length: u64) {
        let idle = self.hosts[n].running() && !self.hosts[n].paused;
        self.pause(n, length);
        self.hosts[n].frozen = idle;
    }

    /// A clock goes forward at once; what waits for a time finds that it has come.
    pub(super) fn leap(&mut self, n: usize, by: u64) {
        let timing = &self.knobs.timing;
        if self.view(n).connected() && by > (timing.ping_interval + timing.ping_timeout) * MS {
            self.counters.mark("clock: leapt further than a connected peer may be silent");
        }
        self.hosts[n].clock.leap(by);
        self.feed(n, Event::Tick, None);
    }

    /// Everything that waited comes at once.
    pub(super) fn resume(&mut self, n: usize) {
        self.fenced[n].idle_since = None;
        let host = &mut self.hosts[n];
        if !host.paused {
            return;
        }
        host.paused = false;
        let node_ms = |ns: u64, rate: u64| ns / MS * rate / 1_000_000;
        let mut slept = self.now - std::mem::replace(&mut host.rescheduled, self.now);
        let woken_frozen = std::mem::take(&mut host.frozen);
        if woken_frozen {
            // Nothing tells the process.
            host.clock.stood(std::mem::take(&mut slept));
        }
        let slept = node_ms(slept, host.clock.rate_ppm());
        let woken = host.clock.read(self.now);
        let (primary, connected) = (self.view(n).role == Role::Primary, self.view(n).connected());
        if woken_frozen && connected && !self.view(1 - n).connected() {
            self.counters.mark("clock: stood still while the peer gave up");
        }
        let detection = self.knobs.timing.ping_interval + self.knobs.timing.ping_timeout;
        if slept > detection + 50 && primary && connected {
            self.hosts[n].zombie_since = Some(woken);
            self.counters.mark("pause: of a connected Primary, longer than the detection time");
            if self.view(1 - n).role == Role::Primary {
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

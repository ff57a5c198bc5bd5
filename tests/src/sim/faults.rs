//! What goes wrong: crashes, power cuts, links, pauses, disks.

use super::deed::Deed;
use super::host::IoKind;
use super::meta_area::Decay;
use super::swarm::Fault;
use super::world::{MS, What, World, fresh_disk};
use crate::model::View;
use replicator::node::Role;

impl World {
    /// Puts the first strike of every fault of this seed into the future.
    pub(super) fn arm_faults(&mut self) {
        for (fault, mean) in self.knobs.faults.clone() {
            let delay = self.rng.wait(mean);
            self.after(delay, What::Strike(fault));
        }
    }

    /// A fault strikes.
    pub(super) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        let mean = self.knobs.faults.iter().find(|(f, _)| *f == fault).map_or(MS, |(_, m)| *m);
        let next = self.rng.wait(mean) + MS;
        self.after(next, What::Strike(fault));
        if !self.initialised {
            return;
        }
        if self.trace > 0 {
            self.say(&format!("fault: {fault:?}"));
        }
        let n = self.rng.below(2) as usize;
        let v = self.some_volume();
        match fault {
            Fault::Kill => self.crash(n, false),
            Fault::PowerCut => self.crash(n, true),
            Fault::PowerCutBoth => {
                self.counters.mark("power cut: both at once");
                if self.views(0).chain(self.views(1)).any(View::target) {
                    self.counters.mark("power cut: both ends of a resync");
                }
                self.perform(Deed::Crash { node: 0, power: true });
                self.perform(Deed::Crash { node: 1, power: true });
            }
            Fault::CutLink => self.perform(Deed::Cut { half_open: false }),
            Fault::HalfOpen => {
                self.counters.mark("link: half open");
                self.perform(Deed::Cut { half_open: true });
            }
            Fault::Partition => {
                let half_open = self.rng.percent(50);
                self.perform(Deed::Partition { half_open });
            }
            Fault::Flap => {
                self.counters.mark("link: flapping");
                for _ in 0..self.rng.below(10) {
                    let delay = self.rng.below(3000 * MS);
                    self.after(delay, What::Cut);
                }
            }
            Fault::Stall => {
                let length = self.rng.spread(10 * MS, 4000 * MS);
                let which = self.rng.below(3);
                self.perform(Deed::Stall { at: [which != 1, which != 0], length });
            }
            Fault::Pause => {
                let length = self.rng.spread(50 * MS, 60_000 * MS);
                self.perform(Deed::Pause { node: n, length });
            }
            Fault::Freeze => {
                let length = self.rng.spread(50 * MS, 60_000 * MS);
                self.perform(Deed::Freeze { node: n, length });
            }
            Fault::DiskLate => {
                let length = self.rng.spread(10 * MS, 20_000 * MS);
                self.perform(Deed::DiskLate { node: n, v, length });
            }
            Fault::Leap => {
                let by = self.rng.spread(10 * MS, 600_000 * MS);
                self.perform(Deed::Leap { node: n, by });
            }
            Fault::DiskDies => self.perform(Deed::DiskDies { node: n, v }),
            Fault::DiskHangs => self.perform(Deed::DiskHangs { node: n, v }),
            Fault::DiskSlow => self.perform(Deed::DiskSlow { node: n, v }),
            Fault::Replace => self.perform(Deed::Replace { node: n, v }),
            Fault::Rot if self.hosts[n].running() || !self.disk(n, v).meta.mirrored() => {}
            Fault::Rot => {
                let (at, decay) = self.some_rot(n, v);
                self.perform(Deed::Decay { node: n, v, at, decay });
            }
            Fault::Aftermath => {
                let length = self.rng.spread(100 * MS, 20_000 * MS);
                let is_it =
                    |w: &Self, p: usize| w.view(p).role == Role::Primary && w.view(p).connected();
                if let Some(p) = (0..2).find(|&p| is_it(self, p)) {
                    self.perform(Deed::Crash { node: p, power: true });
                    self.perform(match n == p {
                        true => Deed::DiskLate { node: n, v, length },
                        false => Deed::DiskAway { node: n, v, length },
                    });
                }
            }
            Fault::Decay => {
                let (at, decay) = self.some_decay(n, v);
                self.perform(Deed::Decay { node: n, v, at, decay });
            }
        }
    }

    /// Does the operation of a disk that ends now fail? By chance, or by the script.
    pub(super) fn fails(&mut self, n: usize, v: usize, kind: IoKind, million: u64) -> bool {
        if self.is_scripted() {
            let doomed = &mut self.hosts[n].doomed;
            let found = doomed.iter().position(|&d| d == (v, kind));
            return found.map(|at| doomed.swap_remove(at)).is_some();
        }
        let outer = self.rng.enter(None);
        let fails = self.rng.below(1_000_000) < million;
        self.rng.enter(outer);
        if fails {
            self.note(Deed::DiskFails { node: n, v, kind });
        }
        fails
    }

    /// One bad disk at a time: with both gone there is nothing left to promise.
    pub(super) fn disk_dies(&mut self, n: usize, v: usize) {
        if !self.disk(1 - n, v).dead && self.volumes[v].model.together() {
            self.disk(n, v).dead = true;
            self.excused = true;
            self.counters.mark("disk: died");
            let delay = self.rng.between(500, 10_000) * MS;
            self.after(delay, What::NewDisk { node: n, v });
        }
    }

    fn crash(&mut self, n: usize, power: bool) {
        if self.knobs.split_batches && self.rng.percent(50) && self.hosts[n].running() {
            return self.perform(Deed::CrashSoon { node: n, power });
        }
        self.perform(Deed::Crash { node: n, power });
    }

    /// A machine or its process dies, and starts again later.
    pub(super) fn crash_now(&mut self, n: usize, power: bool) {
        self.kill(n, power);
        let delay = self.rng.spread(10 * MS, 20_000 * MS);
        self.after(delay, What::Start { node: n });
    }

    /// The two nodes see each other no more.
    #[cfg(test)]
    pub(super) fn divide(&mut self) {
        self.network.partitioned = true;
        self.cut_link(false);
    }

    /// The network is whole again.
    pub(super) fn mend(&mut self) {
        self.network.partitioned = false;
        self.meet();
    }

    /// Operations that hung go on.
    pub(super) fn unhang(&mut self, n: usize, v: usize) {
        if !std::mem::take(&mut self.disk(n, v).hangs) {
            return;
        }
        let life = self.hosts[n].life;
        let hung = self.hosts[n].ios.iter().filter(|(_, io)| io.volume == v);
        let hung: Vec<u64> = hung.map(|(&io, _)| io).collect();
        for io in hung {
            let delay = self.rng.below(MS);
            self.after(delay, What::Disk { node: n, life, io });
        }
    }

    /// A machine gets a new disk with fresh metadata, and starts on it.
    pub(super) fn replace_disk(&mut self, n: usize, v: usize) {
        self.kill(n, false);
        self.excused = true;
        let number = self.next_disk;
        self.next_disk += 1;
        let uuid = self.rng.next();
        let disk = fresh_disk(&self.knobs, n, number, uuid);
        let old = std::mem::replace(self.disk(n, v), disk);
        let new = self.disk(n, v);
        (new.hangs, new.slow, new.detached) = (old.hangs, old.slow, old.detached);
        self.volumes[v].model.disk_replaced(n);
        // What the source clears for the old disk says nothing of the new one.
        self.commits.clear();
        self.counters.mark("disk: replaced");
        self.after(100 * MS, What::Start { node: n });
    }

    /// A copy of the superblock decays: what becomes of it.
    fn some_rot(&mut self, n: usize, v: usize) -> (u64, Decay) {
        let copies = self.volumes[v].disks.0[n].meta.copies();
        let which = self.rng.below(2) as usize;
        if self.rng.percent(50) {
            return (copies[which], Decay::Unreadable);
        }
        let (byte, bit) = (self.rng.below(512) as u16, self.rng.below(8) as u16);
        let strayed = byte < 256;
        let decay = match strayed {
            true => Decay::Strayed { from: copies[1 - which] },
            false => Decay::Flipped { bit: byte * 8 + bit },
        };
        (copies[which], decay)
    }
}

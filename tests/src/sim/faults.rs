//! What goes wrong: crashes, power cuts, links, pauses, disks.

use super::swarm::Fault;
use super::world::{MS, What, World, fresh_disk};

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
                self.crash_now(0, true);
                self.crash_now(1, true);
            }
            Fault::CutLink => self.cut_link(false),
            Fault::HalfOpen => {
                self.counters.mark("link: half open");
                self.cut_link(true);
            }
            Fault::Partition => {
                self.network.partitioned = true;
                let half_open = self.rng.percent(50);
                self.cut_link(half_open);
                let length = self.rng.spread(100 * MS, 20_000 * MS);
                self.after(length, What::Mend);
            }
            Fault::Flap => {
                self.counters.mark("link: flapping");
                for _ in 0..self.rng.below(10) {
                    let delay = self.rng.below(3000 * MS);
                    self.after(delay, What::Cut);
                }
            }
            Fault::Stall => {
                let until = self.now + self.rng.spread(10 * MS, 4000 * MS);
                let which = self.rng.below(3) as usize;
                for c in self.network.connections.values_mut() {
                    for to in 0..2 {
                        if which == 2 || which == to {
                            c.stalled[to] = until;
                        }
                    }
                }
                self.counters.mark("link: stalled");
            }
            Fault::Pause => {
                let length = self.rng.spread(50 * MS, 60_000 * MS);
                self.pause(n, length);
            }
            Fault::DiskDies => {
                // One bad disk at a time: with both gone there is nothing left to promise.
                if !self.disk(1 - n, v).dead && self.volumes[v].model.together() {
                    self.disk(n, v).dead = true;
                    self.excused = true;
                    self.counters.mark("disk: died");
                    let delay = self.rng.between(500, 10_000) * MS;
                    self.after(delay, What::NewDisk { node: n, v });
                }
            }
            Fault::DiskHangs => {
                self.disk(n, v).hangs = true;
                let delay = self.rng.spread(100 * MS, 20_000 * MS);
                self.after(delay, What::Unhang { node: n, v });
            }
            Fault::DiskSlow => {
                self.disk(n, v).slow ^= true;
                self.counters.mark("disk: slow");
            }
            Fault::Replace => {
                if self.volumes[v].model.together() && !self.disk(1 - n, v).dead {
                    self.replace_disk(n, v);
                }
            }
            Fault::Rot => self.rot(n, v),
        }
    }

    fn crash(&mut self, n: usize, power: bool) {
        if self.knobs.split_batches && self.rng.percent(50) && self.hosts[n].running() {
            self.hosts[n].dies = Some(power);
            return;
        }
        self.crash_now(n, power);
    }

    /// A machine or its process dies, and starts again later.
    pub(super) fn crash_now(&mut self, n: usize, power: bool) {
        self.kill(n, power);
        let delay = self.rng.spread(10 * MS, 20_000 * MS);
        self.after(delay, What::Start { node: n });
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

    /// One metadata sector decays: a copy of the superblock, or a bitmap sector. The newest log sectors are left out: no
    /// format can tell that what was written last is gone.
    fn rot(&mut self, n: usize, v: usize) {
        let disk = &mut self.volumes[v].disks.0[n];
        if self.hosts[n].running() {
            return;
        }
        let usable = disk.size / 4096 * 4096;
        let copies = [usable - 4096, usable - 4096 - 65536];
        if disk.fragile() || !disk.mirrored_meta(copies) {
            return;
        }
        let which = self.rng.below(2) as usize;
        disk.rot_meta(copies[which], copies[1 - which], &mut self.rng);
        self.counters.mark("disk: a superblock copy decayed");
    }
}

//! What a node says and does is looked at as it happens: the checks that hang on a message, on a write, or on the time.
//! What must be true is in `model`.

use super::actions::sectors;
use super::disk::Disk;
use super::world::{MS, World};
use replicator::node::{DiskState, LinkId, mirror};
use replicator::wire::{Agreed, Message, RefuseReason, VolumeVerdict};

impl World {
    /// COV-1, where it is cheap: the metadata of a node is read again only now and then.
    pub(super) fn watch_coverage(&mut self, n: usize, start: u32, len: u32, to: &str) {
        if !self.facts.fresh(&self.disks, n) && !self.rng.one_in(4) {
            return;
        }
        if !self.hosts[n].disk_open {
            return;
        }
        let Self { model, disks, facts, .. } = self;
        let check = model.write_covered(n, start, len, to, &mut |n| facts.read(disks, n));
        self.check(check);
    }

    /// GI-4: the two ends of a link come to mirrored verdicts. RES-4, RES-6: a full copy, also after a missed end, is nothing
    /// that just happens.
    fn watch_verdict(&mut self, n: usize, link: LinkId, agreed: &Agreed) {
        let Some(id) = self.network.find(n, link) else { return };
        let Some(c) = self.network.connections.get_mut(&id) else { return };
        c.agreed[n] = Some(agreed.clone());
        if let Some(theirs) = &c.agreed[1 - n]
            && *theirs != mirror(agreed)
        {
            let story = format!("node {n} says {agreed:?}, the other end of the link {theirs:?}");
            return self.violate("GI-4", story);
        }
        if let Agreed::Go(volumes) = agreed {
            self.model.meets(n);
            let full = volumes.contains(&VolumeVerdict::Target { full: true });
            if full && self.initialised && !self.excused && !self.model.ordered() {
                let told = &self.network.connections[&id].told;
                let again = told[n].as_ref().is_some_and(|v| v.disk == DiskState::Inconsistent);
                let story = format!("all is to be copied, though nothing was replaced: {told:?}");
                return self.violate(if again { "RES-4" } else { "RES-6" }, story);
            }
            let Self { model, disks, facts, .. } = self;
            model.may_copy(full, &mut |n| facts.read(disks, n));
        }
    }

    /// What a node says tells what it has done: the checks that hang on a message.
    pub(super) fn watch_send(&mut self, n: usize, link: LinkId, message: &Message) {
        if let Message::Agreed(agreed) = message {
            self.watch_verdict(n, link, agreed);
        }
        match message {
            Message::Write(write) => {
                let (start, len) = sectors(write.range);
                if self.model.view(n).own_good() {
                    self.watch_coverage(n, start, len, "its peer");
                }
            }
            Message::Bye { .. } => self.model.leaves(n),
            Message::Facts(facts) => {
                let check = self.model.facts_stable(n, &self.disks);
                self.check(check);
                if let Some(c) =
                    self.network.find(n, link).and_then(|c| self.network.connections.get_mut(&c))
                {
                    c.roles[n] = facts.role;
                    c.told[n] = facts.volumes.first().cloned();
                }
            }
            Message::Agreed(Agreed::Refuse(RefuseReason::SplitBrain)) => {
                self.counters.mark("split brain: declared");
                self.split = true;
                let Some(c) = self.network.find(n, link) else { return };
                let check = self.model.split_brain_declared(self.network.connections[&c].roles);
                self.check(check);
            }
            Message::Agreed(Agreed::Refuse(RefuseReason::TwoPrimaries)) => {
                self.counters.mark("handshake: two Primaries");
                self.two_primaries = true;
            }
            Message::Agreed(Agreed::Refuse(RefuseReason::Stale)) => {
                self.counters.mark("handshake: only older data is good");
                self.split = true;
                if !self.excused {
                    self.violate("GI-7", "the newer data is not good, and no disk ever failed");
                }
            }
            Message::Agreed(Agreed::Refuse(RefuseReason::Unrelated)) => {
                self.counters.mark("handshake: unrelated data");
                (self.split, self.unrelated) = (true, true);
                if !self.excused {
                    self.violate("SB-4", "two mirrors of one device are called unrelated");
                }
            }
            Message::SyncRead { range, .. } => {
                let (start, len) = sectors(*range);
                let newer = self.written_since(self.model.apart_since());
                let check = self.model.asks_for(n, start, len, newer);
                self.check(check);
            }
            Message::SyncCommit { id, .. } => {
                // Named by the receiver's link, as the answer will be.
                let Some(c) = self.network.find(n, link) else { return };
                let theirs = self.network.connections[&c].ends[1 - n].link.0;
                self.commits.insert((theirs, *id), Vec::new());
            }
            Message::SyncGrant { .. } => {
                self.model.granted(n);
                self.fork_soon = true;
            }
            Message::SyncCommitted { id } => {
                self.fork_soon |= self.rng.one_in(4);
                let Some(commit) = self.commits.remove(&(link.0, *id)) else { return };
                let newer = self.written_since(self.resync_since);
                let check = self.model.bits_cleared(&self.disks, n, &commit, newer);
                self.check(check);
            }
            _ => {}
        }
    }

    /// Of a block: is a client writing there, or has one since this stamp?
    fn written_since(&self, since: u64) -> impl Fn(u32) -> bool {
        let open: Vec<_> = self.model.history.open().map(|(_, op)| op.sectors()).collect();
        move |b: u32| {
            self.block_stamps[b as usize] > since
                || open.iter().any(|o| o.start < b * 8 + 8 && b * 8 < o.end)
        }
    }

    /// A node is about to act on what its peer said.
    pub(super) fn watch_arrival(&mut self, n: usize, link: LinkId, message: &Message) {
        match message {
            // What does the source hold there by now?
            Message::SyncCommit { id, runs, .. } if self.commits.contains_key(&(link.0, *id)) => {
                let blocks = runs.iter().flat_map(|&(first, count)| first..first + count);
                let disk = &self.disks.0[n];
                let held = blocks.map(|block| {
                    let block = block as u32;
                    (block, (block * 8..block * 8 + 8).map(|s| disk.settled(s)).collect())
                });
                self.commits.insert((link.0, *id), held.collect());
            }
            // Said before a fork, it counts inside.
            Message::Agreed(Agreed::Refuse(RefuseReason::TwoPrimaries)) => {
                self.two_primaries = true;
            }
            _ => {}
        }
    }

    /// LIVE-2, LIVE-3: what waits, and for whom. Called some times a second.
    pub(super) fn watch_waiting(&mut self) {
        for n in 0..2 {
            if self.hosts[n].running() && !self.hosts[n].paused && self.violation.is_none() {
                self.watch_silence(n);
                self.watch_held(n);
            }
        }
    }

    /// LIVE-3: whoever hears nothing for as long as is configured does not call that a connection any more.
    fn watch_silence(&mut self, n: usize) {
        let host = &self.hosts[n];
        let Some(id) = self.network.held(n).filter(|_| self.model.view(n).connected()) else {
            return;
        };
        let heard = self.network.connections[&id].heard[n].max(host.rescheduled);
        let timing = &self.knobs.timing;
        let configured = (timing.ping_interval + timing.ping_timeout) * MS;
        let allowed = configured * 1_000_000 / host.clock.rate_ppm() + 100 * MS;
        if self.now > heard + allowed {
            let story = format!(
                "node {n} has heard nothing for {} ms, allowed are {}, and says {:?}",
                (self.now - heard) / MS,
                allowed / MS,
                self.model.view(n)
            );
            self.violate("LIVE-3", story);
        }
    }

    /// LIVE-2: requests wait although no disk works, no message travels and nobody is silent: then the status says why.
    fn watch_held(&mut self, n: usize) {
        let at_work = self.disks.0.iter().any(|disk: &Disk| disk.busy() > 0)
            || self.hosts.iter().any(|host| host.paused)
            || !self.network.quiet();
        let held = self.network.held(n);
        let silent = held.is_some() && self.network.live().is_none();
        if at_work || silent {
            return;
        }
        let Some(process) = &self.hosts[n].process else { return };
        let status = process.status();
        if status.requests > 0 && status.suspended.is_none() {
            let story = format!("node {n} holds {} requests and does not say why", status.requests);
            self.violate("LIVE-2", story);
        }
    }
}

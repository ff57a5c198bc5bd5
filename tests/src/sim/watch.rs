//! What a node says and does is looked at as it happens: the checks that hang on a message, on a write, or on the time.
//! What must be true is in `model`.

use super::actions::sectors;
use super::disk::Disk;
use super::host::Host;
use super::names;
use super::volume::{self, Volume};
use super::world::{MS, World};
use crate::model::{Parted, View};
use bitmap::ByteRange;
use replicator::node::{
    Command, ConnectionState, DiskState, Event, LinkId, Relation, Role, Status, mirror, relate, tie,
};
use replicator::wire::{Agreed, Facts, Message, RefuseReason, VolumeVerdict};

impl World {
    /// In which states does a node meet this event?
    pub(super) fn count_event(&mut self, n: usize, event: &Event) {
        let event = names::event(event);
        for (v, volume) in self.volumes.iter().enumerate() {
            let view = volume.model.view(n);
            self.counters.count_one(names::disk(view.disk), event);
            if v == 0 {
                self.counters.count_one(names::role(view.role), event);
                self.counters.count_one(names::connection(view.connection), event);
            }
        }
    }

    /// Looks at what a node says about itself.
    pub(super) fn observe(&mut self, n: usize) {
        let Some(process) = self.hosts[n].process.as_ref() else { return };
        let status = process.status();
        self.watch_retry(n, &status);
        for v in 0..self.volumes.len() {
            if let Some(view) = View::of(&status, v) {
                self.observe_volume(n, v, view);
            }
        }
    }

    fn observe_volume(&mut self, n: usize, v: usize, view: View) {
        let touched = self.volumes.iter().map(|volume| volume.model.touched());
        let any = touched.fold([false; 2], |a, b| [a[0] || b[0], a[1] || b[1]]);
        let Volume { model, disks, facts, resync_since, .. } = &mut self.volumes[v];
        model.touched_elsewhere(any);
        let old = *model.view(n);
        if old == view {
            return;
        }
        if view.target() && !old.target() {
            *resync_since = model.history.stamp();
            self.counters.mark("resync: began");
        }
        let linked = self.network.live().is_some();
        let observed = model.observe(n, view, linked, disks, &mut |n| facts.read(disks, n));
        let followed = if self.excused { Ok(()) } else { model.left_behind(n, &old, disks) };
        self.check(observed);
        self.check(followed);
        let shown = |v: &View| View { requests: 0, out_of_sync: v.out_of_sync.min(1), ..*v };
        if self.tells_a_story() {
            self.tell_change(n, v, &old);
        } else if self.trace > 1 || (self.trace > 0 && shown(&old) != shown(&view)) {
            let Volume { model, disks, .. } = &self.volumes[v];
            let line = state(&view, &self.hosts[n], &disks.0[n]);
            let which = if self.volumes.len() > 1 { format!(" volume {v}") } else { String::new() };
            self.say(&format!("{n}{which} {line}{}", model.flags(n)));
        }
        let significant = |v: &View| (v.role, v.disk, v.connection, v.replication, v.current);
        self.fork_soon |= significant(&old) != significant(&view);
        self.watch_fence(n, &old, &view);
        // A handshake answered, or an operator decided anew.
        let answered = old.connection == ConnectionState::Handshaking
            && matches!(view.connection, ConnectionState::Connected | ConnectionState::StandAlone);
        if answered || view.role != Role::Primary {
            self.hosts[n].zombie_since = None;
        }
        if view.role == Role::Primary && old.role != Role::Primary {
            self.counters.mark("role: promoted");
        }
        if view.role == Role::Primary && view.own_good() != old.own_good() {
            self.lower_floors();
        }
    }

    /// GI-6: the verdict is carried out, and the generation is still the one that was told. `now`: just before that turn.
    pub(super) fn facts_stand(&mut self, n: usize, now: &Status) {
        let link = self.network.connections.values().rev().find(|c| !c.ends[n].gone);
        let told = link.and_then(|c| c.told[n].as_ref()).map(|facts| facts.volumes.clone());
        for (told, now) in told.iter().flatten().zip(&now.volumes) {
            let usable = told.disk.min(now.disk) >= DiskState::Inconsistent;
            if usable && now.current != told.current {
                let story = format!("node {n} told {told:?} and acts on the verdict with {now:?}");
                self.violate("GI-6", story);
            }
        }
    }

    /// COV-1, where it is cheap: the metadata of a node is read again only now and then.
    pub(super) fn watch_coverage(&mut self, n: usize, v: usize, range: ByteRange, to: &str) {
        let Volume { model, disks, facts, .. } = &mut self.volumes[v];
        if !facts.fresh(disks, n) && !self.rng.one_in(4) {
            return;
        }
        if !disks.0[n].in_use {
            return;
        }
        let (start, len) = sectors(range);
        let check = model.write_covered(n, start, len, to, &mut |n| facts.read(disks, n));
        self.check(check);
    }

    /// GI-4: the two ends of a link come to mirrored verdicts. RES-4, RES-6: a full copy, also after a missed end, is nothing
    /// that just happens.
    fn watch_verdict(&mut self, n: usize, link: LinkId, agreed: &Agreed) {
        let Some(id) = self.network.find(n, link) else { return };
        let Some(c) = self.network.connections.get_mut(&id) else { return };
        c.agreed[n] = Some(agreed.clone());
        self.counters.count_one("verdict", names::agreed(agreed));
        if let [Some(a), Some(b)] = &c.told {
            for (v, (ours, theirs)) in a.volumes.iter().zip(&b.volumes).enumerate() {
                let relation = relate(ours, theirs);
                self.counters.count_one("verdict of a volume", names::relation(relation));
                if relation == Relation::Same && ours.bits + theirs.bits > 0 {
                    self.counters.count_one("verdict of the same", names::tie(tie(a, b, v).0));
                }
            }
        }
        if let Some(theirs) = &c.agreed[1 - n]
            && *theirs != mirror(agreed)
        {
            let story = format!("node {n} says {agreed:?}, the other end of the link {theirs:?}");
            return self.violate("GI-4", story);
        }
        // Who has left this link does nothing by what is said on it.
        let both = !c.ends[1 - n].gone;
        let Agreed::Go(verdicts) = agreed else { return };
        // Where a side has no disk, what it holds is judged when it has one again.
        let judged = self.volumes.iter().zip(verdicts).filter(|(_, v)| **v != VolumeVerdict::Idle);
        let check = Parted::of(judged.map(|(volume, _)| &volume.model)).unnoticed_split();
        if both {
            self.check(check);
        }
        let c = &self.network.connections[&id];
        for (v, verdict) in verdicts.iter().enumerate() {
            let Volume { model, disks, facts, .. } = &mut self.volumes[v];
            model.meets(n);
            let full = *verdict == VolumeVerdict::Target { full: true };
            if full && self.initialised && !self.excused && !model.ordered() {
                let told = c.told.each_ref().map(|told| told.as_ref().map(|f| &f.volumes[v]));
                let again = told[n].is_some_and(|v| v.disk == DiskState::Inconsistent);
                let story = format!("all is to be copied, though nothing was replaced: {told:?}");
                return self.violate(if again { "RES-4" } else { "RES-6" }, story);
            }
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
                let v = volume::index(write.volume);
                if self.volumes[v].model.view(n).own_good() {
                    self.watch_coverage(n, v, write.range, "its peer");
                }
            }
            Message::Bye { .. } => {
                self.volumes.iter_mut().for_each(|volume| volume.model.leaves(n));
            }
            Message::Facts(facts) => {
                self.check_each(|volume| volume.model.facts_stable(n, &volume.disks));
                if let Some(c) =
                    self.network.find(n, link).and_then(|c| self.network.connections.get_mut(&c))
                {
                    c.told[n] = Some(Facts::clone(facts));
                }
            }
            Message::Agreed(Agreed::Refuse(RefuseReason::SplitBrain)) => {
                self.counters.mark("split brain: declared");
                self.split = true;
                self.parted_in_spite("a split brain was declared");
                let Some(c) = self.network.find(n, link) else { return };
                let told = self.network.connections[&c].told.each_ref();
                let roles = told.map(|facts| facts.as_ref().map_or(Role::Unknown, |f| f.role));
                let check = self.parted().split_brain_declared(roles);
                self.check(check);
            }
            Message::Agreed(Agreed::Refuse(RefuseReason::TwoPrimaries)) => {
                self.parted_in_spite("two Primaries met");
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
            Message::SyncData { serves: true, .. } => {
                self.counters.mark("resync: copied beside clients");
            }
            Message::SyncDiffers { units: 0, .. } => self.counters.mark("resync: all was equal"),
            Message::SyncDiffers { .. } => self.counters.mark("resync: something differed"),
            Message::SyncRead { volume, range, .. }
            | Message::SyncCompare { volume, range, .. } => {
                let (start, len) = sectors(*range);
                let volume = &self.volumes[volume::index(*volume)];
                let newer = volume.written_since(volume.model.apart_since());
                let check = volume.model.asks_for(n, start, len, newer);
                self.check(check);
            }
            Message::SyncCommit { id, volume, .. } => {
                // Named by the receiver's link, as the answer will be.
                let Some(c) = self.network.find(n, link) else { return };
                let theirs = self.network.connections[&c].ends[1 - n].link.0;
                self.commits.insert((1 - n, theirs, *id), (volume::index(*volume), Vec::new()));
            }
            Message::SyncGrant { volume, .. } => {
                self.volumes[volume::index(*volume)].model.granted(n);
                self.fork_soon = true;
            }
            Message::SyncCommitted { id } => {
                self.fork_soon |= self.rng.one_in(4);
                let Some((v, commit)) = self.commits.remove(&(n, link.0, *id)) else { return };
                let volume = &self.volumes[v];
                let newer = volume.written_since(volume.resync_since);
                let check = volume.model.bits_cleared(&volume.disks, n, &commit, newer);
                self.check(check);
            }
            _ => {}
        }
    }

    /// A node is about to act on this.
    pub(super) fn watch_event(&mut self, n: usize, event: &Event) {
        match event {
            Event::Peer(link, message) => self.watch_arrival(n, *link, message),
            // Not when it was given: a process that slept has lost its peer meanwhile, and takes the word for what it finds.
            Event::Admin(_, Command::ResumeIo) => self.overridden(n),
            _ => {}
        }
    }

    /// A node is about to act on what its peer said.
    fn watch_arrival(&mut self, n: usize, link: LinkId, message: &Message) {
        match message {
            // What does the source hold there by now?
            Message::SyncCommit { id, runs, .. } => {
                let Some((v, held)) = self.commits.get_mut(&(n, link.0, *id)) else { return };
                let blocks = runs.iter().flat_map(|&(first, count)| first..first + count);
                let disk = &self.volumes[*v].disks.0[n];
                *held = blocks
                    .map(|block| {
                        let block = block as u32;
                        (block, (block * 8..block * 8 + 8).map(|s| disk.settled(s)).collect())
                    })
                    .collect();
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
        let Some(id) = self.network.held(n).filter(|_| self.view(n).connected()) else {
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
                self.view(n)
            );
            self.violate("LIVE-3", story);
        }
    }

    /// LIVE-2: requests wait although no disk works, no message travels and nobody is silent: then the status says why.
    fn watch_held(&mut self, n: usize) {
        let at_work = self.disks().any(|disk| disk.busy() > 0)
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

fn state(view: &View, host: &Host, disk: &Disk) -> String {
    format!(
        "{:<9} {:<12} {:<11} {:<11} peer {:<9}/{:<12} gi {:04x} oos {:>4} KiB req {} io {} cached {}{}",
        format!("{:?}", view.role),
        format!("{:?}", view.disk),
        format!("{:?}", view.connection),
        format!("{:?}", view.replication),
        format!("{:?}", view.peer_role),
        format!("{:?}", view.peer_disk),
        view.current & 0xffff,
        view.out_of_sync / 1024,
        view.requests,
        host.ios.len(),
        disk.cached(),
        if view.suspended { " SUSPENDED" } else { "" },
    )
}

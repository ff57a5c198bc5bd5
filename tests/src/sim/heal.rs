//! The second phase of a run: nothing fails any more, and the two copies must become one again.

use super::client::Place;
use super::script::Stream;
use super::volume::operation;
use super::world::{MS, World};
use crate::model::{View, same_content};
use replicator::node::Status;

/// Simulated time in which a healed pair must be together again: 60 s to connect, 60 s for a resync this small, and as
/// much again for an operator who looks every half second.
const BOUND: u64 = 180_000 * MS;

/// Nothing is under way, and no counter says otherwise.
fn at_rest(status: &Status) -> bool {
    // The views are not looked at with every answer.
    (status.operations, status.requests) == (0, 0)
        && status.peers.iter().all(|p| {
            (p.in_flight, p.resync_in_flight, p.congested) == (0, 0, false)
                && p.volumes.iter().all(|v| (v.pending, v.unacked) == (0, 0))
        })
}

impl World {
    /// Both nodes are connected, UpToDate, with nothing to copy and nothing in flight.
    pub(super) fn settled(&self) -> bool {
        self.network.live().is_some()
            && self.network.quiet()
            && (0..2).all(|n| {
                self.views(n)
                    .all(|view| view.mirrored() && view.out_of_sync == 0 && !view.suspended)
            })
            && self.disks().all(|disk| disk.busy() == 0)
            && self.ops.is_empty()
            && self.hosts.iter().all(|h| {
                h.commands.is_empty() && h.process.as_ref().is_some_and(|p| at_rest(&p.status()))
            })
    }

    /// Stops all faults and repairs what is broken.
    pub(super) fn stop_faults(&mut self) {
        if self.trace > 0 {
            self.say("---- faults stop ----");
        }
        self.calm = true;
        self.refusals = 0;
        self.mend();
        for n in 0..2 {
            self.hosts[n].dies = None;
            self.hosts[n].disconnected = false;
            for v in 0..self.volumes.len() {
                self.disk(n, v).slow = false;
                self.disk(n, v).detached = false;
                self.unhang(n, v);
            }
            self.resume(n);
            for v in 0..self.volumes.len() {
                if self.disk(n, v).dead {
                    self.replace_disk(n, v);
                }
            }
            self.start(n);
            self.resume_io(n);
            self.bring_up(n);
        }
        for c in self.network.connections.values_mut() {
            c.stalled = [self.now; 2];
        }
    }

    /// LIVE-1, then CONV and what must hold when all is quiet.
    pub(super) fn heal(&mut self) {
        self.rng.enter(Some(Stream::Frame));
        self.stop_faults();
        let writing = self.rng.between(2000, 8000) * MS;
        self.run_until(self.now + writing);
        self.hushed = true;
        for c in 0..self.clients.len() {
            if let Place::Open(_) = self.clients[c].place {
                self.leave(c);
            }
        }
        let end = self.now + BOUND;
        if !self.run_to(end, Self::settled) {
            if self.violation.is_none() {
                self.apart("LIVE-1");
            }
            return;
        }
        self.check_each(|volume| same_content(&volume.disks, "CONV"));
        for n in 0..2 {
            self.check_each(|volume| volume.model.holds_promises(n, &volume.disks));
            let host = &self.hosts[n];
            if !host.buffers.is_empty() {
                let story =
                    format!("node {n} is idle and still holds buffers {:?}", host.buffers.keys());
                self.violate("LIM", story);
            }
        }
    }

    /// Not settled in time: by which invariant?
    pub(super) fn apart(&mut self, otherwise: &'static str) {
        let all = |what: fn(&View) -> bool| (0..2).all(|n| self.views(n).all(what));
        let same = self.network.live().is_some() && all(View::mirrored);
        if same && !all(|view| view.out_of_sync == 0) {
            // COV-6: nobody copies, nobody will, and the bits are still there.
            self.check_each(|volume| same_content(&volume.disks, "COV-2"));
            let story = self.unsettled();
            return self.violate("COV-6", story);
        }
        let story = self.unsettled();
        self.violate(otherwise, story);
    }

    /// Why it is not settled, for the story.
    pub(super) fn unsettled(&self) -> String {
        let mut story = String::from("the healed pair does not come together:");
        for n in 0..2 {
            let host = &self.hosts[n];
            let Some(process) = &host.process else {
                story += &format!("\n  node {n} does not run");
                continue;
            };
            let status = process.status();
            story += &format!(
                "\n  node {n} {:?} requests {} operations {} held {:?} disk io {} commands {:?} reason {:?}",
                self.views(n).collect::<Vec<_>>(),
                status.requests,
                status.operations,
                status.suspended,
                self.volumes.iter().map(|volume| volume.disks.0[n].busy()).sum::<usize>(),
                host.commands
                    .values()
                    .map(|p| (&p.command, (self.now - p.since) / MS))
                    .collect::<Vec<_>>(),
                status.peers.first().map(|p| p.reason.clone()),
            );
        }
        for (&id, op) in &self.ops {
            let (v, id) = operation(id);
            let what = self.volumes[v].model.history.op(id);
            story += &format!("\n  open: #{id} {what:?} of client {}", op.client);
        }
        story
    }
}

//! The operator's handlers: how a lost peer is outdated over another network, or shot; and what fencing has to mean for what the
//! nodes do afterwards (ROLE-4).

use super::deed::Deed;
use super::world::{MS, What, World};
use crate::model::View;
use bitmap::Generation;
use replicator::config::Fencing;
use replicator::node::{
    Command, ConnectionState, Event, Handler, HandlerId, Occasion, PeerStatus, Refusal,
    RefusalKind, Role, Status,
};

/// A run of `fence-peer`.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// How long it tries to reach the peer's own `outdate`.
    until: u64,
    /// Its command to the peer, and that process.
    asked: Option<(u64, u32)>,
    /// What that said.
    answer: Option<i32>,
    /// It was told to ask again.
    deferred: bool,
}

impl Run {
    /// Can it take its next step at once, or has it to wait for the peer?
    pub(super) fn is_ready(&self) -> bool {
        self.answer.is_some() || (self.asked.is_none() && !self.deferred)
    }

    /// All that decides what it does next.
    pub(super) fn stands(&self, now: u64) -> impl std::fmt::Debug + use<> {
        let life = self.asked.map(|(_, life)| life);
        (now < self.until, life, self.answer, self.deferred)
    }

    /// Has it reached the peer?
    #[cfg(test)]
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }
}

/// What is known of one node's right to go on without its peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Fenced {
    /// Since it was last connected a handler has succeeded, or an operator gave his word.
    pub(super) allowed: bool,
    /// Generations it began while that was so, one for each volume and time.
    begun: std::collections::BTreeSet<u64>,
    pub(super) runs: std::collections::BTreeMap<u64, Run>,
    /// Since when, and not stopped, it is a Primary that waits for a handler, as it says itself, and none runs.
    pub(super) idle_since: Option<u64>,
    /// The last handler on each occasion.
    pub(super) told: std::collections::BTreeMap<Occasion, Handler>,
}

impl World {
    /// A node wants a handler to be run.
    pub(super) fn run_handler(&mut self, n: usize, id: HandlerId, handler: &Handler) {
        let life = self.hosts[n].life;
        self.fenced[n].told.insert(handler.occasion, handler.clone());
        match handler.occasion {
            Occasion::FencePeer => {
                self.counters.mark("fence: handler ran");
                let (until, delay) = if self.forked {
                    (self.now, MS)
                } else {
                    let patience = self.rng.spread(50 * MS, 5000 * MS);
                    (self.now + patience, self.rng.spread(MS, 2000 * MS))
                };
                let run = Run { until, asked: None, answer: None, deferred: false };
                self.fenced[n].runs.insert(id.0, run);
                self.fenced[n].idle_since = None;
                self.after(delay, What::Fence { node: n, life, id: id.0 });
            }
            Occasion::BeforeResyncTarget => {
                let refused = !self.calm && self.fencing() && self.rng.one_in(20);
                if refused {
                    self.counters.mark("handler: forbade a resync");
                }
                let delay = if self.fencing() { self.rng.spread(MS, 3000 * MS) } else { 0 };
                self.after(delay, What::Handled { node: n, life, id: id.0, code: refused.into() });
            }
            // Nobody waits for them.
            _ => self.counters.mark("handler: told of something"),
        }
    }

    pub(super) fn fencing(&self) -> bool {
        self.knobs.fencing != Fencing::DontCare
    }

    /// A handler takes its next step.
    pub(super) fn fence_step(&mut self, n: usize, id: u64) {
        let Some(run) = self.fenced[n].runs.get(&id).cloned() else { return };
        let life = self.hosts[n].life;
        if run.asked.is_none() && !self.calm {
            match self.rng.below(20) {
                0 => return self.fence_ends(n, id, Ok(1)),
                1 => return self.fence_ends(n, id, Err("did not end and was killed".into())),
                _ => {}
            }
        }
        if let Some(code) = run.answer {
            return self.fence_ends(n, id, Ok(code));
        }
        let peer = 1 - n;
        let reachable = self.hosts[peer].running() && !self.hosts[peer].paused;
        if reachable && self.now < run.until {
            if run.asked.is_none_or(|(_, life)| life != self.hosts[peer].life) {
                self.next_command += 1;
                let command = self.next_command;
                let asked = Some((command, self.hosts[peer].life));
                self.fenced[n].runs.insert(id, Run { asked, ..run });
                self.give(peer, command, Command::Outdate);
            }
            return self.after(self.knobs.fence_poll, What::Fence { node: n, life, id });
        }
        if self.knobs.fencing == Fencing::ResourceAndStonith {
            self.counters.mark("fence: the peer was shot");
            if self.hosts[peer].running() {
                self.crash_now(peer, true);
            }
            return self.fence_ends(n, id, Ok(7));
        }
        let code = if self.hosts[peer].running() { 1 } else { 5 };
        self.fence_ends(n, id, Ok(code));
    }

    /// `outdate`, ordered by a handler, is answered.
    pub(super) fn outdate_answered(
        &mut self,
        peer: usize,
        command: u64,
        result: &Result<(), Refusal>,
    ) {
        let n = 1 - peer;
        let code = match result {
            Ok(()) => Some(4),
            Err(refusal) => match refusal.kind {
                RefusalKind::NotOutdatable => Some(3),
                RefusalKind::Primary => Some(6),
                // Asked again.
                RefusalKind::Connected | RefusalKind::Busy => None,
                _ => Some(1),
            },
        };
        for run in self.fenced[n].runs.values_mut() {
            if run.asked.is_some_and(|(asked, _)| asked == command) {
                run.answer = code;
                if code.is_none() {
                    (run.asked, run.deferred) = (None, true);
                }
            }
        }
    }

    pub(super) fn fence_ends(&mut self, n: usize, id: u64, end: Result<i32, String>) {
        self.fenced[n].runs.remove(&id);
        let view = *self.view(n);
        match end {
            Ok(3 | 4 | 7) => self.fenced[n].allowed |= !view.connected(),
            Ok(5) => {
                // A guess: what comes of it is not our node's fault.
                self.fenced[n].allowed |= !view.connected();
                self.unsafe_fencing = true;
            }
            Ok(6) => self.counters.mark("fence: the peer was Primary"),
            Ok(_) | Err(_) => self.counters.mark("fence: handler failed"),
        }
        if self.trace > 0 {
            self.say(&format!("{n} fence-peer ends: {end:?}"));
        }
        self.feed(n, Event::Handler(HandlerId(id), end), None);
    }

    /// An operator's word stands in for a fence.
    pub(super) fn overridden(&mut self, n: usize) {
        if self.fencing() && !self.view(n).connected() {
            self.fenced[n].allowed = true;
            self.unsafe_fencing = true;
        }
    }

    /// An operator's whim: a snapshot; or his word that the peer is down, true or not.
    pub(super) fn suspend(&mut self, n: usize) {
        match self.rng.below(4) {
            0 => self.perform(Deed::Command { node: n, command: Command::Outdate }),
            1 => self.perform(Deed::Suspend { node: n }),
            2 if self.rng.one_in(3) => {
                self.perform(Deed::Command { node: n, command: Command::ResumeIo });
            }
            _ => {}
        }
    }

    /// The snapshot is made.
    pub(super) fn resume_io(&mut self, n: usize) {
        if std::mem::take(&mut self.hosts[n].suspended) {
            self.command(n, Command::ResumeIo);
        }
    }

    /// With handlers that do not guess, and no operator's word, no two nodes go on apart.
    pub(super) fn parted_in_spite(&mut self, what: &str) {
        let async_ = self.knobs.protocol == replicator::node::Protocol::A;
        let ordered = self.volumes.iter().any(|volume| volume.model.ordered());
        if self.fencing() && !self.unsafe_fencing && !self.excused && !ordered && !async_ {
            self.violate(
                "ROLE-4",
                format!("{what}, although whoever went on had fenced the other"),
            );
        }
    }

    /// ROLE-4, at the acknowledgement of a write.
    pub(super) fn may_go_on(&mut self, n: usize) {
        // In one turn it may have answered first, and lost the peer then.
        let before = self.volumes[0].model.view_before(n);
        let connected = self.view(n).connected() || before.connected();
        if !self.fencing() || connected || self.fenced[n].allowed {
            return;
        }
        // Where the peer lacks something already, it was fenced before, or has no disk: nobody promotes it.
        let behind = self.volumes.iter().any(|volume| volume.model.acknowledged_alone(n));
        // It was fenced before this began a generation, and has not met that: it may have met this node without its disk.
        let ahead = self.views(n).all(|view| self.fenced[n].begun.contains(&view.current));
        // The peer's own stable word that it is not good, if nobody has taken it back by force since.
        let known = behind
            || self.volumes.iter().any(|volume| volume.model.forced(1 - n))
            || (0..self.volumes.len()).any(|v| {
                let current = Generation(self.volumes[v].model.view(n).current);
                let volume = &mut self.volumes[v];
                let found = volume.facts.read(&volume.disks, 1 - n);
                found.is_none_or(|facts| {
                    let sb = facts.metadata.superblock();
                    let good = sb.flags.consistent && sb.flags.was_up_to_date;
                    !good || (ahead && !sb.descends_from(current))
                })
            });
        self.fenced[n].allowed = known;
        if !known {
            let story = format!(
                "node {n} acknowledged a write alone, and nobody has fenced its peer: {:?}",
                self.view(n)
            );
            self.violate("ROLE-4", story);
        }
    }

    /// LIVE-4: what could not fence the peer is tried again. Not where that one is Primary: then this node's data has lost.
    pub(super) fn watch_retry(&mut self, n: usize, status: &Status) {
        let failed = |p: &PeerStatus| {
            let why = p.reason.strip_prefix("fence-peer ");
            p.connection < ConnectionState::Handshaking && why.is_some_and(|w| !w.contains("(6)"))
        };
        let waits = status.suspended == Some("fencing") && status.peers.iter().any(failed);
        let fenced = &mut self.fenced[n];
        if !waits || !fenced.runs.is_empty() {
            fenced.idle_since = None;
            return;
        }
        let since = *fenced.idle_since.get_or_insert(self.now);
        if self.now > since + 6000 * MS {
            let story = format!("node {n} holds I/O, and runs fence-peer no more: {status:?}");
            self.violate("LIVE-4", story);
        }
    }

    /// ROLE-5: a Primary that has to make way for the other tells what runs on top; nobody else does. `before`: this turn.
    pub(super) fn makes_way(&mut self, n: usize, before: Option<Role>, replaced: bool, told: bool) {
        let yielded = before == Some(Role::Primary) && self.view(n).role == Role::Secondary;
        if told {
            self.counters.mark("handler: told that the peer has taken over");
        }
        if (yielded && replaced && !told) || (told && !yielded) {
            let story = format!("node {n}, {before:?} before, pri-lost {told}: {:?}", self.view(n));
            self.violate("ROLE-5", story);
        }
    }

    /// A node was seen: what was allowed for one loss is not for the next.
    pub(super) fn watch_fence(&mut self, n: usize, old: &View, view: &View) {
        let fenced = &mut self.fenced[n];
        if view.connected() && !old.connected() {
            fenced.allowed = false;
        } else if fenced.allowed && view.current != old.current {
            fenced.begun.insert(view.current);
        }
    }
}

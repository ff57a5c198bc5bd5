//! What may happen next in a state, and making it happen.

use super::State;
use crate::model::Kind;
use crate::sim::Rng;
use crate::sim::client::Place;
use crate::sim::host::IoKind;
use crate::sim::world::{What, World};
use replicator::node::{Command, Role};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Something that is under way happens: its number among all that was ever put there.
    Happens(u64),
    /// Nothing else is there to happen: time passes until what is due first.
    TimePasses,
    /// The client of this node and volume writes the first block of an extent.
    Write { node: usize, volume: usize, extent: u32 },
    /// It wants everything stable.
    Flush { node: usize, volume: usize },
    /// A process is killed.
    Kill { node: usize },
    /// The power of a machine fails: the disk has kept all, nothing, or something of what was not stable.
    PowerCut { node: usize, kept: u64 },
    /// The connection breaks.
    Cut,
    /// The node is told to be Primary.
    Promote { node: usize },
}

/// How a thing that is in the world's future is treated here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It will do nothing.
    Dead,
    /// It happens at once: when it does makes no difference to anybody.
    AtOnce,
    /// At any time from now on.
    AnyTime,
    /// When its time has come.
    OnTime,
}

/// Ways in which a power cut takes what is not stable: seeds of the disk's own choice.
const KEPT: u64 = 3;

/// Nodes that are refused by each other try again for ever, and never with the same random delay: so often is enough.
const PATIENCE: u8 = 12;

impl State {
    /// What may happen next.
    pub(super) fn moves(&self) -> Vec<Move> {
        let world = &self.world;
        let mut moves: Vec<Move> = Vec::new();
        let mut timed = false;
        for (at, seq, what) in world.future() {
            match world.class(at, what) {
                Class::AnyTime => moves.push(Move::Happens(seq)),
                Class::OnTime => timed = true,
                Class::Dead | Class::AtOnce => {}
            }
        }
        // The numbers rise as things are put there: the same order each time.
        moves.sort_by_key(|wanted| match wanted {
            Move::Happens(seq) => *seq,
            _ => 0,
        });
        // Pings of an idle pair change nothing.
        let idle = world.settled() && world.disks().all(|disk| disk.cached() == 0);
        if moves.is_empty() && timed && !idle && self.waited < PATIENCE {
            moves.push(Move::TimePasses);
        }
        let left = &self.left;
        for node in 0..2 {
            for (volume, &extents) in self.extents.iter().enumerate() {
                let client = &world.clients[world.client(node, volume)];
                if client.place != Place::Open(node) || !world.hosts[node].running() {
                    continue;
                }
                if left.writes > 0 {
                    let write = |extent| Move::Write { node, volume, extent };
                    moves.extend((0..=extents.min(1)).map(write));
                }
                if left.flushes > 0 {
                    moves.push(Move::Flush { node, volume });
                }
            }
            if left.kills > 0 && world.hosts[node].running() {
                moves.push(Move::Kill { node });
            }
            if left.power_cuts > 0 && world.hosts[node].running() {
                moves.extend((0..KEPT).map(|kept| Move::PowerCut { node, kept }));
            }
            if left.promotions > 0 && world.may_be_promoted(node) {
                moves.push(Move::Promote { node });
            }
        }
        if left.cuts > 0 && world.network.live().is_some() {
            moves.push(Move::Cut);
        }
        moves
    }

    /// Makes one of them, and all that follows at once.
    pub(super) fn make(&mut self, wanted: Move) {
        let world = &mut self.world;
        match wanted {
            Move::Happens(_) => {}
            Move::TimePasses => self.waited += 1,
            _ => self.waited = 0,
        }
        // Delays mean nothing here; what a node draws for itself must differ with each of its lives.
        world.rng = Rng::new(u64::from(world.hosts[0].life) << 32 | u64::from(world.hosts[1].life));
        match wanted {
            Move::Happens(seq) => world.bring_about(seq),
            Move::TimePasses => {
                let timed =
                    world.future().filter(|(at, _, what)| world.class(*at, what) == Class::OnTime);
                let first = timed.map(|(at, seq, _)| (at, seq)).min();
                let (at, seq) = first.expect("something waits for its time");
                world.now = world.now.max(at);
                world.bring_about(seq);
            }
            Move::Write { node, volume, extent } => {
                self.left.writes -= 1;
                self.extents[volume] = self.extents[volume].max(extent + 1);
                // Two blocks an extent, eight sectors a block.
                let client = world.client(node, volume);
                world.request(client, node, Kind::Write, extent * 16, 8, false);
            }
            Move::Flush { node, volume } => {
                self.left.flushes -= 1;
                world.request(world.client(node, volume), node, Kind::Flush, 0, 0, false);
            }
            Move::Kill { node } => {
                self.left.kills -= 1;
                world.die(node, false);
            }
            Move::PowerCut { node, kept } => {
                self.left.power_cuts -= 1;
                world.rng = Rng::new(kept);
                world.die(node, true);
            }
            Move::Cut => {
                self.left.cuts -= 1;
                world.part();
            }
            Move::Promote { node } => {
                self.left.promotions -= 1;
                world.command(node, Command::Primary { force: false });
            }
        }
        self.world.settle_at_once();
    }

    /// For a person.
    pub(super) fn describe(&self, wanted: Move) -> String {
        match wanted {
            Move::Happens(seq) => {
                let what = self.world.future().find(|(_, s, _)| *s == seq).map(|(_, _, what)| what);
                what.map_or_else(|| "nothing".into(), |what| self.world.describe(what))
            }
            other => format!("{other:?}"),
        }
    }
}

impl World {
    /// The client of a node that uses a volume.
    fn client(&self, node: usize, volume: usize) -> usize {
        node * self.volumes.len() + volume
    }

    /// What is in the future: when, and its number. In no order.
    pub(super) fn future(&self) -> impl Iterator<Item = (u64, u64, &What)> {
        self.heap.iter().map(|entry| (entry.at, entry.seq, &entry.what))
    }

    /// Something of it happens now, whenever it was to.
    fn bring_about(&mut self, seq: u64) {
        let found = self.heap.iter().find(|entry| entry.seq == seq);
        let what = found.expect("it is in the future").what.clone();
        self.forget(&[seq]);
        self.dispatch(what);
    }

    /// These never happen.
    fn forget(&mut self, seqs: &[u64]) {
        self.heap.retain(|entry| !seqs.contains(&entry.seq));
    }

    fn class(&self, at: u64, what: &What) -> Class {
        let lives = |node: usize, life: u32| self.hosts[node].life == life;
        let when = |condition: bool, class: Class| if condition { class } else { Class::Dead };
        match what {
            What::Disk { node, life, io } => match self.hosts[*node].ios.get(io) {
                // Its own disk alone answers, and nobody else can tell when.
                Some(io) if lives(*node, *life) && io.kind == IoKind::ReadMeta => Class::AtOnce,
                io => when(io.is_some() && lives(*node, *life), Class::AnyTime),
            },
            What::Arrive { connection, to } => {
                let c = self.network.connections.get(connection);
                when(c.is_some_and(|c| !c.ends[*to].gone), Class::AnyTime)
            }
            What::Broken { connection, node } => {
                let c = self.network.connections.get(connection);
                when(c.is_some_and(|c| !c.ends[*node].gone), Class::AnyTime)
            }
            What::Stale { node, life, .. } => when(lives(*node, *life), Class::AnyTime),
            What::Start { node } => when(!self.hosts[*node].running(), Class::AnyTime),
            What::Meet => when(self.network.wanted != [None; 2], Class::AtOnce),
            What::Drain { .. } | What::CloseOpen { .. } => Class::AtOnce,
            What::Tick { node, life } => {
                when(lives(*node, *life) && self.hosts[*node].tick_at == at, Class::OnTime)
            }
            What::Unreachable { node, life, link } => {
                let waits = self.network.wanted[*node] == Some(*link)
                    || self
                        .network
                        .find(*node, *link)
                        .is_some_and(|id| !self.network.connections[&id].ends[*node].up);
                when(lives(*node, *life) && waits, Class::OnTime)
            }
            What::Handled { node, life, .. } => when(lives(*node, *life), Class::AnyTime),
            What::Fence { node, life, id } => match self.fenced[*node].runs.get(id) {
                Some(run) if lives(*node, *life) && !run.is_ready() => Class::OnTime,
                run => when(run.is_some() && lives(*node, *life), Class::AnyTime),
            },
            What::Exit { node, life } | What::ResumeIo { node, life } => {
                when(lives(*node, *life), Class::OnTime)
            }
            What::Retry { .. } => Class::OnTime,
            // The search itself is the client, the operator and the faults.
            What::Issue { .. }
            | What::Reopen { .. }
            | What::Strike(_)
            | What::Unhang { .. }
            | What::DiskFound { .. }
            | What::Mend
            | What::Resume { .. }
            | What::Operator
            | What::Manager
            | What::Cut
            | What::Scene { .. }
            | What::NewDisk { .. }
            | What::Agent { .. } => Class::Dead,
        }
    }

    fn may_be_promoted(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        host.running() && host.commands.is_empty() && self.view(node).role == Role::Secondary
    }

    /// What happens at once happens; a client opens what may be open to it.
    fn settle_at_once(&mut self) {
        self.happen_at_once();
        for c in 0..self.clients.len() {
            let node = c / self.volumes.len();
            // Who is refused tries again after the next move.
            if self.clients[c].place == Place::Away && self.view(node).role == Role::Primary {
                self.open_at(c, node);
                self.happen_at_once();
            }
        }
        self.drop_future(Class::Dead);
    }

    fn happen_at_once(&mut self) {
        while self.violation.is_none() {
            let at_once = |(at, seq, what): (u64, u64, &What)| {
                (self.class(at, what) == Class::AtOnce).then_some(seq)
            };
            match self.future().filter_map(at_once).min() {
                Some(seq) => self.bring_about(seq),
                None => break,
            }
        }
    }

    fn drop_future(&mut self, class: Class) {
        let dead =
            |(at, seq, what): (u64, u64, &What)| (self.class(at, what) == class).then_some(seq);
        let dead: Vec<u64> = self.future().filter_map(dead).collect();
        self.forget(&dead);
    }

    /// A machine or its process dies, and may start again at any time.
    fn die(&mut self, node: usize, power: bool) {
        self.lets_through();
        self.kill(node, power);
        self.after(0, What::Start { node });
    }

    /// The connection breaks; each end learns of it at any time, before or after what is under way to it.
    fn part(&mut self) {
        self.lets_through();
        let ids: Vec<u64> = self.network.connections.keys().copied().collect();
        for connection in ids {
            (0..2).for_each(|node| self.after(0, What::Broken { connection, node }));
        }
    }

    /// What was sent before a cut may arrive yet, any part of it: whoever learns of the cut reads no further.
    fn lets_through(&mut self) {
        self.network.connections.values_mut().for_each(|c| c.cut = true);
    }

    fn describe(&self, what: &What) -> String {
        match what {
            What::Arrive { connection, to } => {
                let parcel =
                    self.network.connections.get(connection).and_then(|c| c.to[*to].front());
                format!(
                    "to {to}: {}",
                    parcel.map_or("nothing".into(), |(_, parcel)| format!("{parcel:?}"))
                )
            }
            What::Disk { node, io, .. } => {
                let kind = self.hosts[*node].ios.get(io).map(|io| io.kind);
                format!(
                    "disk of {node}: {}",
                    kind.map_or("nothing".into(), |kind| format!("{kind:?} {io}"))
                )
            }
            other => format!("{other:?}"),
        }
    }
}

//! Everything there is in a run, and the flow of time through it. Cloneable: a clone is another future.

use super::client::Client;
use super::counters::Counters;
use super::deed::Deed;
use super::disk::Disk;
use super::disks::Disks;
use super::fencing::Fenced;
use super::host::{Host, Incoming};
use super::lease::Lock;
use super::link::{Network, Parcel};
use super::script::{Beat, Source, is_decision, stream_of};
use super::swarm::{Fault, Knobs};
use super::volume::Volume;
use super::{Clock, Rng};
use crate::model::{Check, Cluster, Committing, OpId, Parted, View, Violation};
use bitmap::Metadata;
use replicator::node::{Action, ConnectionState, Event, HandlerId, LinkId, Occasion, OpenId};
use replicator::wire::{Agreed, Message};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

pub(super) const MS: u64 = 1_000_000;

/// What happens at a moment.
#[derive(Clone, Debug)]
pub(super) enum What {
    Disk { node: usize, life: u32, io: u64 },
    Arrive { connection: u64, to: usize },
    Stale { node: usize, life: u32, link: LinkId, parcel: Box<Parcel> },
    Meet,
    Unreachable { node: usize, life: u32, link: LinkId },
    Broken { connection: u64, node: usize },
    Tick { node: usize, life: u32 },
    Issue { client: usize },
    Reopen { client: usize },
    Strike(Fault),
    Unhang { node: usize, v: usize },
    DiskFound { node: usize, v: usize },
    Mend,
    Resume { node: usize, life: u32 },
    Start { node: usize },
    Operator,
    Manager,
    Cut,
    Scene { index: usize },
    Drain { node: usize },
    CloseOpen { node: usize, life: u32, open: u64 },
    NewDisk { node: usize, v: usize },
    Exit { node: usize, life: u32 },
    Retry { node: usize },
    ResumeIo { node: usize, life: u32 },
    Agent { node: usize },
    Fence { node: usize, life: u32, id: u64 },
    Handled { node: usize, life: u32, id: u64, code: i32 },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    pub(super) seq: u64,
    pub(super) what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// A client operation under way.
#[derive(Clone, Debug)]
pub(super) struct InFlightOp {
    pub(super) client: usize,
    pub(super) floors: Vec<OpId>,
}

/// The world.
#[derive(Clone)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: u64,
    pub(super) knobs: Arc<Knobs>,
    pub(super) rng: Rng,
    /// Who decides what is done to the nodes.
    pub(super) source: Source,
    pub(super) beat: Beat,
    /// What comes after this is of no interest, also whether it heals.
    pub(super) until: Option<u64>,
    pub(super) heap: BinaryHeap<Entry>,
    seq: u64,
    pub(super) hosts: [Host; 2],
    pub(super) volumes: Vec<Volume>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) ops: BTreeMap<u64, InFlightOp>,
    /// The resync commits under way, by source, its link and the id: volume, and what is committed.
    pub(super) commits: BTreeMap<(usize, u64, u64), (usize, Committing)>,
    /// May each go on without the other?
    pub(super) fenced: [Fenced; 2],
    /// A handler guessed, or an operator overrode it: both may have gone on.
    pub(super) unsafe_fencing: bool,
    /// On being Primary.
    pub(super) lock: Lock,
    pub(super) counters: Counters,
    pub(super) violation: Option<Violation>,
    pub(super) events: u64,
    pub(super) next_command: u64,
    pub(super) next_disk: u32,
    /// No faults, no operator's whims any more.
    pub(super) calm: bool,
    /// Clients send nothing new.
    pub(super) hushed: bool,
    /// This is a fork: nothing but the nodes moves.
    pub(super) forked: bool,
    /// This machine never comes back.
    pub(super) lost: Option<usize>,
    /// A disk was lost, or an operator was cruel: good data may be gone for ever.
    pub(super) excused: bool,
    pub(super) initialised: bool,
    /// A split brain was declared and not resolved.
    pub(super) split: bool,
    /// Two Primaries met: an operator must choose.
    pub(super) two_primaries: bool,
    /// Two disks met that never held the same; the operator has one made anew.
    pub(super) unrelated: bool,
    pub(super) refusals: u32,
    /// Events at this very moment.
    crowd: u32,
    pub(super) since_fork: u64,
    pub(super) fork_soon: bool,
    /// No forks before this time.
    pub(super) forks_from: u64,
    /// The chance of the fork that broke something; set before, every fork has it.
    pub(super) fork_chance: Option<u64>,
    /// Hash of all actions (DET); 0 while not wanted.
    pub(super) hash: u64,
    /// 0: silent, 1: state changes, 2: everything.
    pub(super) trace: u8,
    out: Vec<Action>,
}

impl World {
    /// A world with two machines that are off and two formatted disks.
    pub(super) fn new(seed: u64, knobs: Knobs, mut rng: Rng) -> Self {
        let mut host = |n: usize| {
            let early = rng.spread(1, 3_600_000) * MS;
            // World time starts late enough for any clock to have started before it.
            Host::new(Clock::booted(1 << 42, early, knobs.rates[n]))
        };
        let hosts = [host(0), host(1)];
        let volumes: Vec<_> = (0..knobs.volumes)
            .map(|v| {
                let number = |n| (2 * v + n) as u32;
                let disks = [0, 1].map(|n| fresh_disk(&knobs, n, number(n), rng.next()));
                let sectors = disks[0].sectors;
                let model = Cluster::new(sectors, knobs.protocol, knobs.flush_peer);
                Volume::new(Disks(disks), model)
            })
            .collect();
        let clients = (0..knobs.clients).map(|_| Client::default()).collect();
        Self {
            seed,
            now: 1 << 42,
            rng,
            source: Source::Seed,
            beat: Beat::default(),
            until: None,
            heap: BinaryHeap::new(),
            seq: 0,
            hosts,
            next_disk: 2 * volumes.len() as u32,
            volumes,
            network: Network::new(knobs.link_delay, knobs.framed),
            clients,
            ops: BTreeMap::new(),
            commits: BTreeMap::new(),
            fenced: Default::default(),
            unsafe_fencing: false,
            lock: Lock::default(),
            counters: Counters::default(),
            violation: None,
            events: 0,
            next_command: 0,
            calm: false,
            hushed: false,
            forked: false,
            lost: None,
            excused: false,
            initialised: false,
            split: false,
            two_primaries: false,
            unrelated: false,
            refusals: 0,
            crowd: 0,
            since_fork: 0,
            fork_soon: false,
            forks_from: 0,
            fork_chance: None,
            hash: 0,
            trace: 0,
            out: Vec::new(),
            knobs: Arc::new(knobs),
        }
    }

    /// Puts something into the future.
    pub(super) fn after(&mut self, delay: u64, what: What) {
        self.at(self.now + delay, what);
    }

    /// Puts something at a time.
    pub(super) fn at(&mut self, at: u64, what: What) {
        self.seq += 1;
        self.heap.push(Entry { at: at.max(self.now), seq: self.seq, what });
    }

    /// Something else than deeds is still to happen at this very time.
    pub(super) fn more_now(&self) -> bool {
        self.heap.iter().any(|entry| entry.at == self.now && !is_decision(&entry.what))
    }

    /// Notes a broken invariant; the first one counts.
    pub(super) fn check(&mut self, check: Check) {
        if let Err(violation) = check {
            if self.trace > 0 {
                self.say(&format!("VIOLATION {} {}", violation.invariant, violation.story));
            }
            self.violation.get_or_insert(violation);
        }
    }

    /// A broken invariant.
    pub(super) fn violate(&mut self, invariant: &'static str, story: impl Into<String>) {
        self.check(Err(Violation::new(invariant, story)));
    }

    /// Takes the next event; false if there is none up to `end`, or an invariant is broken.
    pub(super) fn step(&mut self, end: u64) -> bool {
        if self.violation.is_some() {
            return false;
        }
        match self.heap.peek() {
            Some(entry) if entry.at <= end => {}
            _ => {
                self.now = end;
                return false;
            }
        }
        self.fork_if_due();
        if self.violation.is_some() {
            return false;
        }
        let entry = self.heap.pop().expect("peeked");
        self.crowd = if entry.at == self.now { self.crowd + 1 } else { 0 };
        if self.crowd > 200_000 {
            self.violate("LIVE-1", "events follow each other without time passing");
            return false;
        }
        if let Source::Seed = self.source {
            self.now = entry.at;
            self.dispatch(entry.what);
        } else {
            self.beat.next(entry.at > self.now, &entry.what);
            self.now = entry.at;
            let free = self.calm || !self.initialised;
            let outer = self.rng.enter(stream_of(&entry.what, free));
            self.dispatch(entry.what);
            self.rng.enter(outer);
        }
        true
    }

    /// Runs until a time.
    pub(super) fn run_until(&mut self, end: u64) {
        while self.step(end) {}
    }

    /// Runs until a condition holds; looks every few events. False if it does not hold by `end`.
    pub(super) fn run_to(&mut self, end: u64, done: impl Fn(&Self) -> bool) -> bool {
        let mut count = 0u32;
        while self.step(end) {
            count += 1;
            if count.is_multiple_of(8) && done(self) {
                return true;
            }
        }
        self.violation.is_none() && done(self)
    }

    pub(super) fn dispatch(&mut self, what: What) {
        match what {
            What::Disk { node, life, io } => {
                if self.hosts[node].life == life {
                    self.disk_done(node, io);
                }
            }
            What::Arrive { connection, to } => self.arrive(connection, to),
            What::Stale { node, life, link, parcel } => {
                if self.hosts[node].life == life {
                    self.counters.mark("link: event of an earlier link delivered");
                    self.stale(node, link, *parcel);
                }
            }
            What::Meet => self.meet(),
            What::Unreachable { node, life, link } => {
                if self.hosts[node].life != life {
                    return;
                }
                if self.network.wanted[node] == Some(link) {
                    self.network.wanted[node] = None;
                    self.link_down(node, link, true);
                } else if let Some(id) = self.network.find(node, link)
                    && !self.network.connections[&id].ends[node].up
                {
                    // The first bytes never came: the attempt is bounded in time.
                    self.broken(id, node);
                }
            }
            What::Broken { connection, node } => self.broken(connection, node),
            What::Tick { node, life } => {
                let host = &mut self.hosts[node];
                if host.life == life && host.tick_at <= self.now {
                    host.tick_at = u64::MAX;
                    if host.paused {
                        return;
                    }
                    self.feed(node, Event::Tick, None);
                }
            }
            What::Resume { node, life } => {
                if self.hosts[node].life == life {
                    self.resume(node);
                }
            }
            What::Start { node } => self.start(node),
            What::Mend => self.mend(),
            What::Unhang { node, v } => self.unhang(node, v),
            What::Drain { node } => self.drain(node),
            What::Fence { node, life, id } => {
                if self.hosts[node].life == life {
                    self.fence_step(node, id);
                }
            }
            What::ResumeIo { node, life } => {
                if self.hosts[node].life == life {
                    self.resume_io(node);
                }
            }
            What::Handled { node, life, id, code } => {
                if self.hosts[node].life == life {
                    let code = if self.forked { 0 } else { code };
                    self.feed(node, Event::Handler(HandlerId(id), Ok(code)), None);
                }
            }
            What::CloseOpen { node, life, open } => {
                if self.hosts[node].life == life {
                    self.feed(node, Event::Close(OpenId(open)), None);
                }
            }
            _ if self.forked => {}
            What::Issue { client } => self.issue(client),
            What::Reopen { client } => self.reopen(client),
            What::Strike(fault) => self.strike(fault),
            What::Cut if self.calm => {}
            What::Cut => self.perform(Deed::Cut { half_open: false }),
            What::Scene { index } => self.play(index),
            What::Operator => self.operator(),
            What::Manager => self.manager(),
            What::Agent { node } => self.agent(node),
            What::Exit { node, life } => {
                if self.hosts[node].life == life {
                    self.kill(node, false);
                    let delay = self.rng.between(100, 3000) * MS;
                    self.after(delay, What::Start { node });
                }
            }
            What::DiskFound { node, v } => {
                self.disk(node, v).detached = false;
                self.bring_up(node);
            }
            What::NewDisk { node, v } => self.replace_disk(node, v),
            What::Retry { node } => self.bring_up(node),
        }
    }

    /// Gives an event to a process, or lets it wait if the process is paused.
    pub(super) fn feed(&mut self, n: usize, event: Event, handed: Option<(usize, u32)>) {
        let host = &mut self.hosts[n];
        if !host.running() {
            return;
        }
        if host.paused {
            host.inbox.push_back(Incoming { event, handed });
            return;
        }
        self.handle(n, event, handed);
    }

    fn handle(&mut self, n: usize, event: Event, handed: Option<(usize, u32)>) {
        self.events += 1;
        self.since_fork += 1;
        if let Some((v, order)) = handed {
            self.disk(n, v).handed(order);
        }
        self.watch_event(n, &event);
        let now = self.hosts[n].clock.read(self.now);
        if self.trace > 1 {
            self.say(&format!("{n} <- {}", brief(&format!("{event:?}"))));
        }
        self.count_event(n, &event);
        let mut out = std::mem::take(&mut self.out);
        let host = &mut self.hosts[n];
        let Some(process) = host.process.as_mut() else { return };
        host.turns += 1;
        for volume in &mut self.volumes {
            volume.model.turn(n);
        }
        let meets = self.volumes[0].model.view(n).connection == ConnectionState::Handshaking
            || matches!(event, Event::Link(..));
        let facts = if meets { Some(process.status()) } else { None };
        let mut changed = may_change_state(&event);
        let replaced = matches!(event, Event::Peer(_, Message::Agreed(Agreed::YouStepDown)));
        process.handle(now, event, &mut out);
        changed |= out.iter().any(tells_of_change);
        if self.hash != 0 {
            for action in &out {
                self.hash = hash(self.hash, &format!("{n} {now:?} {action:?}"));
            }
        }
        if changed {
            self.observe(n);
        }
        let told = out
            .iter()
            .any(|a| matches!(a, Action::Handler(_, h) if h.occasion == Occasion::PriLost));
        self.makes_way(n, facts.as_ref().map(|facts| facts.role), replaced, told);
        if let Some(facts) = facts.filter(|_| self.view(n).connected()) {
            self.facts_stand(n, &facts);
        }
        if out.len() > 1
            && let Some(power) = self.hosts[n].dies
        {
            self.die_in_batch(n, out, power);
            return;
        }
        for action in out.drain(..) {
            self.act(n, action);
            if self.violation.is_some() {
                break;
            }
        }
        out.clear();
        self.out = out;
        self.schedule_tick(n);
    }

    fn schedule_tick(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        let Some(deadline) = host.process.as_ref().and_then(|p| p.deadline()) else { return };
        let at = host.clock.world(deadline).max(self.now);
        if at < host.tick_at {
            host.tick_at = at;
            let life = host.life;
            self.at(at, What::Tick { node: n, life });
        }
    }

    /// What a node last said of itself: of what it is as a whole, every volume's account tells.
    pub(super) fn view(&self, n: usize) -> &View {
        self.volumes[0].model.view(n)
    }

    /// What a node last said of each volume.
    pub(super) fn views(&self, n: usize) -> impl Iterator<Item = &View> {
        self.volumes.iter().map(move |volume| volume.model.view(n))
    }

    /// It counts on its own copy of everything.
    pub(super) fn good(&self, n: usize) -> bool {
        self.views(n).all(View::own_good)
    }

    /// All disks.
    pub(super) fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.volumes.iter().flat_map(|volume| &volume.disks.0)
    }

    /// A node's disk of a volume.
    pub(super) fn disk(&mut self, n: usize, v: usize) -> &mut Disk {
        &mut self.volumes[v].disks.0[n]
    }

    /// Any volume.
    pub(super) fn some_volume(&mut self) -> usize {
        match self.volumes.len() {
            1 => 0,
            several => self.rng.below(several as u64) as usize,
        }
    }

    /// Judges each volume.
    pub(super) fn check_each(&mut self, judge: impl Fn(&mut Volume) -> Check) {
        for v in 0..self.volumes.len() {
            let check = judge(&mut self.volumes[v]);
            self.check(check);
        }
    }

    /// What parted the nodes, over all volumes.
    pub(super) fn parted(&self) -> Parted {
        Parted::of(self.volumes.iter().map(|volume| &volume.model))
    }

    /// One line of the trace.
    pub(super) fn say(&self, line: &str) {
        let t = self.now - (1 << 42);
        let fork = if self.forked { "  fork " } else { "" };
        println!("{:>5}.{:06} {fork}{line}", t / (1000 * MS), t / 1000 % MS);
    }
}

/// A formatted disk.
pub(super) fn fresh_disk(knobs: &Knobs, node: usize, number: u32, uuid: u64) -> Disk {
    let mut disk = Disk::new(number, knobs.data_size, knobs.device_size, knobs.forgets_writes);
    disk.battery = knobs.battery;
    let (_, stages) = Metadata::format(knobs.format(node, uuid)).expect("the layout was checked");
    disk.format(&stages);
    disk
}

/// The beginning of a long text.
pub(super) fn brief(text: &str) -> String {
    if text.len() < 700 {
        text.into()
    } else {
        format!("{}...", &text[..text.floor_char_boundary(700)])
    }
}

fn hash(start: u64, text: &str) -> u64 {
    text.bytes().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn may_change_state(event: &Event) -> bool {
    match event {
        Event::Request(_) | Event::Tick => false,
        Event::Disk(_, result) => !matches!(result, Ok(replicator::node::DiskDone::Zero)),
        Event::Peer(_, message) => !is_about_data(message),
        _ => true,
    }
}

fn tells_of_change(action: &Action) -> bool {
    match action {
        Action::Send(_, message) => !is_about_data(message),
        Action::Connect(..)
        | Action::Close(_)
        | Action::CloseDisk(_)
        | Action::CloseExports(_)
        | Action::Done(..)
        | Action::Opened(..)
        | Action::Notice(_) => true,
        _ => false,
    }
}

/// It changes no state.
fn is_about_data(message: &Message) -> bool {
    matches!(
        message,
        Message::Write(_)
            | Message::Received(_)
            | Message::Written(_)
            | Message::Flush { .. }
            | Message::Flushed(_)
            | Message::Read { .. }
            | Message::ReadData { .. }
            | Message::SyncRead { .. }
            | Message::SyncData { .. }
            | Message::SyncCompare { .. }
            | Message::SyncDiffers { .. }
            | Message::Ping
            | Message::Pong
    )
}

//! Exhaustive search in a small scope: every order in which what is under way may happen, with so many crashes, cuts, writes and promotions at
//! any place among it, over the same world, nodes and checkers as the random runs. Breadth first, so what it finds is as short as can be.
//!
//! Not every time: clocks stand still while anything else can happen, and what waits for a time has its turn when nothing else does.
//! What may happen next is in `moves`, when two worlds are the same in `fingerprint`.

mod fingerprint;
mod moves;
#[cfg(test)]
mod tests;

use super::rng::Rng;
use super::swarm::Knobs;
use super::world::{MS, What, World};
use crate::model::Violation;
use fingerprint::Known;
use moves::Move;
use replicator::config::{Fencing, Limits, Timing};
use replicator::node::{Command, Protocol, Role};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What the surroundings may still do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Writes of one block, to either of two extents of any volume.
    pub writes: u8,
    /// FLUSHes.
    pub flushes: u8,
    /// Processes killed.
    pub kills: u8,
    /// Power cuts.
    pub power_cuts: u8,
    /// Connections that break.
    pub cuts: u8,
    /// Times the other node is promoted.
    pub promotions: u8,
}

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// When a write is answered.
    pub protocol: Protocol,
    /// Volumes.
    pub volumes: u8,
    /// Whoever is lost is outdated, or shot, before anything is acknowledged without it.
    pub fencing: bool,
    /// What may be done.
    pub budget: Budget,
    /// Of how many states one is looked at for what would become of it (the fork-and-recover oracle).
    pub fork_one_in: u64,
    /// Give up after so many states.
    pub most_states: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Different states reached.
    pub states: usize,
    /// Moves made.
    pub moves: u64,
    /// Events handled by nodes, those in forks among them.
    pub events: u64,
    /// Futures lived through.
    pub forks: u64,
    /// Moves of the longest way to a state that had not been reached by a shorter one.
    pub depth: usize,
    /// Every state of the scope was reached, or the search ended early?
    pub whole: bool,
    /// States in which nothing could happen any more.
    pub ends: usize,
    /// What was broken, and the way there.
    pub violation: Option<(Violation, Vec<String>)>,
    /// How long it took.
    pub took: Duration,
}

/// A world, and what may still be done to it.
#[derive(Clone)]
struct State {
    world: World,
    left: Budget,
    /// Extents of each volume written to so far. They are all alike: what is done to the first could be done to any.
    extents: Vec<u32>,
    /// How often time has passed since anything was done to the nodes.
    waited: u8,
    known: Known,
}

/// A way to a state: which of the moves possible there was made, each time.
type Way = Vec<u8>;

/// The worlds along one way, so that the next way, which mostly shares its beginning, need not begin anew.
struct Walker {
    way: Way,
    states: Vec<State>,
}

impl Walker {
    fn new(root: State) -> Self {
        Self { way: Vec::new(), states: vec![root] }
    }

    fn walk_to(&mut self, way: &[u8]) -> &State {
        let shared = self.way.iter().zip(way).take_while(|(a, b)| a == b).count();
        self.states.truncate(shared + 1);
        self.way.truncate(shared);
        for &choice in &way[shared..] {
            let mut next = self.states.last().expect("the root stays").clone();
            let wanted = next.moves()[usize::from(choice)];
            next.make(wanted);
            self.states.push(next);
            self.way.push(choice);
        }
        self.states.last().expect("the root stays")
    }
}

/// Searches a scope.
pub fn search(scope: &Scope) -> Report {
    let begun = Instant::now();
    let mut root = State {
        world: in_sync(scope),
        left: scope.budget,
        extents: vec![0; scope.volumes.into()],
        waited: 0,
        known: Known::default(),
    };
    let mut report = Report { states: 1, ..Report::default() };
    let mut seen = HashSet::from([root.fingerprint()]);
    let mut frontier: Vec<Way> = vec![Vec::new()];
    let mut walker = Walker::new(root.clone());
    while !frontier.is_empty() && report.violation.is_none() {
        report.depth += 1;
        let mut next = Vec::new();
        for way in &frontier {
            if report.states >= scope.most_states {
                report.took = begun.elapsed();
                return report;
            }
            let state = walker.walk_to(way);
            let moves = state.moves();
            report.ends += usize::from(moves.is_empty());
            for (choice, &wanted) in (0..).zip(&moves) {
                let mut child = state.clone();
                let found = child.make_checked(wanted);
                report.moves += 1;
                report.events += child.world.events - state.world.events;
                let fingerprint = child.fingerprint();
                let found = if found.is_none() && seen.insert(fingerprint) {
                    report.states += 1;
                    let mut longer = way.clone();
                    longer.push(choice);
                    next.push(longer);
                    child.futures(scope.fork_one_in, fingerprint, &mut report)
                } else {
                    found
                };
                if let Some(violation) = found {
                    let mut told = tell(&root, way);
                    told.push(state.describe(wanted));
                    report.violation = Some((violation, told));
                    break;
                }
            }
            if report.violation.is_some() {
                break;
            }
        }
        frontier = next;
    }
    report.whole = report.violation.is_none();
    report.took = begun.elapsed();
    report
}

/// The moves of a way.
fn tell(root: &State, way: &[u8]) -> Vec<String> {
    let mut state = root.clone();
    let mut told = Vec::new();
    for &choice in way {
        let wanted = state.moves()[usize::from(choice)];
        told.push(state.describe(wanted));
        state.make(wanted);
    }
    told
}

impl State {
    /// Makes a move; what it broke. An assertion of the node is an invariant of its own.
    fn make_checked(&mut self, wanted: Move) -> Option<Violation> {
        let result = catch_unwind(AssertUnwindSafe(|| self.make(wanted)));
        match result {
            Ok(()) => self.world.verdict(),
            Err(_) => Some(Violation::new("ASSERT", super::run::last_panic())),
        }
    }

    /// What would become of it: nothing more happens, or processes die, or the power goes.
    fn futures(&self, one_in: u64, fingerprint: u128, report: &mut Report) -> Option<Violation> {
        if one_in == 0 || !(fingerprint as u64).is_multiple_of(one_in) {
            return None;
        }
        let tried = catch_unwind(AssertUnwindSafe(|| self.world.all_futures()));
        let (forks, events, violation) = tried
            .unwrap_or_else(|_| (0, 0, Some(Violation::new("ASSERT", super::run::last_panic()))));
        report.forks += forks;
        report.events += events;
        violation
    }
}

/// Two nodes in sync, node 0 Primary with a client; everything takes no time.
fn in_sync(scope: &Scope) -> World {
    let mut knobs = Knobs::calm(scope.protocol);
    knobs.volumes = scope.volumes.into();
    // On each node one of each volume.
    knobs.clients = 2 * knobs.volumes;
    // They send what the search says and nothing else.
    knobs.depth = 0;
    (knobs.link_delay, knobs.disk_delay) = ((0, 0), (0, 0));
    // Two extents of two blocks, one of which the log has room for.
    knobs.shrink(2, 8192, 1);
    knobs.limits = Limits { extents_per_request: 1, ..Limits::default() };
    // A pair that only waits for its checkpoint sends no pings meanwhile.
    knobs.timing = Timing { ping_interval: 10_000, ..Timing::default() };
    if scope.fencing {
        knobs.fencing = Fencing::ResourceAndStonith;
        knobs.fence_poll = 1000 * MS;
    }
    let mut world = World::new(2, knobs, Rng::new(7));
    // Handlers do what they can, and disks.
    world.calm = true;
    for node in 0..2 {
        world.after(0, What::Start { node });
    }
    world.run_until(world.now + 100 * MS);
    world.command(0, Command::Primary { force: true });
    world.initialised = true;
    let end = world.now + 10_000 * MS;
    assert!(world.run_to(end, World::settled), "{}", world.unsettled());
    (0..scope.volumes.into()).for_each(|c| world.reopen(c));
    world.run_until(world.now + 50 * MS);
    assert_eq!(world.view(0).role, Role::Primary);
    world
}

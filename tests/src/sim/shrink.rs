//! A seed that breaks something, shrunk: deeds are left out of its script as long as the same invariant is broken, by whole classes
//! first, then in ever smaller parts, down to one by one; and knobs are set to plain values. How it is told is in `story`.

use super::run::{catch, draw};
use super::script::{Drawn, Scene, Source, Tape};
use super::swarm::Knobs;
use super::world::{MS, World};
use crate::model::Violation;
use std::cell::RefCell;
use std::rc::Rc;

/// With so few deeds left a candidate is tried with more than one chance.
const FEW: usize = 100;
/// So many chances.
const CHANCES: u64 = 6;
/// Around the fork that broke something, candidates are forked often: so long before and after.
const FORKS: (u64, u64) = (5 * MS, 50 * MS);
/// A candidate that has broken nothing so long after its model did will not.
const LATE: u64 = 2000 * MS;

/// A script that breaks something.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) knobs: Knobs,
    pub(super) scenes: Vec<Scene>,
    drawn: Rc<Drawn>,
    salt: u64,
    pub(super) violation: Option<Violation>,
    /// When it is broken.
    at: u64,
    /// While all should heal: then it must be awaited.
    healing: bool,
    /// The chance of the fork that broke it.
    fork: Option<u64>,
    /// Events of the nodes.
    pub(super) events: u64,
    /// Forked as the seed is, everywhere; else where it broke something.
    pub(super) whole: bool,
}

impl Case {
    /// Runs a seed with these knobs, and writes down what is done and what it breaks.
    fn of(seed: u64, knobs: Knobs, prepare: impl FnOnce(&mut World)) -> (Self, World) {
        let (_, rng) = draw(seed);
        let tape = Tape::recording();
        let scenes = Rc::new(RefCell::new(Vec::new()));
        let mut world = World::new(seed, knobs.clone(), rng);
        world.rng.through(tape.clone());
        world.source = Source::Noted(scenes.clone());
        prepare(&mut world);
        catch(&mut world);
        let case = Self {
            seed,
            knobs,
            scenes: scenes.take(),
            drawn: Rc::new(tape.borrow_mut().take()),
            salt: 0,
            violation: world.violation.clone(),
            at: world.now,
            healing: world.calm,
            fork: world.fork_chance,
            events: world.events,
            whole: true,
        };
        (case, world)
    }

    /// The world in which the script is to be played.
    fn stage(&self) -> World {
        let (_, rng) = draw(self.seed);
        let mut knobs = self.knobs.clone();
        if self.fork.is_none() {
            knobs.fork_every = 0;
        } else if !self.whole {
            knobs.fork_every = if self.scenes.len() > FEW { knobs.fork_every.min(64) } else { 2 };
        }
        let mut world = World::new(self.seed, knobs, rng);
        world.rng.through(Tape::playing(&self.drawn, self.salt));
        world.source = Source::Script(self.scenes.clone().into());
        world.until = (!self.healing).then_some(self.at + LATE);
        if self.fork.is_some() && !self.whole {
            world.fork_chance = self.fork;
            world.forks_from = self.at.saturating_sub(FORKS.0);
            world.until = Some(self.at + FORKS.1);
        }
        world
    }

    /// Plays the script. `trace` as in `run`; from the first Primary on.
    pub(super) fn play(&self, trace: u8) -> World {
        let mut world = self.stage();
        world.trace = trace;
        catch(&mut world);
        world
    }

    /// If this breaks the same, it becomes what it is when played: nothing is done after that.
    fn breaks(&mut self) -> bool {
        let world = self.play(0);
        let (Some(now), Some(then)) = (&world.violation, &self.violation) else { return false };
        let broken = same(now, then);
        if broken {
            (self.violation, self.at, self.events) = (world.violation, world.now, world.events);
            self.scenes.retain(|scene| scene.at <= world.now);
        }
        broken
    }
}

fn same(a: &Violation, b: &Violation) -> bool {
    // Which assertion it is, its place says.
    let place = |v: &Violation| v.story.lines().next().map(String::from);
    a.invariant == b.invariant && (a.invariant != "ASSERT" || place(a) == place(b))
}

/// What shrinking has come to.
pub(super) struct Shrink<'a> {
    pub(super) case: Case,
    pub(super) tried: u64,
    enough: &'a dyn Fn() -> bool,
}

impl<'a> Shrink<'a> {
    /// Begins with the script of a whole seed; none if that does not break the same.
    pub(super) fn new(mut case: Case, enough: &'a dyn Fn() -> bool) -> Option<Self> {
        if !case.breaks() {
            return None;
        }
        let mut shrink = Self { case, tried: 1, enough };
        if shrink.case.fork.is_some() {
            shrink.attempt(|case| case.whole = false);
        }
        Some(shrink)
    }

    /// As far as it goes in the time.
    pub(super) fn run(&mut self) {
        self.by_class();
        loop {
            let before = self.case.scenes.len();
            self.by_part();
            let changed = self.plainer();
            if (self.enough)() || (self.case.scenes.len() == before && !changed) {
                return;
            }
        }
    }

    /// Keeps a change if it breaks the same.
    fn attempt(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut candidate = self.case.clone();
        change(&mut candidate);
        let chances = if candidate.scenes.len() <= FEW { CHANCES } else { 1 };
        for chance in 0..chances {
            if (self.enough)() {
                return false;
            }
            // First the chance that has broken it so far.
            let mut candidate = candidate.clone();
            candidate.salt += chance;
            candidate.fork = candidate.fork.map(|fork| fork.wrapping_add(chance / 2));
            self.tried += 1;
            if candidate.breaks() {
                self.case = candidate;
                return true;
            }
        }
        false
    }

    /// All deeds of a kind, all of a client, all of one of the nodes' faults.
    fn by_class(&mut self) {
        let mut seen = Vec::new();
        while let Some(class) =
            self.case.scenes.iter().map(|s| s.deed.class()).find(|class| !seen.contains(class))
        {
            seen.push(class);
            self.attempt(|case| case.scenes.retain(|scene| scene.deed.class() != class));
        }
        for client in 0..self.case.knobs.clients {
            self.attempt(|case| case.scenes.retain(|s| s.deed.client() != Some(client)));
        }
        self.progress();
    }

    fn by_part(&mut self) {
        let scenes = self.case.scenes.clone();
        minimize(scenes, &mut |scenes: &[Scene]| {
            let kept = self.attempt(|case| case.scenes = scenes.to_vec());
            kept.then(|| {
                self.progress();
                self.case.scenes.clone()
            })
        });
    }

    /// Plain requests, plain knobs.
    fn plainer(&mut self) -> bool {
        let mut changed = false;
        for i in 0..self.case.scenes.len() {
            if let Some(simpler) = self.case.scenes.get(i).and_then(|scene| scene.deed.simpler()) {
                changed |= self.attempt(|case| case.scenes[i].deed = simpler);
            }
        }
        for knob in super::story::KNOBS {
            if knob.matters(&self.case.knobs) {
                changed |= self.attempt(|case| (knob.set)(&mut case.knobs));
            }
        }
        changed
    }

    fn progress(&self) {
        eprintln!("shrink: {} deeds left after {} runs", self.case.scenes.len(), self.tried);
    }
}

/// Leaves out parts, halves first and single items last, as long as `keeps` says what is left then; until no single item can go.
pub(super) fn minimize<T: Clone>(
    mut items: Vec<T>,
    keeps: &mut dyn FnMut(&[T]) -> Option<Vec<T>>,
) -> Vec<T> {
    let mut size = items.len().div_ceil(2);
    while size > 0 {
        let before = items.len();
        let mut at = 0;
        while at < items.len() {
            let end = (at + size).min(items.len());
            match keeps(&[&items[..at], &items[end..]].concat()) {
                Some(left) => items = left,
                None => at = end,
            }
        }
        // What could not go before may go now.
        let again = size == 1 && items.len() < before;
        size = if again { 1 } else { size / 2 };
    }
    items
}

/// Shrinks a seed that breaks something, until it is `enough`, and tells what is left. False if there is nothing to tell.
pub fn shrink(seed: u64, enough: &dyn Fn() -> bool) -> bool {
    let (case, _) = Case::of(seed, draw(seed).0, |_| ());
    let Some(invariant) = case.violation.as_ref().map(|violation| violation.invariant) else {
        println!("seed {seed} breaks nothing");
        return false;
    };
    let (deeds, events) = (case.scenes.len(), case.events);
    let Some(mut shrink) = Shrink::new(case, enough) else {
        println!(
            "seed {seed}: {invariant} is not broken by its script; cargo sim --seed {seed} is all there is"
        );
        return false;
    };
    shrink.run();
    let Shrink { case, tried, .. } = &shrink;
    println!(
        "seed {seed}: {invariant} shrunk to {} of {deeds} deeds and {} of {events} events, by {tried} runs",
        case.scenes.len(),
        case.events
    );
    super::story::tell(case);
    true
}

#[cfg(test)]
mod tests;

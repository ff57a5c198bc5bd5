//! One run: from a seed to an outcome.

use super::Rng;
use super::counters::Counters;
use super::script::Stream;
use super::swarm::Knobs;
use super::world::{MS, What, World};
use crate::model::Violation;
use replicator::config::Fencing;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Events the nodes handled.
    pub events: u64,
    /// What was broken, if something was.
    pub violation: Option<Violation>,
    /// Which faults bit.
    pub counters: Counters,
    /// Hash of all actions; 0 if not wanted.
    pub hash: u64,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a panic's message for the report instead of printing it. Call once, before the first run.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        let ours = trace
            .lines()
            .filter(|line| line.contains("at ./replicator") || line.contains("at ./bitmap"));
        let frames: Vec<&str> = ours.take(12).map(str::trim).collect();
        PANIC.with(|p| *p.borrow_mut() = format!("{text}\n  {}", frames.join("\n  ")));
    }));
}

/// What the last panic said.
pub(super) fn last_panic() -> String {
    PANIC.with(|p| std::mem::take(&mut *p.borrow_mut()))
}

/// Kinds of seeds that may be asked for alone.
pub const KINDS: [&str; 8] = [
    "one-volume",
    "two-volumes",
    "fencing",
    "no-fencing",
    "leases",
    "hard",
    "unsound",
    "aftermath",
];

/// Is the seed of this kind? They follow from its number, so that seeds found before there was a kind stay what they were.
pub fn is_of_kind(seed: u64, kind: &str) -> bool {
    match kind {
        "one-volume" => !has_two_volumes(seed),
        "two-volumes" => has_two_volumes(seed),
        "fencing" => fencing_of(seed).is_some(),
        "no-fencing" => fencing_of(seed).is_none(),
        "leases" => has_leases(seed),
        "hard" => is_hard(seed),
        "unsound" => is_unsound(seed),
        "aftermath" => has_aftermaths(seed),
        _ => false,
    }
}

fn has_two_volumes(seed: u64) -> bool {
    seed % 2 == 1
}

/// Bit 60: no seed that was found before there was this has it.
fn is_hard(seed: u64) -> bool {
    seed >> 60 & 1 == 1
}

/// Bit 61: likewise.
fn is_unsound(seed: u64) -> bool {
    seed >> 61 & 1 == 1
}

/// Bit 62: likewise.
fn has_aftermaths(seed: u64) -> bool {
    seed >> 62 & 1 == 1
}

fn has_leases(seed: u64) -> bool {
    seed / 8 % 5 == 4
}

fn fencing_of(seed: u64) -> Option<Fencing> {
    match seed / 2 % 4 {
        2 => Some(Fencing::ResourceOnly),
        3 => Some(Fencing::ResourceAndStonith),
        _ => None,
    }
}

/// The knobs of a seed, and the chance that comes after them.
pub(super) fn draw(seed: u64) -> (Knobs, Rng) {
    let mut rng = Rng::new(seed);
    let mut knobs = Knobs::draw(&mut rng);
    // By the number: seeds that were found before there was this stay what they were.
    if seed % 7 == 2 {
        knobs.hush(&mut Rng::new(!seed));
    }
    if has_two_volumes(seed) {
        knobs.double(&mut Rng::new(!seed));
    }
    if let Some(fencing) = fencing_of(seed) {
        knobs.fence(fencing, &mut Rng::new(seed ^ 0xfe9c));
    }
    if has_leases(seed) {
        knobs.lease();
    }
    if is_hard(seed) {
        knobs.harden(&mut Rng::new(seed ^ 0x4a2d));
    }
    if is_unsound(seed) {
        knobs.unsound(&mut Rng::new(seed ^ 0x50fd));
    }
    if has_aftermaths(seed) {
        knobs.aftermath(&mut Rng::new(seed ^ 0xaf7e));
    }
    (knobs, rng)
}

/// Lives a whole life.
pub(super) fn catch(world: &mut World) {
    let finished = catch_unwind(AssertUnwindSafe(|| {
        world.live();
    }));
    if finished.is_err() {
        // An assertion of the node is an invariant of its own: it says what must always be true.
        world.violation = Some(Violation::new("ASSERT", last_panic()));
    }
}

/// Runs a seed. `trace`: 0 silent, 1 state changes, 2 everything. With `hashed`, all actions are hashed (DET).
pub fn run(seed: u64, trace: u8, hashed: bool) -> Outcome {
    let (knobs, rng) = draw(seed);
    if trace > 0 {
        println!("{knobs:#?}");
    }
    let mut world = World::new(seed, knobs, rng);
    world.trace = trace;
    world.hash = u64::from(hashed);
    catch(&mut world);
    Outcome {
        seed,
        events: world.events,
        violation: world.violation,
        counters: world.counters,
        hash: world.hash,
    }
}

/// Runs a seed; now and then twice, to see that it does the same again (DET).
pub fn run_checked(seed: u64) -> Outcome {
    if !seed.is_multiple_of(50) {
        return run(seed, 0, false);
    }
    let first = run(seed, 0, true);
    let mut second = run(seed, 0, true);
    if first.hash != second.hash && second.violation.is_none() {
        let story =
            format!("two runs of one seed did {:016x} and {:016x}", first.hash, second.hash);
        second.violation = Some(Violation::new("DET", story));
    }
    second.events += first.events;
    second
}

impl World {
    /// The whole life of a seed.
    fn live(&mut self) {
        let start = self.now;
        self.rng.enter(Some(Stream::Frame));
        for n in 0..2 {
            let delay = self.rng.below(50 * MS);
            self.after(delay, What::Start { node: n });
        }
        self.after(100 * MS, What::Manager);
        if !self.is_scripted() {
            for client in 0..self.clients.len() {
                self.after(200 * MS, What::Reopen { client });
            }
        }
        if self.knobs.leases {
            (0..2).for_each(|node| self.after(300 * MS, What::Agent { node }));
        }
        self.rng.enter(None);
        if self.is_scripted() {
            self.arm_script();
            let trace = std::mem::take(&mut self.trace);
            while !self.initialised && self.step(start + self.knobs.safety) {}
            self.trace = trace;
        } else {
            if let Some(mean) = self.knobs.operator {
                self.after(mean, What::Operator);
            }
            self.arm_faults();
        }
        let end = start + self.knobs.safety;
        self.run_until(self.until.map_or(end, |until| until.min(end)));
        if self.violation.is_none() && self.until.is_none() {
            self.heal();
        }
    }
}

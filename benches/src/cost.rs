//! What the core costs, without a clock: instructions (counted by callgrind, as the difference of two runs of different length, so that
//! setting up does not count) and allocations, for each request over both nodes. On a noisy machine these say whether a change made
//! the core dearer. They say nothing of the kernel, nor of the shell around the core.

use crate::core::{Core, Work};
use crate::process::run;
use crate::{Error, packages};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

/// Turns of the shorter run, and of the longer.
const TURNS: [u64; 2] = [100, 1100];
/// Turns over which allocations are counted.
const COUNTED: u64 = 10_000;
/// How long a run under callgrind may take, in seconds.
const PATIENCE: u64 = 120;

/// What one request costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Instructions.
    pub instructions: f64,
    /// Allocations.
    pub allocations: f64,
}

/// The system's allocator, counted. To be the global one of the program that measures.
#[derive(Debug)]
pub struct Counted;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: what the caller promises is what is asked.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count() {
    // A thread that is ending allocates uncounted.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

/// Measures; `worker` is a program that does `work` so many turns long when told `--work NAME --turns N`.
pub fn measure(work: Work, worker: &Path) -> Result<Cost, Error> {
    packages::need(&["valgrind"])?;
    let [short, long] =
        [instructions(work, TURNS[0], worker)?, instructions(work, TURNS[1], worker)?];
    let requests = (TURNS[1] - TURNS[0]) * work.requests();
    let instructions = long.saturating_sub(short) as f64 / requests as f64;
    Ok(Cost { instructions, allocations: allocations(work) })
}

fn instructions(work: Work, turns: u64, worker: &Path) -> Result<u64, Error> {
    let turns = turns.to_string();
    let worker = worker.display().to_string();
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let arguments = [&worker, "--work", work.name(), "--turns", &turns];
    let output = run(PATIENCE, Path::new("valgrind"), tool.into_iter().chain(arguments))?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).ok_or_else(|| Error::Nonsense { what: "callgrind", said: said.into_owned() })
}

/// `==7== Collected : 123`
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

fn allocations(work: Work) -> f64 {
    let mut core = Core::new(work);
    let before = ALLOCATIONS.get();
    (0..COUNTED).for_each(|_| core.turn());
    (ALLOCATIONS.get() - before) as f64 / (COUNTED * work.requests()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_is_understood() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 123\n==7==\n"), Some(123));
        assert_eq!(collected("==7== a fatal signal"), None);
    }
}

//! One suite over every engine: the contract of `mod.rs`, as far as it can be seen from outside.
//! `kinds` opens the disks, `suite` holds what all of them must do,
//! `files` what only files can (errors of the system, opening), `processes` what takes more
//! than one process (locks, full and hung file systems).
//!
//! Not shown here: that fdatasync reaches the platter. Real runs with cut power do that.

mod files;
mod kinds;
mod processes;
mod suite;

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bitmap::{Bytes, MetaWrite};

use super::{Backing, Completion, Done, IoToken, Op};
use crate::buffers::Pool;

/// Long enough for a loaded machine, short enough to notice that a completion is missing.
const PATIENCE: Duration = Duration::from_secs(60);

fn pool() -> Pool {
    Pool::new(64 << 20)
}

/// Says that something was not tested, where the test harness does not swallow it.
fn skip(what: &str, why: &str) {
    let text = format!("SKIPPED {what}: {why}\n");
    std::io::stderr().write_all(text.as_bytes()).expect("stderr takes a line");
}

/// Submits everything and waits for all completions, in whatever order they come.
fn run(engine: &mut Backing, ops: Vec<(IoToken, Op)>) -> Vec<Completion> {
    let count = ops.len();
    let mut batch = ops;
    let mut out = Vec::new();
    while out.len() < count {
        engine.submit(&mut batch);
        let before = out.len();
        engine.poll(&mut out);
        if out.len() == before {
            sleep_until_woken(engine);
        }
    }
    assert_eq!((out.len(), engine.in_flight()), (count, 0));
    out
}

fn run_one(engine: &mut Backing, op: Op) -> Result<Done, super::DiskError> {
    let mut out = run(engine, vec![(7, op)]);
    assert_eq!(out[0].token, 7);
    out.remove(0).result
}

fn meta_write(offset: u64, bytes: Bytes) -> Op {
    Op::WriteMeta(MetaWrite { offset, bytes })
}

/// Waits for the wake-up alone, so that a lost one is a failure.
fn sleep_until_woken(engine: &Backing) {
    assert!(woken_within(engine, PATIENCE), "no wake-up within {PATIENCE:?}");
}

fn woken_within(engine: &Backing, bound: Duration) -> bool {
    let deadline = Instant::now() + bound;
    let fd = engine.wake_fd().as_raw_fd();
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut watched = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry on this stack.
        match unsafe { libc::poll(&raw mut watched, 1, left as i32) } {
            0 => return false,
            1 => break,
            _ => assert_eq!(Error::last_os_error().kind(), ErrorKind::Interrupted),
        }
    }
    // What an edge-triggered watcher gets for free.
    let counter = engine.wake_fd().try_clone_to_owned().expect("a spare descriptor");
    File::from(counter).read_exact(&mut [0; 8]).expect("it was readable");
    true
}

/// A small generator of pseudo-random numbers; the seed is in the message of each assertion.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

//! How much of a resync is under way. While no client is served, as much as keeps a fast link full. While one is, here or at the source,
//! what is copied stands before the client's next request on both disks and in the link: so a small batch at a time, and then a
//! pause that is longer the longer the batch took. Copying gets its share of what there is, however fast that is, and ends under any load.
//!
//! Not here: what is asked for (`resync.rs`). The target decides, since it asks; the source tells with each answer whether it serves.

use super::{Node, Role, Time};
use crate::config::Limits;

/// A client that sent nothing for so many milliseconds is not served.
const QUIET: u64 = 500;
/// A pause is so many times as long as the batch before it took.
const SHARE: u64 = 2;
/// The longest pause, in milliseconds: nobody is heard of in it.
const LONGEST: u64 = 100;

/// Of a target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// The source served clients when it answered last.
    pub(super) source_serves: bool,
    /// When the batch under way was asked for.
    began: Option<Time>,
    /// Until when nothing is asked.
    pause: Option<Time>,
}

impl Pace {
    /// How many bytes may be under way now. `serves`: a client is served here; `busy`: a batch is under way.
    pub(super) fn limit(&mut self, limits: &Limits, now: Time, serves: bool, busy: bool) -> u64 {
        if !busy && let Some(began) = self.began.take() {
            let pause = (now.0 - began.0).saturating_mul(SHARE);
            self.pause = Some(Time(now.0.saturating_add(pause)).min(now.plus_ms(LONGEST)));
        }
        if !serves && !self.source_serves {
            limits.resync_bytes
        } else if busy || self.pause.is_some() {
            0
        } else {
            limits.resync_bytes_beside_clients
        }
    }

    /// Something was asked for.
    pub(super) fn asked(&mut self, now: Time) {
        self.began.get_or_insert(now);
    }

    /// When a pause ends.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.pause
    }

    /// Ends it if it is time.
    pub(super) fn timer(&mut self, now: Time) {
        self.pause = self.pause.filter(|&end| now < end);
    }
}

impl Node {
    /// Is a client served here?
    pub(super) fn serves(&self) -> bool {
        let lately = self.served.is_some_and(|at| self.now.ms_since(at) < QUIET);
        self.role == Role::Primary && (self.unanswered > 0 || lately)
    }
}

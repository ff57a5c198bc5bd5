//! Keeps clients that come and go from filling the log: each cause once in a while, so many causes at the most, and then how many lines
//! were left out. Not for what happens to a client that is served.

use std::time::{Duration, Instant};

const WHILE: Duration = Duration::from_secs(10);
const CAUSES: usize = 5;

/// Lets each cause through once in any `WHILE`, and `CAUSES` causes at the most.
#[derive(Debug, Default)]
pub(super) struct Gate {
    since: Option<Instant>,
    told: Vec<String>,
    left_out: u64,
}

impl Gate {
    /// What to log of a cause why somebody was not served. None: it is counted.
    pub(super) fn pass(&mut self, cause: &str) -> Option<String> {
        self.admit(Instant::now(), cause).map(|left_out| match left_out {
            0 => cause.to_owned(),
            n => format!("{cause} ({n} lines like this were left out)"),
        })
    }

    /// May this be told now, and how many were not before it?
    fn admit(&mut self, now: Instant, cause: &str) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WHILE) {
            self.since = Some(now);
            self.told.clear();
        }
        if self.told.len() == CAUSES || self.told.iter().any(|told| told == cause) {
            self.left_out += 1;
            return None;
        }
        self.told.push(cause.to_owned());
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_in_a_while_and_there_are_few_causes() {
        let mut gate = Gate::default();
        let start = Instant::now();
        assert_eq!(gate.admit(start, "garbage"), Some(0));
        assert!((0..10_000).all(|_| gate.admit(start + WHILE / 2, "garbage").is_none()));
        let others: Vec<_> = (0..100).filter_map(|i| gate.admit(start, &i.to_string())).collect();
        assert_eq!(others, [10_000, 0, 0, 0], "whatever a client calls itself");
        assert_eq!(gate.admit(start + WHILE, "garbage"), Some(96));
    }
}

//! Keeps strangers from filling the log: each cause once in a while, so many causes at the most, and then how many lines
//! were left out.

use std::time::{Duration, Instant};

const WHILE: Duration = Duration::from_secs(10);
const CAUSES: usize = 5;

/// Lets each text through once in any `WHILE`, and `CAUSES` texts at the most.
#[derive(Debug, Default)]
pub(super) struct LogGate {
    since: Option<Instant>,
    told: Vec<String>,
    left_out: u64,
}

impl LogGate {
    /// Logs a warning, or counts it.
    pub(super) fn warn(&mut self, text: &str) {
        match self.admit(Instant::now(), text) {
            Some(0) => tracing::warn!("{text}"),
            Some(n) => tracing::warn!("{text} ({n} lines like this were left out)"),
            None => {}
        }
    }

    /// May this line be written now, and how many were left out before it?
    fn admit(&mut self, now: Instant, text: &str) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WHILE) {
            self.since = Some(now);
            self.told.clear();
        }
        if self.told.len() == CAUSES || self.told.iter().any(|told| told == text) {
            self.left_out += 1;
            return None;
        }
        self.told.push(text.to_owned());
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once_in_a_while_and_what_is_left_out_is_counted() {
        let mut gate = LogGate::default();
        let start = Instant::now();
        assert_eq!(gate.admit(start, "a"), Some(0));
        for _ in 0..10_000 {
            assert_eq!(gate.admit(start + WHILE / 2, "a"), None);
        }
        assert_eq!(gate.admit(start + WHILE / 2, "b"), Some(10_000));
        let lines = (0..1000).filter_map(|i| gate.admit(start + WHILE / 2, &i.to_string()));
        assert_eq!(lines.count(), CAUSES - 2, "whatever a stranger says of itself");
        assert_eq!(gate.admit(start + WHILE, "a"), Some(1000 - (CAUSES as u64 - 2)));
        assert_eq!(gate.admit(start + WHILE, "b"), Some(0));
    }
}

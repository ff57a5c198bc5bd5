//! Keeps strangers from filling the log: so many lines in a while, and then how many were left out.

use std::fmt;
use std::time::{Duration, Instant};

const WHILE: Duration = Duration::from_secs(10);
const LINES: u32 = 5;

/// Lets `LINES` lines through in any `WHILE`.
#[derive(Debug, Default)]
pub(super) struct LogGate {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogGate {
    /// Logs a warning, or counts it.
    pub(super) fn warn(&mut self, resource: &str, text: fmt::Arguments<'_>) {
        match self.admit(Instant::now()) {
            Some(0) => tracing::warn!(resource, "{text}"),
            Some(n) => tracing::warn!(resource, "{text} ({n} lines like this were left out)"),
            None => {}
        }
    }

    /// May a line be written now, and how many were left out before it?
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WHILE) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_is_left_out_is_told() {
        let mut gate = LogGate::default();
        let start = Instant::now();
        for _ in 0..LINES {
            assert_eq!(gate.admit(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(gate.admit(start + WHILE / 2), None);
        }
        assert_eq!(gate.admit(start + WHILE), Some(1000));
        assert_eq!(gate.admit(start + WHILE), Some(0));
    }
}

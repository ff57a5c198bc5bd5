//! A node's monotonic clock against the world's time: its own start and rate.

use replicator::node::Time;

/// A clock that runs a little fast or slow.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    booted: u64,
    rate_ppm: u64,
}

impl Clock {
    /// Starts near zero when the machine boots, `early` nanoseconds of its own before `now`.
    pub(super) fn booted(now: u64, early: u64, rate_ppm: u64) -> Self {
        Self { booted: now.saturating_sub(early), rate_ppm }
    }

    /// This node's time at world time `now`.
    pub(super) fn read(&self, now: u64) -> Time {
        let passed = now - self.booted;
        Time((u128::from(passed) * u128::from(self.rate_ppm) / 1_000_000) as u64)
    }

    /// First world time at which this clock shows `time` or later.
    pub(super) fn world(&self, time: Time) -> u64 {
        let passed = (u128::from(time.0) * 1_000_000).div_ceil(u128::from(self.rate_ppm));
        self.booted.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// It goes forward by so much at once.
    pub(super) fn leap(&mut self, by: u64) {
        self.booted = self.booted.saturating_sub(by);
    }

    /// It stood still for so long, until now.
    pub(super) fn stood(&mut self, length: u64) {
        self.booted += length;
    }

    /// Its rate in parts per million of the world's.
    pub(super) fn rate_ppm(&self) -> u64 {
        self.rate_ppm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_is_the_first_moment_the_clock_shows_a_time() {
        let clock = Clock::booted(1_000_000, 17, 950_003);
        for t in [0, 1, 999, 123_456_789] {
            let w = clock.world(Time(t));
            assert!(clock.read(w) >= Time(t));
            assert!(w == 999_983 || clock.read(w - 1) < Time(t));
        }
    }
}

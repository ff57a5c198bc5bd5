//! How long the owner looks again before it sleeps. Waking a thread costs more than all the rest of
//! a small write, on both nodes; who is still awake when the answer comes pays nothing.
//!
//! Not here: what is looked at (`owner.rs`), and how often the runtime asks the kernel meanwhile.

use super::limits;
use crate::node::Time;
use std::time::Duration;

/// What the owner waits for. A spin that is of use for one is of none for another: each is learned by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Whoever may ask or answer next.
    Anybody,
    /// A disk of ours.
    Disk,
    /// Something to be stable, here or at a peer.
    Stable,
}

impl Awaited {
    fn patience(self) -> Duration {
        match self {
            Self::Anybody | Self::Disk => limits::SPIN,
            Self::Stable => limits::SPIN_STABLE,
        }
    }
}

/// Asked once in every turn of the loop.
#[derive(Debug, Default)]
pub(super) struct Spin {
    state: State,
    habits: [Habit; 3],
}

/// What spins have been good for.
#[derive(Clone, Copy, Debug, Default)]
struct Habit {
    /// In a row that found nothing.
    failures: u32,
    /// Sleeps that come without a spin before.
    skip: u32,
}

#[derive(Debug, Default)]
enum State {
    /// There was work in the last turn.
    #[default]
    Working,
    Spinning {
        until: Time,
        awaited: Awaited,
    },
    Sleeping,
}

impl Spin {
    /// This turn had work.
    pub(super) fn worked(&mut self) {
        if let State::Spinning { awaited, .. } = self.state {
            self.habits[awaited as usize].failures = 0;
        }
        self.state = State::Working;
    }

    /// This turn had none: whether to look again at once. Whoever waits for this core gets it first.
    pub(super) fn looks_again(&mut self, now: Time, awaited: Awaited) -> bool {
        match self.state {
            State::Working => {
                let habit = &mut self.habits[awaited as usize];
                if habit.skip > 0 {
                    habit.skip -= 1;
                    self.state = State::Sleeping;
                } else {
                    let until = Time(now.0 + awaited.patience().as_nanos() as u64);
                    self.state = State::Spinning { until, awaited };
                }
            }
            State::Spinning { until, .. } if now < until => std::thread::yield_now(),
            State::Spinning { awaited, .. } => {
                // What comes too late for one spin comes too late for most that follow.
                let habit = &mut self.habits[awaited as usize];
                habit.failures = (habit.failures + 1).min(limits::SPIN_FAILURES);
                habit.skip = (1 << habit.failures) - 1;
                self.state = State::Sleeping;
            }
            State::Sleeping => {}
        }
        matches!(self.state, State::Spinning { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns without work until it sleeps, a microsecond each, from `now`.
    fn idle_turns(spin: &mut Spin, mut now: Time) -> u64 {
        let mut turns = 0;
        while spin.looks_again(now, Awaited::Anybody) {
            now.0 += 1000;
            turns += 1;
            assert!(turns < 10_000, "it never sleeps");
        }
        turns
    }

    #[test]
    fn sleeps_when_nothing_comes_and_then_spins_more_and_more_rarely() {
        let mut spin = Spin::default();
        let full = limits::SPIN.as_micros() as u64;
        let mut spun = 0;
        for wake in 0..1000 {
            spin.worked();
            spun += u64::from(idle_turns(&mut spin, Time(wake * 1_000_000)) >= full);
            assert!(
                !spin.looks_again(Time(wake * 1_000_000), Awaited::Anybody),
                "it spins out of its sleep"
            );
        }
        assert!(
            (6..=24).contains(&spun),
            "{spun} of 1000 wake-ups without use were followed by a spin"
        );
    }

    #[test]
    fn what_is_of_no_use_for_one_is_tried_for_another() {
        let mut spin = Spin::default();
        for wake in 0..100 {
            let mut now = Time(wake * 1_000_000);
            spin.worked();
            assert!(spin.looks_again(now, Awaited::Anybody), "wake-up {wake}");
            spin.worked();
            while spin.looks_again(now, Awaited::Stable) {
                now.0 += 10_000;
            }
        }
    }

    #[test]
    fn goes_on_as_long_as_spins_find_work() {
        let mut spin = Spin::default();
        for turn in 0..1000 {
            spin.worked();
            assert!(spin.looks_again(Time(turn * 50_000), Awaited::Anybody), "turn {turn}");
        }
    }

    #[test]
    fn one_spin_that_finds_work_makes_up_for_all_that_did_not() {
        let mut spin = Spin::default();
        for wake in 0..100 {
            spin.worked();
            idle_turns(&mut spin, Time(wake * 1_000_000));
        }
        let tries = (0..=1 << limits::SPIN_FAILURES).take_while(|_| {
            spin.worked();
            !spin.looks_again(Time(0), Awaited::Anybody)
        });
        assert!(tries.count() < 1 << limits::SPIN_FAILURES, "it is never tried again");
        spin.worked();
        assert!(spin.looks_again(Time(0), Awaited::Anybody));
    }
}

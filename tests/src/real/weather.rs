//! What becomes of bytes under way on a bad day, drawn from a seed: a stream arrives in pieces, late, is silent for a while, breaks in the
//! midst of a frame, or one of its bits is another on arrival.
//!
//! Each direction of each connection draws by itself: the same seed gives the same weather, though no two runs send the same bytes.

use super::Random;
use std::time::Duration;

/// What is done to the bytes that were read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lot {
    /// They pass.
    Pass,
    /// Not before this time.
    Silence(Duration),
    /// With the bit of this number turned, counted modulo what there is.
    Flip(usize),
    /// The connection breaks after so many of them, counted modulo what there is.
    Break(usize),
}

/// The weather of one direction of one connection.
#[derive(Debug)]
pub struct Weather {
    random: Random,
}

impl Weather {
    /// `seed`: of the day. `stream`: which direction of which connection.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { random: Random::new(seed ^ stream << 32) }
    }

    /// Of the bytes that were read at once.
    pub fn lot(&mut self) -> Lot {
        let random = &mut self.random;
        match random.below(3000) {
            0..=2 => Lot::Silence(Duration::from_millis(10 << random.below(9))),
            3..=4 => Lot::Flip(random.below(1 << 20) as usize),
            5..=6 => Lot::Break(random.below(1 << 16) as usize),
            _ => Lot::Pass,
        }
    }

    /// How many of so many bytes arrive together, and after which time.
    pub fn piece(&mut self, left: usize) -> (usize, Duration) {
        let random = &mut self.random;
        let most = [7, 100, 1460, 1 << 16, 1 << 16, 1 << 16][random.below(6) as usize];
        let late = if random.below(32) == 0 { random.below(3000) } else { 0 };
        (left.min(1 + random.below(most) as usize), Duration::from_micros(late))
    }
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Silences.
    pub silences: u32,
    /// Bits turned.
    pub flips: u32,
    /// Connections that broke.
    pub breaks: u32,
}

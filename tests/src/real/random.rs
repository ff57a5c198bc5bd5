//! Choices that can be made again. Not for secrets.

use std::time::{SystemTime, UNIX_EPOCH};

/// Random numbers that follow from a seed (xorshift64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Neighbouring seeds have nothing in common.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// The next, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new(0)
    }
}

/// A seed that nobody has tried, unless one is wanted: `POLLUX_SEED`.
///
/// # Panics
/// If what is wanted is not a number.
pub fn seed() -> u64 {
    let wanted = std::env::var("POLLUX_SEED").ok().map(|text| text.parse().expect("a number"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = wanted.unwrap_or(now.as_millis() as u64);
    println!("POLLUX_SEED={seed}");
    seed
}

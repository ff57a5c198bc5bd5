//! Power that fails under real daemons, at any instant of a run that was recorded.
//!
//! Reading order: [`history`] (a client that notes what it sent and was told, in the order of the disk's record), [`image`] (the files of a node
//! as they may be after a cut at an instant of that order), [`trial`] (daemons started on such files, and what must be true of them).

pub mod history;
pub mod image;
pub mod trial;

/// Bytes of the piece in which a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

/// The random number after this one (xorshift64; any seed).
pub fn next_random(state: u64) -> u64 {
    let mut next = if state == 0 { 0x9e37_79b9_7f4a_7c15 } else { state };
    next ^= next << 13;
    next ^= next >> 7;
    next ^ (next << 17)
}

/// Random numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Neighbouring seeds have nothing in common.
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = next_random(self.0);
        (self.0 >> 16) % bound
    }
}

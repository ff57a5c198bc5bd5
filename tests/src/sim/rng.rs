//! The simulator's own random numbers: small, fast, the same everywhere for the same seed. They can be written to a tape and come
//! from one again (`script`).

use super::script::{Stream, Tape};
use std::cell::RefCell;
use std::rc::Rc;

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: u64,
    tape: Option<Rc<RefCell<Tape>>>,
}

impl Rng {
    /// Starts from a seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Self { state: seed ^ 0x5851_f42d_4c95_7f2d, tape: None };
        rng.next();
        rng
    }

    /// From now on through this tape.
    pub(super) fn through(&mut self, tape: Rc<RefCell<Tape>>) {
        self.tape = Some(tape);
    }

    /// Says whose numbers the next ones are; returns whose they were. Matters to a tape only.
    pub(super) fn enter(&mut self, stream: Option<Stream>) -> Option<Stream> {
        self.tape.as_ref().and_then(|tape| tape.borrow_mut().enter(stream))
    }

    /// Draws what belongs to this stream.
    pub(super) fn of<T>(&mut self, stream: Stream, draw: impl FnOnce(&mut Self) -> T) -> T {
        if self.tape.is_none() {
            return draw(self);
        }
        let outer = self.enter(Some(stream));
        let drawn = draw(self);
        self.enter(outer);
        drawn
    }

    /// This number, which is drawn elsewhere; a tape has it, too.
    pub(super) fn same(&mut self, stream: Stream, number: u64) -> u64 {
        let Some(tape) = &self.tape else { return number };
        let mut tape = tape.borrow_mut();
        let outer = tape.enter(Some(stream));
        let number = tape.next(number);
        tape.enter(outer);
        number
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        let own = self.own();
        match &self.tape {
            None => own,
            Some(tape) => tape.borrow_mut().next(own),
        }
    }

    fn own(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n`.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// True in `n` of a hundred.
    pub(super) fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// Between `low` and `high`, small numbers as likely as large ones are rare.
    pub(super) fn spread(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(2));
        let bits = |n: u64| 63 - u64::from(n.leading_zeros());
        let exponent = self.between(bits(low), bits(high));
        (1 << exponent | self.below(1 << exponent)).clamp(low, high)
    }

    /// A waiting time with this mean, at most four times as long.
    pub(super) fn wait(&mut self, mean: u64) -> u64 {
        let a = self.below(mean * 2 + 1);
        if self.one_in(4) { a * 2 } else { a }
    }

    /// One of these.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

//! Which operations of a fault disk do not go well: rules that a story sets and lifts while daemons run.

use crate::real::Random;
use std::ops::Range;
use std::time::Duration;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// A read.
    Read,
    /// A write, or a zeroing.
    Write,
    /// An fsync or fdatasync.
    Flush,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It fails with this error, and nothing has been done.
    Fail(i32),
    /// One in so many takes longer, at most by so much.
    Slow {
        /// 1: all of them.
        one_in: u64,
        /// A random part of this.
        up_to: Duration,
    },
    /// It takes until the rule is lifted, and then goes well.
    Hang,
}

/// What happens to which operations.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of which file; `None`: of any.
    pub file: Option<usize>,
    /// To which kinds of operations.
    pub on: &'static [On],
    /// To those that touch these bytes. A flush touches all.
    pub range: Range<u64>,
    /// So many times.
    pub times: u64,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// For every operation of these kinds on one file, for ever.
    pub fn always(file: usize, on: &'static [On], fault: Fault) -> Self {
        Self { file: Some(file), on, range: 0..u64::MAX, times: u64::MAX, fault }
    }

    /// For the next one only.
    pub fn once(file: usize, on: &'static [On], fault: Fault) -> Self {
        Self { times: 1, ..Self::always(file, on, fault) }
    }

    fn is_met(&self, file: usize, on: On, range: &Range<u64>) -> bool {
        let touches =
            on == On::Flush || (range.start < self.range.end && self.range.start < range.end);
        self.times > 0 && self.file.is_none_or(|of| of == file) && self.on.contains(&on) && touches
    }
}

/// What will happen to one operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) fails: Option<i32>,
    pub(super) late: Duration,
    /// The rule that must be lifted first.
    pub(super) hangs: Option<u64>,
}

/// The rules that hold now.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<(u64, Rule)>,
    /// How often each rule was met, also of those lifted.
    met: Vec<u64>,
    random: Random,
}

impl Rules {
    pub(super) fn set(&mut self, rule: Rule) -> u64 {
        let id = self.met.len() as u64;
        self.met.push(0);
        self.rules.push((id, rule));
        id
    }

    pub(super) fn lift(&mut self, id: u64) {
        self.rules.retain(|(other, _)| *other != id);
    }

    pub(super) fn holds(&self, id: u64) -> bool {
        self.rules.iter().any(|(other, _)| *other == id)
    }

    pub(super) fn met(&self, id: u64) -> u64 {
        self.met[id as usize]
    }

    /// What becomes of an operation that begins now.
    pub(super) fn judge(&mut self, file: usize, on: On, range: &Range<u64>) -> Fate {
        let mut fate = Fate::default();
        for (id, rule) in &mut self.rules {
            if !rule.is_met(file, on, range) {
                continue;
            }
            match rule.fault {
                Fault::Fail(errno) => fate.fails = Some(errno),
                Fault::Hang => fate.hangs = Some(*id),
                Fault::Slow { one_in, up_to } => {
                    if self.random.below(one_in) > 0 {
                        continue;
                    }
                    fate.late = up_to * self.random.below(1 << 20) as u32 / (1 << 20);
                }
            }
            rule.times -= 1;
            self.met[*id as usize] += 1;
        }
        fate
    }
}

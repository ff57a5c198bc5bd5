//! Which faults bit, and which rare states were reached: a zero means that the simulator has gone blind there.

use std::collections::BTreeMap;

/// Counts by name; added up over all seeds.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// One more.
    pub(super) fn mark(&mut self, name: &'static str) {
        *self.0.entry(name).or_insert(0) += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            *self.0.entry(name).or_insert(0) += n;
        }
    }

    /// How often.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// A table, one line each.
    pub fn table(&self) -> String {
        self.0.iter().map(|(name, n)| format!("{n:>10}  {name}\n")).collect()
    }
}

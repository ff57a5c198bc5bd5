//! Which faults bit, and what was reached: each rare state, each action, each event in each state, each arm of the verdict. What is
//! reached too seldom means that the simulator has gone blind there (`targets.txt`).

use std::collections::BTreeMap;

/// How often what must be reached, a line each.
const TARGETS: &str = include_str!("../../targets.txt");

/// Seeds that `targets.txt` speaks of.
const SEEDS: u64 = 2000;

/// Counts by group and name; added up over all seeds.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<(&'static str, &'static str), u64>);

impl Counters {
    /// One more of what is rare.
    pub(super) fn mark(&mut self, name: &'static str) {
        self.count_one("reached", name);
    }

    /// One more.
    pub(super) fn count_one(&mut self, group: &'static str, name: &'static str) {
        *self.0.entry((group, name)).or_insert(0) += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (&key, n) in &other.0 {
            *self.0.entry(key).or_insert(0) += n;
        }
    }

    /// How often.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(&("reached", name)).copied().unwrap_or(0)
    }

    /// How often, of any group.
    #[cfg(test)]
    pub(super) fn of(&self, group: &'static str, name: &'static str) -> u64 {
        self.0.get(&(group, name)).copied().unwrap_or(0)
    }

    /// A table, one line each.
    pub fn table(&self) -> String {
        let line =
            |(&(group, name), n): (&(&str, &str), &u64)| format!("{n:>10}  {group}: {name}\n");
        self.0.iter().map(line).collect()
    }

    /// What so many seeds reached less often than `targets.txt` asks for, a line each. Of few seeds little is asked.
    pub fn starved(&self, seeds: u64) -> Vec<String> {
        let targets = TARGETS.lines().filter_map(|line| {
            let (least, key) = line.split('#').next()?.trim().split_once(' ')?;
            Some((least.parse::<u64>().expect("a number"), key.trim()))
        });
        let counts: BTreeMap<String, u64> =
            self.0.iter().map(|((group, name), &n)| (format!("{group}: {name}"), n)).collect();
        let starved = targets.filter_map(|(least, key)| {
            let least = (u128::from(least) * u128::from(seeds) / u128::from(SEEDS)) as u64;
            let count = counts.get(key).copied().unwrap_or(0);
            (count < least).then(|| format!("{count:>10} of {least:>8}  {key}"))
        });
        starved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reaches_nothing_is_told_of_everything() {
        let asked = TARGETS.lines().filter(|line| {
            let least = line.trim().split(' ').next().unwrap_or_default();
            least.parse::<u64>().is_ok_and(|least| least > 0)
        });
        let starved = Counters::default().starved(SEEDS);
        assert_eq!(starved.len(), asked.count());
        assert!(starved.iter().any(|line| line.ends_with("reached: crash: of a sync target")));
    }

    #[test]
    fn who_reaches_enough_is_told_of_nothing() {
        let mut some = Counters::default();
        let enough = |line: &str| line.ends_with("reached: disk: slow");
        assert!(some.starved(SEEDS).iter().any(|line| enough(line)));
        (0..100_000).for_each(|_| some.mark("disk: slow"));
        assert!(!some.starved(SEEDS).iter().any(|line| enough(line)));
    }
}

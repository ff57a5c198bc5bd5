//! The middle of some figures, and how far they lie apart. A ratio is only ever taken between two runs of the same round, since the
//! machine changes its mind from minute to minute.

use serde::Serialize;

/// Figures of several rounds, in short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// None if there are no figures.
    pub fn of(figures: Vec<f64>) -> Option<Self> {
        let min = figures.iter().copied().reduce(f64::min)?;
        let max = figures.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(figures), min, max })
    }

    /// Of the ratios between pairs of round and rate; none if there is no round in which both took their turn.
    pub fn of_ratios(rates: &[(u32, f64)], bases: &[(u32, f64)]) -> Option<Self> {
        let in_round = |&(round, rate): &(u32, f64)| {
            let (_, base) = bases.iter().find(|(other, _)| *other == round)?;
            Some(rate / base)
        };
        Self::of(rates.iter().filter_map(in_round).collect())
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2})", self.median, self.min, self.max)
    }
}

/// The middle value; of an even number, the mean of the two in the middle; of none, NaN.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_a_round_only() {
        // The machine got ten times slower between the rounds: the ratios do not care. The last has no partner.
        let rates = [(0, 2000.0), (1, 300.0), (2, 5.0)];
        let ratio = Spread::of_ratios(&rates, &[(1, 100.0), (0, 1000.0)]).unwrap();
        assert_eq!(ratio, Spread { median: 2.5, min: 2.0, max: 3.0 });
        assert_eq!(Spread::of_ratios(&rates, &[(3, 1.0)]), None);
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}

//! One table for each dimension, and one for its cases at rest.

use super::{Dimension, Outcome, Rest, Sample};
use crate::spread::{Spread, median};
use std::fmt::Write as _;

const MIB: f64 = (1 << 20) as f64;

/// All tables of one dimension.
pub fn of(outcome: &Outcome, dimension: Dimension) -> String {
    let rest: Vec<_> = outcome.rest.iter().filter(|it| it.dimension == dimension).collect();
    let samples: Vec<_> = outcome.samples.iter().filter(|it| it.dimension == dimension).collect();
    let mut text = format!("## {dimension:?}\n\n");
    let idle_pair = rest.first().map_or(f64::NAN, |it| it.resident as f64 / it.pairs as f64);
    let _ = write!(
        text,
        "At rest:\n\n\
         | case | pairs | create-md s | daemons, attach and handshake s | MiB | CPU % of a core |\n\
         |---|--:|--:|--:|--:|--:|\n"
    );
    for Rest { case, pairs, create_md, up, resident, idle_cpu, .. } in &rest {
        let (resident, cpu) = (*resident as f64 / MIB, 100.0 * idle_cpu);
        let _ = writeln!(
            text,
            "| {case} | {pairs} | {create_md:.3} | {up:.3} | {resident:.1} | {cpu:.2} |"
        );
    }
    let _ = write!(
        text,
        "\nAt work:\n\n\
         | case | workload | IOPS | x the first case: median (min..max) | p50 us | p99 us | server CPU s/100k | MiB \
         | of it beyond idle pairs of 1 GiB | n |\n\
         |---|---|--:|---|--:|--:|--:|--:|--:|--:|\n"
    );
    // In the first round they come in their order.
    let cases = distinct(samples.iter().map(|it| &*it.case));
    for work in distinct(samples.iter().map(|it| it.workload)) {
        let of_case = |case: &str| -> Vec<&Sample> {
            let wanted = |it: &&&Sample| it.case == case && it.workload == work;
            samples.iter().filter(wanted).copied().collect()
        };
        let first = cases.first().map(|case| rates(&of_case(case))).unwrap_or_default();
        for case in &cases {
            let own = of_case(case);
            let Some(pairs) = own.first().map(|it| it.pairs as f64) else { continue };
            let middle = |field: fn(&Sample) -> f64| median(own.iter().map(|it| field(it)));
            let ratio = Spread::of_ratios(&rates(&own), &first);
            // Memory once used is kept for a while. Cases go up in the first round, so the least of all is the case's own.
            let resident = own.iter().map(|it| it.resident).min().unwrap_or_default() as f64;
            let _ = writeln!(
                text,
                "| {case} | {work} | {:.0} | {} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {} |",
                middle(|it| it.client.iops),
                ratio.map_or_else(String::new, |ratio| ratio.to_string()),
                middle(|it| it.client.p50),
                middle(|it| it.client.p99),
                middle(|it| it.cpu),
                resident / MIB,
                (resident - idle_pair * pairs) / MIB,
                own.len(),
            );
        }
    }
    text
}

/// Each once, in the order in which they are first seen.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

fn rates(samples: &[&Sample]) -> Vec<(u32, f64)> {
    samples.iter().map(|it| (it.round, it.client.iops)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fio::Measured;

    #[test]
    fn cases_are_compared_with_the_first_and_memory_with_idle_pairs() {
        let dimension = Dimension::Resources;
        let rest = |case: &str, pairs, resident| Rest {
            dimension,
            case: case.into(),
            pairs,
            create_md: 0.01,
            up: 0.03,
            resident,
            idle_cpu: 0.005,
        };
        let sample = |case: &str, round, iops, resident| Sample {
            dimension,
            case: case.into(),
            pairs: case.parse().unwrap(),
            workload: "w",
            round,
            client: Measured { iops, megabytes: 1.0, p50: 2.0, p99: 3.0, requests: 4 },
            cpu: 1.0,
            resident,
            load: 1.0,
        };
        let outcome = Outcome {
            rest: vec![rest("1", 1, 10 << 20), rest("4", 4, 40 << 20)],
            samples: vec![
                sample("1", 0, 100.0, 12 << 20),
                sample("4", 0, 50.0, 45 << 20),
                sample("4", 1, 500.0, 99 << 20),
            ],
            ..Outcome::default()
        };
        let text = of(&outcome, dimension);
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| 4")).collect();
        assert_eq!(
            rows,
            [
                "| 4 | 4 | 0.010 | 0.030 | 40.0 | 0.50 |",
                "| 4 | w | 275 | 0.50 (0.50..0.50) | 2 | 3 | 1.00 | 45.0 | 5.0 | 2 |",
            ]
        );
    }
}

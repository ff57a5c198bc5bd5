//! Samples to tables: medians, and medians of the ratios taken within each round.

use crate::contender::Contender;
use crate::rounds::Sample;
use crate::workload::Workload;
use std::fmt::Write as _;

/// One row for each piece of work and contender: medians, and the ratio of requests per second to `base`.
pub fn figures(
    samples: &[Sample],
    workloads: &[Workload],
    contenders: &[Contender],
    base: Contender,
) -> String {
    let base = base.name();
    let mut text = format!(
        "| workload | contender | IOPS | MB/s | p50 us | p99 us | server CPU s/100k | n | x {base}: median (min..max) |\n\
         |---|---|--:|--:|--:|--:|--:|--:|---|\n"
    );
    for work in workloads {
        for contender in contenders {
            let own = of(samples, work.name, contender.name());
            if own.is_empty() {
                continue;
            }
            let middle = |field: fn(&Sample) -> f64| {
                median(own.iter().map(|sample| field(sample)).collect())
            };
            let ratio = Ratio::of(samples, work.name, contender.name(), base);
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {} | {} |",
                work.name,
                contender.name(),
                middle(|sample| sample.client.iops),
                middle(|sample| sample.client.megabytes),
                middle(|sample| sample.client.p50),
                middle(|sample| sample.client.p99),
                middle(|sample| sample.cpu),
                own.len(),
                ratio.map_or_else(String::new, |ratio| ratio.to_string()),
            );
        }
    }
    text
}

/// One row for each piece of work: Pollux over the better of its replicated peers. Empty if either did not take part.
pub fn verdicts(samples: &[Sample], workloads: &[Workload], contenders: &[Contender]) -> String {
    let mut text = String::new();
    for work in workloads {
        let iops = |contender: Contender| {
            median(of(samples, work.name, contender.name()).iter().map(|s| s.client.iops).collect())
        };
        let peers = contenders.iter().copied().filter(|contender| contender.is_peer());
        let Some(best) = peers.max_by(|&a, &b| iops(a).total_cmp(&iops(b))) else { continue };
        let pollux = Contender::Pollux.name();
        let Some(ratio) = Ratio::of(samples, work.name, pollux, best.name()) else { continue };
        let word = ratio.word();
        let _ = writeln!(text, "| {} | {} | {ratio} | {word} |", work.name, best.name());
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "| workload | best qemu peer | pollux / best qemu peer: median (min..max) | verdict |\n\
         |---|---|---|---|\n{text}"
    )
}

/// Ratios of requests per second, one for each round in which both took their turn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

impl Ratio {
    fn of(samples: &[Sample], work: &str, contender: &str, base: &str) -> Option<Self> {
        let bases = of(samples, work, base);
        let in_round = |sample: &Sample| {
            let base = bases.iter().find(|base| base.round == sample.round)?;
            Some(sample.client.iops / base.client.iops)
        };
        let ratios: Vec<f64> =
            of(samples, work, contender).into_iter().filter_map(in_round).collect();
        let min = ratios.iter().copied().reduce(f64::min)?;
        let max = ratios.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(ratios), min, max })
    }

    /// Only what every round agrees on is called a difference.
    fn word(self) -> &'static str {
        if self.min > 1.0 {
            "faster in every round"
        } else if self.max < 1.0 {
            "SLOWER in every round"
        } else {
            "no clear difference"
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2})", self.median, self.min, self.max)
    }
}

fn of<'a>(samples: &'a [Sample], work: &str, contender: &str) -> Vec<&'a Sample> {
    let wanted = |sample: &&Sample| sample.workload == work && sample.contender == contender;
    samples.iter().filter(wanted).collect()
}

/// The middle value; of an even number, the mean of the two in the middle; of none, NaN.
fn median(mut values: Vec<f64>) -> f64 {
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
    use crate::fio::Measured;
    use crate::workload;

    fn sample(contender: Contender, round: u32, iops: f64) -> Sample {
        let client = Measured { iops, megabytes: 1.0, p50: 2.0, p99: 3.0, requests: 4 };
        let workload = workload::ALL[0].name;
        Sample { contender: contender.name(), workload, round, client, cpu: 0.5, load: 1.0 }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_only() {
        use Contender::{Pollux, QemuMirror, QemuQuorum};
        // The machine got ten times slower between the rounds: the ratios do not care.
        let samples = [
            sample(Pollux, 0, 2000.0),
            sample(QemuMirror, 0, 1000.0),
            sample(QemuQuorum, 0, 10.0),
            sample(Pollux, 1, 300.0),
            sample(QemuMirror, 1, 100.0),
            sample(Pollux, 2, 5.0), // no partner
        ];
        let ratio = Ratio::of(&samples, workload::ALL[0].name, "pollux", "qemu-mirror").unwrap();
        assert_eq!(ratio, Ratio { median: 2.5, min: 2.0, max: 3.0 });
        let text = verdicts(&samples, &workload::ALL, &[Pollux, QemuQuorum, QemuMirror]);
        assert_eq!(
            text.lines().last().unwrap(),
            "| 4k-randwrite-qd1 | qemu-mirror | 2.50 (2.00..3.00) | faster in every round |"
        );
    }

    #[test]
    fn rounds_that_disagree_are_no_difference() {
        let word = |min, max| Ratio { median: 1.0, min, max }.word();
        assert_eq!(word(0.9, 1.1), "no clear difference");
        assert_eq!(word(0.8, 0.9), "SLOWER in every round");
        assert_eq!(word(1.1, 1.2), "faster in every round");
    }

    #[test]
    fn who_did_not_run_has_no_row() {
        let samples = [sample(Contender::NbdkitFile, 0, 10.0)];
        let contenders = [Contender::Pollux, Contender::NbdkitFile];
        let text = figures(&samples, &workload::ALL, &contenders, Contender::NbdkitFile);
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("| 10 | 1 | 2 | 3 | 0.50 | 1 | 1.00 (1.00..1.00) |\n"), "{text}");
        assert_eq!(verdicts(&samples, &workload::ALL, &contenders), "");
    }
}

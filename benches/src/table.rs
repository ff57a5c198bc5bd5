//! Samples to tables: medians, medians of the ratios taken within each round, and what is said of the targets.

use crate::contender::Contender;
use crate::rounds::{Outcome, Sample};
use crate::spread::{Spread, median};
use crate::target::{Verdict, best_peer, rates, samples_of};
use crate::workload::Workload;
use std::fmt::Write as _;

/// One row for each piece of work and contender: medians, the ratio of requests per second to the best replicated peer of the row (for Pollux)
/// and to `base`, and whether the targets were met.
pub fn figures(
    outcome: &Outcome,
    workloads: &[Workload],
    contenders: &[Contender],
    base: Contender,
    verdicts: &[Verdict],
) -> String {
    let samples = &outcome.samples;
    let mut text = format!(
        "| workload | contender | IOPS | MB/s | p50 us | p99 us | server CPU s/100k | servers MiB | requests a system call | n \
         | x best peer: median (min..max) | x {}: median (min..max) | targets |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|---|\n",
        base.name()
    );
    for work in workloads {
        for &contender in contenders {
            let own: Vec<_> = samples_of(samples, contender, work.name).collect();
            if own.is_empty() {
                continue;
            }
            let middle = |field: fn(&Sample) -> f64| median(own.iter().map(|it| field(it)));
            let ratio = |other: Contender| {
                let other = rates(samples, other, work.name);
                Spread::of_ratios(&rates(samples, contender, work.name), &other)
            };
            let best = best_peer(samples, contender, work.name).filter(|_| contender.is_pollux());
            let over_best = best.and_then(|best| Some((ratio(best)?, best)));
            let over_best = over_best.map(|(ratio, best)| format!("{ratio} {}", best.name()));
            let calls = outcome
                .calls
                .iter()
                .find(|calls| calls.contender == contender && calls.workload == work.name);
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {} | {} | {} | {} | {} |",
                work.name,
                contender.name(),
                middle(|sample| sample.client.iops),
                middle(|sample| sample.client.megabytes),
                middle(|sample| sample.client.p50),
                middle(|sample| sample.client.p99),
                middle(|sample| sample.cpu),
                middle(|sample| sample.resident as f64 / f64::from(1 << 20)),
                calls.map_or("-".into(), |calls| format!("{:.3}", calls.requests_per_call())),
                own.len(),
                over_best.unwrap_or_default(),
                ratio(base).map_or_else(String::new, |ratio| ratio.to_string()),
                summary(verdicts, contender, work.name),
            );
        }
    }
    text
}

/// Of one row: `met`, or what was not; nothing if there is no target.
fn summary(verdicts: &[Verdict], contender: Contender, work: &str) -> String {
    let own: Vec<_> =
        verdicts.iter().filter(|it| it.contender == contender && it.workload == work).collect();
    let missed: Vec<_> = own.iter().filter(|it| !it.met).map(|it| it.target.as_str()).collect();
    match (own.len(), &missed[..]) {
        (0, _) => String::new(),
        (_, []) => "met".into(),
        (_, missed) => format!("NOT met: {}", missed.join(", ")),
    }
}

/// One row for each target.
pub fn targets(verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "| workload | contender | target | reached: median (min..max) | |\n|---|---|---|---|---|\n",
    );
    for verdict in verdicts {
        let Verdict { workload, contender, target, reached, met } = verdict;
        let (contender, word) = (contender.name(), if *met { "met" } else { "NOT met" });
        let _ = writeln!(text, "| {workload} | {contender} | {target} | {reached} | {word} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::tests::sample;
    use crate::system_calls::Calls;
    use crate::target;
    use crate::workload;
    use Contender::{NbdkitFile, Pollux, QemuMirror};

    #[test]
    fn a_row_says_which_target_was_missed() {
        let row = "4k-randwrite-qd1";
        let samples = vec![sample(Pollux, row, 0, 15.0), sample(QemuMirror, row, 0, 10.0)];
        let calls = vec![Calls { contender: Pollux, workload: row, requests: 1, calls: 4 }];
        let verdicts = target::verdicts(&samples, &workload::ALL, true);
        let outcome = Outcome { samples, calls, ..Outcome::default() };
        let contenders = [Pollux, NbdkitFile, QemuMirror];
        let text = figures(&outcome, &workload::ALL, &contenders, NbdkitFile, &verdicts);
        let rows: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| 4k-randwrite-qd1 | pollux | 15 | 1 | 2 | 3 | 0.50 | 7 | 0.250 | 1 | 1.50 (1.50..1.50) qemu-mirror |  \
                 | NOT met: at least 1.6 x qemu-mirror (best peer) |",
                "| 4k-randwrite-qd1 | qemu-mirror | 10 | 1 | 2 | 3 | 0.50 | 7 | - | 1 |  |  |  |",
            ]
        );
        assert!(targets(&verdicts).ends_with("| 1.50 (1.50..1.50) | NOT met |\n"));
    }

    #[test]
    fn who_did_not_run_has_no_row() {
        let samples = vec![sample(NbdkitFile, "1m-seqread-qd8", 0, 10.0)];
        let outcome = Outcome { samples, ..Outcome::default() };
        let text = figures(&outcome, &workload::ALL, &[Pollux, NbdkitFile], NbdkitFile, &[]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("| 1 |  | 1.00 (1.00..1.00) |  |\n"), "{text}");
    }
}

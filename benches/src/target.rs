//! What Pollux is to reach, and whether it did. A target is missed or met; the run is in order either way.

use crate::contender::Contender;
use crate::rounds::Sample;
use crate::spread::{Spread, median};
use crate::workload::Workload;
use serde::Serialize;

/// A target: in every row of these contenders and pieces of work, this much of that.
struct Target {
    in_memory: bool,
    of: &'static [Contender],
    /// None: all. Of an integrity check, all that write.
    workloads: Option<&'static [&'static str]>,
    measure: Measure,
    bound: f64,
}

/// What a target is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// At least so many times the requests per second of the replicated peer that is best in the row.
    BestPeer,
    /// At least so many times those of this one.
    Over(Contender),
    /// At least so many times its own in another row.
    OwnRow(&'static str),
    /// At most so many microseconds of its 99th percentile.
    P99,
    /// At most so many seconds of CPU for 100 000 requests, over both daemons.
    Cpu,
}

use Contender::{NbdkitFile, Pollux, PolluxCrc, PolluxDirect};
use Measure::{BestPeer, Cpu, Over, OwnRow, P99};

const fn in_memory(workload: &'static [&'static str], measure: Measure, bound: f64) -> Target {
    Target { in_memory: true, of: &[Pollux], workloads: Some(workload), measure, bound }
}

/// The row that stands for a busy connection.
const QD32: &str = "4k-randwrite-qd32";

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    in_memory(&["4k-randwrite-qd1"],   BestPeer,         1.6),
    in_memory(&["4k-write+flush-qd1"], BestPeer,         1.3),
    in_memory(&[QD32],                 BestPeer,         2.5),
    in_memory(&[QD32],                 Over(NbdkitFile), 0.6),
    in_memory(&[QD32],                 P99,              1500.0),
    in_memory(&[QD32],                 Cpu,              2.0),
    in_memory(&["4k-randwrite-4x8"],   OwnRow(QD32),     1.0),
    in_memory(&["4k-randread-qd1"],    Over(NbdkitFile), 1.0),
    in_memory(&["4k-randread-qd32"],   Over(NbdkitFile), 1.0),
    in_memory(&["64k-randwrite-qd16"], BestPeer,         1.6),
    in_memory(&["1m-seqwrite-qd8"],    BestPeer,         1.6),
    in_memory(&["1m-seqread-qd8"],     Over(NbdkitFile), 1.0),
    Target { in_memory: true,  of: &[PolluxCrc],            workloads: None, measure: Over(Pollux), bound: 0.9 },
    Target { in_memory: false, of: &[Pollux, PolluxDirect], workloads: None, measure: BestPeer,     bound: 1.3 },
];

impl Target {
    fn is_for(&self, contender: Contender, work: &Workload, in_memory: bool) -> bool {
        let row = match self.workloads {
            Some(names) => names.contains(&work.name),
            // Checksums are made of what is sent to the peer.
            None => work.writes() || self.measure != Over(Pollux),
        };
        row && self.in_memory == in_memory && self.of.contains(&contender)
    }
}

/// A target, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Who.
    pub contender: Contender,
    /// What.
    pub workload: &'static str,
    /// What was to be reached, in words.
    pub target: String,
    /// What was reached, in words.
    pub reached: String,
    /// Was it?
    pub met: bool,
}

/// All targets that these samples say something about.
pub fn verdicts(samples: &[Sample], works: &[Workload], in_memory: bool) -> Vec<Verdict> {
    let rows = works.iter().flat_map(|work| [Pollux, PolluxCrc, PolluxDirect].map(|of| (work, of)));
    rows.flat_map(|(work, of)| {
        let targets = TARGETS.iter().filter(move |it| it.is_for(of, work, in_memory));
        targets.filter_map(move |target| verdict(samples, of, work, target))
    })
    .collect()
}

fn verdict(samples: &[Sample], of: Contender, work: &Workload, target: &Target) -> Option<Verdict> {
    let bound = target.bound;
    let at_least = |name: &str, base: Contender, row: &str| {
        let ratio = Spread::of_ratios(&rates(samples, of, work.name), &rates(samples, base, row))?;
        Some((format!("at least {bound} x {name}"), ratio.to_string(), ratio.median >= bound))
    };
    let at_most = |name: &str, value: fn(&Sample) -> f64| {
        let own: Vec<f64> = samples_of(samples, of, work.name).map(value).collect();
        let range = Spread::of(own)?;
        Some((format!("at most {bound} {name}"), range.to_string(), range.median <= bound))
    };
    let (target, reached, met) = match target.measure {
        BestPeer => {
            let peer = best_peer(samples, of, work.name)?;
            at_least(&format!("{} (best peer)", peer.name()), peer, work.name)
        }
        Over(other) => at_least(other.name(), other, work.name),
        OwnRow(row) => at_least(&format!("its {row}"), of, row),
        P99 => at_most("us p99", |sample| sample.client.p99),
        Cpu => at_most("s CPU/100k", |sample| sample.cpu),
    }?;
    Some(Verdict { contender: of, workload: work.name, target, reached, met })
}

/// The replicated peer with the highest median rate in a row, of those that use the page cache as `of` does.
pub fn best_peer(samples: &[Sample], of: Contender, work: &str) -> Option<Contender> {
    let rate = |of| median(rates(samples, of, work).into_iter().map(|(_, rate)| rate));
    let row = samples.iter().filter(|it| it.workload == work).map(|it| it.contender);
    row.filter(|it| it.is_peer() && it.is_direct() == of.is_direct())
        .max_by(|&a, &b| rate(a).total_cmp(&rate(b)))
}

/// Requests per second by round.
pub fn rates(samples: &[Sample], contender: Contender, work: &str) -> Vec<(u32, f64)> {
    samples_of(samples, contender, work).map(|sample| (sample.round, sample.client.iops)).collect()
}

/// One contender's samples of one piece of work.
pub fn samples_of<'a>(
    samples: &'a [Sample],
    contender: Contender,
    work: &str,
) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(move |it| it.workload == work && it.contender == contender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::tests::sample;
    use crate::workload;
    use Contender::{QemuMirror, QemuQuorum};

    fn named(name: &str) -> Workload {
        workload::named(name).unwrap()
    }

    #[test]
    fn every_target_is_about_rows_that_exist() {
        for target in TARGETS {
            for name in target.workloads.unwrap_or_default() {
                named(name);
            }
            if let OwnRow(row) = target.measure {
                named(row);
            }
        }
    }

    #[test]
    fn the_best_peer_is_the_one_with_the_higher_median() {
        let samples = [
            sample(Pollux, QD32, 0, 200.0),
            sample(QemuMirror, QD32, 0, 100.0),
            sample(QemuQuorum, QD32, 0, 10.0),
            sample(NbdkitFile, QD32, 0, 400.0),
        ];
        let told = verdicts(&samples, &[named(QD32)], true);
        let told: Vec<_> = told.iter().map(|it| (&*it.target, &*it.reached, it.met)).collect();
        assert_eq!(
            told,
            [
                ("at least 2.5 x qemu-mirror (best peer)", "2.00 (2.00..2.00)", false),
                ("at least 0.6 x nbdkit-file", "0.50 (0.50..0.50)", false),
                ("at most 1500 us p99", "3.00 (3.00..3.00)", true),
                ("at most 2 s CPU/100k", "0.50 (0.50..0.50)", true),
            ]
        );
        let on_disk = verdicts(&samples, &[named(QD32)], false);
        assert_eq!(on_disk.iter().map(|it| it.met).collect::<Vec<_>>(), [true]);
    }

    #[test]
    fn connections_are_compared_with_one_connection_and_checksums_with_none() {
        let many = "4k-randwrite-4x8";
        let read = "4k-randread-qd1";
        let samples = [
            sample(Pollux, QD32, 0, 100.0),
            sample(Pollux, many, 0, 90.0),
            sample(PolluxCrc, QD32, 0, 95.0),
            sample(Pollux, read, 0, 100.0),
            sample(PolluxCrc, read, 0, 10.0),
        ];
        let told = verdicts(&samples, &[QD32, many, read].map(named), true);
        let ratios = told.iter().filter(|it| it.target.contains("at least"));
        let told: Vec<_> = ratios.map(|it| (it.contender, &*it.target, it.met)).collect();
        assert_eq!(
            told,
            [
                (PolluxCrc, "at least 0.9 x pollux", true),
                (Pollux, "at least 1 x its 4k-randwrite-qd32", false),
            ]
        );
    }
}

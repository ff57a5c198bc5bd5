//! Every disk that a crash inside the stages of a commit can leave.

use crate::common::{Disk, Random, Sector, sectors};
use bitmap::MetaWrite;

/// How many of the subsets of a stage are tried.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Sectors, or writes, up to which it is every subset.
    pub(crate) exhaustive: usize,
    /// How many it is beyond.
    pub(crate) samples: u64,
}

/// Inside an operation.
pub(crate) const FULL: Effort = Effort { exhaustive: 10, samples: 6000 };
/// Inside the first commit after each of the recoveries.
pub(crate) const AGAIN: Effort = Effort { exhaustive: 8, samples: 200 };

/// Calls `visit` with every disk that a crash inside these stages can leave, and whether all is
/// done.
pub(crate) fn each_crash(
    disk: &Disk,
    stages: &[Vec<MetaWrite>],
    effort: Effort,
    mut visit: impl FnMut(&Disk, bool),
) {
    let mut done = disk.clone();
    visit(&done, false);
    for (n, stage) in stages.iter().enumerate() {
        let writes: Vec<Vec<(u64, Sector)>> = stage.iter().map(sectors).collect();
        let all: Vec<(u64, Sector)> = writes.concat();
        let mut crash = |lands: &dyn Fn(usize) -> bool| {
            let mut torn = done.clone();
            for (at, (offset, sector)) in all.iter().enumerate() {
                if lands(at) {
                    torn.put(*offset, *sector);
                }
            }
            visit(&torn, false);
        };
        if all.len() <= effort.exhaustive {
            for subset in 1..(1_usize << all.len()) - 1 {
                crash(&|at| subset >> at & 1 == 1);
            }
        } else {
            // Which write a sector belongs to, and its place in it.
            let place: Vec<(usize, usize)> = writes
                .iter()
                .enumerate()
                .flat_map(|(n, write)| (0..write.len()).map(move |at| (n, at)))
                .collect();
            let count = writes.len();
            let torn: u64 = writes.iter().map(|write| 2 * write.len() as u64).sum();
            let subsets = if count <= effort.exhaustive { 1_u64 << count } else { u64::MAX };
            let mut random = Random(all.len() as u64 + 77);
            if subsets.saturating_mul(torn + 1) <= effort.samples {
                for subset in 0..subsets {
                    crash(&|at| subset >> place[at].0 & 1 == 1);
                    for (victim, write) in writes.iter().enumerate() {
                        for cut in 1..write.len() {
                            // The front lands, or the rest does.
                            for front in [true, false] {
                                crash(&|at| {
                                    let (owner, index) = place[at];
                                    if owner == victim {
                                        (index < cut) == front
                                    } else {
                                        subset >> owner & 1 == 1
                                    }
                                });
                            }
                        }
                    }
                }
            } else {
                for _ in 0..effort.samples {
                    let subset = random.next();
                    let victim = random.below(count as u64) as usize;
                    let cut = random.below(writes[victim].len() as u64 + 1) as usize;
                    let front = random.below(2) == 0;
                    crash(&|at| {
                        let (owner, index) = place[at];
                        if owner == victim {
                            (index < cut) == front
                        } else {
                            subset >> (owner % 64) & 1 == 1
                        }
                    });
                }
            }
            // Within a write the disk has no order either.
            for _ in 0..effort.samples / 4 {
                let density = 1 + random.below(7);
                let lands: Vec<bool> = all.iter().map(|_| random.below(8) < density).collect();
                crash(&|at| lands[at]);
            }
        }
        done.write_stages(std::slice::from_ref(stage));
        visit(&done, n + 1 == stages.len());
    }
}

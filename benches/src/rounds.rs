//! The run: contenders are started together and take turns, A B C, then B C A, so that none has the machine's good hour.

use crate::contender::{Contender, Running};
use crate::fio::{Measured, measure};
use crate::stop::Stop;
use crate::system_calls::{self, Calls};
use crate::workload::Workload;
use crate::{Error, machine};
use rustix::fs::{statvfs, sync};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory that exists; everything goes into a new one inside it, which is removed at the end.
    pub dir: PathBuf,
    /// Bytes of the device each contender serves.
    pub size: u64,
    /// How often each contender does each piece of work.
    pub rounds: u32,
    /// Seconds each takes.
    pub seconds: u64,
    /// No new piece of work is begun after this time.
    pub budget: Duration,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// What they do.
    pub workloads: Vec<Workload>,
}

/// One contender's turn at one piece of work.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Who.
    pub contender: Contender,
    /// What.
    pub workload: &'static str,
    /// In which round.
    pub round: u32,
    /// What the client saw.
    #[serde(flatten)]
    pub client: Measured,
    /// Seconds of CPU the contender's processes used for 100 000 requests.
    pub cpu: f64,
    /// Bytes of memory that the contender's processes had resident when the turn ended.
    pub resident: u64,
    /// Processes ready to run, averaged over a minute, when the turn ended.
    pub load: f64,
}

/// What a run brought.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The figures.
    pub samples: Vec<Sample>,
    /// System calls of the servers, counted in turns of their own.
    pub calls: Vec<Calls>,
    /// Why they were not counted.
    pub uncounted: Option<String>,
    /// What went wrong. With any, the figures are not to be trusted.
    pub troubles: Vec<String>,
    /// Was the run cut short by its budget or by a signal?
    pub cut_short: bool,
}

/// Runs the plan. Whatever happens, what was started is stopped.
pub fn run(plan: &Plan, stop: &Stop) -> Outcome {
    let mut outcome = Outcome::default();
    let dir = plan.dir.join(format!("side-by-side-{}", std::process::id()));
    let mut running = Vec::new();
    let begun = Instant::now();
    let over = || stop.wanted() || begun.elapsed() > plan.budget;
    if let Err(error) = start_all(plan, &dir, stop, &mut running)
        .and_then(|()| take_turns(plan, over, &running, &mut outcome))
        .and_then(|()| count_calls(plan, over, &running, &mut outcome, &dir))
    {
        outcome.troubles.push(error.to_string());
    }
    for contender in running {
        let name = contender.contender().name();
        if let Err(error) = contender.stop() {
            outcome.troubles.push(format!("{name}: {error}"));
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        outcome.troubles.push(Error::file(&dir)(error).to_string());
    }
    outcome
}

fn start_all(
    plan: &Plan,
    dir: &Path,
    stop: &Stop,
    running: &mut Vec<Running>,
) -> Result<(), Error> {
    std::fs::create_dir(dir).map_err(Error::file(dir))?;
    let room = statvfs(dir).map_err(|error| Error::file(dir)(error.into()))?;
    let free = room.f_bavail * room.f_frsize;
    let needed =
        plan.size * plan.contenders.iter().map(|contender| contender.copies()).sum::<u64>();
    if free < needed {
        let (free_mib, needed_mib) = (free >> 20, needed >> 20);
        return Err(Error::NoRoom { path: dir.to_owned(), free_mib, needed_mib });
    }
    for &contender in &plan.contenders {
        if stop.wanted() {
            break;
        }
        eprintln!("starting {}", contender.name());
        running.push(contender.start(&dir.join(contender.name()), plan.size)?);
    }
    Ok(())
}

fn take_turns(
    plan: &Plan,
    over: impl Fn() -> bool,
    running: &[Running],
    outcome: &mut Outcome,
) -> Result<(), Error> {
    for round in 0..plan.rounds {
        for work in &plan.workloads {
            let first = round as usize % running.len().max(1);
            for contender in running[first..].iter().chain(&running[..first]) {
                if over() {
                    outcome.cut_short = true;
                    return Ok(());
                }
                let sample = turn(contender, work, round, plan.seconds)?;
                eprintln!(
                    "round {round} {:18} {:18} {:8.0} IOPS",
                    sample.workload,
                    sample.contender.name(),
                    sample.client.iops
                );
                outcome.samples.push(sample);
            }
        }
    }
    Ok(())
}

fn turn(running: &Running, work: &Workload, round: u32, seconds: u64) -> Result<Sample, Error> {
    // What the one before left to write back is not this one's burden.
    sync();
    let before = running.cpu_seconds()?;
    let client = measure(&[&running.uri], work, seconds, &[])?;
    let used = running.cpu_seconds()? - before;
    Ok(Sample {
        contender: running.contender(),
        workload: work.name,
        round,
        client,
        cpu: used / client.requests as f64 * 1e5,
        resident: running.resident()?,
        load: machine::load(),
    })
}

/// Once more each piece of work, for a second: the counting is not in the other figures.
fn count_calls(
    plan: &Plan,
    over: impl Fn() -> bool,
    running: &[Running],
    outcome: &mut Outcome,
    dir: &Path,
) -> Result<(), Error> {
    if outcome.cut_short {
        outcome.uncounted = Some("the run was cut short".into());
        return Ok(());
    }
    if let Err(error) = system_calls::countable() {
        outcome.uncounted = Some(error.to_string());
        return Ok(());
    }
    for work in &plan.workloads {
        for contender in running {
            if over() {
                outcome.cut_short = true;
                return Ok(());
            }
            eprintln!("system calls {:18} {}", work.name, contender.contender().name());
            outcome.calls.push(system_calls::count(contender, work, 1, dir)?);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A turn in which nothing but the rate is of interest.
    pub(crate) fn sample(
        contender: Contender,
        workload: &'static str,
        round: u32,
        iops: f64,
    ) -> Sample {
        let client = Measured { iops, megabytes: 1.0, p50: 2.0, p99: 3.0, requests: 4 };
        Sample { contender, workload, round, client, cpu: 0.5, resident: 7 << 20, load: 1.0 }
    }
}

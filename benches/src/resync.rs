//! What resyncs take, and what clients notice of one: a new disk, scattered blocks, a crash, beside what the machine can do.

use crate::contender::pollux::{Pair, Setup};
use crate::contender::{self, Contender};
use crate::fio::{self, Measured};
use crate::spread::Spread;
use crate::stop::Stop;
use crate::workload::{self, Place};
use crate::{Error, chain};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Written before the Primary is killed: 13 MiB in blocks of 4 KiB.
const CRASH_WRITES: u32 = 3328;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory that exists; everything goes into a new one inside it, which is removed at the end.
    pub dir: PathBuf,
    /// Bytes of the device.
    pub size: u64,
    /// How often each is measured.
    pub rounds: u32,
    /// Seconds for which clients are watched.
    pub seconds: u64,
    /// How many blocks are scattered over the device while the peer is away.
    pub blocks: u32,
}

/// A figure of one round.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Of what.
    pub measure: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// In which round.
    pub round: u32,
    /// How much.
    pub value: f64,
}

/// What a run brought.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// The figures.
    pub samples: Vec<Sample>,
    /// What went wrong.
    pub troubles: Vec<String>,
    /// Was the run cut short by a signal?
    pub cut_short: bool,
}

/// Builds what is measured and finds the client, or says what is missing.
pub fn prepare() -> Result<(), Error> {
    contender::prepare(&[Contender::Pollux])
}

/// Runs the plan. Whatever happens, what was started is stopped.
pub fn run(plan: &Plan, stop: &Stop) -> Outcome {
    let dir = plan.dir.join(format!("resync-{}", std::process::id()));
    let mut outcome = Outcome::default();
    let setup = Setup { contender: Contender::Pollux, declared_equal: true, delay: None };
    let done = setup.start(&dir, plan.size).and_then(|mut pair| {
        let measured = rounds(plan, &mut pair, stop, &mut outcome);
        let stopped = pair.running.stop();
        measured.and(stopped)
    });
    if let Err(error) = done {
        outcome.troubles.push(error.to_string());
    }
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        outcome.troubles.push(Error::file(&dir)(error).to_string());
    }
    outcome
}

fn rounds(plan: &Plan, pair: &mut Pair, stop: &Stop, outcome: &mut Outcome) -> Result<(), Error> {
    let uri = pair.running.uri.clone();
    fio::fill(&uri, Place::Whole)?;
    for round in 0..plan.rounds {
        let mut take = |measure, unit, value| {
            eprintln!("round {round} {measure:40} {value:10.2} {unit}");
            outcome.samples.push(Sample { measure, unit, round, value });
        };
        let chain = chain::bandwidth(plan.size).map_err(Error::file("a chain of sockets"))?;
        take("batched chain of two links", "MB/s", chain / 1e6);

        let begun = pair.replace_disk(|| Ok(Instant::now()))?;
        let rate = plan.size as f64 / in_sync(pair, begun)?.as_secs_f64();
        take("new disk", "MB/s", rate / 1e6);
        take("new disk / chain", "", rate / chain);

        pair.adm(1, &["disconnect", "r0"])?;
        fio::write_blocks(&uri, plan.size, plan.blocks)?;
        let begun = Instant::now();
        pair.adm(1, &["connect", "r0"])?;
        pair.adm(0, &["wait-connect", "r0"])?;
        let seconds = in_sync(pair, begun)?.as_secs_f64();
        take("scattered blocks of 4 KiB", "/s", f64::from(plan.blocks) / seconds);

        crash(plan, pair, &mut take)?;

        let without = watch(&uri, plan.seconds)?;
        let begun = pair.replace_disk(|| Ok(Instant::now()))?;
        let with = watch(&uri, plan.seconds)?;
        if pair.adm(0, &["dstate", "r0"])?.contains("Inconsistent") {
            take("p99 of 4 KiB writes beside a resync", "us", with.p99);
            take("p99 beside a resync / without", "", with.p99 / without.p99);
        } else {
            outcome.troubles.push(format!("round {round}: the resync was over before its clients"));
        }
        in_sync(pair, begun)?;
        if stop.wanted() {
            outcome.cut_short = true;
            break;
        }
    }
    Ok(())
}

/// How long it is since then, when both copies are good.
fn in_sync(pair: &Pair, begun: Instant) -> Result<Duration, Error> {
    pair.adm(0, &["wait-sync", "r0"])?;
    Ok(begun.elapsed())
}

/// 4 KiB random writes at depth 32.
fn watch(uri: &str, seconds: u64) -> Result<Measured, Error> {
    let work = workload::named("4k-randwrite-qd32").expect("it is one of them");
    fio::measure(&[uri], &work, seconds, &[])
}

/// The Primary is killed after a few writes all over the device.
fn crash(
    plan: &Plan,
    pair: &mut Pair,
    take: &mut impl FnMut(&'static str, &'static str, f64),
) -> Result<(), Error> {
    let uri = pair.running.uri.clone();
    pair.wait_for_empty_log()?;
    fio::write_blocks(&uri, plan.size.min(1 << 30), CRASH_WRITES)?;
    let copies = [0, 1].map(|node| pair.copy(node).to_owned());
    let survivor = pair.id(1);
    let (begun, before) = pair.crash(|| {
        for copy in &copies {
            forget(copy)?;
        }
        Ok((Instant::now(), bytes_read(survivor)?))
    })?;
    let seconds = in_sync(pair, begun)?.as_secs_f64();
    let read = [bytes_read(pair.id(0))?, bytes_read(survivor)? - before];
    pair.adm(0, &["primary", "r0"])?;
    pair.running.wait_for_port()?;
    take("after a crash, in sync after", "s", seconds);
    take(
        "after a crash, read on the node that read more",
        "MiB",
        read[0].max(read[1]) as f64 / 1_048_576.0,
    );
    for copy in &copies {
        forget(copy)?;
    }
    let least = read[0].min(read[1]);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let readers = copies.each_ref().map(|copy| scope.spawn(move || read_through(copy, least)));
        readers.into_iter().try_for_each(|it| it.join().expect("it does not panic"))
    })?;
    take(
        "after a crash / reading as much of both copies",
        "",
        begun.elapsed().as_secs_f64() / seconds,
    );
    Ok(())
}

/// Nothing of this file stays in memory, if it is on a disk.
fn forget(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::file(path))?;
    file.sync_all().map_err(Error::file(path))?;
    fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| Error::file(path)(error.into()))
}

/// Bytes a process has read from files and sockets.
fn bytes_read(process: u32) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/proc/{process}/io"));
    let io = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    let read = line.and_then(|line| line.parse().ok());
    read.ok_or(Error::Nonsense { what: "/proc/PID/io", said: io })
}

fn read_through(path: &Path, bytes: u64) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::file(path))?;
    let mut from = std::io::Read::take(std::io::BufReader::with_capacity(1 << 20, file), bytes);
    std::io::copy(&mut from, &mut std::io::sink()).map_err(Error::file(path))?;
    Ok(())
}

/// One row for each figure.
pub fn table(samples: &[Sample]) -> String {
    let mut text = String::from("| what | median (min..max) | |\n|---|---|---|\n");
    let mut told: Vec<&str> = Vec::new();
    for Sample { measure, unit, .. } in samples {
        if told.contains(measure) {
            continue;
        }
        told.push(measure);
        let own = samples.iter().filter(|it| it.measure == *measure).map(|it| it.value);
        if let Some(spread) = Spread::of(own.collect()) {
            let _ = writeln!(text, "| {measure} | {spread} | {unit} |");
        }
    }
    text
}

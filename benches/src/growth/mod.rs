//! What becomes of Pollux when something grows: the device, the depth, the connections, the resources, the delay of the link. Within
//! one dimension all cases take turns, so that a ratio between two of them says something.

mod cases;
pub mod table;

use crate::contender::{Contender, Running, pollux};
use crate::fio::{self, Measured};
use crate::stop::Stop;
use crate::workload::{Place, Workload};
use crate::{Error, contender, machine};
use clap::ValueEnum;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes that are written and read, whatever the size of the device; of all resources together.
pub const WORKING_SET: u64 = 512 << 20;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// The device: 1 GiB to 16 TiB, sparse.
    Size,
    /// Requests outstanding on one connection: 1 to 256.
    Depth,
    /// Connections, at 32 requests outstanding in all: 1 to 16.
    Connections,
    /// Pairs of daemons, at 64 requests outstanding in all and at 8 each: 1 to 64.
    Resources,
    /// What a byte waits between the nodes: 0 to 5 ms one way.
    Link,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A directory that exists; everything goes into a new one inside it, which is removed at the end.
    pub dir: PathBuf,
    /// Which dimensions.
    pub dimensions: Vec<Dimension>,
    /// How often each case does each piece of work.
    pub rounds: u32,
    /// Seconds each takes.
    pub seconds: u64,
    /// No new piece of work is begun after this time.
    pub budget: Duration,
}

/// How a case is before it is given work, if it has pairs that no case before it had.
#[derive(Clone, Debug, Serialize)]
pub struct Rest {
    /// What grows.
    pub dimension: Dimension,
    /// How far it has.
    pub case: String,
    /// Pairs of daemons.
    pub pairs: usize,
    /// Seconds that `create-md` takes on one node, the slowest.
    pub create_md: f64,
    /// Seconds from the start of two daemons to both disks being UpToDate and connected, the slowest pair.
    pub up: f64,
    /// Bytes of memory that all daemons have resident.
    pub resident: u64,
    /// CPU seconds a second of all daemons together.
    pub idle_cpu: f64,
}

/// One turn of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What grows.
    pub dimension: Dimension,
    /// How far it has.
    pub case: String,
    /// Pairs of daemons.
    pub pairs: usize,
    /// What the client does.
    pub workload: &'static str,
    /// In which round.
    pub round: u32,
    /// What the client saw.
    #[serde(flatten)]
    pub client: Measured,
    /// Seconds of CPU that all daemons of the case used for 100 000 requests.
    pub cpu: f64,
    /// Bytes of memory they had resident when the turn ended.
    pub resident: u64,
    /// Processes ready to run, averaged over a minute, when the turn ended.
    pub load: f64,
}

/// What a run brought.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Cases without work.
    pub rest: Vec<Rest>,
    /// Cases at work.
    pub samples: Vec<Sample>,
    /// What went wrong.
    pub troubles: Vec<String>,
    /// Was the run cut short by its budget or by a signal?
    pub cut_short: bool,
}

/// One value of what grows.
struct Case {
    label: String,
    /// Which of the pairs it loads: so many from this one on.
    first: usize,
    pairs: usize,
    works: Vec<Workload>,
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    dir: PathBuf,
    begun: Instant,
    stop: &'a Stop,
    outcome: Outcome,
}

/// Runs the plan. Whatever happens, what was started is stopped.
pub fn run(plan: &Plan, stop: &Stop) -> Outcome {
    let dir = plan.dir.join(format!("growth-{}", std::process::id()));
    let mut run = Run { plan, dir, begun: Instant::now(), stop, outcome: Outcome::default() };
    for &dimension in &plan.dimensions {
        let mut running = Vec::new();
        let done = std::fs::create_dir_all(&run.dir).map_err(Error::file(&run.dir));
        if let Err(error) = done.and_then(|()| run.dimension(dimension, &mut running)) {
            run.trouble(dimension, "", &error);
        }
        for pair in running {
            if let Err(error) = pair.stop() {
                run.trouble(dimension, "at the end", &error);
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&run.dir) {
            run.trouble(dimension, "cleaning up", &Error::file(&run.dir)(error));
        }
    }
    run.outcome
}

impl Run<'_> {
    fn dimension(&mut self, dimension: Dimension, running: &mut Vec<Running>) -> Result<(), Error> {
        let mut cases = Vec::new();
        for wanted in cases::of(dimension) {
            if self.is_over() {
                return Ok(());
            }
            eprintln!("starting {dimension:?} {}", wanted.label);
            // A case that cannot be set up is told, and the others still say something.
            match self.set_up(dimension, &wanted, running) {
                Ok(case) => cases.push(case),
                Err(error) => self.trouble(dimension, &wanted.label, &error),
            }
        }
        self.take_turns(dimension, &cases, running)
    }

    /// Starts the pairs that the case has more than the ones before it, or its own, and looks at them while nobody asks them.
    fn set_up(
        &mut self,
        dimension: Dimension,
        wanted: &cases::Wanted,
        running: &mut Vec<Running>,
    ) -> Result<Case, Error> {
        let first = if wanted.shares_pairs { 0 } else { running.len() };
        let case = Case {
            label: wanted.label.clone(),
            first,
            pairs: wanted.pairs,
            works: wanted.works.clone(),
        };
        if running.len() == first + wanted.pairs {
            return Ok(case);
        }
        let (mut create_md, mut up) = (Duration::ZERO, Duration::ZERO);
        while running.len() < first + wanted.pairs {
            let dir = self.dir.join(format!("{dimension:?}-{}", running.len()));
            let setup = pollux::Setup {
                contender: Contender::Pollux,
                declared_equal: true,
                delay: wanted.delay,
            };
            let pair = setup.start(&dir, wanted.size)?;
            create_md = create_md.max(pair.create_md);
            up = up.max(pair.up);
            running.push(pair.running);
        }
        let pairs = &running[first..first + wanted.pairs];
        let (before, begun) = (cpu_seconds(pairs)?, Instant::now());
        std::thread::sleep(Duration::from_secs(self.plan.seconds));
        let idle_cpu = (cpu_seconds(pairs)? - before) / begun.elapsed().as_secs_f64();
        self.outcome.rest.push(Rest {
            dimension,
            case: wanted.label.clone(),
            pairs: wanted.pairs,
            create_md: create_md.as_secs_f64(),
            up: up.as_secs_f64(),
            resident: resident(pairs)?,
            idle_cpu,
        });
        Ok(case)
    }

    fn take_turns(
        &mut self,
        dimension: Dimension,
        cases: &[Case],
        running: &[Running],
    ) -> Result<(), Error> {
        self.fill(cases, running)?;
        for round in 0..self.plan.rounds {
            let first = round as usize % cases.len().max(1);
            for case in cases[first..].iter().chain(&cases[..first]) {
                let pairs = &running[case.first..case.first + case.pairs];
                for work in &case.works {
                    if self.is_over() {
                        return Ok(());
                    }
                    match turn(dimension, case, work, round, self.plan.seconds, pairs) {
                        Ok(sample) => {
                            eprintln!(
                                "round {round} {dimension:?} {:10} {:20} {:8.0} IOPS",
                                sample.case, sample.workload, sample.client.iops
                            );
                            self.outcome.samples.push(sample);
                        }
                        Err(error) => self.trouble(dimension, &case.label, &error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes once what will be written and read.
    fn fill(&mut self, cases: &[Case], running: &[Running]) -> Result<(), Error> {
        let mut filled: Vec<(usize, Place)> = Vec::new();
        for case in cases {
            for (number, pair) in running.iter().enumerate().skip(case.first).take(case.pairs) {
                for place in case.works.iter().map(|work| work.place) {
                    if !filled.contains(&(number, place)) && !self.is_over() {
                        fio::fill(&pair.uri, place)?;
                        filled.push((number, place));
                    }
                }
            }
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        self.outcome.cut_short |= self.stop.wanted() || self.begun.elapsed() > self.plan.budget;
        self.outcome.cut_short
    }

    fn trouble(&mut self, dimension: Dimension, case: &str, error: &Error) {
        let text = format!("{dimension:?} {case}: {error}");
        eprintln!("{text}");
        self.outcome.troubles.push(text);
    }
}

fn turn(
    dimension: Dimension,
    case: &Case,
    work: &Workload,
    round: u32,
    seconds: u64,
    pairs: &[Running],
) -> Result<Sample, Error> {
    let uris: Vec<&str> = pairs.iter().map(|pair| &*pair.uri).collect();
    let before = cpu_seconds(pairs)?;
    let client = fio::measure(&uris, work, seconds, &[])?;
    let used = cpu_seconds(pairs)? - before;
    Ok(Sample {
        dimension,
        case: case.label.clone(),
        pairs: case.pairs,
        workload: work.name,
        round,
        client,
        cpu: used / client.requests as f64 * 1e5,
        resident: resident(pairs)?,
        load: machine::load(),
    })
}

fn cpu_seconds(pairs: &[Running]) -> Result<f64, Error> {
    pairs.iter().map(Running::cpu_seconds).sum()
}

fn resident(pairs: &[Running]) -> Result<u64, Error> {
    pairs.iter().map(Running::resident).sum()
}

/// Builds what is measured and finds the client, or says what is missing.
pub fn prepare(dir: &Path) -> Result<(), Error> {
    // Said before anything is built.
    std::fs::metadata(dir).map_err(Error::file(dir))?;
    contender::prepare(&[Contender::Pollux])
}

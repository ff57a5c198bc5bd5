//! What becomes of Pollux when something grows: one table for each dimension. Needs fio (installed if run by root on Debian). Exits with 1 if
//! anything went wrong, also if two copies differ at the end; not for any figure.

use benches::growth::{self, Dimension, Outcome, Plan, WORKING_SET};
use benches::stop::Stop;
use benches::{machine, report};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures Pollux against the size of the device, depth, connections, resources and the delay of the link.
#[derive(Parser)]
struct Arguments {
    /// Directory for the copies, some 7 GiB of them. The files are sparse: ext4 has none of 16 TiB, tmpfs and xfs do.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Which dimensions [default: all].
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Dimension>,
    /// How often each case does each piece of work.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds each takes; so long each case is watched at rest, too.
    #[arg(long, default_value_t = 2)]
    runtime: u64,
    /// No new piece of work is begun after so many seconds.
    #[arg(long, default_value_t = 1800)]
    budget: u64,
    #[command(flatten)]
    files: report::Files,
}

/// What goes to the JSON file.
#[derive(Serialize)]
struct Data<'a> {
    machine: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let prepared = growth::prepare(&arguments.dir).map_err(|error| error.to_string());
    let stop = match prepared.and_then(|()| Stop::listen().map_err(|error| error.to_string())) {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut dimensions = arguments.only.clone();
    if dimensions.is_empty() {
        dimensions = Dimension::value_variants().to_vec();
    }
    dimensions.sort();
    dimensions.dedup();
    let plan = Plan {
        dir: arguments.dir.clone(),
        dimensions,
        rounds: arguments.rounds,
        seconds: arguments.runtime,
        budget: Duration::from_secs(arguments.budget),
    };
    let outcome = growth::run(&plan, &stop);
    let machine = machine::describe();
    let text = text(&plan, &machine, &outcome);
    let Outcome { troubles, cut_short, .. } = &outcome;
    report::finish(
        &text,
        &Data { machine: &machine, outcome: &outcome },
        &arguments.files,
        troubles,
        *cut_short,
    )
}

fn text(plan: &Plan, machine: &str, outcome: &Outcome) -> String {
    let (dir, rounds, seconds) = (plan.dir.display(), plan.rounds, plan.seconds);
    let load = machine::describe_load(outcome.samples.iter().map(|sample| sample.load));
    let mut text = format!(
        "{machine}\n{} MiB of each device are touched, in {dir}; {rounds} rounds of {seconds} s, {load}",
        WORKING_SET >> 20
    );
    for &dimension in &plan.dimensions {
        text += &format!("\n{}", growth::table::of(outcome, dimension));
    }
    text
}

//! What resyncs take, and what clients notice of one. Needs fio (installed if run by root on Debian). Exits with 1 if anything went wrong,
//! also if the copies differ at the end; not for any figure.

use benches::resync::{self, Outcome, Plan};
use benches::stop::Stop;
use benches::{machine, report};
use clap::Parser;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures resyncs: a new disk, scattered blocks, a crash, and beside clients.
#[derive(Parser)]
struct Arguments {
    /// Directory for the two copies.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// GiB of the device.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Seconds for which clients are watched.
    #[arg(long, default_value_t = 3)]
    runtime: u64,
    /// How many blocks are scattered.
    #[arg(long, default_value_t = 100_000)]
    blocks: u32,
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
    let Arguments { dir, size, rounds, runtime, blocks, files } = Arguments::parse();
    let prepared = resync::prepare().map_err(|error| error.to_string());
    let stop = match prepared.and_then(|()| Stop::listen().map_err(|error| error.to_string())) {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let plan = Plan { dir, size: size << 30, rounds, seconds: runtime, blocks };
    let outcome = resync::run(&plan, &stop);
    let machine = machine::describe();
    let text = format!(
        "{machine}\n{size} GiB in {}, {rounds} rounds, load {:.1}\n\n{}",
        plan.dir.display(),
        machine::load(),
        resync::table(&outcome.samples)
    );
    let data = Data { machine: &machine, outcome: &outcome };
    let Outcome { troubles, cut_short, .. } = &outcome;
    report::finish(&text, &data, &files, troubles, *cut_short)
}

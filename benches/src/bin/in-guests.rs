//! Pollux beside kernel DRBD 8.4, both in the same two virtual machines. Needs the right to install, or QEMU, fio, drbd-utils and nbd-client,
//! and a Debian kernel, which it fetches. Exits with 1 if anything went wrong; not for any figure.

use benches::Error;
use benches::guests::{self, Plan, Sample};
use benches::stop::Stop;
use benches::workload::{self, Workload};
use benches::{machine, report};
use clap::Parser;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compares Pollux with DRBD in two virtual machines, through the kernel's nbd.
#[derive(Parser)]
struct Arguments {
    /// Directory for the guests' disks: three for each of the two.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// MiB of each disk.
    #[arg(long, default_value_t = 512)]
    size: u64,
    /// Processors of each guest.
    #[arg(long, default_value_t = 1)]
    processors: u32,
    /// How often each device gets each piece of work.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Seconds each takes.
    #[arg(long, default_value_t = 3)]
    runtime: u64,
    /// What the client does.
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = workload::named,
        default_value = "4k-randwrite-qd1,4k-write+flush-qd1,4k-randwrite-qd32"
    )]
    workloads: Vec<Workload>,
    #[command(flatten)]
    files: report::Files,
}

/// What goes to the JSON file.
#[derive(Serialize)]
struct Data<'a> {
    machine: &'a str,
    samples: &'a [Sample],
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { dir, size, processors, rounds, runtime, workloads, files } = arguments;
    let plan = Plan { dir, mebibytes: size, processors, rounds, seconds: runtime, workloads };
    let outcome = guests::prepare().and_then(|()| {
        let stop = Stop::listen()
            .map_err(|source| Error::Start { program: "signal handler".into(), source })?;
        let samples = guests::run(&plan, &stop)?;
        Ok((samples, stop.wanted()))
    });
    let (samples, cut_short) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let machine = machine::describe();
    let text = format!(
        "{machine}\ntwo guests, processors each: {processors}, {size} MiB, {rounds} rounds of {runtime} s, load {:.1}\n\n{}",
        machine::load(),
        guests::table(&samples, &plan.workloads)
    );
    let data = Data { machine: &machine, samples: &samples };
    report::finish(&text, &data, &files, &[], cut_short)
}

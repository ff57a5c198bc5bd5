//! Pollux beside what a user would pick instead: starts all, measures in turns, prints a table, compares the copies.
//!
//! Needs fio, nbdkit and qemu-storage-daemon (installed if run by root on Debian). Exits with 1 if anything went wrong, also
//! if two copies of a contender differ at the end.

use benches::contender::{self, Contender};
use benches::rounds::{self, Outcome, Plan};
use benches::stop::Stop;
use benches::workload::{self, Workload};
use benches::{machine, table};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Compares Pollux with other ways to replicate a block device on this machine.
#[derive(Parser)]
struct Arguments {
    /// Directory for the copies: where it lies decides what is measured.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Size of the device; a number of bytes, or with K, M, G.
    #[arg(long, default_value = "512M", value_parser = bytes)]
    size: u64,
    /// How often each contender does each piece of work.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds each takes.
    #[arg(long, default_value_t = 2)]
    runtime: u64,
    /// No new piece of work is begun after so many seconds.
    #[arg(long, default_value_t = 1200)]
    budget: u64,
    /// Who takes part.
    #[arg(long, value_delimiter = ',', value_enum,
        default_values_t = [Contender::Pollux, Contender::NbdkitFile, Contender::QemuQuorum, Contender::QemuMirror])]
    contenders: Vec<Contender>,
    /// What the client does [default: all].
    #[arg(long, value_delimiter = ',', value_parser = workload::named)]
    workloads: Vec<Workload>,
    /// Whose figures the others are divided by.
    #[arg(long, value_enum, default_value_t = Contender::NbdkitFile)]
    base: Contender,
    /// Every sample goes to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.contenders.sort();
    arguments.contenders.dedup();
    if arguments.workloads.is_empty() {
        arguments.workloads = workload::ALL.to_vec();
    }
    if !arguments.contenders.contains(&arguments.base) {
        arguments.base = arguments.contenders[0];
    }
    let prepared = Stop::listen().map_err(|error| error.to_string()).and_then(|stop| {
        contender::prepare(&arguments.contenders).map_err(|error| error.to_string())?;
        Ok(stop)
    });
    let stop = match prepared {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let plan = Plan {
        dir: arguments.dir.clone(),
        size: arguments.size,
        rounds: arguments.rounds,
        seconds: arguments.runtime,
        budget: Duration::from_secs(arguments.budget),
        contenders: arguments.contenders.clone(),
        workloads: arguments.workloads.clone(),
    };
    let outcome = rounds::run(&plan, &stop);
    report(&arguments, &outcome);
    if outcome.troubles.is_empty() && !outcome.cut_short {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn report(arguments: &Arguments, outcome: &Outcome) {
    let Arguments { dir, size, rounds, runtime, workloads, contenders, base, json, .. } = arguments;
    let samples = &outcome.samples;
    let loads = || samples.iter().map(|sample| sample.load);
    println!("{}", machine::describe());
    println!(
        "{} MiB in {}, {rounds} rounds of {runtime} s, load {:.1}..{:.1}\n",
        size >> 20,
        dir.display(),
        loads().reduce(f64::min).unwrap_or(f64::NAN),
        loads().reduce(f64::max).unwrap_or(f64::NAN),
    );
    if loads().reduce(f64::min).is_some_and(|least| least > 3.0 * machine::cpus() as f64) {
        println!("OTHER WORK FILLED THE MACHINE: these figures say little.\n");
    }
    println!("{}", table::figures(samples, workloads, contenders, *base));
    println!("{}", table::verdicts(samples, workloads, contenders));
    if outcome.cut_short {
        println!("cut short: the last rounds are missing");
    }
    if let Some(file) = json {
        let written = serde_json::to_vec_pretty(samples)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(file, text));
        if let Err(error) = written {
            println!("{}: {error}", file.display());
        }
    }
    match &outcome.troubles[..] {
        [] => println!("copies identical after the stop, for each contender that keeps two"),
        troubles => troubles.iter().for_each(|trouble| println!("TROUBLE: {trouble}")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "a number, or one with K, M or G".to_owned())?;
    // The client writes the device in pieces of 1 MiB.
    let size = number.checked_mul(unit).filter(|size| *size > 0 && size % (1 << 20) == 0);
    size.ok_or_else(|| "at least 1M, and whole MiB".into())
}

//! Pollux beside what a user would pick instead: starts all, measures in turns, prints a table, compares the copies.
//!
//! Needs fio, nbdkit and qemu-storage-daemon (installed if run by root on Debian); with perf it counts system calls, too. Exits with
//! 1 if anything went wrong, also if two copies of a contender differ at the end; not if a target was missed.

use benches::contender::{self, Contender};
use benches::rounds::{self, Outcome, Plan, Sample};
use benches::stop::Stop;
use benches::system_calls::Calls;
use benches::target::{self, Verdict};
use benches::workload::{self, Workload};
use benches::{machine, report, table};
use clap::Parser;
use serde::Serialize;
use std::fmt::Write as _;
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
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Seconds each takes.
    #[arg(long, default_value_t = 2)]
    runtime: u64,
    /// No new piece of work is begun after so many seconds.
    #[arg(long, default_value_t = 3600)]
    budget: u64,
    /// Who takes part [default: all that say something about this directory: with O_DIRECT on a disk only].
    #[arg(long, value_delimiter = ',', value_enum)]
    contenders: Vec<Contender>,
    /// What the client does [default: all].
    #[arg(long, value_delimiter = ',', value_parser = workload::named)]
    workloads: Vec<Workload>,
    /// Whose figures the others are divided by.
    #[arg(long, value_enum, default_value_t = Contender::NbdkitFile)]
    base: Contender,
    #[command(flatten)]
    files: report::Files,
}

/// What goes to the JSON file.
#[derive(Serialize)]
struct Data<'a> {
    machine: &'a str,
    in_memory: bool,
    size: u64,
    samples: &'a [Sample],
    system_calls: &'a [Calls],
    targets: &'a [Verdict],
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let prepared = prepare(&mut arguments).map_err(|error| error.to_string());
    let started = prepared
        .and_then(|in_memory| Ok((in_memory, Stop::listen().map_err(|error| error.to_string())?)));
    let (in_memory, stop) = match started {
        Ok(started) => started,
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
    let Outcome { samples, calls, troubles, .. } = &outcome;
    let verdicts = target::verdicts(samples, &arguments.workloads, in_memory);
    let machine = machine::describe();
    let data = Data {
        machine: &machine,
        in_memory,
        size: plan.size,
        samples,
        system_calls: calls,
        targets: &verdicts,
    };
    let text = text(&arguments, &machine, &outcome, &verdicts);
    report::finish(&text, &data, &arguments.files, troubles, outcome.cut_short)
}

/// Fills in what was left open, and makes sure that all programs are there. Is the directory in memory?
fn prepare(arguments: &mut Arguments) -> Result<bool, benches::Error> {
    let in_memory = machine::in_memory(&arguments.dir)?;
    if arguments.contenders.is_empty() {
        arguments.contenders = Contender::usual(in_memory);
    }
    arguments.contenders.sort();
    arguments.contenders.dedup();
    if arguments.workloads.is_empty() {
        arguments.workloads = workload::ALL.to_vec();
    }
    if !arguments.contenders.contains(&arguments.base) {
        arguments.base = arguments.contenders[0];
    }
    contender::prepare(&arguments.contenders)?;
    Ok(in_memory)
}

/// The tables, with what must be known to read them.
fn text(arguments: &Arguments, machine: &str, outcome: &Outcome, verdicts: &[Verdict]) -> String {
    let Arguments { dir, size, rounds, runtime, workloads, contenders, base, .. } = arguments;
    let load = machine::describe_load(outcome.samples.iter().map(|sample| sample.load));
    let (size, dir) = (size >> 20, dir.display());
    let mut text =
        format!("{machine}\n{size} MiB in {dir}, {rounds} rounds of {runtime} s, {load}\n");
    text += &table::figures(outcome, workloads, contenders, *base, verdicts);
    if let Some(why) = &outcome.uncounted {
        let _ = writeln!(text, "\nSystem calls were not counted: {why}");
    }
    if !verdicts.is_empty() {
        let _ = writeln!(text, "\n{}", table::targets(verdicts));
    }
    if outcome.troubles.is_empty() {
        text += "Copies identical after the stop, for each contender that keeps two.\n";
    }
    text
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

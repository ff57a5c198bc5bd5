//! `check_pollux`: the resources of this node as a monitoring plugin tells them. One line on stdout,
//! `POLLUX STATE - text | numbers`, exit code 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; what to type follows
//! on lines of their own. It asks the running daemons and changes nothing.
//!
//! Whatever keeps it from asking ends with 3 and never looks like health: a wrong option, also `--help`.

mod range;
mod verdict;

#[cfg(test)]
mod tests;

use crate::cli::{Place, Target, block_on};
use crate::client::ask_all;
use crate::failure::Failure;
use clap::Parser;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use verdict::{Report, Rules, Severity, judge};

/// Checks resources that are mirrored between two nodes, for Nagios, Icinga and their kind.
///
/// It must run as the user of the daemons (usually root, by sudo): their control sockets answer
/// nobody else.
#[derive(Parser)]
// `-c` is `--critical`.
#[command(name = "check_pollux", version, mut_arg("config", |config| config.short(None)))]
struct Args {
    /// Which resources: one, or all of the configuration.
    #[arg(value_name = "RESOURCE | all", default_value = "all", value_parser = crate::cli::whole)]
    target: Target,
    #[command(flatten)]
    rules: Rules,
    /// Seconds in which this ends.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Also each resource in a line of its own.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs it with the arguments of the process.
pub fn main() -> ExitCode {
    let (severity, text) = match Args::try_parse() {
        Ok(args) => match check(&args) {
            Ok(report) => (worst(&report), shown(&report, args.verbose)),
            Err(failure) => unknown(&failure.text),
        },
        Err(error) if error.use_stderr() => unknown(&error.to_string()),
        // Help and version.
        Err(error) => (Severity::Unknown, error.to_string()),
    };
    crate::cli::print(&text);
    ExitCode::from(severity.exit_code())
}

fn unknown(text: &str) -> (Severity, String) {
    (Severity::Unknown, format!("POLLUX UNKNOWN - {}\n", one_line(text)))
}

fn check(args: &Args) -> Result<Report, Failure> {
    let names: Vec<_> =
        args.target.resources(&args.place.load()?)?.iter().map(|r| r.name.clone()).collect();
    // A tenth is for ourselves.
    let limit = Duration::from_secs(args.timeout).mul_f64(0.9);
    let answers = block_on(ask_all(&args.place.run_dir, &names, "/status", limit))?;
    let mut report = Report::default();
    for (name, answer) in names.iter().zip(answers) {
        report.add(of(name, answer, &args.rules));
    }
    Ok(report)
}

/// Of one resource, whatever came back.
fn of(name: &str, answer: Result<String, Failure>, rules: &Rules) -> Report {
    let mut report = Report::default();
    let wrong = match answer {
        Ok(text) => match serde_json::from_str::<Value>(&text) {
            Ok(status) => return judge(&status, rules),
            Err(error) => ("silent", format!("{name}: an answer that is no JSON: {error}")),
        },
        Err(failure) if failure.is_down => ("down", failure.text),
        Err(failure) => ("silent", format!("{name}: {}", failure.text)),
    };
    report.problem(rules.severity(wrong.0), wrong.1);
    report.summary.push(format!("{name} {}", wrong.0));
    report
}

fn worst(report: &Report) -> Severity {
    report.problems.iter().map(|(severity, _)| *severity).max().unwrap_or(Severity::Ok)
}

fn shown(report: &Report, verbose: bool) -> String {
    let mut problems: Vec<_> = report.problems.iter().collect();
    problems.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
    let problems: Vec<_> = problems.into_iter().map(|(_, text)| text.as_str()).collect();
    let text = match (&problems[..], &report.summary[..]) {
        ([], [one]) => one.clone(),
        ([], all) => format!("{} resources", all.len()),
        (problems, _) => problems.join(", "),
    };
    let mut line = format!("POLLUX {} - {}", worst(report).word(), one_line(&text));
    if !report.perfdata.is_empty() {
        line += &format!(" | {}", report.perfdata.join(" "));
    }
    let more = report.summary.iter().filter(|_| verbose).chain(&report.reasons);
    let more = more.map(|text| format!("\n{}", one_line(text)));
    line + &more.collect::<String>() + "\n"
}

/// What would begin another line, or the numbers, does not.
fn one_line(text: &str) -> String {
    text.trim().replace(|sign: char| sign.is_control(), " ").replace('|', "/")
}

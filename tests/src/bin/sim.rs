//! `sim --seeds N [--start S] [--only KIND,KIND] [--threads T] [--counters]` runs N fresh seeds; `sim --seed S [--verbose]` replays one with
//! its trace; `sim --old` replays tests/seeds.txt; `sim --shrink S [--shrink-for SECONDS]` shrinks one to the few deeds it takes. Of several that fail
//! the shortest is shrunk without being asked.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tests::sim::{Counters, KINDS, Outcome, catch_panics, is_of_kind, run, run_checked, shrink};

const USAGE: &str =
    "usage: sim --seeds N [--start S] [--only KIND,KIND] [--threads T] [--counters] [--keep-going N]
           [--cpu SECONDS] [--expect ID,ID]
           [--shrink-for SECONDS]
       sim --seed S [--verbose]
       sim --old [--threads T] [--shrink-for SECONDS]
       sim --shrink S [--shrink-for SECONDS]
KIND: one-volume, two-volumes, fencing, no-fencing, leases, hard, unsound, aftermath";

#[derive(Default)]
struct Options {
    seeds: Option<u64>,
    start: Option<u64>,
    /// Only seeds that are of all these kinds.
    only: Vec<String>,
    threads: Option<usize>,
    seed: Option<u64>,
    keep_going: u64,
    /// Shrink this one.
    shrink: Option<u64>,
    /// For so many seconds of processor time; also what fails.
    shrink_for: u64,
    verbose: bool,
    old: bool,
    counters: bool,
    /// Stop after this much processor time.
    cpu: Option<u64>,
    /// Only these invariants count for `keep_going`.
    expect: Vec<String>,
}

fn parse() -> Option<Options> {
    let mut options = Options { keep_going: 10, shrink_for: 60, ..Options::default() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--expect" {
            options.expect = args.next()?.split(',').map(String::from).collect();
            continue;
        }
        if arg == "--only" {
            options.only = args.next()?.split(',').map(String::from).collect();
            continue;
        }
        let mut number = || {
            let text = args.next()?;
            match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => text.parse().ok(),
            }
        };
        match arg.as_str() {
            "--seeds" => options.seeds = Some(number()?),
            "--start" => options.start = Some(number()?),
            "--threads" => options.threads = Some(number()? as usize),
            "--seed" => options.seed = Some(number()?),
            "--keep-going" => options.keep_going = number()?,
            "--cpu" => options.cpu = Some(number()?),
            "--shrink" => options.shrink = Some(number()?),
            "--shrink-for" => options.shrink_for = number()?,
            "--verbose" => options.verbose = true,
            "--old" => options.old = true,
            "--counters" => options.counters = true,
            _ => return None,
        }
    }
    let possible = options.only.iter().all(|kind| KINDS.contains(&kind.as_str()));
    let one = options.seed.or(options.shrink);
    (possible && (options.seeds.is_some() || one.is_some() || options.old)).then_some(options)
}

/// Seeds that failed once; lines of a number and, behind `#`, what it was.
fn old_seeds() -> Vec<u64> {
    let text = include_str!("../../seeds.txt");
    let numbers = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    numbers.filter(|n| !n.is_empty()).map(|n| n.parse().expect("a seed in seeds.txt")).collect()
}

fn main() -> ExitCode {
    let Some(options) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    catch_panics();
    if let Some(seed) = options.shrink {
        let told = shrink_for(seed, options.shrink_for);
        return if told { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(seed) = options.seed {
        let outcome = run(seed, if options.verbose { 2 } else { 1 }, false);
        return finish(&[outcome], 1, Instant::now(), &options);
    }
    let seeds: Vec<u64> = if options.old {
        old_seeds()
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let start = options.start.unwrap_or(now >> 10 << 8);
        let wanted = |&seed: &u64| options.only.iter().all(|kind| is_of_kind(seed, kind));
        let count = options.seeds.unwrap_or(0) as usize;
        // By eights: plain ones, hard ones, and both on machines that are unsound; each second time those with aftermaths instead of plain ones.
        (0..=u64::MAX)
            .map(|i| start.wrapping_add(i) ^ [0, 1, 2, 3, 4, 1, 2, 3][(i / 8 % 8) as usize] << 60)
            .filter(wanted)
            .take(count)
            .collect()
    };
    let begun = Instant::now();
    let outcomes = swarm(&seeds, &options);
    let code = finish(&outcomes, seeds.len(), begun, &options);
    let failed = outcomes.iter().filter(|outcome| outcome.violation.is_some());
    if let Some(shortest) = failed.min_by_key(|outcome| outcome.events)
        && options.shrink_for > 0
    {
        shrink_for(shortest.seed, options.shrink_for);
    }
    code
}

/// Runs all seeds on all threads; stops early when enough have failed. Keeps failures, and one sum of the rest.
fn swarm(seeds: &[u64], options: &Options) -> Vec<Outcome> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(available).clamp(1, 64);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let sum = Mutex::new((0u64, Counters::default()));
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, failed, sum) = (sender.clone(), &next, &failed, &sum);
            scope.spawn(move || {
                while failed.load(Ordering::Relaxed) < options.keep_going
                    && options.cpu.is_none_or(|limit| processor_seconds() < limit)
                {
                    let i = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(&seed) = seeds.get(i) else { break };
                    let mut outcome = run_checked(seed);
                    {
                        let mut sum = sum.lock().expect("no thread panics with it");
                        if outcome.violation.is_none() {
                            sum.0 += outcome.events;
                        }
                        sum.1.add(&outcome.counters);
                    }
                    if let Some(v) = &outcome.violation {
                        let counts = options.expect.is_empty()
                            || options.expect.iter().any(|id| id == v.invariant);
                        failed.fetch_add(u64::from(counts), Ordering::Relaxed);
                        println!(
                            "seed {seed}: {} after {} events: {}",
                            v.invariant, outcome.events, v.story
                        );
                        outcome.counters = Counters::default();
                        // The receiver outlives the scope.
                        let _ = sender.send(outcome);
                    }
                }
            });
        }
    });
    drop(sender);
    let mut outcomes: Vec<Outcome> = receiver.iter().collect();
    let (events, counters) = sum.into_inner().expect("no thread panics with it");
    outcomes.push(Outcome { seed: 0, events, violation: None, counters, hash: 0 });
    outcomes
}

fn shrink_for(seed: u64, seconds: u64) -> bool {
    let end = processor_seconds() + seconds;
    shrink(seed, &|| processor_seconds() >= end)
}

/// Processor time this process has used, in whole seconds.
fn processor_seconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields behind the name in parentheses; user and system time are numbers 14 and 15 of all, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) / 100
}

fn finish(outcomes: &[Outcome], seeds: usize, begun: Instant, options: &Options) -> ExitCode {
    let mut counters = Counters::default();
    for outcome in outcomes {
        counters.add(&outcome.counters);
    }
    if options.seed.is_some() {
        for v in outcomes.iter().filter_map(|o| o.violation.as_ref()) {
            println!("seed {}: {}: {}", outcomes[0].seed, v.invariant, v.story);
        }
    }
    if options.counters {
        print!("{}", counters.table());
    }
    // Of some kinds of seeds alone, or of few, nothing can be asked.
    let all = options.seeds.is_some() && options.only.is_empty() && options.cpu.is_none();
    let starved = if all && seeds >= 500 { counters.starved(seeds as u64) } else { Vec::new() };
    for line in &starved {
        println!("STARVED {line}");
    }
    let events: u64 = outcomes.iter().map(|o| o.events).sum();
    let violations = outcomes.iter().filter(|o| o.violation.is_some()).count();
    let rate = events as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    println!("sim: {seeds} seeds, {events} events, {rate:.0} events/s, {violations} violations");
    if violations > 0 || !starved.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

//! `small [--large]`: searches small scopes whole, every order in each (see `tests/src/sim/small`). `small wW fF kK pP cC mM [aA|B|C] [v2] [s1] [1/N]`: one
//! scope, of W writes, F FLUSHes, K processes killed, P power cuts, C cuts of the connection, M promotions, under that protocol, with two volumes, and with
//! handlers that outdate or shoot whoever is lost; and what would become of each Nth state.

use replicator::node::Protocol;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;
use tests::sim::{Budget, Report, Scope, catch_panics, search};

/// Searched with each change: some minutes.
const SCOPES: [&str; 20] = [
    "w2 f1 k0 p0 c0 m0 aC 1/1",
    "w3 f0 k0 p0 c0 m0 aC 1/8",
    "w0 f0 k1 p0 c1 m1 aC 1/1",
    "w0 f0 k0 p2 c0 m1 aC 1/1",
    "w1 f0 k0 p0 c1 m1 aC 1/4",
    "w1 f0 k1 p0 c0 m1 aC 1/8",
    "w1 f0 k0 p1 c0 m1 aC 1/8",
    "w1 f1 k0 p0 c1 m0 aC 1/8",
    "w1 f0 k0 p0 c2 m0 aC 1/8",
    "w2 f1 k0 p0 c0 m0 aB 1/4",
    "w1 f0 k0 p0 c1 m1 aB 1/8",
    "w2 f1 k0 p0 c0 m0 aA 1/4",
    "w1 f0 k0 p0 c1 m1 aA 1/8",
    "w1 f0 k0 p0 c1 m0 aC s1 1/8",
    "w0 f0 k0 p0 c1 m1 aC s1 1/8",
    "w0 f0 k1 p0 c0 m1 aC s1 1/8",
    "w1 f0 k1 p0 c0 m0 aC s1 1/8",
    "w2 f0 k0 p0 c0 m0 aC v2 1/8",
    "w1 f0 k0 p0 c1 m0 aC v2 1/8",
    "w1 f0 k0 p1 c0 m0 aC v2 1/8",
];

/// Searched by hand: hours.
const LARGE: [&str; 8] = [
    "w2 f0 k0 p0 c1 m1 aC 1/64",
    "w2 f0 k1 p0 c0 m1 aC 1/64",
    "w1 f0 k2 p0 c0 m1 aC 1/64",
    "w1 f1 k0 p1 c0 m1 aC 1/64",
    "w1 f0 k1 p0 c1 m1 aC 1/64",
    "w3 f0 k0 p0 c1 m0 aC 1/64",
    "w1 f0 k0 p0 c1 m1 aC s1 1/64",
    "w1 f0 k1 p0 c0 m1 aC s1 1/64",
];

const USAGE: &str = "usage: small [--large]
       small wW fF kK pP cC mM aA|aB|aC v1|v2 s0|s1 1/N [--most STATES]";

fn parse(words: &[&str]) -> Option<Scope> {
    let budget = Budget::default();
    let mut scope = Scope {
        protocol: Protocol::C,
        volumes: 1,
        fencing: false,
        budget,
        fork_one_in: 0,
        most_states: usize::MAX,
    };
    for word in words {
        let (what, number) = word.split_at_checked(1)?;
        let count = || number.parse::<u8>().ok();
        match what {
            "w" => scope.budget.writes = count()?,
            "f" => scope.budget.flushes = count()?,
            "k" => scope.budget.kills = count()?,
            "p" => scope.budget.power_cuts = count()?,
            "c" => scope.budget.cuts = count()?,
            "m" => scope.budget.promotions = count()?,
            "v" => scope.volumes = count().filter(|volumes| (1..=2).contains(volumes))?,
            "s" => scope.fencing = count()? > 0,
            "1" => scope.fork_one_in = number.strip_prefix('/')?.parse().ok()?,
            "a" => {
                scope.protocol = match number {
                    "A" => Protocol::A,
                    "B" => Protocol::B,
                    "C" => Protocol::C,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(scope)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mut words, mut most) = (Vec::new(), usize::MAX);
    let mut scopes: Vec<&str> = SCOPES.to_vec();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--large" => scopes = LARGE.to_vec(),
            "--most" => match args.next().and_then(|number| number.parse().ok()) {
                Some(number) => most = number,
                None => return usage(),
            },
            word => words.push(word),
        }
    }
    let one = words.join(" ");
    if !words.is_empty() {
        scopes = vec![&one];
    }
    let mut wanted = Vec::new();
    for text in scopes {
        match parse(&text.split(' ').collect::<Vec<_>>()) {
            Some(scope) => wanted.push((text, Scope { most_states: most, ..scope })),
            None => return usage(),
        }
    }
    catch_panics();
    if search_all(wanted) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// One thread for each processor; was nothing broken, and every scope searched whole?
fn search_all(mut wanted: Vec<(&str, Scope)>) -> bool {
    let begun = Instant::now();
    wanted.reverse();
    let wanted = Mutex::new(wanted);
    let (states, broken) = (Mutex::new(0), Mutex::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let next = wanted.lock().expect("nobody panics with it").pop();
            let Some((text, scope)) = next else { break };
            let report = search(&scope);
            println!("{}", line(text, &report));
            *states.lock().expect("nobody panics with it") += report.states;
            *broken.lock().expect("nobody panics with it") += usize::from(!report.whole);
        }
    };
    std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    let states = states.into_inner().expect("nobody panicked");
    let broken = broken.into_inner().expect("nobody panicked");
    println!(
        "small: {states} states, {broken} scopes not whole, {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    broken == 0
}

fn line(text: &str, report: &Report) -> String {
    let Report { states, moves, depth, ends, forks, events, .. } = report;
    let mut line = format!(
        "{text:<29} {states:>8} states, {moves:>8} moves, {depth:>3} deep, {ends:>5} ends, {forks:>6} futures, {events:>9} events, {:>5.1} s",
        report.took.as_secs_f64()
    );
    match &report.violation {
        Some((violation, way)) => {
            let scope = text.replace(' ', ",");
            line +=
                &format!("\nscope {scope} {} {}\n  after", violation.invariant, violation.story);
            for step in way {
                line += &format!("\n    {step}");
            }
        }
        None if !report.whole => line += "  NOT WHOLE: too many states",
        None => {}
    }
    line
}

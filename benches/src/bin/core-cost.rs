//! Instructions and allocations of the core for each request, beside what they may be. Exits with 1 if one is above: then a change has
//! made the core dearer, or the limit below has to be argued anew. Needs valgrind (installed if run by root on Debian).

use benches::core::{Core, Work};
use benches::cost::{Cost, Counted, measure};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What a request may cost over both nodes: what it did when this was written, and 5 in a hundred more, since processors differ.
const LIMITS: [(Work, Cost); 5] = [
    (Work::Write, Cost { instructions: 12_300.0, allocations: 0.01 }),
    (Work::Writes32, Cost { instructions: 15_300.0, allocations: 0.01 }),
    (Work::Fua, Cost { instructions: 12_700.0, allocations: 0.01 }),
    (Work::WriteAndFlush, Cost { instructions: 22_800.0, allocations: 0.01 }),
    (Work::Read, Cost { instructions: 4_700.0, allocations: 0.01 }),
];

/// What the core costs for each request, without a clock.
#[derive(Parser)]
struct Arguments {
    /// Do this work, and measure nothing.
    #[arg(long, requires = "turns", value_parser = named)]
    work: Option<Work>,
    /// So many turns of it.
    #[arg(long)]
    turns: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(work), Some(turns)) = (arguments.work, arguments.turns) {
        let mut core = Core::new(work);
        (0..turns).for_each(|_| core.turn());
        return ExitCode::SUCCESS;
    }
    let worker = match std::env::current_exe() {
        Ok(worker) => worker,
        Err(error) => {
            eprintln!("this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("| work | instructions | at most | allocations | at most |\n|---|--:|--:|--:|--:|");
    let mut code = ExitCode::SUCCESS;
    for (work, limit) in LIMITS {
        let cost = match measure(work, &worker) {
            Ok(cost) => cost,
            Err(error) => {
                eprintln!("{}: {error}", work.name());
                return ExitCode::FAILURE;
            }
        };
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} |",
            work.name(),
            cost.instructions,
            limit.instructions,
            cost.allocations,
            limit.allocations
        );
        if cost.instructions > limit.instructions || cost.allocations > limit.allocations {
            eprintln!("{} COSTS MORE THAN IT MAY", work.name());
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn named(name: &str) -> Result<Work, String> {
    let found = Work::ALL.into_iter().find(|work| work.name() == name);
    found.ok_or_else(|| format!("there are {}", Work::ALL.map(Work::name).join(", ")))
}

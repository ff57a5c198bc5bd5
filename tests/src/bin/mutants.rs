//! `mutants [NAMES..] [--rotate K] [--start S] [--list]`: plants one seeded bug after the other in a copy of the tree and demands that the
//! swarm finds it (or the search of a small scope; for a bug of the agent, the agent's own simulated world), by the invariant the bug's file names. A simulator that passes says nothing until it has failed
//! for the right reason; and one that fails without a bug has no say either, so the tree as it is goes first.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Processor time for the control.
const CONTROL: u64 = 60;
/// For a bug whose file says nothing else. Most are found in a few seconds; a machine may be slow.
const BUDGET: u64 = 180;
/// A bug that may be found by anything is found by nothing in particular.
const MOST_INVARIANTS: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One seeded bug, as its file says.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// The file's.
    #[serde(skip)]
    name: String,
    file: PathBuf,
    find: String,
    replace: String,
    must_violate: Vec<String>,
    #[serde(default = "budget")]
    budget_seconds: u64,
    /// The test program of the crate `agent` that finds it, instead of the swarm.
    agent_test: Option<String>,
    /// The scope in which the search of every order finds it, as `small` wants it, instead of the swarm.
    scope: Option<String>,
    /// The kinds of seeds that can have it, or have it most.
    #[serde(default)]
    only: Vec<String>,
}

fn budget() -> u64 {
    BUDGET
}

impl Mutant {
    /// By number (M3 is 03-..) or by part of its name.
    fn is_called(&self, name: &str) -> bool {
        match name.strip_prefix('M').and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => self.name.starts_with(&format!("{number:02}-")),
            None => self.name.contains(name),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the crate has a parent")?
        .to_path_buf();
    let mut mutants = read_all(&root.join("tests/mutants"))?;
    let (mut names, mut rotate, mut start, mut list) = (Vec::new(), None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rotate" => {
                rotate = Some(args.next().ok_or("--rotate needs a number")?.parse::<usize>()?);
            }
            "--start" => start = Some(args.next().ok_or("--start needs a seed")?),
            "--list" => list = true,
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}").into()),
            _ => names.push(arg),
        }
    }
    if !names.is_empty() {
        mutants.retain(|m| names.iter().any(|n| m.is_called(n)));
    }
    // A mutant whose text is gone tests nothing: say so before the long part.
    let rotten: Vec<String> =
        mutants.iter().filter_map(|m| apply(m, &root).err()).map(|e| e.to_string()).collect();
    if !rotten.is_empty() {
        return Err(rotten.join("\n").into());
    }
    if list {
        for m in &mutants {
            println!("{:<40} {}", m.name, m.must_violate.join(" or "));
        }
        return Ok(true);
    }
    if let Some(count) = rotate {
        // Another part each day; the canary always.
        let day = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
        let (canary, mut rest): (Vec<_>, Vec<_>) =
            mutants.into_iter().partition(|m| m.name.contains("canary"));
        let start = (day as usize * count) % rest.len().max(1);
        rest.rotate_left(start);
        rest.truncate(count);
        mutants = canary.into_iter().chain(rest).collect();
    }
    if mutants.is_empty() {
        return Err("no such mutant".into());
    }
    let scratch = std::env::var_os("POLLUX_MUTANTS_DIR")
        .map_or_else(|| std::env::temp_dir().join("pollux-mutants"), PathBuf::from);
    copy_tree(&root, &scratch)?;
    let start = start.as_deref();
    let finders: BTreeSet<_> =
        mutants.iter().map(|m| (m.agent_test.clone(), m.scope.clone())).collect();
    for (agent_test, scope) in finders {
        let finder = agent_test.as_deref().or(scope.as_deref()).unwrap_or("the swarm");
        let name = format!("the tree, by {finder}");
        let tree = Mutant { name, agent_test, scope, budget_seconds: CONTROL, ..Mutant::default() };
        let control = search(&scratch, start, &tree)?;
        if let Some(line) = control.failures.first() {
            let why = "the tree fails without a seeded bug, so nothing counts";
            return Err(format!("{why}: {line}").into());
        }
        println!("control  {:<40} {:6.1} s  nothing found", tree.name, control.seconds);
    }
    let mut caught = 0;
    for mutant in &mutants {
        copy_tree(&root, &scratch)?;
        fs::write(scratch.join(&mutant.file), apply(mutant, &root)?)?;
        let name = &mutant.name;
        let found = match search(&scratch, start, mutant) {
            Ok(found) => found,
            Err(why) => {
                println!("SURVIVED {name:<40} {why}");
                continue;
            }
        };
        let seconds = found.seconds;
        match found.failures.last() {
            Some(line) if mutant.must_violate.iter().any(|m| m == invariant(line)) => {
                caught += 1;
                let line: String = line.chars().take(110).collect();
                println!("caught   {name:<40} {seconds:6.1} s  {line}");
            }
            _ => {
                let others: Vec<&str> = found.failures.iter().map(|f| invariant(f)).collect();
                let wanted = mutant.must_violate.join(" or ");
                println!("SURVIVED {name:<40} {seconds:6.1} s  wanted {wanted}, saw {others:?}");
            }
        }
    }
    println!("mutants: {caught} of {} caught", mutants.len());
    Ok(caught == mutants.len())
}

/// What was said of seeds that failed, and the processor time it took.
struct Found {
    /// One line for each seed that failed.
    failures: Vec<String>,
    seconds: f64,
}

/// The invariant a line about a failed seed names.
fn invariant(line: &str) -> &str {
    line.split_whitespace().nth(2).unwrap_or("")
}

/// Builds the scratch tree and runs fresh seeds (an agent's test has its own, a scope needs none) until one breaks an invariant that the bug names (any, if
/// there is none), or the processor time is used up.
fn search(scratch: &Path, start: Option<&str>, mutant: &Mutant) -> Result<Found> {
    let (budget, expect) = (mutant.budget_seconds, &mutant.must_violate);
    let only = Some(mutant.only.join(",")).filter(|only| !only.is_empty());
    let test = mutant.agent_test.as_ref();
    let target = scratch.join("target").display().to_string();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // The bugs are small: most of the last build stands.
    let what = match test {
        Some(test) => ["test", "-p", "agent", "--test", test],
        None if mutant.scope.is_some() => ["build", "-p", "tests", "--bin", "small"],
        None => ["build", "-p", "tests", "--bin", "sim"],
    };
    // It ends the test, too, if that does not end.
    let limited = |seconds: u64| {
        let mut timeout = Command::new("timeout");
        timeout.arg(seconds.to_string()).arg(&cargo).args(what);
        timeout.args(["--quiet", "--profile", "sim", "--target-dir", &target]);
        timeout.env("CARGO_INCREMENTAL", "1").current_dir(scratch);
        timeout
    };
    let built = limited(1_800).args(test.map(|_| "--no-run")).output()?;
    if !built.status.success() {
        let text = String::from_utf8_lossy(&built.stderr);
        let first: Vec<&str> = text.lines().take(5).collect();
        return Err(format!("does not build: {}", first.join(" | ")).into());
    }
    let before = children_seconds()?;
    let mut command = limited(budget);
    // That the test fails is nothing to be told.
    command.stderr(Stdio::null());
    if let Some(scope) = &mutant.scope {
        command = Command::new("timeout");
        command.arg(budget.to_string()).arg(scratch.join("target/sim/small"));
        command.args(scope.split(' '));
    } else if test.is_none() {
        command = Command::new(scratch.join("target/sim/sim"));
        command
            .args(["--seeds", "100000000", "--threads", "1", "--keep-going", "100000000"])
            .args(["--shrink-for", "0"])
            .args(["--cpu", &budget.to_string()])
            .args(start.into_iter().flat_map(|start| ["--start", start]))
            .args(only.iter().flat_map(|only| ["--only", only]));
    }
    let mut swarm = command.current_dir(scratch).stdout(Stdio::piped()).spawn()?;
    let output = swarm.stdout.take().ok_or("it has a pipe")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(|line| line.ok()) {
            // Whoever has heard enough has gone.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    // The swarm looks at the time between seeds; a bug may keep one seed busy for ever.
    let deadline = Instant::now() + Duration::from_secs(4 * budget);
    let mut failures = Vec::new();
    let mut enough = false;
    while !enough {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = lines.recv_timeout(left) else { break };
        if line.starts_with("seed ") || line.starts_with("scope ") {
            enough = expect.is_empty() || expect.iter().any(|id| id == invariant(&line));
            failures.push(line);
        }
    }
    // It may have ended by itself.
    if test.is_none() {
        let _ = swarm.kill();
    }
    let ended = swarm.wait()?;
    if test.is_some() && failures.is_empty() && !ended.success() {
        failures.push("the test fails, without naming a seed".into());
    }
    Ok(Found { failures, seconds: children_seconds()? - before })
}

/// Processor time of the children that have ended.
fn children_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields behind the name in parentheses; the children's user and system time are numbers 16 and 17 of all, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u32>().ok()).ok_or("no such field");
    Ok(f64::from(ticks(13)? + ticks(14)?) / 100.0)
}

/// The mutated text of the mutant's file.
fn apply(mutant: &Mutant, root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(&mutant.file))
        .map_err(|e| format!("{}: {}: {e}", mutant.name, mutant.file.display()))?;
    match text.matches(mutant.find.as_str()).count() {
        1 => Ok(text.replace(mutant.find.as_str(), &mutant.replace)),
        n => Err(format!(
            "{}: its text is found {n} times in {}",
            mutant.name,
            mutant.file.display()
        )
        .into()),
    }
}

/// Copies what git knows or would know; a file that is the same already is left alone, so that cargo rebuilds little.
fn copy_tree(root: &Path, scratch: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()?;
    if !listed.status.success() {
        return Err("git ls-files failed".into());
    }
    let listed = String::from_utf8(listed.stdout)?;
    let names: BTreeSet<&Path> =
        listed.split('\0').filter(|n| !n.is_empty()).map(Path::new).collect();
    remove_others(scratch, Path::new(""), &names)?;
    for name in names {
        let (from, to) = (root.join(name), scratch.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().ok_or("a file has a folder")?)?;
        fs::write(&to, bytes)?;
    }
    Ok(())
}

/// Removes what an earlier run copied and is no more. What cargo built stays.
fn remove_others(scratch: &Path, folder: &Path, names: &BTreeSet<&Path>) -> Result<()> {
    let Ok(entries) = fs::read_dir(scratch.join(folder)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != Path::new("target") {
                remove_others(scratch, &name, names)?;
            }
        } else if !names.contains(name.as_path()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn read_all(folder: &Path) -> Result<Vec<Mutant>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Result<Mutant> {
    let name = file.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let read: Mutant =
        toml::from_str(&fs::read_to_string(file)?).map_err(|e| format!("{name}: {e}"))?;
    if !(1..=MOST_INVARIANTS).contains(&read.must_violate.len()) {
        let why = format!("{name}: `must_violate` names 1 to {MOST_INVARIANTS} invariants");
        return Err(why.into());
    }
    Ok(Mutant { name, ..read })
}

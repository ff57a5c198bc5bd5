//! Where the figures come from: processor, kernel, versions of the peers, and how busy the machine was.

use crate::Error;
use crate::process::run;
use std::path::Path;

/// One line about the machine, for the head of the table.
pub fn describe() -> String {
    let cpus = cpus();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy();
    let versions = ["fio", "nbdkit", "qemu-storage-daemon"].map(version).join(", ");
    format!("{cpus} x {}, Linux {kernel}; {versions}", model.unwrap_or("unknown processor"))
}

/// Processors there are.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Are the files of this directory in memory rather than on a disk?
pub fn in_memory(dir: &Path) -> Result<bool, Error> {
    const RAMFS: i64 = 0x8584_58F6;
    const TMPFS: i64 = 0x0102_1994;
    let kind = rustix::fs::statfs(dir).map_err(|error| Error::file(dir)(error.into()))?.f_type;
    Ok([RAMFS, TMPFS].contains(&kind))
}

/// Processes that were ready to run, averaged over the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// What a run's figures are worth, by the loads during it: one line, and a warning if there was never room for the run itself.
pub fn describe_load(loads: impl Iterator<Item = f64> + Clone) -> String {
    let least = loads.clone().reduce(f64::min).unwrap_or(f64::NAN);
    let most = loads.reduce(f64::max).unwrap_or(f64::NAN);
    let mut text = format!("load {least:.1}..{most:.1}\n");
    if least > 3.0 * cpus() as f64 {
        text += "\nOTHER WORK FILLED THE MACHINE: these figures say little.\n";
    }
    text
}

/// The first line of `PROGRAM --version`.
fn version(program: &str) -> String {
    let said = run(5, Path::new(program), ["--version"]).map(|output| output.stdout);
    let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
    said.lines().next().map_or_else(|| format!("no {program}"), str::to_owned)
}

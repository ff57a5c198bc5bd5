//! How many system calls the servers make, counted by the kernel through `perf`. Counting costs them something, so it is done in
//! turns of their own.

use crate::contender::{Contender, Running};
use crate::process::run;
use crate::workload::Workload;
use crate::{Error, fio};
use serde::Serialize;
use std::path::Path;

const EVENT: &str = "raw_syscalls:sys_enter";

/// What was counted while one contender did one piece of work.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    /// Who.
    pub contender: Contender,
    /// What.
    pub workload: &'static str,
    /// Requests of the client; a flush is not counted as one.
    pub requests: u64,
    /// System calls of all processes of the contender, those for the connection included.
    pub calls: u64,
}

impl Calls {
    /// Requests for each system call.
    pub fn requests_per_call(&self) -> f64 {
        self.requests as f64 / self.calls as f64
    }
}

/// Can they be counted here? If not, why not.
pub fn countable() -> Result<(), Error> {
    run(10, Path::new("perf"), ["stat", "-e", EVENT, "--", "true"])?;
    Ok(())
}

/// Counts while the client works for so many seconds; `dir` is for what perf says.
pub fn count(running: &Running, work: &Workload, seconds: u64, dir: &Path) -> Result<Calls, Error> {
    let report = dir.join("system-calls");
    let ids: Vec<_> = running.ids().iter().map(u32::to_string).collect();
    let ids = ids.join(",");
    let output = report.display().to_string();
    // It counts while the command behind `--` runs.
    let perf = ["perf", "stat", "-x,", "-e", EVENT, "-p", &ids, "-o", &output, "--"];
    let client = fio::measure(&[&running.uri], work, seconds, &perf.map(str::to_owned))?;
    let said = std::fs::read_to_string(&report).map_err(Error::file(&report))?;
    let calls = counted(&said).ok_or(Error::Nonsense { what: "perf", said })?;
    let (contender, workload) = (running.contender(), work.name);
    Ok(Calls { contender, workload, requests: client.requests, calls })
}

/// The first field of the line of the event.
fn counted(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok().filter(|&calls| calls > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "# started on\n\n110609,,raw_syscalls:sys_enter,564219895,100.00,,\n";
        assert_eq!(counted(report), Some(110_609));
        let none = "<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n";
        assert_eq!(counted(none), None);
    }
}

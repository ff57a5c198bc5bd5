//! All processes of a simulated host, found by its pid namespace. Signals go to their own ids, never to a name outside of the host.

use rustix::process::{Pid, Signal, kill_process};

/// Does it run no more? (A zombie does not.)
pub(super) fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    // "pid (comm) state ...", and `comm` may hold anything.
    let Ok(stat) = stat else { return true };
    stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with(['Z', 'X']))
}

pub(super) fn kill(pid: Pid, signal: Signal) {
    // It may just have ended.
    let _ = kill_process(pid, signal);
}

/// One process of a host.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) pid: Pid,
    /// As the kernel cuts it: 15 bytes.
    pub(super) name: String,
    /// Seen from the host.
    pub(super) inside: i32,
}

/// Every process of the host whose pid 1 is `init`, but not pid 1 itself.
pub(super) fn of_host(init: Pid) -> Vec<Found> {
    let space = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let Ok(ours) = space(init.as_raw_pid()) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if number == init.as_raw_pid() || !space(number).is_ok_and(|space| space == ours) {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
        };
        let inside = field("NSpid:").parse().unwrap_or(0);
        let (name, parent) = (field("Name:"), field("PPid:"));
        // What pid 1 waits on: it would be started again at once.
        if name == "tail" && parent == init.as_raw_pid().to_string() {
            continue;
        }
        if let Some(pid) = Pid::from_raw(number).filter(|pid| !is_gone(*pid)) {
            found.push(Found { pid, name, inside });
        }
    }
    found
}

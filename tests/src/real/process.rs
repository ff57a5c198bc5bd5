//! A process beside the test: signalled and waited for by its own pid, and never left behind.

use super::{LOOK, seconds, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it says is appended to `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let out =
            File::options().create(true).append(true).open(log).expect("a log can be written");
        let err = out.try_clone().expect("a descriptor can be duplicated");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let parent = rustix::process::getpid();
        // SAFETY: both are plain system calls, allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // If the test itself is killed, nobody runs its destructors.
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                if rustix::process::getppid() != Some(parent) {
                    return Err(std::io::Error::other("the test has ended"));
                }
                Ok(())
            });
        }
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { name: name.into(), child, ended: None, log: log.to_owned() }
    }

    /// Its pid, while it is not reaped.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child can be waited for");
        }
        self.ended
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // It is not reaped yet, so the pid is its own.
            kill_process(self.pid(), signal).expect("our own child can be signalled");
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(seconds(20));
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(seconds(20))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}; it said:\n{}", self.name, self.said());
        wait_for(&what, limit, || self.ended().is_some());
        self.ended.expect("just waited for")
    }

    /// Looks until `ready`.
    ///
    /// # Panics
    /// If that takes too long, or if the process ends before.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !ready() {
            let (ended, name) = (self.ended(), self.name.clone());
            assert!(ended.is_none(), "{name} ended ({ended:?}) before {what}:\n{}", self.said());
            let late = begin.elapsed() >= limit;
            assert!(!late, "{name}: waited {limit:?} for {what}; it said:\n{}", self.said());
            std::thread::sleep(LOOK);
        }
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // May be in a system call that does not end before some other process is let go: its owner waits where that matters.
            let _ = self.child.kill();
            let begin = Instant::now();
            while self.ended().is_none() && begin.elapsed() < seconds(5) {
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// The last lines of a file.
pub fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Runs a program to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run<A: AsRef<OsStr>>(
    limit: Duration,
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &limit.as_secs().to_string(), program]).args(arguments);
    finish(&mut command)
}

/// As [`run`]; what it printed.
///
/// # Panics
/// If it fails, or takes too long.
pub fn run_ok<A: AsRef<OsStr>>(
    limit: Duration,
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let output = run(limit, program, arguments);
    assert!(output.status.success(), "{program}: {}\n{}", output.status, text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs what is prepared already.
///
/// # Panics
/// If it cannot be started.
pub fn finish(command: &mut Command) -> Output {
    // An ordinary user's path does not lead to mkfs and the like.
    let path = std::env::var("PATH").unwrap_or_default();
    let command = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

/// All a program said.
pub fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

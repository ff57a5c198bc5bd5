//! One `polluxd`: started, paused, killed; what it said is kept and read for what it must never say.

use super::process::Process;
use super::sandbox::Sandbox;
use super::seconds;
use rustix::process::Signal;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// What no log may hold: the words of a bug.
const FORBIDDEN: [&str; 3] = ["panicked", "assertion", "BUG"];

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    control: PathBuf,
}

impl Daemon {
    /// Starts it; what it says is appended to `log`.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&'static str, PathBuf)],
        sandbox: Sandbox,
        log: &Path,
        control: PathBuf,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env("RUST_BACKTRACE", "1").env_remove("RUST_LOG");
        command.envs(environment.iter().cloned());
        sandbox.confine(&mut command);
        Self { process: Process::start("polluxd", &mut command, log), control }
    }

    /// Waits until its control socket answers.
    ///
    /// # Panics
    /// If it ends before, or takes too long.
    pub fn wait_until_up(&mut self) {
        let control = &self.control;
        let answers = || UnixStream::connect(control).is_ok();
        self.process.wait_until("its control socket", seconds(15), answers);
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.process.pid().as_raw_nonzero().get()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGKILL, and does not wait.
    pub fn strike(&mut self) {
        self.process.signal(Signal::KILL);
    }

    /// SIGSTOP: it runs no further until [`Self::resume`].
    pub fn pause(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait(seconds(20))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Bytes of memory it has in use.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }

    /// Descriptors it has open.
    ///
    /// # Panics
    /// If it does not run.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }
}

/// Lines of a log that no run may leave.
pub fn forbidden_lines(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let is_bad = |line: &&str| FORBIDDEN.iter().any(|word| line.contains(word));
    text.lines().filter(is_bad).map(str::to_owned).collect()
}

//! A process that serves: started, watched, measured, and stopped by its pid. It cannot outlive this program.

use crate::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to end after SIGTERM; then it is killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at something that tells nobody when it is ready.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a log that are quoted in an error.
const QUOTE: usize = 2000;

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Readable when the process has ended.
    ended: OwnedFd,
    log: PathBuf,
    stopped: bool,
}

impl Process {
    /// Starts a program that stays in the foreground. What it says goes to `DIR/NAME.log`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        dir: &Path,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).map_err(Error::file(&log))?;
        let err = out.try_clone().map_err(Error::file(&log))?;
        // setpriv becomes the program; if this one is killed, the kernel ends the program too.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // Ctrl-C in a terminal is for us alone: servers are stopped in their order.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let ended = pidfd_open(pid_of(&child), PidfdFlags::empty())
            .map_err(|e| Error::Start { program: name.into(), source: e.into() })?;
        Ok(Self { name: name.into(), child, ended, log, stopped: false })
    }

    /// Waits until `ready`, at most `limit`. An early end of the process is an error.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let start = Instant::now();
        while !ready() {
            if self.has_ended(LOOK) {
                return Err(self.early_end());
            }
            if start.elapsed() > limit {
                let (process, said) = (self.name.clone(), tail(&self.log));
                return Err(Error::Late {
                    what: what.into(),
                    seconds: limit.as_secs(),
                    process,
                    said,
                });
            }
        }
        Ok(())
    }

    /// Waits until it listens on this port of the loopback interface.
    pub(crate) fn wait_for_port(&mut self, port: u16) -> Result<(), Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listens = || TcpStream::connect(address).is_ok();
        self.wait_until("listening", Duration::from_secs(15), listens)
    }

    /// Seconds of CPU it has used, those of children it has waited for included.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Error> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.child.id()));
        let stat = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        // The second field is the name in parentheses, which may hold anything; utime to cstime are the 14th to the 17th.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: Vec<u64> =
            behind_name.split_whitespace().skip(11).take(4).flat_map(str::parse).collect();
        if ticks.len() != 4 {
            return Err(Error::Nonsense { what: "/proc/PID/stat", said: stat });
        }
        let sum: u64 = ticks.iter().sum();
        Ok(sum as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Bytes of memory it has resident, those of its program included.
    pub(crate) fn resident(&self) -> Result<u64, Error> {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let status = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(1024 * kib.ok_or(Error::Nonsense { what: "/proc/PID/status", said: status })?)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and SIGKILL if that does not help in time. A process that ended by itself before is an error.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        if self.has_ended(Duration::ZERO) {
            return Err(self.early_end());
        }
        self.signal(Signal::TERM);
        if !self.has_ended(PATIENCE) {
            self.signal(Signal::KILL);
            self.has_ended(PATIENCE);
            return Err(Error::Late {
                what: "its end after SIGTERM (killed)".into(),
                seconds: PATIENCE.as_secs(),
                process: self.name.clone(),
                said: tail(&self.log),
            });
        }
        // Takes the status, so that no zombie stays.
        let _ = self.child.wait();
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.stopped = true;
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    fn early_end(&mut self) -> Error {
        self.stopped = true;
        match self.child.wait() {
            Ok(status) => Error::Failed { what: self.name.clone(), status, said: tail(&self.log) },
            Err(source) => Error::Start { program: self.name.clone(), source },
        }
    }

    fn has_ended(&self, limit: Duration) -> bool {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
        poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
    }

    fn signal(&self, signal: Signal) {
        // It can only fail because the process has just ended; we have not waited for it, so the pid is still its own.
        let _ = kill_process(pid_of(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}

/// Runs a program to its end, at most `seconds`.
pub(crate) fn run<A: AsRef<OsStr>>(
    seconds: u64,
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Output, Error> {
    let name = program.display().to_string();
    let output = Command::new("timeout")
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: name.clone(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = quote(&output.stderr);
    Err(Error::Failed { what: name, status: output.status, said })
}

/// Ports of the loopback interface that nobody uses now, all different.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    // All are held until the last is there: a port that was let go may be given out again at once.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let bound = listener.and_then(|it| Ok((it.local_addr()?.port(), it)));
        let (number, listener) = bound.map_err(Error::file("a free port of 127.0.0.1"))?;
        *port = number;
        listeners.push(listener);
    }
    Ok(ports)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn tail(log: &Path) -> String {
    std::fs::read(log).map_or_else(|error| error.to_string(), |bytes| quote(&bytes))
}

fn quote(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(QUOTE)..]).trim().to_owned()
}

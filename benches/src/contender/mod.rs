//! The systems that are compared: how each is started so that it serves one device of a given size on a TCP port.
//!
//! All keep their files in one directory and listen on the loopback interface only. The replicated ones keep two copies,
//! which must be the same when everything has stopped.

mod nbdkit;
mod pollux;
mod qemu;

use crate::process::Process;
use crate::{Error, fio, packages};
use clap::ValueEnum;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A system to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// Two polluxd processes, protocol C.
    Pollux,
    /// nbdkit's file plugin: one copy, no replication. What the client and the NBD protocol allow at best.
    NbdkitFile,
    /// qemu-storage-daemon, a quorum node over a local file and a remote NBD export.
    QemuQuorum,
    /// qemu-storage-daemon, a mirror job with write-blocking copy mode to a remote NBD export.
    QemuMirror,
}

impl Contender {
    /// As typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pollux => "pollux",
            Self::NbdkitFile => "nbdkit-file",
            Self::QemuQuorum => "qemu-quorum",
            Self::QemuMirror => "qemu-mirror",
        }
    }

    /// Is it one of the replicated peers that Pollux is measured against?
    pub fn is_peer(self) -> bool {
        matches!(self, Self::QemuQuorum | Self::QemuMirror)
    }

    /// Copies of the device that it keeps.
    pub fn copies(self) -> u64 {
        if self == Self::NbdkitFile { 1 } else { 2 }
    }

    /// Starts it on a fresh device of `size` bytes, waits until both copies are in step, and writes the device once.
    pub fn start(self, dir: &Path, size: u64) -> Result<Running, Error> {
        std::fs::create_dir_all(dir).map_err(Error::file(dir))?;
        let running = match self {
            Self::Pollux => pollux::start(dir, size),
            Self::NbdkitFile => nbdkit::start(dir, size),
            Self::QemuQuorum => qemu::quorum(dir, size),
            Self::QemuMirror => qemu::mirror(dir, size),
        }?;
        fio::fill(&running.uri)?;
        Ok(running)
    }
}

/// Installs what these contenders and the client need, or says what is missing.
pub fn prepare(contenders: &[Contender]) -> Result<(), Error> {
    let mut programs = vec!["fio"];
    for contender in contenders {
        match contender {
            Contender::Pollux => pollux::build()?,
            Contender::NbdkitFile => programs.push("nbdkit"),
            Contender::QemuQuorum | Contender::QemuMirror => {
                programs.extend(["nbdkit", "qemu-storage-daemon"]);
            }
        }
    }
    packages::need(&programs)
}

/// A contender that serves.
#[derive(Debug)]
pub struct Running {
    contender: Contender,
    /// Where the client finds it.
    pub uri: String,
    /// In the order in which they are to be stopped: first who writes, last who is written to.
    processes: Vec<Process>,
    copies: Vec<PathBuf>,
}

impl Running {
    fn new(contender: Contender, port: u16, export: &str) -> Self {
        let uri = format!("nbd://127.0.0.1:{port}/{export}");
        Self { contender, uri, processes: Vec::new(), copies: Vec::new() }
    }

    /// Which it is.
    pub fn contender(&self) -> Contender {
        self.contender
    }

    /// Seconds of CPU all its processes have used.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    /// Stops its processes and compares its copies.
    pub fn stop(mut self) -> Result<(), Error> {
        let stopped: Vec<_> = self.processes.iter_mut().map(Process::stop).collect();
        stopped.into_iter().collect::<Result<(), _>>()?;
        if let [first, second] = &self.copies[..]
            && let Some(offset) = first_difference(first, second)?
        {
            return Err(Error::CopiesDiffer { contender: self.contender.name(), offset });
        }
        Ok(())
    }
}

/// Makes an empty file of this size.
fn image(dir: &Path, name: &str, size: u64) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    let file = File::create(&path).map_err(Error::file(&path))?;
    file.set_len(size).map_err(Error::file(&path))?;
    Ok(path)
}

/// The start of the first MiB in which two files differ, or of what one has and the other lacks.
fn first_difference(first: &Path, second: &Path) -> Result<Option<u64>, Error> {
    const PIECE: u64 = 1 << 20;
    let open = |path: &Path| File::open(path).map_err(Error::file(path));
    let (mut one, mut other) = (open(first)?, open(second)?);
    let mut offset = 0;
    loop {
        let [mut left, mut right] = [Vec::new(), Vec::new()];
        (&mut one).take(PIECE).read_to_end(&mut left).map_err(Error::file(first))?;
        (&mut other).take(PIECE).read_to_end(&mut right).map_err(Error::file(second))?;
        if left != right {
            return Ok(Some(offset));
        }
        if left.is_empty() {
            return Ok(None);
        }
        offset += PIECE;
    }
}

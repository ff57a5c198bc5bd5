//! The systems that are compared: how each is started so that it serves one device of a given size on a TCP port.
//!
//! All keep their files in one directory and listen on the loopback interface only. The replicated ones keep two copies,
//! which must be the same when everything has stopped.

mod delay;
mod metadata;
mod nbdkit;
pub(crate) mod pollux;
mod qemu;

use crate::process::Process;
use crate::workload::Place;
use crate::{Error, fio, packages};
use clap::ValueEnum;
use delay::Delay;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Serialize, Serializer};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A system to compare.
// GlusterFS is not among them: in every row it is behind qemu, or its reads come from the client's page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// Two polluxd processes, protocol C.
    Pollux,
    /// The same with `net { data-integrity-alg crc32; }`.
    PolluxCrc,
    /// The same with `disk { direct-io yes; }`: both disks past the page cache.
    PolluxDirect,
    /// nbdkit's file plugin: one copy, no replication. What the client and the NBD protocol allow at best.
    NbdkitFile,
    /// qemu-storage-daemon, a quorum node over a local file and a remote NBD export.
    QemuQuorum,
    /// The same with both files past the page cache.
    QemuQuorumDirect,
    /// qemu-storage-daemon, a mirror job with write-blocking copy mode to a remote NBD export.
    QemuMirror,
    /// The same with both files past the page cache.
    QemuMirrorDirect,
}

impl Contender {
    /// Who takes part unless told otherwise: O_DIRECT says something on a disk only, and checksums where nothing hides them.
    pub fn usual(in_memory: bool) -> Vec<Self> {
        let mut usual = vec![Self::Pollux, Self::NbdkitFile, Self::QemuQuorum, Self::QemuMirror];
        if in_memory {
            usual.push(Self::PolluxCrc);
        } else {
            usual.extend([Self::PolluxDirect, Self::QemuQuorumDirect, Self::QemuMirrorDirect]);
        }
        usual
    }

    /// As typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pollux => "pollux",
            Self::PolluxCrc => "pollux-crc",
            Self::PolluxDirect => "pollux-direct",
            Self::NbdkitFile => "nbdkit-file",
            Self::QemuQuorum => "qemu-quorum",
            Self::QemuQuorumDirect => "qemu-quorum-direct",
            Self::QemuMirror => "qemu-mirror",
            Self::QemuMirrorDirect => "qemu-mirror-direct",
        }
    }

    /// Is it Pollux, set up in one way or another?
    pub fn is_pollux(self) -> bool {
        matches!(self, Self::Pollux | Self::PolluxCrc | Self::PolluxDirect)
    }

    /// Is it one of the replicated peers that Pollux is measured against?
    pub fn is_peer(self) -> bool {
        !self.is_pollux() && self != Self::NbdkitFile
    }

    /// Does it use its disks past the page cache?
    pub fn is_direct(self) -> bool {
        matches!(self, Self::PolluxDirect | Self::QemuQuorumDirect | Self::QemuMirrorDirect)
    }

    /// Copies of the device that it keeps.
    pub fn copies(self) -> u64 {
        if self == Self::NbdkitFile { 1 } else { 2 }
    }

    /// Starts it on a fresh device of `size` bytes, waits until both copies are in step, and writes the device once.
    pub fn start(self, dir: &Path, size: u64) -> Result<Running, Error> {
        std::fs::create_dir_all(dir).map_err(Error::file(dir))?;
        let running = match self {
            Self::Pollux | Self::PolluxCrc | Self::PolluxDirect => {
                let setup = pollux::Setup { contender: self, declared_equal: false, delay: None };
                setup.start(dir, size)?.running
            }
            Self::NbdkitFile => nbdkit::start(dir, size)?,
            Self::QemuQuorum | Self::QemuQuorumDirect => qemu::quorum(self, dir, size)?,
            Self::QemuMirror | Self::QemuMirrorDirect => qemu::mirror(self, dir, size)?,
        };
        fio::fill(&running.uri, Place::Whole)?;
        Ok(running)
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Installs what these contenders and the client need, or says what is missing.
pub fn prepare(contenders: &[Contender]) -> Result<(), Error> {
    let mut programs = vec!["fio"];
    if contenders.iter().any(|contender| contender.is_pollux()) {
        pollux::build()?;
    }
    if contenders.contains(&Contender::NbdkitFile) {
        programs.push("nbdkit");
    }
    if contenders.iter().any(|contender| contender.is_peer()) {
        programs.extend(["nbdkit", "qemu-storage-daemon"]);
    }
    packages::need(&programs)
}

/// A contender that serves.
#[derive(Debug)]
pub struct Running {
    contender: Contender,
    /// Where the client finds it.
    pub uri: String,
    port: u16,
    /// In the order in which they are to be stopped: first who writes, last who is written to.
    processes: Vec<Process>,
    copies: Vec<PathBuf>,
    /// What makes bytes between its processes wait; it must end after them.
    link: Option<Delay>,
}

impl Running {
    fn new(contender: Contender, port: u16, export: &str) -> Self {
        let uri = format!("nbd://127.0.0.1:{port}/{export}");
        Self { contender, uri, port, processes: Vec::new(), copies: Vec::new(), link: None }
    }

    /// Which it is.
    pub fn contender(&self) -> Contender {
        self.contender
    }

    /// Seconds of CPU all its processes have used.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    /// Bytes of memory all its processes have resident.
    pub fn resident(&self) -> Result<u64, Error> {
        self.processes.iter().map(Process::resident).sum()
    }

    /// Waits until it listens again.
    pub(crate) fn wait_for_port(&mut self) -> Result<(), Error> {
        self.processes[0].wait_for_port(self.port)
    }

    /// The process ids of all its processes.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
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

/// The start of the first MiB in which two files differ, or of what one has and the other lacks. Holes are not read.
fn first_difference(first: &Path, second: &Path) -> Result<Option<u64>, Error> {
    const PIECE: u64 = 1 << 20;
    let open = |path: &Path| {
        let file = File::open(path).map_err(Error::file(path))?;
        let len = file.metadata().map_err(Error::file(path))?.len();
        Ok((file, len))
    };
    let ((one, one_len), (other, other_len)) = (open(first)?, open(second)?);
    if one_len != other_len {
        return Ok(Some(one_len.min(other_len) / PIECE * PIECE));
    }
    let mut offset = 0;
    while let Some(data) = [data_from(&one, first, offset)?, data_from(&other, second, offset)?]
        .into_iter()
        .flatten()
        .min()
    {
        let piece = data / PIECE * PIECE;
        let mut bytes = [(); 2].map(|()| vec![0; PIECE.min(one_len - piece) as usize]);
        one.read_exact_at(&mut bytes[0], piece).map_err(Error::file(first))?;
        other.read_exact_at(&mut bytes[1], piece).map_err(Error::file(second))?;
        if bytes[0] != bytes[1] {
            return Ok(Some(piece));
        }
        offset = piece + PIECE;
    }
    Ok(None)
}

/// Where the next byte that is no hole lies.
fn data_from(file: &File, path: &Path, offset: u64) -> Result<Option<u64>, Error> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(Error::file(path)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_compared_past_their_holes() {
        let dir = tempfile::tempdir().unwrap();
        let size = (1 << 40) + 5;
        let [a, b] = ["a", "b"].map(|name| image(dir.path(), name, size).unwrap());
        assert_eq!(first_difference(&a, &b).unwrap(), None);
        let write = |path: &Path, at| {
            File::options().write(true).open(path).unwrap().write_all_at(b"x", at).unwrap();
        };
        write(&a, 7 << 30);
        write(&b, 7 << 30);
        write(&b, size - 1);
        assert_eq!(first_difference(&a, &b).unwrap(), Some(1 << 40));
        write(&a, size - 1);
        assert_eq!(first_difference(&a, &b).unwrap(), None);
        let c = image(dir.path(), "c", size - 1).unwrap();
        assert_eq!(first_difference(&a, &c).unwrap(), Some(1 << 40));
    }
}

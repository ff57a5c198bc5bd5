//! What can go wrong with a disk: typed, so that the node can tell a dead disk from a bad request.
//! Decides nothing: what an error means for the device is the node's business.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An operation that failed, and how. Its text names everything; there is no deeper source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action} of {len} bytes at byte {offset} failed: {cause}")]
pub struct DiskError {
    /// What was being done, as [`super::Op::action`] names it.
    pub action: &'static str,
    /// First byte; 0 for a flush.
    pub offset: u64,
    /// Bytes; 0 for a flush.
    pub len: u64,
    /// Why it failed.
    pub cause: Cause,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The system refused; of a flush, or of anything durable by itself, it is the end of the disk
    /// (IO-4).
    #[error("{0}")]
    Os(Errno),
    /// The file ended before the bytes did: somebody cut it short.
    #[error("the file is shorter than it was")]
    UnexpectedEnd,
    /// Outside of the disk as it was when opened or last measured.
    #[error("the disk ends at byte {size}")]
    OutOfRange {
        /// Its size in bytes.
        size: u64,
    },
    /// Not tried, or not believed, because an earlier flush failed (IO-4).
    #[error("an earlier flush of this disk failed, what it holds is unknown")]
    FlushFailedBefore,
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

/// A process that holds a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its program, as far as the kernel keeps it (15 bytes).
    pub name: String,
}

/// A disk that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct OpenError {
    /// The disk.
    pub path: PathBuf,
    /// Why not.
    pub fault: OpenFault,
}

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// A system call refused: what was tried, and why not.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
    /// A directory, a socket, a terminal.
    #[error("neither a regular file nor a block device")]
    NotADisk,
    /// Somebody else has it; who, if that could be found out. With no holder in sight it may be the
    /// I/O of a killed process that is still under way (wait and try again), or a mount, or another
    /// driver.
    #[error("in use by {}", name_of(.0.as_ref()))]
    InUse(Option<Holder>),
}

impl OpenFault {
    /// For `map_err` of what was tried.
    pub(super) fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System(action, error.into())
    }

    /// For `map_err` of the disk that was to be opened.
    pub(super) fn of(path: &Path) -> impl FnOnce(Self) -> OpenError {
        move |fault| OpenError { path: path.to_owned(), fault }
    }
}

fn name_of(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, name }) => format!("process {pid} ({name})"),
        None => "no process that is visible from here: the I/O of a killed process may still be \
                 under way, or the device is mounted or belongs to another driver"
            .to_owned(),
    }
}

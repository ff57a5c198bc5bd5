//! Why a run could not go on. All of them are about the surroundings: programs, ports, files.

use std::path::PathBuf;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs that are not installed, and could not be.
    #[error("missing: {0}")]
    Missing(String),
    /// A program could not be started at all.
    #[error("cannot run {program}: {source}")]
    Start {
        /// What was to be run.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{what} failed ({status}): {said}")]
    Failed {
        /// Which.
        what: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it wrote to stderr or to its log.
        said: String,
    },
    /// A server did not get to where it should in time.
    #[error("{what} did not happen within {seconds} s; {process} says: {said}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// By which process.
        process: String,
        /// The end of its log.
        said: String,
    },
    /// A program said something that we cannot read.
    #[error("{what}: {said}")]
    Nonsense {
        /// Who said it.
        what: &'static str,
        /// What was wrong.
        said: String,
    },
    /// A file or a socket.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The two copies of a contender are not the same after it was stopped.
    #[error("{contender}: the copies differ, first in the MiB at byte {offset}")]
    CopiesDiffer {
        /// Whose.
        contender: &'static str,
        /// Start of the first piece that differs, in bytes.
        offset: u64,
    },
    /// There is no room for all copies.
    #[error("{}: {free_mib} MiB are free, {needed_mib} MiB are needed", path.display())]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Free there.
        free_mib: u64,
        /// Needed.
        needed_mib: u64,
    },
}

impl Error {
    /// A `File` error of this path, for `map_err`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

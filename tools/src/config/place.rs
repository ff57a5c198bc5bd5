//! Where something stands in a configuration file, and the two things said about it: a warning, an
//! error. Not for errors of running resources.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A line of a configuration file; displayed as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named: on the command line, or by the `include` that led to it.
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Place {
    pub(super) fn new(file: Arc<Path>, line: u32) -> Self {
        Self { file, line }
    }

    pub(super) fn warning(&self, message: impl Into<String>) -> Warning {
        Warning { place: self.clone(), message: message.into() }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { place: self.clone(), message: message.into() }
    }
}

/// Something the operator wrote that does not mean what they may think; displayed as
/// `file:line: warning: message`. The configuration is used all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The line in question.
    pub place: Place,
    /// What was found, what Pollux does instead, what to type.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: warning: {}", self.place, self.message)
    }
}

/// Why a configuration cannot be used. The programs print it and end with exit code 10.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named on the command line cannot be read.
    #[error("{}: cannot be read: {source}; name another file with --config", file.display())]
    Unreadable {
        /// The file asked for.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is wrong, alone or together with others.
    #[error("{place}: {message}")]
    Invalid {
        /// The line to change.
        place: Place,
        /// What was found, what is allowed, what to type.
        message: String,
    },
}

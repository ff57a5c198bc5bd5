//! Where something stands in a configuration file, and the two things said about it: a warning, an
//! error. Not for errors of running resources.

use std::fmt::{self, Display};
use std::path::Path;
use std::sync::Arc;

use crate::failure::{Failure, code};

/// A line of a configuration file; displayed as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file as it was named: on the command line, or by the `include` that led to it.
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: u32,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Place {
    /// Something the operator wrote that does not mean what they may think: what was found, what
    /// Pollux does instead, what to type. The configuration is used all the same.
    pub(super) fn warning(&self, message: impl Display) -> String {
        format!("{self}: warning: {message}")
    }

    /// The line is wrong, alone or together with others: what was found, what is allowed, what to
    /// type.
    pub(super) fn error(&self, message: impl Display) -> Failure {
        Failure::new(code::CONFIGURATION, format_args!("{self}: {message}"))
    }
}

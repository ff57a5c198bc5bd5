//! How a command ends badly: the exit codes of drbdadm and drbdsetup, and what to print.

use std::fmt::Display;

/// What a command comes to.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Exit codes, as in drbdadm and drbdsetup.
pub(crate) mod code {
    pub(crate) const USAGE: u8 = 1;
    pub(crate) const TIMED_OUT: u8 = 5;
    /// Of `outdate`, as handlers expect it.
    pub(crate) const WORSE_ALREADY: u8 = 5;
    pub(crate) const IS_PRIMARY: u8 = 17;
    pub(crate) const CONFIGURATION: u8 = 10;
    pub(crate) const REFUSED: u8 = 11;
    pub(crate) const NEEDS_DISK: u8 = 16;
    pub(crate) const NO_UP_TO_DATE_DATA: u8 = 17;
    pub(crate) const FAILED: u8 = 20;
}

/// Why a command ended badly: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// As the commands of `polluxadm` end.
    pub code: u8,
    /// What happened, and what to type.
    pub text: String,
    /// The resource does not run here: what some commands take for an answer.
    pub is_down: bool,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Display) -> Self {
        Self { code, text: text.to_string(), is_down: false }
    }

    /// Something did not work: `failed` in drbdadm.
    pub(crate) fn failed(text: impl Display) -> Self {
        Self::new(code::FAILED, text)
    }

    /// The same, of one file or action.
    pub(crate) fn of(what: impl Display, error: impl Display) -> Self {
        Self::failed(format_args!("{what}: {error}"))
    }
}

/// What a resource said, if it runs here.
pub(crate) fn if_up<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(failure) if failure.is_down => Ok(None),
        answer => answer.map(Some),
    }
}

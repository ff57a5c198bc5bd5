//! How a command ends badly: the exit codes of drbdadm and drbdsetup, and what to print.

use std::fmt::Display;

/// What a command comes to.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Exit codes, as in drbdadm and drbdsetup.
pub mod code {
    /// The words make no command.
    pub const USAGE: u8 = 1;
    /// Of `wait-connect` and `wait-sync`.
    pub const TIMED_OUT: u8 = 5;
    /// Of `outdate`, as handlers expect it.
    pub const WORSE_ALREADY: u8 = 5;
    /// Of `outdate`, too.
    pub const IS_PRIMARY: u8 = 17;
    /// A file is wrong, or names no such thing; or the resource does not run.
    pub const CONFIGURATION: u8 = 10;
    /// The state does not allow it.
    pub const REFUSED: u8 = 11;
    /// There is no disk to do it with.
    pub const NEEDS_DISK: u8 = 16;
    /// Of `primary`.
    pub const NO_UP_TO_DATE_DATA: u8 = 17;
    /// Something did not work.
    pub const FAILED: u8 = 20;
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
    /// With that exit code.
    pub fn new(code: u8, text: impl Display) -> Self {
        Self { code, text: text.to_string(), is_down: false }
    }

    /// Something did not work: `failed` in drbdadm.
    pub fn failed(text: impl Display) -> Self {
        Self::new(code::FAILED, text)
    }

    /// The same, of one file or action.
    pub fn of(what: impl Display, error: impl Display) -> Self {
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

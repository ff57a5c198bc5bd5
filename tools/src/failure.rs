//! How a command ends badly: the exit codes of drbdadm and drbdsetup, and which error has which.

use crate::client::ClientError;
use crate::config::ConfigError;
use std::fmt::Display;

/// Exit codes, as in drbdadm and drbdsetup.
pub(crate) mod code {
    pub(crate) const USAGE: u8 = 1;
    pub(crate) const TIMED_OUT: u8 = 5;
    pub(crate) const CONFIGURATION: u8 = 10;
    pub(crate) const REFUSED: u8 = 11;
    pub(crate) const NEEDS_DISK: u8 = 16;
    pub(crate) const NO_UP_TO_DATE_DATA: u8 = 17;
    pub(crate) const FAILED: u8 = 20;
}

/// Why a command ended badly: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Display) -> Self {
        Self { code, text: text.to_string() }
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

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(code::CONFIGURATION, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NotRunning { .. } => code::CONFIGURATION,
            ClientError::Broken { .. } => code::FAILED,
            ClientError::Refused { kind, .. } => match kind.as_str() {
                "no-up-to-date-data" => code::NO_UP_TO_DATE_DATA,
                "no-disk" => code::NEEDS_DISK,
                "metadata" => code::CONFIGURATION,
                "usage" | "ending" => code::FAILED,
                _ => code::REFUSED,
            },
        };
        Self::new(code, error)
    }
}

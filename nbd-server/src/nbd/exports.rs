//! What a program serves: a set of named devices that clients list, ask about and open.

use crate::device::{BlockDevice, Geometry};

/// A set of named devices. It decides who may use what; the server only carries the answer.
#[allow(async_fn_in_trait, reason = "connections live on one thread: no Send is wanted")]
pub trait Exports: 'static {
    /// What a client works on: a handle of its own. It is dropped, which is how the owner learns
    /// that the client is gone, when the last request of that client has completed.
    type Device: BlockDevice;

    /// What LIST shows. A server that hides its exports returns none.
    fn list(&self) -> Vec<ExportInfo>;

    /// What INFO and the metadata options tell about `name`, without opening it: nothing may
    /// change by being asked (no promotion). The client's spelling may be an alias, the empty
    /// string stands for a default; [`ExportInfo::name`] of the answer is the canonical name.
    fn describe(&self, name: &str) -> Result<(ExportInfo, Geometry), Refusal>;

    /// A client wants to use `name`. May take time (a promotion); it is cancelled when the client
    /// vanishes or the handshake takes too long.
    async fn open(&self, name: &str) -> Result<Self::Device, Refusal>;
}

/// A line of LIST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Canonical name, at most 4096 bytes, no NUL.
    pub name: String,
    /// For people; may be empty. At most 4096 bytes.
    pub description: String,
}

/// Why a client does not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people; reaches the client as it is, so no secrets.
    pub reason: String,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such export (`ERR_UNKNOWN`).
    Unknown,
    /// There is one, but not for this client now: a Secondary, say (`ERR_POLICY`).
    Policy,
    /// The server is about to end (`ERR_SHUTDOWN`).
    ShuttingDown,
}

impl Refusal {
    /// There is no such export.
    pub fn unknown(name: &str) -> Self {
        let shown: String = name.chars().take(80).collect();
        Self { kind: RefusalKind::Unknown, reason: format!("no export is named {shown:?}") }
    }

    /// Not now or not for this client, because of `reason`.
    pub fn policy(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Policy, reason: reason.into() }
    }

    /// The server ends, because of `reason`.
    pub fn shutting_down(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::ShuttingDown, reason: reason.into() }
    }
}

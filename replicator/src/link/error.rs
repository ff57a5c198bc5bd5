//! What can go wrong with links, for the log and for the operator.

use crate::wire::{HelloError, Mismatch, WireError};
use std::io;
use std::net::SocketAddr;

/// Why a resource cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no random numbers: identifiers of generations would repeat (GI-3).
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for peers: {source}")]
    Listen {
        /// Our `address`.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Why a link that was up is gone.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end closed it.
    #[error("closed by the peer")]
    Closed,
    /// It ended inside a message.
    #[error("cut in the middle of a message")]
    Cut,
    /// The network or the other host failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is not what a peer sends.
    #[error("protocol error: {0}")]
    Wire(#[from] WireError),
    /// A read, or the answer to one, that no peer would send.
    #[error("protocol error: {1} (id {0})")]
    Read(u64, &'static str),
    /// An answer of the wrong length.
    #[error("protocol error: {found} bytes in answer to a read of {asked} (id {id})")]
    AnswerLength {
        /// As asked.
        id: u64,
        /// Bytes asked for.
        asked: u64,
        /// Bytes received.
        found: u64,
    },
    /// The peer does not take what we send.
    #[error("{bytes} bytes are queued, more than the limit of {limit}")]
    SendQueue {
        /// Bytes queued.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer has begun a new one.
    #[error("the peer connected anew")]
    Replaced,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the handshake took too long")]
    Late,
    #[error("{0}")]
    Hello(#[from] HelloError),
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
}

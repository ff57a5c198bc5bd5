//! Lets clients reach any [`BlockDevice`] over NBD. It knows nothing of replication.
//!
//! # How a request travels
//!
//! ```text
//! socket ─ transport ─ receive ─ transmission (decode, check) ─┬─ BlockDevice::submit(batch)
//!             ▲                                                │        │ now or later, any order
//!             └──────────── reply (encode, gather) ◄─ outbox ◄─┴────────┘ Reply::complete
//! ```
//!
//! One connection is one task on the thread of the device's owner; a turn of it receives all that
//! is readable, submits it as one batch, and sends all replies that are ready with one system call.
//!
//! # Reading order
//!
//! - [`device`]: what a back end implements; [`closing`]: how it says that an export ends;
//!   [`memory`]: a back end in RAM, with faults on demand.
//! - [`nbd`]: the protocol. [`nbd::handshake`], [`nbd::transmission`] and [`nbd::reply`] are pure
//!   (bytes in, events and gathered slices out) and can be fed without a socket.
//! - [`nbd::server`] and [`nbd::listener`]: what a program that serves clients calls.

pub mod closing;
pub mod device;
pub mod memory;
pub mod nbd;
#[cfg(test)]
mod test_random;

pub use closing::{Closer, Closing};
pub use device::{
    BlockDevice, Completions, Extent, Geometry, IoError, Operation, Outcome, Reply, Request, Span,
};
pub use nbd::exports::{ExportInfo, Exports, Refusal, RefusalKind};
pub use nbd::limits::Limits;
pub use nbd::listener::{Address, BindError, Listener};
pub use nbd::server::Server;

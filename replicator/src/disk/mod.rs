//! Disk engines: they read, write, zero and flush one backing disk for the owner's thread, and
//! never make it wait. They decide nothing; order between overlapping operations is the caller's.
//!
//! ```text
//! owner ── submit(batch) ──► queue ─┬─ at once, on the owner's thread (engine.rs)
//!                                   ├─ the kernel's ring               (uring.rs)
//!                                   └─ a disk thread                   (threads.rs)
//! owner ◄── poll(out) ────── completions, each once; wake_fd() tells of those that come later
//! ```
//!
//! In reading order: this file is the contract; [`backing`] opens a disk and chooses the engine;
//! `target` is one open description and how to transfer bytes through it; `files` carries out one
//! operation on data and metadata; `queue` holds what is under way, with `threads` and
//! `syncs` behind it; `engine` is how it is used, and decides which of the three ways an operation goes; `uring` is the ring.
//!
//! # What completions promise
//!
//! - **Flush** covers exactly the data operations whose completions had been polled when it was
//!   submitted. One that was merely under way, or done and not yet polled, is not covered.
//! - A **FUA** operation, [`Op::WriteMeta`] are stable when they complete,
//!   and say nothing of any other operation.
//! - **IO-4**: once a flush or anything durable by itself has failed, every later one fails too,
//!   and so does every one still in flight, whatever the kernel says: it reports a write-back
//!   error once, to whoever asks first.
//! - Operations complete in any order. Two that overlap must not be in flight together, nor two
//!   data operations that touch the same logical block ([`Backing::logical_block`]): unaligned
//!   ones are done by reading, merging and writing whole blocks.

use bitmap::{Bytes, MetaWrite};

use crate::buffers::Buffer;
use crate::digest::Digest;

pub mod backing;
pub mod error;
pub mod limits;

mod engine;
mod files;
mod lock;
mod queue;
mod syncs;
mod target;
mod threads;
mod uring;
mod wake;

#[cfg(test)]
mod conformance;

pub use backing::{Backing, Direct, EngineChoice, Options};
pub use error::{Cause, DiskError, Holder, OpenError, OpenFault};
pub use rustix::io::Errno;

/// Names an operation to its submitter; engines only carry it. It need not be unique.
pub type IoToken = u64;

/// One thing to do. Offsets and lengths are bytes; none need be aligned. Offsets of metadata count
/// from the start of the file that holds it: the same file if internal, its own if external.
#[derive(Clone, Debug)]
pub enum Op {
    /// Read data: completes with [`Done::Read`].
    Read {
        /// First byte.
        offset: u64,
        /// How many, at most [`limits::TRANSFER`].
        len: u32,
        /// Answer [`Done::Zeros`] if there are only zeros; a hole then costs no transfer.
        detect_zero: bool,
    },
    /// Read data, and say the digest of each block: completes with [`Done::Digests`].
    Digest {
        /// First byte.
        offset: u64,
        /// How many, at most [`limits::TRANSFER`].
        len: u32,
        /// Bytes of a block; the last may be shorter.
        block: u32,
    },
    /// Write data.
    Write {
        /// First byte.
        offset: u64,
        /// What to write.
        buffer: Buffer,
        /// Stable when it completes.
        fua: bool,
    },
    /// Make exactly this range of the data read as zeros.
    Zero {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Stable when it completes.
        fua: bool,
        /// The space may be given back. If not it stays allocated.
        may_unmap: bool,
    },
    /// Make stable every data operation whose completion was polled before this is submitted.
    Flush,
    /// Read metadata.
    ReadMeta {
        /// First byte.
        offset: u64,
        /// How many, at most [`limits::TRANSFER`].
        len: u32,
    },
    /// Write metadata, at most [`limits::TRANSFER`] bytes that are not zeros; allocated and stable
    /// when it completes. The area shares no page (4096 bytes) with data: one may go past the page
    /// cache while the other goes through it.
    WriteMeta(MetaWrite),
}

impl Op {
    /// What it does, in words for the log.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Digest { .. } => "read",
            Self::Write { .. } => "write",
            Self::Zero { .. } => "zeroing",
            Self::Flush => "flush",
            Self::ReadMeta { .. } => "metadata read",
            Self::WriteMeta(MetaWrite { bytes: Bytes::Data(_), .. }) => "metadata write",
            Self::WriteMeta(MetaWrite { bytes: Bytes::Zeros(_), .. }) => "metadata zeroing",
        }
    }

    /// First byte and number of bytes; zeros for a flush.
    pub fn range(&self) -> (u64, u64) {
        match self {
            Self::Read { offset, len, .. }
            | Self::Digest { offset, len, .. }
            | Self::ReadMeta { offset, len } => (*offset, u64::from(*len)),
            Self::Write { offset, buffer, .. } => (*offset, buffer.len() as u64),
            Self::Zero { offset, len, .. } => (*offset, *len),
            Self::Flush => (0, 0),
            Self::WriteMeta(write) => (write.offset, write.bytes.len()),
        }
    }

    /// Whether its success is a promise about stable storage.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Flush | Self::WriteMeta(_) => true,
            Self::Write { fua, .. } | Self::Zero { fua, .. } => *fua,
            Self::Read { .. } | Self::Digest { .. } | Self::ReadMeta { .. } => false,
        }
    }

    /// Whether the page cache does it at once, as a rule.
    fn is_short(&self) -> bool {
        let short = matches!(self, Self::Write { fua: false, .. } | Self::Read { .. });
        short && self.range().1 <= limits::SHORT
    }

    fn is_meta(&self) -> bool {
        matches!(self, Self::ReadMeta { .. } | Self::WriteMeta(_))
    }

    /// Zeros apart, bytes are transferred in one piece.
    fn check_length(&self) {
        let zeros = matches!(
            self,
            Self::Zero { .. } | Self::WriteMeta(MetaWrite { bytes: Bytes::Zeros(_), .. })
        );
        let len = self.range().1;
        assert!(zeros || len <= limits::TRANSFER as u64, "a transfer of {len} bytes is too long");
    }

    fn error(&self, cause: impl Into<Cause>) -> DiskError {
        let (offset, len) = self.range();
        DiskError { action: self.action(), offset, len, cause: cause.into() }
    }
}

/// How an operation that succeeded ended.
#[derive(Clone, Debug)]
pub enum Done {
    /// The bytes read, of data or metadata. The memory may start unaligned if the offset did.
    Read(Buffer),
    /// One for each block.
    Digests(Vec<Digest>),
    /// So many bytes of data were asked for with `detect_zero`, and all are zero.
    Zeros(u32),
    /// Written, zeroed, flushed.
    Finished,
}

/// The end of one operation; each has exactly one.
#[derive(Debug)]
pub struct Completion {
    /// As submitted.
    pub token: IoToken,
    /// How it ended.
    pub result: Result<Done, DiskError>,
}

//! Every bound of the server in one place. LIM: no queue, table or buffer grows past them.

use std::time::Duration;

/// Payloads of at least this many bytes are not mixed with read-ahead of what follows them: they
/// are received straight into the device's buffer.
pub const LARGE_PAYLOAD: usize = 16 << 10;

/// While one of the last so many requests brought a large payload, only the next header is read ahead. More would make small requests
/// dearer, which need a receive each then; fewer would have payloads copied where large and small requests come mixed.
pub const LARGE_MEMORY: u32 = 4;

/// Longest payload of an option we know. Longer ones are skipped and refused.
pub const OPTION_PAYLOAD: usize = 64 << 10;

/// Longest payload of an option that is skipped; a client that announces more is disconnected.
pub const OPTION_SKIP: u32 = 32 << 20;

/// Options in one handshake.
pub const OPTIONS: u32 = 1024;

/// Extents in one answer to BLOCK_STATUS.
pub const EXTENTS: usize = 1024;

/// What one read and all gathered pieces of one send may hold together.
pub const SLICES: usize = 256;

/// The bounds that a program may want to choose, and the tests do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Clients at a time. One more puts out who has been in the handshake for longest; if all are served, it waits in the kernel's queue.
    pub connections: usize,
    /// From accept to the start of the transmission.
    pub handshake: Duration,
    /// For requests in flight to end when the server or the export closes.
    pub drain: Duration,
    /// For a client to read our last words and to hang up.
    pub linger: Duration,
    /// Bytes of one connection's receive buffer. At least one option of [`OPTION_PAYLOAD`].
    pub receive_buffer: usize,
    /// Requests of one connection that are submitted or whose reply is not sent.
    pub requests: usize,
    /// Payload bytes of those requests.
    pub bytes: u64,
    /// Requests of all connections.
    pub all_requests: usize,
    /// Payload bytes of all connections.
    pub all_bytes: u64,
    /// A connection that has nothing in flight may exceed the two shared limits by one request of
    /// at most this many bytes, so that nobody is starved by others.
    pub reserved_bytes: u64,
}

impl Limits {
    /// What a server uses unless told otherwise.
    pub const DEFAULT: Self = Self {
        connections: 128,
        handshake: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        linger: Duration::from_secs(1),
        receive_buffer: 256 << 10,
        requests: 256,
        bytes: 64 << 20,
        all_requests: 4096,
        all_bytes: 512 << 20,
        reserved_bytes: 1 << 20,
    };

    /// Panics if some request could never be admitted.
    pub(crate) fn check(&self) {
        let option = super::protocol::OPTION_HEADER + OPTION_PAYLOAD;
        assert!(self.receive_buffer >= option, "a receive buffer holds the longest option");
        assert!(self.requests > 0 && self.all_requests > 0 && self.connections > 0);
        assert!(self.bytes <= self.all_bytes, "one connection's share is part of the whole");
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

//! Every bound of what crosses a link, in one place. The encoder asserts them, the decoder refuses what is beyond.

/// Bytes of a message without its payload, also bincode's limit.
pub const MAX_BODY: usize = 1 << 20;

/// Bytes of a payload: one write, one answer to a read, one piece of a resync.
pub const MAX_PAYLOAD: usize = 32 << 20;

/// A payload of this many bytes or more is received straight into its own buffer.
pub const DIRECT_PAYLOAD: usize = 16 << 10;

/// Runs of blocks in one `Bits` or `SyncCommit`; the sender splits what is longer.
pub const MAX_RUNS: usize = 32_768;

/// Digests in one `SyncCompare` or `SyncDiffers`.
pub const MAX_DIGESTS: usize = 4096;

/// Volumes of a resource.
pub const MAX_VOLUMES: usize = 128;

/// Generations of a history; as many as a superblock keeps.
pub const MAX_HISTORY: usize = 32;

/// Bytes of a text for people; the encoder cuts what is longer.
pub const MAX_TEXT: usize = 4096;

/// Bytes of a resource's name.
pub const MAX_RESOURCE_NAME: usize = 128;

// The longest lists, at the longest a `u64` gets (9 bytes), fit a body, and so does bincode's own count of memory.
const _: () = assert!(MAX_RUNS * 18 < MAX_BODY);
const _: () = assert!(MAX_DIGESTS * 16 + 64 < MAX_BODY);
const _: () = assert!(MAX_VOLUMES * (64 + 9 * MAX_HISTORY) < MAX_BODY);

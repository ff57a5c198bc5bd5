//! Every bound of the disk engines, in one place. Not here: how many requests a client may have,
//! which the layers above decide.

/// Operations an engine holds at a time; what is more stays in the batch given to `submit`.
pub const IN_FLIGHT: usize = 1024;

/// The longest transfer, in bytes: half of the largest buffer, so that there is room for the blocks
/// around an unaligned one.
pub const TRANSFER: usize = crate::buffers::MAX_LEN / 2;

/// Entries of the submission ring. A longer batch is handed to the kernel in several calls.
pub const RING_ENTRIES: u32 = 256;

/// Disk threads of one backing. They are started when there is work for them.
pub const DISK_THREADS: usize = 16;

/// Bytes up to which an operation through the page cache is a short one.
pub const SHORT: u64 = 128 << 10;

/// Stack of a disk thread, in bytes. It calls into the kernel and little else.
pub const DISK_THREAD_STACK: usize = 256 << 10;

/// Bytes that one `submit` may copy on the owner's thread: a few hundred microseconds. What is more
/// goes to the disk threads.
pub const INLINE_BYTES: u64 = 1 << 20;

/// Metadata that is filled with zeros is written, so that what is written there later costs no journal, but for so many bytes: the
/// bitmap of a device of 2 TiB. Those the kernel allocates and makes zeros, where it can.
pub const ZEROED_BY_CALL: u64 = 64 << 20;

/// Zeros are written in pieces of this size where the kernel has no call for them.
pub const ZERO_CHUNK: u64 = 1 << 20;

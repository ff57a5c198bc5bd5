//! What a back end implements to be served: a block device that takes batches of requests and
//! completes them when it likes. Nothing here is specific to NBD, except that the errors are the
//! ones NBD can carry.
//!
//! All of it lives on one thread: nothing needs `Send`, `submit` is a plain call, and a completion
//! is a plain call back.

use crate::closing::Closing;
use std::rc::Rc;

/// A block device, as seen by its clients.
///
/// # Contract
///
/// - **Completion.** Every submitted request is completed exactly once ([`Reply`] enforces it):
///   inside `submit`, or any time later, in any order.
/// - **Order.** Requests in flight together may be executed in any order, overlapping ones too.
/// - **Coherence.** A completed write is seen by every later read, whichever connection asks.
/// - **Flush.** A completed flush makes durable every write, trim and write-zeroes *completed
///   before the flush was submitted*, by whichever connection. The server advertises
///   `CAN_MULTI_CONN`, which promises this and the line above.
/// - **FUA.** A request with `fua` completes when its own effect is durable; it says nothing
///   about others.
pub trait BlockDevice: 'static {
    /// Payload memory. For reads the device hands over one of exactly the length asked for; for
    /// writes it gets back the one it allocated.
    type Buffer: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// Size and block sizes. It does not change while a client uses the device: a device that
    /// is resized closes, and clients come back.
    fn geometry(&self) -> Geometry;

    /// Memory for a payload of `length` bytes (at most [`Geometry::maximum`]), aligned as the
    /// device likes it. The contents are arbitrary: the server overwrites all of it before it
    /// submits it. The server bounds how much of it is alive.
    fn allocate(&self, length: u32) -> Self::Buffer;

    /// Takes every request out of `batch`. Ranges lie within the device, lengths are not zero
    /// and at most [`Geometry::maximum`] for reads and writes, both are multiples of
    /// [`Geometry::minimum`]; a read-only device gets no request that changes it.
    fn submit(&self, batch: &mut Vec<Request<Self::Buffer>>);

    /// Tells when this device stops serving (demotion, shutdown). From then on the server answers
    /// new requests with [`IoError::ShuttingDown`], delivers what is still completed in time, and
    /// disconnects.
    fn watch(&self) -> Closing;
}

/// Size and block sizes in bytes, and what a client should know of the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the device; should be a multiple of `minimum`.
    pub size: u64,
    /// Requests that are not multiples of this are refused. A power of two up to 64 KiB; 1 serves
    /// any offset and length.
    pub minimum: u32,
    /// Smallest efficient request. A power of two, at least 512 and at least `minimum`.
    pub preferred: u32,
    /// Longest read or write. At least `preferred`; should be 32 MiB, which clients that never ask
    /// assume.
    pub maximum: u32,
    /// The medium seeks.
    pub rotational: bool,
    /// Requests that change the device are refused.
    pub read_only: bool,
}

impl Geometry {
    /// A writable device of `size` bytes that serves any range.
    pub const fn any_range(size: u64) -> Self {
        Self {
            size,
            minimum: 1,
            preferred: 4096,
            maximum: 32 << 20,
            rotational: false,
            read_only: false,
        }
    }

    /// Panics unless the block sizes obey the rules of their fields.
    pub(crate) fn check(&self) {
        let Self { minimum, preferred, maximum, .. } = *self;
        assert!(minimum.is_power_of_two() && minimum <= 64 << 10, "minimum block {minimum}");
        assert!(preferred.is_power_of_two(), "preferred block {preferred}");
        assert!(preferred >= 512.max(minimum), "preferred block {preferred}");
        assert!(maximum >= preferred && maximum.is_multiple_of(minimum), "maximum {maximum}");
    }
}

/// A range of bytes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation<B> {
    /// Completed with [`Outcome::Data`].
    Read(Span),
    /// Writes all of `data`.
    Write {
        /// First byte written.
        offset: u64,
        /// The payload, in the device's own memory.
        data: B,
        /// Complete only when durable.
        fua: bool,
    },
    /// Makes all completed changes durable.
    Flush,
    /// The client needs the contents no more.
    Trim {
        /// Where.
        range: Span,
        /// Complete only when durable.
        fua: bool,
    },
    /// The range reads as zeroes afterwards.
    WriteZeroes {
        /// Where.
        range: Span,
        /// Complete only when durable.
        fua: bool,
        /// Keep the space allocated.
        no_hole: bool,
    },
    /// The client is going to read the range; a hint.
    Cache(Span),
    /// What is known of the allocation of the range. Completed with [`Outcome::Extents`].
    BlockStatus {
        /// Where.
        range: Span,
        /// More extents than this are of no use.
        limit: usize,
    },
}

/// How a request succeeded.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<B> {
    /// Done; there is nothing to return.
    Done,
    /// What was read: exactly as many bytes as asked for.
    Data(B),
    /// Adjacent extents from the start of the range on: at least one, none empty. They may end
    /// before the range does (the client asks again) and the last may end behind it.
    Extents(Vec<Extent>),
}

/// A stretch of a device with one allocation state. `false` is the safe answer to both questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of bytes.
    pub length: u64,
    /// Not allocated: a write may fail for lack of space.
    pub hole: bool,
    /// Reads as zeroes.
    pub zero: bool,
}

/// How a request failed; the errors NBD can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// EPERM: the export is read-only.
    #[error("not permitted")]
    NotPermitted,
    /// EIO.
    #[error("input/output error")]
    Io,
    /// ENOMEM; to be avoided.
    #[error("out of memory")]
    NoMemory,
    /// EINVAL.
    #[error("invalid request")]
    Invalid,
    /// ENOSPC.
    #[error("no space left on device")]
    NoSpace,
    /// EOVERFLOW: longer than the server can answer.
    #[error("request is too long")]
    TooLong,
    /// ENOTSUP.
    #[error("not supported")]
    NotSupported,
    /// ESHUTDOWN: the export is closing.
    #[error("server is shutting down")]
    ShuttingDown,
}

/// One request and the way back to whoever asked.
pub struct Request<B: 'static> {
    /// What to do.
    pub operation: Operation<B>,
    /// Whom to tell.
    pub reply: Reply<B>,
}

/// Where a front end takes completions. Called from inside `submit` or later; it only notes the
/// result, so a device may call it whatever it has borrowed itself.
pub trait Completions<B> {
    /// The request that carried `tag` ended so.
    fn complete(&self, tag: u64, result: Result<Outcome<B>, IoError>);
}

/// The duty to complete one request: consumed by doing it. Dropping it instead answers
/// [`IoError::ShuttingDown`], so that a back end which is torn down leaves no client waiting.
#[must_use = "dropping a reply answers the client with an error"]
pub struct Reply<B: 'static> {
    to: Option<Rc<dyn Completions<B>>>,
    tag: u64,
}

impl<B> Reply<B> {
    /// The duty to complete `tag` at `to`.
    pub fn new(to: Rc<dyn Completions<B>>, tag: u64) -> Self {
        Self { to: Some(to), tag }
    }

    /// Ends the request.
    pub fn complete(mut self, result: Result<Outcome<B>, IoError>) {
        let to = self.to.take().expect("only complete and drop take it, and both end the reply");
        to.complete(self.tag, result);
    }
}

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            to.complete(self.tag, Err(IoError::ShuttingDown));
        }
    }
}

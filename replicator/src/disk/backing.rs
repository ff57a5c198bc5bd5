//! Opening a backing disk: which kind of file it is, who else has it, and whether a ring suits it.
//! Not here: which way an operation then goes (`engine.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use bitmap::{Bytes, MetaWrite};

use super::error::{DiskError, OpenError, OpenFault};
use super::files::Files;
use super::lock;
use super::queue::Queue;
use super::target::{Access, Target};
use super::uring::Ring;
use super::{Done, Op};
use crate::buffers::Pool;

/// Whether data goes past the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// On block devices, where possible; files use the page cache, which is faster and gives up
    /// nothing, since a flush is a flush in both.
    #[default]
    Auto,
    /// Where the file system has O_DIRECT; memory file systems need none.
    Yes,
    /// Never.
    No,
}

/// Which engine to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring for O_DIRECT, else `pread`/`pwrite`.
    #[default]
    Auto,
    /// System calls, on disk threads where they may wait.
    Pread,
    /// io_uring; where it is forbidden, as `Pread` with a warning.
    Uring,
}

/// How to open a disk.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether data goes past the page cache.
    pub direct: Direct,
    /// Which engine to use.
    pub engine: EngineChoice,
    /// The file or device that holds external metadata; `None`: it is inside the disk itself.
    pub meta: Option<PathBuf>,
    /// Create the file of external metadata if there is none.
    pub create_meta: bool,
}

/// An open, locked disk with its engine, which carries out operations on it.
///
/// Dropping it with operations in flight abandons them: they may still reach the disk, and the lock
/// on it is held until they have.
pub struct Backing {
    /// `None`: at once, or on disk threads.
    pub(super) ring: Option<Ring>,
    // After the ring: what was handed to it names the descriptors held here.
    pub(super) queue: Queue,
    external_meta: bool,
}

impl Backing {
    /// Opens and locks a disk and its metadata. Reads take their memory from `pool`.
    ///
    /// # Errors
    /// [`OpenError`], which names the file; [`OpenFault::InUse`] if another process has it.
    pub fn open(path: &Path, options: &Options, pool: &Pool) -> Result<Self, OpenError> {
        let access = Access { direct: options.direct, create: false, exclusive: true };
        let data = Target::open(path, access)?;
        let meta = open_meta(path, &data, options)?;
        let shared = meta.is_some() && options.meta.is_none();
        let (for_data, for_meta) =
            if shared { (lock::DATA, lock::META) } else { (lock::WHOLE, lock::WHOLE) };
        take_lock(path, &data, for_data)?;
        if let Some(meta) = &meta {
            take_lock(options.meta.as_deref().unwrap_or(path), meta, for_meta)?;
        }
        let wants_ring = match options.engine {
            EngineChoice::Auto => data.direct,
            EngineChoice::Pread => false,
            EngineChoice::Uring => true,
        };
        let queue = || {
            let files = Files::new(data, meta, pool.clone());
            let files = files.map_err(OpenFault::system("ask for the size"))?;
            Queue::new(Arc::new(files)).map_err(OpenFault::system("start a disk thread"))
        };
        let queue = queue().map_err(OpenFault::of(path))?;
        let ring = if wants_ring { try_ring(&queue) } else { None };
        Ok(Self { queue, ring, external_meta: options.meta.is_some() })
    }

    /// The engine in use: `io_uring`, `pread` (page cache or memory), or `threads` (O_DIRECT
    /// without io_uring).
    pub fn engine_name(&self) -> &'static str {
        match (&self.ring, self.is_direct()) {
            (Some(_), _) => "io_uring",
            (None, true) => "threads",
            (None, false) => "pread",
        }
    }

    /// Whether data goes past the page cache.
    pub fn is_direct(&self) -> bool {
        self.queue.files.data.direct
    }

    /// Bytes of the disk, in whole logical blocks, as of opening or [`Self::measure`].
    pub fn size(&self) -> u64 {
        self.queue.files.data.size()
    }

    /// Bytes of the file that holds the metadata; if internal, the size of the disk.
    pub fn meta_size(&self) -> u64 {
        self.queue.files.meta().size()
    }

    /// The logical block of data in bytes, 512 or more: no two operations in flight may touch the
    /// same one.
    pub fn logical_block(&self) -> u32 {
        self.queue.files.data.block.max(512) as u32
    }

    /// Looks again how large the disk is; it may have grown.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn measure(&mut self) -> io::Result<()> {
        Ok(self.queue.files.measure()?)
    }

    /// For `create-md`, before it writes anything: gives the metadata its space, extending an external file, where the file
    /// system can. It then writes all of it, so that no later write of metadata can find the file system full.
    ///
    /// # Errors
    /// If there is not enough space, or the disk refuses.
    pub fn reserve_meta(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        let op = Op::WriteMeta(MetaWrite { offset, bytes: Bytes::Zeros(len) });
        let meta = self.queue.files.meta();
        // An internal range that does not fit is an error, not a reason to make the disk larger.
        if !self.external_meta {
            self.queue.files.admit(&op)?;
        }
        let range = meta.whole_blocks(offset, len);
        let reserved = meta.reserve(range.start, range.end - range.start);
        reserved.map_err(|cause| op.error(cause))?;
        self.queue.files.measure().map_err(|errno| op.error(errno))
    }

    /// Carries out one operation from beginning to end, waiting for the disk: for commands that
    /// have no loop. Nothing may be in flight.
    ///
    /// # Errors
    /// As its completion would tell.
    pub fn perform(&mut self, op: &Op) -> Result<Done, DiskError> {
        assert_eq!(self.queue.in_flight, 0, "Backing::perform beside operations in flight");
        self.queue.files.admit(op)?;
        self.queue.files.settle(op, self.queue.files.perform(op))
    }
}

/// The description for metadata, past the page cache if possible: `None` if that of the data
/// serves.
fn open_meta(path: &Path, data: &Target, options: &Options) -> Result<Option<Target>, OpenError> {
    let direct = Direct::Yes;
    if let Some(path) = &options.meta {
        let access = Access { direct, create: options.create_meta, exclusive: true };
        return Target::open(path, access).map(Some);
    }
    // Memory has no past-the-cache, and one O_DIRECT description is as good as two.
    if data.direct || data.in_memory {
        return Ok(None);
    }
    // The description of the data has claimed the device already.
    Target::open(path, Access { direct, create: false, exclusive: false }).map(Some)
}

fn take_lock(path: &Path, target: &Target, bytes: lock::Bytes) -> Result<(), OpenError> {
    let fault = match lock::take(&target.file, bytes) {
        Ok(true) => return Ok(()),
        Ok(false) => OpenFault::InUse(lock::holder(&target.metadata)),
        Err(error) => OpenFault::System("lock", error),
    };
    Err(OpenFault::of(path)(fault))
}

fn try_ring(queue: &Queue) -> Option<Ring> {
    static SAID: Once = Once::new();
    let ring = Ring::new(queue);
    if let Err(error) = &ring {
        SAID.call_once(|| {
            tracing::warn!(%error, "io_uring is not to be had here, using disk threads");
        });
    }
    ring.ok()
}

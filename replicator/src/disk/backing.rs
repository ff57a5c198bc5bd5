//! Opening a backing disk: which kind of file it is, who else has it, and which engine suits it.
//!
//! The engine follows the file: page cache and memory file systems `pread`/`pwrite`, O_DIRECT
//! io_uring, or disk threads where io_uring is forbidden.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use super::error::{DiskError, OpenError};
use super::file::Pread;
use super::files::{Files, Via};
use super::lock;
use super::target::{Access, PastCache, Target};
use super::uring::Uring;
use super::{Completion, Done, Engine, IoToken, Op};
use crate::buffers::Pool;

/// Whether data goes past the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// On block devices, where possible; files use the page cache, which is faster and gives up
    /// nothing, since a flush is a flush in both.
    #[default]
    Auto,
    /// Always. Refused where the file system has no O_DIRECT; memory file systems need none.
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

/// An open, locked disk with its engine.
pub struct Backing {
    files: Arc<Files>,
    external_meta: bool,
    engine: Box<dyn Engine>,
    engine_name: &'static str,
}

impl Backing {
    /// Opens and locks a disk and its metadata. Reads take their memory from `pool`.
    ///
    /// # Errors
    /// [`OpenError`], which names the file; [`OpenError::InUse`] if another process has it.
    pub fn open(path: &Path, options: &Options, pool: &Pool) -> Result<Self, OpenError> {
        let data = open_data(path, options.direct)?;
        let meta = open_meta(path, &data, options)?;
        match (&options.meta, &meta) {
            (Some(meta_path), Some(meta)) => {
                take_lock(path, &data, lock::Range::Whole)?;
                take_lock(meta_path, meta, lock::Range::Whole)?;
            }
            (_, Some(meta)) => {
                take_lock(path, &data, lock::Range::Data)?;
                take_lock(path, meta, lock::Range::Meta)?;
            }
            (_, None) => take_lock(path, &data, lock::Range::Whole)?,
        }
        let wants_ring = match options.engine {
            EngineChoice::Auto => data.is_direct(),
            EngineChoice::Pread => false,
            EngineChoice::Uring => true,
        };
        let failed = |action, error| OpenError::System { path: path.to_owned(), action, error };
        let files = Files::new(data, meta, pool.clone());
        let files = files.map_err(|e| failed("ask for the size", e.into()))?;
        let files = Arc::new(files);
        let direct = files.target(Via::Data).is_direct();
        let (engine, engine_name): (Box<dyn Engine>, _) = match wants_ring.then(|| try_ring(&files))
        {
            Some(Some(ring)) => (Box::new(ring), "io_uring"),
            _ => {
                let engine = Pread::new(Arc::clone(&files));
                let engine = engine.map_err(|e| failed("start a disk thread", e))?;
                (Box::new(engine), if direct { "threads" } else { "pread" })
            }
        };
        Ok(Self { files, external_meta: options.meta.is_some(), engine, engine_name })
    }

    /// The engine in use: `io_uring`, `pread` (page cache or memory), or `threads` (O_DIRECT
    /// without io_uring).
    pub fn engine_name(&self) -> &'static str {
        self.engine_name
    }

    /// Whether data goes past the page cache.
    pub fn is_direct(&self) -> bool {
        self.files.target(Via::Data).is_direct()
    }

    /// Bytes of the disk, in whole logical blocks, as of opening or [`Self::measure`].
    pub fn size(&self) -> u64 {
        self.files.size(Via::Data)
    }

    /// Bytes of the file that holds the metadata; if internal, the size of the disk.
    pub fn meta_size(&self) -> u64 {
        self.files.size(Via::Meta)
    }

    /// The logical block of data in bytes, 512 or more: no two operations in flight may touch the
    /// same one.
    pub fn logical_block(&self) -> u32 {
        let target = self.files.target(Via::Data);
        target.block().max(512) as u32
    }

    /// Looks again how large the disk is; it may have grown.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn measure(&mut self) -> io::Result<()> {
        Ok(self.files.measure()?)
    }

    /// For `create-md`: gives the metadata its space, extending an external file, and fills it with
    /// real zeros, stable, so that no later write of metadata can find the file system full. Waits
    /// for the disk.
    ///
    /// # Errors
    /// If there is not enough space, or the disk refuses.
    pub fn allocate_meta(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        let op = Op::ZeroMeta { offset, len };
        let meta = self.files.target(Via::Meta);
        // An internal range that does not fit is an error, not a reason to make the disk larger.
        if !self.external_meta {
            self.files.admit(&op)?;
        }
        let range = meta.whole_blocks(offset, len);
        let reserved = meta.reserve(range.start, range.end - range.start);
        reserved.map_err(|cause| op.error(cause))?;
        self.files.measure().map_err(|errno| op.error(errno))?;
        self.perform(&op).map(drop)
    }

    /// Carries out one operation from beginning to end, waiting for the disk: for commands that
    /// have no loop. Nothing may be in flight.
    ///
    /// # Errors
    /// As its completion would tell.
    pub fn perform(&mut self, op: &Op) -> Result<Done, DiskError> {
        assert_eq!(self.engine.in_flight(), 0, "Backing::perform beside operations in flight");
        self.files.admit(op)?;
        self.files.settle(op, self.files.perform(op))
    }
}

#[cfg(test)]
impl Backing {
    pub(super) fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files)
    }
}

impl Engine for Backing {
    fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        self.engine.submit(batch);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.engine.poll(out);
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.engine.wake_fd()
    }

    fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }
}

fn open_data(path: &Path, direct: Direct) -> Result<Target, OpenError> {
    let past_cache = match direct {
        Direct::Auto => PastCache::OnBlockDevices,
        Direct::Yes => PastCache::Always,
        Direct::No => PastCache::No,
    };
    Target::open(path, Access { past_cache, create: false, exclusive: true })
}

/// The description for metadata, past the page cache if possible: `None` if that of the data
/// serves.
fn open_meta(path: &Path, data: &Target, options: &Options) -> Result<Option<Target>, OpenError> {
    let past_cache = PastCache::IfPossible;
    if let Some(path) = &options.meta {
        let access = Access { past_cache, create: options.create_meta, exclusive: true };
        return Target::open(path, access).map(Some);
    }
    // Memory has no past-the-cache, and one O_DIRECT description is as good as two.
    if data.is_direct() || data.is_in_memory() {
        return Ok(None);
    }
    // The description of the data has claimed the device already.
    Target::open(path, Access { past_cache, create: false, exclusive: false }).map(Some)
}

fn take_lock(path: &Path, target: &Target, range: lock::Range) -> Result<(), OpenError> {
    match lock::take(target.file(), range) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let holder = lock::holder(target.metadata());
            Err(OpenError::InUse { path: path.to_owned(), holder })
        }
        Err(error) => Err(OpenError::System { path: path.to_owned(), action: "lock", error }),
    }
}

fn try_ring(files: &Arc<Files>) -> Option<Uring> {
    static SAID: Once = Once::new();
    match Uring::new(Arc::clone(files)) {
        Ok(ring) => Some(ring),
        Err(error) => {
            SAID.call_once(|| {
                tracing::warn!(%error, "io_uring is not to be had here, using disk threads");
            });
            None
        }
    }
}

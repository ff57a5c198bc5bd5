//! The open descriptions of one disk, data and metadata, and how to carry out one operation on
//! them from beginning to end, waiting for the disk. Disk threads do just that; engines use the
//! same rules for what they do themselves.
//!
//! Not here: who runs it, and in which order results are believed (`queue.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bitmap::{Bytes, MetaWrite};
use rustix::io::Errno;

use super::error::{Cause, DiskError};
use super::target::Target;
use super::{Done, Op, limits};
use crate::buffers::Pool;
use crate::digest::Digest;

#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: Target,
    /// `None` if metadata goes through the description of the data: internal, and O_DIRECT.
    meta: Option<Target>,
    pub(super) pool: Pool,
    /// IO-4: something durable failed. Never reset.
    flush_failed: AtomicBool,
    /// Held while metadata smaller than a block is merged into its block. Data has no such lock:
    /// the range locks of the node round to blocks. Neighbouring sectors of metadata are
    /// independent units that may be written at the same time.
    merging: Mutex<()>,
}

impl Files {
    pub(super) fn new(data: Target, meta: Option<Target>, pool: Pool) -> Result<Self, Errno> {
        let files = Self {
            data,
            meta,
            pool,
            flush_failed: AtomicBool::new(false),
            merging: Mutex::new(()),
        };
        files.measure()?;
        Ok(files)
    }

    /// Looks how large the disk and the file of the metadata are now.
    pub(super) fn measure(&self) -> Result<(), Errno> {
        self.data.measure()?;
        self.meta.iter().try_for_each(Target::measure)
    }

    pub(super) fn meta(&self) -> &Target {
        self.meta.as_ref().unwrap_or(&self.data)
    }

    /// The description an operation goes through, hence the others with which it shares the
    /// kernel's report of write-back errors.
    pub(super) fn target(&self, op: &Op) -> &Target {
        if op.is_meta() { self.meta() } else { &self.data }
    }

    /// Whether an operation may start: inside the disk, and not durable after IO-4.
    pub(super) fn admit(&self, op: &Op) -> Result<(), DiskError> {
        op.check_length();
        let size = self.target(op).size();
        let (offset, len) = op.range();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(op.error(Cause::OutOfRange { size }));
        }
        if op.is_durable() && self.flush_failed.load(Ordering::Relaxed) {
            return Err(op.error(Cause::FlushFailedBefore));
        }
        Ok(())
    }

    /// IO-4: whether a result can be believed, given what is known by now. Every result passes
    /// here, on the owner's thread, before it is reported.
    pub(super) fn settle(
        &self,
        op: &Op,
        result: Result<Done, DiskError>,
    ) -> Result<Done, DiskError> {
        if !op.is_durable() {
            return result;
        }
        match result {
            Ok(_) if self.flush_failed.load(Ordering::Relaxed) => {
                Err(op.error(Cause::FlushFailedBefore))
            }
            Err(error) if matches!(error.cause, Cause::Os(_)) => {
                self.flush_failed.store(true, Ordering::Relaxed);
                Err(error)
            }
            other => other,
        }
    }

    /// Carries out an admitted operation. Waits for the disk.
    pub(super) fn perform(&self, op: &Op) -> Result<Done, DiskError> {
        let target = self.target(op);
        let done = match op {
            Op::Read { offset, len, detect_zero } => self.read(target, *offset, *len, *detect_zero),
            Op::Digest { offset, len, block } => self.digest(target, *offset, *len, *block),
            Op::ReadMeta { offset, len } => self.read(target, *offset, *len, false),
            Op::Write { offset, buffer, fua } => {
                finished(target.write(*offset, buffer.as_ref(), *fua, &self.pool))
            }
            Op::Zero { offset, len, fua, may_unmap } => {
                let zeroed = target.zero(*offset, *len, *may_unmap, &self.pool);
                finished(zeroed.and_then(|()| if *fua { target.flush() } else { Ok(()) }))
            }
            Op::Flush => finished(target.flush()),
            Op::WriteMeta(write) => finished(self.write_meta(target, write)),
        };
        done.map_err(|cause| op.error(cause))
    }

    fn read(&self, target: &Target, offset: u64, len: u32, detect: bool) -> Result<Done, Cause> {
        if detect && target.is_hole(offset, len.into()) {
            return Ok(Done::Zeros(len));
        }
        let range = target.whole_blocks(offset, len.into());
        let mut buffer = self.pool.take((range.end - range.start) as usize);
        target.read(range.start, buffer.as_mut())?;
        let head = (offset - range.start) as usize;
        let bytes = buffer.freeze().slice(head..head + len as usize);
        if detect && is_zero(bytes.as_ref()) {
            return Ok(Done::Zeros(len));
        }
        Ok(Done::Read(bytes))
    }

    fn digest(&self, target: &Target, offset: u64, len: u32, block: u32) -> Result<Done, Cause> {
        if target.is_hole(offset, len.into()) {
            // Of a new disk that is most: neither read nor hashed for each block.
            let zeros = vec![0; block as usize];
            let mut digests = vec![Digest::of(&zeros); (len / block) as usize];
            let rest = (len % block) as usize;
            digests.extend((rest > 0).then(|| Digest::of(&zeros[..rest])));
            return Ok(Done::Digests(digests));
        }
        let range = target.whole_blocks(offset, len.into());
        let mut buffer = self.pool.take((range.end - range.start) as usize);
        target.read_once(range.start, buffer.as_mut())?;
        let bytes = &buffer[(offset - range.start) as usize..][..len as usize];
        Ok(Done::Digests(bytes.chunks(block as usize).map(Digest::of).collect()))
    }

    fn write_meta(&self, target: &Target, write: &MetaWrite) -> Result<(), Cause> {
        let merging = || self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = write.offset;
        match &write.bytes {
            Bytes::Data(bytes) => {
                let aligned = self.pool.copy_of(bytes);
                let _merging = (!target.takes(offset, aligned.as_ref())).then(merging);
                target.write(offset, aligned.as_ref(), true, &self.pool)
            }
            Bytes::Zeros(len) => {
                let _merging = merging();
                if *len < limits::ZEROED_BY_CALL {
                    target.write_zeros(offset, *len, &self.pool)?;
                } else {
                    target.zero(offset, *len, false, &self.pool)?;
                }
                target.flush()
            }
        }
    }
}

fn finished(result: Result<(), Cause>) -> Result<Done, Cause> {
    result.map(|()| Done::Finished)
}

fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

//! The engine for the page cache and for memory file systems: `pread` and `pwrite`, on the owner's
//! thread where they cannot stall, on disk threads else. Also the engine for O_DIRECT where
//! io_uring is forbidden: then everything goes to the threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::files::Files;
use super::queue::Queue;
use super::target::Target;
use super::threads::Job;
use super::{Completion, DiskError, Done, Engine, IoToken, Op, limits};

/// A page of the page cache: a write of whole ones has nothing to read first.
const PAGE: u64 = 4096;

#[derive(Debug)]
pub(super) struct Pread {
    queue: Queue,
    /// Until the file system says that it has no RWF_NOWAIT for writes.
    ask_before_writing: bool,
    /// Bytes written since the last flush, as far as the page cache may still hold them.
    dirty: u64,
    /// Of them, those from before the flush that runs; they are clean when none runs any more.
    covered: u64,
}

impl Pread {
    pub(super) fn new(files: Arc<Files>) -> io::Result<Self> {
        let queue = Queue::new(files)?;
        Ok(Self { queue, ask_before_writing: true, dirty: 0, covered: 0 })
    }

    fn start(&mut self, job: Job, budget: &mut u64) {
        let (_, len) = job.op.range();
        match &job.op {
            Op::Flush if self.queue.flushing() == 1 => self.covered = self.dirty,
            Op::Write { .. } | Op::Zero { .. } => self.dirty += len,
            _ => {}
        }
        let done = if len <= *budget { self.try_at_once(&job) } else { None };
        match done {
            Some(result) => {
                *budget -= len;
                self.queue.finish(job, result);
            }
            None => self.queue.to_threads(job),
        }
    }

    /// `None` if that could make the thread wait. A read or write that failed is left to a disk
    /// thread as well, which does the whole of it again and finds out why.
    fn try_at_once(&mut self, job: &Job) -> Option<Result<Done, DiskError>> {
        let files = Arc::clone(&self.queue.files);
        let target = files.target(files.via(&job.op));
        if target.is_in_memory() {
            // Nothing to wait for here, not even in fdatasync, which has nothing to do.
            return Some(files.perform(&job.op));
        }
        if target.is_direct() {
            return None;
        }
        match &job.op {
            Op::Read { offset, len, detect_zero: false } => {
                let mut buffer = files.pool().take(*len as usize);
                target.read_now(*offset, buffer.as_mut())?;
                Some(Ok(Done::Read(buffer.freeze())))
            }
            Op::Write { offset, buffer, fua: false } => {
                self.try_write(target, *offset, buffer.as_ref()).then_some(Ok(Done::Finished))
            }
            _ => None,
        }
    }

    fn try_write(&mut self, target: &Target, offset: u64, bytes: &[u8]) -> bool {
        if self.ask_before_writing {
            match target.write_now(offset, bytes) {
                Ok(written) => return written,
                Err(_) => self.ask_before_writing = false,
            }
        }
        // Not while a flush runs: it may hold the journal or the pages this needs.
        target.absorbs_writes()
            && self.queue.flushing() == 0
            && self.dirty <= limits::INLINE_DIRTY
            && offset.is_multiple_of(PAGE)
            && (bytes.len() as u64).is_multiple_of(PAGE)
            && target.write_blocks(offset, bytes, false).is_ok()
    }
}

impl Engine for Pread {
    fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        let mut budget = limits::INLINE_BYTES;
        for (token, op) in batch.drain(..batch.len().min(self.queue.room())) {
            if let Some(job) = self.queue.admit(token, op) {
                self.start(job, &mut budget);
            }
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.queue.poll(out);
        if self.queue.flushing() == 0 {
            self.dirty -= std::mem::take(&mut self.covered);
        }
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.queue.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

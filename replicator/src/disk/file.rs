//! The engine for the page cache and for memory file systems: `pread` and `pwrite`, on the owner's
//! thread where they cannot stall, on disk threads else. Also the engine for O_DIRECT where
//! io_uring is forbidden: then everything goes to the threads.
//!
//! A write into the page cache goes to a thread as well, though it mostly just copies: it waits
//! while the file system is frozen for a snapshot, and for a journal commit when it must change the
//! time stamp, which on a hung disk is for ever. Then the owner must still be there to notice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::files::Files;
use super::queue::Queue;
use super::{Completion, DiskError, Done, Engine, IoToken, Op, limits};

#[derive(Debug)]
pub(super) struct Pread {
    queue: Queue,
}

impl Pread {
    pub(super) fn new(files: Arc<Files>) -> io::Result<Self> {
        Ok(Self { queue: Queue::new(files)? })
    }
}

/// `None` if that could make the thread wait.
fn try_at_once(files: &Files, op: &Op) -> Option<Result<Done, DiskError>> {
    let target = files.target(files.via(op));
    if target.is_in_memory() {
        // Nothing to wait for here, not even in fdatasync, which has nothing to do.
        return Some(files.perform(op));
    }
    match op {
        Op::Read { offset, len, detect_zero: false } if !target.is_direct() => {
            let mut buffer = files.pool().take(*len as usize);
            target.read_now(*offset, buffer.as_mut())?;
            Some(Ok(Done::Read(buffer.freeze())))
        }
        _ => None,
    }
}

impl Engine for Pread {
    fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        let mut budget = limits::INLINE_BYTES;
        for (token, op) in batch.drain(..batch.len().min(self.queue.room())) {
            let Some(job) = self.queue.admit(token, op) else { continue };
            let (_, len) = job.op.range();
            let at_once =
                if len <= budget { try_at_once(&self.queue.files, &job.op) } else { None };
            match at_once {
                Some(result) => {
                    budget -= len;
                    self.queue.finish(job, result);
                }
                None => self.queue.to_threads(job),
            }
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.queue.poll(out);
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.queue.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

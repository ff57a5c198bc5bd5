//! The engine over files: each operation goes the way on which it cannot make the owner's thread wait.
//!
//! - O_DIRECT: the ring; without one (io_uring is forbidden in most containers) the disk threads.
//! - Memory file systems: at once; there is nothing to wait for, not even in fdatasync.
//! - The page cache: reads of what is cached at once, everything else on disk threads. A write goes
//!   to a thread as well, though it mostly just copies: it waits while the file system is frozen for
//!   a snapshot, and for a journal commit when it must change the time stamp, which on a hung disk
//!   is for ever. Then the owner must still be there to notice.

use std::os::fd::{AsFd, BorrowedFd};

use super::backing::Backing;
use super::files::Files;
use super::{Completion, DiskError, Done, Engine, IoToken, Op, limits};

impl Engine for Backing {
    fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        let mut budget = limits::INLINE_BYTES;
        for (token, op) in batch.drain(..batch.len().min(self.queue.room())) {
            let Some(job) = self.queue.admit(token, op) else { continue };
            if let Some(ring) = &mut self.ring {
                if let Err(job) = ring.start(job, &self.queue) {
                    self.queue.to_threads(job);
                }
                continue;
            }
            let (_, len) = job.op.range();
            let now = if len <= budget { try_at_once(&self.queue.files, &job.op) } else { None };
            match now {
                Some(result) => {
                    budget -= len;
                    self.queue.finish(job, result);
                }
                None => self.queue.to_threads(job),
            }
        }
        if let Some(ring) = &mut self.ring {
            ring.hand_over(&self.queue);
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        if let Some(ring) = &mut self.ring {
            ring.poll(&mut self.queue);
        }
        self.queue.poll(out);
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.queue.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

/// `None` if that could make the thread wait.
fn try_at_once(files: &Files, op: &Op) -> Option<Result<Done, DiskError>> {
    let target = files.target(op);
    if target.is_in_memory() {
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

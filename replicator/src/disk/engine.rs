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
use super::{Completion, DiskError, Done, IoToken, Op, limits};

/// All calls come from the owner's thread and none waits for a disk (memory file systems excepted).
impl Backing {
    /// Starts operations, in order, taking them out of `batch`. At most [`limits::IN_FLIGHT`] are
    /// held at a time, counted from submission to poll; those that do not fit stay in `batch`, to
    /// be submitted after a poll has returned something.
    pub fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        let mut budget = limits::INLINE_BYTES;
        for (token, op) in batch.drain(..batch.len().min(self.queue.room())) {
            let Some(job) = self.queue.admit(token, op) else { continue };
            if let Some(ring) = &mut self.ring {
                if let Err(job) = ring.start(job, &self.queue) {
                    self.queue.defer(job);
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
                None => self.queue.defer(job),
            }
        }
        if let Some(ring) = &mut self.ring {
            ring.hand_over(&self.queue);
        }
        self.queue.hand_over();
    }

    /// Appends to `out` all completions there are, without waiting. Completions may be ready as
    /// soon as `submit` returns, and those wake nobody: poll once between submitting and sleeping.
    pub fn poll(&mut self, out: &mut Vec<Completion>) {
        if let Some(ring) = &mut self.ring {
            ring.poll(&mut self.queue);
        }
        self.queue.hand_over();
        self.queue.poll(out);
    }

    /// An eventfd that is written to when completions come later. Watch it edge-triggered
    /// (tokio's `AsyncFd` does): nobody reads it. Clear the readiness first, then poll.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.queue.wake.0.as_fd()
    }

    /// Operations submitted whose completions have not been polled.
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight
    }
}

/// `None` if that could make the thread wait.
fn try_at_once(files: &Files, op: &Op) -> Option<Result<Done, DiskError>> {
    let target = files.target(op);
    // Hashing is work for another core.
    if target.in_memory && !matches!(op, Op::Digest { .. }) {
        return Some(files.perform(op));
    }
    match op {
        Op::Read { offset, len, detect_zero: false } if !target.direct => {
            let mut buffer = files.pool.take(*len as usize);
            target.read_now(*offset, buffer.as_mut())?;
            Some(Ok(Done::Read(buffer.freeze())))
        }
        _ => None,
    }
}

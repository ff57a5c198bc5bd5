//! The way for O_DIRECT: one io_uring. Reads, aligned writes, flushes and aligned metadata go
//! through the ring; what takes several steps (read-modify-write, zeroing, looking for holes), and
//! what the kernel did only in part, is done by the disk threads.
//!
//! The ring orders nothing, and nothing is linked: the owner submits a flush after it has polled
//! the writes that it covers.

use std::io;
use std::os::fd::AsRawFd;

use bitmap::{Bytes, MetaWrite};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::Errno;
use slab::Slab;

use super::files::Files;
use super::queue::Queue;
use super::threads::Job;
use super::{DiskError, Done, Op, limits};
use crate::buffers::BufferMut;

pub(super) struct Ring {
    ring: IoUring,
    /// What the kernel works on. The index is the user data of the request.
    flights: Slab<Flight>,
}

/// A request in the kernel. It keeps alive the memory the kernel uses.
#[derive(Debug)]
struct Flight {
    job: Job,
    /// Where a read goes, or the aligned copy of metadata to write.
    buffer: Option<BufferMut>,
    /// Bytes that make it complete.
    wanted: u64,
}

impl Ring {
    /// Fails where io_uring is missing, forbidden (containers) or too old; then use the disk threads.
    pub(super) fn new(queue: &Queue) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize((limits::IN_FLIGHT as u32).next_power_of_two())
            .dontfork()
            .build(limits::RING_ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        if !ring.params().is_feature_nodrop() || !needed.iter().all(|&c| probe.is_supported(c)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_eventfd(queue.wake.0.as_raw_fd())?;
        Ok(Self { ring, flights: Slab::new() })
    }

    /// Gives the job back if the ring cannot do it in one step.
    pub(super) fn start(&mut self, job: Job, queue: &Queue) -> Result<(), Job> {
        let files = &queue.files;
        let target = files.target(&job.op);
        let fd = types::Fd(target.file.as_raw_fd());
        let write = |offset: u64, bytes: &[u8], durable: bool| {
            let entry = opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32).offset(offset);
            entry.rw_flags(if durable { libc::RWF_DSYNC } else { 0 }).build()
        };
        let (entry, buffer, wanted) = match &job.op {
            Op::Read { offset, len, detect_zero: false } | Op::ReadMeta { offset, len } => {
                let range = target.whole_blocks(*offset, u64::from(*len));
                let whole = (range.end - range.start) as u32;
                let mut buffer = files.pool.take(whole as usize);
                let into = buffer.as_mut().as_mut_ptr();
                let entry = opcode::Read::new(fd, into, whole).offset(range.start).build();
                (entry, Some(buffer), u64::from(whole))
            }
            Op::Write { offset, buffer, fua }
                if target.takes(*offset, buffer.as_ref()) && (!fua || target.dsync) =>
            {
                (write(*offset, buffer.as_ref(), *fua), None, buffer.len() as u64)
            }
            Op::WriteMeta(MetaWrite { offset, bytes: Bytes::Data(bytes) }) if target.dsync => {
                let mut copy = files.pool.take(bytes.len());
                copy.as_mut().copy_from_slice(bytes);
                if !target.takes(*offset, copy.as_ref()) {
                    return Err(job);
                }
                (write(*offset, copy.as_ref(), true), Some(copy), bytes.len() as u64)
            }
            Op::Flush => {
                let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
                (entry, None, 0)
            }
            _ => return Err(job),
        };
        let apart =
            if target.blocks_submitter { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        let entry = entry.flags(apart);
        let slot = self.flights.insert(Flight { job, buffer, wanted });
        let pushed = self.push(&entry.user_data(slot as u64), queue);
        if pushed { Ok(()) } else { Err(self.flights.remove(slot).job) }
    }

    /// `false` if the kernel takes nothing at present.
    fn push(&mut self, entry: &squeue::Entry, queue: &Queue) -> bool {
        if self.ring.submission().is_full() {
            self.hand_over(queue);
        }
        // SAFETY: the memory the entry points to belongs to the flight in its slot, which stays
        // there, neither moved in memory nor freed, until the kernel has completed the request
        // (`land`), or for ever (`drop`). A buffer read into has no other owner; a buffer written
        // from does not change. The descriptor is open as long as the files, which the queue beside
        // this ring holds.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Hands the entries over to the kernel. It may refuse for want of memory: `poll` tries again.
    pub(super) fn hand_over(&mut self, queue: &Queue) {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        queue.wake.signal();
                        return;
                    }
                    // What was queued can neither be done nor taken back: let the peer take over.
                    _ => panic!("io_uring_enter failed on a ring that worked: {error}"),
                },
            }
        }
    }

    /// Takes what the kernel has completed.
    pub(super) fn poll(&mut self, queue: &mut Queue) {
        self.hand_over(queue);
        while let Some(entry) = { self.ring.completion().next() } {
            self.land(entry.user_data(), entry.result(), queue);
        }
    }

    fn land(&mut self, slot: u64, result: i32, queue: &mut Queue) {
        // The kernel completes a request once: else there is nothing to remove, which is a panic.
        let Flight { job, buffer, wanted } = self.flights.remove(slot as usize);
        let result = match u64::try_from(result) {
            Ok(done) if done == wanted => Ok(done_with(&job.op, buffer, &queue.files)),
            // In part only, which may mean the end of the file, or little memory, or not at all
            // for a passing reason: a thread does the whole again and finds out.
            Ok(_) => return queue.defer(job),
            Err(_) => match Errno::from_raw_os_error(-result) {
                // Never a flush: it must not be tried twice (IO-4). A write is written again whole.
                Errno::AGAIN | Errno::INTR if !matches!(job.op, Op::Flush) => {
                    return queue.defer(job);
                }
                errno => Err::<Done, DiskError>(job.op.error(errno)),
            },
        };
        queue.finish(job, result);
    }
}

fn done_with(op: &Op, buffer: Option<BufferMut>, files: &Files) -> Done {
    match (op, buffer) {
        (Op::Read { offset, len, .. } | Op::ReadMeta { offset, len }, Some(buffer)) => {
            let first = files.target(op).whole_blocks(*offset, u64::from(*len)).start;
            let head = (offset - first) as usize;
            Done::Read(buffer.freeze().slice(head..head + *len as usize))
        }
        _ => Done::Finished,
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still read and write this memory, after the ring is closed too. Waiting
        // for it could take for ever, so it is never given back.
        let in_kernel = std::mem::take(&mut self.flights);
        if !in_kernel.is_empty() {
            tracing::warn!(requests = in_kernel.len(), "disk closed with requests in flight");
        }
        std::mem::forget(in_kernel);
    }
}

//! The engine for O_DIRECT: one io_uring. Reads, aligned writes, flushes and aligned metadata go
//! through the ring; what takes several steps (read-modify-write, zeroing, looking for holes), and
//! what the kernel did only in part, is done by the disk threads.
//!
//! The ring orders nothing, and nothing is linked: the owner submits a flush after it has polled
//! the writes that it covers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::Errno;

use super::files::Files;
use super::queue::Queue;
use super::threads::Job;
use super::{Completion, DiskError, Done, Engine, IoToken, Op, limits};
use crate::buffers::BufferMut;

pub(super) struct Uring {
    ring: IoUring,
    queue: Queue,
    /// What the kernel works on. The index is the user data of the request.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    // Kept for its memory.
    landed: Vec<(u64, i32)>,
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

impl Uring {
    /// Fails where io_uring is missing, forbidden (containers) or too old; then use `Pread`.
    pub(super) fn new(files: Arc<Files>) -> io::Result<Self> {
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
        let queue = Queue::new(files)?;
        ring.submitter().register_eventfd(queue.wake.as_fd().as_raw_fd())?;
        Ok(Self { ring, queue, flights: Vec::new(), free: Vec::new(), landed: Vec::new() })
    }

    fn start(&mut self, job: Job) {
        if let Err(job) = self.try_ring(job) {
            self.queue.to_threads(job);
        }
    }

    /// Gives the job back if the ring cannot do it in one step.
    fn try_ring(&mut self, job: Job) -> Result<(), Job> {
        let files = Arc::clone(&self.queue.files);
        let target = files.target(files.via(&job.op));
        let fd = types::Fd(target.as_fd().as_raw_fd());
        let sync = |durable: bool| if durable { libc::RWF_DSYNC } else { 0 };
        let (entry, buffer, wanted) = match &job.op {
            Op::Read { offset, len, detect_zero: false } | Op::ReadMeta { offset, len } => {
                let range = target.whole_blocks(*offset, u64::from(*len));
                let whole = (range.end - range.start) as u32;
                let mut buffer = files.pool().take(whole as usize);
                let into = buffer.as_mut().as_mut_ptr();
                let entry = opcode::Read::new(fd, into, whole).offset(range.start).build();
                (entry, Some(buffer), u64::from(whole))
            }
            Op::Write { offset, buffer, fua }
                if target.takes(*offset, buffer.as_ref()) && (!fua || target.has_dsync()) =>
            {
                let bytes = buffer.as_ref();
                let entry = opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32)
                    .offset(*offset)
                    .rw_flags(sync(*fua))
                    .build();
                (entry, None, bytes.len() as u64)
            }
            Op::WriteMeta { offset, bytes } if target.has_dsync() => {
                let mut copy = files.pool().take(bytes.len());
                copy.as_mut().copy_from_slice(bytes);
                if !target.takes(*offset, copy.as_ref()) {
                    return Err(job);
                }
                let entry = opcode::Write::new(fd, copy.as_ref().as_ptr(), bytes.len() as u32)
                    .offset(*offset)
                    .rw_flags(sync(true))
                    .build();
                (entry, Some(copy), bytes.len() as u64)
            }
            Op::Flush => {
                let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
                (entry, None, 0)
            }
            _ => return Err(job),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.flights[slot] = Some(Flight { job, buffer, wanted });
        if !self.push(&entry.user_data(slot as u64)) {
            self.free.push(slot);
            let flight = self.flights[slot].take().expect("put there above");
            return Err(flight.job);
        }
        Ok(())
    }

    /// `false` if the kernel takes nothing at present.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        if self.ring.submission().is_full() {
            self.hand_over();
        }
        // SAFETY: the memory the entry points to belongs to the flight in its slot, which stays
        // there, neither moved in memory nor freed, until the kernel has completed the request
        // (`land`), or for ever (`drop`). A buffer read into has no other owner; a buffer written
        // from does not change. The descriptor is open as long as the files, which the queue holds.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Hands the entries over to the kernel. It may refuse for want of memory: `poll` tries again.
    fn hand_over(&mut self) {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        self.queue.wake.signal();
                        return;
                    }
                    // What was queued can neither be done nor taken back: let the peer take over.
                    _ => panic!("io_uring_enter failed on a ring that worked: {error}"),
                },
            }
        }
    }

    /// The kernel has completed a request.
    fn land(&mut self, slot: u64, result: i32) {
        let slot = slot as usize;
        let flight = self.flights[slot].take().expect("the kernel completes a request once");
        self.free.push(slot);
        let Flight { job, buffer, wanted } = flight;
        let result = match u64::try_from(result) {
            Ok(done) if done == wanted => Ok(done_with(&job.op, buffer, &self.queue.files)),
            // In part only, which may mean the end of the file, or little memory, or not at all
            // for a passing reason: a thread does the whole again and finds out.
            Ok(_) => return self.queue.to_threads(job),
            Err(_) => match Errno::from_raw_os_error(-result) {
                // Never a flush: it must not be tried twice (IO-4). A write is written again whole.
                Errno::AGAIN | Errno::INTR if !matches!(job.op, Op::Flush) => {
                    return self.queue.to_threads(job);
                }
                errno => Err::<Done, DiskError>(job.op.error(errno)),
            },
        };
        self.queue.finish(job, result);
    }
}

fn done_with(op: &Op, buffer: Option<BufferMut>, files: &Files) -> Done {
    match (op, buffer) {
        (Op::Read { offset, len, .. } | Op::ReadMeta { offset, len }, Some(buffer)) => {
            let first = files.target(files.via(op)).whole_blocks(*offset, u64::from(*len)).start;
            let head = (offset - first) as usize;
            Done::Read(buffer.freeze().slice(head..head + *len as usize))
        }
        _ => Done::Finished,
    }
}

impl Engine for Uring {
    fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        for (token, op) in batch.drain(..batch.len().min(self.queue.room())) {
            if let Some(job) = self.queue.admit(token, op) {
                self.start(job);
            }
        }
        self.hand_over();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.hand_over();
        let mut landed = std::mem::take(&mut self.landed);
        landed.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (slot, result) in landed.drain(..) {
            self.land(slot, result);
        }
        self.landed = landed;
        self.queue.poll(out);
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.queue.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still read and write this memory, after the ring is closed too. Waiting
        // for it could take for ever, so it is never given back.
        let in_kernel: Vec<Flight> = self.flights.drain(..).flatten().collect();
        if !in_kernel.is_empty() {
            tracing::warn!(requests = in_kernel.len(), "disk closed with requests in flight");
        }
        std::mem::forget(in_kernel);
    }
}

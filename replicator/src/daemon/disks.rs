//! The engines of all volumes, as the node sees them: its operations in, its completions out. What
//! one operation of the node is to an engine may be several (metadata), joined again here.

use super::buffer_table::BufferTable;
use crate::disk::{Backing, Completion, Done, IoToken, Op};
use crate::node::{BufferId, DiskDone, DiskError, DiskOp, Event, IoId, VolumeNumber};
use slab::Slab;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Default)]
pub(super) struct Disks {
    disks: BTreeMap<VolumeNumber, Disk>,
    /// What the engines were asked; the index is the token.
    flights: Slab<Flight>,
    gathers: Slab<Gather>,
    completions: Vec<Completion>,
}

struct Disk {
    backing: Backing,
    /// A duplicate of the engine's descriptor that tells of later completions.
    wake: AsyncFd<OwnedFd>,
    /// Not taken by the engine yet.
    batch: Vec<(IoToken, Op)>,
}

impl Disk {
    fn pending(&self) -> usize {
        self.batch.len() + self.backing.in_flight()
    }
}

/// What an operation of an engine is to the node.
#[derive(Debug)]
enum Flight {
    /// An operation; a read fills this buffer.
    Whole(IoId, Option<BufferId>),
    /// Of this `Gather`, the part with this index.
    Part(usize, usize),
}

/// An operation in parts: done when all of them are.
struct Gather {
    io: IoId,
    left: usize,
    failed: bool,
    /// What the parts of a `ReadMeta` brought, in their order.
    read: Option<Vec<Result<Vec<u8>, ()>>>,
}

impl Disks {
    pub(super) fn open(&mut self, volume: VolumeNumber, backing: Backing) -> io::Result<()> {
        tracing::info!(
            volume,
            engine = backing.engine_name(),
            direct = backing.is_direct(),
            "disk"
        );
        let duplicate = backing.wake_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped.
        let wake = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE)? };
        let before = self.disks.insert(volume, Disk { backing, wake, batch: Vec::new() });
        assert!(before.is_none(), "volume {volume} has a disk already");
        Ok(())
    }

    pub(super) fn close(&mut self, volume: VolumeNumber) {
        assert_eq!(self.pending(volume), 0, "a disk is closed when all has ended");
        self.disks.remove(&volume);
    }

    pub(super) fn engine_name(&self, volume: VolumeNumber) -> Option<&'static str> {
        self.disks.get(&volume).map(|disk| disk.backing.engine_name())
    }

    /// Operations under way on one volume.
    pub(super) fn pending(&self, volume: VolumeNumber) -> usize {
        self.disks.get(&volume).map_or(0, Disk::pending)
    }

    /// Is anything under way?
    pub(super) fn busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Puts an operation into the batch of its volume.
    pub(super) fn add(&mut self, io: IoId, volume: VolumeNumber, op: DiskOp, table: &BufferTable) {
        let (op, into) = match op {
            DiskOp::Read { range, into, detect_zero } => {
                let len = range.len().try_into();
                let len = len.expect("the node reads in pieces of at most Limits::piece_bytes");
                (Op::Read { offset: range.start, len, detect_zero }, Some(into))
            }
            DiskOp::Digest { range, block } => {
                let len = range.len().try_into().expect("a piece of a resync");
                (Op::Digest { offset: range.start, len, block }, None)
            }
            DiskOp::Write { range, buffer, fua } => {
                let buffer = table.take(buffer);
                assert_eq!(buffer.len() as u64, range.len(), "a write of {range:?}");
                (Op::Write { offset: range.start, buffer, fua }, None)
            }
            DiskOp::Zero { range, unmap, fua } => {
                let (offset, len) = (range.start, range.len());
                (Op::Zero { offset, len, fua, may_unmap: unmap }, None)
            }
            DiskOp::Flush => (Op::Flush, None),
            DiskOp::ReadMeta(ranges) => {
                let ops = ranges.into_iter().map(|(offset, len)| Op::ReadMeta { offset, len });
                return self.add_parts(io, volume, ops, true);
            }
            DiskOp::WriteMeta(writes) => {
                return self.add_parts(io, volume, writes.into_iter().map(Op::WriteMeta), false);
            }
        };
        self.start(volume, Flight::Whole(io, into), op);
    }

    fn add_parts(
        &mut self,
        io: IoId,
        volume: VolumeNumber,
        ops: impl ExactSizeIterator<Item = Op>,
        reads: bool,
    ) {
        let left = ops.len();
        assert!(left > 0, "a metadata operation of no parts");
        let read = reads.then(|| vec![Err(()); left]);
        let gather = self.gathers.insert(Gather { io, left, failed: false, read });
        for (part, op) in ops.enumerate() {
            self.start(volume, Flight::Part(gather, part), op);
        }
    }

    fn start(&mut self, volume: VolumeNumber, flight: Flight, op: Op) {
        let disk = self.disks.get_mut(&volume).expect("the node uses only disks that are open");
        disk.batch.push((self.flights.insert(flight) as IoToken, op));
    }

    /// Hands all batches to the engines.
    pub(super) fn submit(&mut self) {
        for disk in self.disks.values_mut() {
            if !disk.batch.is_empty() {
                disk.backing.submit(&mut disk.batch);
            }
        }
    }

    /// Takes what has ended. Reads bind their buffers.
    pub(super) fn poll(&mut self, table: &mut BufferTable, out: &mut Vec<Event>) {
        let mut completions = std::mem::take(&mut self.completions);
        for disk in self.disks.values_mut() {
            disk.backing.poll(&mut completions);
        }
        for completion in completions.drain(..) {
            out.extend(self.finish(completion, table));
        }
        self.completions = completions;
    }

    fn finish(&mut self, completion: Completion, table: &mut BufferTable) -> Option<Event> {
        let result = completion.result.map_err(|error| tracing::error!("{error}"));
        // An engine completes an operation once: else there is nothing to remove, which is a panic.
        let (io, into) = match self.flights.remove(completion.token as usize) {
            Flight::Whole(io, into) => (io, into),
            Flight::Part(gather, part) => return self.finish_part(gather, part, result),
        };
        let result = match (result, into) {
            (Err(()), _) => Err(DiskError),
            (Ok(Done::Finished), None) => Ok(DiskDone::Ok),
            (Ok(Done::Digests(digests)), None) => Ok(DiskDone::Digests(digests)),
            (Ok(Done::Zeros(_)), Some(_)) => Ok(DiskDone::Zero),
            (Ok(Done::Read(buffer)), Some(into)) => {
                table.bind(into, buffer);
                Ok(DiskDone::Ok)
            }
            (Ok(done), into) => unreachable!("{io:?} (read into {into:?}) ended with {done:?}"),
        };
        Some(Event::Disk(io, result))
    }

    fn finish_part(&mut self, at: usize, part: usize, result: Result<Done, ()>) -> Option<Event> {
        let gather = &mut self.gathers[at];
        gather.left -= 1;
        gather.failed |= result.is_err();
        if let (Some(read), Ok(Done::Read(buffer))) = (&mut gather.read, &result) {
            read[part] = Ok(buffer.as_ref().to_vec());
        }
        if gather.left > 0 {
            return None;
        }
        let gather = self.gathers.remove(at);
        let result = match gather.read {
            // Each range tells for itself: the other copy may be good.
            Some(read) => Ok(DiskDone::Meta(read)),
            None if gather.failed => Err(DiskError),
            None => Ok(DiskDone::Ok),
        };
        Some(Event::Disk(gather.io, result))
    }

    /// Ready when an engine has something to poll that came after `submit`. Engines that have not
    /// taken all of their batch have operations in flight, so this tells of them too.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ready = Poll::Pending;
        for disk in self.disks.values() {
            // Until it is pending: only then is the task woken by the next edge.
            while let Poll::Ready(guard) = disk.wake.poll_read_ready(cx) {
                guard.expect("the driver outlives the owner").clear_ready();
                ready = Poll::Ready(());
            }
        }
        ready
    }
}

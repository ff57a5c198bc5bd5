//! The engines of all volumes, as the node sees them: its operations in, its completions out. What
//! one operation of the node is to an engine may be several (metadata), joined again here.

use super::buffer_table::BufferTable;
use super::ids::IdMap;
use crate::disk::{Backing, Completion, Done, Engine, IoToken, Op};
use crate::node::{BufferId, DiskDone, DiskError, DiskOp, IoId, VolumeNumber};
use bitmap::{Bytes, MetaWrite};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Set in tokens that name a part of a `Gather`; else the token is the `IoId`.
const PART: u64 = 1 << 63;
/// Bits of the index of the part.
const PART_BITS: u32 = 32;

pub(super) type Finished = (IoId, Result<DiskDone, DiskError>);

#[derive(Default)]
pub(super) struct Disks {
    disks: Vec<Disk>,
    /// Reads under way, and the names of their buffers.
    reads: IdMap<IoId, BufferId>,
    /// Operations of several parts, by their number in the token.
    gathers: IdMap<u64, Gather>,
    last_gather: u64,
    completions: Vec<Completion>,
}

struct Disk {
    volume: VolumeNumber,
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
        assert!(self.find(volume).is_none(), "volume {volume} has a disk already");
        tracing::info!(
            volume,
            engine = backing.engine_name(),
            direct = backing.is_direct(),
            "disk"
        );
        let duplicate = backing.wake_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped.
        let wake = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE)? };
        self.disks.push(Disk { volume, backing, wake, batch: Vec::new() });
        Ok(())
    }

    pub(super) fn close(&mut self, volume: VolumeNumber) {
        let disk = self.find(volume).map(|d| self.disks.swap_remove(d));
        assert_eq!(disk.map_or(0, |disk| disk.pending()), 0, "a disk is closed when all has ended");
    }

    pub(super) fn engine_name(&self, volume: VolumeNumber) -> Option<&'static str> {
        self.find(volume).map(|d| self.disks[d].backing.engine_name())
    }

    /// Operations under way on one volume.
    pub(super) fn pending(&self, volume: VolumeNumber) -> usize {
        self.find(volume).map_or(0, |d| self.disks[d].pending())
    }

    fn find(&self, volume: VolumeNumber) -> Option<usize> {
        self.disks.iter().position(|disk| disk.volume == volume)
    }

    /// Puts an operation into the batch of its volume.
    pub(super) fn add(&mut self, io: IoId, volume: VolumeNumber, op: DiskOp, table: &BufferTable) {
        let d = self.find(volume).expect("the node uses only disks that are open");
        let single = match op {
            DiskOp::Read { range, into, detect_zero } => {
                self.reads.insert(io, into);
                Op::Read { offset: range.start, len: length(range.len()), detect_zero }
            }
            DiskOp::Write { range, buffer, fua } => {
                let buffer = table.take(buffer);
                assert_eq!(buffer.len() as u64, range.len(), "a write of {range:?}");
                Op::Write { offset: range.start, buffer, fua }
            }
            DiskOp::Zero { range, unmap, fua } => {
                Op::Zero { offset: range.start, len: range.len(), fua, may_unmap: unmap }
            }
            DiskOp::Flush => Op::Flush,
            DiskOp::ReadMeta(ranges) => {
                let ops = ranges.into_iter().map(|(offset, len)| Op::ReadMeta { offset, len });
                return self.add_parts(d, io, ops, true);
            }
            DiskOp::WriteMeta(writes) => {
                let ops = writes.into_iter().map(|MetaWrite { offset, bytes }| match bytes {
                    Bytes::Data(bytes) => Op::WriteMeta { offset, bytes },
                    Bytes::Zeros(len) => Op::ZeroMeta { offset, len },
                });
                return self.add_parts(d, io, ops, false);
            }
        };
        assert_eq!(io.0 & PART, 0, "2^63 operations");
        self.disks[d].batch.push((io.0, single));
    }

    fn add_parts(&mut self, d: usize, io: IoId, ops: impl Iterator<Item = Op>, reads: bool) {
        // The counter may come round: so many operations are never under way at once.
        self.last_gather = (self.last_gather + 1) & (u64::MAX >> (PART_BITS + 1));
        let number = self.last_gather;
        let batch = &mut self.disks[d].batch;
        let before = batch.len();
        batch.extend(ops.enumerate().map(|(part, op)| {
            let token = PART | number << PART_BITS | part as u64;
            (token, op)
        }));
        let left = batch.len() - before;
        assert!(left > 0 && left < 1 << PART_BITS, "a metadata operation of {left} parts");
        let read = reads.then(|| vec![Err(()); left]);
        let before = self.gathers.insert(number, Gather { io, left, failed: false, read });
        assert!(before.is_none(), "2^31 metadata operations under way");
    }

    /// Hands all batches to the engines.
    pub(super) fn submit(&mut self) {
        for disk in &mut self.disks {
            if !disk.batch.is_empty() {
                disk.backing.submit(&mut disk.batch);
            }
        }
    }

    /// Takes what has ended. Reads bind their buffers.
    pub(super) fn poll(&mut self, table: &mut BufferTable, out: &mut Vec<Finished>) {
        let mut completions = std::mem::take(&mut self.completions);
        for disk in &mut self.disks {
            disk.backing.poll(&mut completions);
        }
        for completion in completions.drain(..) {
            out.extend(self.finish(completion, table));
        }
        self.completions = completions;
    }

    fn finish(&mut self, completion: Completion, table: &mut BufferTable) -> Option<Finished> {
        let Completion { token, result } = completion;
        let result = result.map_err(|error| tracing::error!("{error}"));
        if token & PART != 0 {
            return self.finish_part(token, result);
        }
        let io = IoId(token);
        let into = self.reads.remove(&io);
        let result = match (result, into) {
            (Err(()), _) => Err(DiskError),
            (Ok(Done::Finished), None) => Ok(DiskDone::Ok),
            (Ok(Done::Zeros(_)), Some(_)) => Ok(DiskDone::Zero),
            (Ok(Done::Read(buffer)), Some(into)) => {
                table.bind(into, buffer);
                Ok(DiskDone::Ok)
            }
            (Ok(done), into) => unreachable!("{io:?} (read into {into:?}) ended with {done:?}"),
        };
        Some((io, result))
    }

    fn finish_part(&mut self, token: IoToken, result: Result<Done, ()>) -> Option<Finished> {
        let (number, part) = ((token & !PART) >> PART_BITS, token as u32 as usize);
        let gather = self.gathers.get_mut(&number).expect("each part ends once");
        gather.left -= 1;
        gather.failed |= result.is_err();
        if let (Some(read), Ok(Done::Read(buffer))) = (&mut gather.read, &result) {
            read[part] = Ok(buffer.as_ref().to_vec());
        }
        if gather.left > 0 {
            return None;
        }
        let gather = self.gathers.remove(&number).expect("just found");
        let result = match gather.read {
            // Each range tells for itself: the other copy may be good.
            Some(read) => Ok(DiskDone::Meta(read)),
            None if gather.failed => Err(DiskError),
            None => Ok(DiskDone::Ok),
        };
        Some((gather.io, result))
    }

    /// Ready when an engine has something to poll that came after `submit`. Engines that have not
    /// taken all of their batch have operations in flight, so this tells of them too.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ready = Poll::Pending;
        for disk in &self.disks {
            // Until it is pending: only then is the task woken by the next edge.
            while let Poll::Ready(guard) = disk.wake.poll_read_ready(cx) {
                guard.expect("the driver outlives the owner").clear_ready();
                ready = Poll::Ready(());
            }
        }
        ready
    }
}

fn length(len: u64) -> u32 {
    u32::try_from(len).expect("the node reads in pieces of at most Limits::piece_bytes")
}

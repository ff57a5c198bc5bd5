//! A disk in memory with a volatile cache, faults on demand, and a plug to pull: for tests, and for
//! whatever needs a disk without a file. Its clones are handles on one disk, so that a test keeps
//! one while the daemon owns another.
//!
//! It is as unkind as the contract allows: a flush makes stable exactly the operations polled
//! before it, and after a power cut the rest is there or not, each by itself. It models neither
//! time nor torn sectors; the simulator has its own disk for that.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::wake::Wake;
use super::{Action, Cause, Completion, Done, Engine, IoToken, Op, limits};
use crate::buffers::{Buffer, Pool};

const BLOCK: u64 = 4096;

/// An error to be injected into operations that match.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind of operation.
    pub action: Action,
    /// It must touch one of these bytes; a flush matches any range.
    pub bytes: Range<u64>,
    /// The error.
    pub errno: Errno,
    /// How many operations it hits before it is over.
    pub times: usize,
}

/// A handle on a disk in memory. Sparse: what was never written costs nothing.
#[derive(Clone)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
    wake: Arc<Wake>,
    pool: Pool,
}

struct Disk {
    size: u64,
    /// What reads see.
    now: Sparse,
    /// What a power cut leaves for certain, before `log` is added.
    stable: Sparse,
    /// What was written since, in order; flushed entries leave from the front.
    log: VecDeque<Entry>,
    log_bytes: usize,
    flush_failed: bool,
    faults: Vec<Fault>,
    holding: bool,
    held: VecDeque<(IoToken, Op)>,
    ready: Vec<(Completion, Option<u64>)>,
    in_flight: usize,
    next_entry: u64,
}

/// One write that may be lost.
struct Entry {
    id: u64,
    offset: u64,
    bytes: Bytes,
    /// Its completion has been polled.
    polled: bool,
    /// A flush covers it, or it was durable by itself.
    durable: bool,
}

enum Bytes {
    Data(Buffer),
    Zeros(u64),
}

impl Memory {
    /// A disk of `size` zero bytes. Reads take their memory from `pool`.
    ///
    /// # Errors
    /// If the system has no eventfd to give.
    pub fn new(size: u64, pool: &Pool) -> std::io::Result<Self> {
        let disk = Disk {
            size,
            now: Sparse::default(),
            stable: Sparse::default(),
            log: VecDeque::new(),
            log_bytes: 0,
            flush_failed: false,
            faults: Vec::new(),
            holding: false,
            held: VecDeque::new(),
            ready: Vec::new(),
            in_flight: 0,
            next_entry: 0,
        };
        let wake = Arc::new(Wake::new()?);
        Ok(Self { disk: Arc::new(Mutex::new(disk)), wake, pool: pool.clone() })
    }

    /// Lets matching operations fail from now on.
    pub fn inject(&self, fault: Fault) {
        self.disk().faults.push(fault);
    }

    /// From now on operations are taken and not begun: a disk that hangs.
    pub fn hold(&self) {
        self.disk().holding = true;
    }

    /// Begins what was held, and holds no more.
    pub fn release(&self) {
        let mut disk = self.disk();
        disk.holding = false;
        while let Some((token, op)) = disk.held.pop_front() {
            disk.perform(token, &op, &self.pool);
        }
        drop(disk);
        self.wake.signal();
    }

    /// Pulls the plug: what was stable stays, of every other write `keep` decides (it is told the
    /// offset), and nothing remains in flight. The disk works again afterwards, as a new one would.
    pub fn power_cut(&self, mut keep: impl FnMut(u64) -> bool) {
        let mut disk = self.disk();
        for entry in std::mem::take(&mut disk.log) {
            if entry.durable || keep(entry.offset) {
                disk.stable.apply(&entry);
            }
        }
        disk.now = disk.stable.clone();
        disk.held.clear();
        disk.ready.clear();
        (disk.log_bytes, disk.in_flight, disk.flush_failed) = (0, 0, false);
    }

    /// What a read of this range would see, past the engine.
    pub fn contents(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.disk().now.read(offset, &mut bytes);
        bytes
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Memory {
    fn submit(&mut self, batch: &mut Vec<(IoToken, Op)>) {
        let mut disk = self.disk();
        let room = limits::IN_FLIGHT - disk.in_flight;
        for (token, op) in batch.drain(..batch.len().min(room)) {
            op.check_length();
            disk.in_flight += 1;
            match disk.holding {
                true => disk.held.push_back((token, op)),
                false => disk.perform(token, &op, &self.pool),
            }
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let mut disk = self.disk();
        let ready = std::mem::take(&mut disk.ready);
        disk.in_flight -= ready.len();
        for (completion, entry) in ready {
            if let Some(entry) = entry.and_then(|id| disk.entry(id)) {
                entry.polled = true;
            }
            out.push(completion);
        }
        disk.write_back_surplus();
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.disk().in_flight
    }
}

impl Disk {
    fn perform(&mut self, token: IoToken, op: &Op, pool: &Pool) {
        let (result, entry) = match self.try_perform(op, pool) {
            Ok((done, entry)) => (Ok(done), entry),
            Err(cause) => {
                // IO-4: from here on nothing durable is promised any more.
                self.flush_failed |= op.is_durable() && matches!(cause, Cause::Os(_));
                (Err(op.error(cause)), None)
            }
        };
        self.ready.push((Completion { token, result }, entry));
    }

    fn try_perform(&mut self, op: &Op, pool: &Pool) -> Result<(Done, Option<u64>), Cause> {
        let (offset, len) = op.range();
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(Cause::OutOfRange { size: self.size });
        }
        if op.is_durable() && self.flush_failed {
            return Err(Cause::FlushFailedBefore);
        }
        if let Some(errno) = self.fault(op) {
            return Err(errno.into());
        }
        let bytes = match op {
            Op::Read { len, detect_zero, .. } => {
                let mut buffer = pool.take(*len as usize);
                let zero = self.now.read(offset, buffer.as_mut());
                let zero = *detect_zero && zero;
                return Ok((
                    if zero { Done::Zeros(*len) } else { Done::Read(buffer.freeze()) },
                    None,
                ));
            }
            Op::ReadMeta { len, .. } => {
                let mut buffer = pool.take(*len as usize);
                self.now.read(offset, buffer.as_mut());
                return Ok((Done::Read(buffer.freeze()), None));
            }
            Op::Flush => {
                self.flush();
                return Ok((Done::Finished, None));
            }
            Op::Write { buffer, .. } => Bytes::Data(buffer.clone()),
            Op::WriteMeta { bytes, .. } => Bytes::Data(pool.copy_of(bytes)),
            Op::Zero { .. } | Op::ZeroMeta { .. } => Bytes::Zeros(len),
        };
        let id = self.next_entry;
        self.next_entry += 1;
        let entry = Entry { id, offset, bytes, polled: false, durable: op.is_durable() };
        self.now.apply(&entry);
        self.log_bytes += entry.bytes.held();
        self.log.push_back(entry);
        self.fold();
        Ok((Done::Finished, Some(id)))
    }

    fn fault(&mut self, op: &Op) -> Option<Errno> {
        let (offset, len) = op.range();
        let hit = self.faults.iter_mut().find(|fault| {
            let touches = offset < fault.bytes.end && fault.bytes.start < offset + len;
            fault.times > 0 && fault.action == op.action() && (touches || matches!(op, Op::Flush))
        })?;
        hit.times -= 1;
        Some(hit.errno)
    }

    fn flush(&mut self) {
        for entry in &mut self.log {
            entry.durable |= entry.polled;
        }
        self.fold();
    }

    /// Moves what is durable at the front of the log into what is stable.
    fn fold(&mut self) {
        while let Some(entry) = self.log.pop_front_if(|entry| entry.durable) {
            self.log_bytes -= entry.bytes.held();
            self.stable.apply(&entry);
        }
    }

    /// A cache may write back what it likes when it likes: bounds the memory of the log.
    fn write_back_surplus(&mut self) {
        if self.log_bytes > limits::MEMORY_UNFLUSHED {
            self.flush();
        }
    }

    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        let index = self.log.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.log.get_mut(index)
    }
}

impl Bytes {
    fn held(&self) -> usize {
        match self {
            Self::Data(buffer) => buffer.len(),
            // About what an entry costs.
            Self::Zeros(_) => size_of::<Entry>(),
        }
    }
}

/// Bytes by block; a block that is missing is all zeros.
#[derive(Clone, Default)]
struct Sparse {
    blocks: BTreeMap<u64, Box<[u8; BLOCK as usize]>>,
}

impl Sparse {
    /// Whether all of it is zero.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let mut zero = true;
        for (block, within, part) in pieces(offset, bytes.len() as u64) {
            let into = &mut bytes[part];
            match self.blocks.get(&block) {
                Some(block) => into.copy_from_slice(&block[within]),
                None => into.fill(0),
            }
            zero &= into.iter().all(|&byte| byte == 0);
        }
        zero
    }

    fn apply(&mut self, entry: &Entry) {
        match &entry.bytes {
            Bytes::Data(buffer) => {
                let bytes = buffer.as_ref();
                for (block, within, part) in pieces(entry.offset, bytes.len() as u64) {
                    let block = self.blocks.entry(block);
                    let block = block.or_insert_with(|| Box::new([0; BLOCK as usize]));
                    block[within].copy_from_slice(&bytes[part]);
                }
            }
            Bytes::Zeros(len) => self.zero(entry.offset, entry.offset + len),
        }
    }

    /// Costs what is there, not the length of the range.
    fn zero(&mut self, start: u64, end: u64) {
        if start == end {
            return;
        }
        let touched = self.blocks.range_mut(start / BLOCK..end.div_ceil(BLOCK));
        let mut gone = Vec::new();
        for (&index, block) in touched {
            let first = index * BLOCK;
            let (from, to) = (start.max(first) - first, end.min(first + BLOCK) - first);
            block[from as usize..to as usize].fill(0);
            if to - from == BLOCK {
                gone.push(index);
            }
        }
        for index in gone {
            self.blocks.remove(&index);
        }
    }
}

/// The blocks a range touches: index, bytes within the block, bytes within the range.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let block = at / BLOCK;
        let next = ((block + 1) * BLOCK).min(end);
        let first = block * BLOCK;
        let piece = (
            block,
            (at - first) as usize..(next - first) as usize,
            (at - offset) as usize..(next - offset) as usize,
        );
        at = next;
        Some(piece)
    })
}

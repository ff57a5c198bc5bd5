//! A device in RAM, with faults on demand, and a set of them. For tests and examples: it shows the
//! least a back end has to do. Nothing in it survives the process.

use crate::closing::{Closer, Closing};
use crate::device::{BlockDevice, Extent, Geometry, IoError, Operation, Outcome, Request, Span};
use crate::nbd::exports::{ExportInfo, Exports, Refusal};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use tokio::sync::Notify;

/// A handle; clones are the same device.
#[derive(Clone)]
pub struct MemoryDevice(Rc<Inner>);

struct Inner {
    geometry: Geometry,
    bytes: RefCell<Vec<u8>>,
    /// Which pieces of [`PIECE`] bytes have been written; the others are holes.
    allocated: RefCell<Vec<bool>>,
    pool: Rc<Pool>,
    closer: Closer,
    fault: RefCell<Option<Fault>>,
    holding: Cell<bool>,
    held: RefCell<VecDeque<Request<Buffer>>>,
    arrived: Notify,
}

/// Decides which requests fail.
type Fault = Box<dyn FnMut(&Operation<Buffer>) -> Option<IoError>>;

/// Granularity of allocation.
const PIECE: u64 = 64 << 10;

impl MemoryDevice {
    /// A device full of zeroes.
    pub fn new(geometry: Geometry) -> Self {
        let size = usize::try_from(geometry.size).expect("a device in memory fits into memory");
        let pieces = size.div_ceil(PIECE as usize);
        Self(Rc::new(Inner {
            geometry,
            bytes: RefCell::new(vec![0; size]),
            allocated: RefCell::new(vec![false; pieces]),
            pool: Rc::default(),
            closer: Closer::new(),
            fault: RefCell::default(),
            holding: Cell::new(false),
            held: RefCell::default(),
            arrived: Notify::new(),
        }))
    }

    /// From now on `fault` decides about every request before it is executed.
    pub fn set_fault(&self, fault: impl FnMut(&Operation<Buffer>) -> Option<IoError> + 'static) {
        *self.0.fault.borrow_mut() = Some(Box::new(fault));
    }

    /// Requests fail no more.
    pub fn clear_fault(&self) {
        *self.0.fault.borrow_mut() = None;
    }

    /// From now on requests wait for [`MemoryDevice::release`].
    pub fn hold(&self) {
        self.0.holding.set(true);
    }

    /// Waits until `count` requests are held. Safe to cancel.
    pub async fn wait_until_held(&self, count: usize) {
        while self.0.held.borrow().len() < count {
            self.0.arrived.notified().await;
        }
    }

    /// Shows the held requests.
    pub fn inspect<R>(&self, look: impl FnOnce(&VecDeque<Request<Buffer>>) -> R) -> R {
        look(&self.0.held.borrow())
    }

    /// Executes the held request at `index`; whether there was one.
    pub fn release(&self, index: usize) -> bool {
        let request = self.0.held.borrow_mut().remove(index);
        request.map(|request| self.execute(request)).is_some()
    }

    /// Executes all held requests, and those to come at once.
    pub fn resume(&self) {
        self.0.holding.set(false);
        while self.release(0) {}
    }

    /// Drops all held requests, as a back end does that is torn down.
    pub fn discard(&self) {
        // Out of the borrow: each drop calls back.
        let held = self.0.held.take();
        drop(held);
    }

    /// Clients are told that the device closes.
    pub fn close(&self, reason: &str) {
        self.0.closer.close(reason);
    }

    /// Shows the contents.
    pub fn contents<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.0.bytes.borrow())
    }

    fn execute(&self, request: Request<Buffer>) {
        let fault = match &mut *self.0.fault.borrow_mut() {
            Some(fault) => fault(&request.operation),
            None => None,
        };
        let result = match fault {
            Some(error) => Err(error),
            None => Ok(self.perform(&request.operation)),
        };
        request.reply.complete(result);
    }

    fn perform(&self, operation: &Operation<Buffer>) -> Outcome<Buffer> {
        match operation {
            Operation::Read(range) => {
                let mut data = self.0.pool.buffer(usize_of(range.length));
                data.as_mut().copy_from_slice(&self.0.bytes.borrow()[indices(range)]);
                return Outcome::Data(data);
            }
            Operation::Write { offset, data, .. } => {
                let data = data.as_ref();
                let range = Span { offset: *offset, length: data.len() as u64 };
                self.0.bytes.borrow_mut()[indices(&range)].copy_from_slice(data);
                self.set_allocated(&range, true);
            }
            Operation::Trim { range, .. }
            | Operation::WriteZeroes { range, no_hole: false, .. } => {
                self.0.bytes.borrow_mut()[indices(range)].fill(0);
                self.set_allocated(range, false);
            }
            Operation::WriteZeroes { range, .. } => {
                self.0.bytes.borrow_mut()[indices(range)].fill(0);
                self.set_allocated(range, true);
            }
            Operation::BlockStatus { range, limit } => {
                return Outcome::Extents(self.extents(range, *limit));
            }
            Operation::Flush | Operation::Cache(_) => {}
        }
        Outcome::Done
    }

    /// Notes an allocation; of a release, only whole pieces.
    fn set_allocated(&self, range: &Span, to: bool) {
        let end = range.offset + range.length;
        let whole_device = self.0.geometry.size;
        let pieces = if to {
            range.offset / PIECE..end.div_ceil(PIECE)
        } else if end == whole_device {
            range.offset.div_ceil(PIECE)..end.div_ceil(PIECE)
        } else {
            range.offset.div_ceil(PIECE)..end / PIECE
        };
        let mut allocated = self.0.allocated.borrow_mut();
        for piece in pieces {
            allocated[usize_of(piece)] = to;
        }
    }

    fn extents(&self, range: &Span, limit: usize) -> Vec<Extent> {
        let allocated = self.0.allocated.borrow();
        let end = range.offset + range.length;
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = range.offset;
        while at < end {
            let hole = !allocated[usize_of(at / PIECE)];
            let length = ((at / PIECE + 1) * PIECE).min(end) - at;
            let full = extents.len() == limit;
            match extents.last_mut() {
                Some(last) if last.hole == hole => last.length += length,
                _ if full => break,
                _ => extents.push(Extent { length, hole, zero: hole }),
            }
            at += length;
        }
        extents
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("lies within a device that is in memory")
}

fn indices(range: &Span) -> std::ops::Range<usize> {
    usize_of(range.offset)..usize_of(range.offset + range.length)
}

impl BlockDevice for MemoryDevice {
    type Buffer = Buffer;

    fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    fn allocate(&self, length: u32) -> Buffer {
        self.0.pool.buffer(length as usize)
    }

    fn submit(&self, batch: &mut Vec<Request<Buffer>>) {
        for request in batch.drain(..) {
            if self.0.holding.get() {
                self.0.held.borrow_mut().push_back(request);
            } else {
                self.execute(request);
            }
        }
        self.0.arrived.notify_waiters();
    }

    fn watch(&self) -> Closing {
        self.0.closer.watch()
    }
}

/// Payload memory that returns to the device when it is dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Rc<Pool>,
}

/// Payload memory of former requests; the most recently used is taken first.
#[derive(Default)]
struct Pool(RefCell<Vec<Vec<u8>>>);

/// Most pieces of memory that are kept.
const POOLED: usize = 256;
/// Longer pieces are not kept.
const POOLED_LENGTH: usize = 1 << 20;

impl Pool {
    fn buffer(self: &Rc<Self>, length: usize) -> Buffer {
        let mut bytes = self.0.borrow_mut().pop().unwrap_or_default();
        bytes.resize(length, 0);
        Buffer { bytes, pool: Rc::clone(self) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pooled = self.pool.0.borrow_mut();
        if pooled.len() < POOLED && self.bytes.len() <= POOLED_LENGTH {
            pooled.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Named memory devices. The first that was added also answers to the empty name.
#[derive(Default)]
pub struct MemoryExports(RefCell<BTreeMap<String, Entry>>, RefCell<Option<String>>);

struct Entry {
    description: String,
    device: MemoryDevice,
    refusal: Option<Refusal>,
}

impl MemoryExports {
    /// No exports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an export.
    pub fn add(&self, name: &str, description: &str, device: MemoryDevice) {
        self.1.borrow_mut().get_or_insert_with(|| name.to_owned());
        let entry = Entry { description: description.to_owned(), device, refusal: None };
        self.0.borrow_mut().insert(name.to_owned(), entry);
    }

    /// The device called `name`. Panics if there is none.
    pub fn device(&self, name: &str) -> MemoryDevice {
        self.0.borrow()[name].device.clone()
    }

    /// How many clients have `name` open. Panics if there is no such export.
    pub fn clients(&self, name: &str) -> usize {
        // One handle is our own.
        Rc::strong_count(&self.0.borrow()[name].device.0) - 1
    }

    /// From now on clients that want `name` are refused so, or served.
    pub fn set_refusal(&self, name: &str, refusal: Option<Refusal>) {
        if let Some(entry) = self.0.borrow_mut().get_mut(name) {
            entry.refusal = refusal;
        }
    }

    fn find<R>(&self, name: &str, use_it: impl FnOnce(&str, &Entry) -> R) -> Result<R, Refusal> {
        let default = self.1.borrow();
        let name = if name.is_empty() { default.as_deref().unwrap_or("") } else { name };
        let entries = self.0.borrow();
        let entry = entries.get(name).ok_or_else(|| Refusal::unknown(name))?;
        Ok(use_it(name, entry))
    }
}

impl Exports for MemoryExports {
    type Device = MemoryDevice;

    fn list(&self) -> Vec<ExportInfo> {
        let info = |(name, entry): (&String, &Entry)| ExportInfo {
            name: name.clone(),
            description: entry.description.clone(),
        };
        self.0.borrow().iter().map(info).collect()
    }

    fn describe(&self, name: &str) -> Result<(ExportInfo, Geometry), Refusal> {
        self.find(name, |name, entry| {
            let description = entry.description.clone();
            (ExportInfo { name: name.to_owned(), description }, entry.device.geometry())
        })
    }

    async fn open(&self, name: &str) -> Result<MemoryDevice, Refusal> {
        self.find(name, |_, entry| match &entry.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(entry.device.clone()),
        })?
    }
}

//! The adaptor between a running resource and NBD: each volume is a `BlockDevice`, a client's
//! request becomes what the daemon is asked, its answer what the client gets. No state is decided
//! or kept here.

use bitmap::ByteRange;
use nbd_server::{
    BlockDevice, Closer, Closing, ExportInfo, Exports, Extent, Geometry, IoError, Operation,
    Outcome, Refusal, Reply, Request, Span,
};
use replicator::buffers::{Buffer, BufferMut};
use replicator::daemon::{Handle, Open, Waiter};
use replicator::node::{RequestError, RequestOp, VolumeNumber};
use std::cell::RefCell;
use std::rc::Rc;

/// Payload memory: filled by the server for a write, by a disk or a peer for a read.
pub(crate) enum Payload {
    /// Being filled.
    Filling(BufferMut),
    /// What was read.
    Filled(Buffer),
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Filling(buffer) => buffer.as_ref(),
            Self::Filled(buffer) => buffer.as_ref(),
        }
    }
}

impl AsMut<[u8]> for Payload {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Filling(buffer) => buffer.as_mut(),
            Self::Filled(_) => unreachable!("the server writes into what it allocated only"),
        }
    }
}

/// A client's request, until it is answered.
pub(crate) struct Waiting {
    reply: Reply<Payload>,
    is_read: bool,
    /// A client counts as gone when its last request has ended, even if its connection was cut
    /// before.
    _open: Rc<Open<Self>>,
}

impl Waiter for Waiting {
    fn done(self, result: Result<Option<Buffer>, RequestError>) {
        self.reply.complete(match result {
            Ok(Some(buffer)) => Ok(Outcome::Data(Payload::Filled(buffer))),
            Ok(None) => {
                assert!(!self.is_read, "a read that succeeded has brought bytes");
                Ok(Outcome::Done)
            }
            Err(RequestError::Io) => Err(IoError::Io),
            Err(RequestError::NotPrimary | RequestError::Shutdown) => Err(IoError::ShuttingDown),
        });
    }
}

/// The volumes of one resource, as NBD exports.
pub(crate) struct ResourceExports {
    handle: Handle<Waiting>,
    resource: String,
    /// With the names they are listed under.
    volumes: Vec<(VolumeNumber, String)>,
}

impl ResourceExports {
    /// Exports the volumes of `resource`: under its name if there is one, as `NAME/VOLUME` always.
    pub(crate) fn new(handle: Handle<Waiting>, resource: &str, volumes: Vec<VolumeNumber>) -> Self {
        let is_only = volumes.len() == 1;
        let name =
            |number| if is_only { resource.to_owned() } else { format!("{resource}/{number}") };
        let volumes = volumes.into_iter().map(|number| (number, name(number))).collect();
        Self { handle, resource: resource.to_owned(), volumes }
    }

    fn find(&self, name: &str) -> Result<&(VolumeNumber, String), Refusal> {
        let is_only = self.volumes.len() == 1;
        let is_meant = |(number, listed): &&(VolumeNumber, String)| {
            // One name for each: `r0/00` is none.
            let full = format!("{}/{number}", self.resource);
            name == listed || name == full || is_only && name.is_empty()
        };
        self.volumes.iter().find(is_meant).ok_or_else(|| Refusal::unknown(name))
    }

    fn geometry(&self, (number, name): &(VolumeNumber, String)) -> Result<Geometry, Refusal> {
        let size = self.handle.size(*number).ok_or_else(|| {
            Refusal::policy(format!(
                "the size of {name} is not known: it has no disk here and is not connected to its \
                 peer; see `polluxadm status {}`",
                self.resource
            ))
        })?;
        Ok(Geometry::any_range(size))
    }
}

fn info((_, name): &(VolumeNumber, String)) -> ExportInfo {
    ExportInfo { name: name.clone(), description: String::new() }
}

impl Exports for ResourceExports {
    type Device = Volume;

    fn list(&self) -> Vec<ExportInfo> {
        self.volumes.iter().map(info).collect()
    }

    fn describe(&self, name: &str) -> Result<(ExportInfo, Geometry), Refusal> {
        let volume = self.find(name)?;
        Ok((info(volume), self.geometry(volume)?))
    }

    async fn open(&self, name: &str) -> Result<Volume, Refusal> {
        let volume = self.find(name)?;
        let closer = Closer::new();
        let closing = closer.watch();
        let open = self.handle.open(move |reason| closer.close(reason)).await;
        let open = open.map_err(|refusal| Refusal::policy(refusal.text))?;
        // After the open: a diskless node learns the size from its peer.
        let geometry = self.geometry(volume)?;
        let (handle, batch) = (self.handle.clone(), RefCell::default());
        Ok(Volume { open: Rc::new(open), handle, number: volume.0, geometry, closing, batch })
    }
}

/// One volume, opened by one client.
pub(crate) struct Volume {
    open: Rc<Open<Waiting>>,
    handle: Handle<Waiting>,
    number: VolumeNumber,
    geometry: Geometry,
    closing: Closing,
    /// Kept for its memory; empty between calls.
    batch: RefCell<Vec<(VolumeNumber, RequestOp<Buffer>, Waiting)>>,
}

impl BlockDevice for Volume {
    type Buffer = Payload;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn allocate(&self, length: u32) -> Payload {
        Payload::Filling(self.handle.allocate(length as usize))
    }

    fn submit(&self, requests: &mut Vec<Request<Payload>>) {
        let mut batch = self.batch.borrow_mut();
        for Request { operation, reply } in requests.drain(..) {
            let op = match operation {
                Operation::Read(span) => RequestOp::Read(range(span)),
                Operation::Write { offset, data, fua } => {
                    let buffer = match data {
                        Payload::Filling(buffer) => buffer.freeze(),
                        Payload::Filled(buffer) => buffer,
                    };
                    let range = ByteRange::new(offset, buffer.len() as u64);
                    RequestOp::Write { range, buffer, fua }
                }
                Operation::Flush => RequestOp::Flush,
                // TRIM promises more here than NBD asks for: zeros, the same on every copy.
                Operation::Trim { range: span, fua } => {
                    RequestOp::Zero { range: range(span), unmap: true, fua }
                }
                Operation::WriteZeroes { range: span, fua, no_hole } => {
                    RequestOp::Zero { range: range(span), unmap: !no_hole, fua }
                }
                Operation::Cache(_) => {
                    reply.complete(Ok(Outcome::Done));
                    continue;
                }
                Operation::BlockStatus { range, .. } => {
                    let all = Extent { length: range.length, hole: false, zero: false };
                    reply.complete(Ok(Outcome::Extents(vec![all])));
                    continue;
                }
            };
            let is_read = matches!(op, RequestOp::Read(_));
            let waiting = Waiting { reply, is_read, _open: Rc::clone(&self.open) };
            batch.push((self.number, op, waiting));
        }
        self.open.submit(batch.drain(..));
    }

    fn watch(&self) -> Closing {
        self.closing.clone()
    }
}

fn range(span: Span) -> ByteRange {
    ByteRange::new(span.offset, span.length)
}

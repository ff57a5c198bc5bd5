//! The side that operators see: orders from another thread to the owner, each with its answer.
//! Opening a disk may wait, so it is done here, and the owner gets it open and locked.

use super::limits;
use super::snapshot::Snapshot;
use crate::buffers::Pool;
use crate::disk;
use crate::node::{Backing, Command, DiskState, Refusal, RefusalKind, VolumeNumber};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Where a volume's disk is.
#[derive(Clone, Debug)]
pub struct VolumeFiles {
    /// The volume.
    pub volume: VolumeNumber,
    /// Its backing file or device; `None`: diskless by configuration.
    pub disk: Option<PathBuf>,
    /// How to open it, and where its metadata is.
    pub options: disk::Options,
}

/// How an order ended.
pub(super) type Answer = oneshot::Sender<Result<(), Refusal>>;

/// What the owner can be told by an operator.
pub(super) enum Order {
    /// To attach, with the disk open and locked.
    Command(Command, Option<Box<disk::Backing>>, Answer),
    Snapshot(oneshot::Sender<Snapshot>),
    /// The process is about to end: take nothing more.
    End,
}

/// An order that was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OrderError {
    /// Refused.
    #[error("{}", .0.text)]
    Refused(Refusal),
    /// Nobody is there to carry it out.
    #[error("the daemon is ending")]
    Ending,
}

impl From<Refusal> for OrderError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// An operator's way to the resource, from any thread. Clones reach the same one.
#[derive(Clone)]
pub struct Remote {
    orders: mpsc::Sender<Order>,
    files: Arc<[VolumeFiles]>,
    pool: Pool,
}

impl Remote {
    pub(super) fn new(files: &[VolumeFiles], pool: Pool) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(limits::QUEUED_ORDERS);
        (Self { orders, files: files.into(), pool }, receiver)
    }

    /// Carries out a command and waits until it has ended; for attach there is [`Self::attach`].
    ///
    /// # Errors
    /// If it was refused, or the daemon is ending.
    pub async fn command(&self, command: Command) -> Result<(), OrderError> {
        self.order(command, None).await
    }

    /// Opens, locks and attaches the disk of a volume.
    ///
    /// # Errors
    /// If the disk cannot be had, or the node refused it.
    pub async fn attach(&self, volume: VolumeNumber) -> Result<(), OrderError> {
        let refusal = |kind, text| OrderError::Refused(Refusal { kind, text });
        let files = self.files.iter().find(|files| files.volume == volume);
        let files = files
            .ok_or_else(|| refusal(RefusalKind::State, format!("there is no volume {volume}")))?;
        let Some(path) = files.disk.clone() else {
            let text = format!("volume {volume} is diskless by configuration (`disk none;`)");
            return Err(refusal(RefusalKind::NoDisk, text));
        };
        // Before the file is tried: the lock on it would be our own, which says nothing useful.
        let now = self.snapshot().await?;
        let state = now.status.volumes.iter().find(|v| v.number == volume).map(|v| v.disk);
        if let Some(state) = state.filter(|&state| state != DiskState::Diskless) {
            let text = format!(
                "volume {volume} has a disk already ({state:?}): to attach it anew, \
                 `polluxadm detach` first"
            );
            return Err(refusal(RefusalKind::State, text));
        }
        let is_external = files.options.meta.is_some();
        let (options, pool) = (files.options.clone(), self.pool.clone());
        let opening = tokio::task::spawn_blocking(move || open_soon(&path, &options, &pool));
        let backing = opening
            .await
            .map_err(|_| OrderError::Ending)?
            .map_err(|error| refusal(RefusalKind::Metadata, format!("volume {volume}: {error}")))?;
        let sizes = Backing {
            data_size: backing.size(),
            meta_size: is_external.then(|| backing.meta_size()),
        };
        self.order(Command::Attach(volume, sizes), Some(Box::new(backing))).await
    }

    /// The volumes there are, and whether each has a disk by configuration.
    pub fn volumes(&self) -> impl Iterator<Item = (VolumeNumber, bool)> + '_ {
        self.files.iter().map(|files| (files.volume, files.disk.is_some()))
    }

    /// What the resource is like now.
    ///
    /// # Errors
    /// [`OrderError::Ending`].
    pub async fn snapshot(&self) -> Result<Snapshot, OrderError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::Snapshot(answer)).await?;
        answered.await.map_err(|_| OrderError::Ending)
    }

    /// Ends the owner's loop, whatever is under way: what a client was not answered is not done.
    pub async fn end(&self) {
        // If it has ended already, that is what was wanted.
        let _ = self.send(Order::End).await;
    }

    async fn order(
        &self,
        command: Command,
        disk: Option<Box<disk::Backing>>,
    ) -> Result<(), OrderError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::Command(command, disk, answer)).await?;
        Ok(answered.await.map_err(|_| OrderError::Ending)??)
    }

    async fn send(&self, order: Order) -> Result<(), OrderError> {
        self.orders.send(order).await.map_err(|_| OrderError::Ending)
    }
}

/// Opens a disk. If it is in use and no process is seen to have it, the I/O of a killed daemon is
/// about to let it go. (A disk that we detached is free when the detach is answered.)
fn open_soon(
    path: &Path,
    options: &disk::Options,
    pool: &Pool,
) -> Result<disk::Backing, disk::OpenError> {
    let until = Instant::now() + limits::DISK_FREE;
    loop {
        match disk::Backing::open(path, options, pool) {
            Err(disk::OpenError { fault: disk::OpenFault::InUse(None), .. })
                if Instant::now() < until =>
            {
                std::thread::sleep(limits::WAIT_STEP);
            }
            other => return other,
        }
    }
}

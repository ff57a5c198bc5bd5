//! The side that front ends (NBD, later vhost-user) see: open the resource, submit requests, be told
//! how they ended. All of it lives on the owner's thread; nothing here waits or decides.

use super::limits;
use super::owner::Owner;
use super::snapshot::Snapshot;
use crate::buffers::{Buffer, BufferMut, Pool};
use crate::node::{OpenId, Refusal, RefusalKind, RequestError, RequestOp, VolumeNumber};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use tokio::sync::oneshot;

/// Whom to tell how a request ended. Called on the owner's turn: it notes the result and returns.
pub trait Waiter: 'static {
    /// The request ended so; a read that succeeded brings its bytes.
    fn done(self, result: Result<Option<Buffer>, RequestError>);
}

/// What waits for the owner's next turn.
pub(super) enum Incoming<W> {
    Request(VolumeNumber, RequestOp<Buffer>, W),
    Open(OpenId, Client),
    Close(OpenId),
}

/// A client that has, or wants to have, the resource open.
pub(super) struct Client {
    /// Until it is answered.
    pub(super) answer: Option<oneshot::Sender<Result<(), Refusal>>>,
    /// Until it was told.
    pub(super) must_go: Option<MustGo>,
}

/// Tells a client that it must go, and why.
pub(super) type MustGo = Box<dyn FnOnce(&str)>;

/// Between front ends and owner. Never borrowed across a wait.
pub(super) struct Inbox<W> {
    pub(super) incoming: VecDeque<Incoming<W>>,
    pub(super) owner: Option<Waker>,
    last_open: u64,
}

pub(super) struct Shared<W: Waiter> {
    pub(super) inbox: RefCell<Inbox<W>>,
    pub(super) owner: RefCell<Owner<W>>,
    pub(super) pool: Pool,
    /// The owner has ended and takes nothing more.
    pub(super) ended: Cell<bool>,
}

impl<W: Waiter> Shared<W> {
    pub(super) fn new(owner: Owner<W>, pool: Pool) -> Rc<Self> {
        let inbox = Inbox { incoming: VecDeque::new(), owner: None, last_open: 0 };
        let (inbox, owner) = (RefCell::new(inbox), RefCell::new(owner));
        Rc::new(Self { inbox, owner, pool, ended: Cell::new(false) })
    }

    /// Nothing is taken any more; what still waits is answered.
    pub(super) fn end(&self) {
        self.ended.set(true);
        let left = std::mem::take(&mut self.inbox.borrow_mut().incoming);
        for incoming in left {
            if let Incoming::Request(_, _, waiter) = incoming {
                waiter.done(Err(RequestError::Shutdown));
            }
        }
    }

    fn push(&self, incoming: impl IntoIterator<Item = Incoming<W>>) {
        let mut inbox = self.inbox.borrow_mut();
        inbox.incoming.extend(incoming);
        let queued = inbox.incoming.len();
        assert!(queued <= limits::QUEUED_REQUESTS, "front ends bound their requests, not {queued}");
        if let Some(owner) = inbox.owner.take() {
            owner.wake();
        }
    }
}

/// A front end's way to the resource. Clones reach the same one.
pub struct Handle<W: Waiter>(pub(super) Rc<Shared<W>>);

impl<W: Waiter> Clone for Handle<W> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<W: Waiter> Handle<W> {
    /// Opens the resource for reading and writing, which may promote it. `must_go` is called when
    /// the client has to leave, with the reason for its user. The client has gone when what this
    /// returns is dropped: after all its requests have ended.
    ///
    /// # Errors
    /// Why not, in words for the client's user.
    pub async fn open(&self, must_go: impl FnOnce(&str) + 'static) -> Result<Open<W>, Refusal> {
        let ending = || Refusal {
            kind: RefusalKind::State,
            text: "this daemon is ending; connect again when it runs, or to the other node".into(),
        };
        if self.0.ended.get() {
            return Err(ending());
        }
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut inbox = self.0.inbox.borrow_mut();
            inbox.last_open += 1;
            OpenId(inbox.last_open)
        };
        let client = Client { answer: Some(answer), must_go: Some(Box::new(must_go)) };
        self.0.push([Incoming::Open(id, client)]);
        // From here on the node knows of it, also if the client does not wait for the answer.
        let mut open = Open { shared: Rc::clone(&self.0), id: Some(id) };
        let result = answered.await.unwrap_or_else(|_| Err(ending()));
        if result.is_err() {
            open.id = None;
        }
        result.map(|()| open)
    }

    /// What the resource is like now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.owner.borrow().snapshot()
    }

    /// Bytes that clients of this volume see; `None` if nobody knows yet.
    pub fn size(&self, volume: VolumeNumber) -> Option<u64> {
        self.0.owner.borrow().size(volume)
    }

    /// Payload memory to be filled, of any length up to `buffers::MAX_LEN`.
    pub fn allocate(&self, len: usize) -> BufferMut {
        self.0.pool.take(len)
    }
}

/// A client that has the resource open.
pub struct Open<W: Waiter> {
    shared: Rc<Shared<W>>,
    /// `None` if the open was refused.
    id: Option<OpenId>,
}

impl<W: Waiter> Open<W> {
    /// Asks for all of these. Ranges lie inside the volume and are not empty. Each is answered exactly once, later: never
    /// inside of this call.
    pub fn submit(&self, requests: impl IntoIterator<Item = (VolumeNumber, RequestOp<Buffer>, W)>) {
        if self.shared.ended.get() {
            for (_, _, waiter) in requests {
                waiter.done(Err(RequestError::Shutdown));
            }
            return;
        }
        let requests = requests.into_iter();
        self.shared
            .push(requests.map(|(volume, op, waiter)| Incoming::Request(volume, op, waiter)));
    }

    /// The resource's handle.
    pub fn handle(&self) -> Handle<W> {
        Handle(Rc::clone(&self.shared))
    }
}

impl<W: Waiter> Drop for Open<W> {
    fn drop(&mut self) {
        if let Some(id) = self.id
            && !self.shared.ended.get()
        {
            self.shared.push([Incoming::Close(id)]);
        }
    }
}

//! Runs one resource: the loop that owns a `Node`, and the two sides from which it is used.
//!
//! ```text
//! front ends ── Handle, Open ──► inbox ──┐            ┌── disks (engines)
//!                                        ├─► Owner ───┼── handlers (programs)
//! operators ─── Remote ────────► orders ─┘   (node)   └── links (peers)
//!      ▲
//!      └── control: HTTP and JSON over a Unix socket, on its own thread
//! ```
//!
//! Reading order: `owner` (the turn of the loop), `front` and `orders` (who asks), `disks`,
//! `buffer_table` (how the node's words become bytes), `control`. Everything but
//! `control` lives on one thread, and no lock is taken and nothing waited for on the way of a write.

mod buffer_table;
mod clock;
pub mod control;
mod disks;
mod front;
mod handlers;
mod in_sync;
pub mod limits;
mod orders;
mod owner;
mod snapshot;
mod spin;

pub use crate::link::StartError;
pub use front::{Handle, Open, Waiter};
pub use handlers::{Programs, Variables};
pub use orders::{OrderError, Remote, VolumeFiles};
pub use snapshot::{InSync, Snapshot, VolumeCounters, word};

use crate::buffers::Pool;
use crate::config::Config;
use crate::link::{LinkConfig, Links};
use crate::node::Node;
use front::Shared;
use handlers::Handlers;
use owner::Owner;
use std::future::poll_fn;
use std::rc::Rc;

/// What a resource is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// For the node.
    pub config: Config,
    /// Where the disks are; a line for each volume.
    pub files: Vec<VolumeFiles>,
    /// For the links. The incarnation is filled in.
    pub links: LinkConfig,
    /// What to run on which occasion.
    pub programs: Programs,
}

/// A resource that is ready to run: [`Self::run`] runs it.
pub struct Daemon<W: Waiter> {
    shared: Rc<Shared<W>>,
    remote: Remote,
}

impl<W: Waiter> Daemon<W> {
    /// A resource that is Secondary, with no disk and no peer yet. Inside of a tokio runtime of one
    /// thread.
    ///
    /// # Errors
    /// If the address for peers cannot be listened on.
    pub async fn new(setup: Setup) -> Result<Self, StartError> {
        let Setup { config, files, mut links, programs } = setup;
        // GI-3: never the same in two processes.
        let seed = getrandom::u64().map_err(StartError::Random)?;
        let node = Node::new(config.clone(), clock::now(), seed);
        links.incarnation = node.incarnation();
        let pool = Pool::new(limits::IDLE_MEMORY);
        let links = Links::new(links, pool.clone()).await?;
        let (remote, orders) = Remote::new(&files, pool.clone());
        let owner = Owner::new(&config, node, links, Handlers::new(programs), orders);
        Ok(Self { shared: Shared::new(owner, pool), remote })
    }

    /// For front ends, on this thread.
    pub fn handle(&self) -> Handle<W> {
        Handle(Rc::clone(&self.shared))
    }

    /// For operators, on any thread.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Runs until `down` has been carried out, or [`Remote::end`] is called. What was said to peers
    /// still goes out.
    pub async fn run(self) {
        let shared = &self.shared;
        poll_fn(|cx| shared.owner.borrow_mut().turn(&shared.inbox, cx)).await;
        shared.end();
        poll_fn(|cx| shared.owner.borrow_mut().poll_closed(cx)).await;
    }
}

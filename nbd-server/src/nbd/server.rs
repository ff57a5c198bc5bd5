//! A server: exports, limits, and the connections that share them. Lives on the thread of the
//! devices' owner, inside a tokio `LocalSet`.

use super::budget::{Account, Budget};
use super::connection::{Connection, Departure};
use super::exports::Exports;
use super::handshake::Ending;
use super::limits::Limits;
use super::listener::Listener;
use super::log::Gate;
use super::negotiation::{Failure, negotiate, see_off};
use super::receive::Receiver;
use super::transport::Transport;
use crate::closing::Closer;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

/// A handle; clones are the same server.
pub struct Server<E>(Rc<Shared<E>>);

impl<E> Clone for Server<E> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Shared<E> {
    exports: E,
    limits: Limits,
    budget: Rc<Budget>,
    closer: Closer,
    /// LIM: one permit per connection, from accept to its last completion.
    places: Arc<Semaphore>,
    /// Who has not shaken hands yet, the one that has been at it for longest first.
    strangers: RefCell<VecDeque<Rc<Notify>>>,
    /// What is told of those who are not served.
    log: RefCell<Gate>,
}

/// Pause after a failed accept: it fails for want of memory or descriptors, and at once again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

impl<E: Exports> Server<E> {
    /// A server without clients. Panics if `limits` contradict each other.
    pub fn new(exports: E, limits: Limits) -> Self {
        limits.check();
        Self(Rc::new(Shared {
            exports,
            limits,
            budget: Rc::default(),
            closer: Closer::new(),
            places: Arc::new(Semaphore::new(limits.connections)),
            strangers: RefCell::default(),
            log: RefCell::default(),
        }))
    }

    /// What it serves.
    pub fn exports(&self) -> &E {
        &self.0.exports
    }

    /// Clients at the moment, the ones in the handshake included.
    pub fn connections(&self) -> usize {
        self.0.limits.connections - self.0.places.available_permits()
    }

    /// Requests that are submitted or whose reply is not sent, and their payload bytes, over all
    /// connections.
    pub fn in_flight(&self) -> (usize, u64) {
        self.0.budget.in_flight()
    }

    /// Accepts clients until [`Server::shut_down`]; then closes `listener`. At the limit of
    /// connections who has been in the handshake for longest makes room for the next; if all are served, that one waits for its greeting,
    /// and those behind it in the kernel.
    pub async fn listen(&self, listener: Listener) {
        let mut closing = self.0.closer.watch();
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((socket, client)) => self.serve(socket, client).await,
                    Err(error) => {
                        let cause = format!("cannot accept a client: {error}");
                        if let Some(text) = self.0.log.borrow_mut().pass(&cause) {
                            tracing::warn!("{text}");
                        }
                        sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            _ = closing.closed() => {}
            () = accept => {}
        }
    }

    /// Serves one client, however it came in. Returns when it has a place; `client` is what to
    /// call it in the log.
    pub async fn serve(&self, transport: impl Transport, client: String) {
        let places = &self.0.places;
        if places.available_permits() == 0
            && let Some(slowest) = self.0.strangers.borrow_mut().pop_front()
        {
            // LIM: many that say nothing keep nobody out.
            slowest.notify_one();
        }
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let server = self.clone();
        let stranger = Rc::new(Notify::new());
        // Before it runs: the next one may come before that.
        self.0.strangers.borrow_mut().push_back(Rc::clone(&stranger));
        spawn_local(async move {
            server.0.connection(transport, client, &stranger).await;
            drop(place);
        });
    }

    /// Stops listening, answers new requests with an error, and returns when every connection has
    /// ended: at the latest after [`Limits::drain`] and [`Limits::linger`].
    pub async fn shut_down(&self, reason: &str) {
        self.0.closer.close(reason);
        let all = u32::try_from(self.0.limits.connections).expect("a sensible limit");
        let ended = self.0.places.acquire_many(all).await;
        drop(ended.expect("the semaphore is never closed"));
    }
}

impl<E: Exports> Shared<E> {
    async fn connection(&self, transport: impl Transport, client: String, stranger: &Rc<Notify>) {
        let limits = self.limits;
        let mut receiver = Receiver::new(limits.receive_buffer);
        let closing = self.closer.watch();
        let tell = |cause: &str| {
            if let Some(text) = self.log.borrow_mut().pass(cause) {
                tracing::info!(client, "{text}");
            }
        };
        let negotiation =
            negotiate(&transport, &mut receiver, &self.exports, closing, limits.linger, tell);
        let shaken = tokio::select! {
            biased;
            shaken = timeout(limits.handshake, negotiation) => shaken.map_err(|_| "the handshake took too long"),
            () = stranger.notified() => Err("the handshake was not over when another needed the place"),
        };
        self.strangers.borrow_mut().retain(|other| !Rc::ptr_eq(other, stranger));
        let has_last_words = match shaken {
            Ok(Ok(negotiated)) => {
                let export = negotiated.export.clone();
                tracing::info!(client, export, "connected");
                let account = Account::new(limits, Rc::clone(&self.budget));
                let connection =
                    Connection::new(&transport, &mut receiver, negotiated, limits, account);
                let departure = connection.run(self.closer.watch()).await;
                tracing::info!(client, export, "{departure}");
                matches!(departure, Departure::Disconnected | Departure::Closed(_))
            }
            Ok(Err(failure)) => {
                tell(&format!("handshake: {failure}"));
                matches!(failure, Failure::Ended(Ending::Aborted) | Failure::ShutDown)
            }
            Err(why) => {
                tell(why);
                false
            }
        };
        if has_last_words {
            // A client that does not hang up in time is cut off.
            let _ = timeout(limits.linger, see_off(&transport, &mut receiver)).await;
        }
    }
}

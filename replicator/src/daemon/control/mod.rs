//! The control socket: HTTP and JSON over a Unix socket, on a thread of its own, so that operators
//! never stall the owner.
//!
//! ```text
//! POST /command              {"command": "primary", "force": true}   see `command`
//! POST /wait/connect?seconds=N, /wait/sync?seconds=N                 see `wait`
//! GET  /metrics                                                      see `metrics`
//! GET  /NAME                 a page of the program's own, made from a snapshot
//! ```
//!
//! What is refused is answered with 409 and `{"kind": .., "text": ..}`: the text is for people, the
//! kind for exit codes.

mod command;
mod metrics;
mod socket;
mod wait;

pub use command::Wanted;
pub use metrics::Names;
pub use socket::{RunLock, SocketError};
pub use wait::{Ended, Outcome};

use super::limits;
use super::orders::{OrderError, Remote};
use super::snapshot::Snapshot;
use crate::node::RefusalKind;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot};
use tower::Service;

/// A page that shows the resource: its path, and how it is made.
pub type Page = (&'static str, Box<dyn Fn(&Snapshot) -> Value + Send + Sync>);

/// A control socket that answers, until it is dropped.
pub struct Control {
    /// Dropped to end it.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

#[derive(Clone)]
struct Served {
    remote: Remote,
    names: Arc<Names>,
}

impl Control {
    /// Answers on the socket of `lock`, which says that nobody else does.
    ///
    /// # Errors
    /// If the socket or the thread cannot be had.
    pub fn start(
        lock: &RunLock,
        remote: Remote,
        names: Names,
        pages: Vec<Page>,
    ) -> Result<Self, SocketError> {
        let listener = lock.bind()?;
        let failed = |error| lock.error("serve", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let router = router(remote, names, pages);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            let listener = UnixListener::from_std(listener)?;
            let stopped = async {
                // Its being dropped is the message.
                let _ = stopped.await;
            };
            axum::serve(listener, bounded(router)).with_graceful_shutdown(stopped).await
        };
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            let result: io::Result<()> = runtime.block_on(serve);
            if let Err(error) = result {
                tracing::error!("the control socket ended: {error}");
            }
        });
        Ok(Self { stop, thread: thread.map_err(failed)? })
    }

    /// Answers what was asked already, then ends. Waits for at most `patience`.
    pub fn end(self, patience: Duration) {
        drop(self.stop);
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(limits::WAIT_STEP);
        }
    }
}

/// Makes the service of each connection. Who finds no place waits for one, and all later ones with him.
fn bounded(
    router: Router,
) -> impl for<'a> Service<
    IncomingStream<'a, UnixListener>,
    Response = Router,
    Error = Infallible,
    Future: Send,
> + Send {
    let places = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS));
    tower::service_fn(move |_: IncomingStream<'_, UnixListener>| {
        let (router, places) = (router.clone(), places.clone());
        async move {
            let place = places.acquire_owned().await.expect("the semaphore is never closed");
            // Given up when the connection's service is dropped.
            Ok(router.layer(Extension(Arc::new(place))))
        }
    })
}

/// What the socket answers, whatever carries it; [`Control::start`] is the socket.
pub fn router(remote: Remote, names: Names, pages: Vec<Page>) -> Router {
    let served = Served { remote, names: Arc::new(names) };
    let mut router = Router::new()
        .route("/command", post(command::command))
        .route("/wait/connect", wait::until(wait::is_connected))
        .route("/wait/sync", wait::until(wait::is_in_sync))
        .route("/metrics", get(metrics));
    for (path, page) in pages {
        let page = Arc::new(page);
        let handler = move |State(served): State<Served>| async move {
            let snapshot = served.remote.snapshot().await?;
            Ok::<_, Refused>(Json(page(&snapshot)))
        };
        router = router.route(path, get(handler));
    }
    router.layer(DefaultBodyLimit::max(limits::CONTROL_BODY)).with_state(served)
}

async fn metrics(State(served): State<Served>) -> Result<Response, Refused> {
    let text = metrics::text(&served.names, &served.remote.snapshot().await?);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, text).into_response())
}

/// Why a request was not carried out, as it goes over the socket: its kind, and the text.
#[derive(Debug)]
struct Refused(StatusCode, &'static str, String);

impl From<OrderError> for Refused {
    fn from(error: OrderError) -> Self {
        let text = error.to_string();
        match error {
            OrderError::Refused(refusal) => Self(StatusCode::CONFLICT, name(refusal.kind), text),
            OrderError::Ending => Self(StatusCode::SERVICE_UNAVAILABLE, "ending", text),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, kind, text) = self;
        (status, Json(json!({ "kind": kind, "text": text }))).into_response()
    }
}

fn name(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::TwoPrimaries => "two-primaries",
        RefusalKind::PeerNotOutdated => "peer-not-outdated",
        RefusalKind::Primary => "primary",
        RefusalKind::Connected => "connected",
        RefusalKind::NotOutdatable => "not-outdatable",
        RefusalKind::NoUpToDateData => "no-up-to-date-data",
        RefusalKind::NoDisk => "no-disk",
        RefusalKind::InUse => "in-use",
        RefusalKind::Busy => "busy",
        RefusalKind::NotConnected => "not-connected",
        RefusalKind::State => "state",
        RefusalKind::Metadata => "metadata",
        RefusalKind::Peer => "peer",
    }
}

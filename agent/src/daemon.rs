//! The resource's own daemon, by its control socket: what it says of itself, and what it is told.

use crate::decide::{Disk, Local, Ms, NoAnswer};
use crate::peer::Answer;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tools::{Client, Failure, code};

/// How long the daemon may take to say how it is.
const STATUS: Duration = Duration::from_secs(3);
/// How long a promotion may take: the handler that it waits for is ours.
const PROMOTE: Duration = Duration::from_secs(60);
/// How long an orderly demotion may take.
const DEMOTE: Duration = Duration::from_secs(15);

/// The way to it.
pub(crate) struct Daemon {
    client: Client,
    /// The newest lease. Sent in order, so that an old one never replaces it.
    lease: AtomicU64,
    sending: Mutex<()>,
}

impl Daemon {
    pub(crate) fn new(run_dir: &Path, resource: &str) -> Self {
        let client = Client::new(run_dir, resource);
        Self { client, lease: AtomicU64::new(0), sending: Mutex::new(()) }
    }

    async fn order(&self, body: Value, limit: Duration) -> Result<(), Failure> {
        let answer = tokio::time::timeout(limit, self.client.command(&body)).await;
        answer.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(Failure::failed(format_args!("the daemon did not answer in {seconds} s")))
        })
    }

    /// How it is.
    pub(crate) async fn local(&self) -> Result<Local, NoAnswer> {
        match tokio::time::timeout(STATUS, self.client.page("/status")).await {
            Ok(Ok(status)) => read(&status).ok_or(NoAnswer::Hangs),
            Ok(Err(failure)) if failure.is_down => Err(NoAnswer::Down),
            Ok(Err(_)) | Err(_) => Err(NoAnswer::Hangs),
        }
    }

    /// It answers nobody from `until` on, unless it is told a later instant.
    pub(crate) async fn lease(&self, until: Ms) -> Result<(), String> {
        self.lease.store(until, Ordering::Release);
        self.send_lease().await
    }

    async fn send_lease(&self) -> Result<(), String> {
        let _order = self.sending.lock().await;
        let until = self.lease.load(Ordering::Acquire);
        let body = json!({ "command": "lease", "until": until });
        self.order(body, STATUS).await.map_err(|failure| failure.text)
    }

    /// Makes it Primary; with a lease, not before it has that.
    pub(crate) async fn promote(&self, with_lease: bool) -> Result<(), String> {
        if with_lease {
            self.send_lease().await?;
        }
        let body = json!({ "command": "primary" });
        self.order(body, PROMOTE).await.map_err(|failure| failure.text)
    }

    /// Makes it Secondary. One that does not run is none.
    pub(crate) async fn demote(&self, force: bool) -> Result<(), String> {
        match self.order(json!({ "command": "secondary", "force": force }), DEMOTE).await {
            Err(failure) if !failure.is_down => Err(failure.text),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes its data Outdated, stably; what can be said of that. `None`: the daemon does not run.
    pub(crate) async fn outdate(&self) -> Option<Answer> {
        match self.order(json!({ "command": "outdate" }), STATUS).await {
            Ok(()) => Some(Answer::Outdated),
            Err(failure) if failure.is_down => None,
            Err(failure) => Some(match failure.code {
                code::WORSE_ALREADY => Answer::Inconsistent,
                code::IS_PRIMARY => Answer::Primary,
                _ => {
                    tracing::info!("outdate was refused: {}", failure.text);
                    Answer::Refused
                }
            }),
        }
    }
}

/// What of `status --json` matters.
fn read(status: &Value) -> Option<Local> {
    let devices = status["devices"].as_array()?;
    let worst = devices.iter().map(|device| disk(&device["disk-state"])).min()?;
    let connected = |c: &&Value| c["connection-state"] == "Connected";
    let connection = status["connections"].as_array()?.iter().find(connected);
    let good = |connection: &Value| {
        connection["peer_devices"].as_array().is_some_and(|volumes| {
            let good = |v: &Value| disk(&v["peer-disk-state"]) == Disk::UpToDate;
            !volumes.is_empty() && volumes.iter().all(good)
        })
    };
    Some(Local {
        primary: status["role"] == "Primary",
        disk: worst,
        peer_primary: connection.map(|connection| connection["peer-role"] == "Primary"),
        peer_good: connection.is_some_and(good),
    })
}

fn disk(state: &Value) -> Disk {
    match state.as_str() {
        Some("UpToDate") => Disk::UpToDate,
        Some("Consistent") => Disk::Consistent,
        Some("Outdated") => Disk::Outdated,
        Some("Inconsistent") => Disk::Inconsistent,
        _ => Disk::Diskless,
    }
}

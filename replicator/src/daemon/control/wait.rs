//! `POST /wait/..`: answers when a state is reached, or when the time is over, with how it ended.
//! It looks again now and then, which costs the owner a snapshot each time and nothing on the way
//! of a write.

use super::{Refused, Served};
use crate::daemon::limits;
use crate::node::{ConnectionState, DiskState, ReplicationState, Status};
use axum::Json;
use axum::extract::{Query, State};
use axum::routing::{MethodRouter, post};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long.
#[derive(Debug, Deserialize)]
struct Patience {
    /// 0 or none: for ever.
    seconds: Option<f64>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// As wanted.
    Reached,
    /// It cannot be reached without an operator: a connection stands alone.
    StandAlone,
    /// Not in time.
    TimedOut,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
}

pub(super) fn until(reached: fn(&Status) -> bool) -> MethodRouter<Served> {
    post(move |State(served): State<Served>, Query(patience): Query<Patience>| async move {
        let seconds = patience.seconds.filter(|&seconds| seconds > 0.0);
        let until = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|patience| Instant::now().checked_add(patience));
        loop {
            let status = served.remote.snapshot().await?.status;
            let over = until.is_some_and(|until| Instant::now() >= until);
            let ended = match () {
                () if reached(&status) => Ended::Reached,
                () if stands_alone(&status) => Ended::StandAlone,
                () if over => Ended::TimedOut,
                () => {
                    sleep(limits::WAIT_STEP).await;
                    continue;
                }
            };
            return Ok::<_, Refused>(Json(Outcome { ended }));
        }
    })
}

pub(super) fn is_connected(status: &Status) -> bool {
    status.peers.iter().all(|peer| peer.connection == ConnectionState::Connected)
}

/// For a reason: a connection that nobody has asked for since the start may still be asked for.
fn stands_alone(status: &Status) -> bool {
    let mut peers = status.peers.iter();
    peers.any(|peer| peer.connection == ConnectionState::StandAlone && !peer.reason.is_empty())
}

/// Connected, nothing is being copied, and of every volume both copies are good.
pub(super) fn is_in_sync(status: &Status) -> bool {
    let good = |disk| matches!(disk, DiskState::UpToDate | DiskState::Diskless);
    is_connected(status)
        && status.volumes.iter().all(|volume| good(volume.disk))
        && status
            .peers
            .iter()
            .flat_map(|peer| &peer.volumes)
            .all(|volume| volume.replication == ReplicationState::Established && good(volume.disk))
}

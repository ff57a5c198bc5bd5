//! `POST /command`: an operator's command as JSON. It answers when the command has ended, with
//! `{}`, or with why it was refused.

use super::{Refused, Served};
use crate::daemon::orders::Remote;
use crate::node::{Command, Time, VolumeNumber};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The body. Commands that name a volume act on all if they name none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "they are the commands of the node, and what is said of it there")]
pub enum Wanted {
    Attach {
        volume: Option<VolumeNumber>,
    },
    Detach {
        volume: Option<VolumeNumber>,
    },
    Connect {
        #[serde(default)]
        discard_my_data: bool,
    },
    Disconnect {},
    Primary {
        #[serde(default)]
        force: bool,
    },
    Secondary {
        #[serde(default)]
        force: bool,
    },
    Invalidate {},
    InvalidateRemote {},
    Outdate {},
    SuspendIo {},
    ResumeIo {},
    /// Milliseconds of `CLOCK_BOOTTIME`, which is the node's clock.
    Lease {
        until: Option<u64>,
    },
    Down {},
}

pub(super) async fn command(
    State(served): State<Served>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let wanted = serde_json::from_slice(&body).map_err(|error| {
        let text = format!("no command can be read from this body: {error}");
        Refused(StatusCode::BAD_REQUEST, "usage", text)
    })?;
    let remote = &served.remote;
    let command = match wanted {
        Wanted::Attach { volume } => {
            for volume in volumes(remote, volume) {
                remote.attach(volume).await?;
            }
            return Ok(Json(json!({})));
        }
        Wanted::Detach { volume } => {
            for volume in volumes(remote, volume) {
                remote.command(Command::Detach(volume)).await?;
            }
            return Ok(Json(json!({})));
        }
        Wanted::Connect { discard_my_data } => Command::Connect { discard_my_data },
        Wanted::Disconnect {} => Command::Disconnect,
        Wanted::Primary { force } => Command::Primary { force },
        Wanted::Secondary { force } => Command::Secondary { force },
        Wanted::Invalidate {} => Command::Invalidate,
        Wanted::InvalidateRemote {} => Command::InvalidateRemote,
        Wanted::Outdate {} => Command::Outdate,
        Wanted::SuspendIo {} => Command::SuspendIo,
        Wanted::ResumeIo {} => Command::ResumeIo,
        Wanted::Lease { until } => {
            Command::Lease(until.map(|ms| Time(ms.saturating_mul(1_000_000))))
        }
        Wanted::Down {} => Command::Down,
    };
    remote.command(command).await?;
    Ok(Json(json!({})))
}

/// The one that is named, else all that have a disk by configuration.
fn volumes(remote: &Remote, named: Option<VolumeNumber>) -> Vec<VolumeNumber> {
    match named {
        Some(volume) => vec![volume],
        None => remote.volumes().filter(|(_, has_disk)| *has_disk).map(|(v, _)| v).collect(),
    }
}

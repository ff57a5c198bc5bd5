//! `up` and `down`: the daemon of a resource as a process, beside what it is told.

use super::target::Target;
use super::{Failure, Place};
use crate::client::{Client, ClientError};
use crate::config::Resource;
use crate::status::{ConnectionState, DiskState, Status};
use replicator::daemon::control::RunLock;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer at all, and to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const STEP: Duration = Duration::from_millis(10);
/// Bytes of its log that are shown if it does not start.
const TAIL: i64 = 2000;

pub(super) async fn up(place: &Place, target: &Target) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.whole()?.resources(&configuration)? {
        let client = Client::new(&place.run_dir(), &resource.name);
        let status = match client.page("/status").await {
            Ok(status) => status,
            Err(ClientError::NotRunning { .. }) => start(place, resource, &client).await?,
            Err(error) => return Err(error.into()),
        };
        bring_up(resource, &client, &status).await?;
    }
    Ok(())
}

/// Attaches what is not attached and connects what stands alone. The rest goes on if a disk cannot
/// be had; the command fails all the same.
async fn bring_up(resource: &Resource, client: &Client, status: &Status) -> Result<(), Failure> {
    let mut first = Ok(());
    for volume in resource.me.volumes.iter().filter(|volume| volume.disk.is_some()) {
        let device = status.devices.iter().find(|device| device.volume == volume.number);
        if device.is_some_and(|device| device.disk_state == DiskState::Diskless) {
            let attached = client.command("attach", json!({ "volume": volume.number })).await;
            first = first.and(attached);
        }
    }
    let stands_alone =
        |c: &crate::status::Connection| c.connection_state == ConnectionState::StandAlone;
    if status.connections.iter().any(stands_alone) {
        let connected = client.command("connect", json!({})).await;
        first = first.and(connected);
    }
    Ok(first?)
}

/// Starts `polluxd` in a session of its own, and waits until it answers.
async fn start(place: &Place, resource: &Resource, client: &Client) -> Result<Status, Failure> {
    let run_dir = place.run_dir();
    let log_path = run_dir.log(&resource.name);
    let cannot = |what: &Path, error: std::io::Error| {
        Failure::failed(format!("{}: {error}", what.display()))
    };
    std::fs::create_dir_all(run_dir.path()).map_err(|e| cannot(run_dir.path(), e))?;
    let log = File::options().append(true).create(true).open(&log_path);
    let log = log.map_err(|error| cannot(&log_path, error))?;
    let before = log.metadata().map_or(0, |metadata| metadata.len());
    let child = daemon(place, resource, log).and_then(|mut command| command.spawn());
    let mut child = child.map_err(|error| cannot(Path::new("polluxd"), error))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match client.page("/status").await {
            Ok(status) => return Ok(status),
            Err(ClientError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = has_ended(&mut child);
        if ended || Instant::now() > until {
            let what = if ended { "ended at once" } else { "does not answer" };
            return Err(Failure::failed(format!(
                "polluxd {what}; its log, {}, says:\n{}",
                log_path.display(),
                tail(&log_path, before)
            )));
        }
        tokio::time::sleep(STEP).await;
    }
}

/// This very program as `polluxd`: there whenever `polluxadm` is, and of the same version.
pub(crate) fn polluxd(config: &Path, node: &str, run_dir: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("polluxd").arg("--config").arg(config).arg("--node").arg(node);
    command.arg("--run-dir").arg(run_dir).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

fn daemon(place: &Place, resource: &Resource, log: File) -> std::io::Result<Command> {
    let mut command = polluxd(&place.config, &place.node(), &place.run_dir)?;
    command.args(["--no-up", "--"]).arg(&resource.name).stderr(log);
    let own_session = || {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe { command.pre_exec(own_session) };
    Ok(command)
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn tail(path: &Path, from: u64) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        let start = from.max(len.saturating_sub(TAIL as u64));
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("(it cannot be read: {error})"))
}

/// Of a resource that does not run there is nothing to do.
pub(super) async fn down(place: &Place, target: &Target) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.whole()?.resources(&configuration)? {
        let client = Client::new(&place.run_dir(), &resource.name);
        match client.command("down", json!({})).await {
            Err(ClientError::NotRunning { .. }) => continue,
            other => other?,
        }
        let until = Instant::now() + PATIENCE;
        // Its socket is closed before its lock is free, and `up` needs the lock.
        while RunLock::is_held(&place.run_dir, &resource.name) {
            if Instant::now() > until {
                let name = &resource.name;
                return Err(Failure::failed(format!(
                    "{name} is down, but its daemon has not ended"
                )));
            }
            tokio::time::sleep(STEP).await;
        }
    }
    Ok(())
}

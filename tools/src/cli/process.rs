//! `up` and `down`: the daemon of a resource as a process, beside what it is told.

use super::Place;
use super::target::Subject;
use crate::client::Client;
use crate::failure::{Failure, Result, if_up};
use crate::status::list;
use replicator::daemon::control::{RunLock, Wanted};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer at all, and to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const STEP: Duration = Duration::from_millis(10);
/// Bytes of its log that are shown if it does not start.
const SHOWN: u64 = 4000;

/// Starts the daemon if need be, attaches what is not attached and connects what stands alone. The
/// rest goes on if a disk cannot be had; the command fails all the same.
pub(crate) async fn up(it: &Subject) -> Result {
    let status = match if_up(it.status().await)? {
        Some(status) => status,
        None => start(it).await?,
    };
    let mut first = Ok(());
    for volume in it.resource.me.volumes.iter().filter(|volume| volume.disk.is_some()) {
        let device = list(&status, "devices").find(|device| device["volume"] == volume.number);
        if device.is_some_and(|device| device["disk-state"] == "Diskless") {
            first = first.and(attach_one(it, Some(volume.number)).await);
        }
    }
    if list(&status, "connections").any(|c| c["connection-state"] == "StandAlone") {
        first = first.and(it.client.command(&Wanted::Connect { discard_my_data: false }).await);
    }
    first
}

pub(super) async fn attach(it: &Subject) -> Result {
    attach_one(it, it.volume).await
}

pub(super) async fn detach(it: &Subject) -> Result {
    it.client.command(&Wanted::Detach { volume: it.volume }).await
}

/// Attaches one volume, or all, and says what of their metadata is not as it is configured.
async fn attach_one(it: &Subject, volume: Option<u16>) -> Result {
    it.client.command(&Wanted::Attach { volume }).await?;
    for device in list(&it.status().await?, "devices") {
        if volume.is_none_or(|number| device["volume"] == number)
            && let Some(reason) = device["reason"].as_str()
        {
            eprintln!("{}/{}: warning: {reason}", it.resource.name, device["volume"]);
        }
    }
    Ok(())
}

/// Starts `polluxd`, and waits until it answers.
async fn start(it: &Subject) -> Result<Value> {
    let run_dir = &it.place.run_dir;
    std::fs::create_dir_all(run_dir).map_err(|error| Failure::of(run_dir.display(), error))?;
    let path = run_dir.join(format!("{}.log", it.resource.name));
    let log = File::options().append(true).read(true).create(true).open(&path);
    let log = log.map_err(|error| Failure::of(path.display(), error))?;
    let before = log.metadata().map_or(0, |metadata| metadata.len());
    let child = log.try_clone().and_then(|log| spawn(it, log));
    let mut child = child.map_err(|error| Failure::of("polluxd", error))?;
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = if_up(it.status().await)? {
            return Ok(status);
        }
        let ended = !matches!(child.try_wait(), Ok(None));
        if ended || Instant::now() > until {
            let what = if ended { "ended at once" } else { "does not answer" };
            let mut said = Vec::new();
            let _ = (&log).seek(SeekFrom::Start(before));
            if let Err(error) = (&log).take(SHOWN).read_to_end(&mut said) {
                said = format!("(it cannot be read: {error})").into();
            }
            return Err(Failure::failed(format_args!(
                "polluxd {what}; its log, {}, says:\n{}",
                path.display(),
                String::from_utf8_lossy(&said).trim_end()
            )));
        }
        tokio::time::sleep(STEP).await;
    }
}

/// This very program as `polluxd`: there whenever `polluxadm` is, and of the same version. In a
/// process group of its own: a Ctrl-C here is not for it.
fn spawn(it: &Subject, log: File) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("polluxd").arg("--config").arg(&it.place.config).arg("--node");
    command.arg(it.place.node()).arg("--run-dir").arg(&it.place.run_dir).args(["--no-up", "--"]);
    command.arg(&it.resource.name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.process_group(0).spawn()
}

/// Of a resource that does not run there is nothing to do.
pub(crate) async fn down(place: &Place, daemon: &Client) -> Result {
    if if_up(daemon.command(&Wanted::Down {}).await)?.is_none() {
        return Ok(());
    }
    // Its socket is closed before its lock is free, and `up` needs the lock.
    let (name, until) = (&daemon.resource, Instant::now() + PATIENCE);
    while RunLock::is_held(&place.run_dir, name) {
        if Instant::now() > until {
            let text = format!("{name} is down, but its daemon has not ended");
            return Err(Failure::failed(text));
        }
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

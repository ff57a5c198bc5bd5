//! One node of the demo: its files, its daemon, its control socket.

use super::{create_md, failed};
use crate::cli::{Failure, polluxd};
use crate::client::{Client, ClientError};
use crate::resource::RunDir;
use crate::status::Status;
use replicator::daemon::control::RunLock;
use serde_json::json;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long a daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(10);

pub(super) struct Node {
    pub(super) name: &'static str,
    id: u8,
    directory: PathBuf,
    link: SocketAddr,
    pub(super) nbd: SocketAddr,
    pub(super) client: Client,
    child: Option<Child>,
}

impl Node {
    pub(super) fn new(
        within: &Path,
        name: &'static str,
        id: u8,
        link: SocketAddr,
        nbd: SocketAddr,
    ) -> Self {
        let directory = within.join(name);
        let client = Client::new(&RunDir(directory.clone()), super::RESOURCE);
        Self { name, id, directory, link, nbd, client, child: None }
    }

    /// Its `on` section.
    pub(super) fn section(&self) -> String {
        let Self { name, id, link, nbd, .. } = self;
        let disk = self.disk();
        format!(
            "  on {name} {{\n    node-id {id};\n    address {link};\n    nbd {{ listen unix; listen \
             {nbd}; }}\n    volume 0 {{ device minor {id}; disk \"{}\"; meta-disk internal; }}\n  \
             }}\n",
            disk.display()
        )
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    pub(super) fn run_dir(&self) -> String {
        self.directory.display().to_string()
    }

    pub(super) fn nbd_socket(&self, resource: &str) -> String {
        RunDir(self.directory.clone()).nbd(resource).display().to_string()
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Makes its disk, a sparse file, and the metadata in it.
    pub(super) async fn make_disk(&self, config: &Path, size: u64) -> Result<(), Failure> {
        let disk = self.disk();
        let make = || {
            std::fs::create_dir(&self.directory)?;
            File::create_new(&disk)?.set_len(size)
        };
        make().map_err(|error| failed(disk.display(), &error))?;
        let made = create_md(config, self.name).map_err(|error| failed("create-md", &error))?;
        if !made.status.success() {
            return Err(Failure::failed(String::from_utf8_lossy(&made.stderr)));
        }
        Ok(())
    }

    /// Starts its daemon, which attaches and connects by itself, and waits until it answers.
    pub(super) async fn start(&mut self, config: &Path, resource: &str) -> Result<(), Failure> {
        let path = self.directory.join("log");
        let log = File::options().append(true).create(true).open(&path);
        let log = log.map_err(|error| failed(path.display(), &error))?;
        let command = polluxd(config, self.name, &self.directory);
        let mut command = command.map_err(|error| failed("polluxd", &error))?;
        command.arg(resource).stderr(log);
        // Ctrl-C is for the demo, which ends its nodes in good order.
        command.process_group(0);
        let parent = rustix::process::getpid();
        let end_with_us = move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // If the parent is gone already, that signal will not come.
            match rustix::process::getppid() == Some(parent) {
                true => Ok(()),
                false => Err(std::io::ErrorKind::Interrupted.into()),
            }
        };
        // SAFETY: between fork and exec only prctl and getppid are called, which are
        // async-signal-safe.
        unsafe { command.pre_exec(end_with_us) };
        let child = command.spawn().map_err(|error| failed("polluxd", &error))?;
        self.child = Some(child);
        self.until_it_answers().await
    }

    async fn until_it_answers(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.client.page::<Status>("/status").await {
                Ok(_) => return Ok(()),
                Err(ClientError::NotRunning { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let ended = self.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            if ended || Instant::now() > until {
                let text = format!("{} does not run; its log says:\n{}", self.name, self.log());
                return Err(Failure::failed(text));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Kills its daemon as a power cut would end it.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Takes it down in good order, also if the operator started another daemon meanwhile.
    pub(super) async fn end(&mut self) {
        let ended = async {
            let _ = self.client.command("secondary", json!({ "force": true })).await;
            let _ = self.client.command("down", json!({})).await;
        };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
        let until = Instant::now() + PATIENCE;
        while self.runs() && Instant::now() < until {
            // A child that has ended must be asked for.
            let _ = self.child.as_mut().map(Child::try_wait);
            tokio::time::sleep(STEP).await;
        }
    }

    /// Whether a daemon runs here, ours or the operator's.
    fn runs(&self) -> bool {
        RunLock::is_held(&self.directory, super::RESOURCE)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        // The operator's: the directory it lives in is about to go.
        let path = self.directory.join(format!("{}.pid", super::RESOURCE));
        if self.runs()
            && let Some(pid) =
                std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

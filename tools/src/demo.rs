//! `polluxadm demo`: two nodes on this machine, mirrored, to look at and to break.
//!
//! The nodes are real daemons with real sockets; only their disks are sparse files in a directory
//! that is removed at the end.

use crate::cli::{Place, Subject, Target, create, down, up, wait_one};
use crate::failure::{Failure, Result};
use crate::serve::Signals;
use replicator::daemon::control::{RunLock, Wanted};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use tokio::signal::unix::SignalKind;

/// The only resource of the demo.
const RESOURCE: &str = "r0";
/// Its nodes, by node-id. Their files are in directories of that name.
const NAMES: [&str; 2] = ["alpha", "beta"];
/// Bytes of a disk.
const SIZE: u64 = 1 << 30;
/// Seconds until two new nodes must be in sync: nothing but zeros is copied.
const IN_SYNC: f64 = 120.0;

/// The demo's files and processes; all of them end with it.
struct Demo {
    nodes: Vec<Subject>,
    directory: PathBuf,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.nodes.iter().for_each(Subject::kill);
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{}: cannot be removed: {error}", self.directory.display());
        }
    }
}

pub(crate) async fn demo() -> Result {
    // Also if the terminal is closed.
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = Signals::new(&kinds)?;
    let directory = std::env::temp_dir().join(format!("pollux-demo-{}", std::process::id()));
    fs::create_dir(&directory).map_err(|error| Failure::of(directory.display(), error))?;
    let mut demo = Demo { nodes: Vec::new(), directory };
    let ended = tokio::select! {
        Err(failure) = demo.begin() => Err(failure),
        () = signals.next() => {
            say("\nending the demo");
            Ok(())
        }
    };
    demo.end().await;
    ended
}

impl Demo {
    /// Makes the disks, starts both nodes, makes the first one Primary, waits until they are in
    /// sync, says where everything is; then has nothing more to do. An error ends it at once.
    async fn begin(&mut self) -> Result {
        let config = self.directory.join("pollux.conf");
        let text = self.configuration();
        let made = text.and_then(|text| fs::write(&config, text));
        made.map_err(|error| Failure::of(config.display(), error))?;
        for name in NAMES {
            let (node, run_dir) = (Some(name.to_owned()), self.directory.join(name));
            let place = Place { config: config.clone(), node, run_dir };
            let resource = place.load()?.resources.remove(0);
            self.nodes.push(Subject::new(&place, &Target::default(), &resource)?);
        }
        let [alpha, beta] = &self.nodes[..] else { unreachable!("there are two") };
        for node in [alpha, beta] {
            let run_dir = &node.place.run_dir;
            let made = fs::create_dir(run_dir)
                .and_then(|()| File::create_new(run_dir.join("disk"))?.set_len(SIZE));
            made.map_err(|error| Failure::of(run_dir.display(), error))?;
            create(node, false)?;
            up(node).await?;
        }
        say("two nodes run, alpha and beta; alpha's (empty) disk is declared the good one");
        // Both must be there: else alpha would go on alone, and beta would miss nothing but time.
        wait_one(alpha, IN_SYNC, "connect").await?;
        alpha.client.command(&Wanted::Primary { force: true }).await?;
        wait_one(alpha, IN_SYNC, "sync").await?;
        wait_one(beta, IN_SYNC, "sync").await?;
        say("alpha is Primary, beta mirrors it, both disks are UpToDate");
        say(&self.what_to_try());
        std::future::pending().await
    }

    /// Two nodes that differ in everything but the name of the resource. They must know each other's
    /// port before they start: one that is free now, at a loopback address that only this demo uses.
    fn configuration(&self) -> std::io::Result<String> {
        let ours = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | std::process::id());
        let ports = [TcpListener::bind((ours, 0))?, TcpListener::bind((ours, 0))?];
        let mut text = format!("resource {RESOURCE} {{ meta-disk internal;\n");
        for (id, name) in NAMES.iter().enumerate() {
            let (address, disk) = (ports[id].local_addr()?, self.directory.join(name).join("disk"));
            text += &format!(
                "  on {name} {{ node-id {id}; address {address}; device minor {id}; disk \"{}\"; }}\n",
                disk.display()
            );
        }
        Ok(text + "}\n")
    }

    fn what_to_try(&self) -> String {
        let adm = std::env::current_exe().unwrap_or_else(|_| "polluxadm".into());
        let (adm, directory) = (adm.display(), self.directory.display());
        format!(
            "
NBD addresses of the device (only the Primary serves it):
  alpha  nbd+unix:///r0?socket={directory}/alpha/r0.nbd
  beta   nbd+unix:///r0?socket={directory}/beta/r0.nbd

To try, in another terminal:
  export POLLUX_CONFIG={directory}/pollux.conf
  alpha='{adm} --node alpha --run-dir {directory}/alpha'
  beta='{adm} --node beta --run-dir {directory}/beta'
  nbdcopy -- /bin/ls 'nbd+unix:///r0?socket={directory}/alpha/r0.nbd'
  $alpha status r0
  kill -9 $(cat {directory}/alpha/r0.pid)   # alpha's daemon dies
  $beta primary r0       # beta takes over, with the same data
  $alpha up r0           # alpha returns, and is brought up to date
  $beta status r0

Ctrl-C ends the demo and removes {directory}"
        )
    }

    /// Takes the nodes down in good order; what does not go is killed when this is dropped.
    async fn end(&self) {
        for node in &self.nodes {
            let _ = node.client.command(&Wanted::Secondary { force: true }).await;
            let _ = down(&node.place, &node.client).await;
        }
    }
}

/// A line of the story. A reader that has gone is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Subject {
    /// Kills its daemon, ours or the operator's, as a power cut would end it, and waits until it is
    /// gone.
    fn kill(&self) {
        let run_dir = &self.place.run_dir;
        if !RunLock::is_held(run_dir, RESOURCE) {
            return;
        }
        let lock = RunLock::path(run_dir, RESOURCE);
        let pid = fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
            // Its lock is free when it is gone.
            let _ = File::open(lock).and_then(|lock| lock.lock_shared());
        }
    }
}

//! `polluxadm demo`: two nodes on this machine, mirrored, to look at and to break. With `--check` it
//! breaks them itself and says whether all is well.
//!
//! The nodes are real daemons with real sockets; only their disks are sparse files in a directory
//! that is removed at the end.

mod check;

use crate::cli::{Life, Place, Subject, Target, create, ended, up};
use crate::config::Listen;
use crate::failure::{Failure, Result};
use crate::serve::Signals;
use replicator::daemon::control::{Ended, RunLock, Wanted};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// The only resource of the demo.
const RESOURCE: &str = "r0";
/// Its nodes, by node-id.
const NAMES: [&str; 2] = ["alpha", "beta"];
/// Seconds until two new nodes must be in sync: nothing but zeros is copied.
const IN_SYNC: f64 = 120.0;

/// What `polluxadm demo` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to make the directory of the demo; else where temporary files go.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of the device.
    #[arg(long, default_value = "1G", value_parser = size, value_name = "BYTES[K|M|G|T]")]
    size: u64,
    /// Play the whole story and say whether it went well: write, kill the Primary, promote the
    /// other, read back, let the first one return.
    #[arg(long)]
    check: bool,
    /// Also end when standard input ends.
    #[arg(long, conflicts_with = "check")]
    oneshot: bool,
}

fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[number.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        other => return Err(format!("`{other}` is no unit: K, M, G or T")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size"))?;
    let bytes = number.checked_mul(1 << shift).filter(|&bytes| bytes >= 16 << 20);
    bytes.ok_or_else(|| "the smallest device is 16M".to_owned())
}

/// The demo's files and processes; all of them end with it.
struct Demo {
    /// Their files are in their run directories, named after them.
    nodes: Vec<Subject>,
    directory: PathBuf,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.nodes.iter().for_each(Subject::kill);
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{}: cannot be removed: {error}", self.directory.display());
        }
    }
}

pub(crate) async fn demo(options: Options) -> Result {
    let mut signals = Signals::new()?;
    let mut told_to_end = async || {
        signals.next().await;
        say("\nending the demo");
    };
    // Told to end early: what was begun is dropped, and with it processes and files go.
    let mut demo = tokio::select! {
        demo = Demo::begin(&options) => demo?,
        () = told_to_end() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = demo.go_on(&options) => outcome,
        () = told_to_end() => Ok(()),
    };
    demo.end().await;
    outcome
}

impl Demo {
    /// Makes the disks, starts both nodes, makes the first one Primary, and waits until they are in
    /// sync.
    async fn begin(options: &Options) -> Result<Self> {
        let within = options.dir.clone().unwrap_or_else(std::env::temp_dir);
        let path = within.join(format!("pollux-demo-{}", std::process::id()));
        std::fs::create_dir_all(&within).map_err(|error| Failure::of(within.display(), error))?;
        std::fs::create_dir(&path).map_err(|error| Failure::of(path.display(), error))?;
        let mut demo = Self { nodes: Vec::new(), directory: path };
        let config = demo.config();
        let ports = free_ports().map_err(|error| Failure::of("127.0.0.1", error))?;
        let text = configuration(&demo.directory, ports);
        std::fs::write(&config, text).map_err(|error| Failure::of(config.display(), error))?;
        for name in NAMES {
            let run_dir = demo.directory.join(name);
            let node = Some(name.to_owned());
            let place = Place { config: config.clone(), node, run_dir };
            let resource = place.load()?.resources.remove(0);
            demo.nodes.push(Subject::new(&place, &Target::default(), &resource));
        }
        for node in &demo.nodes {
            node.make_disk(options.size)?;
            up(node, Life::Ours).await?;
        }
        say("two nodes run, alpha and beta; alpha's (empty) disk is declared the good one");
        // Both must be there: else alpha would go on alone, and beta would miss nothing but time.
        demo.nodes[0].wait("connect", IN_SYNC).await?;
        demo.nodes[0].client.command(&Wanted::Primary { force: true }).await?;
        demo.wait_sync().await?;
        say("alpha is Primary, beta mirrors it, both disks are UpToDate");
        Ok(demo)
    }

    async fn go_on(&mut self, options: &Options) -> Result {
        if options.check { check::check(self).await } else { self.show(options).await }
    }

    async fn wait_sync(&self) -> Result {
        for node in &self.nodes {
            node.wait("sync", IN_SYNC).await?;
        }
        Ok(())
    }

    /// Says where everything is, and waits for the end.
    async fn show(&self, options: &Options) -> Result {
        let [alpha, beta] = &self.nodes[..] else { unreachable!("there are two") };
        let adm = std::env::current_exe().unwrap_or_else(|_| "polluxadm".into());
        let adm = adm.display();
        let of = |node: &Subject| {
            let Place { node, run_dir, .. } = &node.place;
            let name = node.as_deref().unwrap_or_default();
            format!("{adm} --node {name} --run-dir {}", run_dir.display())
        };
        let (pid, to_alpha) = (alpha.pid().unwrap_or(0), alpha.uri());
        let lines = [
            "\nNBD addresses of the device (only the Primary serves it):".to_owned(),
            format!("  alpha  {to_alpha}\n         {}", alpha.tcp_uri()),
            format!("  beta   {}\n         {}", beta.uri(), beta.tcp_uri()),
            "\nTo try, in another terminal:".to_owned(),
            format!("  export POLLUX_CONFIG={}", self.config().display()),
            format!("  alpha='{}'\n  beta='{}'", of(alpha), of(beta)),
            format!("  nbdcopy -- /bin/ls '{to_alpha}'"),
            format!("  $alpha status {RESOURCE}"),
            format!("  kill -9 {pid}          # alpha's daemon dies"),
            format!("  $beta primary {RESOURCE}       # beta takes over, with the same data"),
            format!("  $alpha up {RESOURCE}           # alpha returns, and is brought up to date"),
            format!("  $beta status {RESOURCE}"),
            format!("\nCtrl-C ends the demo and removes {}", self.directory.display()),
        ];
        say(&lines.join("\n"));
        if options.oneshot {
            let ended = tokio::task::spawn_blocking(|| {
                let mut input = std::io::stdin().lock();
                // An error is an end, too.
                while input.read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0) {}
            });
            let _ = ended.await;
            return Ok(());
        }
        std::future::pending().await
    }

    fn config(&self) -> PathBuf {
        self.directory.join("pollux.conf")
    }

    /// Takes the nodes down in good order; what does not go is killed when this is dropped.
    async fn end(&self) {
        for it in &self.nodes {
            let _ = it.client.command(&Wanted::Secondary { force: true }).await;
            let _ = it.client.command(&Wanted::Down {}).await;
            let _ = ended(it).await;
        }
    }
}

/// Ports that were free a moment ago; the nodes must know each other's before they start.
fn free_ports() -> std::io::Result<[SocketAddr; 4]> {
    let listen = || TcpListener::bind("127.0.0.1:0");
    let all = [listen()?, listen()?, listen()?, listen()?];
    let [a, b, c, d] = all.each_ref().map(TcpListener::local_addr);
    Ok([a?, b?, c?, d?])
}

/// Two nodes that differ in everything but the name of the resource.
fn configuration(directory: &Path, [link_a, link_b, nbd_a, nbd_b]: [SocketAddr; 4]) -> String {
    let on = |id: usize, link: SocketAddr, nbd: SocketAddr| {
        let disk = directory.join(NAMES[id]).join("disk");
        format!(
            "  on {} {{\n    node-id {id};\n    address {link};\n    nbd {{ listen unix; listen \
             {nbd}; }}\n    volume 0 {{ device minor {id}; disk \"{}\"; meta-disk internal; }}\n  \
             }}\n",
            NAMES[id],
            disk.display()
        )
    };
    format!("resource {RESOURCE} {{\n{}{}}}\n", on(0, link_a, nbd_a), on(1, link_b, nbd_b))
}

/// A line of the story. A reader that has gone is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Subject {
    fn name(&self) -> &str {
        &self.resource.me.name
    }

    fn disk(&self) -> PathBuf {
        self.place.run_dir.join("disk")
    }

    fn socket(&self) -> PathBuf {
        self.place.run_dir().nbd(RESOURCE)
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///{RESOURCE}?socket={}", self.socket().display())
    }

    fn tcp_uri(&self) -> String {
        let tcp = self.resource.me.nbd.iter().find_map(|listen| match listen {
            Listen::Tcp(address) => Some(format!("nbd://{address}/{RESOURCE}")),
            Listen::Unix => None,
        });
        tcp.unwrap_or_default()
    }

    /// Makes its disk, a sparse file, and the metadata in it.
    fn make_disk(&self, size: u64) -> Result {
        let disk = self.disk();
        let make = || {
            std::fs::create_dir(&self.place.run_dir)?;
            File::create_new(&disk)?.set_len(size)
        };
        make().map_err(|error| Failure::of(disk.display(), error))?;
        create(self, false)
    }

    async fn wait(&self, what: &str, seconds: f64) -> Result {
        let ended = match self.client.wait(what, seconds).await? {
            Ended::Reached => return Ok(()),
            Ended::StandAlone => "stand-alone",
            Ended::TimedOut => "timed-out",
        };
        let log = std::fs::read(self.place.run_dir().log(RESOURCE)).unwrap_or_default();
        Err(Failure::failed(format_args!(
            "{}: waiting for {what} ended with `{ended}`; its log says:\n{}",
            self.name(),
            String::from_utf8_lossy(&log)
        )))
    }

    fn lock(&self) -> PathBuf {
        RunLock::path(&self.place.run_dir, RESOURCE)
    }

    /// Of the daemon that runs here, ours or the operator's.
    fn pid(&self) -> Option<i32> {
        let is_running = RunLock::is_held(&self.place.run_dir, RESOURCE);
        let text = std::fs::read_to_string(self.lock()).ok().filter(|_| is_running)?;
        text.trim().parse().ok()
    }

    /// Kills its daemon as a power cut would end it, and waits until it is gone.
    fn kill(&self) {
        if let Some(pid) = self.pid().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
            // Its lock is free when it is gone.
            let _ = File::open(self.lock()).and_then(|lock| lock.lock_shared());
        }
    }
}

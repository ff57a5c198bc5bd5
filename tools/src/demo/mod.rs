//! `polluxadm demo`: two nodes on this machine, mirrored, to look at and to break. With `--check` it
//! breaks them itself and says whether all is well.
//!
//! The nodes are real daemons with real sockets; only their disks are sparse files in a directory
//! that is removed at the end.

mod check;
mod nbd_client;
mod node;

use crate::cli::Failure;
use crate::client::ClientError;
use node::Node;
use serde_json::json;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// The only resource of the demo.
const RESOURCE: &str = "r0";
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
    // Before the directory: fields are dropped in order.
    nodes: [Node; 2],
    directory: Directory,
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: cannot be removed: {error}", self.0.display());
        }
    }
}

pub(crate) async fn demo(options: Options) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| failed("signals", &e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed("signals", &e))?;
    let mut told_to_end = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
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
    async fn begin(options: &Options) -> Result<Self, Failure> {
        let within = options.dir.clone().unwrap_or_else(std::env::temp_dir);
        let path = within.join(format!("pollux-demo-{}", std::process::id()));
        std::fs::create_dir_all(&within).map_err(|error| failed(within.display(), &error))?;
        std::fs::create_dir(&path).map_err(|error| failed(path.display(), &error))?;
        let directory = Directory(path);
        let ports = free_ports().map_err(|error| failed("127.0.0.1", &error))?;
        let [link_a, link_b, nbd_a, nbd_b] = ports;
        let nodes = [
            Node::new(&directory.0, "alpha", 0, link_a, nbd_a),
            Node::new(&directory.0, "beta", 1, link_b, nbd_b),
        ];
        let config = directory.0.join("pollux.conf");
        let text =
            format!("resource {RESOURCE} {{\n{}{}}}\n", nodes[0].section(), nodes[1].section());
        std::fs::write(&config, text).map_err(|error| failed(config.display(), &error))?;
        let mut demo = Self { nodes, directory };
        for node in &mut demo.nodes {
            node.make_disk(&config, options.size).await?;
            node.start(&config, RESOURCE).await?;
        }
        say("two nodes run, alpha and beta; alpha's (empty) disk is declared the good one");
        // Both must be there: else alpha would go on alone, and beta would miss nothing but time.
        demo.nodes[0].wait("connect", IN_SYNC).await?;
        demo.nodes[0].client.command("primary", json!({ "force": true })).await?;
        demo.wait_sync().await?;
        say("alpha is Primary, beta mirrors it, both disks are UpToDate");
        Ok(demo)
    }

    async fn go_on(&mut self, options: &Options) -> Result<(), Failure> {
        if options.check { check::check(self).await } else { self.show(options).await }
    }

    async fn wait_sync(&self) -> Result<(), Failure> {
        for node in &self.nodes {
            node.wait("sync", IN_SYNC).await?;
        }
        Ok(())
    }

    /// Says where everything is, and waits for the end.
    async fn show(&self, options: &Options) -> Result<(), Failure> {
        let [alpha, beta] = &self.nodes;
        let adm = std::env::current_exe().unwrap_or_else(|_| "polluxadm".into());
        let adm = adm.display();
        let config = self.config();
        let of = |node: &Node| format!("{adm} --node {} --run-dir {}", node.name, node.run_dir());
        let uri =
            |node: &Node| format!("nbd+unix:///{RESOURCE}?socket={}", node.nbd_socket(RESOURCE));
        let (pid, to_alpha) = (alpha.pid().unwrap_or(0), uri(alpha));
        let lines = [
            "\nNBD addresses of the device (only the Primary serves it):".to_owned(),
            format!("  alpha  {to_alpha}\n         nbd://{}/{RESOURCE}", alpha.nbd),
            format!("  beta   {}\n         nbd://{}/{RESOURCE}", uri(beta), beta.nbd),
            "\nTo try, in another terminal:".to_owned(),
            format!("  export POLLUX_CONFIG={}", config.display()),
            format!("  alpha='{}'\n  beta='{}'", of(alpha), of(beta)),
            format!("  nbdcopy -- /bin/ls '{to_alpha}'"),
            format!("  $alpha status {RESOURCE}"),
            format!("  kill -9 {pid}          # alpha's daemon dies"),
            format!("  $beta primary {RESOURCE}       # beta takes over, with the same data"),
            format!("  $alpha up {RESOURCE}           # alpha returns, and is brought up to date"),
            format!("  $beta status {RESOURCE}"),
            format!("\nCtrl-C ends the demo and removes {}", self.directory.0.display()),
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
        self.directory.0.join("pollux.conf")
    }

    /// Takes the nodes down in good order; what does not go is killed when this is dropped.
    async fn end(&mut self) {
        for node in &mut self.nodes {
            node.end().await;
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

/// Runs this program's `create-md` as an operator would.
fn create_md(config: &Path, node: &str) -> std::io::Result<std::process::Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--config").arg(config).args(["--node", node, "create-md", RESOURCE]).output()
}

fn failed(what: impl std::fmt::Display, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{what}: {error}"))
}

/// A line of the story. A reader that has gone is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Node {
    async fn wait(&self, what: &str, seconds: f64) -> Result<(), Failure> {
        match self.client.wait(what, seconds).await?.as_str() {
            "reached" => Ok(()),
            other => Err(Failure::failed(format!(
                "{}: waiting for {what} ended with `{other}`; its log says:\n{}",
                self.name,
                self.log()
            ))),
        }
    }

    async fn status(&self) -> Result<crate::status::Status, ClientError> {
        self.client.page("/status").await
    }
}

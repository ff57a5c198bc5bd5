//! What agents act on here: daemons that are played, in the words of their control socket, and are told what to refuse; the agents
//! themselves; files. How a real daemon behaves is not known here: tests/tests/cluster_agent.rs has those.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const NODES: [&str; 2] = ["alpha", "beta"];

/// Is the program there? With `CI=true` it must be.
pub(crate) fn lacks(programs: &[&str]) -> bool {
    let has = |name: &&str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin", ""].map(PathBuf::from);
        std::env::split_paths(&folders).chain(system).any(|at| at.join(name).exists())
    };
    let missing: Vec<_> = programs.iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        let text = format!("SKIPPED: this machine lacks {missing:?}");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{text}");
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    !missing.is_empty()
}

pub(crate) fn wait_for(what: &str, seconds: u64, mut ready: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed().as_secs() < seconds, "waited {seconds} s for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begin.elapsed()
}

/// An address of this process alone: all of 127.0.0.0/8 is loopback.
pub(crate) fn ip() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | std::process::id())
}

pub(crate) fn port() -> u16 {
    let listener = TcpListener::bind((ip(), 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A process, killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("a log");
        let err = out.try_clone().expect("a descriptor");
        Self(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("it starts"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        self.0.wait().expect("our own child");
    }

    /// Its exit code, when it has ended by itself.
    pub(crate) fn ends(&mut self, seconds: u64) -> Option<i32> {
        let mut ended = None;
        wait_for("the end of a process", seconds, || {
            ended = self.0.try_wait().expect("our own child");
            ended.is_some()
        });
        ended.and_then(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A daemon that is played.
#[derive(Clone, Default)]
pub(crate) struct Daemon {
    pub(crate) primary: bool,
    pub(crate) lease: Option<u64>,
    /// Being Primary it was without a lease when the next one came.
    pub(crate) lapses: u32,
    pub(crate) refuses_demotion: bool,
    /// It answers nobody, as one that is stopped.
    pub(crate) hangs: bool,
    /// What it was told, but for leases.
    pub(crate) told: Vec<String>,
}

/// The daemons of both nodes, by resource.
pub(crate) type Board = Arc<Mutex<BTreeMap<String, [Daemon; 2]>>>;

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

fn play(daemons: &mut [Daemon; 2], n: usize, said: &Value) -> Result<(), &'static str> {
    let command = said["command"].as_str().unwrap_or_default();
    if command == "lease" {
        let (now, daemon) = (now(), &mut daemons[n]);
        daemon.lapses += u32::from(daemon.primary && daemon.lease.is_some_and(|it| it < now));
        daemon.lease = said["until"].as_u64();
        return Ok(());
    }
    let force = if said["force"] == true { " --force" } else { "" };
    daemons[n].told.push(format!("{command}{force}"));
    match command {
        "primary" => {
            let other = &mut daemons[1 - n];
            if other.primary && other.lease.is_none_or(|until| now() < until) {
                return Err("the peer is Primary");
            }
            other.primary = false;
            daemons[n].primary = true;
        }
        "secondary" if daemons[n].refuses_demotion => return Err("it will not"),
        "secondary" => (daemons[n].primary, daemons[n].lease) = (false, None),
        other => panic!("the agent orders {other}"),
    }
    Ok(())
}

fn answer(stream: &mut UnixStream, board: &Board, resource: &str, n: usize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
        let line = head[from..].to_lowercase();
        length =
            line.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap_or(0));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut all = board.lock().unwrap_or_else(PoisonError::into_inner);
    while all.get(resource)?[n].hangs {
        drop(all);
        std::thread::sleep(Duration::from_millis(20));
        all = board.lock().unwrap_or_else(PoisonError::into_inner);
    }
    let daemons = all.get_mut(resource)?;
    let role = |n: usize| if daemons[n].primary { "Primary" } else { "Secondary" };
    let (status, text) = if head.starts_with("GET") {
        let disk = json!({ "peer-disk-state": "UpToDate" });
        let peer = json!({ "connection-state": "Connected", "peer-role": role(1 - n), "peer_devices": [disk] });
        let devices = json!([{ "disk-state": "UpToDate" }]);
        (200, json!({ "role": role(n), "devices": devices, "connections": [peer] }))
    } else {
        match play(daemons, n, &serde_json::from_slice(&body).ok()?) {
            Ok(()) => (200, json!({})),
            Err(why) => (409, json!({ "kind": "refused", "text": why })),
        }
    };
    let text = text.to_string();
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
    .ok()
}

/// A directory with what two nodes need.
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    board: Board,
    /// What programs are run by: for those that change addresses, a network of their own.
    pub(crate) inside: Vec<String>,
}

impl Stage {
    pub(crate) fn new(name: &str, resources: &[&str]) -> Self {
        // Not below the target directory: the path of a socket is short.
        let dir = std::env::temp_dir().join(format!("pollux-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let board = Board::default();
        let mut conf = String::new();
        for (n, resource) in resources.iter().enumerate() {
            let port = 7800 + n;
            conf += &format!(
                "resource {resource} {{\n  net {{ fencing resource-and-stonith; shared-secret \"x\"; }}\n  options {{ auto-promote no; }}\n  \
                 handlers {{ fence-peer \"pollux-agent fence-peer\"; unfence-peer \"pollux-agent unfence-peer\"; }}\n  \
                 device minor {n}; disk /dev/disk{n}; meta-disk internal;\n  \
                 on alpha {{ node-id 0; address 127.0.0.1:{port}; }}\n  on beta {{ node-id 1; address 127.0.0.2:{port}; }}\n}}\n"
            );
            board.lock().expect("ours").insert((*resource).to_owned(), Default::default());
        }
        for (n, node) in NODES.into_iter().enumerate() {
            std::fs::create_dir_all(dir.join(node)).expect("a directory");
            for resource in resources {
                let listener = UnixListener::bind(dir.join(node).join(format!("{resource}.sock")));
                let (listener, board, resource) =
                    (listener.expect("a socket"), board.clone(), (*resource).to_owned());
                std::thread::spawn(move || {
                    for mut stream in listener.incoming().flatten() {
                        // Who goes away does not want it.
                        let _ = answer(&mut stream, &board, &resource, n);
                    }
                });
            }
        }
        let stage = Self { dir, board, inside: Vec::new() };
        stage.put("pollux.conf", 0o600, &conf);
        stage
    }

    pub(crate) fn daemons(&self) -> MutexGuard<'_, BTreeMap<String, [Daemon; 2]>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn daemon(&self, resource: &str, n: usize) -> Daemon {
        self.daemons()[resource][n].clone()
    }

    pub(crate) fn put(&self, name: &str, mode: u32, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("ours");
        path.display().to_string()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let words = [&self.inside[..], &[program.to_owned()]].concat();
        let mut command = Command::new(&words[0]);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(&words[1..])
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.dir.display()));
        command
    }

    fn program(&self, n: usize) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pollux-agent"));
        let dir = self.dir.join(NODES[n]);
        command.arg("--config").arg(self.dir.join("pollux.conf"));
        command.arg("--agent-config").arg(self.dir.join("agent.toml")).args(["--node", NODES[n]]);
        command.arg("--run-dir").arg(&dir).arg("--state-dir").arg(dir.join("state"));
        command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG");
        command
    }

    /// The agent of a node.
    pub(crate) fn agent(&self, n: usize) -> Process {
        let log = self.dir.join(NODES[n]).join("log");
        let agent = Process::start(self.program(n).arg("run"), &log);
        wait_for("the agent's socket", 20, || self.cli(n, &["status"]).0 == Some(0));
        agent
    }

    pub(crate) fn log(&self, n: usize) -> String {
        self.text(&format!("{}/log", NODES[n]))
    }

    /// A command of the agent: its exit code, and what it said.
    pub(crate) fn cli(&self, n: usize, words: &[&str]) -> (Option<i32>, String) {
        let output = self.program(n).args(words).output().expect("it runs");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    pub(crate) fn status(&self, n: usize, resource: &str) -> Value {
        let (_, said) = self.cli(n, &["status", "--json", resource]);
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    pub(crate) fn is(&self, n: usize, resource: &str, phase: &str) -> bool {
        self.status(n, resource)["phase"] == phase
    }

    pub(crate) fn wait(&self, n: usize, resource: &str, phase: &str) -> Duration {
        wait_for(&format!("{resource} {phase} on {}; log:\n", NODES[n]), 40, || {
            self.is(n, resource, phase)
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("alpha:\n{}\nbeta:\n{}", self.log(0), self.log(1));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

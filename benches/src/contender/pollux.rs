//! Pollux as an operator would set it up, but for the two nodes being on one machine: two polluxd, protocol C, NBD over TCP.

use super::delay::Delay;
use super::{Contender, Running, image, metadata};
use crate::Error;
use crate::process::{Process, free_ports, run};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long one command may take, in seconds; the first full synchronisation is the longest.
const COMMAND_SECONDS: u64 = 120;
/// The nodes; the first becomes Primary.
const NODES: [&str; 2] = ["alpha", "beta"];

/// Builds both programs, in the profile in which this one was built. Without cargo they must be there.
pub(super) fn build() -> Result<(), Error> {
    let programs = programs()?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let profile = match programs.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        if profile != "release" {
            eprintln!("these are figures of the profile `{profile}`: use cargo run --release");
        }
        let target = programs.parent().unwrap_or(&programs);
        let status = Command::new(&cargo)
            .args(["build", "-p", "tools", "--bins", "--profile", profile, "--target-dir"])
            .arg(target)
            .stdin(Stdio::null())
            .status()
            .map_err(|source| Error::Start { program: "cargo".into(), source })?;
        if !status.success() {
            return Err(Error::Failed {
                what: "cargo build -p tools".into(),
                status,
                said: "see above".into(),
            });
        }
    }
    for name in ["polluxd", "polluxadm"] {
        if !programs.join(name).is_file() {
            return Err(Error::Missing(format!("{name} in {}", programs.display())));
        }
    }
    Ok(())
}

/// What may differ between two pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// As whom the pair takes part.
    pub(crate) contender: Contender,
    /// Are the fresh disks declared equal, rather than copied from one to the other?
    pub(crate) declared_equal: bool,
    /// What each byte between the nodes waits, if there is something between them that can make it wait.
    pub(crate) delay: Option<Duration>,
}

/// A pair that runs, and how long that took.
pub(crate) struct Pair {
    /// Both daemons; the first is Primary.
    pub(crate) running: Running,
    nodes: Vec<Node>,
    dir: PathBuf,
    /// `create-md` on one node, the slower one.
    pub(crate) create_md: Duration,
    /// From the start of the first daemon to both disks being UpToDate and connected.
    pub(crate) up: Duration,
}

impl Setup {
    /// Both nodes connected and UpToDate, the first one Primary.
    pub(crate) fn start(self, dir: &Path, size: u64) -> Result<Pair, Error> {
        std::fs::create_dir_all(dir).map_err(Error::file(dir))?;
        let copies = vec![image(dir, "alpha.raw", size)?, image(dir, "beta.raw", size)?];
        let [port, other_port, first, second] = free_ports()?;
        let link = self.delay.map(|delay| Delay::before(second, delay)).transpose()?;
        // The lower node-id dials: of the addresses, only that of the second is used, and only by the first.
        let seen_by_first = link.as_ref().map_or(second, Delay::port);
        let mut nodes = Vec::new();
        for (name, peer) in NODES.into_iter().zip([[first, seen_by_first], [first, second]]) {
            let node = Node::new(dir, name)?;
            let text = self.configuration(dir, &copies, [port, other_port], peer);
            std::fs::write(&node.config, text).map_err(Error::file(&node.config))?;
            nodes.push(node);
        }
        let mut create_md = Duration::ZERO;
        for node in &nodes {
            let start = Instant::now();
            node.adm(&["create-md", "--force", "r0"])?;
            create_md = create_md.max(start.elapsed());
            if self.declared_equal {
                metadata::declare_equal(&dir.join(format!("{}.meta", node.name)))?;
            }
        }
        let start = Instant::now();
        // Who accepts comes first: who dials in vain waits before it does so again.
        let beta = nodes[1].daemon(dir)?;
        let alpha = nodes[0].daemon(dir)?;
        let mut running = Running::new(self.contender, port, "r0");
        running.processes = vec![alpha, beta];
        running.copies = copies;
        running.link = link;
        nodes[0].adm(&["wait-connect", "r0"])?;
        if !self.declared_equal {
            nodes[0].adm(&["primary", "--force", "r0"])?;
        }
        nodes[0].adm(&["wait-sync", "r0"])?;
        let up = start.elapsed();
        nodes[0].adm(&["primary", "r0"])?;
        running.processes[0].wait_for_port(port)?;
        Ok(Pair { running, nodes, dir: dir.to_owned(), create_md, up })
    }

    /// What a node is told: where the NBD servers listen, and at which address it sees which node.
    fn configuration(self, dir: &Path, disks: &[PathBuf], nbd: [u16; 2], peer: [u16; 2]) -> String {
        let more = match self.contender {
            Contender::PolluxCrc => "net { data-integrity-alg crc32; }",
            Contender::PolluxDirect => "disk { direct-io yes; }",
            _ => "",
        };
        let mut text = format!("resource r0 {{\n    net {{ protocol C; }}\n    {more}\n");
        for (i, name) in NODES.iter().enumerate() {
            let (nbd, peer, dir, disk) = (nbd[i], peer[i], dir.display(), disks[i].display());
            text += &format!(
                "    on {name} {{
        node-id {i};
        address 127.0.0.1:{peer};
        nbd {{ listen 127.0.0.1:{nbd}; }}
        volume 0 {{
            device minor {i};
            disk \"{disk}\";
            meta-disk \"{dir}/{name}.meta\";
        }}
    }}\n"
            );
        }
        text + "}\n"
    }
}

impl Pair {
    /// A command for one of the nodes; what it printed.
    pub(crate) fn adm(&self, node: usize, words: &[&str]) -> Result<String, Error> {
        self.nodes[node].adm(words)
    }

    /// Waits until no extent is active on the first.
    pub(crate) fn wait_for_empty_log(&mut self) -> Result<(), Error> {
        let (node, daemon) = (&self.nodes[0], &mut self.running.processes[0]);
        let is_clean = || {
            let said = node.adm(&["get-gi", "r0"]);
            said.is_ok_and(|said| said.trim().split(':').nth(8) == Some("1"))
        };
        daemon.wait_until("an empty activity log", Duration::from_secs(60), is_clean)
    }

    /// The file that holds a node's copy.
    pub(crate) fn copy(&self, node: usize) -> &Path {
        &self.running.copies[node]
    }

    /// The process id of a node's daemon.
    pub(crate) fn id(&self, node: usize) -> u32 {
        self.running.processes[node].id()
    }

    /// The second node's disk is gone, and a new one in its place, holes from end to end. `begin`: what is done before its daemon
    /// starts.
    pub(crate) fn replace_disk<T>(
        &mut self,
        begin: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.running.processes[1].stop()?;
        let copy = self.copy(1);
        let size = std::fs::metadata(copy).map_err(Error::file(copy))?.len();
        // `image` makes it anew.
        image(&self.dir, "beta.raw", 0)?;
        image(&self.dir, "beta.raw", size)?;
        self.adm(1, &["create-md", "--force", "r0"])?;
        let begun = begin()?;
        self.running.processes[1] = self.nodes[1].daemon(&self.dir)?;
        self.adm(0, &["wait-connect", "r0"])?;
        Ok(begun)
    }

    /// The daemon of the Primary is killed, and starts again. `begin` as above.
    pub(crate) fn crash<T>(
        &mut self,
        begin: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.running.processes[0].kill();
        let begun = begin()?;
        self.running.processes[0] = self.nodes[0].daemon(&self.dir)?;
        self.adm(0, &["wait-connect", "r0"])?;
        Ok(begun)
    }
}

/// One of the two nodes on this machine.
struct Node {
    name: &'static str,
    config: PathBuf,
    run: PathBuf,
}

impl Node {
    fn new(dir: &Path, name: &'static str) -> Result<Self, Error> {
        let run = dir.join(name);
        std::fs::create_dir_all(&run).map_err(Error::file(&run))?;
        Ok(Self { name, config: dir.join(format!("{name}.conf")), run })
    }

    /// The options that say which node is meant, then these words.
    fn arguments(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--config".into(), self.config.clone().into()];
        arguments.extend(["--node".into(), self.name.into()]);
        arguments.extend(["--run-dir".into(), self.run.clone().into()]);
        arguments.extend(words.iter().map(OsString::from));
        arguments
    }

    fn adm(&self, words: &[&str]) -> Result<String, Error> {
        let output = run(COMMAND_SECONDS, &programs()?.join("polluxadm"), self.arguments(words))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn daemon(&self, dir: &Path) -> Result<Process, Error> {
        let program = programs()?.join("polluxd");
        // Of one that was killed.
        let _ = std::fs::remove_file(self.run.join("r0.sock"));
        let mut daemon = Process::start(dir, self.name, &program, self.arguments(&["r0"]))?;
        let control = self.run.join("r0.sock");
        daemon.wait_until("its control socket", Duration::from_secs(15), || control.exists())?;
        Ok(daemon)
    }
}

/// The directory of this program: the others of the same build are there too.
fn programs() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::file("this program"))?;
    Ok(program.parent().map_or_else(PathBuf::new, Path::to_owned))
}

//! Two nodes on this machine, as an operator has them: a configuration, two run directories, two
//! sparse disks, and `polluxadm`. Every daemon ends with its node.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing here takes longer, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a disk.
pub(crate) const DISK: u64 = 64 << 20;

/// Both nodes' files.
pub(crate) struct Pair {
    directory: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// It ended well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// It ended with this code, and said this on stderr.
    pub(crate) fn fails(self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(text), "no `{text}` in {self:?}");
    }
}

impl Pair {
    /// Files, no metadata, nothing running. `options` goes into the resource.
    pub(crate) fn new(options: &str) -> Self {
        let pair = Self { directory: tempfile::tempdir().expect("a directory") };
        // An address of this process alone: tests run side by side.
        let ours = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | std::process::id());
        let ports = [(); 2].map(|()| TcpListener::bind((ours, 0)).expect("a port"));
        let address = |node: usize| ports[node].local_addr().expect("an address");
        let on = |node: usize, name: &str| {
            let disk = pair.disk(name);
            File::create(&disk).and_then(|file| file.set_len(DISK)).expect("a disk");
            format!(
                "on {name} {{ node-id {node}; address {}; volume 0 {{ device minor {node}; disk \
                 \"{}\"; meta-disk internal; }} }}\n",
                address(node),
                disk.display()
            )
        };
        let text = format!("resource r0 {{\n{options}\n{}{}}}\n", on(0, "alpha"), on(1, "beta"));
        fs::write(pair.config(), text).expect("a configuration");
        pair
    }

    /// Both nodes with metadata, up, and in sync; alpha is Primary.
    pub(crate) fn in_sync(options: &str) -> Self {
        let pair = Self::new(options);
        for node in ["alpha", "beta"] {
            pair.adm(node, &["create-md", "r0"]).ok();
            pair.adm(node, &["up", "r0"]).ok();
        }
        pair.adm("alpha", &["wait-connect", "r0", "--timeout", "60"]).ok();
        pair.adm("alpha", &["primary", "--force", "r0"]).ok();
        for node in ["alpha", "beta"] {
            pair.adm(node, &["wait-sync", "r0", "--timeout", "60"]).ok();
        }
        pair
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("pollux.conf")
    }

    pub(crate) fn disk(&self, node: &str) -> PathBuf {
        self.path().join(format!("{node}.disk"))
    }

    pub(crate) fn run_dir(&self, node: &str) -> PathBuf {
        self.path().join(node)
    }

    pub(crate) fn pid(&self, node: &str) -> Option<i32> {
        let text = fs::read_to_string(self.run_dir(node).join("r0.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Runs `polluxadm` as `node`, with nothing to read.
    pub(crate) fn adm(&self, node: &str, arguments: &[&str]) -> Said {
        let mut command = self.command(env!("CARGO_BIN_EXE_polluxadm"), node);
        said(command.args(arguments).stdin(std::process::Stdio::null()).output())
    }

    /// A program of ours, told which node it is.
    pub(crate) fn command(&self, program: &str, node: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config").arg(self.config()).args(["--node", node]);
        command.arg("--run-dir").arg(self.run_dir(node));
        command
    }

    /// Ends a daemon as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&self, node: &str) {
        self.signal(node, rustix::process::Signal::KILL);
        until("the killed daemon is gone", || !self.is_running(node));
    }

    pub(crate) fn signal(&self, node: &str, signal: rustix::process::Signal) {
        let pid = self.pid(node).and_then(rustix::process::Pid::from_raw).expect("a daemon");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Whether the daemon holds its lock, which the kernel takes back when it ends.
    pub(crate) fn is_running(&self, node: &str) -> bool {
        let Ok(lock) = File::open(self.run_dir(node).join("r0.pid")) else { return false };
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in ["alpha", "beta"] {
            if self.is_running(node) {
                self.signal(node, rustix::process::Signal::KILL);
            }
        }
    }
}

pub(crate) fn said(output: std::io::Result<Output>) -> Said {
    let output = output.expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Looks until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "in {PATIENCE:?} it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

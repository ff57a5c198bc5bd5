//! One node: its files, its daemon, and an operator who types there.

use super::daemon::Daemon;
use super::nbd::{Client, Lost};
use super::process::{finish, tail, text};
use super::sandbox::Sandbox;
use super::status::Status;
use super::{LOOK, ports, programs, seconds};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The name of the one resource.
pub const RESOURCE: &str = "r0";

/// A node.
#[derive(Debug)]
pub struct Host {
    /// As in the configuration.
    pub name: &'static str,
    /// As in the configuration.
    pub node_id: u8,
    /// Control socket, NBD socket.
    pub run_dir: PathBuf,
    /// Its own configuration file.
    pub config: PathBuf,
    /// The backing file or device.
    pub backing: PathBuf,
    /// The file of external metadata.
    pub meta: Option<PathBuf>,
    /// Where NBD is served over TCP, beside the Unix socket.
    pub nbd_port: u16,
    /// Where it waits for its peer.
    pub peer_port: u16,
    /// As whom its programs run.
    pub sandbox: Sandbox,
    /// What its daemon finds in its environment beside that of the test.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// What its daemons said.
    pub log: PathBuf,
    /// The daemon, if it runs.
    pub daemon: Option<Daemon>,
    /// Where `polluxd` and `polluxadm` are.
    pub programs: PathBuf,
}

/// How an operator's command ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code; `None`: killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Both outputs.
    pub said: String,
}

impl Host {
    /// A host whose files lie in `dir`, which is made.
    ///
    /// # Panics
    /// If the files cannot be made.
    pub fn new(dir: &Path, name: &'static str, node_id: u8) -> Self {
        let dir = dir.join(name);
        let run_dir = dir.join("run");
        std::fs::create_dir_all(&run_dir).expect("a directory can be made");
        Self {
            name,
            node_id,
            run_dir,
            config: dir.join("pollux.conf"),
            backing: dir.join("disk"),
            meta: None,
            nbd_port: ports::free(),
            peer_port: ports::free(),
            sandbox: Sandbox::none(),
            environment: Vec::new(),
            log: dir.join("polluxd.log"),
            daemon: None,
            programs: programs::directory().to_owned(),
        }
    }

    fn arguments(&self) -> Vec<String> {
        let (config, run_dir) = (self.config.display(), self.run_dir.display());
        let (config, run_dir) = (config.to_string(), run_dir.to_string());
        let words = ["--config", &config, "--node", self.name, "--run-dir", &run_dir];
        words.map(str::to_owned).to_vec()
    }

    // ---- the operator ----

    /// Types a command of `polluxadm`.
    pub fn adm(&self, words: &[&str]) -> Answer {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120"]).arg(self.programs.join("polluxadm"));
        command.args(self.arguments()).args(words).env_remove("RUST_LOG");
        self.sandbox.confine(&mut command);
        let output: Output = finish(&mut command);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Answer { code: output.status.code(), stdout, said: text(&output) }
    }

    /// Types a command that must succeed; what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, words: &[&str]) -> String {
        let answer = self.adm(words);
        let Answer { code, said, .. } = &answer;
        assert_eq!(*code, Some(0), "{}: {words:?} said:\n{said}\n{}", self.name, self.history());
        answer.stdout
    }

    /// `status --json`; `None`: the resource is not up here.
    ///
    /// # Panics
    /// If the daemon runs and the command fails.
    pub fn look(&self) -> Option<Status> {
        let answer = self.adm(&["status", "--json", RESOURCE]);
        (answer.code == Some(0)).then(|| Status::read(&answer.stdout)).flatten()
    }

    /// `status --json` of a resource that is up.
    ///
    /// # Panics
    /// If it is not.
    pub fn status(&self) -> Status {
        let answer = self.adm(&["status", "--json", RESOURCE]);
        let history = || format!("{}: {}\n{}", self.name, answer.said, self.history());
        assert_eq!(answer.code, Some(0), "{}", history());
        Status::read(&answer.stdout).unwrap_or_else(|| panic!("not up: {}", history()))
    }

    /// Looks until the status is as wanted.
    ///
    /// # Panics
    /// If it is not so in time.
    pub fn wait_status(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Status {
        let begin = Instant::now();
        loop {
            let status = self.look();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            if begin.elapsed() >= limit {
                let shown = status.map_or_else(|| "not up".to_owned(), |status| status.to_string());
                panic!(
                    "{}: waited {limit:?} for: {what}; is: {shown}\n{}",
                    self.name,
                    self.history()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until both copies are good and nothing is being copied.
    pub fn wait_in_sync(&self, limit: Duration) -> Status {
        self.wait_status("both copies in sync", limit, Status::is_in_sync)
    }

    // ---- the daemon ----

    /// Starts the daemon, which brings the resource up.
    ///
    /// # Panics
    /// If it runs already, or does not come up.
    pub fn start(&mut self) {
        self.spawn();
        self.daemon().wait_until_up();
    }

    /// Starts the daemon and waits for nothing.
    ///
    /// # Panics
    /// If it runs already.
    pub fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let mut arguments = self.arguments();
        arguments.push(RESOURCE.into());
        let control = self.run_dir.join(format!("{RESOURCE}.sock"));
        let program = self.programs.join("polluxd");
        let Self { environment, sandbox, log, .. } = &*self;
        let daemon = Daemon::start(&program, &arguments, environment, *sandbox, log, control);
        self.daemon = Some(daemon);
    }

    /// The running daemon.
    ///
    /// # Panics
    /// If none runs.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the daemon runs")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.daemon().kill();
        self.daemon = None;
    }

    /// `down`, and the end of the daemon.
    ///
    /// # Panics
    /// If the daemon does not end cleanly.
    pub fn down(&mut self) {
        self.must(&["down", RESOURCE]);
        let ended = self.daemon().wait();
        assert!(ended.success(), "{} after down: {ended}\n{}", self.name, self.history());
        self.daemon = None;
    }

    // ---- the client ----

    /// The Unix socket of its NBD server.
    pub fn nbd_socket(&self) -> PathBuf {
        self.run_dir.join(format!("{RESOURCE}.nbd"))
    }

    /// The export as foreign programs name it.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///{RESOURCE}?socket={}", self.nbd_socket().display())
    }

    /// Connects to the export.
    ///
    /// # Errors
    /// If it is refused.
    pub fn connect(&self) -> Result<Client, Lost> {
        Client::unix(&self.nbd_socket(), RESOURCE)
    }

    /// Connects to the export of a node that must serve it.
    ///
    /// # Panics
    /// If it is refused.
    pub fn client(&self) -> Client {
        let history = |lost| panic!("{}: no client: {lost}\n{}", self.name, self.history());
        self.connect().unwrap_or_else(history)
    }

    /// Promotes it; the peer's loss may still have to be noticed.
    ///
    /// # Panics
    /// If it is refused for longer than the detection of a dead peer may take.
    pub fn promote(&self) {
        let begin = Instant::now();
        loop {
            let answer = self.adm(&["primary", RESOURCE]);
            if answer.code == Some(0) {
                return;
            }
            let late = begin.elapsed() > seconds(5);
            assert!(!late, "{}: not promoted: {}\n{}", self.name, answer.said, self.history());
            std::thread::sleep(LOOK);
        }
    }

    // ---- what is left ----

    /// The end of what its daemons said.
    pub fn history(&self) -> String {
        format!("--- log of {} ---\n{}", self.name, tail(&self.log))
    }

    /// All that its daemons said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

//! One simulated host: its power, its files, what is run in it. What Pollux does there is in [`super::product`].

use super::lab::{Lab, tails};
use super::processes::{self, Found};
use crate::real::process::{Process, tail};
use crate::real::{seconds, wait_for};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a program that is run in a host may take.
const PATIENCE: Duration = seconds(90);

/// A host; clones are the same host.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lab: Arc<Lab>,
    name: String,
    addresses: Vec<String>,
    dir: PathBuf,
    /// What made the namespaces, and ends when they do.
    outer: Mutex<Option<Process>>,
}

/// How a program ended, and what it said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `None`: killed by a signal. 124: it took too long.
    pub code: Option<i32>,
    /// On stdout.
    pub out: String,
    /// On both.
    pub said: String,
}

impl Answer {
    /// Exit code 0?
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl Host {
    pub(super) fn new(lab: &Arc<Lab>, name: &str, addresses: &[&str]) -> Self {
        let dir = lab.host_dir(name);
        for folder in ["etc", "usr", "var"] {
            std::fs::create_dir_all(dir.join(folder)).expect("a directory");
            std::fs::create_dir_all(dir.join(format!("{folder}.work"))).expect("a directory");
        }
        std::fs::create_dir_all(dir.join("logs")).expect("a directory");
        std::fs::create_dir_all(lab.disks.join(name)).expect("a directory");
        let hosts = lab.dir.join("etc-hosts");
        let mut text = std::fs::read_to_string(&hosts).expect("a file");
        for (n, address) in addresses.iter().enumerate() {
            let address = address.split('/').next().unwrap_or_default();
            let suffix = if n == 0 { String::new() } else { format!("-{n}") };
            text += &format!("{address} {name}{suffix}\n");
        }
        std::fs::write(&hosts, text).expect("a file");
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        let (lab, name) = (Arc::clone(lab), name.to_owned());
        Self(Arc::new(Inner { lab, name, addresses, dir, outer: Mutex::default() }))
    }

    /// As `uname -n` says it inside.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    fn outer(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.outer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- power ----

    /// Boots a bare host: names, addresses, empty /run and /tmp; no daemon runs. The calling thread must live as long as the host.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn power_on(&self) {
        assert!(!self.is_on(), "{} is on", self.name());
        let Inner { lab, name, addresses, dir, .. } = &*self.0;
        let init = dir.join("init");
        std::fs::write(&init, INIT).expect("a file");
        lab.unplug(name);
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork"]);
        command.args(["--kill-child=KILL", "--mount-proc", "sh"]).arg(&init);
        command.arg(name).arg(&lab.dir).arg(dir).arg(lab.disks.join(name));
        // Not in the test's terminal or process group.
        command.process_group(0);
        let mut outer = Process::start(name, &mut command, &dir.join("logs/console"));
        let number = outer.pid().as_raw_pid();
        let mut first = None;
        outer.wait_until("the host is up", seconds(20), || {
            let children =
                std::fs::read_to_string(format!("/proc/{number}/task/{number}/children"));
            let child = children.ok().and_then(|all| all.split_whitespace().next()?.parse().ok());
            first = child.and_then(Pid::from_raw);
            let root = |pid: Pid| PathBuf::from(format!("/proc/{}/root", pid.as_raw_pid()));
            first.is_some_and(|pid| root(pid).join("run/ready").exists())
        });
        lab.has_power(name, first.expect("just waited for"));
        *self.outer() = Some(outer);
        for (n, address) in addresses.iter().enumerate() {
            lab.plug(name, n, address);
        }
    }

    /// Its power fails: peers hear nothing of it any more.
    ///
    /// # Panics
    /// If it does not end.
    pub fn power_off(&self) {
        self.0.lab.power_off(self.name());
        if let Some(mut outer) = self.outer().take() {
            outer.kill();
        }
    }

    /// Has it power?
    pub fn is_on(&self) -> bool {
        self.pid().is_some()
    }

    fn pid(&self) -> Option<Pid> {
        self.0.lab.pid(self.name())
    }

    fn init(&self) -> Pid {
        self.pid().unwrap_or_else(|| panic!("{} has no power", self.name()))
    }

    // ---- files ----

    /// A file of the host, which must be on, as seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = format!("/proc/{}/root", self.init().as_raw_pid());
        Path::new(&root).join(path.trim_start_matches('/'))
    }

    /// Writes a file of the host, with its directories.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put(&self, path: &str, mode: u32, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a file")).expect("a directory");
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What a file of the host holds; empty if it is not there.
    pub fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(path)).unwrap_or_default()).into_owned()
    }

    /// Its directory that survives power cycles as a disk does; inside it is /mnt/disk.
    pub fn disk(&self) -> PathBuf {
        self.0.lab.disks.join(self.name())
    }

    // ---- programs ----

    /// A program in the host, ready to be started; its words are what it is run with.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init().as_raw_pid().to_string()]);
        command.args(["-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]).args(words);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.env_remove("POLLUX_CONFIG").env_remove("RUST_LOG").env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, words: &[&str]) -> Answer {
        let limit = PATIENCE.as_secs().to_string();
        let words = [&["timeout", "--kill-after=5", &limit], words].concat();
        let output = self.command(&words).output().expect("nsenter can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, said) = (text(&output.stdout), crate::real::process::text(&output));
        Answer { code: output.status.code(), out, said }
    }

    /// As [`Self::run`]; what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, words: &[&str]) -> String {
        let answer = self.run(words);
        assert!(answer.is_ok(), "{}: {words:?}: {:?}\n{}", self.name(), answer.code, answer.said);
        answer.out
    }

    /// Runs a line of shell.
    pub fn shell(&self, line: &str) -> Answer {
        self.run(&["sh", "-c", line])
    }

    /// Starts a program that runs until it ends or the power does; what it says goes to the log of that name (see [`Self::log`]).
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(&self, log: &str, words: &[&str]) {
        let out = File::options().create(true).append(true).open(self.log(log)).expect("a log");
        let err = out.try_clone().expect("a descriptor can be duplicated");
        // Left to pid 1: nsenter stops itself when what it runs is stopped, and would never reap it.
        let start = ["sh", "-c", r#"setsid "$@" &"#, "sh"];
        let status = self.command(&[&start[..], words].concat()).stdout(out).stderr(err).status();
        assert!(status.expect("nsenter can be run").success(), "{}: {words:?}", self.name());
    }

    /// Where [`Self::spawn`] logs to; outside of the host.
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.dir.join("logs").join(name)
    }

    /// Waits for something in the host.
    ///
    /// # Panics
    /// If it does not come in time; it tells what the host's logs hold.
    pub fn wait(&self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Duration {
        let begin = std::time::Instant::now();
        while !ready() {
            let late = begin.elapsed() >= limit;
            assert!(!late, "{}: waited {limit:?} for: {what}\n{}", self.name(), self.history());
            std::thread::sleep(Duration::from_millis(20));
        }
        begin.elapsed()
    }

    /// The ends of its logs.
    pub fn history(&self) -> String {
        let logs = tails(&self.0.dir.join("logs"));
        let below = |folder: &str| tails(&self.0.dir.join(folder));
        format!(
            "===== {} =====\n{logs}{}{}",
            self.name(),
            below("var/log"),
            below("var/log/pollux")
        )
    }

    /// The end of a log of the host below /var/log, also when it is off.
    pub fn log_tail(&self, name: &str) -> String {
        tail(&self.0.dir.join("var/log").join(name))
    }

    /// All of a log of the host below /var/log, also when it is off.
    pub fn log_text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.0.dir.join("var/log").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    // ---- its processes ----

    /// SIGKILL to the processes with one of these names (their first 15 bytes, as `ps -o comm` shows them). How many.
    pub fn kill9(&self, names: &[&str]) -> usize {
        self.kill(|found| names.contains(&found.name.as_str()))
    }

    /// SIGKILL to every process of the host but pid 1: what a kill -9 of everything leaves is a kernel with addresses and mounts.
    pub fn kill_all(&self) -> usize {
        self.kill(|_| true)
    }

    fn kill(&self, wanted: impl Fn(&Found) -> bool) -> usize {
        let struck = self.strike(Signal::KILL, wanted);
        wait_for("the end of the killed", seconds(20), || {
            struck.iter().all(|pid| processes::is_gone(*pid))
        });
        struck.len()
    }

    /// SIGSTOP to the processes with one of these names. How many.
    pub fn stop(&self, names: &[&str]) -> usize {
        self.strike(Signal::STOP, |found| names.contains(&found.name.as_str())).len()
    }

    /// SIGSTOP to every process of the host but pid 1.
    pub fn stop_all(&self) {
        self.strike(Signal::STOP, |_| true);
    }

    /// SIGCONT to every process of the host.
    pub fn continue_all(&self) {
        self.strike(Signal::CONT, |_| true);
    }

    /// Who got it.
    fn strike(&self, signal: Signal, wanted: impl Fn(&Found) -> bool) -> Vec<Pid> {
        let init = self.init();
        let mut struck = Vec::new();
        // Until no new one appears: they may just be forking.
        loop {
            let found = processes::of_host(init);
            let new: Vec<_> = found
                .iter()
                .filter(|&process| wanted(process) && !struck.contains(&process.pid))
                .map(|process| process.pid)
                .collect();
            if new.is_empty() {
                return struck;
            }
            for pid in new {
                processes::kill(pid, signal);
                struck.push(pid);
            }
        }
    }

    /// Pids, as the host sees them, of the processes with this name.
    pub fn pids(&self, name: &str) -> Vec<i32> {
        let all = processes::of_host(self.init());
        all.into_iter().filter(|found| found.name == name).map(|found| found.inside).collect()
    }
}

/// Pid 1: a private view of the machine, then it reaps orphans for ever.
const INIT: &str = r#"
set -e
name=$1 lab=$2 dir=$3 disk=$4
hostname "$name"
mount --make-rprivate /
for d in etc usr var; do
  mount -t overlay overlay -o "lowerdir=/$d,upperdir=$dir/$d,workdir=$dir/$d.work" "/$d"
done
rm -f /etc/machine-id
echo "$name" >/etc/hostname
mount --bind "$lab"/etc-hosts /etc/hosts
mount -t tmpfs tmpfs /mnt
mkdir /mnt/lab /mnt/disk
mount --bind "$lab"/shared /mnt/lab
mount --bind "$disk" /mnt/disk
mount -t tmpfs tmpfs /srv
# Nothing in here may reboot the machine that carries it.
if [ -e /proc/sysrq-trigger ]; then mount --bind /dev/null /proc/sysrq-trigger; fi
mount -t tmpfs tmpfs /run
mkdir -m 1777 /run/lock
mkdir /run/resource-agents /run/netns
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp /dev/shm
ip link set lo up
: >/run/ready
set +e
while :; do
  tail -f /dev/null &
  wait $!
done
"#;

//! The surroundings that hosts share: a switch with two segments, their cables, their power. Not what runs in a host.

use super::host::Host;
use super::processes;
use crate::real::Need;
use crate::real::process::{Process, run_ok};
use crate::real::seconds;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What every story with simulated hosts needs of the machine.
pub const NEEDS: &[Need] = &[
    Need::Root,
    Need::Namespaces,
    Need::Fuse,
    Need::Loop,
    Need::Program("ip"),
    Need::Program("nft"),
    Need::Program("nbdfuse"),
    Need::Program("fusermount3"),
    Need::Program("fuser"),
    Need::Program("mkfs.ext4"),
    Need::Program("e2fsck"),
];

/// Network segments: `ethN` of every host is on segment N.
const SEGMENTS: usize = 2;

/// What may pass a cable. Carrier is lost on both ends only by `Out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// Everything.
    In,
    /// Nothing: it is pulled.
    Out,
    /// What the host sends gets lost; it hears everything.
    Mute,
    /// What is sent to the host gets lost; everybody hears it.
    Deaf,
}

/// Hosts on one switch. Dropped, everything of it is gone.
#[derive(Debug)]
pub struct Cluster {
    pub(super) lab: Arc<Lab>,
    hosts: Vec<Host>,
    // Killed after the hosts, deleted after all.
    _switch: Process,
    _dir: tempfile::TempDir,
    _disks: tempfile::TempDir,
    _turn: File,
}

#[derive(Debug)]
pub(super) struct Lab {
    pub(super) dir: PathBuf,
    pub(super) disks: PathBuf,
    switch: Pid,
    /// Pid 1 of each host that has power.
    powered: Mutex<BTreeMap<String, Pid>>,
    /// What became of the cables, by the switch's end.
    cables: Mutex<BTreeMap<String, Cable>>,
}

impl Cluster {
    /// A switch without hosts. Clusters take turns on one machine: their time limits are those of a machine that has time.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        let turn = std::env::temp_dir().join("pollux-cluster-tests.lock");
        let turn = File::options().create(true).append(true).open(turn).expect("a lock file");
        flock(&turn, FlockOperation::LockExclusive).expect("a lock");
        let dir = tempfile::Builder::new()
            .prefix("pollux-lab-")
            .tempdir()
            .expect("a temporary directory");
        // In memory where that can be had: what else this machine writes is no part of a takeover.
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let disks = tempfile::Builder::new()
            .prefix("pollux-disks-")
            .tempdir_in(memory)
            .expect("a directory");
        for name in ["hosts", "shared"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        std::fs::write(dir.path().join("etc-hosts"), "127.0.0.1 localhost\n").expect("a file");
        let mut switch = Command::new("unshare");
        switch.args(["--net", "sh", "-c", "echo ready; exec sleep infinity"]);
        let log = dir.path().join("switch.log");
        let mut switch = Process::start("the switch", &mut switch, &log);
        switch.wait_until("it has its namespace", seconds(10), || {
            std::fs::read_to_string(&log).is_ok_and(|said| said.contains("ready"))
        });
        let lab = Lab {
            dir: dir.path().to_owned(),
            disks: disks.path().to_owned(),
            switch: switch.pid(),
            powered: Mutex::default(),
            cables: Mutex::default(),
        };
        for segment in 0..SEGMENTS {
            let bridge = format!("br{segment}");
            lab.ip(&["link", "add", &bridge, "type", "bridge", "forward_delay", "0"]);
            lab.ip(&["link", "set", &bridge, "up"]);
        }
        lab.nft("add table bridge cut");
        lab.nft("add chain bridge cut lost { type filter hook forward priority 0; }");
        Self {
            lab: Arc::new(lab),
            hosts: Vec::new(),
            _switch: switch,
            _dir: dir,
            _disks: disks,
            _turn: turn,
        }
    }

    /// A host, without power yet. `addresses` (`10.99.0.1/24`) are those of eth0, eth1; its name leads to the first.
    ///
    /// # Panics
    /// If its files cannot be made.
    pub fn host(&mut self, name: &str, addresses: &[&str]) -> Host {
        assert!(addresses.len() <= SEGMENTS, "a host has at most {SEGMENTS} cables");
        let host = Host::new(&self.lab, name, addresses);
        self.hosts.push(host.clone());
        host
    }

    /// What happens to the cable of `ethN` of a host.
    ///
    /// # Panics
    /// If the host has no such cable.
    pub fn cable(&self, host: &Host, n: usize, cable: Cable) {
        self.lab.cable(host.name(), n, cable);
    }

    /// Seen as /mnt/lab by every host.
    pub fn shared(&self) -> PathBuf {
        self.lab.shared()
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in &self.hosts {
                eprintln!("{}", host.history());
            }
        }
        for host in &self.hosts {
            host.power_off();
        }
    }
}

impl Lab {
    pub(super) fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    pub(super) fn host_dir(&self, name: &str) -> PathBuf {
        self.dir.join("hosts").join(name)
    }

    fn powered(&self) -> MutexGuard<'_, BTreeMap<String, Pid>> {
        self.powered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pid 1 of a host, as seen from outside; `None`: it has no power.
    pub(super) fn pid(&self, name: &str) -> Option<Pid> {
        let pid = self.powered().get(name).copied();
        pid.filter(|pid| !processes::is_gone(*pid))
    }

    pub(super) fn has_power(&self, name: &str, pid: Pid) {
        self.powered().insert(name.to_owned(), pid);
    }

    /// Pulls the cables first: the ends of the connections of dying processes must not get out, as when power is lost.
    pub(super) fn power_off(&self, name: &str) {
        let Some(pid) = self.pid(name) else { return };
        for segment in 0..SEGMENTS {
            // It may have one cable only.
            self.enter("ip", &["link", "set", &port(name, segment), "down"]);
        }
        processes::kill(pid, rustix::process::Signal::KILL);
        let begin = Instant::now();
        while !processes::is_gone(pid) {
            // Not a panic: this is also what cleans up after one.
            if begin.elapsed() > seconds(20) {
                eprintln!("{name} does not end: {:?}", processes::of_host(pid));
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.unplug(name);
        self.powered().remove(name);
    }

    /// The kernel removes the interfaces of a dead host some time; the next boot does not wait for that.
    pub(super) fn unplug(&self, name: &str) {
        for segment in 0..SEGMENTS {
            self.enter("ip", &["link", "del", &port(name, segment)]);
        }
    }

    /// Plugs `ethN` of a host in.
    pub(super) fn plug(&self, name: &str, n: usize, address: &str) {
        let pid = self.pid(name).expect("it has power").as_raw_pid().to_string();
        let (port, bridge, eth) = (port(name, n), format!("br{n}"), format!("eth{n}"));
        self.ip(&["link", "add", &port, "type", "veth", "peer", "name", &eth, "netns", &pid]);
        self.ip(&["link", "set", &port, "master", &bridge]);
        self.carrier(&port);
        let host = ["-t", &pid, "-n", "ip"];
        for words in [["addr", "add", address, "dev", &eth], ["link", "set", "dev", &eth, "up"]] {
            run_ok(seconds(20), "nsenter", host.iter().chain(&words));
        }
    }

    fn cable(&self, name: &str, n: usize, cable: Cable) {
        let port = port(name, n);
        let mut cables = self.cables.lock().unwrap_or_else(PoisonError::into_inner);
        cables.insert(port.clone(), cable);
        self.nft("flush chain bridge cut lost");
        for (port, cable) in &*cables {
            let lost = match cable {
                Cable::In | Cable::Out => continue,
                Cable::Mute => "iifname",
                Cable::Deaf => "oifname",
            };
            self.nft(&format!("add rule bridge cut lost {lost} \"{port}\" drop"));
        }
        drop(cables);
        // A host without power has none; it gets it as it is when it boots.
        if self.pid(name).is_some() {
            self.carrier(&port);
        }
    }

    fn carrier(&self, port: &str) {
        let cables = self.cables.lock().unwrap_or_else(PoisonError::into_inner);
        let is_out = cables.get(port) == Some(&Cable::Out);
        self.ip(&["link", "set", port, if is_out { "down" } else { "up" }]);
    }

    fn enter(&self, program: &str, arguments: &[&str]) -> std::process::Output {
        let switch = self.switch.as_raw_pid().to_string();
        let words = ["-t", &switch, "-n", program];
        crate::real::process::run(seconds(20), "nsenter", words.iter().chain(arguments))
    }

    fn ip(&self, arguments: &[&str]) {
        let output = self.enter("ip", arguments);
        let said = crate::real::process::text(&output);
        assert!(output.status.success(), "ip {arguments:?}: {said}");
    }

    fn nft(&self, rule: &str) {
        let output = self.enter("nft", &[rule]);
        let said = crate::real::process::text(&output);
        assert!(output.status.success(), "nft {rule}: {said}");
    }
}

/// The switch's end of the cable of `ethN`.
fn port(host: &str, n: usize) -> String {
    format!("{host}-{n}")
}

/// The last lines of every log below a directory.
pub(super) fn tails(dir: &Path) -> String {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    let logs = files.iter().filter(|file| file.is_file());
    logs.map(|file| format!("--- {} ---\n{}\n", file.display(), crate::real::process::tail(file)))
        .collect()
}

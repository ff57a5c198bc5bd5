//! Real machines under QEMU, for what only a kernel of one's own can show: the kernel's nbd, systemd as pid 1, a guest whose disk is
//! Pollux. They run by QEMU's own interpreter, which works on every machine (inside of other virtual machines KVM is often there, and
//! hangs); `POLLUX_GUEST_ACCEL=kvm` is several times faster where that works.
//!
//! A guest's root file system is that of this machine, read-only over 9p, with Pollux installed over it and what it writes kept in memory
//! (`init`); so it has the programs that this machine has, and nothing is copied. Its disks survive a power cut. All guests of a [`Lab`]
//! see its directory as /mnt/lab. Commands come by a port of the loopback interface that QEMU forwards. Where the kernel comes from is in
//! [`kernel`].

pub mod kernel;

use crate::cluster::Answer;
use crate::cluster::product::ROOT;
use crate::real::process::{Process, run, run_ok, tail, text};
use crate::real::{Need, backing, ports, programs, seconds};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What every story with guests needs of the machine.
pub const NEEDS: &[Need] = &[
    Need::Program("qemu-system-x86_64"),
    Need::Program("busybox"),
    Need::Program("depmod"),
    Need::Program("dpkg-deb"),
    Need::GuestKernel,
];

/// How long a guest may take to boot: by QEMU's interpreter, on a machine that does other things too.
const BOOT: Duration = seconds(150);

/// Where `lab obey` listens in a guest.
const OBEY: u16 = 5555;

/// What is pid 1 when nobody asks for anything else.
const INIT: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/mnt/lab/lab obey 0.0.0.0:5555 &
while :; do
  tail -f /dev/null &
  wait $!
done
";

/// What is common to the guests of a test: Pollux installed, files, logs. Dropped, it is deleted.
#[derive(Debug)]
pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// Installs all of the product, in a temporary directory.
    ///
    /// # Panics
    /// If the installer fails.
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// As [`Self::new`], with that directory, and so the guests' disks, inside of this one.
    ///
    /// # Panics
    /// If the installer fails.
    pub fn within(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("pollux-guests-").tempdir_in(parent);
        let lab = Self { dir: dir.expect("a temporary directory") };
        let product = lab.path("product");
        std::fs::create_dir(&product).expect("a directory");
        let install = Path::new(ROOT).join("tools/install");
        let arguments =
            [Path::new("--destdir"), &product, Path::new("--bin-dir"), programs::directory()];
        run_ok(seconds(60), install.to_str().expect("a simple path"), arguments);
        std::fs::copy(programs::beside_tests("lab"), lab.path("lab")).expect("it can be copied");
        lab.put("init", 0o755, INIT);
        lab
    }

    /// A file of the directory that guests see as /mnt/lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes one, with its directories.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put(&self, name: &str, mode: u32, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("our own file");
    }

    /// What such a file holds; empty if it is not there.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// A guest that has no power yet, with disks (`/dev/vda` and so on) of so many MiB. `alpha` and `beta` are 10.99.0.1 and .2, with a
    /// cable from one to the other; no guest reaches anything else.
    ///
    /// # Panics
    /// If its disks cannot be made.
    pub fn guest(&self, name: &str, disks: &[u64]) -> Guest<'_> {
        std::fs::create_dir_all(self.path(&format!("files/{name}"))).expect("a directory");
        std::fs::create_dir_all(self.path(&format!("logs/{name}"))).expect("a directory");
        let disk = |(n, mebibytes): (usize, &u64)| {
            let path = self.path(&format!("{name}-disk-{n}"));
            backing::sparse(&path, mebibytes << 20);
            path
        };
        let disks = disks.iter().enumerate().map(disk).collect();
        let control = ports::loopback(ports::free());
        let init = "/mnt/lab/init".to_owned();
        let name = name.to_owned();
        Guest { lab: self, name, disks, control, init, processors: 2, scripts: 0, process: None }
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// A machine. Dropped, its power fails.
#[derive(Debug)]
pub struct Guest<'lab> {
    lab: &'lab Lab,
    name: String,
    disks: Vec<PathBuf>,
    control: SocketAddr,
    init: String,
    processors: u32,
    scripts: usize,
    process: Option<Process>,
}

impl Guest<'_> {
    /// With another program as pid 1, which must start `/mnt/lab/lab obey 0.0.0.0:5555`.
    #[must_use]
    pub fn with_init(mut self, init: &str) -> Self {
        self.init = init.to_owned();
        self
    }

    /// With so many processors, rather than two.
    #[must_use]
    pub fn with_processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// As `systemctl enable`, from the next boot on.
    ///
    /// # Panics
    /// If it cannot be done, or was done before.
    pub fn enable(&self, unit: &str, file: &str) {
        let wants = "etc/systemd/system/multi-user.target.wants";
        let wants = self.lab.path(&format!("files/{}/{wants}", self.name));
        std::fs::create_dir_all(&wants).expect("a directory");
        std::os::unix::fs::symlink(file, wants.join(unit)).expect("a link");
    }

    /// Writes a file that the guest finds at this path from its next boot on.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put(&self, path: &str, mode: u32, text: &str) {
        self.lab.put(&format!("files/{}{path}", self.name), mode, text);
    }

    /// The file below a disk.
    pub fn disk(&self, n: usize) -> &Path {
        &self.disks[n]
    }

    // ---- power ----

    /// Boots it, and waits for that.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn boot(&mut self) {
        self.power_on();
        self.wait_until_up();
    }

    /// Begins to boot it.
    ///
    /// # Panics
    /// If it is on already.
    pub fn power_on(&mut self) {
        assert!(self.process.is_none(), "{} is on", self.name);
        let kernel = kernel::directory().expect("needed by every story with guests");
        let address = match self.name.as_str() {
            "alpha" => "10.99.0.1/24",
            "beta" => "10.99.0.2/24",
            _ => "",
        };
        let environment =
            format!("NAME={} ROOT=host INIT={} ADDRESS={address}", self.name, self.init);
        let console = self.lab.path(&format!("logs/{}/console", self.name));
        // Of the boot before.
        let _ = std::fs::remove_file(&console);
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-m", "1G"]);
        command.args(arguments(kernel, &console, &environment, self.processors));
        command.args(network(&[(&self.control.to_string(), OBEY)]));
        let share = |path: &Path, tag: &str, more: &str| {
            let path = path.display();
            format!("local,path={path},mount_tag={tag},security_model=none,multidevs=remap{more}")
        };
        command.arg("-virtfs").arg(share(Path::new("/"), "host", ",readonly=on"));
        command.arg("-virtfs").arg(share(self.lab.dir.path(), "lab", ""));
        for disk in &self.disks {
            command.arg("-drive");
            command.arg(format!("file={},if=virtio,format=raw,discard=unmap", disk.display()));
        }
        if !address.is_empty() {
            let end = |name: &str| self.lab.path(&format!("{name}.cable"));
            let other = if self.name == "alpha" { "beta" } else { "alpha" };
            // Left by a power cut.
            let _ = std::fs::remove_file(end(&self.name));
            let (local, remote) = (end(&self.name), end(other));
            let cable = format!(
                "dgram,id=cable,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                local.display(),
                remote.display()
            );
            let mac = if self.name == "alpha" { "52:54:00:00:00:01" } else { "52:54:00:00:00:02" };
            let device = format!("virtio-net-pci,netdev=cable,romfile=,mac={mac}");
            command.args(["-netdev", &cable, "-device", &device]);
        }
        let log = self.lab.path(&format!("logs/{}/qemu", self.name));
        self.process = Some(Process::start(&self.name, &mut command, &log));
    }

    /// Waits until it takes commands.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn wait_until_up(&mut self) {
        let mut process = self.process.take().expect("it is on");
        process.wait_until("the guest answers", BOOT, || {
            self.log("console").contains("goes on with") && self.ask(seconds(5), &["true"]).is_ok()
        });
        self.process = Some(process);
    }

    /// Its power fails.
    pub fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Waits until it has switched itself off.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_off(&mut self, limit: Duration) {
        let mut process = self.process.take().expect("it is on");
        assert!(process.wait(limit).success(), "{}", process.said());
    }

    // ---- programs ----

    fn ask(&self, limit: Duration, words: &[&str]) -> Answer {
        let lab = self.lab.path("lab");
        let address = self.control.to_string();
        let words = [&["ask", &address], words].concat();
        let output = run(limit, lab.to_str().expect("a simple path"), words);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        Answer { code: output.status.code(), out, said: text(&output) }
    }

    /// Runs a script of the shell. Exit code 124 and 255: it took too long, or the guest is gone.
    pub fn run(&mut self, script: &str) -> Answer {
        self.scripts += 1;
        let name = format!("logs/{}/script-{}", self.name, self.scripts);
        self.lab.put(&name, 0o755, script);
        self.ask(seconds(120), &["sh", "-eu", &format!("/mnt/lab/{name}")])
    }

    /// As [`Self::run`]; what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&mut self, script: &str) -> String {
        let answer = self.run(script);
        let Answer { code, said, .. } = &answer;
        assert!(answer.is_ok(), "{}: {script}: {code:?}\n{said}\n{}", self.name, self.history());
        answer.out
    }

    /// Starts a script that runs until it ends or the power does; what it says goes to [`Self::log`].
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(&mut self, log: &str, script: &str) {
        let name = format!("logs/{}/{log}", self.name);
        self.lab.put(&format!("{name}.sh"), 0o755, script);
        self.must(&format!("setsid sh -eu /mnt/lab/{name}.sh </dev/null >/mnt/lab/{name} 2>&1 &"));
    }

    /// All of a log, also when the guest is off.
    pub fn log(&self, name: &str) -> String {
        self.lab.text(&format!("logs/{}/{name}", self.name))
    }

    /// Runs a script again and again until it succeeds: how long that took.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait(&mut self, what: &str, limit: Duration, script: &str) -> Duration {
        let begin = std::time::Instant::now();
        loop {
            let answer = self.run(script);
            if answer.is_ok() {
                return begin.elapsed();
            }
            let (name, said) = (&self.name, &answer.said);
            let late = begin.elapsed() >= limit;
            assert!(!late, "{name}: waited {limit:?} for: {what}\n{said}\n{}", self.history());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The ends of its logs.
    pub fn history(&self) -> String {
        let logs = self.lab.path(&format!("logs/{}", self.name));
        let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
        let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
        files.retain(|path| !path.to_string_lossy().contains("script-"));
        files.sort();
        let show = |file: &PathBuf| format!("--- {} ---\n{}\n", file.display(), tail(file));
        files.iter().map(show).collect()
    }
}

/// How QEMU boots the kernel of that directory: without firmware, screen and disk; `environment` is for `init`.
pub fn arguments(kernel: &Path, console: &Path, environment: &str, processors: u32) -> Vec<String> {
    let (image, initramfs) = (kernel.join("vmlinuz"), kernel.join("initramfs"));
    let file = |path: &Path| path.to_str().expect("a simple path").to_owned();
    let append =
        format!("console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off {environment}");
    let accelerator = std::env::var("POLLUX_GUEST_ACCEL");
    let accelerator = accelerator.as_deref().unwrap_or("tcg,thread=multi");
    let processors = processors.to_string();
    let words = ["-accel", accelerator, "-cpu", "max", "-smp", &processors];
    let rest = ["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"];
    let mut all: Vec<_> = words.iter().chain(&rest).map(|&word| word.to_owned()).collect();
    all.extend(["-kernel".into(), file(&image), "-initrd".into(), file(&initramfs)]);
    all.extend(["-append".into(), append, "-serial".into(), format!("file:{}", file(console))]);
    all.extend(["-device", "virtio-rng-pci"].map(str::to_owned));
    all
}

/// eth0 of a guest: these addresses (`127.0.0.1:5000`) of its host lead to its ports; nothing else does, and the guest reaches nothing.
pub fn network(ports: &[(&str, u16)]) -> [String; 4] {
    let forward = |(address, port): &(&str, u16)| format!(",hostfwd=tcp:{address}-:{port}");
    let forward: String = ports.iter().map(forward).collect();
    let forward = format!("user,id=user,restrict=on{forward}");
    let device = "virtio-net-pci,netdev=user,romfile=";
    ["-netdev".into(), forward, "-device".into(), device.into()]
}

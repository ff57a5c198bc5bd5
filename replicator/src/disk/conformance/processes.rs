//! What takes more than one process: who holds a disk, and file systems that are full or hang.
//!
//! A test that needs another process starts its own program again with a variable set that tells
//! it the other part to play.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::super::backing::{Backing, Direct, EngineChoice, Options};
use super::super::error::{Cause, OpenError, OpenFault};
use super::super::{Errno, Op};
use super::files::reopen;
use super::{PATIENCE, kinds, pool, run_one, skip, woken_within};

/// The part to play: what precedes the first space is the name.
const PART: &str = "POLLUX_TEST_PART";

fn part(name: &str) -> Option<String> {
    let part = env::var(PART).ok()?;
    part.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned)
}

/// This program, to run one test of this file in another part, under `wrapper`.
fn again(wrapper: &[&str], test: &str, part: String) -> Command {
    let program = env::current_exe().expect("a program");
    let words = wrapper.iter().map(Path::new).chain([program.as_path()]);
    let words: Vec<&Path> = words.collect();
    let mut command = Command::new(words[0]);
    let (_, module) = module_path!().split_once("::").expect("inside a crate");
    command.args(&words[1..]).args(["--exact", "--nocapture", "--test-threads=1"]);
    command.arg(format!("{module}::{test}")).env(PART, part);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Another process, killed when dropped.
struct Other(Child);

impl Other {
    /// Starts it and waits until it has said `word` on a line of its own.
    fn start(mut command: Command, word: &'static str) -> Self {
        let mut other = Self(command.spawn().expect("this program starts"));
        let lines = BufReader::new(other.0.stdout.take().expect("piped")).lines();
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads on to the end, so that the other one never meets a full pipe.
            for line in lines.map_while(Result::ok).filter(|line| line.ends_with(word)) {
                let _ = said.send(line);
            }
        });
        heard.recv_timeout(PATIENCE).expect("the other process says its word");
        other
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().expect("a child of ours");
    }
}

fn wait_for_end_of_input() {
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
}

#[test]
fn a_second_process_is_refused_and_told_who_has_the_disk() {
    let test = "a_second_process_is_refused_and_told_who_has_the_disk";
    if let Some(path) = part("hold") {
        let _held = Backing::open(path.as_ref(), &Options::default(), &pool()).expect("free");
        println!("\nholding");
        return wait_for_end_of_input();
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("disk");
    kinds::sparse(&path, 1 << 20);
    let other = Other::start(again(&[], test, format!("hold {}", path.display())), "holding");
    for direct in [Direct::Auto, Direct::No] {
        let options = Options { direct, ..Options::default() };
        let error = Backing::open(&path, &options, &pool()).map(|_| ()).expect_err("in use");
        assert!(matches!(&error.fault, OpenFault::InUse(Some(h)) if h.pid == other.pid()));
        let text = error.to_string();
        assert!(text.contains(path.to_str().expect("a name")), "{text}");
        assert!(text.contains(&other.pid().to_string()), "{text}");
    }
    drop(other);
    reopen(&path, &Options::default());
}

/// Runs the rest of a test in a mount namespace of its own, where what it mounts disappears with
/// it. `false` if the system does not allow that.
fn in_own_namespace(unshare: &[&str], test: &str, directory: &Path) -> bool {
    let tried = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return false;
    }
    let mut command = again(unshare, test, format!("inside {}", directory.display()));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("unshare");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => break status,
            None if start.elapsed() < 2 * PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            None => {
                child.kill().expect("a child of ours");
                panic!("{test} takes too long in its namespace");
            }
        }
    };
    assert!(status.success(), "{test} failed in its namespace, see above");
    true
}

fn command(line: &str) -> bool {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    Command::new(program).args(words).status().is_ok_and(|status| status.success())
}

#[test]
fn a_full_file_system_is_an_error_of_the_write() {
    let test = "a_full_file_system_is_an_error_of_the_write";
    let Some(directory) = part("inside") else {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if !in_own_namespace(&["unshare", "--map-root-user", "--mount"], test, directory.path()) {
            skip(test, "no user namespaces");
        }
        return;
    };
    assert!(command(&format!("mount -t tmpfs -o size=1m tmpfs {directory}")));
    let path = PathBuf::from(directory).join("disk");
    kinds::sparse(&path, 4 << 20);
    let mut backing = Backing::open(&path, &Options::default(), &pool()).expect("a sparse disk");
    let write = |offset| {
        let buffer = pool().copy_of(&vec![7; 512 << 10]);
        Op::Write { offset, buffer, fua: false }
    };
    run_one(&mut backing, write(0)).expect("the first half");
    let results: Vec<_> = (1..4).map(|i| run_one(&mut backing, write(i << 20))).collect();
    let error = results.into_iter().find_map(Result::err).expect("there is no room for all");
    assert_eq!(error.cause, Cause::Os(Errno::NOSPC));
    // Space that was reserved is there all the same, and a hole gives some back.
    run_one(&mut backing, write(0)).expect("written over");
    let error = backing.reserve_meta(2 << 20, 2 << 20).expect_err("no room for metadata");
    assert_eq!(error.cause, Cause::Os(Errno::NOSPC));
}

/// A small ext4 that hangs between `freeze` and `thaw`: writers wait without end, not even
/// SIGKILL reaches them. What is to be checked is noted while it is frozen and asserted after it
/// was thawed; and another process thaws it should this one fail in between.
struct Freezer {
    root: File,
    _watchdog: Other,
}

const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;
const FROZEN_AT_MOST: Duration = Duration::from_secs(20);

impl Freezer {
    fn mount(directory: &Path, test: &str) -> Self {
        let (image, mountpoint) = (directory.join("image"), directory.join("mnt"));
        kinds::sparse(&image, 32 << 20);
        std::fs::create_dir(&mountpoint).expect("a directory");
        assert!(command(&format!("mkfs.ext4 -q {}", image.display())));
        let mount = format!("mount -o loop {} {}", image.display(), mountpoint.display());
        assert!(command(&mount));
        let watch = again(&[], test, format!("watch {}", mountpoint.display()));
        let watchdog = Other::start(watch, "watching");
        Self { root: File::open(mountpoint).expect("mounted"), _watchdog: watchdog }
    }

    fn freeze(&self) {
        // SAFETY: an ioctl without an argument.
        assert_eq!(unsafe { libc::ioctl(self.root.as_raw_fd(), FIFREEZE, 0) }, 0);
    }

    fn thaw(&self) {
        assert!(thaw(&self.root), "it was frozen");
    }
}

fn thaw(root: &File) -> bool {
    // SAFETY: an ioctl without an argument.
    unsafe { libc::ioctl(root.as_raw_fd(), FITHAW, 0) == 0 }
}

/// The part of the watchdog: when its parent is gone, or takes too long, nothing stays frozen.
fn watch(mountpoint: &str) {
    let root = File::open(mountpoint).expect("mounted");
    println!("\nwatching");
    let mut watched = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one entry on this stack.
        unsafe { libc::poll(&raw mut watched, 1, FROZEN_AT_MOST.as_millis() as i32) };
        thaw(&root);
        if watched.revents != 0 {
            return;
        }
    }
}

/// The directory, in a namespace where loop mounts work; `None` in the process outside.
fn frozen_test(test: &str) -> Option<PathBuf> {
    if let Some(mountpoint) = part("watch") {
        watch(&mountpoint);
        return None;
    }
    if let Some(directory) = part("inside") {
        return Some(directory.into());
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = rustix::process::geteuid().is_root();
    if !root || !in_own_namespace(&["unshare", "--mount"], test, directory.path()) {
        skip(test, "it takes root, to mount and freeze a file system");
    }
    None
}

/// Engines by the name they give themselves; those that go past the page cache come first.
const ENGINES: [(&str, Direct, EngineChoice); 3] = [
    ("threads", Direct::Yes, EngineChoice::Pread),
    ("io_uring", Direct::Yes, EngineChoice::Uring),
    ("pread", Direct::No, EngineChoice::Pread),
];

fn options(direct: Direct, engine: EngineChoice) -> Options {
    Options { direct, engine, ..Options::default() }
}

fn write(offset: u64) -> Op {
    Op::Write { offset, buffer: pool().copy_of(&[7; 4096]), fua: false }
}

#[test]
fn a_disk_that_hangs_does_not_hang_the_owner() {
    let test = "a_disk_that_hangs_does_not_hang_the_owner";
    let Some(directory) = frozen_test(test) else { return };
    let freezer = Freezer::mount(&directory, test);
    for (name, direct, engine) in ENGINES {
        let path = directory.join("mnt").join(name);
        kinds::sparse(&path, 1 << 20);
        let mut backing = Backing::open(&path, &options(direct, engine), &pool()).expect("a disk");
        assert_eq!(backing.engine_name(), name);
        run_one(&mut backing, write(0)).expect("not frozen yet");
        freezer.freeze();
        let start = Instant::now();
        let zero = Op::Zero { offset: 8192, len: 4096, fua: true, may_unmap: true };
        backing.submit(&mut vec![(1, write(0)), (2, write(4099)), (3, zero)]);
        let mut out = Vec::new();
        backing.poll(&mut out);
        let waited = start.elapsed();
        // There may be a wake-up left from before; what counts is that nothing completes.
        woken_within(&backing, Duration::from_millis(50));
        backing.poll(&mut out);
        let idle = out.is_empty();
        // Whoever only reads is still served.
        let read = (4, Op::Read { offset: 65536, len: 4096, detect_zero: false });
        backing.submit(&mut vec![read]);
        backing.poll(&mut out);
        while out.is_empty() && woken_within(&backing, FROZEN_AT_MOST / 4) {
            backing.poll(&mut out);
        }
        let served: Vec<_> = out.iter().map(|completion| completion.token).collect();
        freezer.thaw();
        assert!(waited < Duration::from_secs(1), "{name}: {waited:?}");
        assert!(idle, "{name}: a frozen file system was written to");
        assert_eq!(served, [4], "{name}");
        while out.len() < 4 {
            super::sleep_until_woken(&backing);
            backing.poll(&mut out);
        }
        assert!(out.iter().all(|completion| completion.result.is_ok()), "{name}");
    }
}

#[test]
fn memory_that_the_kernel_still_uses_is_not_given_to_others() {
    let test = "memory_that_the_kernel_still_uses_is_not_given_to_others";
    let Some(directory) = frozen_test(test) else { return };
    let freezer = Freezer::mount(&directory, test);
    for (name, direct, engine) in ENGINES {
        let path = directory.join("mnt").join(name);
        kinds::sparse(&path, 1 << 20);
        let pool = pool();
        let mut backing = Backing::open(&path, &options(direct, engine), &pool).expect("a disk");
        freezer.freeze();
        let op = Op::Write { offset: 0, buffer: pool.copy_of(&[7; 4096]), fua: false };
        backing.submit(&mut vec![(1, op)]);
        let start = Instant::now();
        while !hangs_in_a_write() && start.elapsed() < FROZEN_AT_MOST / 4 {
            std::thread::yield_now();
        }
        drop(backing);
        let other = pool.copy_of(&[9; 4096]);
        freezer.thaw();
        let mut backing = reopen(&path, &options(direct, engine));
        let read = Op::Read { offset: 0, len: 4096, detect_zero: false };
        let Ok(super::Done::Read(found)) = run_one(&mut backing, read) else { panic!("{name}") };
        assert_eq!(found.as_ref()[0], 7, "{name}: the write was under way, with its own bytes");
        drop(other);
    }
}

#[test]
fn the_lock_outlives_a_killed_process_until_its_last_write_has_landed() {
    let test = "the_lock_outlives_a_killed_process_until_its_last_write_has_landed";
    if let Some(rest) = part("write") {
        let (name, path) = rest.split_once(' ').expect("engine and path");
        let known = ENGINES.iter().find(|engine| engine.0 == name);
        let &(_, direct, engine) = known.expect("a known one");
        let mut backing =
            Backing::open(path.as_ref(), &options(direct, engine), &pool()).expect("free");
        backing.submit(&mut vec![(1, write(0))]);
        // A second descriptor on the kernel's side is not enough: the write must be under way.
        while !hangs_in_a_write() {
            std::thread::yield_now();
        }
        println!("\nwriting");
        return wait_for_end_of_input();
    }
    let Some(directory) = frozen_test(test) else { return };
    let freezer = Freezer::mount(&directory, test);
    for (name, direct, engine) in ENGINES {
        let path = directory.join("mnt").join(name);
        kinds::sparse(&path, 1 << 20);
        freezer.freeze();
        let command = again(&[], test, format!("write {name} {}", path.display()));
        let mut other = Other::start(command, "writing");
        other.0.kill().expect("a child of ours");
        // It cannot be waited for: the kernel does not let go of it.
        let attempt = Backing::open(&path, &options(direct, engine), &pool()).map(|_| ());
        freezer.thaw();
        assert!(
            matches!(attempt, Err(OpenError { fault: OpenFault::InUse(_), .. })),
            "{name}: {attempt:?}"
        );
        other.0.wait().expect("a child of ours");
        let mut backing = reopen(&path, &options(direct, engine));
        let read = Op::Read { offset: 0, len: 4096, detect_zero: true };
        let found = run_one(&mut backing, read).expect("readable");
        // The write may have been given up before it began, never after the lock was free.
        assert!(matches!(found, super::Done::Zeros(_) | super::Done::Read(_)));
    }
}

/// Whether some thread of this process waits in the kernel without end.
fn hangs_in_a_write() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("own threads");
    tasks.filter_map(Result::ok).any(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    })
}

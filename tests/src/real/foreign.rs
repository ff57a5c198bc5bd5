//! Programs of other people: nothing of ours decides whether what they say is good.

use super::process::{Process, run, text};
use super::{seconds, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// fio that writes at random and reads back what it wrote, pass after pass, until it is told to end.
#[derive(Debug)]
pub struct VerifyingFio {
    stop: Arc<AtomicBool>,
    passes: Arc<AtomicU64>,
    thread: JoinHandle<Result<u64, String>>,
}

impl VerifyingFio {
    /// Starts it; its state files go to `dir`.
    pub fn start(uri: &str, dir: &Path, mebibytes: u32) -> Self {
        let (stop, passes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (seen, done) = (Arc::clone(&stop), Arc::clone(&passes));
        let arguments = [
            "--name=verify".to_owned(),
            "--ioengine=nbd".into(),
            format!("--uri={uri}"),
            "--rw=randwrite".into(),
            "--bs=4k".into(),
            "--iodepth=16".into(),
            format!("--size={mebibytes}m"),
            "--verify=crc32c".into(),
            "--do_verify=1".into(),
            "--verify_fatal=1".into(),
            "--verify_state_save=0".into(),
            "--randrepeat=0".into(),
            "--fsync=64".into(),
            format!("--aux-path={}", dir.display()),
        ];
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                let output = run(seconds(100), "fio", &arguments);
                if !output.status.success() {
                    return Err(format!("{}\n{}", output.status, text(&output)));
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(done.load(Ordering::Relaxed))
        });
        Self { stop, passes, thread }
    }

    /// # Panics
    /// If it has ended: it ends by itself only when it found something wrong.
    pub fn assert_content(&self) {
        assert!(!self.thread.is_finished(), "fio ended after {} passes", self.passes());
    }

    /// Passes it has completed.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Lets it complete the pass it is in: how many passes there were.
    ///
    /// # Panics
    /// If it found anything wrong.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.unwrap_or_else(|said| panic!("fio: {said}"))
    }
}

/// An export shown as a file by nbdfuse.
#[derive(Debug)]
pub struct Fuse {
    process: Process,
    directory: PathBuf,
    file: PathBuf,
}

impl Fuse {
    /// Mounts the export on a directory `name` in `dir`.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn mount(dir: &Path, name: &str, uri: &str) -> Self {
        let directory = dir.join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new("nbdfuse");
        let mut process = Process::start("nbdfuse", command.arg(&directory).arg(uri), &log);
        let file = directory.join("nbd");
        process.wait_until("the mount", seconds(10), || file.exists());
        Self { process, directory, file }
    }

    /// The export as a file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Lazily: the file may be in use by something that is stuck.
        run(seconds(10), "fusermount3", [Path::new("-uz"), &self.directory]);
        let mut is_over = || self.process.ended().is_some();
        let begin = std::time::Instant::now();
        while !is_over() && begin.elapsed() < seconds(2) {
            std::thread::sleep(super::LOOK);
        }
    }
}

/// A loop device.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Over a file, past the page cache if the file can do that.
    ///
    /// # Panics
    /// If there is none.
    pub fn over(file: &Path) -> Self {
        let arguments = ["--find", "--show", "--direct-io=on"].map(Path::new);
        let said =
            super::process::run_ok(seconds(20), "losetup", arguments.into_iter().chain([file]));
        Self { device: PathBuf::from(said.trim()) }
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(seconds(20), "losetup", [Path::new("--detach"), &self.device]);
    }
}

/// Waits until nothing of the kernel holds a loop device over this file any more.
///
/// # Panics
/// If that takes too long.
pub fn wait_until_detached(file: &Path) {
    let name = file.display().to_string();
    wait_for("the loop device to be gone", seconds(20), || {
        let output = run(seconds(10), "losetup", ["--associated", name.as_str()]);
        text(&output).trim().is_empty()
    });
}

//! A file system on an export, where the kernel has no NBD: nbdfuse shows a file, a loop device makes a disk of it. And a user who writes
//! files there and remembers which were safe.

use super::foreign::{Fuse, Loop};
use super::process::{run, run_ok};
use super::seconds;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A mounted ext4. Dropped, it is unmounted, by force if need be.
#[derive(Debug)]
pub struct Mount {
    directory: PathBuf,
    mounted: bool,
    // In the order in which they go.
    device: Loop,
    fuse: Fuse,
}

impl Mount {
    /// Makes the file system first if `format`, then mounts it, which replays its journal.
    ///
    /// # Panics
    /// If anything of that fails.
    pub fn ext4(dir: &Path, name: &str, uri: &str, format: bool) -> Self {
        let fuse = Fuse::mount(dir, &format!("{name}-nbd"), uri);
        let device = Loop::over(fuse.file());
        let directory = dir.join(format!("{name}-files"));
        std::fs::create_dir_all(&directory).expect("a directory");
        if format {
            run_ok(seconds(60), "mkfs.ext4", [Path::new("-q"), Path::new("-F"), device.device()]);
        }
        run_ok(seconds(60), "mount", [Path::new("-text4"), device.device(), &directory]);
        Self { directory, mounted: true, device, fuse }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Unmounts it politely.
    ///
    /// # Panics
    /// If something is still using it, or its last writes fail.
    pub fn unmount(&mut self) {
        run_ok(seconds(60), "umount", [&self.directory]);
        self.mounted = false;
    }

    /// After [`Self::unmount`]: a full check that changes nothing finds nothing.
    ///
    /// # Panics
    /// If it finds anything.
    pub fn assert_clean(&self) {
        assert!(!self.mounted, "a mounted file system cannot be checked");
        run_ok(seconds(60), "e2fsck", [Path::new("-fn"), self.device.device()]);
        let _ = &self.fuse;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            run(seconds(20), "umount", [Path::new("--lazy"), &self.directory]);
        }
    }
}

/// A user who writes one file after the other and fsyncs each.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    safe: Arc<AtomicU64>,
    thread: JoinHandle<Vec<u64>>,
}

impl Writer {
    /// Starts to write into a directory, until it is stopped or a write fails.
    pub fn start(directory: &Path) -> Self {
        let (stop, safe) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (seen, count, directory) = (Arc::clone(&stop), Arc::clone(&safe), directory.to_owned());
        let thread = std::thread::spawn(move || {
            let mut files = Vec::new();
            for number in 1.. {
                let write = || -> std::io::Result<()> {
                    let mut file = File::create(path(&directory, number))?;
                    file.write_all(&content(number))?;
                    file.sync_all()?;
                    // The name, too.
                    File::open(&directory)?.sync_all()
                };
                if seen.load(Ordering::Relaxed) || write().is_err() {
                    break;
                }
                files.push(number);
                count.fetch_add(1, Ordering::Relaxed);
            }
            files
        });
        Self { stop, safe, thread }
    }

    /// Files that are safe by now.
    pub fn safe(&self) -> u64 {
        self.safe.load(Ordering::Relaxed)
    }

    /// Stops it, or waits for the failure that stops it: the files whose fsync returned.
    ///
    /// # Panics
    /// If the thread did.
    pub fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("file-{number}"))
}

/// What file `number` holds: 4 to 64 KiB that follow from its number.
fn content(number: u64) -> Vec<u8> {
    let blocks = number * 7 % 16 + 1;
    (0..blocks).flat_map(|block| super::blocks::encode(block, number)).collect()
}

/// # Panics
/// If one of these files is not there, or not whole.
pub fn assert_whole(directory: &Path, files: &[u64]) {
    for &number in files {
        let path = path(directory, number);
        let found =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(found == content(number), "{} is not what was fsynced", path.display());
    }
}

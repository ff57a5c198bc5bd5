//! Every kind of disk the suite runs on, all of the same layout: data first, then metadata.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::fs::MemfdFlags;

use super::super::backing::{Backing, Direct, EngineChoice, Options};
use super::super::files::Files;
use super::{pool, skip};

/// Bytes of data. The last blocks are whole ones for every kind.
pub(super) const DATA: u64 = 96 * 4096;
/// Bytes of metadata behind it.
pub(super) const META: u64 = 16 * 4096;

/// A disk to test, full of zeros.
pub(super) struct Disk {
    pub(super) engine: Backing,
    /// First byte of metadata.
    pub(super) meta_at: u64,
    /// No two operations at a time within one of these.
    pub(super) block: u64,
    /// What lies under the engine.
    pub(super) under: OnFiles,
    /// Kept until the engine is gone.
    pub(super) _room: Room,
}

pub(super) struct OnFiles {
    pub(super) files: Arc<Files>,
    pub(super) path: PathBuf,
    pub(super) options: Options,
}

/// Where the files of a test live; removed with it.
pub(super) enum Room {
    Memory(#[expect(dead_code, reason = "closes it")] OwnedFd),
    Directory(#[expect(dead_code, reason = "removes it")] tempfile::TempDir),
    Loop(#[expect(dead_code, reason = "keeps it")] Loop),
}

/// A memory file system, present on every Linux.
pub(super) fn tmpfs() -> Option<Disk> {
    let memory = rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&memory, DATA + META).expect("it grows");
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let disk = open(&path, Options::default(), "pread", Room::Memory(memory));
    Some(disk.expect("a memfd takes everything"))
}

pub(super) fn page_cache() -> Option<Disk> {
    on_file(Direct::No, EngineChoice::Pread, "pread", false)
}

pub(super) fn page_cache_uring() -> Option<Disk> {
    on_file(Direct::No, EngineChoice::Uring, "io_uring", false)
}

pub(super) fn direct_threads() -> Option<Disk> {
    on_file(Direct::Yes, EngineChoice::Pread, "threads", false)
}

pub(super) fn direct_uring() -> Option<Disk> {
    on_file(Direct::Yes, EngineChoice::Auto, "io_uring", false)
}

pub(super) fn external_page_cache() -> Option<Disk> {
    on_file(Direct::No, EngineChoice::Auto, "pread", true)
}

pub(super) fn external_direct() -> Option<Disk> {
    on_file(Direct::Yes, EngineChoice::Auto, "io_uring", true)
}

pub(super) fn block_device_uring() -> Option<Disk> {
    on_loop(Options::default(), "io_uring")
}

pub(super) fn block_device_page_cache() -> Option<Disk> {
    on_loop(Options { direct: Direct::No, ..Options::default() }, "pread")
}

fn on_file(
    direct: Direct,
    engine: EngineChoice,
    name: &'static str,
    external: bool,
) -> Option<Disk> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("disk");
    let size = if external { DATA } else { DATA + META };
    sparse(&path, size);
    let meta = external.then(|| directory.path().join("meta"));
    if let Some(meta) = &meta {
        sparse(meta, META);
    }
    let options = Options { direct, engine, meta, create_meta: false };
    open(&path, options, name, Room::Directory(directory))
}

fn on_loop(options: Options, name: &'static str) -> Option<Disk> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let image = directory.path().join("image");
    sparse(&image, DATA + META);
    let Some(device) = Loop::attach(&image, directory) else {
        skip("a block device", "losetup does not work here (it takes root)");
        return None;
    };
    let path = device.path.clone();
    open(&path, options, name, Room::Loop(device))
}

fn open(path: &Path, options: Options, name: &str, room: Room) -> Option<Disk> {
    let backing = Backing::open(path, &options, &pool()).expect("a disk of its own");
    if backing.engine_name() != name {
        refused(name, &format!("the system gave {} instead", backing.engine_name()));
        return None;
    }
    let files = Arc::clone(&backing.queue.files);
    assert_eq!(backing.size(), if options.meta.is_some() { DATA } else { DATA + META });
    Some(Disk {
        meta_at: if options.meta.is_some() { 0 } else { DATA },
        block: files.data.block,
        engine: backing,
        under: OnFiles { files, path: path.to_owned(), options },
        _room: room,
    })
}

/// What every machine that runs CI must have.
fn refused(what: &str, why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{what}: {why}");
    skip(what, why);
}

pub(super) fn sparse(path: &Path, size: u64) {
    File::create(path).and_then(|file| file.set_len(size)).expect("a sparse file");
}

/// A loop device with 4 KiB sectors. It goes away when the last descriptor is closed, even if the
/// test is killed: it was detached while it was open.
pub(super) struct Loop {
    path: PathBuf,
    _open: File,
    _directory: tempfile::TempDir,
}

impl Loop {
    fn attach(image: &Path, directory: tempfile::TempDir) -> Option<Self> {
        let mut attach = Command::new("losetup");
        attach.args(["--find", "--show", "--sector-size", "4096"]).arg(image);
        let output = attach.output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?;
        let path = output.status.success().then(|| PathBuf::from(path.trim()))?;
        let open = File::open(&path).expect("it was attached just now");
        let detached = Command::new("losetup").arg("--detach").arg(&path).status();
        assert!(detached.is_ok_and(|status| status.success()), "losetup --detach {path:?}");
        Some(Self { path, _open: open, _directory: directory })
    }
}

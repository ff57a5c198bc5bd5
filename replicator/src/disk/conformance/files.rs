//! What only disks on files can show: errors of the system, what opening refuses, what is spared.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use super::super::backing::{Backing, EngineChoice, Options};
use super::super::error::{Cause, DiskError, Holder, OpenError, OpenFault};
use super::super::limits;
use super::super::queue::Queue;
use super::super::{Done, Errno, Op};
use super::kinds::{self, DATA, Disk, META, OnFiles};
use super::{Bytes, PATIENCE, meta_write, pool, run_one};

macro_rules! on_files {
    ($demand:ident: $($kind:ident)*) => { mod $demand { $(
        #[test]
        fn $kind() {
            super::kinds::$kind().map(super::$demand);
        }
    )* } };
}

on_files! { failed_flush_is_for_good: tmpfs page_cache direct_threads direct_uring external_direct }
on_files! { a_success_beside_a_failed_flush_is_not_believed: page_cache direct_threads }
on_files! { errors_reach_the_submitter: tmpfs page_cache page_cache_uring direct_threads direct_uring }
on_files! { a_file_cut_short_is_noticed: tmpfs page_cache page_cache_uring direct_threads direct_uring }
on_files! { a_second_open_is_refused: tmpfs page_cache direct_threads direct_uring external_page_cache
external_direct block_device_uring block_device_page_cache }
on_files! { free_as_soon_as_it_is_closed: tmpfs page_cache page_cache_uring direct_threads direct_uring
external_page_cache external_direct block_device_uring block_device_page_cache }
on_files! { dropped_with_work_in_flight: page_cache direct_threads direct_uring }
on_files! { opening_shows_the_medium: page_cache page_cache_uring external_page_cache }

/// Puts another open file under the descriptor that the engine uses, until dropped.
struct Swapped {
    fd: RawFd,
    original: OwnedFd,
}

impl Swapped {
    fn data_of(disk: &OnFiles, other: impl AsRawFd) -> Self {
        let fd = disk.files.data.file.as_raw_fd();
        // SAFETY: both descriptors are open; dup makes a new one that nobody else has.
        let original = unsafe { OwnedFd::from_raw_fd(libc::dup(fd)) };
        replace(fd, other.as_raw_fd());
        Self { fd, original }
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        replace(self.fd, self.original.as_raw_fd());
    }
}

fn replace(fd: RawFd, by: RawFd) {
    // SAFETY: both are open, and `fd` stays owned by whoever owns it: a number that is open.
    assert_eq!(unsafe { libc::dup2(by, fd) }, fd);
}

fn write(offset: u64, fua: bool) -> Op {
    Op::Write { offset, buffer: pool().copy_of(&[7; 4096]), fua }
}

fn failed_flush_is_for_good(mut disk: Disk) {
    assert!(run_one(&mut disk.engine, Op::Flush).is_ok());
    let (_reader, pipe) = std::io::pipe().expect("a pipe");
    let swapped = Swapped::data_of(&disk.under, pipe);
    let error = run_one(&mut disk.engine, Op::Flush).expect_err("a pipe cannot be flushed");
    assert_eq!(error.cause, Cause::Os(Errno::INVAL));
    drop(swapped);
    // IO-4: the kernel would flush again with success.
    let meta = disk.meta_at;
    for op in [
        Op::Flush,
        write(0, true),
        Op::Zero { offset: 0, len: 4096, fua: true, may_unmap: true },
        meta_write(meta, Bytes::Data(vec![1; 512])),
        meta_write(meta, Bytes::Zeros(512)),
    ] {
        let error = run_one(&mut disk.engine, op).expect_err("IO-4");
        assert_eq!(error.cause, Cause::FlushFailedBefore);
    }
    run_one(&mut disk.engine, write(0, false)).expect("what promises nothing goes on");
    let read = Op::Read { offset: 0, len: 4096, detect_zero: false };
    assert!(matches!(run_one(&mut disk.engine, read), Ok(Done::Read(_))));
}

/// Of two flushes that run together the kernel tells one of the error and the other nothing; their
/// ends are played here, in the order that would hide it.
fn a_success_beside_a_failed_flush_is_not_believed(disk: Disk) {
    let files = &disk.under.files;
    let mut queue = Queue::new(Arc::clone(files)).expect("threads");
    let first = queue.admit(1, Op::Flush).expect("admitted");
    let second = queue.admit(2, write(0, true)).expect("admitted");
    let third = queue.admit(3, Op::Flush).expect("admitted");
    let mut out = Vec::new();
    queue.finish(third, Ok(Done::Finished));
    queue.poll(&mut out);
    assert!(out.is_empty(), "held back while the first runs");
    let error = DiskError { action: "flush", offset: 0, len: 0, cause: Errno::IO.into() };
    queue.finish(first, Err(error));
    queue.finish(second, Ok(Done::Finished));
    assert!(queue.admit(4, Op::Flush).is_none(), "not even tried");
    queue.poll(&mut out);
    out.sort_by_key(|completion| completion.token);
    let causes: Vec<_> =
        out.into_iter().map(|c| (c.token, c.result.map_err(|e| e.cause))).collect();
    for (token, result) in &causes {
        let expected = if *token == 1 { Cause::Os(Errno::IO) } else { Cause::FlushFailedBefore };
        assert_eq!(result.as_ref().expect_err("IO-4"), &expected, "{token}");
    }
    assert_eq!((causes.len(), queue.in_flight), (4, 0));
}

fn errors_reach_the_submitter(mut disk: Disk) {
    let path = &disk.under.path;
    let flags =
        if disk.under.files.data.direct { OFlags::RDONLY | OFlags::DIRECT } else { OFlags::RDONLY };
    let read_only = rustix::fs::open(path, flags, Mode::empty()).expect("opened to read");
    let swapped = Swapped::data_of(&disk.under, read_only);
    for len in [4096, 100] {
        let buffer = pool().copy_of(&vec![7; len]);
        let op = Op::Write { offset: 0, buffer, fua: false };
        let error = run_one(&mut disk.engine, op).expect_err("read-only");
        assert_eq!(error.cause, Cause::Os(Errno::BADF), "{len}");
    }
    drop(swapped);
    run_one(&mut disk.engine, write(0, true)).expect("a failed plain write is not a failed flush");
}

fn a_file_cut_short_is_noticed(mut disk: Disk) {
    let engine = &mut disk.engine;
    let path = &disk.under.path;
    let file = File::options().write(true).open(path).expect("it is there");
    for short in [8192, 5000] {
        file.set_len(short).expect("shorter");
        for detect_zero in [false, true] {
            for (offset, len) in [(4096, 8192), (16384, 4096), (8191, 2)] {
                let op = Op::Read { offset, len, detect_zero };
                let error = run_one(engine, op).expect_err("past the end");
                assert_eq!(error.cause, Cause::UnexpectedEnd, "{short} {offset} {len}");
            }
        }
    }
}

fn a_second_open_is_refused(disk: Disk) {
    let OnFiles { path, options, .. } = &disk.under;
    let name = fs::read_to_string("/proc/self/comm").expect("a name");
    let own = Holder { pid: std::process::id(), name: name.trim().to_owned() };
    let mut attempts = vec![(path.clone(), Options::default()), (path.clone(), options.clone())];
    if let Some(meta) = &options.meta {
        // Its metadata is as much in use as its data, by whatever name.
        attempts.push((meta.clone(), Options::default()));
    }
    for (path, options) in attempts {
        match Backing::open(&path, &options, &pool()) {
            Err(OpenError { path: named, fault: OpenFault::InUse(holder) }) => {
                assert_eq!((named, holder.as_ref()), (path, Some(&own)));
            }
            other => panic!("{:?}", other.map(|backing| backing.engine_name())),
        }
    }
}

/// A detach is answered when the disk is closed: then nothing may hold it any more, no disk thread
/// and no ring.
fn free_as_soon_as_it_is_closed(disk: Disk) {
    let Disk { mut engine, under, _room, .. } = disk;
    let OnFiles { path, options, files } = under;
    drop(files);
    for round in 0..100 {
        for i in 0..8 {
            run_one(&mut engine, write(i * 4096, i % 2 == 0)).expect("written");
        }
        run_one(&mut engine, Op::Flush).expect("flushed");
        drop(engine);
        let again = Backing::open(&path, &options, &pool());
        engine = again.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

/// Opens a disk that is about to be free.
pub(super) fn reopen(path: &std::path::Path, options: &Options) -> Backing {
    let start = Instant::now();
    loop {
        match Backing::open(path, options, &pool()) {
            Err(OpenError { fault: OpenFault::InUse(_), .. }) if start.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            opened => return opened.expect("free again"),
        }
    }
}

fn dropped_with_work_in_flight(disk: Disk) {
    let Disk { mut engine, under, .. } = disk;
    let OnFiles { path, options, files } = under;
    drop(files);
    let zero = |i| Op::Zero { offset: i * 4096, len: 4096, fua: true, may_unmap: true };
    let batch = (0..64).map(|i| (i, if i % 2 == 0 { write(i * 4096, true) } else { zero(i) }));
    engine.submit(&mut batch.collect());
    drop(engine);
    let mut again = reopen(&path, &options);
    let read = Op::Read { offset: 0, len: 64 * 4096, detect_zero: false };
    let Ok(Done::Read(found)) = run_one(&mut again, read) else { panic!("it reads") };
    for (i, block) in found.as_ref().chunks(4096).enumerate() {
        let (first, uniform) = (block[0], block.iter().all(|&byte| byte == block[0]));
        assert!(uniform && (first == 0 || first == 7 && i % 2 == 0), "block {i}");
    }
}

/// IO-4: what the page cache kept after a failed write-back is not on the medium.
fn opening_shows_the_medium(disk: Disk) {
    let Disk { mut engine, under, .. } = disk;
    let OnFiles { path, options, files } = under;
    drop(files);
    run_one(&mut engine, write(0, true)).expect("written");
    let seen = File::open(&path).expect("readable");
    let cached = || {
        let into = &mut [0; 4096];
        let read = rustix::io::preadv2(
            &seen,
            &mut [IoSliceMut::new(into)],
            0,
            rustix::io::ReadWriteFlags::NOWAIT,
        );
        read == Ok(4096)
    };
    assert!(cached(), "written through the page cache");
    drop(engine);
    let again = reopen(&path, &options);
    assert!(!cached(), "still there: {}", again.engine_name());
}

#[test]
fn io_uring_forbidden_means_disk_threads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("disk");
    kinds::sparse(&path, DATA);
    // The filter binds this thread and its children only.
    let thread = std::thread::spawn(move || {
        forbid_io_uring();
        let options = Options { engine: EngineChoice::Uring, ..Options::default() };
        let mut backing = Backing::open(&path, &options, &pool()).expect("it opens all the same");
        assert_eq!(backing.engine_name(), "pread");
        run_one(&mut backing, write(4096, true)).expect("written");
        let read = Op::Read { offset: 4096, len: 1, detect_zero: true };
        assert!(matches!(run_one(&mut backing, read), Ok(Done::Read(b)) if b.as_ref() == [7]));
    });
    thread.join().expect("no panic");
}

fn forbid_io_uring() {
    let op = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and the filter it points to outlive the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = |path: &std::path::Path| {
        Backing::open(path, &Options::default(), &pool()).map(|_| ()).expect_err("not a disk")
    };
    let error = open(directory.path());
    assert!(matches!(error.fault, OpenFault::NotADisk));
    assert_eq!(error.path, directory.path());
    // Opening a terminal or a FIFO could wait for ever.
    assert!(matches!(open("/dev/tty".as_ref()).fault, OpenFault::NotADisk));
    let missing = directory.path().join("missing");
    let error = open(&missing);
    assert!(error.to_string().contains(missing.to_str().expect("a name")), "{error}");
    assert!(!missing.exists());
}

#[test]
fn metadata_has_its_space_before_it_is_needed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, meta) = (directory.path().join("disk"), directory.path().join("meta"));
    kinds::sparse(&path, DATA);
    let mut options = Options { meta: Some(meta.clone()), ..Options::default() };
    assert!(Backing::open(&path, &options, &pool()).is_err(), "nobody asked to create it");
    options.create_meta = true;
    let mut backing = Backing::open(&path, &options, &pool()).expect("created");
    assert_eq!(backing.meta_size(), 0);
    backing.reserve_meta(4096, META - 4096).expect("there is space");
    assert_eq!(backing.meta_size(), META);
    let allocated = fs::metadata(&meta).expect("it is there").blocks() * 512;
    assert!(allocated >= META - 4096, "{allocated} bytes");
    drop(backing);

    let mut backing = reopen(&path, &Options::default());
    let cause = backing.reserve_meta(DATA, 4096).expect_err("internal: no room").cause;
    assert_eq!(cause, Cause::OutOfRange { size: DATA });
    assert_eq!(fs::metadata(&path).expect("it is there").len(), DATA);
    backing.reserve_meta(DATA - META, META).expect("inside");
    let allocated = fs::metadata(&path).expect("it is there").blocks() * 512;
    assert!((META..DATA).contains(&allocated), "only the metadata: {allocated} bytes");
}

#[test]
fn a_large_bitmap_is_zeroed_and_keeps_its_space() {
    let len = limits::ZEROED_BY_CALL;
    // With and without a call for it (a tmpfs has none).
    for directory in [std::env::temp_dir(), "/dev/shm".into()] {
        let directory = tempfile::tempdir_in(directory).expect("a temporary directory");
        let path = directory.path().join("disk");
        kinds::sparse(&path, DATA + len);
        let old = File::options().write(true).open(&path).expect("it is there");
        for at in [DATA - 512, DATA, DATA + len / 2, DATA + len - 512] {
            old.write_all_at(&[7; 512], at).expect("room");
        }
        let mut backing = reopen(&path, &Options::default());
        let zero = meta_write(DATA, Bytes::Zeros(len));
        assert!(matches!(run_one(&mut backing, zero), Ok(Done::Finished)));
        drop(backing);
        let now = fs::read(&path).expect("it is there");
        assert!(now[DATA as usize..].iter().all(|&byte| byte == 0));
        assert_eq!(now[DATA as usize - 512..DATA as usize], [7; 512], "what is before it stays");
        let allocated = fs::metadata(&path).expect("it is there").blocks() * 512;
        assert!((len..len + DATA).contains(&allocated), "{allocated} bytes");
    }
}

#[test]
fn a_hole_costs_no_transfer() {
    let mut disk = kinds::tmpfs().expect("memory");
    let mut ask = || {
        let op = Op::Read { offset: 0, len: DATA as u32, detect_zero: true };
        run_one(&mut disk.engine, op).expect("readable")
    };
    let before = bytes_read_by_this_thread();
    assert!(matches!(ask(), Done::Zeros(_)));
    let spent = bytes_read_by_this_thread() - before;
    assert!(spent < 4096, "{spent} bytes for a hole");
}

/// A memory file system is read on the submitter's thread, so its account shows.
fn bytes_read_by_this_thread() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").expect("task accounting");
    let count = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    count.expect("rchar").parse().expect("a number")
}

//! One daemon per disk: locks that live exactly as long as the I/O they guard.
//!
//! A lock of the open file description (`F_OFD_SETLK`) goes when the last reference to the
//! description goes, and requests in io_uring, or a thread stuck in a system call, are references.
//! So a killed daemon holds its lock until its last write has landed. On block devices O_EXCL
//! guards against mounts and other drivers as well.
//!
//! Not guarded: programs that ask for no lock.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::error::Holder;

/// Bytes to lock: first, and how many. The same for all, so that any two daemons meet. A disk of
/// which data and internal metadata have a description each needs two locks that do not conflict.
pub(super) type Bytes = (libc::off_t, libc::off_t);

/// One description is all there is.
pub(super) const WHOLE: Bytes = (0, 2);
/// Data, beside a description for metadata.
pub(super) const DATA: Bytes = (0, 1);
/// Metadata, beside a description for data.
pub(super) const META: Bytes = (1, 1);

/// Takes the lock for ever; `false` if somebody else has it.
pub(super) fn take(file: &fs::File, (start, len): Bytes) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: the descriptor is open and `lock` outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Looks for a process that has the disk open and locked. The kernel does not tell (such locks have
/// no pid), so this searches `/proc`, where an ordinary user sees the own processes only.
pub(super) fn holder(disk: &fs::Metadata) -> Option<Holder> {
    let pid = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|&pid| holds(pid, disk))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder { pid, name: name.trim().to_owned() })
}

fn holds(pid: u32, disk: &fs::Metadata) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(Result::ok).any(|entry| {
        // First what the kernel knows by itself: asking about a file may hang if its server does.
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        let locked = fs::read_to_string(info).is_ok_and(|info| info.contains("OFDLCK"));
        locked
            && fs::metadata(entry.path()).is_ok_and(|open| {
                open.dev() == disk.dev() && open.ino() == disk.ino()
                    || disk.file_type().is_block_device() && open.rdev() == disk.rdev()
            })
    })
}

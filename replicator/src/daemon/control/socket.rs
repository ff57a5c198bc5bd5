//! The files of a running resource: a lock that says it runs, and the socket it answers on. With
//! the lock held, a socket that is there already is what a killed daemon left.

use crate::daemon::limits;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Why a resource cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It runs already.
    #[error("{}: the resource runs here already, as process {holder}", path.display())]
    Running {
        /// The lock.
        path: PathBuf,
        /// Who holds it, as it wrote.
        holder: String,
    },
    /// A system call refused.
    #[error("{}: cannot {action}: {error}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// The right to run a resource in a run directory. The kernel takes it back when the process ends.
#[derive(Debug)]
pub struct RunLock {
    _lock: File,
    socket: PathBuf,
}

impl RunLock {
    /// The lock of a resource, which holds the pid of its daemon as text.
    pub fn path(directory: &Path, name: &str) -> PathBuf {
        directory.join(format!("{name}.pid"))
    }

    /// The socket it answers on.
    pub fn socket(directory: &Path, name: &str) -> PathBuf {
        directory.join(format!("{name}.sock"))
    }

    /// Takes the lock `NAME.pid` in `directory` (made if there is none), and writes our pid into it.
    ///
    /// # Errors
    /// [`SocketError::Running`] if another process has it.
    pub fn take(directory: &Path, name: &str) -> Result<Self, SocketError> {
        let path = Self::path(directory, name);
        let failed = |action, error| SocketError::System { path: path.clone(), action, error };
        fs::create_dir_all(directory).map_err(|e| failed("make its directory", e))?;
        let opened =
            File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = opened.map_err(|error| failed("open", error))?;
        if !lock_soon(&lock).map_err(|error| failed("lock", error))? {
            let mut holder = String::new();
            // For the message only.
            let _ = (&lock).take(20).read_to_string(&mut holder);
            return Err(SocketError::Running { path, holder: holder.trim().to_owned() });
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| failed("write", error))?;
        Ok(Self { _lock: lock, socket: Self::socket(directory, name) })
    }

    /// Whether a process holds the lock. It is so until the very end of a daemon, when its sockets
    /// are closed already.
    pub fn is_held(directory: &Path, name: &str) -> bool {
        File::open(Self::path(directory, name)).is_ok_and(|lock| {
            let shared = FlockOperation::NonBlockingLockShared;
            rustix::fs::flock(&lock, shared) == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    /// Binds the socket `NAME.sock`; only our own user may use it.
    pub(super) fn bind(&self) -> Result<UnixListener, SocketError> {
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.error("remove what a killed daemon left", error));
            }
            _ => {}
        }
        let bind = || {
            let listener = UnixListener::bind(&self.socket)?;
            fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        bind().map_err(|error| self.error("listen", error))
    }

    pub(super) fn error(&self, action: &'static str, error: io::Error) -> SocketError {
        SocketError::System { path: self.socket.clone(), action, error }
    }
}

/// Locks; `false` if another has it for good. Who asks ([`RunLock::is_held`]) has it for a moment.
fn lock_soon(file: &File) -> io::Result<bool> {
    for _ in 0..10 {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(limits::WAIT_STEP / 4),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // While the lock is still held. If somebody removed it before: as well.
        let _ = fs::remove_file(&self.socket);
    }
}

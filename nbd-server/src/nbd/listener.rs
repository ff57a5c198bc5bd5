//! Where clients come in: a TCP port or a Unix socket. It accepts and sets socket options; who is
//! served, and how many, is the server's business.

use super::transport::Socket;
use rustix::net::sockopt;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// A place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port; the one registered for NBD is 10809, and 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(to),
            Self::Unix(path) => path.display().fmt(to),
        }
    }
}

/// An open place. Dropping it closes it and removes its socket file.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Why a place cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: Address,
    /// What the system said. `AddrInUse`: somebody answers there.
    pub source: io::Error,
}

impl Listener {
    /// Opens `address`. A socket file that nobody answers on any more is replaced; anything else
    /// in its place is left alone and is an error.
    ///
    /// Must be called inside a tokio runtime.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        let kind = match address {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Kind::Tcp),
            Address::Unix(path) => bind_unix(path),
        };
        kind.map(Self).map_err(|source| BindError { address: address.clone(), source })
    }

    /// Where it listens; with the port that the system chose.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Kind::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// The next client, and what to call it in the log. Safe to cancel.
    pub(super) async fn accept(&self) -> io::Result<(Socket, String)> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A client whose machine is gone leaves its place within about two minutes.
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
                sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(10))?;
                sockopt::set_tcp_keepcnt(&stream, 6)?;
                Ok((Socket::Tcp(stream), peer.to_string()))
            }
            Kind::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let client = match stream.peer_cred() {
                    Ok(who) => format!("pid {} uid {}", who.pid().unwrap_or(0), who.uid()),
                    Err(_) => "unix client".to_owned(),
                };
                Ok((Socket::Unix(stream), client))
            }
        }
    }
}

/// The file of a Unix socket that is ours to remove.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put another file there since.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn bind_unix(path: &Path) -> io::Result<Kind> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path)? => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let inode = inode(path)?;
    Ok(Kind::Unix(listener, SocketFile { path: path.to_owned(), inode }))
}

/// Whether `path` is a socket on which nobody listens.
fn is_stale(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    // A full queue blocks no longer than it takes its owner to accept.
    match StdUnixStream::connect(path) {
        Ok(_) => Ok(false),
        Err(error) => Ok(error.kind() == ErrorKind::ConnectionRefused),
    }
}

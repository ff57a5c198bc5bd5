//! What carries a connection: a non-blocking stream with gathered sends and scattered receives.
//! It knows no protocol and keeps no buffer.

use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recvmsg, sendmsg,
    shutdown,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A connected stream. Tests put their own in, to cut it into unpleasant pieces.
pub trait Transport: 'static {
    /// Ready when a receive may succeed. Errors show in the receive.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()>;
    /// Ready when a send may succeed. Errors show in the send.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()>;
    /// Receives what is there; 0 at the end of the stream, `WouldBlock` if there is nothing.
    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
    /// Sends what fits; `WouldBlock` if nothing does.
    fn send(&self, from: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Nothing more will be sent.
    fn finish(&self);
}

/// The streams a [`Listener`](super::listener::Listener) accepts.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Socket {
    fn try_io<R>(&self, for_what: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(for_what, io),
            Self::Unix(stream) => stream.try_io(for_what, io),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Transport for Socket {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        };
        ready.map(drop)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Unix(stream) => stream.poll_write_ready(context),
        };
        ready.map(drop)
    }

    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room: usize = into.iter().map(|slice| slice.len()).sum();
        let mut short = None;
        let received = self.try_io(Interest::READABLE, || {
            let mut no_control = RecvAncillaryBuffer::default();
            let received = recvmsg(self, into, &mut no_control, RecvFlags::DONTWAIT)?.bytes;
            if received > 0 && received < room {
                // The socket is empty now and tells us (edge triggered) when it is not. Saying
                // so here saves the receive that would find nothing.
                short = Some(received);
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(received)
        });
        short.map_or(received, Ok)
    }

    fn send(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || {
            let mut no_control = SendAncillaryBuffer::default();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            Ok(sendmsg(self, from, &mut no_control, flags)?)
        })
    }

    fn finish(&self) {
        // Fails only if the stream is broken already.
        let _ = shutdown(self, Shutdown::Write);
    }
}

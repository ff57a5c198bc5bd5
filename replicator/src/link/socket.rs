//! A connected socket that is read and written without waiting, past what the runtime believes of its readiness.
//!
//! A reader that spins must ask the kernel each time: the runtime learns of new bytes only when its thread sleeps. When
//! the kernel says "not now", the runtime is told, else waiting would return at once for ever.

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

#[derive(Debug)]
pub(super) struct Socket(TcpStream);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Bytes received; 0 at the end of the stream; none if there is nothing now.
    pub(super) fn read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        let mut read = || Ok(retry_on_intr(|| rustix::io::readv(&self.0, into))?);
        match read() {
            Err(error) if is_not_now(&error) => not_now(self.0.try_io(Interest::READABLE, read)),
            result => result.map(Some),
        }
    }

    /// Bytes sent; none if the socket is full.
    pub(super) fn write(&self, from: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        match self.send(from) {
            Err(error) if is_not_now(&error) => self.write_if_ready(from),
            result => result.map(Some),
        }
    }

    /// The same, but makes no system call on a socket that is known to be full.
    pub(super) fn write_if_ready(&self, from: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        not_now(self.0.try_io(Interest::WRITABLE, || self.send(from)))
    }

    fn send(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut nothing = SendAncillaryBuffer::default();
        Ok(retry_on_intr(|| rustix::net::sendmsg(&self.0, from, &mut nothing, flags))?)
    }

    /// No more is sent: the other end sees the end of the stream after the last byte.
    pub(super) fn finish(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write)?)
    }

    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        // An error is found by the read that follows.
        self.0.poll_read_ready(context).map(drop)
    }

    pub(super) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_write_ready(context).map(drop)
    }
}

fn is_not_now(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn not_now(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if is_not_now(&error) => Ok(None),
        result => result.map(Some),
    }
}

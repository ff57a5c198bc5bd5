//! A connected socket that is read and written without waiting.
//!
//! It is read only when the runtime was told of new bytes, and a read that brings less than it asked for tells the
//! runtime that there are no more: hardly any read finds nothing. A reader that spins needs a runtime that asks the
//! kernel often (`event_interval`). It is written past what the runtime believes: mostly there is room.

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

    /// Bytes received; 0 at the end of the stream; none if there is nothing now, as far as is known.
    pub(super) fn read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        let room: usize = into.iter().map(|slice| slice.len()).sum();
        let mut short = None;
        let result = self.0.try_io(Interest::READABLE, || {
            let received = retry_on_intr(|| rustix::io::readv(&self.0, into))?;
            if received > 0 && received < room {
                // The socket is empty; the next bytes are told of (epoll, edge triggered).
                short = Some(received);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(received)
        });
        match short {
            Some(received) => Ok(Some(received)),
            None => not_now(result),
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

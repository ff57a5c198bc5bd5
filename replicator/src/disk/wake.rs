//! The eventfd that tells the owner's thread of completions. It counts nothing: it only wakes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{EventfdFlags, eventfd};

/// Shared by the threads and the ring of one engine.
#[derive(Debug)]
pub(super) struct Wake(File);

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(File::from(eventfd(0, flags)?)))
    }

    pub(super) fn signal(&self) {
        match (&self.0).write(&1u64.to_ne_bytes()) {
            Ok(_) => {}
            // A full counter is as readable as any.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("writing to an eventfd failed: {error}"),
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

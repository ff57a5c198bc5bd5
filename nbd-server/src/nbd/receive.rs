//! The receive buffer of a connection: bytes that have arrived and are not consumed yet, at the
//! front of a fixed piece of memory. It knows no protocol.

#[derive(Debug)]
pub(super) struct Receiver {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Receiver {
    pub(super) fn new(capacity: usize) -> Self {
        Self { memory: vec![0; capacity].into(), start: 0, end: 0 }
    }

    /// What has arrived and is not consumed.
    pub(super) fn unread(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The first `bytes` of what is unread are done with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end, "more was consumed than had arrived");
    }

    /// Where to receive. Empty only when the unread bytes fill the buffer. Moves the unread bytes
    /// to the front: in the transmission phase they are less than one header.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.memory[self.end..]
    }

    /// `bytes` were received into the spare part.
    pub(super) fn received(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= self.memory.len(), "more was received than there was room for");
    }
}

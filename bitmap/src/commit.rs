//! What must be written, as values: the shapes a commit is made of. What goes into one is decided
//! in `metadata.rs`.

use crate::codec::{SECTOR, Sector};
use alloc::vec::Vec;
use core::fmt;

/// Longest write made by joining neighbours.
const LONGEST: usize = 128 * 1024;

/// One write to the device or file that holds the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaWrite {
    /// Where, in bytes; a multiple of 512.
    pub offset: u64,
    /// What.
    pub bytes: Bytes,
}

/// What to write.
#[derive(Clone, PartialEq, Eq)]
pub enum Bytes {
    /// These bytes; a multiple of 512.
    Data(Vec<u8>),
    /// So many zeros, really written: no later write may meet ENOSPC. A multiple of 4096.
    Zeros(u64),
}

/// Nobody reads the bytes of a log sector; whether two are the same, the sum tells.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(bytes) => {
                write!(f, "Data({} bytes, sum {:08x})", bytes.len(), crc32fast::hash(bytes))
            }
            Self::Zeros(len) => write!(f, "Zeros({len} bytes)"),
        }
    }
}

impl Bytes {
    /// Bytes to write.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeros(len) => *len,
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A request for durability: durable once [`crate::Metadata::durable`] has reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// What must be written, in order. There is always something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The writes of one stage go in any order or in parallel; they do not overlap. A stage
    /// starts only when all writes of the former are durable.
    pub stages: Vec<Vec<MetaWrite>>,
    /// Whether the activity log is among them.
    pub writes_log: bool,
    /// How many of them go to bitmaps.
    pub bitmap_writes: usize,
}

/// Sectors as writes, neighbours joined.
pub(crate) fn join(mut sectors: Vec<(u64, Sector)>) -> Vec<MetaWrite> {
    sectors.sort_unstable_by_key(|&(offset, _)| offset);
    let mut writes: Vec<MetaWrite> = Vec::new();
    for (offset, sector) in sectors {
        if let Some(MetaWrite { offset: start, bytes: Bytes::Data(data) }) = writes.last_mut()
            && *start + data.len() as u64 == offset
            && data.len() + SECTOR <= LONGEST
        {
            data.extend_from_slice(&sector);
        } else {
            writes.push(MetaWrite { offset, bytes: Bytes::Data(sector.to_vec()) });
        }
    }
    writes
}

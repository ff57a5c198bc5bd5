//! What one 512-byte sector holds, as a number that says who wrote it.

use super::OpId;
use std::fmt;

/// The content of a sector: zeros, one sector of one client's write, or what a disk held before anybody wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(pub u64);

const GARBAGE: u64 = 1 << 63;

impl Token {
    /// All zeros.
    pub const ZERO: Self = Self(0);

    /// Sector `index` of write `op`. Every sector has its own token, so that a shifted copy is noticed.
    pub fn write(op: OpId, index: u32) -> Self {
        Self(u64::from(op) << 16 | u64::from(index))
    }

    /// What disk number `disk` held in `sector` when it was bought.
    pub fn garbage(disk: u32, sector: u32) -> Self {
        Self(GARBAGE | u64::from(disk) << 32 | u64::from(sector))
    }

    /// The write and the index inside it, if a client wrote this.
    pub fn writer(self) -> Option<(OpId, u32)> {
        if self == Self::ZERO || self.0 & GARBAGE != 0 {
            return None;
        }
        Some(((self.0 >> 16) as OpId, (self.0 & 0xffff) as u32))
    }

    /// The disk and sector, if this is a disk's first content.
    pub fn first_content(self) -> Option<(u32, u32)> {
        (self.0 & GARBAGE != 0).then_some(((self.0 >> 32) as u32 & 0x7fff_ffff, self.0 as u32))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ZERO {
            return f.write_str("zeros");
        }
        if let Some((disk, sector)) = self.first_content() {
            return write!(f, "first content of disk {disk} sector {sector}");
        }
        match self.writer() {
            Some((op, index)) => write!(f, "write #{op}+{index}"),
            None => f.write_str("?"),
        }
    }
}

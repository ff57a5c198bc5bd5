//! What two releases can say to each other: protocol versions, feature bits, options both ends must share.
//!
//! A change that an older release cannot understand gets a feature bit; a message that changes gets a new type id. The
//! version rises only when the frame or the handshake itself changes.

use core::fmt;

/// Oldest protocol version this release speaks.
pub const VERSION_MIN: u16 = 1;
/// Newest protocol version this release speaks.
pub const VERSION_MAX: u16 = 1;

/// A set of abilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// What this release can do beyond version 1.
    pub const SUPPORTED: Self = Self(0);

    /// What a peer must be able to do to work with this release.
    pub const REQUIRED: Self = Self(0);

    /// Bits promised to abilities of later releases, so that nothing else takes them.
    pub const RESERVED: &[(u8, &str)] = &[
        (0, "peer-ack"),
        (1, "out-of-sync"),
        (2, "new-current"),
        (3, "exposed-generation"),
        (4, "two-phase-changes"),
        (5, "resize"),
        (6, "two-primaries"),
    ];
}

/// Checksum over payloads (`data-integrity-alg`); headers and messages always have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Integrity {
    /// None.
    #[default]
    None = 0,
    /// CRC-32 (IEEE 802.3).
    Crc32 = 1,
}

impl Integrity {
    pub(super) fn from_id(id: u8) -> Option<Self> {
        [Self::None, Self::Crc32].into_iter().find(|&known| known as u8 == id)
    }

    /// The value of `payload_checksum`.
    pub(super) fn of(self, payload: &[u8]) -> u32 {
        match self {
            Self::None => 0,
            Self::Crc32 => crc32fast::hash(payload),
        }
    }
}

impl fmt::Display for Integrity {
    /// As `data-integrity-alg` spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Crc32 => "crc32",
        })
    }
}

//! What two releases can say to each other: protocol versions, feature bits, options both ends must share.
//!
//! A change that an older release cannot understand gets a feature bit; a message that changes gets a new type id. The
//! version rises only when the frame or the handshake itself changes.

use core::fmt;

/// Oldest protocol version this release speaks.
pub const VERSION_MIN: u16 = 1;
/// Newest protocol version this release speaks.
pub const VERSION_MAX: u16 = 1;

/// What this release can do beyond version 1, one bit each.
pub const FEATURES: u64 = 0;
/// What a peer must be able to do to work with this release.
pub const REQUIRED_FEATURES: u64 = 0;

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
    /// The value of `payload_checksum`; 0 without payload.
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

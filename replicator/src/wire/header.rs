//! The 32 bytes before every message: what kind, how long, is it whole. Knows no message.
//!
//! All numbers are little-endian. `docs/protocol.md` shows these tables; a test compares.

use super::error::WireError;
use super::features::Integrity;
use super::limits::{MAX_BODY, MAX_PAYLOAD};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First four bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"PLXF");

/// Bytes of a frame header.
pub const HEADER_LEN: usize = size_of::<FrameHeader>();

/// Flag: a receiver that does not know the type skips the frame.
pub const OPTIONAL: u16 = 1;

/// Declares packed little-endian structures, each together with the table that documents it.
macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }

    )*
        /// Fields of every layout, for the documentation test.
        pub(super) const LAYOUTS: &[(&str, &[bitmap::Field])] = &[$((
            stringify!($name),
            &[$(bitmap::Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            },)*],
        ),)*];
    };
}
pub(super) use layout;

layout! {
    /// What stands before every message.
    FrameHeader {
        magic: U32,
        kind: U16,
        flags: U16,
        sequence: U32,
        body_len: U32,
        payload_len: U32,
        body_checksum: U32,
        payload_checksum: U32,
        header_checksum: U32,
    }
}

const _: () = assert!(HEADER_LEN == 32);

impl FrameHeader {
    /// The header of a frame, as it is sent. Its checksum covers everything before itself.
    pub(super) fn seal(
        kind: FrameType,
        sequence: u32,
        body: &[u8],
        payload: &[u8],
        integrity: Integrity,
    ) -> [u8; HEADER_LEN] {
        assert!(body.len() <= MAX_BODY, "{kind:?}: {} bytes of message", body.len());
        assert!(payload.len() <= MAX_PAYLOAD, "{kind:?}: {} bytes of payload", payload.len());
        let mut header = Self {
            magic: U32::new(MAGIC),
            kind: U16::new(kind as u16),
            flags: U16::new(0),
            sequence: U32::new(sequence),
            body_len: U32::new(body.len() as u32),
            payload_len: U32::new(payload.len() as u32),
            body_checksum: U32::new(crc32fast::hash(body)),
            payload_checksum: U32::new(integrity.of(payload)),
            header_checksum: U32::new(0),
        };
        header.header_checksum = U32::new(header.checksum());
        zerocopy::transmute!(header)
    }

    /// Believes the header if nothing in it contradicts itself (NET-2).
    pub(super) fn open(bytes: &[u8; HEADER_LEN], sequence: u32) -> Result<Self, WireError> {
        let header: Self = zerocopy::transmute!(*bytes);
        if header.magic.get() != MAGIC {
            return Err(WireError::Magic(header.magic.get()));
        }
        if header.header_checksum.get() != header.checksum() {
            return Err(WireError::HeaderChecksum);
        }
        let found = header.sequence.get();
        if found != sequence {
            return Err(WireError::Sequence { expected: sequence, found });
        }
        if header.flags.get() & !OPTIONAL != 0 {
            return Err(WireError::Flags(header.flags.get()));
        }
        let frame = header.kind.get();
        let limits =
            [("body", header.body_len, MAX_BODY), ("payload", header.payload_len, MAX_PAYLOAD)];
        for (what, bytes, limit) in limits {
            if bytes.get() as usize > limit {
                return Err(WireError::Length { frame, what, bytes: bytes.get() });
            }
        }
        Ok(header)
    }

    /// What the frame is; none if a receiver that does not know it may skip it.
    pub(super) fn frame_type(&self) -> Result<Option<FrameType>, WireError> {
        let known = FrameType::from_id(self.kind.get());
        if known.is_none() && self.flags.get() & OPTIONAL == 0 {
            return Err(WireError::UnknownType(self.kind.get()));
        }
        Ok(known)
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..core::mem::offset_of!(Self, header_checksum)])
    }
}

/// Declares the frame types and the table that documents them.
macro_rules! frame_types {
    ($($name:ident = $id:literal,)*) => {
        /// What a frame carries: one id per kind of message. A released id never changes its layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum FrameType {
            $(#[doc = concat!("`Message::", stringify!($name), "`.")] $name = $id,)*
        }

        impl FrameType {
            /// Every type, by rising id.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The type with this id.
            pub fn from_id(id: u16) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

frame_types! {
    Write = 0x01,
    Received = 0x02,
    Written = 0x03,
    Flush = 0x04,
    Flushed = 0x05,
    Read = 0x06,
    ReadData = 0x07,
    SyncRead = 0x08,
    SyncData = 0x09,
    Facts = 0x20,
    Agreed = 0x21,
    Ready = 0x22,
    Bits = 0x23,
    SyncCommit = 0x24,
    SyncCommitted = 0x25,
    SyncFinish = 0x26,
    SyncGrant = 0x27,
    InSync = 0x28,
    PromoteRequest = 0x29,
    PromoteReply = 0x2a,
    RoleIs = 0x2b,
    Invalidate = 0x2c,
    Bye = 0x2d,
    Ping = 0x2e,
    Pong = 0x2f,
    SyncCompare = 0x30,
    SyncDiffers = 0x31,
}

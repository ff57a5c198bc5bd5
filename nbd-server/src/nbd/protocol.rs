//! The numbers of the NBD protocol that this server uses, as `doc/proto.md` of the NBD project
//! spells them. All integers on the wire are big endian. No code but the way to write them.

use crate::device::IoError;

/// First eight bytes a server sends.
pub const MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// Second eight bytes a server sends, and the first eight of every option.
pub const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// First eight bytes of every option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Handshake flag of both sides: errors to options can be answered.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag of both sides: no 124 zeroes after EXPORT_NAME.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

/// Length of magic, option code and payload length.
pub const OPTION_HEADER: usize = 16;
/// Longest string the protocol allows.
pub const MAX_STRING: usize = 4096;

/// Options of the client.
pub mod option {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Replies to options.
pub mod option_reply {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    const ERROR: u32 = 1 << 31;
    pub const ERR_UNSUP: u32 = ERROR | 1;
    pub const ERR_POLICY: u32 = ERROR | 2;
    pub const ERR_INVALID: u32 = ERROR | 3;
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    pub const ERR_TOO_BIG: u32 = ERROR | 9;
}

/// What INFO and GO tell.
pub mod info {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
pub mod flag {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const HAS_FLAGS: u16 = 1 << 0;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const ROTATIONAL: u16 = 1 << 4;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
}

/// First four bytes of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Length of a request without payload.
pub const REQUEST_HEADER: usize = 28;

/// Commands of the client.
pub mod command {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands.
pub mod command_flag {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const FUA: u16 = 1 << 0;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
}

/// First four bytes of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First four bytes of a chunk of a structured reply.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// Chunk flag: the last one of its reply.
pub const CHUNK_DONE: u16 = 1;

/// Types of chunks.
pub mod chunk {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = (1 << 15) | 1;
}

/// The one metadata context served.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The id under which it is selected.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// Extent flag of `base:allocation`.
pub const STATE_HOLE: u32 = 1;
/// Extent flag of `base:allocation`.
pub const STATE_ZERO: u32 = 2;

/// The number that stands for an error on the wire; no other may be sent.
pub const fn errno(error: IoError) -> u32 {
    match error {
        IoError::NotPermitted => 1,
        IoError::Io => 5,
        IoError::NoMemory => 12,
        IoError::Invalid => 22,
        IoError::NoSpace => 28,
        IoError::TooLong => 75,
        IoError::NotSupported => 95,
        IoError::ShuttingDown => 108,
    }
}

/// Appends integers as the wire wants them.
pub(crate) trait Put {
    fn u16(&mut self, value: u16) -> &mut Self;
    fn u32(&mut self, value: u32) -> &mut Self;
    fn u64(&mut self, value: u64) -> &mut Self;
    fn bytes(&mut self, value: &[u8]) -> &mut Self;
}

impl Put for Vec<u8> {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.extend_from_slice(value);
        self
    }
}

/// Takes integers off the front of a slice; `None` when it is too short.
pub(crate) trait Take<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]>;
    fn u16(&mut self) -> Option<u16>;
    fn u32(&mut self) -> Option<u32>;
    fn u64(&mut self) -> Option<u64>;
}

impl<'a> Take<'a> for &'a [u8] {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        self.split_off(..length)
    }

    fn u16(&mut self) -> Option<u16> {
        let (head, rest) = self.split_first_chunk()?;
        *self = rest;
        Some(u16::from_be_bytes(*head))
    }

    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.split_first_chunk()?;
        *self = rest;
        Some(u32::from_be_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.split_first_chunk()?;
        *self = rest;
        Some(u64::from_be_bytes(*head))
    }
}

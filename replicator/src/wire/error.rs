//! Why bytes from a peer are refused. Each of these ends the link: the stream cannot be trusted any more (NET-2).

use super::header::FrameType;

/// What is wrong with the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not a frame at all, or the stream lost its place.
    #[error("no frame begins here: magic {0:#010x}")]
    Magic(u32),
    /// The header was altered.
    #[error("header checksum does not match")]
    HeaderChecksum,
    /// A frame was lost, repeated or moved.
    #[error("frame {found} where frame {expected} was due")]
    Sequence {
        /// Number due.
        expected: u32,
        /// Number found.
        found: u32,
    },
    /// The header carries flags of a later release that were not negotiated.
    #[error("unknown frame flags {0:#06x}")]
    Flags(u16),
    /// A frame type this release does not know, and not optional.
    #[error("unknown frame type {0:#06x}")]
    UnknownType(u16),
    /// A frame or a part of it is longer than any message of its type.
    #[error("{what} of {bytes} bytes is not possible in a frame of type {frame:#06x}")]
    Length {
        /// Type id of the frame.
        frame: u16,
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: u32,
    },
    /// The message was altered.
    #[error("checksum of the {0:?} message does not match")]
    BodyChecksum(FrameType),
    /// The payload was altered, and is not written anywhere.
    #[error("payload checksum of the {0:?} message does not match (data-integrity-alg)")]
    PayloadChecksum(FrameType),
    /// The bytes are whole but mean nothing.
    #[error("{0:?} message: bad {1}")]
    Value(FrameType, &'static str),
}

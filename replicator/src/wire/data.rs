//! The messages of the data path as fixed layouts: no length inside, nothing to parse, nothing to allocate.
//!
//! Payload is not here: it follows the body in the stream. All other messages are passed on to `control`.

use super::control;
use super::error::WireError;
use super::features::Integrity;
use super::header::{FrameType, layout};
use super::limits::MAX_PAYLOAD;
use super::message::{Content, Message, PeerWrite};
use crate::node::BufferId;
use alloc::vec::Vec;
use bitmap::{ByteRange, NodeId};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The name of every buffer that comes out of a decoder: whoever receives the bytes names it.
pub const UNNAMED: BufferId = BufferId(0);

const ACK_RECEIVED: u8 = 1;
const ACK_WRITTEN: u8 = 2;

const FUA: u8 = 1;
const BARRIER: u8 = 1;
const SERVES: u8 = 1;

const CONTENT_DATA: u8 = 0;
const CONTENT_ZERO: u8 = 1;
const CONTENT_UNMAP: u8 = 2;
const CONTENT_UNAVAILABLE: u8 = 3;

layout! {
    /// At the start of every message that can carry data. In answers, what the message has no word for is zero, and ignored.
    DataHeader {
        dagtag: U64,
        epoch: U64,
        volume: U16,
        author: u8,
        acknowledge: u8,
        flags: u8,
        checksum: u8,
        content: u8,
        reserved: u8,
    }

    /// `Write`.
    WriteBody {
        data: DataHeader,
        start: U64,
        length: U64,
    }

    /// `ReadData`, `SyncData`.
    AnswerBody {
        data: DataHeader,
        id: U64,
    }

    /// `Received`, `Written` (a dagtag), `Flushed` (a flush's number).
    NumberBody {
        number: U64,
    }

    /// `Flush`.
    FlushBody {
        number: U64,
        flags: u8,
        reserved: [u8; 7],
    }

    /// `Read`, `SyncRead`.
    AskBody {
        id: U64,
        start: U64,
        length: U64,
        volume: U16,
        reserved: [u8; 6],
    }
}

impl Message {
    /// The buffer whose bytes travel behind this message.
    pub fn buffer(&self) -> Option<BufferId> {
        match *self {
            Self::Write(PeerWrite { content: Content::Data(buffer), .. }) => Some(buffer),
            Self::ReadData { buffer, .. } | Self::SyncData { buffer, .. } => buffer,
            _ => None,
        }
    }

    /// Names the buffer of a message that has one.
    pub fn name_buffer(&mut self, name: BufferId) {
        match self {
            Self::Write(PeerWrite { content: Content::Data(buffer), .. })
            | Self::ReadData { buffer: Some(buffer), .. }
            | Self::SyncData { buffer: Some(buffer), .. } => *buffer = name,
            _ => unreachable!("no buffer to name"),
        }
    }
}

/// Of a type of the data path: bytes of its body, and whether it may have a payload. None for the others.
pub(super) fn layout_of(kind: FrameType) -> Option<(usize, bool)> {
    use FrameType::*;
    Some(match kind {
        Write => (size_of::<WriteBody>(), true),
        Received | Written | Flushed => (size_of::<NumberBody>(), false),
        Flush => (size_of::<FlushBody>(), false),
        Read | SyncRead => (size_of::<AskBody>(), false),
        ReadData | SyncData => (size_of::<AnswerBody>(), true),
        _ => return None,
    })
}

/// Appends the body. The payload is checked against the message.
pub(super) fn encode(
    message: &Message,
    payload: Option<&[u8]>,
    integrity: Integrity,
    out: &mut Vec<u8>,
) -> FrameType {
    let payload_len = payload.map(|bytes| bytes.len() as u64);
    let checksum = checksum_kind(integrity, payload_len.is_some());
    match *message {
        Message::Write(ref write) => {
            let (content, expected) = match write.content {
                Content::Data(_) => (CONTENT_DATA, Some(write.range.len())),
                Content::Zero { unmap: false } => (CONTENT_ZERO, None),
                Content::Zero { unmap: true } => (CONTENT_UNMAP, None),
            };
            assert_eq!(payload_len, expected, "payload of the write with dagtag {}", write.dagtag);
            let data = DataHeader {
                dagtag: write.dagtag.into(),
                epoch: write.epoch.into(),
                volume: write.volume.into(),
                author: write.author.0,
                acknowledge: ACK_WRITTEN | if write.want_received { ACK_RECEIVED } else { 0 },
                flags: if write.fua { FUA } else { 0 },
                checksum,
                content,
                reserved: 0,
            };
            let (start, length) = (write.range.start.into(), write.range.len().into());
            put(out, FrameType::Write, WriteBody { data, start, length })
        }
        Message::Received(dagtag) => number(out, FrameType::Received, dagtag),
        Message::Written(dagtag) => number(out, FrameType::Written, dagtag),
        Message::Flushed(count) => number(out, FrameType::Flushed, count),
        Message::Flush { number, barrier } => {
            let flags = if barrier { BARRIER } else { 0 };
            put(out, FrameType::Flush, FlushBody { number: number.into(), flags, reserved: [0; 7] })
        }
        Message::Read { id, volume, range } => ask(out, FrameType::Read, id, volume, range),
        Message::SyncRead { id, volume, range } => ask(out, FrameType::SyncRead, id, volume, range),
        Message::ReadData { id, buffer } | Message::SyncData { id, buffer, .. } => {
            assert_eq!(buffer.is_some(), payload.is_some(), "payload of answer {id}");
            let (kind, without, flags) = match *message {
                Message::SyncData { serves, .. } => {
                    (FrameType::SyncData, CONTENT_ZERO, if serves { SERVES } else { 0 })
                }
                _ => (FrameType::ReadData, CONTENT_UNAVAILABLE, 0),
            };
            let content = if buffer.is_some() { CONTENT_DATA } else { without };
            let data = DataHeader { content, checksum, flags, ..DataHeader::new_zeroed() };
            put(out, kind, AnswerBody { data, id: id.into() })
        }
        _ => {
            assert!(payload.is_none(), "only the data path has payload");
            control::encode(message, out)
        }
    }
}

fn checksum_kind(integrity: Integrity, has_payload: bool) -> u8 {
    if has_payload { integrity as u8 } else { Integrity::None as u8 }
}

fn put(out: &mut Vec<u8>, kind: FrameType, body: impl IntoBytes + Immutable) -> FrameType {
    out.extend_from_slice(body.as_bytes());
    kind
}

fn number(out: &mut Vec<u8>, kind: FrameType, number: u64) -> FrameType {
    put(out, kind, NumberBody { number: number.into() })
}

fn ask(out: &mut Vec<u8>, kind: FrameType, id: u64, volume: u16, range: ByteRange) -> FrameType {
    let length = range.len();
    assert!(length > 0 && length <= MAX_PAYLOAD as u64, "{kind:?} of {length} bytes");
    let (start, length) = (range.start.into(), length.into());
    let (id, volume) = (id.into(), volume.into());
    put(out, kind, AskBody { id, start, length, volume, reserved: [0; 6] })
}

/// The message of a body, its buffer `UNNAMED`. Body and payload have the lengths `layout_of` allows.
pub(super) fn decode(
    kind: FrameType,
    body: &[u8],
    payload_len: usize,
    integrity: Integrity,
) -> Result<Message, WireError> {
    let ensure = |good: bool, what| good.then_some(()).ok_or(WireError::Value(kind, what));
    let has_payload = payload_len > 0;
    let checksum = checksum_kind(integrity, has_payload);
    Ok(match kind {
        FrameType::Write => {
            let WriteBody { data, start, length } = fixed(body);
            let range = range(kind, start, length)?;
            let content = match data.content {
                CONTENT_DATA if payload_len as u64 == range.len() => Content::Data(UNNAMED),
                CONTENT_ZERO if !has_payload => Content::Zero { unmap: false },
                CONTENT_UNMAP if !has_payload => Content::Zero { unmap: true },
                _ => return Err(WireError::Value(kind, "content")),
            };
            ensure(data.checksum == checksum, "checksum kind")?;
            ensure(data.author <= NodeId::MAX.0, "author")?;
            ensure(data.acknowledge & !ACK_RECEIVED == ACK_WRITTEN, "acknowledgement")?;
            ensure(data.flags & !FUA == 0, "flags")?;
            Message::Write(PeerWrite {
                volume: data.volume.get(),
                range,
                content,
                fua: data.flags & FUA != 0,
                author: NodeId(data.author),
                dagtag: data.dagtag.get(),
                epoch: data.epoch.get(),
                want_received: data.acknowledge & ACK_RECEIVED != 0,
            })
        }
        FrameType::Received => Message::Received(fixed::<NumberBody>(body).number.get()),
        FrameType::Written => Message::Written(fixed::<NumberBody>(body).number.get()),
        FrameType::Flushed => Message::Flushed(fixed::<NumberBody>(body).number.get()),
        FrameType::Flush => {
            let FlushBody { number, flags, .. } = fixed(body);
            ensure(flags & !BARRIER == 0, "flags")?;
            Message::Flush { number: number.get(), barrier: flags & BARRIER != 0 }
        }
        FrameType::Read | FrameType::SyncRead => {
            let AskBody { id, start, length, volume, .. } = fixed(body);
            let range = range(kind, start, length)?;
            ensure(range.len() <= MAX_PAYLOAD as u64, "range")?;
            let (id, volume) = (id.get(), volume.get());
            match kind {
                FrameType::Read => Message::Read { id, volume, range },
                _ => Message::SyncRead { id, volume, range },
            }
        }
        FrameType::ReadData | FrameType::SyncData => {
            let AnswerBody { data, id } = fixed(body);
            let (id, is_read) = (id.get(), kind == FrameType::ReadData);
            let buffer = match data.content {
                CONTENT_DATA if has_payload => Some(UNNAMED),
                CONTENT_UNAVAILABLE if is_read && !has_payload => None,
                CONTENT_ZERO if !is_read && !has_payload => None,
                _ => return Err(WireError::Value(kind, "content")),
            };
            ensure(data.checksum == checksum, "checksum kind")?;
            if is_read {
                Message::ReadData { id, buffer }
            } else {
                Message::SyncData { id, serves: data.flags & SERVES != 0, buffer }
            }
        }
        _ => control::decode(kind, body)?,
    })
}

fn fixed<T: FromBytes>(body: &[u8]) -> T {
    T::read_from_bytes(body).expect("the decoder checked the length of the body")
}

/// A range that is not empty and ends below 2^64.
fn range(kind: FrameType, start: U64, length: U64) -> Result<ByteRange, WireError> {
    let end = start.get().checked_add(length.get()).filter(|_| length.get() > 0);
    let end = end.ok_or(WireError::Value(kind, "range"))?;
    Ok(ByteRange { start: start.get(), end })
}

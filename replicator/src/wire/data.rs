//! The messages of the data path as fixed layouts: no length inside, nothing to parse, nothing to allocate.
//!
//! Payload is not here: it follows the body in the stream. See `control` for all other messages.

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
}

layout! {
    /// `Write`.
    WriteBody {
        data: DataHeader,
        start: U64,
        length: U64,
    }
}

layout! {
    /// `ReadData`, `SyncData`.
    AnswerBody {
        data: DataHeader,
        id: U64,
    }
}

layout! {
    /// `Received`, `Written` (a dagtag), `Flushed` (a flush's number).
    NumberBody {
        number: U64,
    }
}

layout! {
    /// `Flush`.
    FlushBody {
        number: U64,
        flags: u8,
        reserved: [u8; 7],
    }
}

layout! {
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

/// Appends the body; none if the message is not of the data path. `payload_len` is checked against the message.
pub(super) fn encode(
    message: &Message,
    payload_len: Option<usize>,
    integrity: Integrity,
    out: &mut Vec<u8>,
) -> Option<FrameType> {
    let checksum = if payload_len.is_some() { integrity as u8 } else { 0 };
    let kind = match *message {
        Message::Write(ref write) => {
            let expected = match write.content {
                Content::Data(_) => Some(write.range.len()),
                Content::Zero { .. } => None,
            };
            let given = payload_len.map(|len| len as u64);
            assert_eq!(given, expected, "payload of the write with dagtag {}", write.dagtag);
            out.extend_from_slice(write_body(write, checksum).as_bytes());
            FrameType::Write
        }
        Message::Received(dagtag) => number(out, FrameType::Received, dagtag),
        Message::Written(dagtag) => number(out, FrameType::Written, dagtag),
        Message::Flushed(count) => number(out, FrameType::Flushed, count),
        Message::Flush { number, barrier } => {
            let flags = if barrier { BARRIER } else { 0 };
            let body = FlushBody { number: U64::new(number), flags, reserved: [0; 7] };
            out.extend_from_slice(body.as_bytes());
            FrameType::Flush
        }
        Message::Read { id, volume, range } => ask(out, FrameType::Read, id, volume, range),
        Message::SyncRead { id, volume, range } => ask(out, FrameType::SyncRead, id, volume, range),
        Message::ReadData { id, buffer } | Message::SyncData { id, buffer } => {
            assert_eq!(buffer.is_some(), payload_len.is_some(), "payload of answer {id}");
            let (kind, without) = match message {
                Message::ReadData { .. } => (FrameType::ReadData, CONTENT_UNAVAILABLE),
                _ => (FrameType::SyncData, CONTENT_ZERO),
            };
            let content = if buffer.is_some() { CONTENT_DATA } else { without };
            let data = DataHeader { content, checksum, ..DataHeader::new_zeroed() };
            out.extend_from_slice(AnswerBody { data, id: U64::new(id) }.as_bytes());
            kind
        }
        _ => return None,
    };
    Some(kind)
}

fn write_body(write: &PeerWrite, checksum: u8) -> WriteBody {
    WriteBody {
        data: DataHeader {
            dagtag: U64::new(write.dagtag),
            epoch: U64::new(write.epoch),
            volume: U16::new(write.volume),
            author: write.author.0,
            acknowledge: ACK_WRITTEN | if write.want_received { ACK_RECEIVED } else { 0 },
            flags: if write.fua { FUA } else { 0 },
            checksum,
            content: match write.content {
                Content::Data(_) => CONTENT_DATA,
                Content::Zero { unmap: false } => CONTENT_ZERO,
                Content::Zero { unmap: true } => CONTENT_UNMAP,
            },
            reserved: 0,
        },
        start: U64::new(write.range.start),
        length: U64::new(write.range.len()),
    }
}

fn number(out: &mut Vec<u8>, kind: FrameType, number: u64) -> FrameType {
    out.extend_from_slice(NumberBody { number: U64::new(number) }.as_bytes());
    kind
}

fn ask(out: &mut Vec<u8>, kind: FrameType, id: u64, volume: u16, range: ByteRange) -> FrameType {
    assert!(
        !range.is_empty() && range.len() <= MAX_PAYLOAD as u64,
        "{kind:?} of {} bytes",
        range.len()
    );
    let body = AskBody {
        id: U64::new(id),
        start: U64::new(range.start),
        length: U64::new(range.len()),
        volume: U16::new(volume),
        reserved: [0; 6],
    };
    out.extend_from_slice(body.as_bytes());
    kind
}

/// The message of a data-path body, its buffer `UNNAMED`. The body has the length `layout_of` says.
pub(super) fn decode(
    kind: FrameType,
    body: &[u8],
    payload_len: usize,
    integrity: Integrity,
) -> Result<Message, WireError> {
    let bad = |what| WireError::Value(kind, what);
    let has_payload = payload_len > 0;
    let expected_checksum = if has_payload { integrity as u8 } else { 0 };
    match kind {
        FrameType::Write => {
            let body: WriteBody = fixed(body);
            let range = range(body.start, body.length).ok_or(bad("range"))?;
            let data = body.data;
            let content = match data.content {
                CONTENT_DATA if payload_len as u64 == range.len() => Content::Data(UNNAMED),
                CONTENT_ZERO if !has_payload => Content::Zero { unmap: false },
                CONTENT_UNMAP if !has_payload => Content::Zero { unmap: true },
                _ => return Err(bad("content")),
            };
            let rest = [
                (data.checksum == expected_checksum, "checksum kind"),
                (data.author <= NodeId::MAX.0, "author"),
                (data.acknowledge & !ACK_RECEIVED == ACK_WRITTEN, "acknowledgement"),
                (data.flags & !FUA == 0, "flags"),
            ];
            if let Some((_, what)) = rest.into_iter().find(|(good, _)| !good) {
                return Err(bad(what));
            }
            Ok(Message::Write(PeerWrite {
                volume: data.volume.get(),
                range,
                content,
                fua: data.flags & FUA != 0,
                author: NodeId(data.author),
                dagtag: data.dagtag.get(),
                epoch: data.epoch.get(),
                want_received: data.acknowledge & ACK_RECEIVED != 0,
            }))
        }
        FrameType::Received => Ok(Message::Received(fixed::<NumberBody>(body).number.get())),
        FrameType::Written => Ok(Message::Written(fixed::<NumberBody>(body).number.get())),
        FrameType::Flushed => Ok(Message::Flushed(fixed::<NumberBody>(body).number.get())),
        FrameType::Flush => {
            let body: FlushBody = fixed(body);
            if body.flags & !BARRIER != 0 {
                return Err(bad("flags"));
            }
            Ok(Message::Flush { number: body.number.get(), barrier: body.flags & BARRIER != 0 })
        }
        FrameType::Read | FrameType::SyncRead => {
            let body: AskBody = fixed(body);
            let range = range(body.start, body.length);
            let range = range.filter(|r| r.len() <= MAX_PAYLOAD as u64).ok_or(bad("range"))?;
            let (id, volume) = (body.id.get(), body.volume.get());
            Ok(match kind {
                FrameType::Read => Message::Read { id, volume, range },
                _ => Message::SyncRead { id, volume, range },
            })
        }
        FrameType::ReadData | FrameType::SyncData => {
            let body: AnswerBody = fixed(body);
            let read = kind == FrameType::ReadData;
            let buffer = match body.data.content {
                CONTENT_DATA if has_payload => Some(UNNAMED),
                CONTENT_UNAVAILABLE if read && !has_payload => None,
                CONTENT_ZERO if !read && !has_payload => None,
                _ => return Err(bad("content")),
            };
            if body.data.checksum != expected_checksum {
                return Err(bad("checksum kind"));
            }
            let id = body.id.get();
            let sync = Message::SyncData { id, buffer };
            Ok(if read { Message::ReadData { id, buffer } } else { sync })
        }
        _ => unreachable!("only the types layout_of knows come here"),
    }
}

fn fixed<T: FromBytes>(body: &[u8]) -> T {
    T::read_from_bytes(body).expect("the decoder checked the length of the body")
}

/// A range that is not empty and ends below 2^64.
fn range(start: U64, length: U64) -> Option<ByteRange> {
    let end = start.get().checked_add(length.get())?;
    (length.get() > 0).then_some(ByteRange { start: start.get(), end })
}

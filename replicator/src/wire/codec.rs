//! Messages to frames, frames to messages: bytes in, messages out, no I/O.
//!
//! A frame is a header, a body (the message), and perhaps a payload. Both halves are total: the encoder takes every
//! message within `limits`, the decoder answers any bytes with a message, a wish for more, or a typed error; after an
//! error the stream means nothing any more and the decoder says the same again (NET-2).

use super::data;
use super::error::WireError;
use super::features::Integrity;
use super::header::{FrameHeader, FrameType, HEADER_LEN};
use super::limits::DIRECT_PAYLOAD;
use super::message::Message;
use alloc::vec::Vec;

/// Turns the messages of one direction of a link into bytes.
#[derive(Clone, Debug)]
pub struct Encoder {
    integrity: Integrity,
    sequence: u32,
}

impl Encoder {
    /// For a fresh link.
    pub fn new(integrity: Integrity) -> Self {
        Self { integrity, sequence: 0 }
    }

    /// Appends header and body to `out`; the payload is to be sent right behind them, from where it lies.
    ///
    /// Panics if the message breaks a limit, or if it names a buffer and there is no payload of its length (or the
    /// other way round): bugs of the caller.
    pub fn encode(&mut self, message: &Message, payload: Option<&[u8]>, out: &mut Vec<u8>) {
        assert!(payload.is_none_or(|bytes| !bytes.is_empty()), "a payload is not empty");
        let head = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        let kind = data::encode(message, payload, self.integrity, out);
        let (header, body) = out[head..].split_at_mut(HEADER_LEN);
        let payload = payload.unwrap_or_default();
        let sealed = FrameHeader::seal(kind, self.sequence, body, payload, self.integrity);
        header.copy_from_slice(&sealed);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// What the decoder says about the bytes at hand.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// So many bytes must be there, at once, before it goes on; less than `MAX_BODY` + `DIRECT_PAYLOAD`. What is left of
    /// `input` is to be kept.
    Need(usize),
    /// A message, and its payload if that is shorter than `DIRECT_PAYLOAD`. A buffer in it is `UNNAMED`.
    Message(Message, Option<&'a [u8]>),
    /// A message whose payload of so many bytes comes next. The caller takes them off the stream itself, into a buffer
    /// of its own, then calls `payload_received`.
    Payload(usize),
}

/// Turns the bytes of one direction of a link into messages.
#[derive(Clone, Debug)]
pub struct Decoder {
    integrity: Integrity,
    sequence: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// A header is due.
    Header,
    /// The rest of this frame, short payload included, is due.
    Rest(FrameType, FrameHeader),
    /// The payload of this message is being received by the caller.
    Payload(FrameType, Message, FrameHeader),
    /// So many bytes of a frame of unknown type are passed over.
    Skip(usize),
    /// Broken.
    Failed(WireError),
}

impl Decoder {
    /// For a fresh link.
    pub fn new(integrity: Integrity) -> Self {
        Self { integrity, sequence: 0, state: State::Header }
    }

    /// Decodes what stands first in `input`, and moves `input` past what was used.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Decoded<'a>, WireError> {
        self.advance(input).inspect_err(|&error| self.state = State::Failed(error))
    }

    /// The message that `Decoded::Payload` announced, now that all of its payload is here.
    pub fn payload_received(&mut self, payload: &[u8]) -> Result<Message, WireError> {
        let state = core::mem::replace(&mut self.state, State::Header);
        let State::Payload(kind, message, header) = state else {
            unreachable!("no payload was announced")
        };
        assert_eq!(payload.len(), header.payload_len.get() as usize, "all of the payload");
        self.check_payload(kind, &header, payload)
            .inspect_err(|&error| self.state = State::Failed(error))
            .map(|()| message)
    }

    /// Is the stream between two frames? If it ends elsewhere, something was cut.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Header)
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Decoded<'a>, WireError> {
        loop {
            match self.state {
                State::Header => {
                    let Some((bytes, rest)) = input.split_first_chunk::<HEADER_LEN>() else {
                        return Ok(Decoded::Need(HEADER_LEN));
                    };
                    self.state = self.next_frame(bytes)?;
                    *input = rest;
                }
                State::Rest(kind, header) => {
                    let (body_len, payload_len) =
                        (header.body_len.get() as usize, header.payload_len.get() as usize);
                    let direct = payload_len >= DIRECT_PAYLOAD;
                    let need = if direct { body_len } else { body_len + payload_len };
                    let Some((frame, rest)) = input.split_at_checked(need) else {
                        return Ok(Decoded::Need(need));
                    };
                    let (body, payload) = frame.split_at(body_len);
                    if crc32fast::hash(body) != header.body_checksum.get() {
                        return Err(WireError::BodyChecksum(kind));
                    }
                    let message = data::decode(kind, body, payload_len, self.integrity)?;
                    *input = rest;
                    if direct {
                        self.state = State::Payload(kind, message, header);
                        return Ok(Decoded::Payload(payload_len));
                    }
                    self.check_payload(kind, &header, payload)?;
                    self.state = State::Header;
                    return Ok(Decoded::Message(message, (payload_len > 0).then_some(payload)));
                }
                State::Payload(..) => unreachable!("the caller owes the payload"),
                State::Skip(left) => {
                    let take = left.min(input.len());
                    *input = &input[take..];
                    if take < left {
                        self.state = State::Skip(left - take);
                        return Ok(Decoded::Need(1));
                    }
                    self.state = State::Header;
                }
                State::Failed(error) => return Err(error),
            }
        }
    }

    fn next_frame(&mut self, bytes: &[u8; HEADER_LEN]) -> Result<State, WireError> {
        let header = FrameHeader::open(bytes, self.sequence)?;
        self.sequence = self.sequence.wrapping_add(1);
        let (body_len, payload_len) = (header.body_len.get(), header.payload_len.get());
        let Some(kind) = header.frame_type()? else {
            return Ok(State::Skip(body_len as usize + payload_len as usize));
        };
        let impossible =
            |what, bytes| Err(WireError::Length { frame: header.kind.get(), what, bytes });
        match data::layout_of(kind) {
            Some((fixed, _)) if body_len as usize != fixed => impossible("body", body_len),
            Some((_, false)) | None if payload_len > 0 => impossible("payload", payload_len),
            _ => Ok(State::Rest(kind, header)),
        }
    }

    fn check_payload(
        &self,
        kind: FrameType,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<(), WireError> {
        let is_whole = self.integrity.of(payload) == header.payload_checksum.get();
        is_whole.then_some(()).ok_or(WireError::PayloadChecksum(kind))
    }
}

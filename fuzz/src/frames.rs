//! The stream between two nodes: bytes to messages, in any pieces, and back.
//!
//! Input: a byte that says what follows, then that. 0x80: a hello and an answer (`frames/hello.rs`). Else 1: with a checksum over
//! payloads; 2: frames in the notation of `frames/notation.rs`, so that lengths, checksums and numbers are right, otherwise bytes as they
//! are; the rest, divided by 4, is the length of the pieces. Whole or in pieces, the decoder must come to the same; what it took can be
//! sent, and means the same then; after an error it says that error again (NET-2).

mod hello;
pub mod notation;

use crate::Seed;
use crate::input::Input;
use notation::Frame;
use replicator::wire::{
    DIRECT_PAYLOAD, Decoded, Decoder, Encoder, FrameType, Integrity, MAX_BODY, Message, WireError,
};

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((&shape, bytes)) = bytes.split_first() else { return };
    if shape & 0x80 != 0 {
        return hello::run(bytes);
    }
    let integrity = if shape & 1 == 0 { Integrity::None } else { Integrity::Crc32 };
    let stream = if shape & 2 == 0 { bytes.to_vec() } else { notated(bytes, integrity) };
    let whole = Taken::of(&stream, integrity, stream.len().max(1));
    let pieces = Taken::of(&stream, integrity, usize::from(shape >> 2) + 1);
    assert_eq!(pieces, whole, "what is decoded depends on how it came");

    let mut again = Vec::new();
    let mut encoder = Encoder::new(integrity);
    for (message, payload) in &whole.messages {
        encoder.encode(message, payload.as_deref(), &mut again);
        again.extend(payload.iter().flatten());
    }
    let again = Taken::of(&again, integrity, again.len().max(1));
    assert!(again.error.is_none() && again.at_boundary, "what we send is taken: {again:?}");
    assert_eq!(again.messages, whole.messages, "what was taken means the same when it is sent");
}

fn notated(bytes: &[u8], integrity: Integrity) -> Vec<u8> {
    let mut input = Input(bytes);
    let mut stream = Vec::new();
    let mut sequence = 0;
    while !input.is_empty() {
        Frame::read(&mut input).put(sequence, integrity, &mut stream);
        sequence += 1;
    }
    stream
}

/// What came out of a stream.
#[derive(Debug, PartialEq)]
struct Taken {
    messages: Vec<(Message, Option<Vec<u8>>)>,
    error: Option<WireError>,
    at_boundary: bool,
}

impl Taken {
    fn of(stream: &[u8], integrity: Integrity, piece: usize) -> Self {
        let mut decoder = Decoder::new(integrity);
        let mut messages = Vec::new();
        let mut error = None;
        let mut held = Vec::new();
        let mut needed = Needed::Bytes(1);
        for piece in stream.chunks(piece) {
            held.extend_from_slice(piece);
            let mut input = &held[..];
            let step = step(&mut decoder, &mut input, &mut needed, &mut messages);
            let left = input.len();
            held.drain(..held.len() - left);
            if let Err(first) = step {
                assert_eq!(decoder.decode(&mut &stream[..]), Err(first), "it stays broken");
                error = Some(first);
                break;
            }
        }
        Self { messages, error, at_boundary: decoder.at_boundary() && held.is_empty() }
    }
}

/// What must be there before the decoder is asked again.
enum Needed {
    Bytes(usize),
    /// A payload of so many bytes.
    Payload(usize),
}

/// Decodes all that is there, as the link does.
fn step(
    decoder: &mut Decoder,
    input: &mut &[u8],
    needed: &mut Needed,
    messages: &mut Vec<(Message, Option<Vec<u8>>)>,
) -> Result<(), WireError> {
    loop {
        match *needed {
            Needed::Bytes(bytes) if input.len() < bytes => return Ok(()),
            Needed::Payload(bytes) if input.len() < bytes => return Ok(()),
            Needed::Payload(bytes) => {
                let (payload, rest) = input.split_at(bytes);
                *input = rest;
                *needed = Needed::Bytes(1);
                messages.push((decoder.payload_received(payload)?, Some(payload.to_vec())));
            }
            Needed::Bytes(_) => {
                let there = input.len();
                *needed = match decoder.decode(input)? {
                    Decoded::Need(bytes) => {
                        assert!(bytes > input.len(), "it goes on with what is there");
                        assert!(bytes < MAX_BODY + DIRECT_PAYLOAD, "LIM: {bytes} bytes at once");
                        Needed::Bytes(bytes)
                    }
                    Decoded::Message(message, payload) => {
                        assert!(input.len() < there, "a message has bytes");
                        messages.push((message, payload.map(<[u8]>::to_vec)));
                        Needed::Bytes(1)
                    }
                    Decoded::Payload(bytes) => Needed::Payload(bytes),
                };
            }
        }
    }
}

/// Of each type one frame with a body of zeros; streams of what nodes say; hellos.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = hello::seeds();
    for &kind in FrameType::ALL {
        let frame = |body_len: usize| {
            let mut bytes = vec![2];
            Frame { kind: kind as u16, flags: 0, body: &vec![0; body_len], payload: 0 }
                .write(&mut bytes);
            bytes
        };
        let decodes = |bytes: &[u8]| {
            let stream = notated(&bytes[1..], Integrity::None);
            !Taken::of(&stream, Integrity::None, stream.len()).messages.is_empty()
        };
        let shortest = (0..64).map(frame).find(|bytes| decodes(bytes));
        seeds.extend(shortest.map(|bytes| (format!("{kind:?}-zero"), bytes)));
    }
    for (name, message, payload) in notation::samples() {
        let notation = notation::of(&message, payload);
        seeds.push((format!("{name}-notation"), [&[2 | 5 << 2][..], &notation].concat()));
    }
    for (name, integrity, shape) in [("plain", Integrity::None, 0), ("crc", Integrity::Crc32, 1)] {
        let mut encoder = Encoder::new(integrity);
        let mut stream = vec![shape | 9 << 2];
        for (_, message, payload) in notation::samples() {
            let payload = vec![0x5a; payload];
            let payload = (!payload.is_empty()).then_some(&payload[..]);
            encoder.encode(&message, payload, &mut stream);
            stream.extend(payload.into_iter().flatten());
        }
        seeds.push((format!("stream-{name}"), stream));
    }
    seeds
}

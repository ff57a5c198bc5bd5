//! The bytes of a connection. What a node sends is encoded, and decoded in pieces where it arrives, by the codec of the product: it must be
//! the same message (NET-2). If the connection breaks in the midst of a frame, nothing may come of that.

use super::Rng;
use replicator::wire::{Decoded, Decoder, Encoder, Integrity, Message};

/// One direction of a connection.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    encoder: Encoder,
    decoder: Decoder,
    /// Where frames are cut into pieces.
    rng: Rng,
}

/// What came out of some bytes.
type Taken = Vec<(Message, Option<Vec<u8>>)>;

impl Frames {
    pub(super) fn new(integrity: Integrity, chance: u64) -> Self {
        let (encoder, decoder) = (Encoder::new(integrity), Decoder::new(integrity));
        Self { encoder, decoder, rng: Rng::new(chance) }
    }

    /// A message arrives whole.
    pub(super) fn pass(&mut self, sent: &Message, payload: Option<&[u64]>) -> Result<(), String> {
        let frame = self.encode(sent, payload);
        let came = self.take(&frame)?;
        let [(message, bytes)] = &came[..] else {
            return Err(format!("{sent:?} arrived as {} messages: {came:?}", came.len()));
        };
        let mut message = message.clone();
        if let Some(name) = sent.buffer() {
            message.name_buffer(name);
        }
        if message != *sent || *bytes != payload.map(sectors) {
            return Err(format!("{sent:?} arrived as {message:?}, or with another payload"));
        }
        Ok(())
    }

    /// Only a part of it arrives, then the stream ends.
    pub(super) fn tear(&mut self, sent: &Message, payload: Option<&[u64]>) -> Result<(), String> {
        let frame = self.encode(sent, payload);
        let part = self.rng.between(1, frame.len() as u64 - 1) as usize;
        let came = self.take(&frame[..part])?;
        if came.is_empty() {
            return Ok(());
        }
        Err(format!("{part} of {} bytes of {sent:?} arrived, and became {came:?}", frame.len()))
    }

    fn encode(&mut self, message: &Message, payload: Option<&[u64]>) -> Vec<u8> {
        let payload = payload.map(sectors);
        let mut frame = Vec::new();
        self.encoder.encode(message, payload.as_deref(), &mut frame);
        frame.extend(payload.into_iter().flatten());
        frame
    }

    /// Gives bytes to the decoder as a socket would: some, then more.
    fn take(&mut self, bytes: &[u8]) -> Result<Taken, String> {
        let mut taken = Vec::new();
        let (mut there, mut used) = (0, 0);
        let mut needed = 1;
        let mut payload = None;
        loop {
            while there - used < needed {
                if there == bytes.len() {
                    return Ok(taken);
                }
                there += self.rng.between(1, (bytes.len() - there) as u64) as usize;
            }
            let mut input = &bytes[used..there];
            if let Some(len) = payload.take() {
                let content = &input[..len];
                let message = self.decoder.payload_received(content);
                taken.push((message.map_err(|e| e.to_string())?, Some(content.to_vec())));
                (used, needed) = (used + len, 1);
                continue;
            }
            match self.decoder.decode(&mut input).map_err(|error| error.to_string())? {
                Decoded::Need(more) => needed = more,
                Decoded::Message(message, content) => {
                    taken.push((message, content.map(<[u8]>::to_vec)));
                    needed = 1;
                }
                Decoded::Payload(len) => {
                    payload = Some(len);
                    needed = len;
                }
            }
            used = there - input.len();
        }
    }
}

/// The bytes that tokens stand for.
fn sectors(tokens: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tokens.len() * 512);
    for token in tokens {
        (0..64).for_each(|_| bytes.extend_from_slice(&token.to_le_bytes()));
    }
    bytes
}

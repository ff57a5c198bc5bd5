//! A short way to write frames down, of which whole ones are made: what a header holds beside kind, flags and lengths is added, so that
//! changing a byte does not end the stream at the next checksum.
//!
//! `kind: u16, flags: u8, body: u16 and its bytes, payload: u16`: the payload is so many bytes of one value.

use crate::input::Input;
use bitmap::{ByteRange, Generation, NodeId};
use replicator::digest::Digest;
use replicator::node::{DiskState, Protocol, Role};
use replicator::wire::{
    Agreed, Content, Encoder, Facts, HEADER_LEN, Integrity, MAGIC, Message, PeerWrite,
    RefuseReason, UNNAMED, VolumeFacts, VolumeVerdict,
};

const FILL: u8 = 0x5a;

/// A frame, written down.
pub struct Frame<'a> {
    /// As in its header.
    pub kind: u16,
    /// As in its header.
    pub flags: u8,
    /// The message.
    pub body: &'a [u8],
    /// Bytes of payload.
    pub payload: u16,
}

impl<'a> Frame<'a> {
    /// The next one.
    pub fn read(input: &mut Input<'a>) -> Self {
        let (kind, flags, len) = (input.u16(), input.u8(), input.u16());
        Self { kind, flags, body: input.bytes(len.into()), payload: input.u16() }
    }

    /// Writes it down.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.kind.to_le_bytes());
        out.push(self.flags);
        out.extend((self.body.len() as u16).to_le_bytes());
        out.extend_from_slice(self.body);
        out.extend(self.payload.to_le_bytes());
    }

    /// Appends the frame itself.
    pub fn put(&self, sequence: u32, integrity: Integrity, out: &mut Vec<u8>) {
        let payload = vec![FILL; self.payload.into()];
        let checksum = match integrity {
            Integrity::None => 0,
            Integrity::Crc32 => crc32fast::hash(&payload),
        };
        let head = out.len();
        out.extend(MAGIC.to_le_bytes());
        out.extend(self.kind.to_le_bytes());
        out.extend(u16::from(self.flags).to_le_bytes());
        out.extend(sequence.to_le_bytes());
        out.extend((self.body.len() as u32).to_le_bytes());
        out.extend(u32::from(self.payload).to_le_bytes());
        out.extend(crc32fast::hash(self.body).to_le_bytes());
        out.extend(checksum.to_le_bytes());
        out.extend(crc32fast::hash(&out[head..]).to_le_bytes());
        out.extend_from_slice(self.body);
        out.extend(payload);
    }
}

/// A message of a node of ours, with so many bytes of payload, written down.
pub fn of(message: &Message, payload: usize) -> Vec<u8> {
    let bytes = vec![FILL; payload];
    let mut frame = Vec::new();
    let payload_of = (payload > 0).then_some(&bytes[..]);
    Encoder::new(Integrity::None).encode(message, payload_of, &mut frame);
    let (header, body) = frame.split_at(HEADER_LEN);
    let kind = u16::from_le_bytes([header[4], header[5]]);
    let mut out = Vec::new();
    Frame { kind, flags: 0, body, payload: payload as u16 }.write(&mut out);
    out
}

/// What nodes say, with the length of its payload.
pub fn samples() -> Vec<(&'static str, Message, usize)> {
    let volume = |number, disk| VolumeFacts {
        number,
        disk,
        size: 4 << 20,
        current: Generation(0xa1a2_a3a4_a5a6_a7a8),
        bitmap: Generation(0xb1b2),
        history: vec![Generation(3), Generation(u64::MAX)],
        bits: 300,
        crashed_primary: true,
        peer_incarnation: 9,
    };
    let facts = Facts {
        node: NodeId(1),
        incarnation: 7,
        protocol: Protocol::C,
        role: Role::Primary,
        suspended: true,
        discard_my_data: true,
        volumes: vec![volume(0, DiskState::UpToDate), volume(5, DiskState::Diskless)],
    };
    let write = |content, len, fua| {
        Message::Write(PeerWrite {
            volume: 0,
            range: ByteRange::new(4096, len),
            content,
            fua,
            author: NodeId(1),
            dagtag: 1,
            epoch: 1,
            want_received: fua,
        })
    };
    let (data, range, id) = (Content::Data(UNNAMED), ByteRange::new(8192, 4096), 21);
    let (runs, digests) = (vec![(3, 1), (4, 2), (1 << 40, 70_000)], vec![Digest([0x5a; 16])]);
    let (source, target) =
        (VolumeVerdict::Source { full: true }, VolumeVerdict::Target { full: false });
    let refuse = RefuseReason::Incompatible("size: 1 ≠ 2".into());
    vec![
        ("facts", Message::Facts(facts.into()), 0),
        ("go", Message::Agreed(Agreed::Go(vec![VolumeVerdict::Idle, source, target])), 0),
        ("step-down", Message::Agreed(Agreed::YouStepDown), 0),
        ("refuse", Message::Agreed(Agreed::Refuse(refuse)), 0),
        ("ready", Message::Ready { currents: vec![Generation(1), Generation(1 << 63)] }, 0),
        ("write", write(data, 4096, false), 4096),
        ("write-large", write(data, 20_480, true), 20_480),
        ("zero", write(Content::Zero { unmap: true }, 1 << 20, false), 0),
        ("received", Message::Received(1), 0),
        ("written", Message::Written(1), 0),
        ("flush", Message::Flush { number: 1, barrier: true }, 0),
        ("flushed", Message::Flushed(1), 0),
        ("read", Message::Read { id, volume: 0, range }, 0),
        ("read-data", Message::ReadData { id, buffer: Some(UNNAMED) }, 4096),
        ("no-data", Message::ReadData { id, buffer: None }, 0),
        ("bits", Message::Bits { volume: 0, runs: runs.clone(), last: true }, 0),
        ("sync-read", Message::SyncRead { id, volume: 0, range }, 0),
        ("sync-data", Message::SyncData { id, serves: true, buffer: Some(UNNAMED) }, 4096),
        (
            "compare",
            Message::SyncCompare { id, volume: 0, range, unit: 16, digests: digests.clone() },
            0,
        ),
        ("differs", Message::SyncDiffers { id, serves: false, units: 1, digests }, 0),
        ("commit", Message::SyncCommit { id, volume: 0, runs }, 0),
        ("committed", Message::SyncCommitted { id }, 0),
        ("finish", Message::SyncFinish { volume: 0 }, 0),
        (
            "grant",
            Message::SyncGrant { volume: 0, current: Generation(2), history: vec![Generation(4)] },
            0,
        ),
        ("in-sync", Message::InSync { volume: 0 }, 0),
        ("may-i", Message::PromoteRequest, 0),
        ("you-may", Message::PromoteReply { granted: true }, 0),
        ("role", Message::RoleIs { role: Role::Secondary }, 0),
        ("invalidate", Message::Invalidate, 0),
        ("bye", Message::Bye { outdate: true, outdated: false }, 0),
        ("ping", Message::Ping, 0),
        ("pong", Message::Pong, 0),
    ]
}

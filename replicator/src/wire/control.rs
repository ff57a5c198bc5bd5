//! All messages that are not on the data path, and what ends say before there are messages: as wire shapes of their own,
//! so that a change to a type of the node does not change what is sent, written by bincode.
//!
//! The only file that calls bincode. Bincode does not describe itself: a released shape never changes; a new one gets a
//! new type id.

use super::error::WireError;
use super::features::Integrity;
use super::header::FrameType;
use super::hello::{End, Hello, PROOF_LEN};
use super::limits::{
    MAX_BODY, MAX_DIGESTS, MAX_HISTORY, MAX_PAYLOAD, MAX_RUNS, MAX_TEXT, MAX_VOLUMES,
};
use super::message::{Agreed, Facts, Message, RefuseReason, VolumeFacts, VolumeVerdict};
use crate::digest::Digest;
use crate::node::{DiskState, Protocol, Role};
use alloc::string::String;
use alloc::vec::Vec;
use bincode::{Decode, Encode};
use bitmap::{ByteRange, Generation, NodeId};

/// A value, and what of it is sent: plain numbers, texts, lists of them.
pub(super) trait Sent: Sized {
    type Shape;
    fn shape(&self) -> Self::Shape;
    /// The value, if the shape is one of a value; else what is wrong with it.
    fn read(shape: Self::Shape) -> Result<Self, &'static str>;
}

/// Declares shapes together with the tables that document them. Of `values` and `messages` each field is `Sent` as the
/// type that stands here, and the way there and back is made of that. `message_values` are messages that hold a value.
macro_rules! shapes {
    (
        values { $($value:ident, $shape:ident { $($field:ident: $type:ty,)* })* }
        messages { $($message:ident, $body:ident { $($part:ident: $kind:ty),* })* }
        message_values { $($whole:ident)* }
        others { $($other:ident { $($one:ident: $what:ty),* })* }
    ) => {
        shapes!(@tables $($shape { $($field: $type),* })* $($body { $($part: $kind),* })*
            $($other { $($one: $what),* })*);

        $(impl Sent for $value {
            type Shape = $shape;
            fn shape(&self) -> $shape {
                $shape { $($field: self.$field.shape()),* }
            }
            fn read(shape: $shape) -> Result<Self, &'static str> {
                Ok(Self { $($field: Sent::read(shape.$field)?),* })
            }
        })*

        fn put_body(message: &Message, out: &mut Vec<u8>) -> FrameType {
            match message {
                $(Message::$message { $($part),* } => {
                    put(out, &$body { $($part: $part.shape()),* });
                    FrameType::$message
                })*
                $(Message::$whole(value) => {
                    put(out, &value.shape());
                    FrameType::$whole
                })*
                _ => unreachable!("the data path has its own layouts"),
            }
        }

        fn take_body(frame: FrameType, body: &[u8]) -> Result<Message, &'static str> {
            Ok(match frame {
                $(FrameType::$message => {
                    let $body { $($part),* } = take_all(body)?;
                    Message::$message { $($part: Sent::read($part)?),* }
                })*
                $(FrameType::$whole => Message::$whole($whole::read(take_all(body)?)?.into()),)*
                _ => unreachable!("the data path has its own layouts"),
            })
        }
    };
    (@tables $($shape:ident { $($field:ident: $type:ty),* })*) => {
        $(
            #[derive(Debug, PartialEq, Encode, Decode)]
            pub(super) struct $shape { $(pub(super) $field: $type),* }
        )*

        /// Fields and types of every shape, in the order of their bytes; for the documentation test.
        pub const SHAPES: &[(&str, &[(&str, &str)])] = &[
            $((stringify!($shape), &[$((stringify!($field), stringify!($type)),)*]),)*
        ];
    };
}

shapes! {
    values {
        Hello, HelloShape {
            versions: (u16, u16),
            end: u8,
            from: u8,
            to: u8,
            authentication: bool,
            integrity: u8,
            features: u64,
            required: u64,
            incarnation: u64,
            nonce: [u8; PROOF_LEN],
            resource: String,
        }
        Facts, FactsShape {
            node: u8,
            incarnation: u64,
            protocol: u8,
            role: u8,
            suspended: bool,
            discard_my_data: bool,
            volumes: Vec<VolumeShape>,
        }
        VolumeFacts, VolumeShape {
            number: u16,
            disk: u8,
            size: u64,
            current: u64,
            bitmap: u64,
            history: Vec<u64>,
            bits: u64,
            crashed_primary: bool,
            peer_incarnation: u64,
        }
    }
    messages {
        Ready, ReadyShape { currents: Vec<u64> }
        Bits, BitsShape { volume: u16, runs: Vec<(u64, u64)>, last: bool }
        SyncCommit, SyncCommitShape { id: u64, volume: u16, runs: Vec<(u64, u64)> }
        SyncCompare, SyncCompareShape { id: u64, volume: u16, range: (u64, u64), unit: u64, digests: Vec<[u8; 16]> }
        SyncDiffers, SyncDiffersShape { id: u64, serves: bool, units: u64, digests: Vec<[u8; 16]> }
        SyncCommitted, SyncCommittedShape { id: u64 }
        SyncFinish, SyncFinishShape { volume: u16 }
        SyncGrant, SyncGrantShape { volume: u16, current: u64, history: Vec<u64> }
        InSync, InSyncShape { volume: u16 }
        PromoteRequest, PromoteRequestShape {}
        PromoteReply, PromoteReplyShape { granted: bool }
        RoleIs, RoleIsShape { role: u8 }
        Invalidate, InvalidateShape {}
        Bye, ByeShape { outdate: bool, outdated: bool }
        Ping, PingShape {}
        Pong, PongShape {}
    }
    message_values { Facts Agreed }
    others {
        AnswerShape { kind: u8, proof: [u8; PROOF_LEN] }
        AgreedShape { outcome: u8, verdicts: Vec<u8>, reason: u8, text: String }
    }
}

/// Appends the body. The message is not one of the data path.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> FrameType {
    let kind = put_body(message, out);
    assert_eq!(check(message), Ok(()), "{kind:?}");
    kind
}

/// The message of a body, every number and length in it checked.
pub(super) fn decode(kind: FrameType, body: &[u8]) -> Result<Message, WireError> {
    let checked = take_body(kind, body).and_then(|message| check(&message).map(|()| message));
    checked.map_err(|what| WireError::Value(kind, what))
}

/// LIM, and order: what both ends keep beyond the types.
fn check(message: &Message) -> Result<(), &'static str> {
    let history = |history: &[Generation]| history.len() <= MAX_HISTORY;
    let (good, what) = match message {
        Message::Facts(facts) => {
            let volumes = &facts.volumes;
            let good = volumes.len() <= MAX_VOLUMES
                && volumes.is_sorted_by(|a, b| a.number < b.number)
                && volumes.iter().all(|volume| history(&volume.history));
            (good, "count or order of volumes, or history")
        }
        Message::Agreed(Agreed::Go(verdicts)) => {
            (verdicts.len() <= MAX_VOLUMES, "count of verdicts")
        }
        Message::Ready { currents } => (currents.len() <= MAX_VOLUMES, "count of volumes"),
        Message::Bits { runs, .. } => (runs.is_sorted_by(|a, b| a.0 + a.1 <= b.0), "order of runs"),
        Message::SyncCompare { range, digests, .. } => {
            // What is compared is read in one piece, as what is sent.
            let good = digests.len() <= MAX_DIGESTS && range.len() <= MAX_PAYLOAD as u64;
            (good, "count of digests, or range")
        }
        Message::SyncDiffers { digests, .. } => (digests.len() <= MAX_DIGESTS, "count of digests"),
        Message::SyncGrant { history: generations, .. } => (history(generations), "history"),
        _ => (true, ""),
    };
    if good { Ok(()) } else { Err(what) }
}

// ---- values ----

macro_rules! sent_as_they_are {
    ($($type:ty,)*) => { $(impl Sent for $type {
        type Shape = Self;
        fn shape(&self) -> Self {
            self.clone()
        }
        fn read(shape: Self) -> Result<Self, &'static str> {
            Ok(shape)
        }
    })* };
}

sent_as_they_are! { bool, u16, u64, (u16, u16), [u8; PROOF_LEN], String, }

/// The number of a value is its place here; never the order of an enum elsewhere.
macro_rules! sent_as_numbers {
    ($($type:ty, $what:literal: $values:expr;)*) => { $(impl Sent for $type {
        type Shape = u8;
        fn shape(&self) -> u8 {
            let number = $values.iter().position(|known| known == self);
            number.expect("every value has a number") as u8
        }
        fn read(number: u8) -> Result<Self, &'static str> {
            $values.get(usize::from(number)).copied().ok_or($what)
        }
    })* };
}

sent_as_numbers! {
    End, "end": [Self::Dialer, Self::Acceptor];
    Integrity, "integrity": [Self::None, Self::Crc32];
    Protocol, "protocol": [Self::A, Self::B, Self::C];
    Role, "role": [Self::Unknown, Self::Secondary, Self::Primary];
    DiskState, "disk state": [
        Self::Diskless,
        Self::Attaching,
        Self::Detaching,
        Self::Failed,
        Self::Inconsistent,
        Self::Outdated,
        Self::DUnknown,
        Self::Consistent,
        Self::UpToDate,
    ];
    VolumeVerdict, "verdict": [
        Self::Idle,
        Self::NoSync,
        Self::Source { full: false },
        Self::Source { full: true },
        Self::Target { full: false },
        Self::Target { full: true },
    ];
}

impl Sent for Generation {
    type Shape = u64;
    fn shape(&self) -> u64 {
        self.0
    }
    fn read(shape: u64) -> Result<Self, &'static str> {
        Ok(Self(shape))
    }
}

impl Sent for Digest {
    type Shape = [u8; Self::LEN];
    fn shape(&self) -> Self::Shape {
        self.0
    }
    fn read(shape: Self::Shape) -> Result<Self, &'static str> {
        Ok(Self(shape))
    }
}

/// First byte, and number of bytes.
impl Sent for ByteRange {
    type Shape = (u64, u64);
    fn shape(&self) -> (u64, u64) {
        (self.start, self.len())
    }
    fn read((start, len): (u64, u64)) -> Result<Self, &'static str> {
        let end = start.checked_add(len).filter(|_| len > 0).ok_or("range")?;
        Ok(Self { start, end })
    }
}

impl Sent for NodeId {
    type Shape = u8;
    fn shape(&self) -> u8 {
        self.0
    }
    fn read(shape: u8) -> Result<Self, &'static str> {
        if shape <= Self::MAX.0 { Ok(Self(shape)) } else { Err("node-id") }
    }
}

impl<T: Sent> Sent for Vec<T> {
    type Shape = Vec<T::Shape>;
    fn shape(&self) -> Self::Shape {
        self.iter().map(T::shape).collect()
    }
    fn read(shape: Self::Shape) -> Result<Self, &'static str> {
        shape.into_iter().map(T::read).collect()
    }
}

/// Runs are sent as distances from the end of the one before, modulo 2^64: near neighbours become one byte.
impl Sent for Vec<(u64, u64)> {
    type Shape = Self;
    fn shape(&self) -> Self {
        assert!(self.len() <= MAX_RUNS, "{} runs in one message, at most {MAX_RUNS}", self.len());
        let mut end = 0u64;
        let gap = |&(first, count): &(u64, u64)| {
            let gap = first.wrapping_sub(end);
            end = first.checked_add(count).expect("a run of blocks ends below 2^64");
            (gap, count)
        };
        self.iter().map(gap).collect()
    }
    fn read(mut gaps: Self) -> Result<Self, &'static str> {
        let mut end = 0u64;
        for (gap, count) in &mut gaps {
            *gap = end.wrapping_add(*gap);
            end = gap.checked_add(*count).filter(|_| *count > 0).ok_or("run")?;
        }
        if gaps.len() <= MAX_RUNS { Ok(gaps) } else { Err("count of runs") }
    }
}

impl Sent for Agreed {
    type Shape = AgreedShape;
    fn shape(&self) -> AgreedShape {
        let (outcome, reason) = match self {
            Self::Go(_) => (0, 0),
            Self::YouStepDown => (1, 0),
            Self::IStepDown => (2, 0),
            Self::Refuse(RefuseReason::SplitBrain) => (3, 1),
            Self::Refuse(RefuseReason::Unrelated) => (3, 2),
            Self::Refuse(RefuseReason::TwoPrimaries) => (3, 3),
            Self::Refuse(RefuseReason::Incompatible(_)) => (3, 4),
            Self::Refuse(RefuseReason::Stale) => (3, 5),
        };
        let verdicts = if let Self::Go(verdicts) = self { verdicts.shape() } else { Vec::new() };
        let text = match self {
            Self::Refuse(RefuseReason::Incompatible(text)) => {
                text[..text.floor_char_boundary(MAX_TEXT)].into()
            }
            _ => String::new(),
        };
        AgreedShape { outcome, verdicts, reason, text }
    }
    fn read(shape: AgreedShape) -> Result<Self, &'static str> {
        // One message has one encoding: what an outcome has no use for is empty, and no text is too long.
        let all = [
            Self::Go(Sent::read(shape.verdicts.clone())?),
            Self::YouStepDown,
            Self::IStepDown,
            Self::Refuse(RefuseReason::SplitBrain),
            Self::Refuse(RefuseReason::Unrelated),
            Self::Refuse(RefuseReason::TwoPrimaries),
            Self::Refuse(RefuseReason::Incompatible(shape.text.clone())),
            Self::Refuse(RefuseReason::Stale),
        ];
        all.into_iter().find(|agreed| agreed.shape() == shape).ok_or("outcome")
    }
}

// ---- bincode ----

struct Tail<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends.
pub(super) fn put(out: &mut Vec<u8>, shape: &impl Encode) {
    bincode::encode_into_writer(shape, Tail(out), bincode::config::standard())
        .expect("plain numbers and lists always encode, and memory takes them");
}

/// What stands first, and its length.
pub(super) fn take<T: Decode<()>, const MOST: usize>(
    bytes: &[u8],
) -> Result<(T, usize), &'static str> {
    // LIM: the limit bounds what a lying length inside of `bytes` can make bincode reserve.
    let config = bincode::config::standard().with_limit::<MOST>();
    bincode::decode_from_slice(bytes, config).map_err(|_| "encoding")
}

fn take_all<T: Decode<()>>(body: &[u8]) -> Result<T, &'static str> {
    let (shape, used) = take::<T, MAX_BODY>(body)?;
    if used == body.len() { Ok(shape) } else { Err("length: bytes are left over") }
}

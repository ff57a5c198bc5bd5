//! All messages that are not on the data path: as wire shapes of their own, so that a change to a type of the node does
//! not change what is sent, written by bincode.
//!
//! The only file that knows bincode. Bincode does not describe itself: a released shape never changes; a new one gets a
//! new type id.

use super::error::WireError;
use super::header::FrameType;
use super::limits::{MAX_BODY, MAX_HISTORY, MAX_RUNS, MAX_TEXT, MAX_VOLUMES};
use super::message::{Agreed, Facts, Message, RefuseReason, VolumeFacts, VolumeVerdict};
use crate::node::{DiskState, Protocol, Role};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bincode::{Decode, Encode};
use bitmap::{Generation, NodeId};

/// Declares shapes together with the tables that document them. The `plain` ones are messages whose fields are sent as
/// they are: for them it also makes the way there and back.
macro_rules! shapes {
    (
        made { $($name:ident { $($field:ident: $type:ty,)* })* }
        plain { $($message:ident, $plain:ident { $($part:ident: $kind:ty),* })* }
    ) => {
        $(
            #[derive(Debug, Encode, Decode)]
            struct $name { $($field: $type,)* }
        )*
        $(
            #[derive(Debug, Encode, Decode)]
            struct $plain { $($part: $kind),* }
        )*

        /// Fields and types of every shape, in the order of their bytes; for the documentation test.
        pub const SHAPES: &[(&str, &[(&str, &str)])] = &[
            $((stringify!($name), &[$((stringify!($field), stringify!($type)),)*]),)*
            $((stringify!($plain), &[$((stringify!($part), stringify!($kind)),)*]),)*
        ];

        fn encode_plain(message: &Message, out: &mut Vec<u8>) -> Option<FrameType> {
            Some(match *message {
                $(Message::$message { $($part),* } => {
                    put(out, FrameType::$message, &$plain { $($part),* })
                })*
                _ => return None,
            })
        }

        fn decode_plain(frame: FrameType, body: &[u8]) -> Option<Result<Message, WireError>> {
            Some(match frame {
                $(FrameType::$message => {
                    take(frame, body).map(|$plain { $($part),* }| Message::$message { $($part),* })
                })*
                _ => return None,
            })
        }
    };
}

shapes! {
    made {
        FactsShape {
            node: u8,
            incarnation: u64,
            peer_incarnation: u64,
            protocol: u8,
            role: u8,
            was_paused: bool,
            crashed_primary: bool,
            discard_my_data: bool,
            volumes: Vec<VolumeShape>,
        }
        VolumeShape {
            number: u16,
            disk: u8,
            size: u64,
            current: u64,
            bitmap: u64,
            sync_to: u64,
            history: Vec<u64>,
            bits: u64,
        }
        AgreedShape {
            outcome: u8,
            verdicts: Vec<u8>,
            reason: u8,
            text: String,
        }
        ReadyShape {
            currents: Vec<u64>,
        }
        BitsShape {
            volume: u16,
            runs: Vec<(u64, u64)>,
            last: bool,
        }
        SyncCommitShape {
            id: u64,
            volume: u16,
            runs: Vec<(u64, u64)>,
        }
        SyncGrantShape {
            volume: u16,
            current: u64,
            history: Vec<u64>,
        }
        RoleIsShape {
            role: u8,
        }
    }
    plain {
        SyncCommitted, SyncCommittedShape { id: u64 }
        SyncFinish, SyncFinishShape { volume: u16 }
        InSync, InSyncShape { volume: u16 }
        PromoteRequest, PromoteRequestShape {}
        PromoteReply, PromoteReplyShape { granted: bool }
        Invalidate, InvalidateShape {}
        Bye, ByeShape { outdate: bool }
        Ping, PingShape {}
        Pong, PongShape {}
    }
}

// The number of a value is its place here; never the order of an enum elsewhere.

const PROTOCOLS: &[Protocol] = &[Protocol::A, Protocol::B, Protocol::C];

const ROLES: &[Role] = &[Role::Unknown, Role::Secondary, Role::Primary];

const DISKS: &[DiskState] = &[
    DiskState::Diskless,
    DiskState::Attaching,
    DiskState::Detaching,
    DiskState::Failed,
    DiskState::Inconsistent,
    DiskState::Outdated,
    DiskState::DUnknown,
    DiskState::Consistent,
    DiskState::UpToDate,
];

const VERDICTS: &[VolumeVerdict] = &[
    VolumeVerdict::Idle,
    VolumeVerdict::NoSync,
    VolumeVerdict::Source { full: false },
    VolumeVerdict::Source { full: true },
    VolumeVerdict::Target { full: false },
    VolumeVerdict::Target { full: true },
];

fn number<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|known| known == value).expect("every value has a number") as u8
}

fn value<T: Copy>(table: &[T], number: u8) -> Option<T> {
    table.get(usize::from(number)).copied()
}

const GO: u8 = 0;
const YOU_STEP_DOWN: u8 = 1;
const I_STEP_DOWN: u8 = 2;
const REFUSE: u8 = 3;

const SPLIT_BRAIN: u8 = 1;
const UNRELATED: u8 = 2;
const TWO_PRIMARIES: u8 = 3;
const STALE: u8 = 5;
const INCOMPATIBLE: u8 = 4;

/// Appends the body. The message is not one of the data path.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> FrameType {
    match message {
        Message::Facts(facts) => put(out, FrameType::Facts, &facts_shape(facts)),
        Message::Agreed(agreed) => put(out, FrameType::Agreed, &agreed_shape(agreed)),
        Message::Ready { currents } => {
            assert!(currents.len() <= MAX_VOLUMES, "generations of {} volumes", currents.len());
            let currents = currents.iter().map(|generation| generation.0).collect();
            put(out, FrameType::Ready, &ReadyShape { currents })
        }
        Message::Bits { volume, runs, last } => {
            let shape = BitsShape { volume: *volume, runs: gaps(runs), last: *last };
            put(out, FrameType::Bits, &shape)
        }
        Message::SyncCommit { id, volume, runs } => {
            let shape = SyncCommitShape { id: *id, volume: *volume, runs: gaps(runs) };
            put(out, FrameType::SyncCommit, &shape)
        }
        Message::SyncGrant { volume, current, history } => {
            let history = history_shape(history);
            let shape = SyncGrantShape { volume: *volume, current: current.0, history };
            put(out, FrameType::SyncGrant, &shape)
        }
        Message::RoleIs(role) => {
            put(out, FrameType::RoleIs, &RoleIsShape { role: number(ROLES, role) })
        }
        _ => encode_plain(message, out).expect("the data path has its own layouts"),
    }
}

/// The message of a body, every number and length in it checked.
pub(super) fn decode(kind: FrameType, body: &[u8]) -> Result<Message, WireError> {
    let bad = |what| WireError::Value(kind, what);
    Ok(match kind {
        FrameType::Facts => Message::Facts(Box::new(facts(take(kind, body)?).map_err(bad)?)),
        FrameType::Agreed => Message::Agreed(agreed(take(kind, body)?).map_err(bad)?),
        FrameType::Ready => {
            let ReadyShape { currents } = take(kind, body)?;
            if currents.len() > MAX_VOLUMES {
                return Err(bad("count of volumes"));
            }
            Message::Ready { currents: currents.into_iter().map(Generation).collect() }
        }
        FrameType::Bits => {
            let BitsShape { volume, runs, last } = take(kind, body)?;
            let runs = runs_of_gaps(runs).ok_or(bad("runs"))?;
            if !runs.is_sorted_by(|a, b| a.0 + a.1 <= b.0) {
                return Err(bad("order of runs"));
            }
            Message::Bits { volume, runs, last }
        }
        FrameType::SyncCommit => {
            let SyncCommitShape { id, volume, runs } = take(kind, body)?;
            Message::SyncCommit { id, volume, runs: runs_of_gaps(runs).ok_or(bad("runs"))? }
        }
        FrameType::SyncGrant => {
            let SyncGrantShape { volume, current, history: shape } = take(kind, body)?;
            let history = history(shape).ok_or(bad("history"))?;
            Message::SyncGrant { volume, current: Generation(current), history }
        }
        FrameType::RoleIs => {
            let RoleIsShape { role } = take(kind, body)?;
            Message::RoleIs(value(ROLES, role).ok_or(bad("role"))?)
        }
        _ => decode_plain(kind, body).expect("the data path has its own layouts")?,
    })
}

fn facts_shape(facts: &Facts) -> FactsShape {
    assert!(facts.volumes.len() <= MAX_VOLUMES, "facts of {} volumes", facts.volumes.len());
    FactsShape {
        node: facts.node.0,
        incarnation: facts.incarnation,
        peer_incarnation: facts.peer_incarnation,
        protocol: number(PROTOCOLS, &facts.protocol),
        role: number(ROLES, &facts.role),
        was_paused: facts.was_paused,
        crashed_primary: facts.crashed_primary,
        discard_my_data: facts.discard_my_data,
        volumes: facts.volumes.iter().map(volume_shape).collect(),
    }
}

fn facts(shape: FactsShape) -> Result<Facts, &'static str> {
    if shape.volumes.len() > MAX_VOLUMES {
        return Err("count of volumes");
    }
    if shape.node > NodeId::MAX.0 {
        return Err("node-id");
    }
    let volumes = shape.volumes.into_iter().map(volume).collect::<Result<Vec<_>, _>>()?;
    if !volumes.is_sorted_by(|a, b| a.number < b.number) {
        return Err("order of volumes");
    }
    Ok(Facts {
        node: NodeId(shape.node),
        incarnation: shape.incarnation,
        peer_incarnation: shape.peer_incarnation,
        protocol: value(PROTOCOLS, shape.protocol).ok_or("protocol")?,
        role: value(ROLES, shape.role).ok_or("role")?,
        was_paused: shape.was_paused,
        crashed_primary: shape.crashed_primary,
        discard_my_data: shape.discard_my_data,
        volumes,
    })
}

fn volume_shape(facts: &VolumeFacts) -> VolumeShape {
    VolumeShape {
        number: facts.number,
        disk: number(DISKS, &facts.disk),
        size: facts.size,
        current: facts.current.0,
        bitmap: facts.bitmap.0,
        sync_to: facts.sync_to.0,
        history: history_shape(&facts.history),
        bits: facts.bits,
    }
}

fn volume(shape: VolumeShape) -> Result<VolumeFacts, &'static str> {
    Ok(VolumeFacts {
        number: shape.number,
        disk: value(DISKS, shape.disk).ok_or("disk state")?,
        size: shape.size,
        current: Generation(shape.current),
        bitmap: Generation(shape.bitmap),
        sync_to: Generation(shape.sync_to),
        history: history(shape.history).ok_or("history")?,
        bits: shape.bits,
    })
}

fn agreed_shape(agreed: &Agreed) -> AgreedShape {
    let mut shape =
        AgreedShape { outcome: GO, verdicts: Vec::new(), reason: 0, text: String::new() };
    match agreed {
        Agreed::Go(verdicts) => {
            assert!(verdicts.len() <= MAX_VOLUMES, "verdicts of {} volumes", verdicts.len());
            shape.verdicts = verdicts.iter().map(|verdict| number(VERDICTS, verdict)).collect();
        }
        Agreed::YouStepDown => shape.outcome = YOU_STEP_DOWN,
        Agreed::IStepDown => shape.outcome = I_STEP_DOWN,
        Agreed::Refuse(reason) => {
            shape.outcome = REFUSE;
            shape.reason = match reason {
                RefuseReason::SplitBrain => SPLIT_BRAIN,
                RefuseReason::Unrelated => UNRELATED,
                RefuseReason::TwoPrimaries => TWO_PRIMARIES,
                RefuseReason::Stale => STALE,
                RefuseReason::Incompatible(text) => {
                    shape.text = text[..text.floor_char_boundary(MAX_TEXT)].into();
                    INCOMPATIBLE
                }
            };
        }
    }
    shape
}

fn agreed(shape: AgreedShape) -> Result<Agreed, &'static str> {
    let AgreedShape { outcome, verdicts, reason, text } = shape;
    if verdicts.len() > MAX_VOLUMES {
        return Err("count of verdicts");
    }
    if text.len() > MAX_TEXT {
        return Err("length of text");
    }
    // What an outcome has no use for is empty: one message has one encoding.
    let plain = verdicts.is_empty() && text.is_empty();
    match (outcome, reason) {
        (GO, 0) if text.is_empty() => {
            let verdicts =
                verdicts.into_iter().map(|number| value(VERDICTS, number)).collect::<Option<_>>();
            verdicts.map(Agreed::Go).ok_or("verdict")
        }
        (YOU_STEP_DOWN, 0) if plain => Ok(Agreed::YouStepDown),
        (I_STEP_DOWN, 0) if plain => Ok(Agreed::IStepDown),
        (REFUSE, SPLIT_BRAIN) if plain => Ok(Agreed::Refuse(RefuseReason::SplitBrain)),
        (REFUSE, UNRELATED) if plain => Ok(Agreed::Refuse(RefuseReason::Unrelated)),
        (REFUSE, STALE) if plain => Ok(Agreed::Refuse(RefuseReason::Stale)),
        (REFUSE, TWO_PRIMARIES) if plain => Ok(Agreed::Refuse(RefuseReason::TwoPrimaries)),
        (REFUSE, INCOMPATIBLE) if verdicts.is_empty() => {
            Ok(Agreed::Refuse(RefuseReason::Incompatible(text)))
        }
        _ => Err("outcome"),
    }
}

fn history_shape(history: &[Generation]) -> Vec<u64> {
    assert!(history.len() <= MAX_HISTORY, "a history of {} generations", history.len());
    history.iter().map(|generation| generation.0).collect()
}

fn history(shape: Vec<u64>) -> Option<Vec<Generation>> {
    (shape.len() <= MAX_HISTORY).then(|| shape.into_iter().map(Generation).collect())
}

/// Runs as distances from the end of the one before, modulo 2^64: near neighbours become one byte.
fn gaps(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    assert!(runs.len() <= MAX_RUNS, "{} runs in one message, the most is {MAX_RUNS}", runs.len());
    let mut end = 0u64;
    let gap = |&(first, count): &(u64, u64)| {
        let gap = first.wrapping_sub(end);
        end = first.checked_add(count).expect("a run of blocks ends below 2^64");
        (gap, count)
    };
    runs.iter().map(gap).collect()
}

/// The inverse; none if a run is empty or ends beyond 2^64, or if there are too many.
fn runs_of_gaps(mut gaps: Vec<(u64, u64)>) -> Option<Vec<(u64, u64)>> {
    if gaps.len() > MAX_RUNS {
        return None;
    }
    let mut end = 0u64;
    for (gap, count) in &mut gaps {
        let first = end.wrapping_add(*gap);
        end = first.checked_add(*count)?;
        *gap = first;
        if *count == 0 {
            return None;
        }
    }
    Some(gaps)
}

// ---- bincode ----

struct Tail<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn put<T: Encode>(out: &mut Vec<u8>, kind: FrameType, shape: &T) -> FrameType {
    bincode::encode_into_writer(shape, Tail(out), bincode::config::standard())
        .expect("plain numbers and lists always encode, and memory takes them");
    kind
}

fn take<T: Decode<()>>(kind: FrameType, body: &[u8]) -> Result<T, WireError> {
    // LIM: the limit bounds what a lying length inside the body can make bincode reserve.
    let config = bincode::config::standard().with_limit::<MAX_BODY>();
    match bincode::decode_from_slice(body, config) {
        Ok((shape, used)) if used == body.len() => Ok(shape),
        Ok(_) => Err(WireError::Value(kind, "length: bytes are left over")),
        Err(_) => Err(WireError::Value(kind, "encoding")),
    }
}

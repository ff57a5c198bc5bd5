//! What nodes say to each other once the link layer knows who they are. No bytes here: see `codec`.
//!
//! One TCP stream per pair of nodes carries everything in order; the order is part of the meaning. Payload is named by a
//! `BufferId`; the link layer moves the bytes.

use crate::digest::Digest;
use crate::node::{BufferId, DiskState, Protocol, Role, VolumeNumber};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::{ByteRange, Generation, NodeId};
use core::ops::Range;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    // ---- handshake, in this order: Facts both ways, Agreed both ways ----
    /// Everything the verdict is made of. The sender changes none of it until the handshake ends (GI-6).
    Facts(Box<Facts>),
    /// The verdict the sender came to, as seen from its side; the receiver must have come to its mirror image (GI-4).
    Agreed(Agreed),
    /// The sender has on stable storage what the verdict demands of it (of the peer of a diskless Primary: the new
    /// current). `currents` are its current generations by rising volume number.
    Ready {
        /// Current generations by rising volume number.
        currents: Vec<Generation>,
    },

    // ---- data ----
    /// Apply a write.
    Write(PeerWrite),
    /// The write with this dagtag was received (protocol B).
    Received(u64),
    /// The write with this dagtag is done (stable if it had FUA).
    Written(u64),
    /// Complete every write received before this, then flush all volumes, then answer `Flushed` with the same number.
    Flush {
        /// Counts the flushes of this link from 1.
        number: u64,
        /// Nothing received later may be applied before the flush is done (ORD-1 under A and B).
        barrier: bool,
    },
    /// Done.
    Flushed(u64),
    /// Read for the client of a node whose own copy is not good.
    Read {
        /// Names the answer.
        id: u64,
        /// Volume.
        volume: VolumeNumber,
        /// Range.
        range: ByteRange,
    },
    /// The answer; none if it cannot be had. None also refuses a `SyncRead`.
    ReadData {
        /// As asked.
        id: u64,
        /// The bytes.
        buffer: Option<BufferId>,
    },

    // ---- resync ----
    /// Part of the sender's bitmap against the receiver: runs of set bits `(first, count)`, rising.
    Bits {
        /// Volume.
        volume: VolumeNumber,
        /// Runs of set bits: first block and count.
        runs: Vec<(u64, u64)>,
        /// No more parts.
        last: bool,
    },
    /// The target asks for these blocks' bytes.
    SyncRead {
        /// Names the answer.
        id: u64,
        /// Volume.
        volume: VolumeNumber,
        /// Range.
        range: ByteRange,
    },
    /// The answer.
    SyncData {
        /// As asked.
        id: u64,
        /// The source serves a client, now or lately: the target goes slowly.
        serves: bool,
        /// The bytes; none: all zeros.
        buffer: Option<BufferId>,
    },
    /// The target says what it holds: what of it does the source hold, too? `ReadData` without data refuses.
    SyncCompare {
        /// Names the answer.
        id: u64,
        /// Volume.
        volume: VolumeNumber,
        /// Range: whole blocks, at most 64 units.
        range: ByteRange,
        /// Blocks of a unit.
        unit: u64,
        /// For each unit, in order, the digest of the digests of its blocks.
        digests: Vec<Digest>,
    },
    /// The answer.
    SyncDiffers {
        /// As asked.
        id: u64,
        /// As in `SyncData`.
        serves: bool,
        /// Which units differ, one bit each, the lowest for the first.
        units: u64,
        /// Of those, in order, the digest of each block of the source's.
        digests: Vec<Digest>,
    },
    /// The target has written *and flushed* these runs of blocks: the source flushes too, clears its bits, and answers.
    SyncCommit {
        /// Names the answer.
        id: u64,
        /// Volume.
        volume: VolumeNumber,
        /// Runs: first block and count.
        runs: Vec<(u64, u64)>,
    },
    /// The source has flushed and cleared: the target may clear too (COV-3).
    SyncCommitted {
        /// As asked.
        id: u64,
    },
    /// The target has no bit left in this volume.
    SyncFinish {
        /// Volume.
        volume: VolumeNumber,
    },
    /// From this message on the source counts the target's acknowledgements as those of an UpToDate copy. The target
    /// completes and flushes all it received before, then becomes UpToDate with this generation (RES-2).
    SyncGrant {
        /// Volume.
        volume: VolumeNumber,
        /// The source's current generation.
        current: Generation,
        /// The source's history, newest first.
        history: Vec<Generation>,
    },
    /// The target is UpToDate, stable.
    InSync {
        /// Volume.
        volume: VolumeNumber,
    },

    // ---- states ----
    /// The sender wants to become Primary.
    PromoteRequest,
    /// May it?
    PromoteReply {
        /// Yes or no.
        granted: bool,
    },
    /// The sender's role changed.
    RoleIs {
        /// Now.
        role: Role,
    },
    /// Please throw your data away and copy mine.
    Invalidate,
    /// The sender leaves on purpose. With `outdate`, the receiver's data must be considered Outdated from now on.
    Bye {
        /// The sender goes on writing alone: be Outdated, and say so.
        outdate: bool,
        /// The sender's data is stably Outdated or worse: nobody promotes it before the two have met again.
        outdated: bool,
    },
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
}

/// A write on its way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerWrite {
    /// Volume.
    pub volume: VolumeNumber,
    /// Range.
    pub range: ByteRange,
    /// What to write.
    pub content: Content,
    /// Stable before `Written`.
    pub fua: bool,
    /// Who accepted the write from its client.
    pub author: NodeId,
    /// The author's count of writes: rises by one each, per process.
    pub dagtag: u64,
    /// Writes of one epoch may be applied in any order; the next epoch starts when all of them are done (ORD-2).
    pub epoch: u64,
    /// Answer `Received` at once (protocol B).
    pub want_received: bool,
}

/// What a write writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Data(BufferId),
    /// Zeros.
    Zero {
        /// Space may be given back.
        unmap: bool,
    },
}

/// What one side knows at the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Node-id.
    pub node: NodeId,
    /// Random number of this process.
    pub incarnation: u64,
    /// Configured protocol; must be equal.
    pub protocol: Protocol,
    /// Role now.
    pub role: Role,
    /// This Primary has served nothing since it lost its peer: it was paused longer than the detection time (ROLE-5), or the
    /// peer is not fenced (ROLE-4).
    pub suspended: bool,
    /// The operator gave this side's data up.
    pub discard_my_data: bool,
    /// By rising volume number; both sides must have the same numbers.
    pub volumes: Vec<VolumeFacts>,
}

/// What one side knows of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Number.
    pub number: VolumeNumber,
    /// Disk state.
    pub disk: DiskState,
    /// Bytes offered to clients; 0 if diskless.
    pub size: u64,
    /// Current generation; of a diskless node, the last one it served.
    pub current: Generation,
    /// Bitmap generation for the receiver.
    pub bitmap: Generation,
    /// History, newest first.
    pub history: Vec<Generation>,
    /// Bits set against the receiver, active extents included.
    pub bits: u64,
    /// Its writes were acknowledged here when its last process died.
    pub crashed_primary: bool,
    /// Incarnation of the receiver with which this process last completed a handshake that compared the two disks; 0: never.
    pub peer_incarnation: u64,
}

/// The outcome of a handshake, from the sender's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// Go on; per volume, by rising number.
    Go(Vec<VolumeVerdict>),
    /// The receiver must stop being Primary, then both start again.
    YouStepDown,
    /// The sender stops being Primary, then both start again.
    IStepDown,
    /// No: both go StandAlone.
    Refuse(RefuseReason),
}

/// What happens to one volume, from the speaker's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeVerdict {
    /// Nothing to compare: a side has no disk, or neither has usable data.
    Idle,
    /// Same content.
    NoSync,
    /// Copy to the peer.
    Source {
        /// All blocks.
        full: bool,
    },
    /// Copy from the peer.
    Target {
        /// All blocks.
        full: bool,
    },
}

/// Why two nodes cannot work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// Both hold writes the other lacks.
    SplitBrain,
    /// The data never was the same.
    Unrelated,
    /// The side with the newer data is not UpToDate (its disk failed, or it was declared Outdated), the good side is older.
    Stale,
    /// Both are Primary now.
    TwoPrimaries,
    /// Configurations differ; the text names both values.
    Incompatible(String),
}

/// Runs of blocks as ranges.
pub fn ranges(runs: &[(u64, u64)]) -> impl Iterator<Item = Range<u64>> + '_ {
    runs.iter().map(|&(first, count)| first..first.saturating_add(count))
}

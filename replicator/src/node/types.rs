//! The words the node and its surroundings speak: ids, events in, actions out. No behaviour.
//!
//! Buffers never pass through the node: a `BufferId` names one that the surroundings hold. Whoever fills a
//! buffer first names it: the surroundings for payload that comes in (a client's write, a peer's frame), the node for a disk
//! read it orders (`NODE_BUFFER` bit set). Each name that reached or left the node is given up by exactly one
//! `Action::Release`; later actions never mention it. Earlier actions of the same batch may: hold a count, not a flag.

use crate::digest::Digest;
use crate::wire::Message;
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::{ByteRange, MetaWrite, NodeId};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

id!(/// A client request, named by the surroundings; answered by exactly one `Action::Reply`.
    RequestId);
id!(/// A disk operation, named by the node; answered by one `Event::Disk`. Never reused.
    IoId);
id!(/// One connection attempt and the link it becomes; named by the node. Never reused.
    LinkId);
id!(/// An operator's command, named by the surroundings; answered by one `Action::Done`.
    CommandId);
id!(/// A client that has the export open; named by the surroundings.
    OpenId);
id!(/// A payload buffer held by the surroundings.
    BufferId);
id!(/// A run of an operator's program, named by the node; answered by one `Event::Handler`. Never reused.
    HandlerId);

/// Set in the names of buffers that the node named.
pub const NODE_BUFFER: u64 = 1 << 63;

/// Nanoseconds on this node's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// This time plus a duration in milliseconds.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// Number of a volume inside its resource.
pub type VolumeNumber = u16;

/// May this node accept I/O?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Not known: the peer is not connected.
    Unknown,
    /// Serves nobody.
    #[default]
    Secondary,
    /// Accepts I/O.
    Primary,
}

/// State of a local or a peer's disk, in DRBD's words, worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskState {
    /// No disk.
    #[default]
    Diskless,
    /// Metadata is being read.
    Attaching,
    /// The last operations are awaited before the disk is let go.
    Detaching,
    /// Failed; its outstanding operations are awaited.
    Failed,
    /// Blocks of different times: the target of an unfinished resync, or never synchronised.
    Inconsistent,
    /// Consistent, but the peer went on without it.
    Outdated,
    /// A peer's, not connected.
    DUnknown,
    /// Consistent; whether up to date is not known yet.
    Consistent,
    /// Good.
    UpToDate,
}

/// State of the connection to a peer, in DRBD's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionState {
    /// No connection is wanted, or none until the operator says `connect`.
    #[default]
    StandAlone,
    /// Waits before it tries again.
    Unconnected,
    /// Tries.
    Connecting,
    /// A link is up, the handshake runs.
    Handshaking,
    /// Handshake done.
    Connected,
}

/// What a volume exchanges with a peer, in DRBD's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicationState {
    /// Not connected.
    #[default]
    Off,
    /// Connected, nothing to copy.
    Established,
    /// Bitmaps are being exchanged; we are the source.
    WfBitMapS,
    /// Bitmaps are being exchanged; we are the target.
    WfBitMapT,
    /// Copies to the peer.
    SyncSource,
    /// Copied from the peer.
    SyncTarget,
}

/// When a write is acknowledged to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Local write done, handed to the send buffer.
    A,
    /// Local write done, the peer has received it.
    B,
    /// Written by both disks.
    #[default]
    C,
}

/// Everything that can happen to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants something.
    Request(Request),
    /// A client wants to open the export for reading and writing.
    Open(OpenId),
    /// That client has gone, all its requests were answered.
    Close(OpenId),
    /// A disk operation ended.
    Disk(IoId, Result<DiskDone, DiskError>),
    /// A message arrived, in stream order.
    Peer(LinkId, Message),
    /// Something happened to a link.
    Link(LinkId, LinkEvent),
    /// The operator commands.
    Admin(CommandId, Command),
    /// A handler ended with this exit code; or why there is none: not configured, not to be started, killed.
    Handler(HandlerId, Result<i32, String>),
    /// Time has passed (`Node::deadline`).
    Tick,
}

/// A client's request. Ranges lie inside the volume and are not empty: the front end checks.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// The volume it is for.
    pub volume: VolumeNumber,
    /// What is wanted.
    pub op: RequestOp,
}

/// What a client can want. `B` is its payload, or the payload's name.
#[derive(Clone, Copy, Debug)]
pub enum RequestOp<B = BufferId> {
    /// Read; the reply carries the buffer.
    Read(ByteRange),
    /// Write the buffer's content.
    Write {
        /// Where; the buffer has this length.
        range: ByteRange,
        /// The payload.
        buffer: B,
        /// Stable on every UpToDate copy before the reply.
        fua: bool,
    },
    /// Make the range read as zeros (WRITE_ZEROES; TRIM too, with `unmap`).
    Zero {
        /// Where.
        range: ByteRange,
        /// Blocks may be given back to the file system.
        unmap: bool,
        /// As for writes.
        fua: bool,
    },
    /// Make every write acknowledged so far stable.
    Flush,
}

impl<B> RequestOp<B> {
    /// The same, with the payload exchanged.
    pub fn map<C>(self, exchange: impl FnOnce(B) -> C) -> RequestOp<C> {
        match self {
            Self::Read(range) => RequestOp::Read(range),
            Self::Write { range, buffer, fua } => {
                RequestOp::Write { range, buffer: exchange(buffer), fua }
            }
            Self::Zero { range, unmap, fua } => RequestOp::Zero { range, unmap, fua },
            Self::Flush => RequestOp::Flush,
        }
    }
}

/// What a finished disk operation brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskDone {
    /// Done.
    Ok,
    /// A `Read` with `detect_zero` found nothing but zeros; the buffer was not filled.
    Zero,
    /// `Digest`: one for each block.
    Digests(Vec<Digest>),
    /// `ReadMeta`: one result per range asked.
    Meta(Vec<Result<Vec<u8>, ()>>),
}

/// A disk operation failed. What went wrong is for the log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError;

/// What can happen to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Both ends have proved who they are. `incarnation` is the peer process's random number.
    Up {
        /// Random number of the peer's process.
        incarnation: u64,
    },
    /// Could not be made, or is gone. Nothing more comes from this id.
    Down(LinkDown),
}

/// Why a link is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkDown {
    /// No connection could be made in time: try again.
    Unreachable,
    /// It was there, and broke.
    Broken,
    /// The peer is not who it should be, or speaks another protocol: the operator must act.
    Rejected(String),
}

/// What an operator can command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the metadata of a disk that the surroundings have opened, and use it.
    Attach(VolumeNumber, Backing),
    /// Let the disk go.
    Detach(VolumeNumber),
    /// Look for the peer.
    Connect {
        /// If the data diverged, ours is thrown away.
        discard_my_data: bool,
    },
    /// Leave the peer.
    Disconnect,
    /// Become Primary.
    Primary {
        /// Also with data that is not known to be up to date.
        force: bool,
    },
    /// Become Secondary.
    Secondary {
        /// Also while clients have it open: their requests fail.
        force: bool,
    },
    /// Copy everything from the peer again.
    Invalidate,
    /// Copy everything to the peer again.
    InvalidateRemote,
    /// This node's data is not the newest: it is not promoted before it has met the peer.
    Outdate,
    /// Answer no client until `ResumeIo`.
    SuspendIo,
    /// Answer clients again, also where the peer could not be fenced: the operator's word that it is out of the way.
    ResumeIo,
    /// From this instant on nobody is answered, unless it is renewed in time; none: no such instant any more. It ends with the
    /// role.
    Lease(Option<Time>),
    /// Secondary, disconnected, detached: ready for the process to end.
    Down,
}

/// An operator's program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// On what occasion.
    pub occasion: Occasion,
    /// The peer it is about.
    pub peer: Option<NodeId>,
    /// The volume it is about; none: all.
    pub volume: Option<VolumeNumber>,
    /// The connection to that peer.
    pub connection: ConnectionState,
    /// Nodes that have good data, as far as this one knows, and this one also if it has all that its lost Primary had: one bit per
    /// node-id.
    pub up_to_date: u32,
}

/// When a handler is run; DRBD's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Occasion {
    /// The peer has to be out of the way. Its exit code decides.
    FencePeer,
    /// Both nodes have the same data again.
    UnfencePeer,
    /// The data has diverged.
    InitialSplitBrain,
    /// And nothing resolved it.
    SplitBrain,
    /// A disk failed (`on-io-error call-local-io-error`).
    LocalIoError,
    /// This Primary has no UpToDate data within reach.
    PriOnInconDegr,
    /// It was Primary, and finds that the peer has taken its place (ROLE-5): what runs on top has lost its device.
    PriLost,
    /// This disk is going to be written to by a resync; anything but 0 forbids it.
    BeforeResyncTarget,
    /// The resync has ended, this disk is UpToDate.
    AfterResyncTarget,
    /// A connection was lost.
    Disconnected,
}

impl Occasion {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::FencePeer,
        Self::UnfencePeer,
        Self::InitialSplitBrain,
        Self::SplitBrain,
        Self::LocalIoError,
        Self::PriOnInconDegr,
        Self::PriLost,
        Self::BeforeResyncTarget,
        Self::AfterResyncTarget,
        Self::Disconnected,
    ];

    /// As it stands in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::FencePeer => "fence-peer",
            Self::UnfencePeer => "unfence-peer",
            Self::InitialSplitBrain => "initial-split-brain",
            Self::SplitBrain => "split-brain",
            Self::LocalIoError => "local-io-error",
            Self::PriOnInconDegr => "pri-on-incon-degr",
            Self::PriLost => "pri-lost",
            Self::BeforeResyncTarget => "before-resync-target",
            Self::AfterResyncTarget => "after-resync-target",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What the surroundings found when they opened a backing device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Bytes of the device or file that holds the data.
    pub data_size: u64,
    /// Bytes of the separate file that holds the metadata; none if internal.
    pub meta_size: Option<u64>,
}

/// Why something was refused, as a number with DRBD's meaning and a text that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The class; decides the exit code.
    pub kind: RefusalKind,
    /// What was refused, the values on both sides, the next command to type.
    pub text: String,
}

/// Classes of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The peer is Primary (-1).
    TwoPrimaries,
    /// The peer is not known to be out of the way (-7).
    PeerNotOutdated,
    /// Not while this node is Primary (exit code 17 of `outdate`).
    Primary,
    /// Not while the peer is connected (-6).
    Connected,
    /// There is nothing to outdate: the data is Inconsistent or worse already (-16, exit code 5 of `outdate`).
    NotOutdatable,
    /// No access to UpToDate data (-2, exit code 17).
    NoUpToDateData,
    /// Needs a local disk (-4, exit code 16).
    NoDisk,
    /// A client has the device open (-12).
    InUse,
    /// A resync runs, or another change is under way (-8, -19).
    Busy,
    /// Needs a connection (-15).
    NotConnected,
    /// The state does not allow it (others).
    State,
    /// The metadata is missing, damaged or does not fit the device (-119 and others).
    Metadata,
    /// The peer refused (-10).
    Peer,
}

/// Everything a node can want done. Actions of one batch to different sinks (disk, link, client, operator) commute;
/// actions to one sink keep their order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Start a disk operation.
    Disk {
        /// Its name.
        io: IoId,
        /// On this volume.
        volume: VolumeNumber,
        /// What to do.
        op: DiskOp,
    },
    /// The disk of this volume is not needed any more; every operation on it has ended.
    CloseDisk(VolumeNumber),
    /// Send, in order.
    Send(LinkId, Message),
    /// Make a link to this peer (connect, or accept, as the link layer likes); one attempt, bounded in time.
    Connect(LinkId, NodeId),
    /// Forget this link; no event of it is wanted any more. What was sent before still goes out if it can.
    Close(LinkId),
    /// Answer a client. A read that succeeded carries its buffer.
    Reply(RequestId, Result<Option<BufferId>, RequestError>),
    /// Answer an open.
    Opened(OpenId, Result<(), Refusal>),
    /// Every client must go: no new requests, connections closed. The reason is for them to read.
    CloseExports(String),
    /// The node is done with this buffer.
    Release(BufferId),
    /// Answer the operator.
    Done(CommandId, Result<(), Refusal>),
    /// Run the operator's program for this, if there is one; bounded in time.
    Handler(HandlerId, Handler),
    /// Something an operator would want in the log.
    Notice(Notice),
}

/// What can be wanted of a disk. Data operations on overlapping ranges are never outstanding together, except reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Fill the buffer `into`, which the node just named.
    Read {
        /// Where.
        range: ByteRange,
        /// Name of the buffer.
        into: BufferId,
        /// Say `Zero` instead of filling the buffer if all bytes are zero.
        detect_zero: bool,
    },
    /// Read, and say the digest of each block.
    Digest {
        /// Where; whole blocks, but for the last of the device.
        range: ByteRange,
        /// Bytes of a block.
        block: u32,
    },
    /// Write a buffer.
    Write {
        /// Where.
        range: ByteRange,
        /// The payload.
        buffer: BufferId,
        /// Stable when done.
        fua: bool,
    },
    /// Make the range read as zeros.
    Zero {
        /// Where.
        range: ByteRange,
        /// Space may be given back.
        unmap: bool,
        /// Stable when done.
        fua: bool,
    },
    /// Make every data write stable whose completion was *handed to the node* before this was submitted.
    Flush,
    /// Read metadata: absolute offsets in the file that holds it.
    ReadMeta(Vec<(u64, u32)>),
    /// Write metadata; done when all of it is durable. The order inside does not matter.
    WriteMeta(Vec<MetaWrite>),
}

/// What a client is told when its request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// No good copy could serve it.
    Io,
    /// This node is not Primary (any more).
    NotPrimary,
    /// The node goes down.
    Shutdown,
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How bad.
    pub level: Level,
    /// What happened, what the node did, what to do.
    pub text: String,
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A state changed.
    Info,
    /// Redundancy or service is reduced.
    Warning,
    /// Data is at stake, or the operator must act.
    Error,
}

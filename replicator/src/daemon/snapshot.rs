//! What a running resource tells about itself: the node's status, and what only its surroundings
//! know. Plain values; how they are shown is for others.

use crate::node::{Status, VolumeNumber};
use bitmap::NodeId;
use std::fmt::Debug;
use std::time::Duration;

/// The resource at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the node says.
    pub status: Status,
    /// What was done for clients and on disks, by rising volume number.
    pub volumes: Vec<VolumeCounters>,
    /// Peers to which there is a stream now, shaken hands or not.
    pub linked: Vec<NodeId>,
    /// When the copies were last equal: for each peer, each volume.
    pub in_sync: Vec<InSync>,
}

impl Snapshot {
    /// How long ago this node's and the peer's copy of a volume were last known to be equal; zero:
    /// they are. `None`: not since the process started.
    pub fn in_sync_ago(&self, peer: NodeId, volume: VolumeNumber) -> Option<Duration> {
        let mut all = self.in_sync.iter();
        all.find(|last| last.peer == peer && last.volume == volume)?.ago
    }
}

/// See [`Snapshot::in_sync_ago`].
#[derive(Clone, Copy, Debug)]
pub struct InSync {
    /// The peer.
    pub peer: NodeId,
    /// The volume.
    pub volume: VolumeNumber,
    /// How long ago.
    pub ago: Option<Duration>,
}

/// DRBD's word for a state: the node has the same, but for three.
pub fn word(state: impl Debug) -> String {
    match format!("{state:?}").as_str() {
        "Handshaking" => "Connecting",
        "WfBitMapS" => "WFBitMapS",
        "WfBitMapT" => "WFBitMapT",
        same => same,
    }
    .to_owned()
}

/// Counters of one volume, since the process started.
#[derive(Clone, Debug, Default)]
pub struct VolumeCounters {
    /// The volume.
    pub number: VolumeNumber,
    /// The disk engine; none if diskless.
    pub engine: Option<&'static str>,
    /// Bytes that clients read.
    pub read: u64,
    /// Bytes that clients wrote or zeroed.
    pub written: u64,
    /// Requests of clients that ended: reads, writes and zeroings, flushes.
    pub reads: u64,
    /// See `reads`.
    pub writes: u64,
    /// See `reads`.
    pub flushes: u64,
    /// Requests of clients that failed.
    pub failed: u64,
    /// Requests of clients that were not answered yet.
    pub upper_pending: u64,
    /// Disk operations under way.
    pub lower_pending: u64,
}

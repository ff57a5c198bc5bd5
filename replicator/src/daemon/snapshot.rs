//! What a running resource tells about itself: the node's status, and what only its surroundings
//! know. Plain values; how they are shown is for others.

use crate::node::{Status, VolumeNumber};
use bitmap::NodeId;

/// The resource at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the node says.
    pub status: Status,
    /// What was done for clients and on disks, by rising volume number.
    pub volumes: Vec<VolumeCounters>,
    /// Peers to which there is a stream now, shaken hands or not.
    pub linked: Vec<NodeId>,
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

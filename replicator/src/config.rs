//! What one resource on one node is: checked values, no text. `tools` makes it from the configuration file.

use crate::node::{Protocol, VolumeNumber};
use alloc::vec::Vec;
use bitmap::{NodeId, Placement};

/// A resource as this node sees it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our node-id.
    pub node: NodeId,
    /// The volumes, by rising number.
    pub volumes: Vec<VolumeConfig>,
    /// The peers. One at run time in this release; the types allow 31.
    pub peers: Vec<NodeId>,
    /// When writes are acknowledged.
    pub protocol: Protocol,
    /// Does a FLUSH wait for the peer (`flush-peer`)? Off: the peer still flushes before it applies anything later.
    pub flush_peer: bool,
    /// Where no UpToDate copy can be reached: suspend I/O (true), or fail it (false)?
    pub suspend_no_data: bool,
    /// What has to happen to a lost peer before this node goes on without it.
    pub fencing: Fencing,
    /// Does a client that opens a Secondary promote it?
    pub auto_promote: bool,
    /// Times in milliseconds.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}

/// What has to happen to a lost peer before a Primary goes on without it, or a Secondary is promoted. I/O is suspended
/// until then, and until an operator's word if it cannot be made to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fencing {
    /// Nothing: it may have been promoted elsewhere.
    #[default]
    DontCare,
    /// It is outdated, or cannot be reached by any way.
    ResourceOnly,
    /// It is outdated, or was shot.
    ResourceAndStonith,
}

/// One volume.
#[derive(Clone, Copy, Debug)]
pub struct VolumeConfig {
    /// Its number.
    pub number: VolumeNumber,
    /// Where its metadata lies.
    pub placement: Placement,
    /// Bytes it shall have: a disk whose metadata has less is not attached. 0: whatever that has.
    pub size: u64,
}

/// Every time the node waits for something, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A ping is sent when nothing was received for this long.
    pub ping_interval: u64,
    /// A peer from which nothing was received for `ping_interval + ping_timeout` is dead.
    pub ping_timeout: u64,
    /// First wait between two attempts to connect; doubles up to `reconnect_max`.
    pub reconnect_min: u64,
    /// Longest wait between two attempts to connect.
    pub reconnect_max: u64,
    /// How long I/O is held for the peer to come back before its loss is accepted: after a pause (ROLE-5), and where
    /// only the peer has good data.
    pub connect_wait: u64,
    /// How long a handshake may take.
    pub handshake: u64,
    /// How long after it failed to fence a lost peer the handler is run again.
    pub fence_retry: u64,
    /// How often un-flushed writes are flushed and quiet extents leave the activity log.
    pub checkpoint: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping_interval: 1000,
            ping_timeout: 500,
            reconnect_min: 50,
            reconnect_max: 2000,
            connect_wait: 10_000,
            handshake: 10_000,
            fence_retry: 5000,
            checkpoint: 3000,
        }
    }
}

/// Every bound of the node in one place (LIM). Reaching one makes the node stop accepting, never drop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client requests accepted and not answered; the front end queues what is beyond.
    pub requests: usize,
    /// Bytes sent to a peer and not yet acknowledged as written; more writes wait.
    pub peer_bytes: u64,
    /// The same for a peer that is the target of a resync.
    pub target_bytes: u64,
    /// Writes completed on the peer but not flushed there; more trigger a flush.
    pub unflushed: usize,
    /// Bytes of a resync asked for and not yet written.
    pub resync_bytes: u64,
    /// The same while clients are served.
    pub resync_bytes_beside_clients: u64,
    /// Largest piece of a resync, and largest piece a client's request is split into.
    pub piece_bytes: u64,
    /// Activity-log extents one request may take at once; a larger one is split.
    pub extents_per_request: u32,
    /// Runs of a bitmap sent before the peer's sign of life is awaited.
    pub bitmap_runs: usize,
    /// Blocks written by a resync before both sides flush and clear their bits.
    pub resync_commit_blocks: u64,
    /// Blocks for which a target that compares sends one digest; shorter runs are copied.
    pub compare_unit: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 4096,
            peer_bytes: 64 << 20,
            target_bytes: 256 << 10,
            unflushed: 65_536,
            resync_bytes: 4 << 20,
            resync_bytes_beside_clients: 128 << 10,
            piece_bytes: 32 << 20,
            extents_per_request: 32,
            bitmap_runs: 32_768,
            resync_commit_blocks: 16_384,
            compare_unit: 16,
        }
    }
}

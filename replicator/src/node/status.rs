//! What a node tells about itself: a plain snapshot, for the control socket, the tests and the simulator.

use super::types::{ConnectionState, DiskState, ReplicationState, Role, VolumeNumber};
use alloc::string::String;
use alloc::vec::Vec;
use bitmap::{Generation, NodeId};

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Our node-id.
    pub node: NodeId,
    /// Our role.
    pub role: Role,
    /// Why I/O is held, if it is (LIVE-2: never without a reason).
    pub suspended: Option<&'static str>,
    /// Clients that have the export open.
    pub open: usize,
    /// Requests accepted and not answered.
    pub requests: usize,
    /// Operations under way, clients' and the peer's: a request that was answered may still be with the peer.
    pub operations: usize,
    /// Our volumes.
    pub volumes: Vec<VolumeStatus>,
    /// Our peers.
    pub peers: Vec<PeerStatus>,
}

/// One volume at one moment.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// Number.
    pub number: VolumeNumber,
    /// State of the local disk.
    pub disk: DiskState,
    /// Bytes offered to clients; 0 if not known.
    pub size: u64,
    /// Generations: current, and history.
    pub current: Generation,
    /// Newest first.
    pub history: Vec<Generation>,
    /// Extents the activity log has room for; 0 without a disk.
    pub al_extents: u32,
    /// Extents in the activity log now.
    pub active_extents: u32,
    /// Activity-log transactions written.
    pub al_writes: u64,
    /// Writes to the bitmaps on disk.
    pub bm_writes: u64,
    /// Was Primary when its last process died, not yet made good.
    pub crashed_primary: bool,
    /// It holds all that was acknowledged while its peer was there: it is UpToDate, or Consistent because the Primary that it
    /// mirrored was lost. Once that one is fenced, it is the newest.
    pub followed: bool,
}

/// One peer at one moment.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its node-id.
    pub node: NodeId,
    /// The connection.
    pub connection: ConnectionState,
    /// Its role, if connected.
    pub role: Role,
    /// Why the connection is not there, or stands alone; what to do. Empty if all is well.
    pub reason: String,
    /// Bytes of clients' writes that it has not written yet.
    pub in_flight: u64,
    /// So many that further writes wait.
    pub congested: bool,
    /// Bytes of resync asked for, by us or by it, that did not arrive or go yet.
    pub resync_in_flight: u64,
    /// Per volume, by rising number.
    pub volumes: Vec<PeerVolumeStatus>,
}

/// One volume of a peer at one moment.
#[derive(Clone, Debug)]
pub struct PeerVolumeStatus {
    /// Number.
    pub number: VolumeNumber,
    /// Replication.
    pub replication: ReplicationState,
    /// The peer's disk.
    pub disk: DiskState,
    /// Bitmap generation for this peer.
    pub bitmap: Generation,
    /// Bytes out of sync: set bits.
    pub out_of_sync: u64,
    /// Of the running (or, if none runs, the last) resync: bytes it began with, bytes copied, milliseconds it has run.
    pub resync: Resync,
    /// Bytes of writes and resync data sent to and received from this peer.
    pub sent: u64,
    /// See `sent`.
    pub received: u64,
    /// Requests it has not answered: of clients, and pieces of a resync.
    pub pending: u64,
    /// Requests of its that we are at work on.
    pub unacked: u64,
}

/// Progress of a resync.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resync {
    /// Bytes out of sync when it began.
    pub total: u64,
    /// Bytes of blocks copied so far by it (sent, or found zero or equal).
    pub copied: u64,
    /// Of those, bytes that were compared and found equal. A source does not learn what its target finds equal within a unit that differs.
    pub equal: u64,
    /// How long it has run, or ran.
    pub milliseconds: u64,
}

//! What a node says about itself and its peer, reduced to what the checkers look at.

use replicator::node::{ConnectionState, DiskState, ReplicationState, Role, Status};

/// A node's own account at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its role.
    pub role: Role,
    /// Its disk.
    pub disk: DiskState,
    /// Its connection.
    pub connection: ConnectionState,
    /// What it exchanges.
    pub replication: ReplicationState,
    /// The peer's role.
    pub peer_role: Role,
    /// The peer's disk.
    pub peer_disk: DiskState,
    /// Its current generation.
    pub current: u64,
    /// Bytes out of sync.
    pub out_of_sync: u64,
    /// Requests not answered.
    pub requests: usize,
    /// I/O is held.
    pub suspended: bool,
}

impl View {
    /// A node's account of a volume (by its index) and its one peer. `None` if it has not both.
    pub fn of(status: &Status, volume: usize) -> Option<Self> {
        let index = volume;
        let volume = status.volumes.get(index)?;
        let peer = status.peers.first()?;
        let other = peer.volumes.get(index)?;
        Some(Self {
            role: status.role,
            disk: volume.disk,
            connection: peer.connection,
            replication: other.replication,
            peer_role: peer.role,
            peer_disk: other.disk,
            current: volume.current.0,
            out_of_sync: other.out_of_sync,
            requests: status.requests,
            suspended: status.suspended.is_some(),
        })
    }

    /// It is connected.
    pub fn connected(&self) -> bool {
        self.connection == ConnectionState::Connected
    }

    /// It counts on its peer's copy.
    pub fn peer_good(&self) -> bool {
        self.connected() && self.peer_disk == DiskState::UpToDate
    }

    /// It counts on its own copy; or it would, if it knew what its peer does.
    pub fn own_good(&self) -> bool {
        matches!(self.disk, DiskState::UpToDate | DiskState::Consistent)
    }

    /// Both copies are good and nothing is left to copy.
    pub fn mirrored(&self) -> bool {
        self.peer_good()
            && self.disk == DiskState::UpToDate
            && !matches!(
                self.replication,
                ReplicationState::SyncSource
                    | ReplicationState::SyncTarget
                    | ReplicationState::WfBitMapS
                    | ReplicationState::WfBitMapT
            )
    }

    /// It is, or is about to become, the target of a resync.
    pub fn target(&self) -> bool {
        matches!(self.replication, ReplicationState::SyncTarget | ReplicationState::WfBitMapT)
    }
}

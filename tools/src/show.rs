//! From a snapshot of a running resource to the status operators see: numbers get their names from
//! the configuration, states the words of DRBD; of what Pollux has not at all stays `no`. Printing is
//! `status`.

use crate::config::{Host, Resource, Volume};
use crate::status::{
    Connection, Device, Endpoint, GenerationIds, Path, PeerDevice, Status, SyncDetails,
};
use replicator::daemon::{Snapshot, VolumeCounters};
use replicator::node;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;

/// Why volumes have no disk, by their number: what the node cannot tell since it never saw one.
pub(crate) type AttachErrors = BTreeMap<u16, String>;

const SECTOR: u64 = 512;

/// The status of `resource`.
pub(crate) fn status(resource: &Resource, snapshot: &Snapshot, errors: &AttachErrors) -> Status {
    let from = &snapshot.status;
    let volumes = resource.me.volumes.iter();
    let connections = resource.peers.iter().filter_map(|peer| {
        let state = from.peers.iter().find(|state| state.node.0 == peer.node_id)?;
        Some(connection(resource, peer, state, snapshot))
    });
    Status {
        name: resource.name.clone(),
        node_id: resource.me.node_id,
        role: word(from.role),
        suspended: from.suspended.is_some(),
        // The only reason there is until there are fencing and quorum; its words are below.
        suspended_no_data: from.suspended.is_some(),
        write_ordering: "flush".to_owned(),
        devices: volumes.filter_map(|volume| device(volume, snapshot, errors)).collect(),
        connections: connections.collect(),
        reason: from.suspended.map(|why| format!("I/O is held: {why}")),
        ..Status::default()
    }
}

fn device(volume: &Volume, snapshot: &Snapshot, errors: &AttachErrors) -> Option<Device> {
    let from = snapshot.status.volumes.iter().find(|v| v.number == volume.number)?;
    let counters = snapshot.volumes.iter().find(|c| c.number == volume.number);
    let counted = |count: fn(&VolumeCounters) -> u64| counters.map_or(0, count);
    let is_diskless = from.disk == node::DiskState::Diskless;
    Some(Device {
        volume: volume.number,
        minor: volume.minor,
        disk_state: word(from.disk),
        client: volume.disk.is_none(),
        open: snapshot.status.open > 0,
        quorum: true,
        size: from.size / 1024,
        read: counted(|c| c.read) / 1024,
        written: counted(|c| c.written) / 1024,
        al_writes: from.al_writes,
        bm_writes: from.bm_writes,
        upper_pending: counted(|c| c.upper_pending),
        lower_pending: counted(|c| c.lower_pending),
        blocked: if snapshot.status.suspended.is_some() { "upper" } else { "no" }.to_owned(),
        backing_dev: volume
            .disk
            .as_ref()
            .filter(|_| !is_diskless)
            .map(|path| path.display().to_string()),
        engine: counters.and_then(|counters| counters.engine).map(str::to_owned),
        reason: match is_diskless {
            true => errors.get(&volume.number).cloned(),
            false => metadata_counts(volume, from),
        },
        ..Device::default()
    })
}

/// Where the configuration says something else than the metadata that was made before.
fn metadata_counts(volume: &Volume, found: &node::VolumeStatus) -> Option<String> {
    let (size, al_extents) = (volume.options.number("size"), volume.options.number("al-extents"));
    let differs = if size > 0 && found.size > size {
        format!("`size` says {size} bytes, the metadata {}", found.size)
    } else if found.al_extents > 0 && u64::from(found.al_extents) != al_extents {
        format!("`al-extents` says {al_extents}, the metadata {}", found.al_extents)
    } else {
        return None;
    };
    Some(format!(
        "{differs}, which counts: `polluxadm create-md` would make it anew (a full resync follows)"
    ))
}

fn connection(
    resource: &Resource,
    peer: &Host,
    from: &node::PeerStatus,
    snapshot: &Snapshot,
) -> Connection {
    let peer_devices = from.volumes.iter().map(|volume| {
        let size = snapshot.status.volumes.iter().find(|v| v.number == volume.number);
        let is_client = peer.volumes.iter().any(|v| v.number == volume.number && v.disk.is_none());
        peer_device(volume, size.map_or(0, |v| v.size), is_client)
    });
    let is_connected = from.connection == node::ConnectionState::Connected;
    Connection {
        peer_node_id: peer.node_id,
        name: peer.name.clone(),
        connection_state: word(from.connection),
        congested: from.congested,
        ap_in_flight: from.in_flight / SECTOR,
        rs_in_flight: from.resync_in_flight / SECTOR,
        peer_role: word(if is_connected { from.role } else { node::Role::Unknown }),
        paths: vec![Path {
            this_host: endpoint(resource.me.address),
            remote_host: endpoint(peer.address),
            established: snapshot.linked.contains(&from.node),
        }],
        peer_devices: peer_devices.collect(),
        reason: Some(from.reason.clone()).filter(|reason| !reason.is_empty()),
        ..Connection::default()
    }
}

fn peer_device(from: &node::PeerVolumeStatus, size: u64, is_client: bool) -> PeerDevice {
    let is_syncing = matches!(
        from.replication,
        node::ReplicationState::SyncSource | node::ReplicationState::SyncTarget
    );
    let sync = is_syncing.then(|| {
        let resync = &from.resync;
        // Bits are cleared in batches, so they lag behind what was copied.
        let left = resync.total.saturating_sub(resync.copied).min(from.out_of_sync);
        SyncDetails::new(resync.total / SECTOR, left / SECTOR, resync.milliseconds)
    });
    let in_sync = match size {
        0 => 0.0,
        size => 100.0 * size.saturating_sub(from.out_of_sync) as f64 / size as f64,
    };
    PeerDevice {
        volume: from.number,
        replication_state: word(from.replication),
        peer_disk_state: word(from.disk),
        peer_client: is_client,
        resync_suspended: "no".to_owned(),
        received: from.received / 1024,
        sent: from.sent / 1024,
        out_of_sync: from.out_of_sync / 1024,
        pending: from.pending,
        unacked: from.unacked,
        has_sync_details: sync.is_some(),
        percent_in_sync: in_sync,
        resync_copied: from.resync.copied / 1024,
        sync,
        ..PeerDevice::default()
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: address.ip().to_string(),
        port: address.port(),
        family: if address.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned(),
    }
}

/// DRBD's word for a state: the node has the same, but for three.
fn word(state: impl Debug) -> String {
    match format!("{state:?}").as_str() {
        "Handshaking" => "Connecting",
        "WfBitMapS" => "WFBitMapS",
        "WfBitMapT" => "WFBitMapT",
        same => same,
    }
    .to_owned()
}

/// The generations of all volumes that have a disk, towards all peers.
pub(crate) fn generations(resource: &Resource, snapshot: &Snapshot) -> Vec<GenerationIds> {
    let mut all = Vec::new();
    for volume in &snapshot.status.volumes {
        if volume.disk <= node::DiskState::Failed {
            continue;
        }
        for peer in &resource.peers {
            let state = snapshot.status.peers.iter().find(|state| state.node.0 == peer.node_id);
            let towards = state.and_then(|s| s.volumes.iter().find(|v| v.number == volume.number));
            let history = |at: usize| volume.history.get(at).map_or(0, |generation| generation.0);
            let connection = state.map(|state| state.connection);
            let is_connected = connection == Some(node::ConnectionState::Connected);
            let is_primary = snapshot.status.role == node::Role::Primary;
            all.push(GenerationIds {
                volume: volume.number,
                peer: peer.name.clone(),
                current: volume.current.0,
                bitmap: towards.map_or(0, |towards| towards.bitmap.0),
                history: [history(0), history(1)],
                flags: [
                    volume.disk > node::DiskState::Inconsistent,
                    volume.disk == node::DiskState::UpToDate,
                    is_primary,
                    volume.crashed_primary,
                    volume.active_extents == 0,
                    false,
                    false,
                    is_connected,
                    towards.is_some_and(|towards| towards.disk == node::DiskState::Outdated),
                    false,
                    false,
                    is_connected,
                ],
            });
        }
    }
    all
}

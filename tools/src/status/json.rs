//! From a snapshot of a running resource to what `status --json` shows: the keys and units of
//! `drbdsetup status --json` in its order, then what it has not: `reason` (why something is not as
//! it should be, what both sides hold, and what to type), `backing-dev`, `engine`, `followed`, `resync-copied`,
//! `seconds-since-in-sync`.
//! Numbers get their names from the configuration, states the words of DRBD.
//!
//! A number here was measured. A key of DRBD that Pollux would have to make up is left out: of a
//! resync `rs-dt0-ms`, `rs-db0-sectors` and `db0/dt0` (the rate of late), `rs-failed` and `want`.
//! What tells of something Pollux does not have stays, and says no, because scripts look for it.

use crate::config::{Host, Resource, Volume};
use replicator::daemon::{Snapshot, VolumeCounters, word};
use replicator::node::{
    ConnectionState, DiskState, PeerStatus, PeerVolumeStatus, ReplicationState, Role, VolumeStatus,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Why volumes have no disk, by their number: what the node cannot tell since it never saw one.
pub(crate) type AttachErrors = BTreeMap<u16, String>;

/// What stands before why I/O is held.
pub(crate) const HELD: &str = "I/O is held: ";

const SECTOR: u64 = 512;
/// The time to finish when nothing moves (DRBD's number).
pub(super) const NEVER: u64 = 987_654_321;

/// The status of `resource`.
pub(crate) fn json(resource: &Resource, snapshot: &Snapshot, errors: &AttachErrors) -> Value {
    let from = &snapshot.status;
    let devices = resource.me.volumes.iter();
    let devices: Vec<_> = devices.filter_map(|v| device(v, snapshot, errors)).collect();
    let peers = resource.peers.iter();
    let connections: Vec<_> = peers.filter_map(|p| connection(resource, p, snapshot)).collect();
    json!({
        "name": resource.name,
        "node-id": resource.me.node_id,
        "role": word(from.role),
        "suspended": from.suspended.is_some(),
        "suspended-user": from.suspended == Some("user"),
        // What else holds I/O has no name in DRBD; its words are below.
        "suspended-no-data": from.suspended.is_some_and(|why| !["user", "fencing", "lease"].contains(&why)),
        "suspended-fencing": from.suspended == Some("fencing"),
        "suspended-quorum": false,
        // Ours.
        "suspended-lease": from.suspended == Some("lease"),
        "force-io-failures": false,
        "write-ordering": "flush",
        "devices": devices,
        "connections": connections,
        "reason": from.suspended.map(|why| format!("{HELD}{why}")),
    })
}

fn device(volume: &Volume, snapshot: &Snapshot, errors: &AttachErrors) -> Option<Value> {
    let from = snapshot.status.volumes.iter().find(|v| v.number == volume.number)?;
    let counters = snapshot.volumes.iter().find(|c| c.number == volume.number);
    let counted = |count: fn(&VolumeCounters) -> u64| counters.map_or(0, count);
    let is_diskless = from.disk == DiskState::Diskless;
    Some(json!({
        "volume": volume.number,
        "minor": volume.minor,
        "disk-state": word(from.disk),
        // Diskless by configuration.
        "client": volume.disk.is_none(),
        "open": snapshot.status.open > 0,
        "quorum": true,
        // KiB.
        "size": from.size / 1024,
        "read": counted(|c| c.read) / 1024,
        "written": counted(|c| c.written) / 1024,
        "al-writes": from.al_writes,
        "bm-writes": from.bm_writes,
        // Requests not answered yet: clients', and to the backing device.
        "upper-pending": counted(|c| c.upper_pending),
        "lower-pending": counted(|c| c.lower_pending),
        "al-suspended": false,
        "blocked": if snapshot.status.suspended.is_some() { "upper" } else { "no" },
        "backing-dev": volume.disk.as_ref().filter(|_| !is_diskless).map(|p| p.display().to_string()),
        "engine": counters.and_then(|counters| counters.engine),
        // UpToDate, or what a Primary that is lost had until then: the newest, once that one is out of the way.
        "followed": from.followed,
        "reason": match is_diskless {
            true => errors.get(&volume.number).cloned(),
            false => metadata_counts(volume, from),
        },
    }))
}

/// Where the configuration says something else than the metadata that was made before.
fn metadata_counts(volume: &Volume, found: &VolumeStatus) -> Option<String> {
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

fn connection(resource: &Resource, peer: &Host, snapshot: &Snapshot) -> Option<Value> {
    let mut peers = snapshot.status.peers.iter();
    let from: &PeerStatus = peers.find(|state| state.node.0 == peer.node_id)?;
    let is_connected = from.connection == ConnectionState::Connected;
    let peer_devices = from.volumes.iter().map(|volume| {
        let mut volumes = snapshot.status.volumes.iter();
        let size = volumes.find(|v| v.number == volume.number).map_or(0, |v| v.size);
        let is_client = peer.volumes.iter().any(|v| v.number == volume.number && v.disk.is_none());
        let in_sync_ago = snapshot.in_sync_ago(from.node, volume.number);
        peer_device(volume, size, is_client, in_sync_ago)
    });
    Some(json!({
        "peer-node-id": peer.node_id,
        "name": peer.name,
        "connection-state": word(from.connection),
        // So much is on its way that further writes wait.
        "congested": from.congested,
        "peer-role": word(if is_connected { from.role } else { Role::Unknown }),
        "tls": false,
        // Sectors on their way: of clients' writes, of a resync.
        "ap-in-flight": from.in_flight / SECTOR,
        "rs-in-flight": from.resync_in_flight / SECTOR,
        "paths": [{
            "this_host": endpoint(resource.me.address),
            "remote_host": endpoint(peer.address),
            "established": snapshot.linked.contains(&from.node),
        }],
        "peer_devices": peer_devices.collect::<Vec<_>>(),
        "reason": Some(&from.reason).filter(|reason| !reason.is_empty()),
    }))
}

fn endpoint(address: SocketAddr) -> Value {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    json!({ "address": address.ip().to_string(), "port": address.port(), "family": family })
}

fn peer_device(
    from: &PeerVolumeStatus,
    size: u64,
    is_client: bool,
    in_sync_ago: Option<Duration>,
) -> Value {
    let is_syncing =
        matches!(from.replication, ReplicationState::SyncSource | ReplicationState::SyncTarget);
    let mut told = json!({
        "volume": from.number,
        "replication-state": word(from.replication),
        "peer-disk-state": word(from.disk),
        // Diskless by configuration.
        "peer-client": is_client,
        "resync-suspended": "no",
        // KiB.
        "received": from.received / 1024,
        "sent": from.sent / 1024,
        "out-of-sync": from.out_of_sync / 1024,
        // Requests not answered: by the peer, and to it.
        "pending": from.pending,
        "unacked": from.unacked,
        "has-sync-details": is_syncing,
        "has-online-verify-details": false,
        "percent-in-sync": match size {
            0 => 0.0,
            size => 100.0 * size.saturating_sub(from.out_of_sync) as f64 / size as f64,
        },
        // KiB that the resync that runs, or ran last, sent or received as data.
        "resync-copied": from.resync.copied / 1024,
        // Since both copies were last good and equal; 0: they are; null: not since the daemon started.
        "seconds-since-in-sync": in_sync_ago.map(|ago| ago.as_secs()),
    });
    if is_syncing {
        let resync = &from.resync;
        // Bits are cleared in batches, so they lag behind what was copied.
        let left = resync.total.saturating_sub(resync.copied).min(from.out_of_sync);
        let progress = progress(resync.total / SECTOR, left / SECTOR, resync.milliseconds);
        progress.into_iter().for_each(|(key, value)| told[key] = value);
    }
    told
}

/// How far a resync is: from the sectors at the start and now, and how long it ran.
pub(super) fn progress(total: u64, left: u64, milliseconds: u64) -> [(&'static str, Value); 10] {
    let done = total.saturating_sub(left);
    let rate = match milliseconds {
        0 => 0.0,
        ms => done as f64 / 2048.0 / (ms as f64 / 1000.0),
    };
    let seconds_left = match rate > 0.0 {
        true => (left as f64 / 2048.0 / rate).ceil().min(NEVER as f64) as u64,
        false => NEVER,
    };
    let percent = match total {
        0 => 100.0,
        total => done as f64 * 100.0 / total as f64,
    };
    [
        ("rs-total", json!(total)),
        ("rs-dt-start-ms", json!(milliseconds)),
        ("rs-paused-ms", json!(0)),
        // All of the time since it began. (What DRBD's `dt0` says, of late, is not measured.)
        ("rs-dt1-ms", json!(milliseconds)),
        ("rs-db1-sectors", json!(done)),
        ("rs-same-csum", json!(0)),
        ("db1/dt1 [MiB/s]", json!(rate)),
        ("estimated-seconds-to-finish", json!(seconds_left)),
        ("db/dt [MiB/s]", json!(rate)),
        ("percent-resync-done", json!(percent)),
    ]
}

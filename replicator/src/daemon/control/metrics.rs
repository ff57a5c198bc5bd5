//! `GET /metrics`: the state and the counters of the resource in Prometheus' text format, by its
//! conventions: base units, `_total` on counters, a state as a 0 or 1 for each value it may have, and
//! no label whose values are not counted on two hands or named in the configuration.

use crate::daemon::snapshot::{Snapshot, VolumeCounters, word};
use crate::node::{
    ConnectionState as C, DiskState as D, PeerStatus, PeerVolumeStatus, ReplicationState as R,
    Role, Status, VolumeStatus,
};
use bitmap::NodeId;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// What things are called: the node knows numbers only.
#[derive(Clone, Debug)]
pub struct Names {
    /// The resource.
    pub resource: String,
    /// This node.
    pub node: String,
    /// The version of the program.
    pub version: &'static str,
    /// Its peers, by node-id.
    pub peers: Vec<(NodeId, String)>,
}

impl Names {
    fn peer(&self, node: NodeId) -> &str {
        let peer = self.peers.iter().find(|(id, _)| *id == node);
        peer.map_or("?", |(_, name)| name)
    }
}

const ROLES: [Role; 3] = [Role::Unknown, Role::Secondary, Role::Primary];
const DISKS: [D; 9] = [
    D::Diskless,
    D::Attaching,
    D::Detaching,
    D::Failed,
    D::Inconsistent,
    D::Outdated,
    D::DUnknown,
    D::Consistent,
    D::UpToDate,
];
/// `Handshaking` is told as `Connecting`.
const CONNECTIONS: [C; 4] = [C::StandAlone, C::Unconnected, C::Connecting, C::Connected];
const REPLICATIONS: [R; 6] =
    [R::Off, R::Established, R::WfBitMapS, R::WfBitMapT, R::SyncSource, R::SyncTarget];
/// Why I/O may be held. `passing` are those that pass by themselves; `other` is what this list lacks.
const REASONS: [&str; 7] = ["user", "fencing", "lease", "no-data", "paused", "passing", "other"];
const PASSING: [&str; 3] = ["handshake", "detach", "peer is slow"];

type Labels = Vec<(&'static str, String)>;
/// What a sample is about, and the item its value comes from.
type Item<'a, T> = (Labels, &'a T);
/// A metric: its name, what it is, and its value.
type Metric<T> = (&'static str, &'static str, fn(&T) -> u64);

struct Page<'a> {
    text: String,
    resource: &'a str,
}

impl Page<'_> {
    fn begin(&mut self, name: &str, help: &str) {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        self.text += &format!("# HELP pollux_{name} {help}\n# TYPE pollux_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, String)], value: impl ToString) {
        self.text += &format!("pollux_{name}{{resource=\"{}\"", escaped(self.resource));
        for (label, value) in labels {
            self.text += &format!(",{label}=\"{}\"", escaped(value));
        }
        self.text += &format!("}} {}\n", value.to_string());
    }

    /// Each metric, with a sample for each item.
    fn add<T>(&mut self, items: &[Item<'_, T>], metrics: &[Metric<T>]) {
        for (name, help, value) in metrics {
            self.begin(name, help);
            items.iter().for_each(|(labels, item)| self.sample(name, labels, value(item)));
        }
    }

    /// One of several states: for each item a sample for each, and a 1 at the one it is in.
    fn state<T>(
        &mut self,
        items: &[Item<'_, T>],
        (name, help, label): (&str, &str, &'static str),
        states: &[impl Debug],
        of: impl Fn(&T) -> String,
    ) {
        self.begin(name, help);
        for (labels, item) in items {
            let is = of(item);
            for state in states.iter().map(word) {
                let labels: Labels = [&labels[..], &[(label, state.clone())]].concat();
                self.sample(name, &labels, u8::from(state == is));
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What is told of the whole resource, of volumes, of peers, and of the volumes of peers.
pub(super) fn text(names: &Names, snapshot: &Snapshot) -> String {
    let mut page = Page { text: String::new(), resource: &names.resource };
    resource(&mut page, names, &snapshot.status);
    volumes(&mut page, snapshot);
    peers(&mut page, names, &snapshot.status);
    peer_volumes(&mut page, names, snapshot);
    page.text
}

fn resource(page: &mut Page<'_>, names: &Names, status: &Status) {
    page.begin("daemon_info", "The program that runs the resource, and on which node.");
    let labels = [("node", names.node.clone()), ("version", names.version.to_owned())];
    page.sample("daemon_info", &labels, 1);
    let items: [Item<'_, Status>; 1] = [(vec![], status)];
    let role = ("resource_role", "This node's role.", "role");
    page.state(&items, role, &ROLES[1..], |s| word(s.role));
    page.begin("resource_suspended", "1 if I/O is held for this reason.");
    for reason in REASONS {
        let is = status.suspended.is_some_and(|why| match why {
            why if PASSING.contains(&why) => reason == "passing",
            why if REASONS.contains(&why) => reason == why,
            _ => reason == "other",
        });
        page.sample("resource_suspended", &[("reason", reason.to_owned())], u8::from(is));
    }
    page.add(
        &items,
        &[
            ("resource_clients", "Clients that have the resource open.", |s| s.open as u64),
            ("resource_requests", "Requests of clients not answered yet.", |s| s.requests as u64),
        ],
    );
}

fn volumes(page: &mut Page<'_>, snapshot: &Snapshot) {
    let volumes = snapshot.status.volumes.iter();
    let volumes: Vec<_> = volumes.map(|v| (vec![("volume", v.number.to_string())], v)).collect();
    let disk = ("volume_disk_state", "State of this node's disk.", "state");
    page.state(&volumes, disk, &DISKS, |v| word(v.disk));
    page.add::<VolumeStatus>(
        &volumes,
        &[
            ("volume_size_bytes", "Bytes clients see; 0: not known yet.", |v| v.size),
            ("volume_log_writes_total", "Activity log transactions.", |v| v.al_writes),
            ("volume_bitmap_writes_total", "Writes to the bitmaps on disk.", |v| v.bm_writes),
            ("volume_active_extents", "Extents in the activity log.", |v| v.active_extents.into()),
        ],
    );
    let counters = snapshot.volumes.iter();
    let counters: Vec<_> = counters.map(|c| (vec![("volume", c.number.to_string())], c)).collect();
    page.add::<VolumeCounters>(
        &counters,
        &[
            ("volume_read_bytes_total", "Bytes clients read.", |c| c.read),
            ("volume_written_bytes_total", "Bytes clients wrote or zeroed.", |c| c.written),
            ("volume_reads_total", "Reads of clients that ended.", |c| c.reads),
            ("volume_writes_total", "Writes of clients that ended.", |c| c.writes),
            ("volume_flushes_total", "Flushes of clients that ended.", |c| c.flushes),
            ("volume_failed_requests_total", "Requests of clients that failed.", |c| c.failed),
            ("volume_disk_operations", "Disk operations under way.", |c| c.lower_pending),
        ],
    );
}

fn peers(page: &mut Page<'_>, names: &Names, status: &Status) {
    let name = |p: &PeerStatus| vec![("peer", names.peer(p.node).to_owned())];
    let peers: Vec<_> = status.peers.iter().map(|p| (name(p), p)).collect();
    let connection = ("connection_state", "The connection to the peer.", "state");
    page.state(&peers, connection, &CONNECTIONS, |p| word(p.connection));
    let is_connected = |p: &PeerStatus| p.connection == C::Connected;
    let role = ("connection_peer_role", "The peer's role.", "role");
    page.state(&peers, role, &ROLES, |p| {
        word(if is_connected(p) { p.role } else { Role::Unknown })
    });
    page.add::<PeerStatus>(
        &peers,
        &[
            ("connection_congested", "1 if so much is on its way that writes wait.", |p| {
                p.congested.into()
            }),
            ("connection_in_flight_bytes", "Writes the peer has not written yet.", |p| p.in_flight),
            ("connection_resync_in_flight_bytes", "Resync data on its way.", |p| {
                p.resync_in_flight
            }),
            // The node counts by peer, and tells it with each volume.
            ("connection_sent_bytes_total", "Writes and resync data sent.", |p| {
                p.volumes.first().map_or(0, |v| v.sent)
            }),
            ("connection_received_bytes_total", "Writes and resync data received.", |p| {
                p.volumes.first().map_or(0, |v| v.received)
            }),
        ],
    );
}

fn peer_volumes(page: &mut Page<'_>, names: &Names, snapshot: &Snapshot) {
    let of = |p: &PeerStatus, v: &PeerVolumeStatus| {
        vec![("peer", names.peer(p.node).to_owned()), ("volume", v.number.to_string())]
    };
    let pairs = snapshot.status.peers.iter().flat_map(|p| p.volumes.iter().map(move |v| (p, v)));
    let items: Vec<_> = pairs.clone().map(|(p, v)| (of(p, v), v)).collect();
    let disk = ("peer_volume_disk_state", "State of the peer's disk.", "state");
    page.state(&items, disk, &DISKS, |v| word(v.disk));
    let replication = ("peer_volume_replication_state", "What goes on with the peer.", "state");
    page.state(&items, replication, &REPLICATIONS, |v| word(v.replication));
    page.add::<PeerVolumeStatus>(
        &items,
        &[
            ("peer_volume_out_of_sync_bytes", "Bytes that differ, or may differ.", |v| {
                v.out_of_sync
            }),
            ("peer_volume_resync_bytes", "Bytes the last resync began with.", |v| v.resync.total),
            ("peer_volume_resync_copied_bytes", "Bytes the last resync copied.", |v| {
                v.resync.copied
            }),
        ],
    );
    let name = "peer_volume_in_sync_timestamp_seconds";
    page.begin(
        name,
        "When both copies were last good and equal: now, while they are. No sample: not since the daemon started.",
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for (peer, volume) in pairs {
        if let Some(ago) = snapshot.in_sync_ago(peer.node, volume.number) {
            let then = now.saturating_sub(ago).as_secs_f64();
            page.sample(name, &of(peer, volume), format_args!("{then:.3}"));
        }
    }
}

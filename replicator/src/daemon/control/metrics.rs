//! `GET /metrics`: the few numbers an operator graphs and is alerted by, in Prometheus' text format.

use crate::daemon::snapshot::{Snapshot, VolumeCounters};
use crate::node::{
    ConnectionState, DiskState, PeerStatus, PeerVolumeStatus, Role, Status, VolumeNumber,
    VolumeStatus,
};
use bitmap::NodeId;

/// What things are called: the node knows numbers only.
#[derive(Clone, Debug)]
pub struct Names {
    /// The resource.
    pub resource: String,
    /// Its peers, by node-id.
    pub peers: Vec<(NodeId, String)>,
}

impl Names {
    fn peer(&self, node: NodeId) -> &str {
        let peer = self.peers.iter().find(|(id, _)| *id == node);
        peer.map_or("?", |(_, name)| name)
    }
}

/// What a line is about, and the item its value comes from.
type Item<'a, T> = (Vec<(&'static str, String)>, &'a T);

/// A metric: its name, what it is, and its value.
type Metric<T> = (&'static str, &'static str, fn(&T) -> u64);

struct Page<'a> {
    text: String,
    resource: &'a str,
}

impl Page<'_> {
    /// Each metric, with a line for each item.
    fn add<T>(&mut self, items: &[Item<'_, T>], metrics: &[Metric<T>]) {
        for (name, help, value) in metrics {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            self.text += &format!("# HELP pollux_{name} {help}\n# TYPE pollux_{name} {kind}\n");
            for (labels, item) in items {
                self.text += &format!("pollux_{name}{{resource=\"{}\"", self.resource);
                for (label, value) in labels {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                    self.text += &format!(",{label}=\"{value}\"");
                }
                self.text += &format!("}} {}\n", value(item));
            }
        }
    }
}

pub(super) fn text(names: &Names, snapshot: &Snapshot) -> String {
    let Snapshot { status, volumes: counters, .. } = snapshot;
    let mut page = Page { text: String::new(), resource: &names.resource };
    let resource: [Item<'_, Status>; 1] = [(vec![], status)];
    page.add(
        &resource,
        &[
            ("primary", "1 if this node accepts I/O.", |s| (s.role == Role::Primary).into()),
            ("suspended", "1 if I/O is held.", |s| s.suspended.is_some().into()),
            ("clients", "Clients that have the resource open.", |s| s.open as u64),
        ],
    );
    let volume = |number: VolumeNumber| ("volume", number.to_string());
    let counters = counters.iter().map(|c| (vec![volume(c.number)], c));
    page.add::<VolumeCounters>(
        &counters.collect::<Vec<_>>(),
        &[
            ("read_bytes_total", "Bytes clients read.", |c| c.read),
            ("written_bytes_total", "Bytes clients wrote or zeroed.", |c| c.written),
            ("reads_total", "Reads of clients that ended.", |c| c.reads),
            ("writes_total", "Writes of clients that ended.", |c| c.writes),
            ("flushes_total", "Flushes of clients that ended.", |c| c.flushes),
            ("failed_total", "Requests of clients that failed.", |c| c.failed),
        ],
    );
    let volumes = status.volumes.iter().map(|v| (vec![volume(v.number)], v));
    page.add::<VolumeStatus>(
        &volumes.collect::<Vec<_>>(),
        &[
            ("disk_up_to_date", "1 if this node's copy is good.", |v| {
                (v.disk == DiskState::UpToDate).into()
            }),
            ("log_writes_total", "Activity log transactions.", |v| v.al_writes),
            ("active_extents", "Extents in the activity log.", |v| v.active_extents.into()),
        ],
    );
    let peer = |node| ("peer", names.peer(node).to_owned());
    let peers = status.peers.iter().map(|p| (vec![peer(p.node)], p));
    page.add::<PeerStatus>(
        &peers.collect::<Vec<_>>(),
        &[("connected", "1 if connected to the peer.", |p| {
            (p.connection == ConnectionState::Connected).into()
        })],
    );
    let of = |p: &PeerStatus, v: &PeerVolumeStatus| vec![peer(p.node), volume(v.number)];
    let pairs = status.peers.iter().flat_map(|p| p.volumes.iter().map(move |v| (p, v)));
    page.add::<PeerVolumeStatus>(
        &pairs.map(|(p, v)| (of(p, v), v)).collect::<Vec<_>>(),
        &[
            ("out_of_sync_bytes", "Bytes known to differ, or not to be known.", |v| v.out_of_sync),
            ("resync_total_bytes", "Bytes the last resync began with.", |v| v.resync.total),
            ("resync_copied_bytes", "Bytes the last resync copied.", |v| v.resync.copied),
        ],
    );
    page.text
}

//! `GET /metrics`: the few numbers an operator graphs and is alerted by, in Prometheus' text format.

use crate::daemon::snapshot::{Snapshot, VolumeCounters};
use crate::node::{ConnectionState, DiskState, PeerVolumeStatus, Role, VolumeNumber, VolumeStatus};
use bitmap::NodeId;
use std::fmt::{Display, Write};

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

struct Page<'a> {
    text: String,
    resource: &'a str,
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.add(format_args!("# HELP pollux_{name} {help}\n# TYPE pollux_{name} {kind}\n"));
    }

    fn value(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let resource = self.resource;
        self.add(format_args!("pollux_{name}{{resource=\"{resource}\""));
        for (label, value) in labels {
            let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            self.add(format_args!(",{label}=\"{value}\""));
        }
        self.add(format_args!("}} {value}\n"));
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes all that is written");
    }
}

/// One series of a volume: name, kind, help, and its value.
type Series<'a, T> = (&'a str, &'a str, &'a str, &'a dyn Fn(&T) -> u64);

pub(super) fn text(names: &Names, snapshot: &Snapshot) -> String {
    let status = &snapshot.status;
    let mut page = Page { text: String::new(), resource: &names.resource };
    page.head("primary", "gauge", "1 if this node accepts I/O.");
    page.value("primary", &[], u8::from(status.role == Role::Primary));
    page.head("suspended", "gauge", "1 if I/O is held.");
    page.value("suspended", &[], u8::from(status.suspended.is_some()));
    page.head("clients", "gauge", "Clients that have the resource open.");
    page.value("clients", &[], status.open);
    page.head("disk_up_to_date", "gauge", "1 if this node's copy is good.");
    for volume in &status.volumes {
        let good = u8::from(volume.disk == DiskState::UpToDate);
        page.value("disk_up_to_date", &[("volume", &volume.number)], good);
    }
    let counters: [Series<'_, VolumeCounters>; 6] = [
        ("read_bytes_total", "counter", "Bytes clients read.", &|c| c.read),
        ("written_bytes_total", "counter", "Bytes clients wrote or zeroed.", &|c| c.written),
        ("reads_total", "counter", "Reads of clients that ended.", &|c| c.reads),
        ("writes_total", "counter", "Writes of clients that ended.", &|c| c.writes),
        ("flushes_total", "counter", "Flushes of clients that ended.", &|c| c.flushes),
        ("failed_total", "counter", "Requests of clients that failed.", &|c| c.failed),
    ];
    all(&mut page, &snapshot.volumes, |c| c.number, &counters);
    let log: [Series<'_, VolumeStatus>; 2] = [
        ("log_writes_total", "counter", "Activity log transactions.", &|v| v.al_writes),
        ("active_extents", "gauge", "Extents in the activity log.", &|v| v.active_extents.into()),
    ];
    all(&mut page, &status.volumes, |v| v.number, &log);
    peers(&mut page, names, snapshot);
    page.text
}

fn all<T>(
    page: &mut Page<'_>,
    items: &[T],
    of: impl Fn(&T) -> VolumeNumber,
    series: &[Series<'_, T>],
) {
    for (name, kind, help, value) in series {
        page.head(name, kind, help);
        for item in items {
            page.value(name, &[("volume", &of(item))], value(item));
        }
    }
}

fn peers(page: &mut Page<'_>, names: &Names, snapshot: &Snapshot) {
    let peers = &snapshot.status.peers;
    page.head("connected", "gauge", "1 if connected to the peer.");
    for peer in peers {
        let connected = u8::from(peer.connection == ConnectionState::Connected);
        page.value("connected", &[("peer", &names.peer(peer.node))], connected);
    }
    let series: [Series<'_, PeerVolumeStatus>; 3] = [
        ("out_of_sync_bytes", "gauge", "Bytes known to differ, or not to be known.", &|v| {
            v.out_of_sync
        }),
        ("resync_total_bytes", "gauge", "Bytes the last resync began with.", &|v| v.resync.total),
        ("resync_copied_bytes", "gauge", "Bytes the last resync copied.", &|v| v.resync.copied),
    ];
    for (name, kind, help, value) in series {
        page.head(name, kind, help);
        for peer in peers {
            let peer_name = names.peer(peer.node);
            for volume in &peer.volumes {
                let labels: [(&str, &dyn Display); 2] =
                    [("peer", &peer_name), ("volume", &volume.number)];
                page.value(name, &labels, value(volume));
            }
        }
    }
}

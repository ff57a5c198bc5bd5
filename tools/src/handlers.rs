//! The operator's programs as the configuration names them, and what they find in their environment: DRBD's variables, so that
//! handlers written for DRBD run here. When they run, and what their exit codes mean, is the node's business.

use crate::config::{Resource, Volume};
use replicator::daemon::{Programs, Variables};
use replicator::node::{Handler, Occasion};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The programs of a resource, which is defined in the file `config`.
pub(crate) fn programs(resource: &Resource, config: &Path, run_dir: &Path) -> Programs {
    let tells_of_disks = |v: &Volume| v.options.text("on-io-error") == Some("call-local-io-error");
    let wanted = |occasion: &Occasion| {
        *occasion != Occasion::LocalIoError || resource.me.volumes.iter().any(tells_of_disks)
    };
    let lines = Occasion::ALL.into_iter().filter(wanted).filter_map(|occasion| {
        Some((occasion, resource.handlers.text(occasion.name())?.to_owned()))
    });
    let (mine, config, run_dir) = (resource.clone(), config.to_owned(), run_dir.to_owned());
    Programs {
        lines: lines.collect(),
        patience: Duration::from_secs(resource.me.options.number("handler-timeout")),
        environment: Arc::new(move |handler| environment(&mine, &config, &run_dir, handler)),
    }
}

fn environment(resource: &Resource, config: &Path, run_dir: &Path, handler: &Handler) -> Variables {
    let mut all = Vec::new();
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    let me = &resource.me;
    // `polluxadm` in a handler speaks of this node.
    set("POLLUX_CONFIG", config.display().to_string());
    set("POLLUX_NODE", me.name.clone());
    set("POLLUX_RUN_DIR", run_dir.display().to_string());
    set("DRBD_CONF", config.display().to_string());
    set("DRBD_RESOURCE", resource.name.clone());
    set("DRBD_MY_NODE_ID", me.node_id.to_string());
    set("UP_TO_DATE_NODES", format!("0x{:08X}", handler.up_to_date));
    for host in resource.peers.iter().chain([me]) {
        set(&format!("DRBD_NODE_ID_{}", host.node_id), host.name.clone());
    }
    let peer = resource
        .peers
        .iter()
        .find(|peer| handler.peer.map_or(resource.peers.len() == 1, |node| node.0 == peer.node_id));
    if let Some(peer) = peer {
        address(&mut set, "MY", me.address);
        address(&mut set, "PEER", peer.address);
        set("DRBD_PEER", peer.name.clone());
        set("DRBD_PEER_NODE_ID", peer.node_id.to_string());
        set("DRBD_CSTATE", format!("{:?}", handler.connection));
    }
    let about = |volume: &&Volume| handler.volume.is_none_or(|number| number == volume.number);
    let volumes: Vec<&Volume> = me.volumes.iter().filter(about).collect();
    lists(&mut set, &volumes);
    for volume in volumes {
        set(&format!("DRBD_MINOR_{}", volume.number), volume.minor.to_string());
        set(&format!("DRBD_BACKING_DEV_{}", volume.number), disk(volume));
    }
    all
}

/// One value for each volume, parted by blanks.
fn lists(set: &mut impl FnMut(&str, String), volumes: &[&Volume]) {
    let list = |value: fn(&Volume) -> String| {
        volumes.iter().map(|volume| value(volume)).collect::<Vec<_>>().join(" ")
    };
    set("DRBD_VOLUME", list(|volume| volume.number.to_string()));
    set("DRBD_MINOR", list(|volume| volume.minor.to_string()));
    set("DRBD_BACKING_DEV", list(disk));
    set("DRBD_LL_DISK", list(disk));
}

fn disk(volume: &Volume) -> String {
    volume.disk.as_ref().map_or_else(|| "none".to_owned(), |disk| disk.display().to_string())
}

fn address(set: &mut impl FnMut(&str, String), whose: &str, address: SocketAddr) {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    set(&format!("DRBD_{whose}_AF"), family.to_owned());
    set(&format!("DRBD_{whose}_ADDRESS"), address.ip().to_string());
}

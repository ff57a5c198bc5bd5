//! From a resource of the configuration to what the replicator runs, and the names of its files.
//! The only place that knows which option becomes which value of the node.

use crate::config::{Listen, MetaDisk, OnNoData, Protocol, Resource};
use bitmap::{NodeId, Placement};
use replicator::config::{Config, Limits, Timing, VolumeConfig};
use replicator::daemon::{Setup, VolumeFiles};
use replicator::disk;
use replicator::link::{LinkConfig, LinkLimits, LinkTiming, PeerAddress, Secret};
use replicator::node;
use replicator::wire::Integrity;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a resource's sockets are: the run directory of this node.
#[derive(Clone, Debug)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    /// The control socket.
    pub fn control(&self, resource: &str) -> PathBuf {
        self.file(resource, "sock")
    }

    /// The NBD socket.
    pub fn nbd(&self, resource: &str) -> PathBuf {
        self.file(resource, "nbd")
    }

    /// What the daemon says, if `polluxadm up` started it.
    pub fn log(&self, resource: &str) -> PathBuf {
        self.file(resource, "log")
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, resource: &str, kind: &str) -> PathBuf {
        self.0.join(format!("{resource}.{kind}"))
    }

    /// A place to listen for NBD clients.
    pub fn address(&self, resource: &str, listen: &Listen) -> nbd_server::Address {
        match listen {
            Listen::Unix => nbd_server::Address::Unix(self.nbd(resource)),
            Listen::Tcp(address) => nbd_server::Address::Tcp(*address),
        }
    }
}

/// All that the daemon of this resource needs.
pub fn setup(resource: &Resource) -> Setup {
    let me = &resource.me;
    let volumes = me.volumes.iter().map(|volume| VolumeConfig {
        number: volume.number,
        placement: placement(&volume.meta_disk),
    });
    let net = &resource.net;
    let timing = timing(resource);
    let config = Config {
        node: NodeId(me.node_id),
        volumes: volumes.collect(),
        peers: resource.peers.iter().map(|peer| NodeId(peer.node_id)).collect(),
        protocol: match net.protocol {
            Protocol::A => node::Protocol::A,
            Protocol::B => node::Protocol::B,
            Protocol::C => node::Protocol::C,
        },
        // One volume that waits makes the FLUSH of the resource wait.
        flush_peer: me.volumes.iter().any(|volume| volume.options.flush_peer),
        suspend_no_data: me.options.on_no_data_accessible == OnNoData::SuspendIo,
        auto_promote: me.options.auto_promote,
        timing,
        limits: limits(resource),
    };
    let files = me.volumes.iter().map(|volume| VolumeFiles {
        volume: volume.number,
        disk: volume.disk.clone(),
        options: disk_options(&volume.meta_disk, false),
    });
    let detection = Duration::from_millis(timing.ping_interval + timing.ping_timeout);
    let user = LinkTiming::default().user.max(detection);
    let links = LinkConfig {
        me: NodeId(me.node_id),
        incarnation: 0,
        resource: resource.name.clone(),
        listen: me.address,
        peers: resource
            .peers
            .iter()
            .map(|peer| PeerAddress { node: NodeId(peer.node_id), address: peer.address })
            .collect(),
        secret: net.shared_secret.as_ref().map(|secret| Secret::new(secret.0.as_bytes())),
        integrity: if net.data_integrity { Integrity::Crc32 } else { Integrity::None },
        limits: LinkLimits::default(),
        timing: LinkTiming { user, ..LinkTiming::default() },
    };
    Setup { config, files: files.collect(), links }
}

fn timing(resource: &Resource) -> Timing {
    let net = &resource.net;
    let usual = Timing::default();
    let ms = |duration: Duration| duration.as_millis() as u64;
    Timing {
        ping_interval: ms(net.ping_int),
        ping_timeout: ms(net.ping_timeout),
        // The longest pause an operator allows; we pause less where that costs nothing.
        reconnect_max: usual.reconnect_max.min(ms(net.connect_int)),
        handshake: ms(net.timeout),
        ..usual
    }
}

fn limits(resource: &Resource) -> Limits {
    let usual = Limits::default();
    Limits { peer_bytes: usual.peer_bytes.max(u64::from(resource.net.max_buffers) << 12), ..usual }
}

/// Where the metadata lies, in the words of the format.
pub fn placement(meta_disk: &MetaDisk) -> Placement {
    match meta_disk {
        MetaDisk::Internal => Placement::Internal,
        MetaDisk::External(_) => Placement::External,
    }
}

/// How a disk is opened; `create_meta` makes the file of external metadata if there is none.
pub fn disk_options(meta_disk: &MetaDisk, create_meta: bool) -> disk::Options {
    let meta = match meta_disk {
        MetaDisk::Internal => None,
        MetaDisk::External(path) => Some(path.clone()),
    };
    disk::Options { meta, create_meta, ..disk::Options::default() }
}

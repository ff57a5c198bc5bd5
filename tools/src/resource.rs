//! From a resource of the configuration to what the replicator runs.
//! The only place that knows which option becomes which value of the node.

use crate::config::{Resource, Volume};
use crate::handlers;
use bitmap::{NodeId, Placement};
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::daemon::{Setup, VolumeFiles};
use replicator::disk::{self, Direct};
use replicator::link::{LinkConfig, LinkTiming, PeerAddress, SEND_BYTES, Secret};
use replicator::node::Protocol;
use replicator::wire::Integrity;
use std::path::Path;
use std::time::Duration;

/// All that the daemon of this resource needs; `config` is the file it came from.
pub(crate) fn setup(resource: &Resource, config_file: &Path, run_dir: &Path) -> Setup {
    let me = &resource.me;
    let volumes = me.volumes.iter().map(|volume| VolumeConfig {
        number: volume.number,
        placement: placement(volume),
        size: volume.options.number("size"),
    });
    let net = &resource.net;
    let seconds = |name| 1000 * net.number(name);
    let tenths = |name| 100 * net.number(name);
    let timing = Timing {
        ping_interval: seconds("ping-int"),
        ping_timeout: tenths("ping-timeout"),
        reconnect_max: seconds("connect-int"),
        handshake: tenths("timeout"),
        ..Timing::default()
    };
    let limits = Limits { peer_bytes: net.number("max-buffers") << 12, ..Limits::default() };
    // A link breaks when its queue is full; what the node lets on its way must always fit.
    let send_bytes = SEND_BYTES.max(2 * limits.peer_bytes as usize);
    let config = Config {
        node: NodeId(me.node_id),
        volumes: volumes.collect(),
        peers: resource.peers.iter().map(|peer| NodeId(peer.node_id)).collect(),
        protocol: match net.text("protocol") {
            Some("A") => Protocol::A,
            Some("B") => Protocol::B,
            _ => Protocol::C,
        },
        // One volume that waits makes the FLUSH of the resource wait.
        flush_peer: me.volumes.iter().any(|volume| volume.options.flag("flush-peer")),
        suspend_no_data: me.options.text("on-no-data-accessible") == Some("suspend-io"),
        fencing: match net.text("fencing") {
            Some("resource-only") => Fencing::ResourceOnly,
            Some("resource-and-stonith") => Fencing::ResourceAndStonith,
            _ => Fencing::DontCare,
        },
        auto_promote: me.options.flag("auto-promote"),
        timing,
        limits,
    };
    let files = me.volumes.iter().map(|volume| VolumeFiles {
        volume: volume.number,
        disk: volume.disk.clone(),
        options: disk_options(volume, false),
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
        secret: net.text("shared-secret").map(|secret| Secret::new(secret.as_bytes())),
        integrity: match net.text("data-integrity-alg") {
            Some(_) => Integrity::Crc32,
            None => Integrity::None,
        },
        send_bytes,
        timing: LinkTiming { user, ..LinkTiming::default() },
    };
    let programs = handlers::programs(resource, config_file, run_dir);
    Setup { config, files: files.collect(), links, programs }
}

/// Where the metadata lies, in the words of the format.
pub(crate) fn placement(volume: &Volume) -> Placement {
    if volume.meta_disk.is_some() { Placement::External } else { Placement::Internal }
}

/// How its disk is opened; `create_meta` makes the file of external metadata if there is none.
pub(crate) fn disk_options(volume: &Volume, create_meta: bool) -> disk::Options {
    let direct = match volume.options.text("direct-io") {
        Some("yes") => Direct::Yes,
        Some("no") => Direct::No,
        _ => Direct::Auto,
    };
    let meta = volume.meta_disk.clone();
    disk::Options { direct, meta, create_meta, ..disk::Options::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Configuration;

    /// What the daemon is given, with something in the resource and its volume.
    fn with(inner: &str) -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("F");
        let text = format!(
            "resource r {{ {inner} volume 0 {{ device minor 0; disk /a; meta-disk /b; }}
             on a {{ node-id 0; address 10.0.0.1:70; }} on b {{ node-id 1; address 10.0.0.2:70; }} }}"
        );
        std::fs::write(&file, text).unwrap();
        let (configuration, warnings) = Configuration::load(&file, "a").unwrap();
        assert!(warnings.iter().all(|w| w.contains("in part")), "{warnings:?}");
        setup(&configuration.resources[0], &file, directory.path())
    }

    #[test]
    fn options_arrive_where_they_act() {
        let timing = with("net { ping-int 3; ping-timeout 7; connect-int 120; timeout 15; }");
        let Timing { ping_interval, ping_timeout, reconnect_max, handshake, .. } =
            timing.config.timing;
        assert_eq!((ping_interval, ping_timeout), (3000, 700));
        assert_eq!((reconnect_max, handshake), (120_000, 1500));
        // Down as well as up, and what may be on its way fits into the queue of the link.
        for (pages, queue) in [(32, 256 << 20), (131_072, 1 << 30)] {
            let setup = with(&format!("net {{ max-buffers {pages}; }}"));
            assert_eq!(setup.config.limits.peer_bytes, pages * 4096);
            assert_eq!(setup.links.send_bytes, queue);
        }
        let usual = with("");
        assert_eq!(usual.config.limits.peer_bytes, Limits::default().peer_bytes);
        assert_eq!(usual.config.timing.reconnect_max, Timing::default().reconnect_max);
        assert!(usual.links.secret.is_none() && usual.links.integrity == Integrity::None);
        let secret =
            with("net { cram-hmac-alg sha256; shared-secret x; data-integrity-alg crc32; }");
        assert!(secret.links.secret.is_some() && secret.links.integrity == Integrity::Crc32);
        assert_eq!(with("protocol A;").config.protocol, Protocol::A);
        let options = with("options { auto-promote no; on-no-data-accessible suspend-io; }").config;
        assert!(options.suspend_no_data && !options.auto_promote);
        assert!(usual.config.flush_peer && !with("disk { flush-peer no; }").config.flush_peer);
        let direct = |inner: &str| with(inner).files[0].options.direct;
        assert_eq!(direct(""), Direct::Auto);
        assert_eq!(direct("disk { direct-io yes; }"), Direct::Yes);
        assert_eq!(direct("disk { direct-io no; }"), Direct::No);
    }
}

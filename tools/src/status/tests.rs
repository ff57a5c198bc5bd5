//! The shapes people and scripts know from `drbdadm status`, each as a whole text.

use super::generations::FIELDS;
use super::json::{NEVER, progress};
use super::*;
use crate::config::Configuration;
use replicator::daemon::{InSync, Snapshot, VolumeCounters};
use replicator::node;
use serde_json::{Value, json};
use std::time::Duration;

/// Two volumes, of which volume 0 is mirrored; all numbers differ.
fn snapshot() -> Snapshot {
    let mirrored = node::PeerVolumeStatus {
        number: 0,
        replication: node::ReplicationState::Established,
        disk: node::DiskState::UpToDate,
        bitmap: bitmap::Generation(0),
        out_of_sync: 0,
        resync: node::Resync { copied: 400 << 10, ..node::Resync::default() },
        sent: 34 << 10,
        received: 7 << 10,
        pending: 1,
        unacked: 0,
    };
    let bergen = node::PeerStatus {
        node: bitmap::NodeId(1),
        connection: node::ConnectionState::Connected,
        role: node::Role::Secondary,
        reason: String::new(),
        in_flight: 0,
        congested: false,
        resync_in_flight: 0,
        volumes: vec![mirrored],
    };
    let volume = node::VolumeStatus {
        number: 0,
        disk: node::DiskState::UpToDate,
        size: 1 << 30,
        current: bitmap::Generation(0),
        history: vec![],
        al_extents: 1237,
        active_extents: 0,
        al_writes: 5,
        bm_writes: 6,
        crashed_primary: false,
        followed: true,
    };
    let counters = VolumeCounters {
        engine: Some("io_uring"),
        read: 12 << 10,
        written: 34 << 10,
        upper_pending: 1,
        lower_pending: 2,
        ..VolumeCounters::default()
    };
    let status = node::Status {
        node: bitmap::NodeId(0),
        role: node::Role::Primary,
        suspended: None,
        open: 1,
        requests: 0,
        operations: 0,
        volumes: vec![volume],
        peers: vec![bergen],
    };
    let in_sync = InSync { peer: bitmap::NodeId(1), volume: 0, ago: Some(Duration::from_secs(9)) };
    let (volumes, linked) = (vec![counters], vec![bitmap::NodeId(1)]);
    Snapshot { status, volumes, linked, in_sync: vec![in_sync] }
}

/// The status of `ledger` on oslo.
fn told(snapshot: &Snapshot) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("F");
    let text = "resource ledger { device minor 20; disk /dev/vg/ledger; meta-disk internal;
        on oslo { node-id 0; address 10.7.0.1:7020; }
        on bergen { node-id 1; address 10.7.0.2:7020; } }";
    std::fs::write(&file, text).unwrap();
    let (configuration, _) = Configuration::load(&file, "oslo").unwrap();
    json(&configuration.resources[0], snapshot, &AttachErrors::new())
}

/// One volume, one peer that mirrors it.
fn healthy() -> Value {
    told(&snapshot())
}

/// The first of the peers, and its volume.
fn peer(status: &mut Value) -> &mut Value {
    &mut status["connections"][0]
}

fn peer_device(status: &mut Value) -> &mut Value {
    &mut peer(status)["peer_devices"][0]
}

/// One more of the same kind.
fn add(list: &mut Value, key: &str, value: Value) {
    let mut more = list[0].clone();
    more[key] = value;
    list.as_array_mut().unwrap().push(more);
}

/// The peer is not connected.
fn away(connection_state: &str) -> Value {
    let mut status = healthy();
    peer(&mut status)["connection-state"] = connection_state.into();
    peer(&mut status)["peer-role"] = "Unknown".into();
    peer_device(&mut status)["replication-state"] = "Off".into();
    peer_device(&mut status)["peer-disk-state"] = "DUnknown".into();
    status
}

fn syncing(replication_state: &str, disk: &str, [total, left, milliseconds]: [u64; 3]) -> Value {
    let mut status = healthy();
    let peer = peer_device(&mut status);
    peer["replication-state"] = replication_state.into();
    peer["peer-disk-state"] = disk.into();
    progress(total, left, milliseconds).into_iter().for_each(|(key, value)| peer[key] = value);
    status
}

fn shown(status: &Value, layout: Layout) -> String {
    print(std::slice::from_ref(status), layout)
}

#[track_caller]
fn assert_shows(status: &Value, text: &str) {
    assert_eq!(shown(status, Layout::default()), text);
}

#[test]
fn healthy_with_a_mirror_and_a_client() {
    let mut status = healthy();
    // Sorted by name, however they come.
    add(&mut status["connections"], "name", "bergen".into());
    peer(&mut status)["name"] = "tromso".into();
    peer_device(&mut status)["peer-disk-state"] = "Diskless".into();
    peer_device(&mut status)["peer-client"] = true.into();
    let text = |client| {
        format!(
            "ledger role:Primary
  disk:UpToDate open:yes
  bergen role:Secondary
    peer-disk:UpToDate
  tromso role:Secondary
    peer-disk:Diskless{client}

"
        )
    };
    assert_shows(&status, &text(" peer-client:yes"));
    let terminal = Layout { width: Some(80), ..Layout::default() };
    assert_eq!(shown(&status, terminal), text(""));
}

#[test]
fn peer_away() {
    assert_shows(
        &away("Connecting"),
        "ledger role:Primary
  disk:UpToDate open:yes
  bergen connection:Connecting

",
    );
}

#[test]
fn resync_as_source_and_as_target() {
    // Just begun: neither rate nor time is known.
    assert_shows(
        &syncing("SyncSource", "Inconsistent", [800, 500, 0]),
        "ledger role:Primary
  disk:UpToDate open:yes
  bergen role:Secondary
    replication:SyncSource peer-disk:Inconsistent done:37.50

",
    );
    let mut target = syncing("PausedSyncT", "UpToDate", [100, 88, 0]);
    target["role"] = "Secondary".into();
    target["devices"][0]["disk-state"] = "Inconsistent".into();
    target["devices"][0]["open"] = false.into();
    peer(&mut target)["name"] = "oslo".into();
    peer(&mut target)["peer-role"] = "Primary".into();
    peer_device(&mut target)["resync-suspended"] = "user".into();
    assert_shows(
        &target,
        "ledger role:Secondary
  disk:Inconsistent open:no
  oslo role:Primary
    replication:PausedSyncT peer-disk:UpToDate done:12.00 resync-suspended:user

",
    );
}

#[test]
fn a_long_resync_shows_progress_rate_and_time_left() {
    // 1 TiB, a fifth done at 96 MiB/s.
    let total = 1 << 31;
    let mut long = syncing("SyncSource", "Inconsistent", [total, total / 5 * 4, 2_184_533]);
    assert_eq!(peer_device(&mut long)["estimated-seconds-to-finish"], 8739);
    assert_shows(
        &long,
        "ledger role:Primary
  disk:UpToDate open:yes
  bergen role:Secondary
    replication:SyncSource peer-disk:Inconsistent done:20.00 rate:96.0MiB/s left:2:25:39

",
    );
    // Never 100 before the end; nothing is foretold while nothing moves.
    let nearly = syncing("SyncTarget", "UpToDate", [1_000_000, 1, 1000]);
    let text = shown(&nearly, Layout::default());
    assert!(text.contains(" done:99.99 rate:488.3MiB/s left:0:00:01\n"), "{text}");
    let mut stuck = syncing("SyncTarget", "UpToDate", [1000, 1000, 5000]);
    assert_eq!(peer_device(&mut stuck)["estimated-seconds-to-finish"], NEVER);
    let text = shown(&stuck, Layout::default());
    assert!(text.contains(" done:0.00\n"), "{text}");
}

#[test]
fn two_volumes() {
    let mut archive = healthy();
    archive["name"] = "archive".into();
    archive["role"] = "Secondary".into();
    archive["devices"][0]["open"] = false.into();
    add(&mut archive["devices"], "volume", 3.into());
    archive["devices"][1]["disk-state"] = "Diskless".into();
    peer(&mut archive)["peer-role"] = "Primary".into();
    add(&mut peer(&mut archive)["peer_devices"], "volume", 3.into());
    assert_shows(
        &archive,
        "archive role:Secondary
  volume:0 disk:UpToDate open:no
  volume:3 disk:Diskless client:no open:no
  bergen role:Primary
    volume:0 peer-disk:UpToDate
    volume:3 peer-disk:UpToDate

",
    );
    assert_eq!(dstate(&archive, None), "UpToDate/UpToDate\nDiskless/UpToDate\n");
    assert_eq!(dstate(&archive, Some(3)), "Diskless/UpToDate\n");
    assert_eq!(dstate(&archive, Some(1)), "");
}

#[test]
fn suspended() {
    let mut held = snapshot();
    held.status.suspended = Some("no good copy can be reached");
    held.status.peers[0].connection = node::ConnectionState::Connecting;
    let mut status = told(&held);
    status["devices"][0]["quorum"] = false.into();
    add(&mut status["connections"], "name", "tromso".into());
    let text = "ledger role:Primary suspended:no-data
  # I/O is held: no good copy can be reached
  disk:UpToDate quorum:no open:yes blocked:upper
  bergen connection:Connecting
  tromso connection:Connecting

";
    assert_shows(&status, text);
}

#[test]
fn forced_secondary_and_split_brain() {
    let mut status = away("StandAlone");
    status["role"] = "Secondary".into();
    status["force-io-failures"] = true.into();
    status["devices"][0]["open"] = false.into();
    let text = "ledger role:Secondary force-io-failures:yes
  disk:UpToDate open:no
  bergen connection:StandAlone
";
    assert_shows(&status, &format!("{text}\n"));

    peer(&mut status)["reason"] = "split brain: both nodes were\nwritten while apart".into();
    status["devices"][0]["reason"] = "the last flush failed".into();
    assert_shows(
        &status,
        "ledger role:Secondary force-io-failures:yes
  disk:UpToDate open:no
    # the last flush failed
  bergen connection:StandAlone
    # split brain: both nodes were written while apart

",
    );
    assert_eq!(cstate(&status), "StandAlone\n");
    assert_eq!(dstate(&status, None), "UpToDate/DUnknown\n");
}

#[test]
fn congested_encrypted_and_empty() {
    let mut status = healthy();
    let bergen = peer(&mut status);
    (bergen["tls"], bergen["congested"]) = (true.into(), true.into());
    bergen["ap-in-flight"] = 64.into();
    let text = shown(&status, Layout::default());
    let line = "  bergen role:Secondary tls:yes congested:yes ap-in-flight:64 rs-in-flight:0\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(print(&[], Layout::default()), "# No resource is up here. Next: polluxadm up all\n");
    let two = print(&[healthy(), healthy()], Layout::default());
    assert_eq!(two, shown(&healthy(), Layout::default()).repeat(2));
}

#[test]
fn verbose_statistics_and_a_narrow_terminal() {
    let status = healthy();
    let layout = Layout { verbose: true, ..Layout::default() };
    assert_eq!(
        shown(&status, layout),
        "ledger node-id:0 role:Primary suspended:no force-io-failures:no
  volume:0 minor:20 disk:UpToDate client:no backing_dev:/dev/vg/ledger engine:io_uring quorum:yes open:yes blocked:no
  bergen node-id:1 connection:Connected role:Secondary tls:no congested:no ap-in-flight:0 rs-in-flight:0
    volume:0 replication:Established peer-disk:UpToDate peer-client:no resync-suspended:no

"
    );
    let status = syncing("Established", "UpToDate", [4096, 2048, 1000]);
    let layout = Layout { statistics: true, width: Some(60), ..Layout::default() };
    assert_eq!(
        shown(&status, layout),
        "ledger role:Primary write-ordering:flush
  disk:UpToDate open:yes blocked:no
      size:1048576 read:12 written:34 al-writes:5
          bm-writes:6 upper-pending:1 lower-pending:2
          al-suspended:no
  bergen role:Secondary congested:no ap-in-flight:0
      rs-in-flight:0
    peer-disk:UpToDate done:50.00 rate:1.0MiB/s left:0:00:01
        received:7 sent:34 out-of-sync:0 resync-copied:400
            pending:1 unacked:0 dbdt1:1.00 eta:1

"
    );
    let text = shown(&away("Connecting"), Layout { verbose: true, ..Layout::default() });
    assert!(text.contains("bergen node-id:1 connection:Connecting role:Unknown"), "{text}");
    assert!(text.contains("replication:Off peer-disk:DUnknown"), "{text}");
}

/// The keys of DRBD in DRBD's order, with DRBD's odd spellings, then ours.
#[test]
fn json_has_the_keys_of_drbdsetup() {
    let mut syncing = snapshot();
    let bergen = &mut syncing.status.peers[0];
    bergen.reason = "wait".to_owned();
    bergen.volumes[0].replication = node::ReplicationState::SyncSource;
    bergen.volumes[0].out_of_sync = 1 << 20;
    bergen.volumes[0].resync =
        node::Resync { total: 2 << 20, copied: 1 << 20, equal: 0, milliseconds: 1000 };
    let text = format!("{:#}", json!([told(&syncing), healthy()]));
    let first = text.split("\n  {").nth(1).unwrap();
    let keys: Vec<_> = first
        .lines()
        .filter_map(|line| {
            line.trim_start().strip_prefix('"')?.split_once("\":").map(|(key, _)| key)
        })
        .collect();
    let expected = "name,node-id,role,suspended,suspended-user,suspended-no-data,suspended-fencing,\
        suspended-quorum,suspended-lease,force-io-failures,write-ordering,\
        devices,volume,minor,disk-state,client,open,quorum,size,read,written,al-writes,bm-writes,\
        upper-pending,lower-pending,al-suspended,blocked,backing-dev,engine,followed,reason,\
        connections,peer-node-id,name,connection-state,congested,peer-role,tls,ap-in-flight,rs-in-flight,\
        paths,this_host,address,port,family,remote_host,address,port,family,established,\
        peer_devices,volume,replication-state,peer-disk-state,peer-client,resync-suspended,received,sent,\
        out-of-sync,pending,unacked,has-sync-details,has-online-verify-details,percent-in-sync,\
        resync-copied,seconds-since-in-sync,rs-total,rs-dt-start-ms,rs-paused-ms,rs-dt1-ms,\
        rs-db1-sectors,rs-same-csum,db1/dt1 [MiB/s],\
        estimated-seconds-to-finish,db/dt [MiB/s],percent-resync-done,reason,reason";
    assert_eq!(keys.join(","), expected);
    assert!(text.contains("\"disk-state\": \"UpToDate\""), "{text}");
    assert!(text.contains("\"replication-state\": \"SyncSource\""), "{text}");
    assert!(text.contains("\"percent-resync-done\": 50.0"), "{text}");
}

#[test]
fn the_small_commands_print_a_line() {
    let status = healthy();
    assert_eq!(role(&status, None).unwrap(), "Primary");
    assert_eq!(role(&status, Some("bergen")).unwrap(), "Secondary");
    assert_eq!(role(&status, Some("narvik")), None);
    assert_eq!(cstate(&status), "Connected\n");
    assert_eq!(dstate(&status, None), "UpToDate/UpToDate\n");
    let line = "C5E6001122334455:0000000000000000:0000000000000004:FFFFFFFFFFFFFFFF:1:1:0:0:0:0:0:0:0:0:0:1\n";
    let ids = [0xC5E6_0011_2233_4455, 0, 4, u64::MAX];
    assert_eq!(gi_line(ids, std::array::from_fn(|n| n < 2 || n == 11)), line);
    let (ids_columns, flags) = (format!("{0}{0}{0}", format!("|{}", " ".repeat(16))), "| ");
    let mut legend = line.to_owned();
    for n in (0..12).rev() {
        legend +=
            &format!("{ids_columns}|{}{}+- {}\n", " ".repeat(16), flags.repeat(n), FIELDS[n + 4]);
    }
    legend += &format!("{ids_columns}+- older history\n");
    legend += &format!("{}+- history\n", &ids_columns[..34]);
    legend += &format!("{}+- bitmap\n+- current\n", &ids_columns[..17]);
    assert_eq!(show_gi(line), legend);
}

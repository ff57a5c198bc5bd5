//! The shapes people and scripts know from `drbdadm status`, each as a whole text.

use super::lines::GI_FLAGS;
use super::*;

fn device(volume: u16, disk_state: &str, open: bool) -> Device {
    Device {
        volume,
        minor: 20 + u32::from(volume),
        disk_state: disk_state.to_owned(),
        open,
        quorum: true,
        size: 1_048_576,
        read: 12,
        written: 34,
        al_writes: 5,
        bm_writes: 6,
        upper_pending: 1,
        lower_pending: 2,
        blocked: "no".to_owned(),
        backing_dev: Some("/dev/vg/ledger".to_owned()),
        engine: Some("io_uring".to_owned()),
        ..Device::default()
    }
}

fn peer_device(volume: u16, replication_state: &str, disk: &str) -> PeerDevice {
    PeerDevice {
        volume,
        replication_state: replication_state.to_owned(),
        peer_disk_state: disk.to_owned(),
        resync_suspended: "no".to_owned(),
        received: 7,
        sent: 34,
        pending: 1,
        percent_in_sync: 100.0,
        resync_copied: 400,
        ..PeerDevice::default()
    }
}

fn connection(name: &str, peer_role: &str, peer_devices: Vec<PeerDevice>) -> Connection {
    let endpoint = |last: u8| Endpoint {
        address: format!("10.7.0.{last}"),
        port: 7020,
        family: "ipv4".to_owned(),
    };
    Connection {
        peer_node_id: 1,
        name: name.to_owned(),
        connection_state: "Connected".to_owned(),
        peer_role: peer_role.to_owned(),
        paths: vec![Path { this_host: endpoint(1), remote_host: endpoint(2), established: true }],
        peer_devices,
        ..Connection::default()
    }
}

fn away(name: &str, connection_state: &str) -> Connection {
    let gone = peer_device(0, "Off", "DUnknown");
    Connection {
        connection_state: connection_state.to_owned(),
        ..connection(name, "Unknown", vec![gone])
    }
}

fn resource(name: &str, role: &str, devices: Vec<Device>, connections: Vec<Connection>) -> Status {
    Status {
        name: name.to_owned(),
        role: role.to_owned(),
        write_ordering: "flush".to_owned(),
        devices,
        connections,
        ..Status::default()
    }
}

/// One volume, one peer that mirrors it.
fn healthy() -> Status {
    let mirrored = peer_device(0, "Established", "UpToDate");
    let bergen = connection("bergen", "Secondary", vec![mirrored]);
    resource("ledger", "Primary", vec![device(0, "UpToDate", true)], vec![bergen])
}

/// A resync with half an hour to go.
fn syncing(replication_state: &str, disk: &str, sync: SyncDetails) -> Status {
    let mut status = healthy();
    let peer = &mut status.connections[0].peer_devices[0];
    peer.replication_state = replication_state.to_owned();
    peer.peer_disk_state = disk.to_owned();
    peer.has_sync_details = true;
    peer.sync = Some(sync);
    status
}

fn shown(status: &Status, layout: Layout) -> String {
    print(std::slice::from_ref(status), layout)
}

#[track_caller]
fn assert_shows(status: &Status, text: &str) {
    assert_eq!(shown(status, Layout::default()), text);
}

#[test]
fn healthy_with_a_mirror_and_a_client() {
    let mut status = healthy();
    let mut diskless = peer_device(0, "Established", "Diskless");
    diskless.peer_client = true;
    // Sorted by name, however they come.
    status.connections.insert(0, connection("tromso", "Secondary", vec![diskless]));
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
    let mut status = healthy();
    status.connections = vec![away("bergen", "Connecting")];
    assert_shows(
        &status,
        "ledger role:Primary
  disk:UpToDate open:yes
  bergen connection:Connecting

",
    );
}

#[test]
fn resync_as_source_and_as_target() {
    // Just begun: neither rate nor time is known.
    let begun = SyncDetails { percent_resync_done: 37.5, ..SyncDetails::new(0, 0, 0) };
    assert_shows(
        &syncing("SyncSource", "Inconsistent", begun.clone()),
        "ledger role:Primary
  disk:UpToDate open:yes
  bergen role:Secondary
    replication:SyncSource peer-disk:Inconsistent done:37.50

",
    );
    let mut target =
        syncing("PausedSyncT", "UpToDate", SyncDetails { percent_resync_done: 12.0, ..begun });
    target.role = "Secondary".to_owned();
    target.devices[0] = device(0, "Inconsistent", false);
    target.connections[0].name = "oslo".to_owned();
    target.connections[0].peer_role = "Primary".to_owned();
    target.connections[0].peer_devices[0].resync_suspended = "user".to_owned();
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
    let sync = SyncDetails::new(total, total / 5 * 4, 2_184_533);
    assert_eq!(sync.estimated_seconds_to_finish, 8739);
    assert_shows(
        &syncing("SyncSource", "Inconsistent", sync),
        "ledger role:Primary
  disk:UpToDate open:yes
  bergen role:Secondary
    replication:SyncSource peer-disk:Inconsistent done:20.00 rate:96.0MiB/s left:2:25:39

",
    );
    // Never 100 before the end; nothing is foretold while nothing moves.
    let nearly = SyncDetails::new(1_000_000, 1, 1000);
    let text = shown(&syncing("SyncTarget", "UpToDate", nearly), Layout::default());
    assert!(text.contains(" done:99.99 rate:488.3MiB/s left:0:00:01\n"), "{text}");
    let stuck = SyncDetails::new(1000, 1000, 5000);
    assert_eq!(stuck.estimated_seconds_to_finish, NEVER);
    let text = shown(&syncing("SyncTarget", "UpToDate", stuck), Layout::default());
    assert!(text.contains(" done:0.00\n"), "{text}");
}

#[test]
fn two_volumes() {
    let mirrored = |volume| peer_device(volume, "Established", "UpToDate");
    let bergen = connection("bergen", "Primary", vec![mirrored(0), mirrored(3)]);
    let devices = vec![device(0, "UpToDate", false), device(3, "Diskless", false)];
    let archive = resource("archive", "Secondary", devices, vec![bergen]);
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
    let mut status = healthy();
    (status.suspended, status.suspended_no_data) = (true, true);
    status.devices[0].quorum = false;
    status.devices[0].blocked = "upper".to_owned();
    let connecting = |name| away(name, "Connecting");
    status.connections = vec![connecting("bergen"), connecting("tromso")];
    let text = "ledger role:Primary suspended:no-data
  disk:UpToDate quorum:no open:yes blocked:upper
  bergen connection:Connecting
  tromso connection:Connecting

";
    assert_shows(&status, text);
}

#[test]
fn forced_secondary_and_split_brain() {
    let mut status = healthy();
    status.role = "Secondary".to_owned();
    status.force_io_failures = true;
    status.devices[0].open = false;
    let mut bergen = away("bergen", "StandAlone");
    let text = "ledger role:Secondary force-io-failures:yes
  disk:UpToDate open:no
  bergen connection:StandAlone
";
    status.connections = vec![bergen.clone()];
    assert_shows(&status, &format!("{text}\n"));

    bergen.reason = Some("split brain: both nodes were\nwritten while apart".to_owned());
    status.connections = vec![bergen];
    status.devices[0].reason = Some("the last flush failed".to_owned());
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
    let bergen = &mut status.connections[0];
    (bergen.tls, bergen.congested, bergen.ap_in_flight) = (true, true, 64);
    let text = shown(&status, Layout::default());
    let line = "  bergen role:Secondary tls:yes congested:yes ap-in-flight:64 rs-in-flight:0\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(print(&[], Layout::default()), "# No resource is up here. Next: polluxadm up all\n");
    let two = print(&[healthy(), healthy()], Layout::default());
    assert_eq!(two, shown(&healthy(), Layout::default()).repeat(2));
}

#[test]
fn verbose_statistics_and_a_narrow_terminal() {
    let mut status = healthy();
    let layout = Layout { verbose: true, ..Layout::default() };
    assert_eq!(
        shown(&status, layout),
        "ledger node-id:0 role:Primary suspended:no force-io-failures:no
  volume:0 minor:20 disk:UpToDate client:no backing_dev:/dev/vg/ledger engine:io_uring quorum:yes open:yes blocked:no
  bergen node-id:1 connection:Connected role:Secondary tls:no congested:no ap-in-flight:0 rs-in-flight:0
    volume:0 replication:Established peer-disk:UpToDate peer-client:no resync-suspended:no

"
    );
    let sync = SyncDetails::new(4096, 2048, 1000);
    status.connections[0].peer_devices[0].sync = Some(sync);
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
    let mut alone = healthy();
    alone.connections = vec![away("bergen", "Connecting")];
    let text = shown(&alone, Layout { verbose: true, ..Layout::default() });
    assert!(text.contains("bergen node-id:1 connection:Connecting role:Unknown"), "{text}");
    assert!(text.contains("replication:Off peer-disk:DUnknown"), "{text}");
}

/// The keys of DRBD in DRBD's order, with DRBD's odd spellings, then ours.
#[test]
fn json_has_the_keys_of_drbdsetup() {
    let sync = SyncDetails::new(4096, 2048, 1000);
    let mut status = syncing("SyncSource", "Inconsistent", sync);
    status.connections[0].reason = Some("wait".to_owned());
    let text = json(&[status.clone(), healthy()]);
    let again: Vec<Status> = serde_json::from_str(&text).unwrap();
    assert_eq!(again, [status, healthy()]);

    let first = text.split("\n  {").nth(1).unwrap();
    let keys: Vec<_> = first
        .lines()
        .filter_map(|line| {
            line.trim_start().strip_prefix('"')?.split_once("\":").map(|(key, _)| key)
        })
        .collect();
    let expected = "name,node-id,role,suspended,suspended-user,suspended-no-data,suspended-fencing,\
        suspended-quorum,force-io-failures,write-ordering,\
        devices,volume,minor,disk-state,client,open,quorum,size,read,written,al-writes,bm-writes,\
        upper-pending,lower-pending,al-suspended,blocked,backing-dev,engine,reason,\
        connections,peer-node-id,name,connection-state,congested,peer-role,tls,ap-in-flight,rs-in-flight,\
        paths,this_host,address,port,family,remote_host,address,port,family,established,\
        peer_devices,volume,replication-state,peer-disk-state,peer-client,resync-suspended,received,sent,\
        out-of-sync,pending,unacked,has-sync-details,has-online-verify-details,percent-in-sync,\
        resync-copied,rs-total,rs-dt-start-ms,rs-paused-ms,rs-dt1-ms,\
        rs-db1-sectors,rs-same-csum,db1/dt1 [MiB/s],\
        estimated-seconds-to-finish,db/dt [MiB/s],percent-resync-done,reason,reason";
    assert_eq!(keys.join(","), expected);
    assert!(text.contains("\"disk-state\": \"UpToDate\""), "{text}");
    assert!(text.contains("\"replication-state\": \"SyncSource\""), "{text}");
    assert!(text.contains("\"percent-resync-done\": 50.0"), "{text}");
    assert_eq!(json(&[]), "[]\n");
}

#[test]
fn the_small_commands_print_a_line() {
    let status = healthy();
    assert_eq!(role(&status, None).unwrap(), "Primary");
    assert_eq!(role(&status, Some("bergen")).unwrap(), "Secondary");
    assert_eq!(role(&status, Some("narvik")), None);
    assert_eq!(cstate(&status), "Connected\n");
    assert_eq!(dstate(&status, None), "UpToDate/UpToDate\n");
    let ids = GenerationIds {
        volume: 0,
        peer: "bergen".to_owned(),
        current: 0xC5E6_0011_2233_4455,
        bitmap: 0,
        history: [4, 0xFFFF_FFFF_FFFF_FFFF],
        flags: std::array::from_fn(|n| n < 2 || n == 11),
    };
    let line = "C5E6001122334455:0000000000000000:0000000000000004:FFFFFFFFFFFFFFFF:1:1:0:0:0:0:0:0:0:0:0:1\n";
    assert_eq!(get_gi(&ids), line);
    let (ids_columns, flags) = (format!("{0}{0}{0}", format!("|{}", " ".repeat(16))), "| ");
    let mut legend = line.to_owned();
    for n in (0..12).rev() {
        legend +=
            &format!("{ids_columns}|{}{}+- {}\n", " ".repeat(16), flags.repeat(n), GI_FLAGS[n]);
    }
    legend += &format!("{ids_columns}+- older history\n");
    legend += &format!("{}+- history\n", &ids_columns[..34]);
    legend += &format!("{}+- bitmap\n+- current\n", &ids_columns[..17]);
    assert_eq!(show_gi(&ids), legend);
}

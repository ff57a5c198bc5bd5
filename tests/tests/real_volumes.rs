//! Disks as an operator lays them out: several volumes in one resource, metadata in a file of its own, less of a disk than there is.

use serde_json::Value;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use tests::real::backing;
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::nbd::{Client, Lost};
use tests::real::ports::loopback;
use tests::real::process::{run, text};
use tests::real::{Host, Ledger, Load, Need, Pair, Plan, lacks, seconds, wait_for};

/// Bytes of the backing files of volumes 0 and 1.
const SIZES: [u64; 2] = [64 << 20, 40 << 20];

/// The second disk of a node, beside its first.
fn second(host: &Host) -> PathBuf {
    host.backing.with_file_name("disk-1")
}

/// A pair whose resource has two volumes, of different sizes.
fn two_volumes() -> Pair {
    let pair = Pair::new(Plan { size: SIZES[0], ..Plan::default() });
    for (me, peer) in [(&pair.alpha, &pair.beta), (&pair.beta, &pair.alpha)] {
        backing::sparse(&second(me), SIZES[1]);
        chown(second(me), me.sandbox.user, me.sandbox.user).expect("a file can be given away");
        let on = |host: &Host| {
            let address = match host.name == me.name {
                true => loopback(host.peer_port),
                false => pair.link.address_of(usize::from(host.node_id)),
            };
            let volume = |number: usize, disk: &Path| {
                format!(
                    "volume {number} {{ device minor {number}; disk \"{}\"; meta-disk internal; }}\n",
                    disk.display()
                )
            };
            let volumes = volume(0, &host.backing) + &volume(1, &second(host));
            let (name, id) = (host.name, host.node_id);
            format!("on {name} {{\nnode-id {id};\naddress {address};\n{volumes}}}\n")
        };
        let hosts = on(me) + &on(peer);
        let text = format!(
            "resource {RESOURCE} {{\nnet {{ shared-secret \"castor\"; }}\noptions {{ auto-promote no; }}\n{hosts}}}\n"
        );
        std::fs::write(&me.config, text).expect("a file can be written");
    }
    pair
}

/// What `status --json` says of the resource.
fn told(host: &Host) -> Value {
    let json: Value = serde_json::from_str(&host.status().json).expect("JSON");
    json[0].clone()
}

/// Waits until both copies of both volumes are good.
fn wait_both_in_sync(host: &Host) {
    wait_for("both volumes in sync", seconds(60), || {
        let told = told(host);
        let peers = &told["connections"][0]["peer_devices"];
        (0..2).all(|volume| {
            told["devices"][volume]["disk-state"] == "UpToDate"
                && peers[volume]["peer-disk-state"] == "UpToDate"
                && peers[volume]["replication-state"] == "Established"
                && peers[volume]["out-of-sync"] == 0
        })
    });
}

fn client(host: &Host, volume: usize) -> Client {
    let export = format!("{RESOURCE}/{volume}");
    Client::unix(&host.nbd_socket(), &export).unwrap_or_else(|lost| panic!("{export}: {lost}"))
}

fn loads(host: &Host, ledgers: [Ledger; 2], seed: u64) -> [Load; 2] {
    let mut volume = 0;
    ledgers.map(|ledger| {
        let work = Work { span: 16 << 20, depth: 4, flush_every: 50, seed: seed + volume as u64 };
        volume += 1;
        Load::start(client(host, volume - 1), ledger, work)
    })
}

fn wait_for_more(loads: &[Load], writes: u64) {
    for load in loads {
        load.wait_for_more(writes);
    }
}

/// No client was told of anything.
fn stopped(loads: [Load; 2]) -> [Ledger; 2] {
    loads.map(|load| {
        let ended = load.stop();
        assert!(ended.lost.is_none(), "a client lost its device: {:?}", ended.lost);
        ended.ledger
    })
}

#[test]
fn two_volumes_live_and_fail_over_together() {
    let mut pair = two_volumes();
    for host in pair.hosts() {
        let made = host.must(&["create-md", RESOURCE]);
        assert_eq!(made.matches("metadata made").count(), 2, "{made}");
        host.start();
    }
    pair.alpha.wait_status("the first connection", seconds(10), |status| status.is_connected());
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    wait_both_in_sync(&pair.alpha);
    wait_both_in_sync(&pair.beta);

    // What is told, and what is served.
    let text = pair.alpha.must(&["status", RESOURCE]);
    let wanted = "r0 role:Primary\n  volume:0 disk:UpToDate open:no\n  volume:1 disk:UpToDate open:no\n  \
                  beta role:Secondary\n    volume:0 peer-disk:UpToDate\n    volume:1 peer-disk:UpToDate\n\n";
    assert_eq!(text, wanted);
    let both = "UpToDate/UpToDate\nUpToDate/UpToDate\n";
    assert_eq!(pair.beta.must(&["dstate", RESOURCE]), both);
    assert_eq!(pair.beta.must(&["dstate", "r0/1"]), "UpToDate/UpToDate\n");
    assert_eq!(pair.beta.must(&["get-gi", RESOURCE]).lines().count(), 2);
    let sizes = [0, 1].map(|volume| client(&pair.alpha, volume).size);
    let listed = told(&pair.alpha)["devices"].clone();
    for volume in 0..2 {
        assert!(sizes[volume] < SIZES[volume] && sizes[volume] > SIZES[volume] - (1 << 20));
        assert_eq!(listed[volume]["size"], sizes[volume] / 1024, "volume {volume}");
    }
    for no_export in [RESOURCE, "", "r0/2", "r0/", "r0/00001"] {
        let answer = Client::unix(&pair.alpha.nbd_socket(), no_export);
        assert!(matches!(answer, Err(Lost::Refused(_))), "`{no_export}` is served");
    }

    // The Secondary is killed while both are written, and returns.
    let load = loads(&pair.alpha, Default::default(), 7);
    wait_for_more(&load, 200);
    pair.beta.kill();
    wait_for_more(&load, 200);
    let ledgers = stopped(load);
    let behind = told(&pair.alpha)["connections"][0]["peer_devices"].clone();
    for volume in 0..2 {
        assert_ne!(behind[volume]["out-of-sync"], 0, "volume {volume}: {behind}");
    }
    pair.beta.start();
    wait_both_in_sync(&pair.alpha);
    wait_both_in_sync(&pair.beta);

    // The Primary is killed under load; the other has both.
    let load = loads(&pair.alpha, ledgers, 70);
    wait_for_more(&load, 200);
    pair.alpha.kill();
    let mut ledgers = load.map(|load| load.join().ledger);
    pair.beta.promote();
    for (volume, ledger) in ledgers.iter_mut().enumerate() {
        ledger.verify(&mut client(&pair.beta, volume));
    }
    pair.alpha.start();
    wait_both_in_sync(&pair.beta);
    wait_both_in_sync(&pair.alpha);
    for (volume, ledger) in ledgers.iter_mut().enumerate() {
        ledger.verify(&mut client(&pair.beta, volume));
    }
    pair.beta.down();
    pair.alpha.down();
    backing::assert_equal(&pair.alpha.backing, &pair.beta.backing, sizes[0]);
    backing::assert_equal(&second(&pair.alpha), &second(&pair.beta), sizes[1]);
}

#[test]
fn foreign_clients_find_each_volume_by_its_name() {
    if lacks(&[Need::Program("nbdinfo")]) {
        return;
    }
    let mut pair = two_volumes();
    pair.alpha.must(&["create-md", RESOURCE]);
    pair.alpha.start();
    wait_for("both disks", seconds(20), || {
        pair.alpha.must(&["dstate", RESOURCE]) == "Inconsistent/DUnknown\n".repeat(2)
    });
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    let info = |words: &[&str], export: &str| {
        let uri = format!("nbd+unix:///{export}?socket={}", pair.alpha.nbd_socket().display());
        let output = run(seconds(20), "nbdinfo", words.iter().copied().chain([uri.as_str()]));
        (output.status.success(), text(&output))
    };
    let (found, list) = info(&["--list", "--json"], "");
    assert!(found, "{list}");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let exports = list["exports"].as_array().expect("exports");
    let names: Vec<_> = exports.iter().map(|export| export["export-name"].as_str()).collect();
    assert_eq!(names, [Some("r0/0"), Some("r0/1")]);
    for (volume, size) in SIZES.iter().enumerate() {
        let (found, shown) = info(&["--size"], &format!("r0/{volume}"));
        let shown: u64 = shown.trim().parse().unwrap_or_else(|_| panic!("no size: {shown}"));
        assert!(found && shown < *size && shown > size - (1 << 20), "volume {volume}: {shown}");
    }
    assert!(!info(&["--size"], RESOURCE).0, "which of the two would it be?");
}

#[test]
fn a_secondary_gives_up_one_volume_and_takes_it_back_while_both_are_written() {
    one_volume_goes_and_comes_back(1);
}

#[test]
fn a_primary_gives_up_one_volume_and_takes_it_back_while_both_are_written() {
    one_volume_goes_and_comes_back(0);
}

/// `host`: 0 the Primary, 1 the Secondary.
fn one_volume_goes_and_comes_back(host: usize) {
    let mut pair = two_volumes();
    for host in pair.hosts() {
        host.must(&["create-md", RESOURCE]);
        host.start();
    }
    pair.alpha.wait_status("the first connection", seconds(10), |status| status.is_connected());
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    wait_both_in_sync(&pair.alpha);
    let load = loads(&pair.alpha, Default::default(), 3);
    wait_for_more(&load, 100);
    pair.hosts()[host].must(&["detach", "r0/1"]);

    wait_for("volume 0 with two good copies, volume 1 with the other's", seconds(20), || {
        let mut states = |volume: &str| pair.hosts()[host].must(&["dstate", volume]);
        states("r0/0") == "UpToDate/UpToDate\n" && states("r0/1") == "Diskless/UpToDate\n"
    });
    wait_for_more(&load, 100);
    pair.hosts()[host].must(&["attach", "r0/1"]);
    wait_for_more(&load, 100);
    let mut ledgers = stopped(load);
    wait_both_in_sync(&pair.alpha);
    wait_both_in_sync(&pair.beta);
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.beta.must(&["primary", RESOURCE]);
    for (volume, ledger) in ledgers.iter_mut().enumerate() {
        ledger.verify(&mut client(&pair.beta, volume));
    }
}

#[test]
fn external_metadata_leaves_the_whole_disk_to_the_data() {
    let plan = Plan { external_meta: true, ..Plan::default() };
    let size = plan.size;
    let mut pair = Pair::new(plan);
    for host in pair.hosts() {
        let made = host.must(&["create-md", RESOURCE]);
        let meta = host.meta.clone().expect("a file of its own");
        assert_eq!(made, format!("{}: metadata made; {size} bytes for data\n", meta.display()));
        let dump = host.must(&["dump-md", RESOURCE]);
        assert!(dump.contains("external"), "{dump}");
        assert!(dump.contains(&format!("data-size        {size} of {size}")), "{dump}");
        // Not a byte of the disk.
        assert_eq!(backing::data(&host.backing, size), []);
        let again = host.adm(&["create-md", RESOURCE]);
        assert_eq!(again.code, Some(20), "{}", again.said);
        assert!(again.said.contains("holds metadata of node-id"), "{}", again.said);
        host.start();
    }
    pair.alpha.wait_status("the first connection", seconds(10), |status| status.is_connected());
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    pair.wait_in_sync();
    // To the last block.
    let mut ledger = Ledger::default();
    let mut nbd = pair.alpha.client();
    assert_eq!((nbd.size, pair.alpha.status().size), (size, size));
    ledger.write(&mut nbd, [0, size / 2, size - 4096]);
    drop(nbd);
    pair.alpha.kill();
    pair.beta.promote();
    ledger.verify(&mut pair.beta.client());
    ledger.write(&mut pair.beta.client(), [4096, size - 8192]);
    pair.alpha.start();
    pair.end(Some(&mut ledger));
}

#[test]
fn size_uses_less_of_a_disk_than_there_is() {
    size_is_honoured(false);
}

#[test]
fn size_uses_less_of_a_disk_with_metadata_elsewhere() {
    size_is_honoured(true);
}

fn size_is_honoured(external_meta: bool) {
    const USED: u64 = 10 << 20;
    let plan = Plan { external_meta, disk: "size 10M;", ..Plan::default() };
    let there = plan.size;
    let mut pair = Pair::new(plan);
    let mut room = 0;
    for host in pair.hosts() {
        let made = host.must(&["create-md", RESOURCE]);
        assert!(made.ends_with(&format!("metadata made; {USED} bytes for data\n")), "{made}");
        let dump = host.must(&["dump-md", RESOURCE]);
        let data_size = format!("data-size        {USED} of ");
        let (_, rest) = dump.split_once(&data_size).unwrap_or_else(|| panic!("{dump}"));
        room = rest.lines().next().and_then(|rest| rest.parse().ok()).expect("a number");
    }
    assert_eq!(room == there, external_meta, "{room} of {there} bytes could be data");
    pair.start();
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    pair.wait_in_sync();
    let mut ledger = Ledger::default();
    let mut nbd = pair.alpha.client();
    assert_eq!((nbd.size, pair.alpha.status().size), (USED, USED));
    ledger.write(&mut nbd, [0, USED - 4096]);
    let beyond = nbd.write(USED, &[1; 4096]);
    assert!(matches!(beyond, Err(Lost::Errno(_))), "{beyond:?}");
    drop(nbd);
    for host in [&pair.alpha, &pair.beta] {
        // Internal metadata lies behind `room`, which is all there is for external.
        let data = backing::data(&host.backing, there);
        let end = data.iter().filter(|(at, _)| *at < room).map(|(at, len)| at + len).max();
        assert_eq!(end, Some(USED), "nothing is written behind what is used");
    }
    // Written otherwise afterwards, and less: the metadata counts, and the operator is told.
    pair.alpha.down();
    rewrite(&pair.alpha, "size 10M;", "size 8M;");
    pair.alpha.start();
    let status = pair.alpha.wait_status("the disk", seconds(20), |status| status.is_in_sync());
    assert_eq!(status.size, USED);
    assert!(status.advice.contains("`size` says 8388608 bytes"), "{}", status.advice);
    // More than the metadata has is a promise that would not be kept.
    pair.alpha.down();
    for (size, next) in [
        ("12M", "`polluxadm create-md` makes it anew (a full resync follows)".to_owned()),
        ("1G", format!("write `size {}s;`, then `polluxadm down` and `polluxadm up`", USED / 512)),
    ] {
        let bytes = if size == "1G" { 1 << 30 } else { 12 << 20 };
        rewrite(&pair.alpha, "size 8M;", &format!("size {size};"));
        let up = pair.alpha.adm(&["up", RESOURCE]);
        let refused = format!(
            "volume 0: `size` says {bytes} bytes, the metadata has {USED} of the {room} there are \
             for data: {next}\n"
        );
        assert!(up.code == Some(10) && up.said.ends_with(&refused), "{up:?}");
        pair.alpha.must(&["down", RESOURCE]);
        rewrite(&pair.alpha, &format!("size {size};"), "size 8M;");
    }
    pair.alpha.start();
    pair.alpha.wait_status("the disk", seconds(20), |status| status.is_in_sync());
    pair.alpha.must(&["primary", RESOURCE]);
    pair.end(Some(&mut ledger));
}

/// Writes the configuration of a host otherwise.
fn rewrite(host: &Host, from: &str, to: &str) {
    let text = std::fs::read_to_string(&host.config).expect("the configuration");
    assert!(text.contains(from), "{text}");
    std::fs::write(&host.config, text.replace(from, to)).expect("written");
}

//! Fencing with real handlers: programs that the daemon runs, and what it does and says until they have decided (ROLE-4).

use std::process::Command;
use std::time::Duration;
use tests::real::foreign::Fuse;
use tests::real::host::RESOURCE;
use tests::real::nbd::{Ask, Lost};
use tests::real::process::Process;
use tests::real::sandbox::Sandbox;
use tests::real::{Ledger, Need, Pair, Plan, lacks, seconds, wait_for};

/// The handler writes down what it was told, waits for the file `go`, and ends with the number in it.
const HANDLERS: &str = "fence-peer \"env | grep -E '^(DRBD_|UP_TO_DATE)' | sort > DIR/fence.env; \
     until test -s DIR/go; do sleep 0.02; done; exit $(cat DIR/go)\"; \
     unfence-peer \"echo unfence >> DIR/told\"; disconnected \"echo disconnected >> DIR/told\"; \
     before-resync-target \"test ! -e DIR/forbid\"; after-resync-target \"echo after >> DIR/told\"; \
     initial-split-brain \"echo initial-of-$DRBD_PEER >> DIR/told\"; split-brain \"echo split-brain >> DIR/told\"; \
     pri-on-incon-degr \"echo degraded-$DRBD_RESOURCE >> DIR/told\";";

fn plan(net: &'static str) -> Plan {
    Plan { net, handlers: HANDLERS, ..Plan::default() }
}

/// Alpha is Primary and has just lost beta; a write waits.
fn suspended(pair: &mut Pair) -> (tests::real::Client, u64) {
    let mut client = pair.alpha.client();
    pair.link.cut();
    let status = pair.alpha.wait_status("suspended I/O", seconds(5), |status| status.suspended);
    assert!(status.json.contains("\"suspended-fencing\": true"), "{status}");
    let id = client.send(&Ask::Write(4096, &[7; 4096])).expect("the kernel takes it");
    client.set_patience(Duration::from_millis(500));
    match client.receive() {
        Err(Lost::Connection(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        other => panic!("ROLE-4: answered before the peer was fenced: {other:?}"),
    }
    client.set_patience(seconds(20));
    (client, id)
}

fn answer(pair: &Pair, code: u8) {
    let (half, whole) = (pair.dir().join("go.part"), pair.dir().join("go"));
    std::fs::write(&half, code.to_string()).expect("a file");
    std::fs::rename(half, whole).expect("the same directory");
}

fn told(pair: &Pair) -> String {
    std::fs::read_to_string(pair.dir().join("told")).unwrap_or_default()
}

#[test]
fn nothing_is_answered_before_the_handler_has_decided() {
    let mut pair = Pair::start_in_sync(plan("fencing resource-and-stonith;"));
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), (100..140).map(|i| i * 4096));
    let (mut client, id) = suspended(&mut pair);
    let environment = std::fs::read_to_string(pair.dir().join("fence.env")).expect("it ran");
    for line in [
        &format!("DRBD_RESOURCE={RESOURCE}"),
        "DRBD_PEER_NODE_ID=1",
        "DRBD_NODE_ID_1=beta",
        "DRBD_PEER_AF=ipv4",
        "UP_TO_DATE_NODES=0x00000001",
    ] {
        assert!(environment.lines().any(|l| l == line), "no {line} in\n{environment}");
    }
    // Outdated by another way than the link, and so for ever.
    pair.beta.must(&["outdate", RESOURCE]);
    assert_eq!(pair.beta.adm(&["primary", RESOURCE]).code, Some(17));
    assert_eq!(pair.alpha.adm(&["outdate", RESOURCE]).code, Some(17));
    answer(&pair, 4);
    let (answered, result) = client.receive().expect("answered");
    assert_eq!((answered, result.is_ok()), (id, true));
    assert!(!pair.alpha.status().suspended);
    pair.beta.kill();
    pair.beta.start();
    assert_eq!(pair.beta.status().disk, "Outdated");
    assert_eq!(pair.beta.adm(&["primary", RESOURCE]).code, Some(17));
    pair.link.heal();
    pair.wait_in_sync();
    wait_for("the other handlers", seconds(10), || {
        let told = told(&pair);
        ["disconnected", "after", "unfence"].iter().all(|word| told.contains(word))
    });
    drop(client);
    pair.end(Some(&mut ledger));
}

#[test]
fn a_handler_that_fails_leaves_it_suspended_until_the_operator_the_peer_or_a_later_try_ends_it() {
    let mut pair = Pair::start_in_sync(plan("fencing resource-and-stonith;"));
    for by in ["the operator", "the peer", "the next try"] {
        let _ = std::fs::remove_file(pair.dir().join("go"));
        let (mut client, id) = suspended(&mut pair);
        // That it is dead is a guess, and not enough here.
        answer(&pair, 5);
        let status = pair
            .alpha
            .wait_status("why", seconds(10), |status| status.advice.contains("fence-peer"));
        assert!(status.suspended && status.advice.contains("resume-io"), "{status}");
        match by {
            "the operator" => drop(pair.alpha.must(&["resume-io", RESOURCE])),
            "the peer" => pair.link.heal(),
            // LIVE-4.
            _ => answer(&pair, 7),
        }
        let (answered, result) = client.receive().expect("answered");
        assert_eq!((answered, result.is_ok()), (id, true));
        pair.link.heal();
        pair.wait_in_sync();
    }
    pair.end(None);
}

#[test]
fn a_handler_that_hangs_is_killed_and_one_that_is_missing_is_told() {
    let hangs = Plan {
        net: "fencing resource-only;",
        options: "auto-promote no; handler-timeout 1;",
        handlers: "fence-peer \"sleep 1000 & echo $! > DIR/child; wait\";",
        ..Plan::default()
    };
    let missing = Plan { net: "fencing resource-only;", ..Plan::default() };
    for (plan, why) in [(hangs, "did not end in 1 s"), (missing, "is not configured")] {
        let pair = Pair::start_in_sync(plan);
        pair.link.cut();
        let status =
            pair.alpha.wait_status("why", seconds(10), |status| status.advice.contains(why));
        assert!(status.suspended, "{status}");
        if let Ok(child) = std::fs::read_to_string(pair.dir().join("child")) {
            let path = format!("/proc/{}", child.trim());
            wait_for("the end of its child", seconds(5), || !std::path::Path::new(&path).exists());
        }
        pair.link.heal();
        pair.wait_in_sync();
        pair.end(None);
    }
}

#[test]
fn a_secondary_is_promoted_only_when_the_primary_is_fenced() {
    let mut pair = Pair::start_in_sync(plan("fencing resource-and-stonith;"));
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), (0..40).map(|i| i * 4096));
    pair.alpha.kill();
    let status = pair.beta.wait_status("the loss", seconds(5), |status| !status.is_connected());
    assert_eq!(status.disk, "Consistent");
    assert!(status.json.contains("\"followed\": true"), "{}", status.json);
    answer(&pair, 1);
    let refused = pair.beta.adm(&["primary", RESOURCE]);
    assert_eq!(refused.code, Some(11), "{}", refused.said);
    // It has all that the lost Primary acknowledged: for a handler that is as good as UpToDate.
    let told = |pair: &Pair| std::fs::read_to_string(pair.dir().join("fence.env")).expect("it ran");
    assert!(told(&pair).contains("UP_TO_DATE_NODES=0x00000002"), "{}", told(&pair));
    assert!(refused.said.contains("fence-peer failed with exit code 1"), "{}", refused.said);
    answer(&pair, 7);
    pair.beta.promote();
    ledger.write(&mut pair.beta.client(), (40..80).map(|i| i * 4096));
    // What is off is off; but who starts alone does not know what the other did.
    pair.beta.kill();
    pair.alpha.start();
    pair.alpha.wait_status("its disk", seconds(5), |status| status.disk == "Consistent");
    let refused = pair.alpha.adm(&["primary", RESOURCE]);
    assert!(refused.said.contains("has not met it since it started"), "{}", refused.said);
    assert!(told(&pair).contains("UP_TO_DATE_NODES=0x00000000"), "{}", told(&pair));
    assert!(pair.alpha.status().json.contains("\"followed\": false"));
    pair.beta.start();
    pair.wait_in_sync();
    pair.end(Some(&mut ledger));
}

#[test]
fn a_resync_that_its_handler_forbids_does_not_begin() {
    let mut pair = Pair::start_in_sync(plan(""));
    pair.beta.kill();
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), (0..40).map(|i| i * 4096));
    let forbid = pair.dir().join("forbid");
    std::fs::write(&forbid, "").expect("a file");
    pair.beta.start();
    let status = pair.beta.wait_status("the refusal", seconds(10), |status| {
        status.advice.contains("before-resync-target failed with exit code 1")
    });
    assert_eq!((status.connection.as_str(), status.disk.as_str()), ("StandAlone", "UpToDate"));
    std::fs::remove_file(forbid).expect("it is there");
    pair.beta.must(&["connect", RESOURCE]);
    pair.wait_in_sync();
    pair.end(Some(&mut ledger));
}

#[test]
fn an_operator_suspends_and_resumes() {
    let pair = Pair::start_in_sync(Plan::default());
    let mut client = pair.alpha.client();
    pair.alpha.must(&["suspend-io", RESOURCE]);
    let id = client.send(&Ask::Write(0, &[1; 4096])).expect("the kernel takes it");
    client.set_patience(Duration::from_millis(500));
    assert!(matches!(client.receive(), Err(Lost::Connection(_))), "answered while suspended");
    assert!(pair.alpha.status().json.contains("\"suspended-user\": true"));
    pair.alpha.must(&["resume-io", RESOURCE]);
    client.set_patience(seconds(20));
    let (answered, result) = client.receive().expect("answered");
    assert_eq!((answered, result.is_ok()), (id, true));
    drop(client);
    pair.end(None);
}

#[test]
fn a_split_brain_and_a_primary_without_good_data_are_told() {
    let mut pair = Pair::start_in_sync(plan(""));
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), (0..40).map(|i| i * 4096));
    // Reads and writes go to the peer from here on; then that is gone.
    pair.alpha.must(&["detach", RESOURCE]);
    pair.beta.kill();
    wait_for("the word of it", seconds(10), || told(&pair).contains("degraded-r0"));
    pair.alpha.must(&["attach", RESOURCE]);
    pair.beta.start();
    pair.wait_in_sync();

    pair.link.cut();
    pair.alpha.client().write(0, &[1; 4096]).expect("alpha goes on alone");
    pair.beta.promote();
    pair.beta.client().write(0, &[2; 4096]).expect("and so does beta");
    pair.link.heal();
    wait_for("the word of both", seconds(20), || {
        let told = told(&pair);
        ["initial-of-alpha", "initial-of-beta", "split-brain"]
            .iter()
            .all(|word| told.contains(word))
    });
    pair.beta.must(&["secondary", RESOURCE]);
    pair.beta.must(&["connect", "--discard-my-data", RESOURCE]);
    pair.alpha.must(&["connect", RESOURCE]);
    pair.wait_in_sync();
    pair.end(None);
}

#[test]
fn a_disk_that_fails_is_given_up_and_its_handler_is_told() {
    let needs = [Need::Root, Need::Fuse, Need::Program("nbdkit"), Need::Program("nbdfuse")];
    if lacks(&needs) {
        return;
    }
    let plan = Plan {
        disk: "on-io-error call-local-io-error;",
        handlers: "local-io-error \"env | grep -E '^DRBD_(RESOURCE|VOLUME)=' | sort > DIR/told\";
            pri-on-incon-degr \"touch DIR/halted\";",
        sandbox: Sandbox::none(),
        external_meta: true,
        ..Plan::default()
    };
    let mut pair = Pair::new(plan);
    let [broken, socket] = ["broken", "disk.sock"].map(|name| pair.dir().join(name));
    let trigger = format!("error-file={}", broken.display());
    let mut nbdkit = Command::new("nbdkit");
    nbdkit.args(["--foreground", "--filter=error", "--unix"]).arg(&socket);
    nbdkit.args(["memory", "64M", "error=EIO", "error-pwrite-rate=100%", &trigger]);
    let mut server = Process::start("nbdkit", &mut nbdkit, &pair.dir().join("nbdkit.log"));
    server.wait_until("its socket", seconds(10), || socket.exists());
    let fuse =
        Fuse::mount(pair.dir(), "failing", &format!("nbd+unix:///?socket={}", socket.display()));
    pair.alpha.backing = fuse.file().to_owned();
    pair.write_configuration();
    pair.start_first();
    let mut ledger = Ledger::default();
    let mut client = pair.alpha.client();
    ledger.write(&mut client, (0..16).map(|i| i * 4096));

    std::fs::write(&broken, "").expect("a file");
    // No client sees it: the peer has a good copy.
    ledger.write(&mut client, (8..24).map(|i| i * 4096));
    let status = pair.alpha.wait_status("it is given up", seconds(10), |s| s.disk == "Diskless");
    assert_eq!(status.role, "Primary", "{status}");
    wait_for("the handler", seconds(10), || told(&pair) == "DRBD_RESOURCE=r0\nDRBD_VOLUME=0\n");
    ledger.verify(&mut client);
    assert!(
        !pair.dir().join("halted").exists(),
        "the peer had all, as soon as hands were shaken again"
    );

    std::fs::remove_file(&broken).expect("it is there");
    pair.alpha.must(&["attach", RESOURCE]);
    pair.wait_in_sync();
    ledger.verify(&mut client);
    drop(client);
    pair.beta.down();
    // Its own copy, and not the peer's.
    ledger.verify(&mut pair.alpha.client());
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.alpha.down();
    drop(fuse);
    server.terminate();
}

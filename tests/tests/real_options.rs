//! Options that bound something do so, in both directions, and what cannot act is told.

use serde_json::Value;
use tests::real::host::RESOURCE;
use tests::real::nbd::Ask;
use tests::real::status::Status;
use tests::real::{Pair, Plan, seconds, wait_for};

/// Writes of one page that are acknowledged under protocol A while the peer does not answer; of `tried`, fewer than the server takes of
/// one client at a time.
fn acknowledged_into_silence(net: &'static str, tried: u64) -> u64 {
    let pair = {
        let mut pair = Pair::new(Plan { net, ..Plan::default() });
        for host in pair.hosts() {
            let text = std::fs::read_to_string(&host.config).expect("the configuration");
            let text = text.replace("protocol C;", "protocol A;");
            std::fs::write(&host.config, text).expect("written");
        }
        pair.start();
        pair.alpha.must(&["primary", "--force", RESOURCE]);
        pair.wait_in_sync();
        pair
    };
    let mut client = pair.alpha.client();
    // One extent of the log is hot, so that no write waits for anything but the peer.
    client.write(0, &[1; 4096]).expect("written");
    let is_idle = |status: &Status| on_its_way(&status.json) == (0, 0, false);
    pair.alpha.wait_status("that write on the peer", seconds(20), is_idle);
    pair.link.silence();
    // None overlaps: it would wait for the other to be done at the peer.
    for block in 1..=tried {
        client.send(&Ask::Write(block * 4096, &[2; 4096])).expect("sent");
    }
    // Well below the time after which the peer is given up.
    client.set_patience(seconds(2));
    let mut acknowledged = 0;
    while acknowledged < tried {
        match client.receive() {
            Ok((_, answer)) => drop(answer.expect("no error")),
            Err(_) => break,
        }
        acknowledged += 1;
    }
    let status = pair.alpha.status();
    assert!(status.is_connected(), "the peer was given up before the end");
    // Under A all that was acknowledged was sent, and nothing else.
    let is_congested = acknowledged < tried;
    assert_eq!(on_its_way(&status.json), (8 * acknowledged, acknowledged, is_congested));
    pair.link.heal();
    let status = pair.alpha.wait_status("all of it on the peer", seconds(20), is_idle);
    let status: Value = serde_json::from_str(&status.json).expect("JSON");
    let device = &status[0]["devices"][0];
    assert!(device["al-writes"].as_u64() > Some(0) && device["engine"].is_string(), "{device}");
    acknowledged
}

/// Sectors and requests with the peer, and whether it is said that there are too many.
fn on_its_way(json: &str) -> (u64, u64, bool) {
    let status: Value = serde_json::from_str(json).expect("JSON");
    let connection = &status[0]["connections"][0];
    let number = |value: &Value| value.as_u64().expect("a number");
    (
        number(&connection["ap-in-flight"]),
        number(&connection["peer_devices"][0]["pending"]),
        connection["congested"].as_bool().expect("yes or no"),
    )
}

#[test]
fn al_extents_other_than_the_metadatas_is_told() {
    let mut pair = Pair::new(Plan { disk: "al-extents 67;", ..Plan::default() });
    pair.alpha.must(&["create-md", RESOURCE]);
    let text = std::fs::read_to_string(&pair.alpha.config).expect("the configuration");
    std::fs::write(&pair.alpha.config, text.replace("al-extents 67;", "")).expect("written");
    let warning = "r0/0: warning: `al-extents` says 1237, the metadata 67, which counts: \
                   `polluxadm create-md` would make it anew (a full resync follows)\n";
    for words in [&["up", RESOURCE][..], &["attach", RESOURCE]] {
        let said = pair.alpha.adm(words).said;
        assert!(said.ends_with(warning), "{words:?}: {said}");
        assert!(pair.alpha.status().advice.contains("the metadata 67"));
        pair.alpha.must(&["detach", RESOURCE]);
    }
    pair.alpha.must(&["down", RESOURCE]);
    // Also by a daemon that no operator started.
    pair.alpha.start();
    wait_for("the warning in the log", seconds(20), || {
        pair.alpha.said().contains("volume 0: `al-extents` says 1237, the metadata 67")
    });
    pair.alpha.down();
    std::fs::write(&pair.alpha.config, text).expect("written");
    let said = pair.alpha.adm(&["up", RESOURCE]).said;
    assert!(!said.contains("al-extents"), "{said}");
    pair.alpha.must(&["down", RESOURCE]);
}

#[test]
fn max_buffers_bounds_the_writes_on_their_way_to_the_peer() {
    let bounded = acknowledged_into_silence("max-buffers 32; ping-int 10; ping-timeout 100;", 200);
    assert!((32..=34).contains(&bounded), "{bounded} pages of 32 were on their way");
    let free = acknowledged_into_silence("ping-int 10; ping-timeout 100;", 200);
    assert_eq!(free, 200, "the usual bound is far off");
}

//! What people type, what they read, and the exit codes that scripts go by.

use crate::etcd::Etcd;
use crate::stage::{Stage, lacks, wait_for};
use std::os::unix::fs::PermissionsExt;

#[test]
fn operators_are_answered() {
    if lacks(&["etcd", "etcdctl"]) {
        return;
    }
    let stage = Stage::new("cli", &["r0"]);
    let etcd = Etcd::start(&stage, 1, false);
    let toml = etcd.toml() + "[resource.r0]\narbiter = \"etcd\"\n";
    stage.put("agent.toml", 0o600, &toml);
    // Nothing runs yet: 20; a handler has achieved nothing: 1.
    for (words, code) in [
        (&["status"][..], 20),
        (&["standby", "r0"], 20),
        (&["fence-peer", "r0"], 1),
        (&["unfence-peer", "r0"], 1),
        (&["fence", "r0"], 1),
        (&["check"], 0),
        (&["--version"], 0),
        (&["--help"], 0),
        (&[], 1),
        (&["dance"], 1),
        (&["status", "r0", "r1"], 1),
        (&["fence-peer"], 1),
    ] {
        let (ended, said) = stage.cli(0, words);
        assert_eq!(ended, Some(code), "{words:?}: {said}");
        assert!(!said.is_empty(), "{words:?} says nothing");
    }
    let mut agent = stage.agent(0);
    stage.wait(0, "r0", "active");
    let mode =
        std::fs::metadata(stage.dir.join("alpha/agent.sock")).expect("it listens").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // A second one does not disturb the first.
    let (code, said) = stage.cli(0, &["run"]);
    assert!(code == Some(20) && said.contains("another pollux-agent runs here already"), "{said}");
    wait_for("the daemon is looked at", 20, || stage.status(0, "r0")["primary"] == true);
    let (code, said) = stage.cli(0, &["status", "r0"]);
    assert!(code == Some(0) && said.starts_with("r0 active: all services run\n"), "{said}");
    for key in ["lock: Mine", "primary: true", "peer: beta", "standby: false", "takeovers: 1"] {
        assert!(said.contains(&format!("  {key}\n")), "{key}: {said}");
    }
    let status = stage.status(0, "r0");
    assert_eq!((&status["resource"], &status["disk"]), (&"r0".into(), &"UpToDate".into()));
    assert!(status["authority-ms"].as_u64().is_some_and(|left| left < 5_000), "{status}");
    let (code, said) = stage.cli(0, &["status", "r9"]);
    assert!(code == Some(1) && said.contains("no resource `r9`"), "{said}");
    // The handlers of a Primary that lost its peer, and of both when it is back.
    let (code, said) = stage.cli(0, &["fence-peer", "r0"]);
    assert_eq!(code, Some(4), "{said}");
    let (code, said) = stage.cli(0, &["unfence-peer", "r0"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!etcd.must(&stage, &["get", "--prefix", "/", "--keys-only"]).contains("outdated"));
    // SIGTERM: orderly. Its socket is gone.
    agent.signal("-TERM");
    assert_eq!(agent.ends(20), Some(0));
    assert_eq!(stage.daemon("r0", 0).told, ["primary", "secondary"]);
    assert_eq!(stage.cli(0, &["status"]).0, Some(20));
    // Not with a configuration that is wrong.
    stage.put("agent.toml", 0o600, &toml.replace("arbiter =", "arbitre ="));
    let (code, said) = stage.cli(0, &["run"]);
    assert!(code == Some(10) && said.contains("agent.toml:4: unknown field `arbitre`"), "{said}");
}

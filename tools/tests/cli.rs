//! `polluxadm` and `polluxd` as an operator meets them: what is printed, exit codes, life and end of
//! the daemon. What the nodes decide is tested elsewhere.

mod node;

use node::{PATIENCE, Pair, said, until};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

fn bare(program: &str, arguments: &[&str]) -> node::Said {
    said(Command::new(program).args(arguments).stdin(Stdio::null()).output())
}

#[test]
fn usage_and_configuration_errors_have_the_exit_codes_of_drbdadm() {
    let adm = env!("CARGO_BIN_EXE_polluxadm");
    bare(adm, &["frobnicate"]).fails(1, "frobnicate");
    bare(adm, &["primary"]).fails(1, "RESOURCE");
    bare(adm, &["--config", "/nonexistent/p.conf", "status"]).fails(10, "/nonexistent/p.conf");
    assert!(bare(adm, &["--help"]).ok().contains("wait-sync"));
    let pair = Pair::new("");
    pair.adm("alpha", &["primary", "r1"]).fails(10, "no resource `r1` is defined for host `alpha`");
    pair.adm("alpha", &["attach", "r0/7"]).fails(10, "no volume 7");
    pair.adm("alpha", &["role", "r0:gamma"]).fails(10, "no peer `gamma`");
    pair.adm("alpha", &["primary", "r0/0"]).fails(1, "whole resource");
    fs::write(pair.config(), "resource r0 { net { protocl C; } }").expect("written");
    let config = pair.config();
    let place = format!("{}:1: ", config.display());
    pair.adm("alpha", &["dump"]).fails(10, &place);
    let daemon = pair.command(env!("CARGO_BIN_EXE_polluxd"), "alpha").arg("r0").output();
    said(daemon).fails(10, &place);
}

#[test]
fn a_resource_that_is_not_running_is_told_so_and_its_metadata_answers_instead() {
    let pair = Pair::new("");
    pair.adm("alpha", &["status", "r0"]).fails(10, "not running here: polluxadm up r0");
    assert!(pair.adm("alpha", &["status"]).ok().starts_with('#'));
    assert_eq!(pair.adm("alpha", &["status", "--json"]).ok(), "[]\n");
    pair.adm("alpha", &["primary", "r0"]).fails(10, "polluxadm up r0");
    pair.adm("alpha", &["wait-sync", "r0", "--timeout", "1"]).fails(10, "polluxadm up r0");
    pair.adm("alpha", &["down", "r0"]).ok();
    pair.adm("alpha", &["dstate", "r0"]).fails(10, "no metadata");
    pair.adm("alpha", &["create-md", "r0"]).ok();
    assert_eq!(pair.adm("alpha", &["dstate", "r0"]).ok(), "Inconsistent/DUnknown\n");
    let ids = pair.adm("alpha", &["get-gi", "r0"]).ok();
    assert!(ids.starts_with("0000000000000004:0000000000000000:"), "{ids}");
    assert_eq!(ids.matches(':').count(), 15, "{ids}");
    assert!(pair.adm("alpha", &["show-gi", "r0"]).ok().starts_with(&ids));
}

#[test]
fn create_md_overwrites_only_what_it_was_told_to() {
    let pair = Pair::new("");
    pair.adm("alpha", &["create-md", "r0"]).ok();
    let text = pair.adm("alpha", &["dump-md", "r0"]).ok();
    assert!(text.contains("node-id          0"), "{text}");
    pair.adm("alpha", &["create-md", "r0"]).fails(20, "--force");
    assert_eq!(pair.adm("alpha", &["dump-md", "r0"]).ok(), text, "it was left alone");
    pair.adm("alpha", &["create-md", "--force", "r0"]).ok();
    assert_ne!(pair.adm("alpha", &["dump-md", "r0"]).ok(), text, "another device now");

    // Not metadata, but somebody's data where it would go.
    let mut disk = vec![0; node::DISK as usize];
    let end = disk.len() - 9000;
    disk[end] = 1;
    fs::write(pair.disk("beta"), &disk).expect("written");
    pair.adm("beta", &["create-md", "r0"]).fails(20, "data behind byte");
    pair.adm("beta", &["dump-md", "r0"]).fails(10, "no metadata");

    // In use.
    pair.adm("alpha", &["up", "r0"]).ok();
    pair.adm("alpha", &["create-md", "--force", "r0"]).fails(20, "in use by process");
    pair.adm("alpha", &["dump-md", "r0"]).fails(20, "in use by process");
}

#[test]
fn a_pair_tells_its_states_as_drbd_does() {
    let pair = Pair::in_sync("");
    let text = pair.adm("alpha", &["status", "r0"]).ok();
    let wanted = "r0 role:Primary\n  disk:UpToDate open:no\n  beta role:Secondary\n    \
                  peer-disk:UpToDate\n\n";
    assert_eq!(text, wanted);
    assert_eq!(pair.adm("alpha", &["role", "r0"]).ok(), "Primary\n");
    assert_eq!(pair.adm("alpha", &["role", "r0:beta"]).ok(), "Secondary\n");
    assert_eq!(pair.adm("beta", &["cstate", "r0"]).ok(), "Connected\n");
    assert_eq!(pair.adm("beta", &["dstate", "r0/0"]).ok(), "UpToDate/UpToDate\n");
    let json = pair.adm("beta", &["status", "--json", "r0"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["connections"][0]["peer_devices"][0]["out-of-sync"], 0);
    let ids = |node| pair.adm(node, &["get-gi", "r0"]).ok();
    assert_eq!(ids("alpha")[..16], ids("beta")[..16], "the same generation");

    pair.adm("beta", &["primary", "r0"]).fails(11, "Primary");
    pair.adm("beta", &["detach", "r0"]).ok();
    pair.adm("beta", &["invalidate", "r0"]).fails(16, "no disk");
    pair.adm("beta", &["attach", "r0"]).ok();
    pair.adm("beta", &["attach", "r0/0"]).fails(11, "has a disk already");
    pair.adm("beta", &["wait-sync", "r0", "--timeout", "60"]).ok();
    pair.kill("alpha");
    pair.adm("beta", &["wait-connect", "r0", "--timeout", "0.2"]).fails(5, "polluxadm status r0");
    pair.adm("beta", &["disconnect", "r0"]).ok();
    let waited = pair.adm("beta", &["wait-connect", "r0", "--timeout", "60"]);
    assert!(waited.err.contains("stands alone"), "{waited:?}");
    waited.ok();
    assert_eq!(pair.adm("beta", &["cstate", "r0"]).ok(), "StandAlone\n");
}

#[test]
fn a_daemon_that_was_killed_leaves_nothing_in_the_way_and_a_running_one_is_not_doubled() {
    let pair = Pair::new("");
    pair.adm("alpha", &["create-md", "r0"]).ok();
    pair.adm("alpha", &["up", "r0"]).ok();
    let first = pair.pid("alpha");
    let second = pair.command(env!("CARGO_BIN_EXE_polluxd"), "alpha").arg("r0").output();
    said(second).fails(20, &format!("process {}", first.expect("it runs")));
    pair.adm("alpha", &["up", "r0"]).ok();
    assert_eq!(pair.pid("alpha"), first, "`up` of what is up does nothing");
    pair.kill("alpha");
    assert!(pair.run_dir("alpha").join("r0.sock").exists(), "the test means a stale socket");
    pair.adm("alpha", &["status", "r0"]).fails(10, "not running");
    pair.adm("alpha", &["up", "r0"]).ok();
    assert_ne!(pair.pid("alpha"), first);
    pair.adm("alpha", &["down", "r0"]).ok();
    until("the daemon has ended", || !pair.is_running("alpha"));
    assert!(!pair.run_dir("alpha").join("r0.sock").exists());
    assert!(!pair.run_dir("alpha").join("r0.nbd").exists());
}

#[test]
fn a_disk_that_cannot_be_had_leaves_a_daemon_that_says_so() {
    let pair = Pair::new("");
    pair.adm("alpha", &["up", "r0"]).fails(10, "no metadata");
    let text = pair.adm("alpha", &["status", "r0"]).ok();
    assert!(text.contains("disk:Diskless"), "{text}");
    pair.adm("alpha", &["down", "r0"]).ok();
    // In the foreground, as under systemd, it comes up by itself and stays.
    let mut daemon = pair.command(env!("CARGO_BIN_EXE_polluxd"), "alpha");
    let mut daemon = daemon.arg("r0").stderr(Stdio::null()).spawn().expect("it starts");
    until("the daemon tells why it has no disk", || {
        pair.adm("alpha", &["status", "r0"]).out.contains("could not be attached")
    });
    pair.adm("alpha", &["create-md", "r0"]).ok();
    pair.adm("alpha", &["attach", "r0"]).ok();
    assert!(!pair.adm("alpha", &["status", "r0"]).ok().contains("could not be attached"));
    pair.signal("alpha", Signal::TERM);
    assert!(daemon.wait().expect("a status").success());
}

/// An NBD client that asks for the export and says how that went.
fn open_export(pair: &Pair, node: &str) -> Result<UnixStream, String> {
    let socket = pair.run_dir(node).join("r0.nbd");
    let mut stream = UnixStream::connect(socket).expect("the NBD server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).expect("a greeting");
    // Flags; then IHAVEOPT, GO, its length, the name, no information wanted.
    let mut go = vec![0, 0, 0, 3];
    go.extend(b"IHAVEOPT\0\0\0\x07\0\0\0\x08\0\0\0\x02r0\0\0");
    stream.write_all(&go).expect("sent");
    loop {
        let mut head = [0; 20];
        stream.read_exact(&mut head).expect("an answer");
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four"));
        let mut text = vec![0; number(16) as usize];
        stream.read_exact(&mut text).expect("all of the answer");
        match number(12) {
            1 => return Ok(stream),
            kind if kind >> 31 == 1 => return Err(String::from_utf8_lossy(&text).into_owned()),
            _ => {}
        }
    }
}

#[test]
fn a_client_of_a_secondary_is_refused_and_one_of_a_primary_must_go_when_it_steps_down() {
    let pair = Pair::in_sync("options { auto-promote no; }");
    let why = open_export(&pair, "beta").expect_err("beta is Secondary");
    assert!(why.contains("Secondary"), "{why}");
    let mut client = open_export(&pair, "alpha").expect("alpha is Primary");
    pair.adm("alpha", &["secondary", "r0"]).fails(11, "have the device open");
    pair.adm("alpha", &["down", "r0"]).fails(11, "have the device open");
    assert!(pair.adm("alpha", &["status", "r0"]).ok().contains("open:yes"));
    pair.adm("alpha", &["secondary", "--force", "r0"]).ok();
    let mut rest = Vec::new();
    assert_eq!(client.read_to_end(&mut rest).expect("the end of the stream"), 0);
    let why = open_export(&pair, "alpha").expect_err("alpha is Secondary now");
    assert!(why.contains("Secondary"), "{why}");
}

#[test]
fn auto_promote_follows_the_clients() {
    let pair = Pair::in_sync("");
    pair.adm("alpha", &["secondary", "r0"]).ok();
    until("beta has heard of it", || pair.adm("beta", &["role", "r0:alpha"]).ok() == "Secondary\n");
    let client = open_export(&pair, "beta").expect("beta becomes Primary");
    assert_eq!(pair.adm("beta", &["role", "r0"]).ok(), "Primary\n");
    let why = open_export(&pair, "alpha").expect_err("beta is Primary");
    assert!(why.contains("Primary"), "{why}");
    drop(client);
    until("beta is Secondary again", || pair.adm("beta", &["role", "r0"]).ok() == "Secondary\n");
}

#[test]
fn sigterm_takes_a_primary_down_in_good_order() {
    let pair = Pair::in_sync("");
    let mut client = open_export(&pair, "alpha").expect("alpha is Primary");
    pair.signal("alpha", Signal::TERM);
    until("alpha has ended", || !pair.is_running("alpha"));
    assert_eq!(client.read_to_end(&mut Vec::new()).expect("the end of the stream"), 0);
    // Not as after a crash: no Primary mark, nothing in the log.
    let ids = pair.adm("alpha", &["get-gi", "r0"]).ok();
    assert!(ids.contains(":1:1:0:0:1:"), "{ids}");
    until("beta knows", || pair.adm("beta", &["cstate", "r0"]).ok() != "Connected\n");
}

#[test]
fn the_control_socket_speaks_http_and_survives_nonsense() {
    let pair = Pair::new("");
    pair.adm("alpha", &["create-md", "r0"]).ok();
    pair.adm("alpha", &["up", "r0"]).ok();
    let ask = |request: &str| {
        let socket = pair.run_dir("alpha").join("r0.sock");
        let mut stream = UnixStream::connect(socket).expect("the daemon answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // It may hang up on nonsense before all was said, or heard.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let get =
        |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"));
    let post = |body: &str| {
        let head = "POST /command HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length:";
        ask(&format!("{head} {}\r\n\r\n{body}", body.len()))
    };
    let metrics = get("/metrics");
    let role = "pollux_resource_role{resource=\"r0\",role=\"Primary\"} 0\n";
    assert!(metrics.contains(role), "{metrics}");
    let to_beta = "pollux_connection_state{resource=\"r0\",peer=\"beta\",state=\"Connected\"} 0\n";
    assert!(metrics.contains(to_beta), "{metrics}");
    assert!(get("/status").contains("\"role\":\"Secondary\""));
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
    assert!(post("{").starts_with("HTTP/1.1 400"));
    assert!(post(r#"{"command":"explode"}"#).starts_with("HTTP/1.1 400"));
    assert!(post(r#"{"command":"primary","farce":true}"#).starts_with("HTTP/1.1 400"));
    let refused = post(r#"{"command":"primary"}"#);
    assert!(refused.starts_with("HTTP/1.1 409"), "{refused}");
    assert!(refused.contains(r#""kind":"no-up-to-date-data""#), "{refused}");
    assert!(post(&" ".repeat(1 << 20)).starts_with("HTTP/1.1 413"));
    ask("\0\u{1}\u{2} what\r\n\r\n");
    assert!(get("/status").starts_with("HTTP/1.1 200"), "it answers still");
}

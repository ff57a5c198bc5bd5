//! What the plugin says of a resource in each state: severity, text and numbers.

use super::verdict::{Report, Rules, Severity, judge};
use super::{Args, shown, worst};
use clap::Parser;
use serde_json::{Value, json};

fn healthy() -> Value {
    json!({
        "name": "r0", "role": "Primary", "suspended": false, "reason": null,
        "devices": [{
            "volume": 0, "disk-state": "UpToDate", "client": false, "size": 1024, "al-writes": 5,
            "bm-writes": 6, "reason": null,
        }],
        "connections": [{
            "name": "beta", "connection-state": "Connected", "peer-role": "Secondary", "reason": null,
            "peer_devices": [{
                "volume": 0, "replication-state": "Established", "peer-disk-state": "UpToDate",
                "peer-client": false, "out-of-sync": 0, "seconds-since-in-sync": 0,
            }],
        }],
    })
}

fn rules(words: &[&str]) -> Rules {
    Args::try_parse_from([&["check_pollux"], words].concat()).unwrap().rules
}

/// The resource after `changes` (where, and what is there then), judged.
fn judged(changes: &[(&str, Value)], words: &[&str]) -> Report {
    let mut status = healthy();
    for (place, value) in changes {
        *status.pointer_mut(place).unwrap() = value.clone();
    }
    judge(&status, &rules(words))
}

const DISK: &str = "/devices/0/disk-state";
const CONNECTION: &str = "/connections/0/connection-state";
const REPLICATION: &str = "/connections/0/peer_devices/0/replication-state";
const PEER_DISK: &str = "/connections/0/peer_devices/0/peer-disk-state";
const OUT_OF_SYNC: &str = "/connections/0/peer_devices/0/out-of-sync";
const AGE: &str = "/connections/0/peer_devices/0/seconds-since-in-sync";

#[test]
fn a_pair_in_sync_is_ok_in_one_line_with_its_numbers() {
    let report = judged(&[], &["-w", "10", "-c", "4096"]);
    assert_eq!(
        shown(&report, false),
        "POLLUX OK - r0 Primary UpToDate - beta Connected UpToDate | 'r0.primary'=1;;;0;1 \
         'r0.suspended'=0;;;0;1 'r0.0.up_to_date'=1;;;0;1 'r0.0.log_writes'=5c;;;0 \
         'r0.0.bitmap_writes'=6c;;;0 'r0.beta.connected'=1;;;0;1 'r0.beta.primary'=0;;;0;1 \
         'r0.0.beta.up_to_date'=1;;;0;1 'r0.0.beta.out_of_sync'=0B;10;4096;0;1048576 \
         'r0.0.beta.since_in_sync'=0s;;;0\n"
    );
    assert_eq!(worst(&report), Severity::Ok);
}

#[test]
fn each_state_has_its_severity_and_an_operator_may_say_another() {
    use Severity::{Critical, Ok, Warning};
    let disk = |state: &str| vec![(DISK, json!(state))];
    let away = |state: &str| {
        vec![
            (CONNECTION, json!(state)),
            (PEER_DISK, json!("DUnknown")),
            (REPLICATION, json!("Off")),
        ]
    };
    let held = |why: &str| {
        vec![("/suspended", json!(true)), ("/reason", json!(format!("I/O is held: {why}")))]
    };
    let cases = [
        (disk("Inconsistent"), &[][..], Critical, "r0: disk Inconsistent"),
        (disk("Outdated"), &[], Critical, "r0: disk Outdated"),
        (disk("Outdated"), &["--state", "disk:Outdated=ok"], Ok, "r0 Primary Outdated"),
        (disk("Diskless"), &[], Critical, "disk Diskless"),
        (disk("Imagined"), &[], Critical, "disk Imagined"),
        (away("Connecting"), &[], Warning, "beta Connecting"),
        (away("Connecting"), &["--state", "connection:Connecting=critical"], Critical, "beta"),
        (away("StandAlone"), &[], Critical, "beta StandAlone"),
        (vec![(REPLICATION, json!("SyncSource"))], &[], Warning, "SyncSource with beta"),
        (vec![(PEER_DISK, json!("Failed"))], &[], Warning, "beta's disk Failed"),
        (held("fencing"), &[], Critical, "I/O is held (fencing)"),
        (held("user"), &[], Critical, "I/O is held (user)"),
        (held("lease"), &[], Critical, "I/O is held (lease)"),
        (held("a new reason"), &[], Critical, "I/O is held (a new reason)"),
        (held("peer is slow"), &[], Ok, "r0 Primary UpToDate"),
        (vec![(OUT_OF_SYNC, json!(4))], &[], Ok, "'r0.0.beta.out_of_sync'=4096B;;;0;1048576"),
        (vec![(OUT_OF_SYNC, json!(4))], &["-w", "0"], Warning, "out_of_sync is 4096B (range 0)"),
        (vec![(OUT_OF_SYNC, json!(4))], &["-w", "0", "-c", "4000"], Critical, "range 4000"),
        (vec![(AGE, json!(90))], &["--behind-warning", "60"], Warning, "since_in_sync is 90s"),
        (vec![(AGE, json!(90))], &["--behind-critical", "60"], Critical, "'=90s;;60;0"),
        (vec![(AGE, json!(null))], &["--behind-critical", "60"], Ok, "r0 Primary"),
    ];
    for (changes, words, severity, text) in cases {
        let report = judged(&changes, words);
        let line = shown(&report, false);
        assert_eq!(worst(&report), severity, "{line}");
        assert!(line.starts_with(&format!("POLLUX {} - ", severity.word())), "{line}");
        assert!(line.contains(text), "no `{text}` in {line}");
    }
    // By configuration, not by failure.
    let client = [(DISK, json!("Diskless")), ("/devices/0/client", json!(true))];
    assert_eq!(worst(&judged(&client, &[])), Ok);
}

#[test]
fn a_reason_cannot_pass_for_numbers_or_for_another_line() {
    let why = "split brain with node 1: both hold writes | load=0\nPOLLUX OK; type this";
    let changes = [(CONNECTION, json!("StandAlone")), ("/connections/0/reason", json!(why))];
    let text = shown(&judged(&changes, &[]), true);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("POLLUX CRITICAL - r0: beta StandAlone (split brain with node 1)")
    );
    assert_eq!(lines[0].matches('|').count(), 1, "{text}");
    assert!(lines[1].starts_with("r0 Primary UpToDate - beta StandAlone"), "{text}");
    let all = "r0: beta: split brain with node 1: both hold writes / load=0 POLLUX OK; type this";
    assert_eq!(lines[2..], [all]);
}

#[test]
fn the_worst_is_told_first() {
    let changes = [(REPLICATION, json!("SyncTarget")), (DISK, json!("Inconsistent"))];
    let mut report = Report::default();
    report.problem(Severity::Unknown, "r1 is not running here".to_owned());
    report.add(judged(&changes, &[]));
    let text = shown(&report, false);
    let begin = "POLLUX CRITICAL - r0: disk Inconsistent, r1 is not running here, r0: SyncTarget";
    assert!(text.starts_with(begin), "{text}");
    assert_eq!(
        [Severity::Ok, Severity::Warning, Severity::Critical, Severity::Unknown]
            .map(Severity::exit_code),
        [0, 1, 2, 3]
    );
}

#[test]
fn wrong_options_are_refused() {
    for words in [
        &["--state", "connection:Away=ok"][..],
        &["--state", "down=fine"],
        &["-w", "20:10"],
        &["-t", "0"],
        &["r0/0"],
    ] {
        let args = Args::try_parse_from([&["check_pollux"], words].concat());
        assert!(args.is_err(), "{words:?}");
    }
}

//! The fence-peer handler for Heartbeat, with commands that stand in for ssh and for the device: what it answers, and how often it shoots.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use tests::real::process::{finish, text};
use tests::real::seconds;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/fence/pollux-fence-heartbeat");

struct Handler {
    dir: tempfile::TempDir,
    outdate: &'static str,
    shoot: &'static str,
    may_shoot: &'static str,
}

impl Handler {
    fn new(outdate: &'static str, shoot: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, outdate, shoot, may_shoot: "" }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        let count = self.dir.path().join("count");
        command
            .args(arguments)
            .env("POLLUX_RUN_DIR", self.dir.path())
            .env("COUNT", count)
            .env("POLLUX_OUTDATE", self.outdate)
            .env("POLLUX_SHOOT", format!("echo %p %r >> $COUNT; {}", self.shoot))
            .env("POLLUX_MAY_SHOOT", self.may_shoot)
            .env("POLLUX_OUTDATE_TIMEOUT", "1")
            .env("POLLUX_SHOOT_TIMEOUT", "1")
            .envs([("DRBD_PEER", "beta"), ("DRBD_RESOURCE", "r0")]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Option<i32> {
        let output = finish(&mut self.command(arguments));
        println!("{}", text(&output));
        output.status.code()
    }

    fn shots(&self) -> usize {
        let said = std::fs::read_to_string(self.dir.path().join("count")).unwrap_or_default();
        assert!(said.lines().all(|line| line == "beta r0"), "{said}");
        said.lines().count()
    }
}

#[test]
fn who_can_be_asked_is_not_shot() {
    for (outdate, code) in [("exit 0", 4), ("exit 5", 3), ("test %p:%r = beta:r0 && exit 17", 6)] {
        let handler = Handler::new(outdate, "exit 0");
        assert_eq!((handler.run(&[]), handler.shots()), (Some(code), 0), "{outdate}");
    }
    // "Connected", it says at first: it does not know of the loss yet.
    let handler = Handler::new("test -e $COUNT.2 && exit 0; touch $COUNT.2; exit 11", "exit 0");
    assert_eq!((handler.run(&[]), handler.shots()), (Some(4), 0));
}

#[test]
fn only_a_shot_that_succeeded_counts() {
    // Not reached, not obeyed, no answer.
    for outdate in ["exit 255", "exit 11", "sleep 100", ""] {
        for (shoot, code) in [("exit 0", 7), ("exit 2", 1), ("sleep 100", 1)] {
            let handler = Handler::new(outdate, shoot);
            let begin = Instant::now();
            assert_eq!((handler.run(&[]), handler.shots()), (Some(code), 1), "{outdate}, {shoot}");
            assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
        }
    }
    let mut handler = Handler::new("exit 255", "exit 0");
    handler.may_shoot = "false";
    assert_eq!((handler.run(&[]), handler.shots()), (Some(1), 0), "it is cut off itself");
    assert_eq!(handler.run(&["shoot", "beta"]), Some(1));
    handler.may_shoot = "true";
    assert_eq!((handler.run(&[]), handler.shots()), (Some(7), 1));
}

#[test]
fn one_shot_serves_heartbeat_and_pollux_until_the_peer_is_back() {
    let mut handler = Handler::new("exit 255", "sleep 0.3");
    // At the same time.
    let start = |words: &[&str]| {
        let mut command = handler.command(words);
        command.stdin(Stdio::null()).spawn().expect("it can be started")
    };
    let (mut one, mut other) = (start(&["shoot", "beta"]), start(&[]));
    let codes = [&mut one, &mut other].map(|child| child.wait().expect("our child").code());
    assert_eq!((codes, handler.shots()), ([Some(0), Some(7)], 1));
    // What was shot just now is not asked either.
    handler.outdate = "exit 17";
    assert_eq!((handler.run(&[]), handler.shots()), (Some(7), 1));
    // In sync again: what was known is over.
    assert_eq!(handler.run(&["unfence"]), Some(0));
    assert_eq!(handler.run(&["unfence"]), Some(0));
    assert_eq!((handler.run(&[]), handler.shots()), (Some(6), 1));
    assert_eq!((handler.run(&["shoot", "beta"]), handler.shots()), (Some(0), 2));
    // Long ago is no answer.
    let stamp = handler.dir.path().join("shots/beta");
    assert!(Path::new(&stamp).exists());
    std::fs::write(&stamp, "1\n").expect("a file");
    handler.outdate = "exit 255";
    handler.shoot = "exit 1";
    assert_eq!((handler.run(&[]), handler.shots()), (Some(1), 3));
    assert!(!stamp.exists(), "a failed shot leaves none");
}

/// A host that reaches nobody fences itself only if it is told how, is Primary, and its peer is not back.
#[test]
fn who_is_cut_off_as_primary_restarts_itself() {
    let mut handler = Handler::new("exit 255", "exit 0");
    handler.may_shoot = "false";
    let bin = handler.dir.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    let polluxadm = bin.join("polluxadm");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("one is set"));
    let restarted = handler.dir.path().join("restarted");
    let how = format!("touch {}", restarted.display());
    let run = |arguments: &[&str], how: &str| {
        let mut command = handler.command(arguments);
        command.env("PATH", &path).env("POLLUX_SELF_FENCE", how);
        command.env("POLLUX_SELF_FENCE_AFTER", "1").stdin(Stdio::null());
        let output = command.output().expect("it can be started");
        println!("{}", text(&output));
        (output.status.code(), std::fs::remove_file(&restarted).is_ok())
    };
    for (role, cstate, how, restarts) in [
        ("Primary", "Connecting", how.as_str(), true),
        ("Primary", "Connecting", "", false),
        ("Secondary", "Connecting", how.as_str(), false),
        ("Primary", "Connected", how.as_str(), false),
    ] {
        let script =
            format!("#!/bin/sh\ncase $1 in role) echo {role} ;; *) echo {cstate} ;; esac\n");
        std::fs::write(&polluxadm, script).expect("a file");
        std::fs::set_permissions(&polluxadm, PermissionsExt::from_mode(0o755)).expect("our own");
        assert_eq!(run(&[], how), (Some(1), restarts), "{role} {cstate} `{how}`");
    }
    assert_eq!(run(&["lost"], &how), (Some(0), true));
    assert_eq!(run(&["lost"], ""), (Some(1), false));
    assert_eq!(handler.shots(), 0);
}

#[test]
fn names_that_are_none_are_refused() {
    let handler = Handler::new("exit 0", "exit 0");
    for name in ["", "a b", "$(reboot)", "-f", "a/../b"] {
        let output = finish(handler.command(&[]).env("DRBD_PEER", name));
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
        assert_eq!(handler.run(&["shoot", name]), Some(1));
    }
    assert_eq!(handler.shots(), 0);
}

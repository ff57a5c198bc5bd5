//! What runs on top, of each kind: in order, back in reverse, looked at, bounded in time. `systemctl` and the mounter are played: only how
//! they are called is seen here; a real systemd has another test.

use crate::etcd::Etcd;
use crate::stage::{Process, Stage, lacks, wait_for};
use std::process::Command;

/// Writes down each call that changes something; a file `NAME.VERB` says what it does instead: `fail`, `hang`.
const PLAYED: &str = r#"#!/bin/sh
dir=$(dirname "$0") name=$(basename "$0") verb=$1
case $name in
  systemctl) [ "$2" = data.service ] || exit 64 ;;
  mounter) [ "$2 $3 $4 $5" = "$POLLUX_RESOURCE /srv/data ext4 noatime" ] || [ "$verb" != start ] || exit 64 ;;
esac
case $verb in status | is-active) verb=status ;; *) echo "$name $verb" >>"$dir/calls" ;; esac
case $(cat "$dir/$name.$verb" 2>/dev/null) in
  fail) echo "told to fail" >&2; exit 1 ;;
  hang) sleep 1000 & echo $! >"$dir/hangs"; wait ;;
esac
case $verb in
  start) : >"$dir/$name.runs" ;;
  stop) rm -f "$dir/$name.runs" ;;
  status) [ -e "$dir/$name.runs" ] || exit 3 ;;
esac
exit 0
"#;

struct Services {
    agent: Process,
    _etcd: Etcd,
    stage: Stage,
    _network: Process,
}

impl Services {
    /// One node, in a network of its own; all kinds of services.
    fn new(name: &str, more: &str) -> Option<Self> {
        const DUMMY: &str = "/usr/lib/ocf/resource.d/heartbeat/Dummy";
        if lacks(&["etcd", "etcdctl", "ip", "unshare", "nsenter", DUMMY]) || !is_root() {
            return None;
        }
        let mut stage = Stage::new(name, &["r0"]);
        for program in ["one", "mounter", "systemctl", "two"] {
            stage.put(program, 0o755, PLAYED);
        }
        let log = stage.dir.join("network");
        let words = ["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 1000"];
        let network = Process::start(Command::new("unshare").args(words), &log);
        wait_for("a network", 20, || stage.text("network").contains("ready"));
        let target = format!("--net=/proc/{}/ns/net", network.id());
        stage.inside = vec!["nsenter".into(), target, "--".into()];
        let etcd = Etcd::start(&stage, 1, false);
        let dir = stage.dir.display();
        stage.put("agent.toml", 0o600, &format!(
            "{}[resource.r0]\narbiter = \"etcd\"\ndead-time = 3\nmonitor = 0.3\nback-off = 2\nback-off-limit = 2\n{more}\nstart = [\n\
             {{ program = \"{dir}/one\", start-timeout = 2, stop-timeout = 2 }},\n\
             {{ mount = \"/srv/data\", type = \"ext4\", options = \"noatime\", mounter = \"{dir}/mounter\" }},\n\
             {{ address = \"10.9.8.7/32\", device = \"lo\" }},\n\
             {{ unit = \"data.service\", start-timeout = 2, stop-timeout = 2 }},\n\
             {{ ocf = \"ocf:heartbeat:Dummy\", parameters = {{ state = \"{dir}/dummy\" }} }},\n\
             {{ program = \"{dir}/two\", start-timeout = 2, stop-timeout = 2 }},\n]\n",
            etcd.toml()
        ));
        let agent = stage.agent(0);
        Some(Self { agent, _etcd: etcd, stage, _network: network })
    }

    fn calls(&self) -> String {
        self.stage.text("calls").trim().replace('\n', ", ")
    }

    fn has_address(&self) -> bool {
        let output = self.stage.command("ip").args(["-o", "address", "show", "dev", "lo"]).output();
        String::from_utf8_lossy(&output.expect("ip").stdout).contains("10.9.8.7/32")
    }

    fn runs(&self, wanted: bool) {
        let file = |name: &str| self.stage.dir.join(name).exists();
        for name in ["one.runs", "mounter.runs", "systemctl.runs", "two.runs", "dummy"] {
            assert_eq!(file(name), wanted, "{name}; {}", self.calls());
        }
        assert_eq!(self.has_address(), wanted);
    }

    fn failures(&self) -> u64 {
        self.stage.status(0, "r0")["failures"].as_u64().expect("it is counted")
    }

    fn said(&self, what: &str) {
        wait_for(what, 40, || self.stage.log(0).contains(what));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const UP: &str = "one start, mounter start, systemctl start, two start";
const DOWN: &str = "two stop, systemctl stop, mounter stop, one stop";

#[test]
fn all_kinds_go_up_in_order_and_down_in_reverse() {
    let Some(mut it) = Services::new("kinds", "") else { return };
    it.stage.wait(0, "r0", "active");
    it.runs(true);
    // What an earlier life may have left is stopped first.
    assert_eq!(it.calls(), format!("{DOWN}, {UP}"));
    it.agent.kill();
    it.agent = it.stage.agent(0);
    it.stage.wait(0, "r0", "active");
    it.runs(true);
    assert_eq!(it.calls(), format!("{DOWN}, {UP}"), "what runs is left alone");
    it.agent.signal("-TERM");
    assert_eq!(it.agent.ends(20), Some(0));
    it.runs(false);
    assert_eq!(it.calls(), format!("{DOWN}, {UP}, {DOWN}"));
    assert_eq!(it.stage.daemon("r0", 0).told, ["primary", "secondary"]);
}

#[test]
fn each_kind_is_looked_at() {
    let Some(it) = Services::new("looks", "") else { return };
    let deaths = [
        ("/two does not run", "rm two.runs"),
        ("ocf:heartbeat:Dummy does not run", "rm dummy"),
        ("data.service does not run", "rm systemctl.runs"),
        ("/srv/data does not run", "rm mounter.runs"),
        ("10.9.8.7/32 does not run", "ip address del 10.9.8.7/32 dev lo"),
    ];
    for (n, (said, strike)) in deaths.into_iter().enumerate() {
        it.stage.wait(0, "r0", "active");
        it.runs(true);
        let mut shell = it.stage.command("sh");
        let ended = shell.args(["-c", strike]).current_dir(&it.stage.dir).status();
        assert!(ended.expect("sh").success(), "{strike}");
        it.said(said);
        // Given back in good order; after the back-off nobody else has taken it.
        wait_for("the demotion", 20, || it.stage.daemon("r0", 0).told.len() == 2 * n + 2);
        assert_eq!(it.stage.daemon("r0", 0).told.last().expect("one"), "secondary");
        it.runs(false);
    }
}

#[test]
fn what_fails_or_hangs_is_bounded() {
    let Some(it) = Services::new("fails", "") else { return };
    it.stage.wait(0, "r0", "active");
    assert_eq!(it.failures(), 0);
    for (what, said) in [("fail", "told to fail"), ("hang", "did not end in 2 s and was killed")] {
        // A start: what was started before is stopped again, the lock given back, and after the back-off it is tried again.
        let failures = it.failures();
        it.stage.put("systemctl.start", 0o600, what);
        assert_eq!(it.stage.cli(0, &["standby"]).0, Some(0));
        wait_for("it has handed over", 20, || it.stage.is(0, "r0", "waiting"));
        assert_eq!(it.stage.cli(0, &["unstandby"]).0, Some(0));
        it.said(&format!(
            "services could not be started: data.service: {}",
            if what == "fail" { "exit code 1: told" } else { "systemctl did not end" }
        ));
        it.said(said);
        wait_for("it is stopped again", 20, || it.stage.is(0, "r0", "waiting"));
        it.runs(false);
        assert_eq!(it.failures(), failures + 1);
        std::fs::remove_file(it.stage.dir.join("systemctl.start")).expect("ours");
        it.stage.wait(0, "r0", "active");

        // A stop: the device is taken away by force, and it is stopped once more.
        it.stage.put("two.stop", 0o600, what);
        assert_eq!(it.stage.cli(0, &["standby"]).0, Some(0));
        wait_for("force", 20, || {
            it.stage.daemon("r0", 0).told.last().is_some_and(|told| told == "secondary --force")
        });
        std::fs::remove_file(it.stage.dir.join("two.stop")).expect("ours");
        wait_for("all is stopped", 20, || it.stage.is(0, "r0", "waiting"));
        assert_eq!(it.stage.cli(0, &["unstandby"]).0, Some(0));
        it.stage.wait(0, "r0", "active");
        it.runs(true);
    }
    // A look that hangs is one that failed; what it started is gone with it.
    let _ = std::fs::remove_file(it.stage.dir.join("hangs"));
    it.stage.put("one.status", 0o600, "hang");
    wait_for("it hangs", 20, || it.stage.text("hangs").ends_with('\n'));
    let stat = format!("/proc/{}/stat", it.stage.text("hangs").trim());
    it.said("one did not end in 20 s and was killed");
    wait_for("its child is killed", 20, || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_demotion_that_is_refused_ends_in_self_fencing() {
    let file = std::env::temp_dir().join(format!("pollux-fenced-{}", std::process::id()));
    let line = format!("self-fence = \"echo fenced >>{}\"", file.display());
    let Some(it) = Services::new("stuck", &line) else { return };
    it.stage.wait(0, "r0", "active");
    let fenced = || std::fs::read_to_string(&file).unwrap_or_default();
    it.stage.daemons().get_mut("r0").expect("played")[0].refuses_demotion = true;
    assert_eq!(it.stage.cli(0, &["standby"]).0, Some(0));
    wait_for("the shell line", 20, || !fenced().is_empty());
    assert_eq!(it.stage.daemon("r0", 0).told, ["primary", "secondary", "secondary --force"]);
    // Its lock is not renewed and not given back: it ends after the lease that the daemon has.
    let lease = it.stage.daemon("r0", 0).lease;
    wait_for("the end of the lock", 20, || it.stage.status(0, "r0")["lock"] == "Free");
    assert_eq!(it.stage.daemon("r0", 0).lease, lease);
    assert!(it.stage.is(0, "r0", "stuck"));
    // It is tried again.
    it.stage.daemons().get_mut("r0").expect("played")[0].refuses_demotion = false;
    wait_for("demoted at last", 20, || it.stage.is(0, "r0", "waiting"));
    assert_eq!(fenced(), "fenced\n");
    std::fs::remove_file(&file).expect("ours");
}

#[test]
fn who_is_ill_does_not_serve() {
    let dir = std::env::temp_dir();
    let ill = dir.join(format!("pollux-ill-{}", std::process::id()));
    let health = format!(
        "health = {{ program = \"case $(cat {0} 2>/dev/null) in ill) echo I am ill; exit 1 ;; hang) sleep 1000 ;; esac\", interval = 0.3, failures = 2 }}",
        ill.display()
    );
    let Some(it) = Services::new("health", &health) else { return };
    for (what, said) in
        [("ill", "exit code 1: I am ill"), ("hang", "sh did not end in 0.3 s and was killed")]
    {
        it.stage.wait(0, "r0", "active");
        std::fs::write(&ill, what).expect("a file");
        it.said(said);
        wait_for("it hands over", 20, || it.stage.is(0, "r0", "waiting"));
        assert!(!it.stage.daemon("r0", 0).primary);
        it.runs(false);
        let unfit = it.stage.status(0, "r0")["unfit"].to_string();
        assert!(unfit.contains(said), "{unfit}");
        wait_for("why", 20, || it.stage.status(0, "r0")["why"] == "this node is not healthy");
        std::fs::remove_file(&ill).expect("ours");
    }
    it.stage.wait(0, "r0", "active");
    it.runs(true);
}

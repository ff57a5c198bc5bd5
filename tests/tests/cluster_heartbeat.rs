//! Real Heartbeat with real faults, configured as docs/cookbook/heartbeat.md says: one Primary at the end, nothing lost that was
//! acknowledged, the pair in sync again without hands, and Pollux' part of the takeover below a second.

use std::time::{Duration, SystemTime};
use tests::cluster::power::Mood;
use tests::cluster::records::mark;
use tests::cluster::stack::{HEARTBEAT, start_heartbeat};
use tests::cluster::stage::R0;
use tests::cluster::{Cable, Host, Manager, Pair, Stage};
use tests::cookbook::Recipe;
use tests::real::{Need, seconds};

/// Writes down when Heartbeat came to it: `mark::NAME` in haresources.
const MARK: &str = r#"#!/bin/sh
case $2 in
  start) echo "$1 $(date +%s.%N)" >>/var/log/marks; : >"/run/mark.$1" ;;
  stop) rm -f "/run/mark.$1" ;;
  status) if [ -e "/run/mark.$1" ]; then echo running; else echo stopped; fi ;;
esac
exit 0
"#;

/// A stand-in for ssh: commands that another node runs here, over the clients' network.
const SSH: &str = r#"#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
host=$1
shift
exec /mnt/lab/lab ask "$(sed -n "s/^\([0-9.]*\) $host\$/\1/p" /etc/hosts):22" "$@"
"#;

struct Heartbeat;

impl Manager for Heartbeat {
    const NAME: &'static str = "Heartbeat";
    const SCRIPT_AT: &'static str = "/etc/ha.d/resource.d/records";

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::File(HEARTBEAT),
            Need::File("/etc/ha.d/resource.d/IPaddr2"),
            Need::File("/usr/lib/stonith/plugins/external"),
            Need::Program("ping"),
        ]
    }

    fn page(&self) -> Recipe {
        let device = "fence_ipmilan --ip=%p-ipmi --username=admin --password-script=/etc/pollux/ipmi-password --lanplus --action=reboot";
        Recipe::read("heartbeat")
            .with(device, "/mnt/lab/lab power off %p'\nPOLLUX_SHOOT_TIMEOUT='5")
            .with("echo b >/proc/sysrq-trigger", "/mnt/lab/lab power restart-myself $(uname -n)")
            .with(" pollux::", " mark::called pollux::")
            .with(
                " IPaddr2::10.0.0.100/24/eth0",
                " mark::mounted IPaddr2::10.0.0.100/24/eth0 records",
            )
    }

    fn prepare(&self, pair: &Pair, page: &Recipe) {
        for host in pair.nodes() {
            host.put("/etc/ha.d/resource.d/mark", 0o755, MARK);
            host.put("/usr/bin/ssh", 0o755, SSH);
            page.later("shellfuncs", host);
        }
    }

    fn begin(&self, pair: &Pair, page: &Recipe) {
        for host in pair.nodes() {
            host.adm_must(&["down", R0]);
            self.boot(host);
        }
        page.assert_all_played(&pair.nodes());
    }

    fn boot(&self, host: &Host) {
        boot_daemon(host);
        let unit = host.text("/etc/systemd/system/heartbeat.service.d/pollux.conf");
        let before = unit.lines().find_map(|line| line.strip_prefix("ExecStartPre=/bin/sh -c '"));
        start_heartbeat(host, before.and_then(|line| line.strip_suffix("'")).expect("quoted"));
    }

    fn wait_settled(&self, pair: &Pair) {
        for host in pair.nodes() {
            host.wait("Heartbeat to be settled", seconds(60), || {
                let ask = |words: &[&str]| host.run(&[&["cl_status"], words].concat()).out;
                let other = pair.other(host).name();
                let hears = |link| ask(&["hblinkstatus", other, link]).trim() == "up";
                ["alpha", "beta"].iter().all(|n| ask(&["nodestatus", n]).trim() == "active")
                    && ["all", "local", "foreign", "none"].contains(&ask(&["rscstatus"]).trim())
                    && hears("eth0")
                    && hears("eth1")
            });
        }
    }

    fn parts(&self, since: SystemTime, to: &Host, _silence: Duration) -> (Duration, Duration) {
        let called = mark(to, "called");
        let ours = mark(to, "mounted").duration_since(called).expect("in this order");
        (called.duration_since(since).expect("called after the fault"), ours)
    }

    fn end(&self, pair: &Pair) {
        let (active, passive) = pair.roles();
        for host in [passive, active] {
            if !host.pids("heartbeat").is_empty() {
                host.must(&[HEARTBEAT, "-k"]);
            }
        }
        active.wait("the release of everything", seconds(30), || !active.is_primary(R0));
    }
}

/// What init does before it starts Heartbeat.
fn boot_daemon(host: &Host) {
    host.start_unit("polluxd", "pollux@", R0);
    let address = if host.name() == "alpha" { "10.0.0.1:22" } else { "10.0.0.2:22" };
    host.spawn("sshd", &["/mnt/lab/lab", "obey", address]);
}

#[test]
fn the_active_node_dies_or_is_cut_off() {
    let Some(stage) = Stage::new(Heartbeat) else { return };
    stage.shot("power off", Host::power_off);
    stage.shot("kill -9 of everything", |host| assert!(host.kill_all() > 5));
    stage.shot("SIGSTOP of everything", Host::stop_all);
    for (what, cable) in [("both cables out", Cable::Out), ("nobody hears it", Cable::Mute)] {
        let (active, other) = stage.takeover(what, |host| stage.cut(host, cable));
        assert!(!active.is_on() && other.is_on(), "{what}: the wrong one was shot");
        stage.cut(active, Cable::In);
        stage.boot(active);
        stage.wait_back(other);
    }
    // It hears nobody, but is heard: to itself the other is dead, and it may not shoot, since it does not reach the router; the other sees
    // nothing wrong. So it restarts itself.
    let (active, other) = stage.takeover("it hears nobody", |active| {
        stage.cut(active, Cable::Deaf);
        active.wait_status(R0, "I/O is held", seconds(20), |status| status.suspended);
    });
    assert!(!active.is_on() && other.is_on());
    assert_eq!(stage.switch.restarted_themselves(), [active.name()]);
    // Still deaf, it does not join, and harms nobody. It follows as soon as it hears.
    let shot = stage.switch.shot().len();
    stage.boot(active);
    active.wait_status(R0, "it looks for the other", seconds(20), |s| !s.is_connected());
    stage.writer.wait_for_more(100, seconds(60));
    assert!(active.pids("heartbeat").is_empty());
    stage.cut(active, Cable::In);
    stage.wait_back(other);
    let now = (stage.switch.shot().len(), stage.switch.restarted_themselves().len());
    assert_eq!(now, (shot, 1));
    stage.end();
}

#[test]
fn what_was_stopped_and_goes_on_finds_itself_replaced() {
    let Some(stage) = Stage::new(Heartbeat) else { return };
    // Shot, it could not go on; so the device lies. Only Pollux is left to see to it that no two write.
    stage.switch.set_mood(Mood::Lies);
    let (active, other) = stage.takeover("SIGSTOP of everything, not shot", Host::stop_all);
    active.continue_all();
    // It has the address, the file system and its service still; but nothing it is told is acknowledged any more: `end` would miss it.
    // Heartbeat cannot know better, since both believed the device.
    active.wait("it restarts itself", seconds(20), || !active.is_on());
    assert_eq!(stage.switch.restarted_themselves(), [active.name()]);
    // The client forgets where the address was announced last, as it would after half a minute.
    stage.client.must(&["ip", "neigh", "flush", "all"]);
    stage.writer.wait_for_more(3, seconds(60));
    stage.boot(active);
    stage.wait_back(other);
    stage.end();
}

#[test]
fn what_is_no_reason_to_shoot_anybody() {
    let Some(stage) = Stage::new(Heartbeat) else { return };
    // The replication cable alone: the other is outdated through the clients' network.
    let (active, other) = stage.roles();
    stage.cluster.cable(active, 1, Cable::Out);
    other.wait_status(R0, "it is outdated", seconds(20), |status| status.disk == "Outdated");
    stage.writer.wait_for_more(3, seconds(20));
    assert_eq!(other.adm(&["primary", R0]).code, Some(17));
    stage.cluster.cable(active, 1, Cable::In);
    stage.wait_back(active);

    // The daemon alone is stopped for longer than its peer is patient, and continued.
    assert_eq!(active.stop(&["polluxd"]), 1);
    other.wait_status(R0, "the loss", seconds(20), |status| !status.is_connected());
    active.continue_all();
    stage.writer.wait_for_more(3, seconds(20));
    stage.wait_back(active);

    // Orderly, there and back.
    for _ in 0..2 {
        let standby = ["/usr/share/heartbeat/hb_standby", "all"];
        stage.takeover("hb_standby", |host| drop(host.must(&standby)));
        stage.wait_settled();
    }
    assert!(stage.switch.shot().is_empty(), "{:?}", stage.switch.shot());
    stage.end();
}

#[test]
fn without_fencing_nobody_takes_over_and_after_a_cold_start_one_does() {
    let Some(stage) = Stage::new(Heartbeat) else { return };
    let failures = |host: &Host| host.log_text("ha-log").matches("ERROR: STONITH of ").count();
    // The passive node dies: the Primary answers nobody. Its own handler tries once; then a shot of Heartbeat's counts for it too.
    let (active, other) = stage.roles();
    stage.switch.set_mood(Mood::Fails);
    other.power_off();
    active.wait_status(R0, "its handler has failed", seconds(20), |status| {
        status.suspended && status.json.contains("fence-peer failed")
    });
    let acknowledged = stage.writer.acknowledged().len();
    active.wait("Heartbeat fails to shoot, twice", seconds(40), || failures(active) >= 2);
    assert_eq!(stage.writer.acknowledged().len(), acknowledged, "acknowledged without fencing");
    stage.switch.set_mood(Mood::Works);
    stage.writer.wait_for_more(3, seconds(40));
    stage.boot(other);
    stage.wait_back(active);

    for mood in [Mood::Fails, Mood::Hangs] {
        stage.fencing_is_broken(mood, |other| {
            let before = failures(other);
            let failed = || failures(other) >= before + 2;
            other.wait("Heartbeat fails to shoot, twice", seconds(40), failed);
            // Nor by hand, as long as it is not said with force.
            let refused = other.adm(&["primary", R0]);
            assert!(refused.said.contains("fence-peer"), "{:?} {}", refused.code, refused.said);
        });
    }
    stage.cold_start();
    stage.end();
}

//! Real Corosync and Pacemaker with real faults, configured as docs/cookbook/pacemaker.md says: one Primary at the end, nothing lost that was
//! acknowledged, the pair in sync again without hands, and Pollux' part of the takeover below a second.

use std::time::{Duration, SystemTime};
use tests::cluster::power::Mood;
use tests::cluster::records::mark;
use tests::cluster::stage::R0;
use tests::cluster::{Cable, Host, Manager, Pair, Stage};
use tests::cookbook::Recipe;
use tests::real::{Need, seconds};

const CONSTRAINT: &str = "//rsc_location[@id='pollux-fence-r0']";

/// A fence agent whose device is the power switch of the lab. Asked for its metadata also as an ordinary user.
const FENCE_LAB: &str = r#"#!/bin/sh
action=off node=
while read -r line; do
  case $line in
    action=*) action=${line#action=} ;;
    port=* | plug=* | nodename=*) node=${line#*=} ;;
  esac
done
case $action in
  metadata)
    cat <<X
<?xml version="1.0"?>
<resource-agent name="fence_lab" shortdesc="Switches simulated hosts off">
<longdesc>Switches simulated hosts off.</longdesc>
<vendor-url></vendor-url>
<parameters>
<parameter name="action" unique="0" required="1"><getopt mixed="-o"/><content type="string" default="off"/><shortdesc lang="en">action</shortdesc></parameter>
<parameter name="port" unique="0" required="0"><getopt mixed="-n"/><content type="string"/><shortdesc lang="en">host</shortdesc></parameter>
</parameters>
<actions>
<action name="on" automatic="0"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/>
<action name="list"/><action name="metadata"/><action name="validate-all"/>
</actions>
</resource-agent>
X
    ;;
  off | reboot)
    echo "asked $node" >>/mnt/lab/fence.log
    /mnt/lab/lab power off "$node" && exit 0
    exit 1
    ;;
  status) if [ "$(/mnt/lab/lab power status "$node")" = on ]; then exit 0; else exit 2; fi ;;
  monitor | list | validate-all) ;;
  *) exit 1 ;;
esac
exit 0
"#;

/// Saves a new cluster the 20 s that it waits for its first election.
const CIB: &str = r#"<cib validate-with="pacemaker-3.7" admin_epoch="0" epoch="1" num_updates="0"><configuration><crm_config><cluster_property_set id="cib-bootstrap-options"><nvpair id="cib-bootstrap-options-dc-deadtime" name="dc-deadtime" value="2s"/></cluster_property_set></crm_config><nodes/><resources/><constraints/></configuration><status/></cib>"#;

struct Pacemaker {
    stonith: bool,
}

const SHOOTS: Pacemaker = Pacemaker { stonith: true };

impl Manager for Pacemaker {
    const NAME: &'static str = "Pacemaker";
    const SCRIPT_AT: &'static str = "/etc/init.d/records";

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::Program("corosync"),
            Need::Program("pacemakerd"),
            Need::Program("crm"),
            Need::Program("crm_mon"),
            Need::File("/usr/lib/ocf/resource.d/heartbeat/IPaddr2"),
        ]
    }

    fn page(&self) -> Recipe {
        let device = |name| {
            format!(
                "stonith:fence_ipmilan params ip={name}-ipmi username=admin password=secret lanplus=1"
            )
        };
        let lab = "stonith:fence_lab params pcmk_reboot_action=off pcmk_reboot_timeout=10s pcmk_off_timeout=10s";
        let page = Recipe::read("pacemaker")
            .with(&device("alpha"), lab)
            .with(&device("beta"), lab)
            .with("group service files address", "primitive records lsb:records op monitor interval=5s\ngroup service files address records")
            // A namespace gives nobody real time.
            .with("logging {", "system {\n  sched_rr: no\n}\nlogging {");
        match self.stonith {
            true => page,
            false => page
                .with("stonith-enabled=true", "stonith-enabled=false")
                .with("fencing resource-and-stonith;", "fencing resource-only;"),
        }
    }

    fn prepare(&self, pair: &Pair, _page: &Recipe) {
        for host in pair.nodes() {
            host.put("/etc/corosync/authkey", 0o400, [7; 256]);
            host.put("/usr/sbin/fence_lab", 0o755, FENCE_LAB);
            host.put("/var/lib/pacemaker/cib/cib.xml", 0o600, CIB);
            host.must(&["chown", "-R", "hacluster:haclient", "/var/lib/pacemaker"]);
            host.must(&["mkdir", "-p", "/var/log/corosync"]);
        }
    }

    fn begin(&self, pair: &Pair, page: &Recipe) {
        for host in pair.nodes() {
            page.later("then", host);
            self.boot(host);
        }
        wait_online(pair);
        page.later("load", &pair.alpha);
        page.assert_all_played(&pair.nodes());
    }

    fn boot(&self, host: &Host) {
        host.must(&["mkdir", "-p", "/run/corosync", "/run/crm"]);
        host.spawn("corosync", &["corosync", "-f"]);
        host.wait("corosync", seconds(20), || host.run(&["corosync-cfgtool", "-s"]).is_ok());
        let pacemaker = ["env", "PCMK_logfile=/var/log/pacemaker.log", "pacemakerd"];
        host.spawn("pacemakerd", &pacemaker);
    }

    fn wait_settled(&self, pair: &Pair) {
        wait_online(pair);
        let one = &pair.alpha;
        one.wait("nobody to be barred", seconds(60), || !is_barred(one));
        one.wait("both scores", seconds(60), || {
            view(one).matches("name=\"master-r0\" value=\"10000\"").count() == 2
        });
        wait_idle(one);
    }

    fn parts(&self, since: SystemTime, to: &Host, _silence: Duration) -> (Duration, Duration) {
        let all = mark(to, "started").duration_since(since).expect("started after the fault");
        wait_idle(to);
        let view = view(to);
        let ours = took(&view, to, "r0", "promote") + took(&view, to, "files", "start");
        (all.saturating_sub(ours), ours)
    }

    fn end(&self, pair: &Pair) {
        pair.alpha.must(&["crm_attribute", "--name", "stop-all-resources", "--update", "true"]);
        wait_idle(&pair.alpha);
        for host in pair.nodes() {
            host.wait("the end of the daemon", seconds(60), || host.pids("polluxd").is_empty());
        }
    }
}

fn wait_online(pair: &Pair) {
    for host in pair.nodes() {
        host.wait("both nodes to be online", seconds(60), || {
            ["alpha", "beta"].iter().all(|name| {
                let line = format!("<node name=\"{name}\" id=");
                let is = |l: &str| l.contains(&line) && l.contains("online=\"true\"");
                view(host).lines().any(is)
            })
        });
    }
}

/// Until Pacemaker has nothing to do.
fn wait_idle(host: &Host) {
    host.must(&["crm_resource", "--wait", "--timeout=60s"]);
}

/// The cluster as this host sees it; empty if it sees none.
fn view(host: &Host) -> String {
    host.run(&["timeout", "10", "crm_mon", "-1", "-A", "--output-as=xml"]).out
}

fn is_barred(host: &Host) -> bool {
    // 105: there is no such thing. What cannot be read may be there.
    host.run(&["timeout", "10", "cibadmin", "-Q", "--xpath", CONSTRAINT]).code != Some(105)
}

/// How long the last such operation took on a host.
fn took(view: &str, host: &Host, resource: &str, task: &str) -> Duration {
    let history = view.split_once("<node_history>").expect("a history").1;
    let node =
        history.split("<node name=").find(|n| n.starts_with(&format!("\"{}\"", host.name())));
    let resource = format!("<resource_history id=\"{resource}\"");
    let of = node.and_then(|node| node.split_once(&resource)).expect("its history").1;
    let of = of.split("</resource_history>").next().unwrap_or_default();
    let line = of.lines().find(|line| line.contains(&format!("task=\"{task}\"")));
    let line = line.unwrap_or_else(|| panic!("no {task} in {of}"));
    let time = line.split_once("exec-time=\"").and_then(|(_, rest)| rest.split_once("ms\""));
    let time = time.and_then(|(time, _)| time.parse().ok());
    Duration::from_millis(time.expect("a time in milliseconds"))
}

/// The replication cable alone breaks: the other is barred, and the service goes on.
fn cut_replication(stage: &Stage<Pacemaker>) {
    let (active, _) = stage.roles();
    let since = SystemTime::now();
    stage.cluster.cable(active, 1, Cable::Out);
    active.wait("the other to be barred", seconds(30), || is_barred(active));
    stage.writer.wait_for_more(3, seconds(20));
    println!("replication cut: silence {:.2?}", stage.writer.longest_silence(since));
}

#[test]
fn the_active_node_dies() {
    let Some(stage) = Stage::new(SHOOTS) else { return };
    for what in ["power off", "kill -9 of everything", "SIGSTOP of everything"] {
        let (lost, to) = stage.takeover(what, |host| match what {
            "power off" => host.power_off(),
            "SIGSTOP of everything" => host.stop_all(),
            _ => assert!(host.kill_all() > 8),
        });
        // It was shot, so that it is of no use to go on with it.
        assert!(!lost.is_on(), "{what}: {} was not shot", lost.name());
        assert!(is_barred(to), "{what}: nobody must be promoted before the resync");
        stage.boot(lost);
        stage.wait_back(to);
    }
    // The device lies: what was stopped goes on, and finds itself replaced.
    stage.switch.set_mood(Mood::Lies);
    let (stopped, to) = stage.takeover("SIGSTOP of everything, not shot", Host::stop_all);
    stopped.continue_all();
    stopped.wait_status(R0, "it steps down", seconds(30), |status| status.role == "Secondary");
    stage.wait_back(to);
    stage.end();
}

#[test]
fn the_nodes_cannot_see_each_other() {
    let Some(stage) = Stage::new(SHOOTS) else { return };
    // The delay is in favour of the one with the service; where only one direction is cut, elections may take longer than that.
    for cable in [Cable::Out, Cable::Mute, Cable::Deaf] {
        stage.one_is_shot(&format!("the passive: {cable:?}"), stage.roles().1, cable);
        stage.one_is_shot(&format!("the active: {cable:?}"), stage.roles().0, cable);
    }
    stage.end();
}

#[test]
fn what_is_no_reason_to_shoot_anybody() {
    let Some(stage) = Stage::new(SHOOTS) else { return };
    let (active, other) = stage.roles();
    cut_replication(&stage);
    let refused = other.adm(&["primary", R0]);
    assert_ne!(refused.code, Some(0), "the other is promoted by hand: {}", refused.said);
    // Nor does the cluster do it, whatever it is told.
    active.run(&["crm_resource", "--move", "--promoted", "-r", "r0-clone", "-N", other.name()]);
    wait_idle(active);
    assert!(!other.is_primary(R0), "what is barred was promoted");
    active.must(&["crm_resource", "--clear", "-r", "r0-clone"]);
    stage.cluster.cable(active, 1, Cable::In);
    stage.writer.wait_for_more(3, seconds(60));
    stage.wait_settled();

    // The daemon alone is killed, or stopped for ever.
    for signal in ["KILL", "STOP"] {
        let (active, _) = stage.roles();
        let daemon = active.pids("polluxd");
        let since = SystemTime::now();
        active.must(&["kill", &format!("-{signal}"), &daemon[0].to_string()]);
        active.wait("the end of the daemon", seconds(90), || active.pids("polluxd") != daemon);
        stage.writer.wait_for_more(3, seconds(90));
        let silence = stage.writer.longest_silence(since);
        println!("daemon {signal}: silence {silence:.2?}");
        // A monitor's interval and the recovery: what cannot be unmounted is not waited for.
        assert!(silence < seconds(20), "{silence:?}");
        stage.wait_settled();
    }

    // Orderly, there and back.
    for way in ["standby", "move"] {
        let (active, other) = stage.roles();
        let node = ["crm", "node", way, active.name()];
        let role = ["crm_resource", "--move", "--promoted", "-r", "r0-clone", "-N", other.name()];
        stage.takeover(way, |host| {
            host.must(if way == "standby" { &node } else { &role });
        });
        match way {
            "standby" => active.must(&["crm", "node", "online", active.name()]),
            _ => active.must(&["crm_resource", "--clear", "-r", "r0-clone"]),
        };
        stage.wait_back(other);
    }
    assert!(stage.switch.shot().is_empty(), "{:?}", stage.switch.shot());
    stage.end();
}

#[test]
fn without_fencing_nobody_takes_over_and_after_a_cold_start_one_does() {
    let Some(stage) = Stage::new(SHOOTS) else { return };
    let log = stage.cluster.shared().join("fence.log");
    let asked = || std::fs::read_to_string(&log).unwrap_or_default().matches("asked").count();
    for mood in [Mood::Fails, Mood::Hangs] {
        stage.fencing_is_broken(mood, |other| {
            let before = asked();
            // The second one is asked after the first has failed.
            other.wait("the shot to fail", seconds(60), || asked() >= before + 2);
        });
    }
    stage.cold_start();
    stage.end();
}

#[test]
fn without_stonith() {
    let Some(stage) = Stage::new(Pacemaker { stonith: false }) else { return };
    let (active, other) = stage.roles();
    cut_replication(&stage);
    // While it is, the active node dies: what the other has is old, and nobody may serve that.
    active.power_off();
    other.wait("the loss", seconds(30), || view(other).contains("online=\"false\""));
    wait_idle(other);
    assert!(!other.is_primary(R0), "outdated, and promoted");
    stage.cluster.cable(active, 1, Cable::In);
    stage.boot(active);
    stage.wait_serves(&stage.nodes());
    stage.wait_settled();

    let (lost, to) = stage.takeover("power off", Host::power_off);
    stage.boot(lost);
    stage.wait_back(to);
    stage.cold_start();
    assert!(stage.switch.shot().is_empty(), "{:?}", stage.switch.shot());
    stage.end();
}

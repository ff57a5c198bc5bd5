//! `pollux-agent` with a real etcd and real faults, configured as docs/cookbook/agent.md says: one Primary at the end, nothing lost that
//! was acknowledged, the pair in sync again without hands, and the takeover within the dead time and two seconds.

use std::time::{Duration, SystemTime};
use tests::cluster::power::Mood;
use tests::cluster::records::{SERVICE, Writer, mark};
use tests::cluster::stage::R0;
use tests::cluster::{Cable, Host, Manager, Pair, Stage};
use tests::cookbook::Recipe;
use tests::real::{Need, seconds};

/// The `dead-time` of the page, and what the agent adds to it at most, by what it promises (agent/tests/decide has the proof, without a clock).
const LIMIT: Duration = seconds(3 + 2);

/// Who decides; and whether the lost node is turned off too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Etcd,
    EtcdAndStonith,
    Fencing,
}

impl Manager for Agent {
    const NAME: &'static str = "the agent";
    const CLIENT: (&'static str, &'static str) = ("gamma", "10.0.0.3/24");
    const SCRIPT_AT: &'static str = "/usr/local/sbin/records";

    fn needs(&self) -> Vec<Need> {
        vec![Need::Program("etcd"), Need::Program("arping")]
    }

    fn page(&self) -> Recipe {
        Recipe::read("agent")
            .with("unit = \"my-database.service\"", "program = \"/usr/local/sbin/records\"")
            .with("arbiter =", "back-off = 2\nback-off-limit = 8\narbiter =")
            .with("ssh hypervisor virsh destroy %p", "/mnt/lab/lab power off %p")
            .with(
                "ssh hypervisor virsh domstate %p | grep -q 'shut off' && exit 2 || exit 0",
                "case $(/mnt/lab/lab power status %p) in off) exit 2 ;; on) exit 0 ;; esac; exit 1",
            )
            // As the nodes' disks, in memory: what else this machine writes is no part of a takeover.
            .with("--data-dir /var/lib/etcd", "--data-dir /mnt/disk/etcd")
            // A switch that fails is to be believed sooner than in life.
            .with("plug =", "wait = \"1\"\nplug =")
            .with("timeout = 30", "timeout = 5")
    }

    fn prepare(&self, pair: &Pair, page: &Recipe) {
        if *self != Self::Fencing {
            pair.client.spawn("etcd", &["sh", "-ec", &page.text("gamma")]);
        }
    }

    fn begin(&self, pair: &Pair, page: &Recipe) {
        let agent = match self {
            Self::Etcd => page.text("/etc/pollux/agent.toml"),
            Self::EtcdAndStonith => page.text("/etc/pollux/agent.toml") + &page.text("stonith"),
            Self::Fencing => page.text("fencing") + &page.text("stonith"),
        };
        for host in pair.nodes() {
            host.put("/etc/pollux/agent.toml", 0o600, &agent);
            host.adm_must(&["down", R0]);
            page.later("check", host);
            self.boot(host);
        }
    }

    fn boot(&self, host: &Host) {
        host.must(&["mkdir", "-p", "/srv/data"]);
        host.start_unit("polluxd", "pollux@", R0);
        start_agent(host);
    }

    fn wait_settled(&self, pair: &Pair) {
        for host in pair.nodes() {
            host.wait("its agent to be settled", seconds(60), || {
                let phase = phase(host);
                phase == "active" || phase == "waiting"
            });
        }
        let (active, _) = pair.roles();
        active.wait("its agent is active", seconds(10), || phase(active) == "active");
        if *self != Self::Fencing {
            // Nobody is barred when both copies are good.
            active.wait("no note of an outdated node", seconds(10), || note(pair).is_empty());
        }
    }

    fn parts(&self, since: SystemTime, to: &Host, silence: Duration) -> (Duration, Duration) {
        // What else the machine does may make one takeover late.
        assert!(silence < 2 * LIMIT, "{silence:?}\n{}", to.history());
        let since = since.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs_f64();
        // The address is what follows the mount.
        let (promoting, mounted) = (said_at(to, ": promoting:"), said_at(to, "starting 10.0.0."));
        let between =
            |from: f64, to: f64| Duration::from_secs_f64((to - from).rem_euclid(86_400.0));
        (between(since, promoting), between(promoting, mounted))
    }

    fn end(&self, pair: &Pair) {
        let (active, passive) = pair.roles();
        for host in [passive, active] {
            host.must(&["pollux-agent", "standby", R0]);
        }
        active.wait("the release of everything", seconds(30), || {
            phase(active) == "waiting" && !active.is_primary(R0)
        });
        for host in pair.nodes() {
            host.must(&["pkill", "-TERM", "-x", "pollux-agent"]);
            host.wait("its end", seconds(20), || host.pids("pollux-agent").is_empty());
            host.adm_must(&["down", R0]);
        }
    }
}

fn start_agent(host: &Host) {
    host.start_unit("agent", "pollux-agent", R0);
}

fn kill_agent(host: &Host) {
    assert_eq!(host.kill9(&["pollux-agent"]), 1);
}

/// Who may not serve, as etcd has it.
fn note(pair: &Pair) -> String {
    let words = ["etcdctl", "--endpoints", "10.0.0.3:2379", "get", "--prefix", "--keys-only"];
    let key = "/pollux/pollux/r0/outdated/";
    let get = pair.client.run(&[&["env", "ETCDCTL_API=3"], &words[..], &[key]].concat());
    get.out.trim().to_owned()
}

/// What the agent of a host has said so far.
fn log(host: &Host) -> String {
    std::fs::read_to_string(host.log("agent")).unwrap_or_default()
}

/// When it last said that: seconds of the day.
fn said_at(host: &Host, words: &str) -> f64 {
    let log = log(host);
    let line = log.lines().rfind(|line| line.contains(words)).expect(words);
    let time = line.split(['T', 'Z']).nth(1).expect("a time");
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number"))
}

fn phase(host: &Host) -> String {
    let said = host.run(&["pollux-agent", "status", "--json", R0]).out;
    let begin = said.split("\"phase\":\"").nth(1).unwrap_or_default();
    begin.split('"').next().unwrap_or_default().to_owned()
}

/// The daemon of the active node is stopped, and something more is done there: who was active, and who serves now. That is no dead time: the
/// agent first sees for some seconds that it does not answer.
fn daemon_hangs(stage: &Stage<Agent>, more: impl FnOnce(&Host)) -> (&Host, &Host) {
    let (lost, to) = stage.roles();
    let since = SystemTime::now();
    assert_eq!(lost.stop(&["polluxd"]), 1);
    more(lost);
    stage.wait_serves(&[to]);
    let silence = stage.writer.longest_silence(since);
    println!("SIGSTOP of the daemon: clients without the service for {silence:.2?}");
    assert!(silence < seconds(20), "{silence:?}");
    (lost, to)
}

#[test]
fn the_active_node_dies() {
    let Some(stage) = Stage::new(Agent::Etcd) else { return };
    let (lost, to) = stage.takeover("power off", Host::power_off);
    stage.boot(lost);
    stage.wait_back(to);

    // Its processes are stopped, and go on when the other serves already.
    let (lost, to) = stage.takeover("SIGSTOP of everything", Host::stop_all);
    lost.continue_all();
    stage.wait_back(to);

    // Its daemon alone is stopped, and goes on when the other serves already.
    let (lost, to) = daemon_hangs(&stage, |_| {});
    lost.continue_all();
    stage.wait_back(to);

    // Only its agent dies, and nobody starts it again before the other serves.
    let (lost, to) = stage.takeover("kill -9 of the agent", kill_agent);
    start_agent(lost);
    stage.wait_back(to);

    // Only its agent dies, and is started at once: nothing moves.
    let since = SystemTime::now();
    kill_agent(to);
    start_agent(to);
    stage.writer.wait_for_more(3, seconds(20));
    stage.wait_back(to);
    println!(
        "agent killed and started: clients waited {:.2?}",
        stage.writer.longest_silence(since)
    );
    stage.end();
}

#[test]
fn the_active_node_is_cut_off() {
    let Some(stage) = Stage::new(Agent::Etcd) else { return };
    let ways: [(&str, &[usize], Cable); 4] = [
        ("both cables out", &[0, 1], Cable::Out),
        ("nobody hears it", &[0, 1], Cable::Mute),
        ("it hears nobody", &[0, 1], Cable::Deaf),
        ("etcd and clients cut off, replication is not", &[0], Cable::Out),
    ];
    for (what, cables, cable) in ways {
        // A client on the node itself sees how long it goes on.
        let local = Writer::start(stage.roles().0, SERVICE);
        local.wait_for_more(3, seconds(20));
        let cut = |host: &Host, way| cables.iter().for_each(|&n| stage.cluster.cable(host, n, way));
        let (active, other) = stage.takeover(what, |host| cut(host, cable));
        let promoted = mark(other, "started");
        active.kill9(&["lab"]);
        let last = local.acknowledged().last().expect("it was acknowledged").1;
        assert!(last < promoted, "{what}: {last:?} acknowledged, {promoted:?} started");
        let gap = promoted.duration_since(last).unwrap_or_default();
        println!("{what}: the last acknowledgement {gap:.2?} before the other began to serve");
        cut(active, Cable::In);
        stage.wait_back(other);
    }

    // The replication cable alone is no reason to move; the other is barred meanwhile.
    let (active, other) = stage.roles();
    stage.cluster.cable(active, 1, Cable::Out);
    active.wait("the note that the other is outdated", seconds(20), || {
        note(&stage).ends_with(other.name())
    });
    stage.writer.wait_for_more(3, seconds(20));
    stage.cluster.cable(active, 1, Cable::In);
    stage.wait_back(active);
    stage.end();
}

#[test]
fn operators_and_cold_starts() {
    let Some(stage) = Stage::new(Agent::Etcd) else { return };
    for _ in 0..2 {
        let standby = |host: &Host| drop(stage.page.later("standby", host));
        let (active, other) = stage.takeover("standby", standby);
        stage.page.later("unstandby", active);
        stage.wait_back(other);
        assert!(stage.page.later("status", other).out.contains(R0));
    }
    // SIGTERM hands over, too.
    let since = SystemTime::now();
    let (active, other) = stage.takeover("SIGTERM of the agent", |host| {
        host.must(&["pkill", "-TERM", "-x", "pollux-agent"]);
    });
    assert!(stage.writer.longest_silence(since) < seconds(3), "it waited for the end of the lock");
    start_agent(active);
    stage.wait_back(other);

    // A service that dies, and does not start here again: the other has it.
    let (active, other) = (other, active);
    active.put("/run/sick", 0o644, "");
    let since = SystemTime::now();
    active.must(&["sh", "-c", "kill -KILL $(cat /run/records.pid)"]);
    stage.wait_serves(&[other]);
    println!("a dead service: {:.2?}", stage.writer.longest_silence(since));
    active.must(&["rm", "/run/sick"]);
    stage.wait_settled();

    stage.cold_start();

    // Who is away when the other goes on alone is not promoted, although the lock is free.
    let (active, other) = stage.roles();
    other.power_off();
    stage.writer.wait_for_more(3, seconds(30));
    active.power_off();
    stage.boot(other);
    other.wait("it knows that it is outdated", seconds(30), || {
        other.run(&["pollux-agent", "status", R0]).out.contains("went on alone")
    });
    assert!(!other.is_primary(R0));
    stage.boot(active);
    stage.wait_serves(&stage.nodes());
    stage.end();
}

#[test]
fn with_stonith_the_lost_node_is_off_first() {
    let Some(stage) = Stage::new(Agent::EtcdAndStonith) else { return };
    stage.page.later("try", &stage.alpha);
    stage.shot("kill -9 of everything", |host| assert!(host.kill_all() > 2));
    // A switch that does not work: nobody takes over, and it is told.
    for mood in [Mood::Fails, Mood::Hangs] {
        stage.fencing_is_broken(mood, |other| {
            let failures = || log(other).matches("could not be fenced").count();
            let before = failures();
            other.wait("the alert", seconds(90), || failures() >= before + 2);
        });
    }
    stage.end();
}

#[test]
fn without_a_third_machine_the_switch_is_the_judge() {
    let Some(stage) = Stage::new(Agent::Fencing) else { return };
    stage.shot("power off", Host::power_off);
    stage.shot("kill -9 of everything", |host| assert!(host.kill_all() > 2));
    stage.shot("kill -9 of the agent", kill_agent);
    stage.shot("SIGSTOP of everything", Host::stop_all);
    // An agent that is started anew meanwhile does not know what the daemon is.
    for anew in [false, true] {
        let (lost, to) = daemon_hangs(&stage, |host| {
            if anew {
                kill_agent(host);
                start_agent(host);
            }
        });
        assert!(!lost.is_on() && to.is_on(), "who does not let go is shot");
        stage.boot(lost);
        stage.wait_back(to);
    }
    // The passive daemon hangs: without its word the active one goes on when it is off.
    let (active, other) = stage.roles();
    assert_eq!(other.stop(&["polluxd"]), 1);
    active.wait("the other is off", seconds(20), || !other.is_on());
    stage.writer.wait_for_more(3, seconds(20));
    stage.boot(other);
    stage.wait_back(active);
    // Each turns the other off if it can; neither serves before it has.
    for cable in [Cable::Out, Cable::Mute, Cable::Deaf] {
        stage.one_is_shot(&format!("the active: {cable:?}"), stage.roles().0, cable);
    }
    stage.cold_start();
    stage.end();
}

#[test]
fn without_a_third_machine_a_broken_switch_is_no_judge() {
    let Some(stage) = Stage::new(Agent::Fencing) else { return };
    // The replication cable alone: the agents hear each other, nobody is shot.
    let (active, other) = stage.roles();
    stage.cluster.cable(active, 1, Cable::Out);
    other.wait_status(R0, "it is outdated", seconds(20), |status| status.disk == "Outdated");
    stage.writer.wait_for_more(3, seconds(20));
    stage.cluster.cable(active, 1, Cable::In);
    stage.wait_back(active);
    assert!(stage.switch.shot().is_empty(), "nobody is shot for that");

    // The other dies, and the switch does not work: nothing is acknowledged, and that is told, until it does.
    for mood in [Mood::Fails, Mood::Hangs] {
        stage.switch.set_mood(mood);
        other.power_off();
        active.wait_status(R0, "suspended I/O", seconds(20), |status| status.suspended);
        let failures = || log(active).matches("fencing failed").count();
        let before = failures();
        active.wait("the failure", seconds(40), || failures() > before);
        let acknowledged = stage.writer.acknowledged().len();
        active.wait("another failure", seconds(60), || failures() > before + 1);
        assert_eq!(stage.writer.acknowledged().len(), acknowledged, "acknowledged without fencing");
        stage.switch.set_mood(Mood::Works);
        stage.writer.wait_for_more(3, seconds(60));
        stage.boot(other);
        stage.wait_back(active);
    }

    // A switch that lies: what was stopped goes on, and finds itself replaced.
    stage.switch.set_mood(Mood::Lies);
    let (stopped, to) = stage.takeover("SIGSTOP of everything, not shot", Host::stop_all);
    stopped.continue_all();
    stage.wait_back(to);
    stage.end();
}

//! Two resources, two agents, one etcd.

use crate::etcd::Etcd;
use crate::stage::{Process, Stage, lacks, wait_for};

const BOTH: [&str; 2] = ["r0", "r1"];

fn places(stage: &Stage) -> [Option<usize>; 2] {
    BOTH.map(|resource| {
        let place: Vec<_> = (0..2).filter(|n| stage.is(*n, resource, "active")).collect();
        assert!(place.len() < 2, "{resource} is active on both");
        place.first().copied()
    })
}

#[test]
fn each_resource_goes_its_own_way() {
    if lacks(&["etcd", "etcdctl"]) {
        return;
    }
    let stage = Stage::new("several", &BOTH);
    let etcd = Etcd::start(&stage, 1, false);
    let each = |name: &str, first: &str| {
        format!(
            "[resource.{name}]\narbiter = \"etcd\"\ndead-time = 2\nback-off = 1\nprefer = [\"{first}\"]\n"
        )
    };
    stage.put("agent.toml", 0o600, &(etcd.toml() + &each("r0", "alpha") + &each("r1", "beta")));
    let mut agents: [Process; 2] = [stage.agent(0), stage.agent(1)];
    wait_for("both are served", 40, || places(&stage).iter().all(Option::is_some));
    // Each to where it is preferred.
    for (n, resource) in BOTH.into_iter().enumerate() {
        assert_eq!(stage.cli(1 - n, &["standby", resource]).0, Some(0));
        stage.wait(n, resource, "active");
        assert_eq!(stage.cli(1 - n, &["unstandby", resource]).0, Some(0));
    }
    assert_eq!(places(&stage), [Some(0), Some(1)]);

    // One agent is killed: beta has both. (alpha's daemon lives, and steps down because its lease has ended.)
    agents[0].kill();
    let took = wait_for("both on beta", 20, || BOTH.iter().all(|it| stage.is(1, it, "active")));
    println!("the agent was killed: taken over after {took:.2?}, dead time 2 s");
    assert!(!stage.daemon("r0", 0).primary);
    // It comes again: nothing moves. Then one resource alone is told to stay away from beta.
    agents[0] = stage.agent(0);
    for resource in BOTH {
        wait_for("alpha knows", 20, || stage.status(0, resource)["lock"] == "Other");
    }
    assert_eq!(places(&stage), [Some(1), Some(1)]);
    assert_eq!(stage.cli(1, &["standby", "r1"]).0, Some(0));
    stage.wait(0, "r1", "active");
    assert_eq!(places(&stage), [Some(1), Some(0)]);
    // That outlives the agent. The end of alpha's leaves r1 to nobody.
    agents[1].signal("-TERM");
    assert_eq!(agents[1].ends(20), Some(0));
    stage.wait(0, "r0", "active");
    agents[1] = stage.agent(1);
    agents[0].signal("-TERM");
    assert_eq!(agents[0].ends(20), Some(0));
    stage.wait(1, "r0", "active");
    wait_for("the reason", 20, || stage.status(1, "r1")["why"] == "standby");
    assert_eq!(stage.status(1, "r1")["standby"], true);
    assert_eq!(
        etcd.must(&stage, &["get", "--prefix", "/pollux", "--keys-only"]).trim(),
        "/pollux/pollux/r0/primary"
    );
    assert_eq!(stage.cli(1, &["unstandby"]).0, Some(0));
    stage.wait(1, "r1", "active");
    for resource in BOTH {
        assert_eq!(stage.daemon(resource, 0).lapses + stage.daemon(resource, 1).lapses, 0);
    }
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for() {
    if lacks(&["etcd", "etcdctl"]) {
        return;
    }
    let stage = Stage::new("hangs", &["r0"]);
    let etcd = Etcd::start(&stage, 1, false);
    let r0 = "[resource.r0]\narbiter = \"etcd\"\ndead-time = 3\nback-off = 1\n";
    stage.put("agent.toml", 0o600, &(etcd.toml() + r0));
    let _agents = [stage.agent(0), stage.agent(1)];
    wait_for("one serves", 40, || (0..2).any(|n| stage.is(n, "r0", "active")));
    let active = if stage.is(0, "r0", "active") { 0 } else { 1 };
    let hangs = |it: bool| stage.daemons().get_mut("r0").expect("played")[active].hangs = it;
    hangs(true);
    let took = wait_for("the other serves", 40, || stage.is(1 - active, "r0", "active"));
    println!("taken over after {took:.2?}: a look at the daemon may take 3 s, dead time 3 s");
    assert!(took.as_secs() < 3 + 3 + 2, "{took:?}");
    // It goes on, and learns that it is not Primary.
    hangs(false);
    stage.wait(active, "r0", "waiting");
    assert!(!stage.daemon("r0", active).primary && stage.daemon("r0", 1 - active).primary);
    assert_eq!(stage.daemon("r0", 0).lapses + stage.daemon("r0", 1).lapses, 0);
}

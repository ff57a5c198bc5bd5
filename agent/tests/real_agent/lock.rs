//! The lock in a real etcd: certificates, users, members that die or hang.

use crate::etcd::{Etcd, certificates};
use crate::stage::{Stage, lacks, wait_for};

const ETCD: [&str; 2] = ["etcd", "etcdctl"];
const R0: &str = "[resource.r0]\narbiter = \"etcd\"\ndead-time = 5\n";

/// A user that may do in `/pollux/pollux/` what it likes, and nothing elsewhere.
fn close(etcd: &Etcd, stage: &Stage) {
    for words in [
        "user add root:king",
        "user add pollux:castor",
        "role add pollux",
        "role grant-permission pollux --prefix=true readwrite /pollux/pollux/",
        "user grant-role pollux pollux",
        "user grant-role root root",
        "auth enable",
    ] {
        etcd.must(stage, &words.split(' ').collect::<Vec<_>>());
    }
}

#[test]
fn etcd_and_the_agent_know_each_other() {
    if lacks(&ETCD) || lacks(&["openssl"]) {
        return;
    }
    let stage = Stage::new("tls", &["r0"]);
    let here = format!("IP:{}", crate::stage::ip());
    certificates(&stage.dir, "ca", &here);
    let mut etcd = Etcd::start(&stage, 1, true);
    close(&etcd, &stage);
    stage.put("password", 0o600, "castor\n");
    let file = |name: &str| stage.dir.join(name).display().to_string();
    let good = format!(
        "{}cacert = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\nuser = \"pollux\"\npassword-file = \"{}\"\n{R0}",
        etcd.toml(),
        file("ca.pem"),
        file("client.pem"),
        file("client.key"),
        file("password"),
    );
    stage.put("agent.toml", 0o600, &good);
    let agent = stage.agent(0);
    stage.wait(0, "r0", "active");
    // Its token was of the life of that etcd: it gets a new one, and keeps the lock.
    etcd.restart(&stage, 0);
    let before = stage.daemon("r0", 0).lease;
    wait_for("two renewals", 20, || stage.daemon("r0", 0).lease > before.map(|at| at + 2_000));
    assert!(stage.is(0, "r0", "active"));
    let daemon = stage.daemon("r0", 0);
    assert_eq!((daemon.lapses, daemon.told), (0, vec!["primary".to_owned()]));
    drop(agent);
    wait_for("the end of the lock", 20, || {
        etcd.ctl(&stage, &["--user=root:king", "get", "--prefix", "/pollux", "--keys-only"])
            .1
            .trim()
            .is_empty()
    });

    // What is wrong is told, and nobody is promoted.
    certificates(&stage.dir.join("beta"), "stranger", &here);
    stage.put("wrong", 0o600, "pollux");
    stage.daemons().get_mut("r0").expect("played")[0] = Default::default();
    let stranger = file("beta/stranger.pem");
    let (client, key) = (file("beta/client.pem"), file("beta/client.key"));
    // The same place by a name that its certificate does not have.
    let elsewhere = format!("[::ffff:{}", etcd.endpoints[0].replace(':', "]:"));
    let wrongs: [(&str, &str, String, &str); 6] = [
        ("another CA", "cacert = ", format!("cacert = \"{stranger}\""), "UnknownIssuer"),
        ("no certificate of ours", "cert = ", String::new(), "fatal alert"),
        (
            "a stranger's certificate",
            "cert = ",
            format!("cert = \"{client}\"\nkey = \"{key}\""),
            "fatal alert",
        ),
        ("no TLS", "cacert = ", String::new(), "perhaps it wants TLS"),
        (
            "another password",
            "password-file = ",
            format!("password-file = \"{}\"", file("wrong")),
            "authentication failed",
        ),
        (
            "another prefix",
            "user = ",
            "cluster = \"other\"\nuser = \"pollux\"".into(),
            "permission denied",
        ),
    ];
    for (what, begin, line, said) in wrongs {
        let without: &[&str] = match what {
            "no TLS" => &["cert = ", "key = "],
            "no certificate of ours" | "a stranger's certificate" => &["key = "],
            _ => &[],
        };
        let lines = good.lines().filter(|it| !without.iter().any(|word| it.starts_with(word)));
        let lines = lines.map(|it| if it.starts_with(begin) { line.as_str() } else { it });
        stage.put("agent.toml", 0o600, &lines.collect::<Vec<_>>().join("\n"));
        let from = stage.log(0).len();
        let _agent = stage.agent(0);
        wait_for(&format!("{what}: {said}"), 20, || stage.log(0)[from..].contains(said));
        let status = stage.status(0, "r0");
        assert_eq!(status["lock"], "Unknown", "{what}: {status}");
        assert!(stage.daemon("r0", 0).told.is_empty(), "{what}");
    }
    stage.put("agent.toml", 0o600, &good.replace(&etcd.endpoints[0], &elsewhere));
    let _agent = stage.agent(0);
    wait_for("its name", 20, || stage.log(0).contains("certificate not valid for name"));
}

#[test]
fn secrets_are_secret() {
    let stage = Stage::new("secrets", &["r0"]);
    let password = stage.put("password", 0o644, "castor");
    let user = format!("user = \"pollux\"\npassword-file = \"{password}\"");
    for (section, said) in [
        (user.clone(), "others may read it: chmod 600"),
        (user.replace("/password\"", "/nothing\""), "No such file"),
        ("user = \"pollux\"".into(), "needs `user` and `password-file` together"),
        (format!("cert = \"{password}\""), "needs `cacert` for TLS"),
        (format!("cacert = \"{password}\""), "no certificate is in it"),
    ] {
        let toml = format!("[etcd]\nendpoints = [\"127.0.0.1:1\"]\n{section}\n{R0}");
        stage.put("agent.toml", 0o600, &toml);
        let (code, text) = stage.cli(0, &["check"]);
        assert_eq!(code, Some(10), "{section}: {text}");
        assert!(text.contains(said) && text.contains("agent.toml:"), "{section}: {text}");
    }
}

#[test]
fn members_may_die_or_hang() {
    if lacks(&ETCD) {
        return;
    }
    let stage = Stage::new("members", &["r0"]);
    let mut etcd = Etcd::start(&stage, 3, false);
    // On a busy machine an election takes longer than etcd is given for it.
    let patient = R0.replace("dead-time = 5", "dead-time = 10");
    stage.put("agent.toml", 0o600, &(etcd.toml() + &patient));
    let _agent = stage.agent(0);
    stage.wait(0, "r0", "active");
    // So many renewals later nothing has moved.
    let goes_on = |what: &str| {
        let before = stage.daemon("r0", 0).lease;
        wait_for(what, 30, || stage.daemon("r0", 0).lease > before.map(|at| at + 6_000));
        let daemon = stage.daemon("r0", 0);
        assert_eq!((daemon.lapses, daemon.told.len()), (0, 1), "{what}: {:?}", daemon.told);
        assert!(stage.is(0, "r0", "active"), "{what}");
    };
    goes_on("nothing is wrong");
    for _ in 0..2 {
        let leader = etcd.leader(&stage);
        etcd.members[leader].kill();
        goes_on("the leader is killed");
        etcd.restart(&stage, leader);
        let leader = etcd.leader(&stage);
        etcd.members[leader].signal("-STOP");
        goes_on("the leader hangs");
        etcd.members[leader].signal("-CONT");
    }
    let leader = etcd.leader(&stage);
    etcd.members[(leader + 1) % 3].signal("-STOP");
    goes_on("another hangs");
    etcd.members[(leader + 1) % 3].signal("-CONT");
    let revision = etcd.must(&stage, &["put", "x", "y", "-w", "json"]);
    let revision = revision.split("\"revision\":").nth(1).expect("a revision");
    let revision: String = revision.chars().take_while(char::is_ascii_digit).collect();
    etcd.must(&stage, &["compact", &revision]);
    etcd.must(&stage, &["defrag"]);
    goes_on("compacted");
    // Two of three: the lease ends, and nobody serves until they are back.
    for n in [0, 1] {
        etcd.members[n].signal("-STOP");
    }
    wait_for("it steps down", 20, || !stage.daemon("r0", 0).primary);
    assert_eq!(stage.daemon("r0", 0).told[1..], ["secondary --force".to_owned()]);
    for n in [0, 1] {
        etcd.members[n].signal("-CONT");
    }
    stage.wait(0, "r0", "active");
    assert!(stage.daemon("r0", 0).primary);
}

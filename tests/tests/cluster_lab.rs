//! The simulated hosts themselves: what the stories in `cluster_*.rs` rely on is so.

use tests::cluster::power::{Mood, PowerSwitch};
use tests::cluster::{Cable, Cluster, Host, NEEDS};
use tests::real::{lacks, seconds};

fn hears(from: &Host, to: &str) -> bool {
    from.run(&["ping", "-c1", "-W1", to]).is_ok()
}

#[test]
fn hosts_have_names_files_cables_and_power() {
    if lacks(NEEDS) {
        return;
    }
    let mut cluster = Cluster::new();
    let alpha = cluster.host("alpha", &["10.99.0.1/24", "10.98.0.1/24"]);
    let beta = cluster.host("beta", &["10.99.0.2/24", "10.98.0.2/24"]);
    for host in [&alpha, &beta] {
        host.power_on();
        host.install();
        assert_eq!(host.must(&["uname", "-n"]).trim(), host.name());
        host.adm_must(&["--version"]);
    }
    assert!(hears(&alpha, "beta") && hears(&alpha, "beta-1"));

    // What reaches whom shows in the counters of the receiver, whoever answers.
    cluster.cable(&alpha, 0, Cable::Out);
    assert!(!hears(&alpha, "beta") && hears(&alpha, "beta-1"));
    for cable in [Cable::Mute, Cable::Deaf] {
        // They must know each other's hardware address before.
        cluster.cable(&alpha, 0, Cable::In);
        alpha.wait("the cable", seconds(5), || hears(&alpha, "beta") && hears(&beta, "alpha"));
        cluster.cable(&alpha, 0, cable);
        let received = |host: &Host| {
            let said = host.must(&["nstat", "-asz", "IcmpInEchos"]);
            let line = said.lines().find(|line| line.starts_with("IcmpInEchos"));
            let count = line.and_then(|line| line.split_whitespace().nth(1));
            count.and_then(|count| count.parse::<u64>().ok()).expect("a number")
        };
        let (mute, deaf) = (received(&alpha), received(&beta));
        assert!(!hears(&alpha, "beta") && !hears(&beta, "alpha"), "{cable:?}");
        let (at_alpha, at_beta) = (received(&alpha) > mute, received(&beta) > deaf);
        assert_eq!((at_alpha, at_beta), (cable == Cable::Mute, cable == Cable::Deaf));
    }
    cluster.cable(&alpha, 0, Cable::In);
    alpha.wait("the cable", seconds(5), || hears(&alpha, "beta"));

    // Files.
    alpha.put("/etc/pollux/kept", 0o600, "etc");
    alpha.put("/mnt/disk/kept", 0o600, "disk");
    alpha.put("/run/lost", 0o600, "run");
    assert!(
        !std::path::Path::new("/etc/pollux/kept").exists()
            && beta.text("/etc/pollux/kept").is_empty()
    );

    // Processes: each of its own.
    for host in [&alpha, &beta] {
        host.spawn("sleeper", &["sleep", "1000"]);
        host.wait("it runs", seconds(5), || host.pids("sleep").len() == 1);
    }
    alpha.stop_all();
    let pid = alpha.pids("sleep")[0].to_string();
    let state = |pid: &str| alpha.must(&["ps", "-o", "stat=", "-p", pid]);
    assert!(state(&pid).starts_with('T'), "{}", state(&pid));
    alpha.continue_all();
    assert!(state(&pid).starts_with('S'), "{}", state(&pid));
    assert_eq!(alpha.kill_all(), 1);
    assert_eq!(alpha.pids("sleep").len() + beta.pids("sleep").len(), 1);

    // Power.
    let switch = PowerSwitch::new(&cluster);
    let ask = |verb: &str| alpha.run(&["/mnt/lab/lab", "power", verb, "beta"]);
    assert_eq!(ask("status").out.trim(), "on");
    switch.set_mood(Mood::Fails);
    assert!(!ask("off").is_ok() && beta.is_on());
    switch.set_mood(Mood::Works);
    assert!(ask("off").is_ok() && !beta.is_on());
    assert!(!hears(&alpha, "beta"));
    assert_eq!(ask("status").out.trim(), "off");
    assert_eq!(switch.shot().len(), 1);
    alpha.power_off();
    alpha.power_on();
    beta.power_on();
    assert_eq!(
        (alpha.text("/etc/pollux/kept"), alpha.text("/mnt/disk/kept")),
        ("etc".into(), "disk".into())
    );
    assert!(alpha.text("/run/lost").is_empty());
    assert!(hears(&alpha, "beta"));
}

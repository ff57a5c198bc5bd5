//! The resource script `pollux` without Heartbeat: twice, out of order, killed in the middle, with a daemon that is dead, stopped or
//! cannot be asked. What it prints and how it ends is Heartbeat's contract.

use std::time::Instant;
use tests::cluster::{Cable, Cluster, Host, NEEDS};
use tests::real::{lacks, seconds};

const CONFIG: &str = "resource r0 {
  net { protocol C; shared-secret castor; fencing resource-and-stonith; }
  options { auto-promote no; }
  handlers { fence-peer \"exit $(cat /run/verdict)\"; }
  device minor 0;
  disk /mnt/disk/r0;
  meta-disk internal;
  on alpha { node-id 0; address 10.0.0.1:7800; }
  on beta { node-id 1; address 10.0.0.2:7800; }
}
";

const DEFAULTS: &str = "POLLUX_PROMOTE_TIMEOUT=4 POLLUX_DEMOTE_TIMEOUT=2 POLLUX_WAIT_CONNECT=1\n";

/// Exit code and output.
fn script(host: &Host, verb: &str) -> (i32, String) {
    let begin = Instant::now();
    let answer = host.run(&["/etc/ha.d/resource.d/pollux", "r0", verb]);
    assert!(begin.elapsed() < seconds(30), "{verb} took {:?}", begin.elapsed());
    println!("{} {verb}: {:?} {}", host.name(), answer.code, answer.said.trim());
    (answer.code.expect("it ends by itself"), answer.out)
}

fn code(host: &Host, verb: &str) -> i32 {
    script(host, verb).0
}

#[test]
fn the_resource_script_keeps_its_contract() {
    if lacks(NEEDS) {
        return;
    }
    let mut cluster = Cluster::new();
    let alpha = cluster.host("alpha", &["10.0.0.1/24"]);
    let beta = cluster.host("beta", &["10.0.0.2/24"]);
    for host in [&alpha, &beta] {
        host.power_on();
        host.install();
        host.put("/etc/pollux/pollux.conf", 0o600, CONFIG);
        host.put("/etc/default/pollux", 0o644, DEFAULTS);
        host.put("/run/verdict", 0o644, "1");
        host.must(&["truncate", "-s", "64M", "/mnt/disk/r0"]);
        host.adm_must(&["create-md", "--force", "r0"]);
    }
    // Down: nothing to stop, nothing good to start.
    assert_eq!(script(&alpha, "status"), (3, "stopped (down)\n".into()));
    assert_eq!(code(&alpha, "stop"), 0);
    assert_eq!(code(&alpha, "start"), 1, "no data is known to be good");
    assert_eq!(script(&alpha, "status"), (3, "stopped (Secondary)\n".into()));
    beta.adm_must(&["up", "r0"]);
    alpha.adm_must(&["wait-connect", "-t", "20", "r0"]);
    alpha.adm_must(&["primary", "--force", "r0"]);
    alpha.wait_in_sync("r0", seconds(60));

    // Twice; and never two.
    assert_eq!((code(&alpha, "start"), code(&alpha, "start")), (0, 0));
    assert_eq!(script(&alpha, "status"), (0, "running (Primary)\n".into()));
    assert_eq!((code(&beta, "start"), beta.is_primary("r0")), (1, false));
    assert_eq!((code(&beta, "stop"), code(&alpha, "stop"), code(&alpha, "stop")), (0, 0, 0));
    // From nothing: it brings the resource up, and waits for the peer instead of having it shot.
    beta.adm_must(&["down", "r0"]);
    assert_eq!((code(&beta, "start"), beta.is_primary("r0")), (0, true));
    assert_eq!(code(&beta, "stop"), 0);

    // In use.
    alpha.wait_in_sync("r0", seconds(20));
    assert_eq!(code(&alpha, "start"), 0);
    alpha.must(&["mkdir", "/run/fs"]);
    alpha.spawn("client", &["nbdfuse", "/run/fs", "nbd+unix:///r0?socket=/run/pollux/r0.nbd"]);
    alpha.wait("a client", seconds(10), || alpha.path("/run/fs/nbd").exists());
    assert_eq!((code(&alpha, "stop"), alpha.is_primary("r0")), (1, true));
    alpha.must(&["fusermount3", "-u", "/run/fs"]);
    assert_eq!(code(&alpha, "stop"), 0);

    // A daemon that does not answer may be Primary.
    assert_eq!(code(&alpha, "start"), 0);
    for (signal, expected) in
        [("STOP", (1, 4, "unclear, perhaps running\n")), ("CONT", (0, 3, "stopped (Secondary)\n"))]
    {
        alpha.must(&["sh", "-c", &format!("kill -{signal} $(cat /run/pollux/r0.pid)")]);
        let stopped = code(&alpha, "stop");
        let (status, said) = script(&alpha, "status");
        assert_eq!((stopped, status, said.as_str()), expected, "{signal}");
    }
    alpha.wait_in_sync("r0", seconds(20));
    // Nor is it gone because its configuration cannot be read: it can be asked, and demoted, all the same.
    assert_eq!(code(&alpha, "start"), 0);
    alpha.put("/etc/pollux/pollux.conf", 0o600, "resource {");
    assert_eq!(script(&alpha, "status"), (0, "running (Primary)\n".into()));
    assert_eq!((code(&alpha, "stop"), script(&alpha, "status").0), (0, 3));
    assert_eq!(alpha.kill9(&["polluxd"]), 1);
    assert_eq!((code(&alpha, "stop"), script(&alpha, "status").0), (0, 3));
    alpha.put("/etc/pollux/pollux.conf", 0o600, CONFIG);

    // The Primary is lost: not before it is fenced; then, however early it is asked.
    alpha.put("/run/verdict", 0o644, "7");
    assert_eq!(code(&alpha, "start"), 0, "it returns, and beta did not go on");
    alpha.wait_in_sync("r0", seconds(20));
    cluster.cable(&alpha, 0, Cable::Out);
    assert_eq!((code(&beta, "start"), beta.is_primary("r0")), (1, false));
    beta.put("/run/verdict", 0o644, "7");
    alpha.power_off();
    assert_eq!((code(&beta, "start"), beta.is_primary("r0")), (0, true));

    // Killed in the middle.
    let mut killed = 0;
    for milliseconds in (1..50).step_by(3) {
        for verb in ["stop", "start"] {
            let limit = format!("0.{milliseconds:03}");
            let words =
                ["timeout", "-s", "KILL", &limit, "/etc/ha.d/resource.d/pollux", "r0", verb];
            killed += u32::from(matches!(beta.run(&words).code, None | Some(137)));
        }
        assert_eq!((code(&beta, "stop"), script(&beta, "status").0), (0, 3));
    }
    assert!(killed > 2, "nothing was killed in the middle");
    assert_eq!((code(&beta, "start"), beta.is_primary("r0")), (0, true));
}

//! `pollux-mount` in a host: twice, out of order, killed in the middle, with its device dead or its I/O held.

use tests::cluster::{Cluster, Host, NEEDS};
use tests::real::{lacks, seconds};

const CONFIG: &str = "resource r0 {
  net { protocol C; shared-secret castor; }
  options { auto-promote no; }
  device minor 0;
  disk /mnt/disk/r0;
  meta-disk internal;
  on alpha { node-id 0; address 10.99.0.1:7800; }
  on beta { node-id 1; address 10.99.0.2:7800; }
}
";

fn mount(host: &Host, verb: &str) -> (i32, String) {
    let begin = std::time::Instant::now();
    let answer = host.run(&["/usr/lib/pollux/pollux-mount", verb, "r0", "/srv/data", "ext4"]);
    println!("{verb}: {:?} after {:.2?}: {}", answer.code, begin.elapsed(), answer.said.trim());
    (answer.code.expect("it ends by itself"), answer.said)
}

fn status(host: &Host) -> i32 {
    mount(host, "status").0
}

#[track_caller]
fn must(host: &Host, verb: &str) {
    let (code, said) = mount(host, verb);
    assert_eq!(code, 0, "{verb}: {said}");
}

/// Nothing of it is left: the resource can be demoted, and promoted again.
#[track_caller]
fn assert_free(host: &Host) {
    assert_eq!(mount(host, "status"), (3, "stopped\n".into()));
    assert!(host.pids("nbdfuse").is_empty());
    let mounts = host.must(&["cat", "/proc/self/mounts"]);
    assert!(mounts.contains(" /proc ") && !mounts.contains("/run/pollux/mount"), "{mounts}");
    host.adm_must(&["secondary", "r0"]);
    host.adm_must(&["primary", "r0"]);
}

#[test]
fn pollux_mount_survives_everything() {
    if lacks(NEEDS) {
        return;
    }
    let mut cluster = Cluster::new();
    let alpha = cluster.host("alpha", &["10.99.0.1/24"]);
    alpha.power_on();
    alpha.install();
    alpha.put("/etc/pollux/pollux.conf", 0o644, CONFIG);
    alpha.must(&["truncate", "-s", "64M", "/mnt/disk/r0"]);
    alpha.adm_must(&["create-md", "--force", "r0"]);

    // Out of order.
    assert_eq!((mount(&alpha, "stop").0, status(&alpha)), (0, 3));
    assert_eq!(mount(&alpha, "start").0, 1);
    alpha.adm_must(&["up", "r0"]);
    let (code, said) = mount(&alpha, "start");
    assert!(code == 1 && said.contains("Secondary"), "{said}");
    alpha.adm_must(&["primary", "--force", "r0"]);
    // No file system yet: nothing is left behind.
    let (code, said) = mount(&alpha, "start");
    assert!(code == 1 && said.contains("mount failed"), "{said}");
    assert_free(&alpha);
    let socket = "nbd+unix:///r0?socket=/run/pollux/r0.nbd";
    alpha.must(&["sh", "-c", &format!("mkdir /run/fs && nbdfuse /run/fs '{socket}' & until [ -e /run/fs/nbd ]; do sleep 0.05; done; mkfs.ext4 -qF /run/fs/nbd && fusermount3 -u /run/fs && wait")]);

    // Twice, and with a user.
    must(&alpha, "start");
    must(&alpha, "start");
    assert_eq!(mount(&alpha, "status"), (0, "running (r0 is mounted on /srv/data)\n".into()));
    assert_eq!(
        alpha.run(&["/usr/lib/pollux/pollux-mount", "start", "r0", "/mnt/other"]).code,
        Some(1)
    );
    assert_eq!(
        alpha.run(&["/usr/lib/pollux/pollux-mount", "stop", "r0", "/mnt/other"]).code,
        Some(0)
    );
    assert_eq!(alpha.adm(&["secondary", "r0"]).code, Some(11), "it is in use");
    alpha.must(&["sh", "-c", "echo kept > /srv/data/file && sync /srv/data/file"]);
    alpha.spawn("user", &["sh", "-c", "cd /srv/data; trap '' TERM; while :; do sleep 1; done"]);
    alpha.wait("a user", seconds(5), || {
        !alpha.run(&["fuser", "-sm", "/srv/data"]).out.is_empty()
            || alpha.run(&["fuser", "-sm", "/srv/data"]).is_ok()
    });
    must(&alpha, "stop");
    must(&alpha, "stop");
    assert_free(&alpha);

    // Its device dies.
    must(&alpha, "start");
    assert_eq!(alpha.kill9(&["nbdfuse"]), 1);
    assert_eq!(status(&alpha), 1);
    must(&alpha, "start");
    assert_eq!((status(&alpha), alpha.text("/srv/data/file")), (0, "kept\n".into()));
    assert_eq!(alpha.kill9(&["nbdfuse"]), 1);
    must(&alpha, "stop");
    assert_free(&alpha);

    // The daemon dies.
    must(&alpha, "start");
    assert_eq!(alpha.kill9(&["polluxd"]), 1);
    must(&alpha, "stop");
    assert_eq!(status(&alpha), 3);
    alpha.adm_must(&["up", "r0"]);
    alpha.adm_must(&["primary", "r0"]);
    assert_free(&alpha);

    // The script is killed in the middle, at one point after the other.
    let mut interrupted = 0;
    for milliseconds in (5..400).step_by(20) {
        let limit = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
        for verb in ["start", "stop"] {
            let words = [
                "timeout",
                "-s",
                "KILL",
                &limit,
                "/usr/lib/pollux/pollux-mount",
                verb,
                "r0",
                "/srv",
            ];
            interrupted += u32::from(matches!(alpha.run(&words).code, None | Some(137)));
        }
        match milliseconds / 20 % 2 {
            0 => must(&alpha, "start"),
            _ => must(&alpha, "stop"),
        }
        must(&alpha, "stop");
        assert_eq!(status(&alpha), 3);
    }
    assert!(interrupted > 2, "nothing was killed in the middle");
    assert_free(&alpha);

    // Its I/O is held, and somebody waits for it.
    must(&alpha, "start");
    alpha.adm_must(&["suspend-io", "r0"]);
    alpha.spawn(
        "waits",
        &["dd", "if=/dev/zero", "of=/srv/data/never", "bs=4k", "count=1", "conv=fsync"],
    );
    alpha.wait("it waits", seconds(5), || {
        alpha.status("r0").is_some_and(|status| {
            status.json.contains("\"upper-pending\"")
                && !status.json.contains("\"upper-pending\": 0")
        })
    });
    assert_eq!(status(&alpha), 0);
    let begin = std::time::Instant::now();
    let stop = "POLLUX_UNMOUNT_TIMEOUT=2 /usr/lib/pollux/pollux-mount stop r0 /srv/data";
    let answer = alpha.shell(stop);
    assert!(
        answer.is_ok() && answer.said.contains("what was not synced is lost"),
        "{}",
        answer.said
    );
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    alpha.wait("the end of what waited", seconds(5), || alpha.pids("dd").is_empty());
    alpha.adm_must(&["resume-io", "r0"]);
    assert_free(&alpha);

    // Its daemon is stopped by a signal: nothing can be waited for.
    must(&alpha, "start");
    alpha.must(&["sh", "-c", "echo unsynced > /srv/data/unsynced"]);
    assert_eq!(alpha.stop(&["polluxd"]), 1);
    let begin = std::time::Instant::now();
    let (code, said) = mount(&alpha, "stop");
    assert!(code == 0 && said.contains("stopped by a signal"), "{said}");
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
    alpha.continue_all();
    assert_free(&alpha);
    must(&alpha, "start");
    assert_eq!(alpha.text("/srv/data/file"), "kept\n");
    must(&alpha, "stop");
    alpha.adm_must(&["down", "r0"]);
    alpha.must(&["e2fsck", "-fn", "/mnt/disk/r0"]);
}

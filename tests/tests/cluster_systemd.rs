//! The units of `tools/systemd`, under a real systemd as pid 1 of a machine: started at boot, stopped, restarted, the daemon killed; and the
//! order in which everything ends when the machine is switched off. One node, without its peer: what a unit does is its own node's affair. A
//! resource of the agent's, too, with an etcd on the same node.

use tests::guest::{Guest, Lab, NEEDS};
use tests::real::process::{run, run_ok, text};
use tests::real::{Need, lacks, programs, seconds};

const UNITS: &str = "/usr/lib/systemd/system";

/// Of three resources, on these disks; the last is the agent's.
fn config(disks: [&str; 3]) -> String {
    let resource = |n: usize, more: &str| {
        let disk = disks[n];
        format!(
            "resource r{n} {{
               {more}
               options {{ auto-promote no; }}
               device minor {n};
               disk {disk};
               meta-disk internal;
               on alpha {{ node-id 0; address 10.99.0.1:780{n}; }}
               on beta {{ node-id 1; address 10.99.0.2:780{n}; }}
             }}
             "
        )
    };
    resource(0, "") + &resource(1, "") + &resource(2, FENCED)
}

const FENCED: &str = "net { shared-secret x; fencing resource-and-stonith; }
  handlers { fence-peer \"/usr/sbin/pollux-agent fence-peer\"; unfence-peer \"/usr/sbin/pollux-agent unfence-peer\"; }";

const AGENT: &str = "[etcd]
endpoints = ['127.0.0.1:2379']
[resource.r2]
arbiter = 'etcd'
dead-time = 8
start = [ { mount = '/srv/agent', type = 'ext4' }, { unit = 'agents.service' } ]
";

const ETCD: &str = "[Unit]
Before=pollux-agent.service
[Service]
Type=notify
ExecStart=/usr/bin/etcd --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
";

/// How the test reaches the machine, from its begin to its very end.
const LAB: &str = "[Unit]
DefaultDependencies=no
[Service]
ExecStart=/mnt/lab/lab obey 0.0.0.0:5555
";

/// What runs on top: it writes when it is started, and some more when it is stopped.
fn user(after: &str, directory: &str) -> String {
    format!(
        "[Unit]
After={after}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo first words >{directory}/user'
ExecStop=/bin/sh -c 'echo last words >>{directory}/user'
"
    )
}

const MOUNT: &str = "/usr/lib/pollux/pollux-mount";

fn property(guest: &mut Guest<'_>, unit: &str, name: &str) -> String {
    guest.must(&format!("systemctl show -P {name} {unit}")).trim().to_owned()
}

/// Kills what a unit runs with -9, and waits until systemd has started it again.
fn kill(guest: &mut Guest<'_>, unit: &str) {
    let before = property(guest, unit, "MainPID");
    guest.must(&format!("kill -9 {before}"));
    let is_back = format!(
        "[ \"$(systemctl show -P MainPID {unit})\" != {before} ] && systemctl is-active {unit}"
    );
    guest.wait("its return", seconds(60), &is_back);
    assert_eq!(property(guest, unit, "NRestarts"), "1");
}

#[test]
fn the_units_under_a_real_systemd() {
    let more = [
        Need::File("/lib/systemd/systemd"),
        Need::Program("nbd-client"),
        Need::Program("mkfs.ext4"),
        Need::Program("debugfs"),
        Need::Program("curl"),
        Need::Program("etcd"),
    ];
    if lacks(&[NEEDS, &more].concat()) {
        return;
    }
    let lab = Lab::new();
    let mut alpha = lab.guest("alpha", &[96, 32, 32]).with_init("/lib/systemd/systemd");
    alpha.put("/etc/pollux/pollux.conf", 0o644, &config(["/dev/vda", "/dev/vdb", "/dev/vdc"]));
    alpha.put("/etc/pollux/agent.toml", 0o600, AGENT);
    let system = |name: &str| format!("/etc/systemd/system/{name}.service");
    alpha.put(&system("user"), 0o644, &user("pollux@r0.service", "/srv/data"));
    alpha.put(&system("agents"), 0o644, &user("basic.target", "/srv/agent"));
    alpha.put(&system("etcd"), 0o644, ETCD);
    alpha.put(&system("lab"), 0o644, LAB);
    alpha.enable("lab.service", "../lab.service");
    for n in 0..3 {
        alpha.enable(&format!("pollux@r{n}.service"), &format!("{UNITS}/pollux@.service"));
    }
    alpha.enable("pollux-exporter.service", &format!("{UNITS}/pollux-exporter.service"));
    let [disk, other, agents] =
        [0, 1, 2].map(|n| alpha.disk(n).to_str().expect("a simple path").to_owned());
    lab.put("pollux.conf", 0o644, &config([&disk, &other, &agents]));
    let config = lab.path("pollux.conf");
    let adm = programs::path("polluxadm");
    let adm = |verb: &str, resource: &str| {
        let config = config.to_str().expect("a simple path");
        let words = ["--config", config, "--node", "alpha", verb, resource];
        run_ok(seconds(20), adm.to_str().expect("a simple path"), words)
    };
    adm("create-md", "all");

    // At boot.
    alpha.boot();
    alpha.wait(
        "the daemon",
        seconds(90),
        "systemctl is-active pollux@r0 pollux@r1 pollux@r2 pollux-exporter",
    );
    alpha.must(
        "systemd-analyze verify pollux@r0.service pollux-agent.service pollux-exporter.service",
    );
    assert!(alpha.must("polluxadm role r0").contains("Secondary"));
    let metrics = "curl -s http://127.0.0.1:9943/metrics | grep '^pollux_up.* 1$'";
    alpha.wait("the exporter", seconds(30), metrics);

    // Restarted, with a file system on it: that is unmounted first, not torn.
    alpha.must(
        "polluxadm primary --force r0
         modprobe nbd
         nbd-client -unix /run/pollux/r0.nbd /dev/nbd0 -N r0
         mkfs.ext4 -q /dev/nbd0
         nbd-client -d /dev/nbd0",
    );
    alpha.must(&format!("{MOUNT} start r0 /srv/data && echo kept >/srv/data/not-synced"));
    let before = property(&mut alpha, "pollux@r0", "MainPID");
    alpha.must("systemctl restart pollux@r0");
    assert_ne!(property(&mut alpha, "pollux@r0", "MainPID"), before);
    assert_eq!(property(&mut alpha, "pollux@r0", "Result"), "success");
    assert!(alpha.must("polluxadm role r0").contains("Secondary"));
    assert!(!alpha.run("grep ' /srv/data ' /proc/mounts || ls /sys/block/nbd*/pid").is_ok());
    alpha.must(&format!("polluxadm primary r0 && {MOUNT} start r0 /srv/data"));
    assert_eq!(alpha.must("cat /srv/data/not-synced"), "kept\n");

    // Killed: it is back, as Secondary, and what was on it is not.
    kill(&mut alpha, "pollux@r0");
    assert!(alpha.must("polluxadm role r0").contains("Secondary"));
    assert_eq!(alpha.run(&format!("{MOUNT} status r0 /srv/data")).code, Some(1));
    alpha.must(&format!("polluxadm primary r0 && {MOUNT} start r0 /srv/data"));
    assert_eq!(alpha.must("cat /srv/data/not-synced"), "kept\n");

    // A second daemon is refused, and the first does not notice; one that was told to go down stays so.
    alpha.must("systemctl start pollux@r0 && systemctl is-active pollux@r0");
    assert!(!alpha.run("/usr/sbin/polluxd r0").is_ok());
    alpha.must(&format!("{MOUNT} stop r0 /srv/data && polluxadm down r0"));
    alpha.wait("its end", seconds(10), "! systemctl is-active pollux@r0");
    assert_eq!(property(&mut alpha, "pollux@r0", "ActiveState"), "inactive");
    alpha.must("systemctl start pollux@r0 && polluxadm primary r0");

    // The agent: killed, it is back, and what it started has not noticed; stopped, all of it is down before.
    alpha.must(
        "polluxadm primary --force r2
         nbd-client -unix /run/pollux/r2.nbd /dev/nbd8 -N r2
         mkfs.ext4 -q /dev/nbd8
         nbd-client -d /dev/nbd8
         polluxadm secondary r2
         systemctl start etcd pollux-agent",
    );
    let active = "pollux-agent status --json r2 | grep '\"phase\":\"active\"'";
    alpha.wait("the agent's service", seconds(90), active);
    alpha.must("systemctl is-active agents && echo here >/srv/agent/file");
    kill(&mut alpha, "pollux-agent");
    alpha.wait("the agent's service, again", seconds(90), active);
    assert_eq!(alpha.must("cat /srv/agent/user /srv/agent/file"), "first words\nhere\n");
    alpha.must("systemctl stop pollux-agent");
    assert_eq!(property(&mut alpha, "agents", "ActiveState"), "inactive");
    assert!(!alpha.run("grep ' /srv/agent ' /proc/mounts").is_ok());
    assert!(alpha.must("polluxadm role r2").contains("Secondary"));
    alpha.must("systemctl start pollux-agent");
    alpha.wait("it serves again", seconds(90), active);

    // Switched off: what is on top, the file system, the device, the daemon; also where it was mounted by hand.
    alpha.must(
        "polluxadm primary --force r1
         nbd-client -unix /run/pollux/r1.nbd /dev/nbd9 -N r1
         mkfs.ext4 -q /dev/nbd9
         mkdir /srv/hand
         mount -o _netdev /dev/nbd9 /srv/hand
         echo kept >/srv/hand/not-synced",
    );
    alpha.must(&format!("{MOUNT} start r0 /srv/data && systemctl start user"));
    alpha.must("systemctl --no-block poweroff");
    alpha.wait_off(seconds(120));
    let journal = run(seconds(20), "dumpe2fs", ["-h", &disk]);
    assert!(!text(&journal).contains("needs_recovery"), "{}\n{}", text(&journal), alpha.history());
    run_ok(seconds(20), "e2fsck", ["-fn", &disk]);
    run_ok(seconds(20), "e2fsck", ["-fn", &agents]);
    for disk in [&disk, &agents] {
        let said = run_ok(seconds(20), "debugfs", ["-R", "cat /user", disk]);
        assert!(said.contains("first words\nlast words"), "{said}\n{}", alpha.history());
    }
    let by_hand = run_ok(seconds(20), "debugfs", ["-R", "cat /not-synced", &other]);
    assert!(by_hand.contains("kept"), "{by_hand}\n{}", alpha.history());
    run_ok(seconds(20), "e2fsck", ["-fn", &other]);
    let metadata = adm("dump-md", "r0");
    // Nobody was Primary at the end. (That somebody had died before is kept for the peer.)
    let mut lines = metadata.lines();
    let active = lines.find_map(|line| line.strip_prefix("active-extents"));
    assert_eq!(active.map(str::trim), Some(""), "{metadata}");
}

//! The units of `tools/systemd`, under a real systemd as pid 1 of a machine: started at boot, stopped, restarted, the daemon killed; and the
//! order in which everything ends when the machine is switched off. One node, without its peer: what a unit does is its own node's affair.

use tests::guest::{Guest, Lab, NEEDS};
use tests::real::process::{run, run_ok, text};
use tests::real::{Need, lacks, programs, seconds};

const UNITS: &str = "/usr/lib/systemd/system";

/// Of two resources, on these disks.
fn config(disks: [&str; 2]) -> String {
    let resource = |n: usize| {
        let disk = disks[n];
        format!(
            "resource r{n} {{
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
    resource(0) + &resource(1)
}

/// How the test reaches the machine, from its begin to its very end.
const LAB: &str = "[Unit]
DefaultDependencies=no
[Service]
ExecStart=/mnt/lab/lab obey 0.0.0.0:5555
";

/// What runs on top: it writes when it is started, and some more when it is stopped.
const USER: &str = "[Unit]
After=pollux@r0.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo first words >/srv/data/user'
ExecStop=/bin/sh -c 'echo last words >>/srv/data/user'
";

const MOUNT: &str = "/usr/lib/pollux/pollux-mount";

fn property(guest: &mut Guest<'_>, unit: &str, name: &str) -> String {
    guest.must(&format!("systemctl show -P {name} {unit}")).trim().to_owned()
}

#[test]
fn the_units_under_a_real_systemd() {
    let more = [
        Need::File("/lib/systemd/systemd"),
        Need::Program("nbd-client"),
        Need::Program("mkfs.ext4"),
        Need::Program("debugfs"),
        Need::Program("curl"),
    ];
    if lacks(&[NEEDS, &more].concat()) {
        return;
    }
    let lab = Lab::new();
    let mut alpha = lab.guest("alpha", &[96, 32]).with_init("/lib/systemd/systemd");
    alpha.put("/etc/pollux/pollux.conf", 0o644, &config(["/dev/vda", "/dev/vdb"]));
    alpha.put("/etc/systemd/system/lab.service", 0o644, LAB);
    alpha.put("/etc/systemd/system/user.service", 0o644, USER);
    alpha.enable("lab.service", "../lab.service");
    alpha.enable("pollux@r0.service", &format!("{UNITS}/pollux@.service"));
    alpha.enable("pollux@r1.service", &format!("{UNITS}/pollux@.service"));
    alpha.enable("pollux-exporter.service", &format!("{UNITS}/pollux-exporter.service"));
    let [disk, other] = [0, 1].map(|n| alpha.disk(n).to_str().expect("a simple path").to_owned());
    lab.put("pollux.conf", 0o644, &config([&disk, &other]));
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
        "systemctl is-active pollux@r0 pollux@r1 pollux-exporter",
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
    let before = property(&mut alpha, "pollux@r0", "MainPID");
    alpha.must(&format!("kill -9 {before}"));
    let is_back = format!(
        "[ \"$(systemctl show -P MainPID pollux@r0)\" != {before} ] && systemctl is-active pollux@r0"
    );
    alpha.wait("another daemon", seconds(30), &is_back);
    assert_eq!(property(&mut alpha, "pollux@r0", "NRestarts"), "1");
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
    let said = run_ok(seconds(20), "debugfs", ["-R", "cat /user", &disk]);
    assert!(said.contains("first words\nlast words"), "{said}\n{}", alpha.history());
    let by_hand = run_ok(seconds(20), "debugfs", ["-R", "cat /not-synced", &other]);
    assert!(by_hand.contains("kept"), "{by_hand}\n{}", alpha.history());
    run_ok(seconds(20), "e2fsck", ["-fn", &other]);
    let metadata = adm("dump-md", "r0");
    // Nobody was Primary at the end. (That somebody had died before is kept for the peer.)
    let mut lines = metadata.lines();
    let active = lines.find_map(|line| line.strip_prefix("active-extents"));
    assert_eq!(active.map(str::trim), Some(""), "{metadata}");
}

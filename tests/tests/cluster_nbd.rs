//! `pollux-mount` with the kernel's nbd, on two machines with kernels of their own: twice, out of order, killed in the middle, two resources
//! at once, the daemon dead or standing still; discard and flush reach both disks; and a failover. (`cluster_mount.rs` is the same by FUSE
//! and a loop device.)

use std::os::unix::fs::MetadataExt;
use std::time::Instant;
use tests::guest::{Guest, Lab, NEEDS};
use tests::real::{Need, lacks, seconds, wait_for};

const CONFIG: &str = "common {
  net { protocol C; shared-secret castor; }
  options { auto-promote no; }
}
resource r0 {
  device minor 0;
  disk /dev/vda;
  meta-disk internal;
  on alpha { node-id 0; address 10.99.0.1:7800; }
  on beta { node-id 1; address 10.99.0.2:7800; }
}
resource r1 {
  device minor 1;
  disk /dev/vdb;
  meta-disk internal;
  on alpha { node-id 0; address 10.99.0.1:7801; }
  on beta { node-id 1; address 10.99.0.2:7801; }
}
";

/// Numbers, each durable before it is acknowledged, until a write fails.
const WRITER: &str = "n=0
while echo $n >>/srv/r0/records && sync /srv/r0/records; do
  echo $n
  n=$((n + 1))
done";

const MOUNT: &str = "/usr/lib/pollux/pollux-mount";

fn mount(guest: &mut Guest<'_>, verb: &str, resource: &str) -> (i32, String) {
    let begin = Instant::now();
    let answer = guest.run(&format!("{MOUNT} {verb} {resource} /srv/{resource} ext4"));
    let said = answer.said.trim().to_owned();
    println!("{verb} {resource}: {:?} after {:.1?}: {said}", answer.code, begin.elapsed());
    (answer.code.expect("it ends by itself"), said)
}

#[track_caller]
fn must(guest: &mut Guest<'_>, verb: &str, resource: &str) {
    let (code, said) = mount(guest, verb, resource);
    assert_eq!(code, 0, "{verb}: {said}\n{}", guest.history());
}

/// The resource can be demoted, and promoted again; no device is attached but those of others.
#[track_caller]
fn assert_free(guest: &mut Guest<'_>, others: usize) {
    assert_eq!(mount(guest, "status", "r0"), (3, "stopped".into()));
    let attached = guest.run("ls -d /sys/block/nbd*/pid 2>/dev/null | wc -l").out;
    assert_eq!(attached.trim(), others.to_string());
    guest.must("polluxadm secondary r0 && polluxadm primary r0");
}

/// Which device a resource is mounted from.
fn device(guest: &mut Guest<'_>, resource: &str) -> String {
    guest
        .must(&format!("awk '$2 == \"/srv/{resource}\" {{ print $1 }}' /proc/mounts"))
        .trim()
        .into()
}

/// Flushes that a disk of the guest has done.
fn flushes(guest: &mut Guest<'_>) -> u64 {
    let fields = guest.must("cat /sys/block/vda/stat");
    fields.split_whitespace().nth(15).expect("the 16th field").parse().expect("a number")
}

fn restart_daemon(guest: &mut Guest<'_>) {
    // What died as Primary takes from the other what it may lack, and is promoted only while it can reach it.
    guest.must("polluxadm up r0");
    guest.wait("promotion", seconds(60), "polluxadm wait-sync r0 && polluxadm primary r0");
}

#[test]
fn the_kernels_nbd_survives_everything() {
    if lacks(&[NEEDS, &[Need::Program("nbd-client"), Need::Program("mkfs.ext4")]].concat()) {
        return;
    }
    let lab = Lab::new();
    let [mut alpha, mut beta] = ["alpha", "beta"].map(|name| lab.guest(name, &[96, 32]));
    for guest in [&mut alpha, &mut beta] {
        guest.put("/etc/pollux/pollux.conf", 0o644, CONFIG);
        guest.power_on();
    }
    for guest in [&mut alpha, &mut beta] {
        guest.wait_until_up();
        guest.must("polluxadm create-md --force all");
    }

    // Out of order.
    assert_eq!((mount(&mut alpha, "stop", "r0").0, mount(&mut alpha, "status", "r0").0), (0, 3));
    let (code, said) = mount(&mut alpha, "start", "r0");
    assert!(code == 1 && said.contains("not up"), "{said}");
    beta.must("polluxadm up r0");
    alpha.must("polluxadm up all");
    let (code, said) = mount(&mut alpha, "start", "r0");
    assert!(code == 1 && said.contains("Secondary"), "{said}");
    alpha.must("polluxadm primary --force all");
    // No file system yet: nothing is left behind.
    let (code, said) = mount(&mut alpha, "start", "r0");
    assert!(code == 1 && said.contains("mount failed"), "{said}");
    assert_free(&mut alpha, 0);
    for resource in ["r0", "r1"] {
        alpha.must(&format!(
            "nbd-client -unix /run/pollux/{resource}.nbd /dev/nbd5 -N {resource}
             mkfs.ext4 -q /dev/nbd5
             nbd-client -d /dev/nbd5"
        ));
    }

    // Both at once get devices of their own, also when both want the same; and twice.
    alpha.must(&format!(
        "{MOUNT} start r0 /srv/r0 ext4 & one=$!
         {MOUNT} start r1 /srv/r1 ext4
         wait $one"
    ));
    must(&mut alpha, "start", "r0");
    let devices = [device(&mut alpha, "r0"), device(&mut alpha, "r1")];
    assert!(devices.iter().all(|device| device.starts_with("/dev/nbd")), "{devices:?}");
    assert_ne!(devices[0], devices[1]);
    for resource in ["r0", "r1"] {
        assert_eq!(mount(&mut alpha, "status", resource).0, 0);
    }
    assert!(alpha.run("pidof nbdfuse").out.is_empty());
    alpha.must("echo kept >/srv/r0/file && echo kept >/srv/r1/file && sync");

    // Flush and discard reach both disks.
    let before = [flushes(&mut alpha), flushes(&mut beta)];
    alpha.must("echo again >>/srv/r0/file && sync /srv/r0/file");
    let after = [flushes(&mut alpha), flushes(&mut beta)];
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?}, {after:?}");
    let taken =
        |guest: &Guest<'_>| std::fs::metadata(guest.disk(0)).expect("a file").blocks() >> 11;
    alpha.must(
        "dd if=/dev/urandom of=/srv/r0/big bs=1M count=40 conv=fsync && rm /srv/r0/big && sync",
    );
    let before = [taken(&alpha), taken(&beta)];
    alpha.must("fstrim /srv/r0");
    let after = [taken(&alpha), taken(&beta)];
    println!("MiB taken before fstrim {before:?}, and after {after:?}");
    assert!((0..2).all(|n| before[n] >= 40 && after[n] < before[n] - 30), "{before:?} {after:?}");

    // Somebody uses it, and dies.
    alpha.spawn("user", "cd /srv/r0; exec sleep 1000");
    alpha.wait("somebody uses it", seconds(20), "fuser -sm /srv/r0");
    must(&mut alpha, "stop", "r0");
    must(&mut alpha, "stop", "r0");
    assert_free(&mut alpha, 1);

    // Read-only.
    alpha.must(&format!("{MOUNT} start r0 /srv/r0 ext4 ro && {MOUNT} status r0 /srv/r0 ext4 ro"));
    assert!(!alpha.run("touch /srv/r0/no").is_ok());
    must(&mut alpha, "stop", "r0");

    // The daemon dies while somebody writes. What was on its way waits until stop, which does not.
    must(&mut alpha, "start", "r0");
    alpha.spawn("acknowledged-1", WRITER);
    wait_for("records", seconds(30), || alpha.log("acknowledged-1").lines().count() > 5);
    alpha.must("pkill -KILL -f 'polluxd.* r0$'");
    let (code, said) = mount(&mut alpha, "status", "r0");
    assert!(code == 1 && said.contains("not up"), "{said}");
    let begin = Instant::now();
    must(&mut alpha, "stop", "r0");
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    alpha.wait("the end of who wrote", seconds(10), "! pidof -q sync");
    assert_eq!(mount(&mut alpha, "status", "r0").0, 3);
    let (code, said) = mount(&mut alpha, "start", "r0");
    assert!(code == 1 && said.contains("not up"), "{said}");
    restart_daemon(&mut alpha);
    assert_free(&mut alpha, 1);

    // It dies, and is there again: the device is dead nevertheless.
    must(&mut alpha, "start", "r0");
    alpha.must("pkill -KILL -f 'polluxd.* r0$'");
    restart_daemon(&mut alpha);
    let (code, said) = mount(&mut alpha, "status", "r0");
    assert!(code == 1 && said.contains("cannot be read"), "{said}");
    must(&mut alpha, "start", "r0");
    assert_eq!(mount(&mut alpha, "status", "r0").0, 0);
    assert_all_there(&mut alpha, "acknowledged-1");

    // It stands still, with all buffers full: stop fails in bounded time; when it goes on, nothing is in the way.
    alpha.spawn("fills", "dd if=/dev/zero of=/srv/r0/zeros bs=1M count=40 conv=fsync");
    alpha.wait("it has begun", seconds(20), "[ -s /srv/r0/zeros ]");
    alpha.must("pkill -STOP -f 'polluxd.* r0$'");
    let begin = Instant::now();
    let answer = alpha.run(&format!("POLLUX_UNMOUNT_TIMEOUT=2 {MOUNT} stop r0 /srv/r0"));
    println!("stop: {:?} after {:.1?}: {}", answer.code, begin.elapsed(), answer.said);
    assert!(matches!(answer.code, Some(0 | 1)), "{}", answer.said);
    alpha.must("pkill -CONT -f 'polluxd.* r0$'");
    must(&mut alpha, "stop", "r0");
    assert_free(&mut alpha, 1);

    // The script is killed in the middle, at one point after the other; r1 keeps its device.
    let interrupted = alpha.must(&format!(
        "interrupted=0
         for point in start:0.3 start:0.7 start:1.1 stop:0.6 start:1.5 stop:1 start:2; do
           timeout -s KILL ${{point#*:}} {MOUNT} ${{point%:*}} r0 /srv/r0 ext4 2>/dev/null ||
             interrupted=$((interrupted + 1))
         done
         echo $interrupted"
    ));
    println!("killed in the middle: {}", interrupted.trim());
    assert_ne!(interrupted.trim(), "0");
    must(&mut alpha, "stop", "r0");
    assert_free(&mut alpha, 1);
    alpha.must("echo 3 >/proc/sys/vm/drop_caches; grep -q kept /srv/r1/file && echo more >>/srv/r1/file && sync /srv/r1/file");

    // A second mount of the same file system, which nobody told us of, ends with the first.
    must(&mut alpha, "start", "r0");
    alpha.must("mkdir /srv/second && mount --bind /srv/r0 /srv/second");
    must(&mut alpha, "stop", "r0");
    assert!(!alpha.run("echo no >/srv/second/no && sync /srv/second/no").is_ok());
    alpha.must("polluxadm secondary r0 && umount /srv/second && polluxadm primary r0");
    assert_free(&mut alpha, 1);

    // By four connections, until its power fails; all is there on the other.
    alpha.must(&format!("POLLUX_NBD_CONNECTIONS=4 {MOUNT} start r0 /srv/r0 ext4"));
    assert_eq!(mount(&mut alpha, "status", "r0").0, 0);
    alpha.must("rm /srv/r0/records");
    alpha.spawn("acknowledged-2", WRITER);
    wait_for("records", seconds(30), || alpha.log("acknowledged-2").lines().count() > 20);
    alpha.power_off();
    beta.wait("it may be promoted", seconds(60), "polluxadm primary r0");
    must(&mut beta, "start", "r0");
    assert!(device(&mut beta, "r0").starts_with("/dev/nbd"));
    std::fs::copy(lab.path("logs/alpha/acknowledged-2"), lab.path("logs/beta/acknowledged-2"))
        .expect("a file");
    let count = assert_all_there(&mut beta, "acknowledged-2");
    println!("{count} records acknowledged; none is missing");
    must(&mut beta, "stop", "r0");
    beta.must("polluxadm down r0 && e2fsck -fn /dev/vda");
}

/// Every number that was acknowledged is in the file: how many.
fn assert_all_there(guest: &mut Guest<'_>, log: &str) -> usize {
    let there = guest.must("cat /srv/r0/records");
    let acknowledged = guest.log(log);
    let there: Vec<_> = there.lines().collect();
    for line in acknowledged.lines().filter(|line| line.parse::<u64>().is_ok()) {
        assert!(there.contains(&line), "{line} was acknowledged, and lost");
    }
    acknowledged.lines().count()
}

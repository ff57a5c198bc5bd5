//! The power of a Primary fails, and with it goes what its page cache held: the resync that follows is as large as what was written,
//! however much of the device is active. The disks are files on ext4 in two machines with kernels of their own, which lose everything
//! that was not made stable. (`real_resync.rs` kills processes.)

use tests::guest::{Guest, Lab, NEEDS};
use tests::real::{Need, lacks, seconds};

/// MiB of the device; one in 78 is written, as in 13 of 1024.
const MEBIBYTES: u64 = 128;

/// What says hello, the heartbeats, and what the two kernels have to say to each other.
const SMALL_TALK: u64 = 64 << 10;

const CONFIG: &str = "resource r0 {
  net { protocol C; shared-secret castor; }
  options { auto-promote no; }
  device minor 0;
  disk /srv/disk/data;
  meta-disk /srv/disk/meta;
  on alpha { node-id 0; address 10.99.0.1:7800; }
  on beta { node-id 1; address 10.99.0.2:7800; }
}
";

const MOUNT: &str = "mkdir -p /srv/disk && mount /dev/vda /srv/disk";

/// Bytes that came from the other machine and went there.
fn wire(guest: &mut Guest<'_>) -> u64 {
    let said = guest.must("cat /sys/class/net/eth1/statistics/[rt]x_bytes");
    said.split_whitespace().map(|word| word.parse::<u64>().expect("a number")).sum()
}

/// The Primary writes so many blocks, no two the same, anywhere; nothing makes them stable but Pollux.
fn write(guest: &mut Guest<'_>, blocks: u64) {
    guest.must(&format!(
        "cd /run && fio --name=w --ioengine=libaio --direct=1 --filename=/dev/nbd0 --rw=randwrite --bs=4k --iodepth=32 --randrepeat=0 \
         --number_ios={blocks} --output=/dev/null"
    ));
}

fn promote(guest: &mut Guest<'_>) {
    guest.must("polluxadm wait-sync r0 && polluxadm primary r0 && modprobe nbd");
    guest.must("nbd-client -unix /run/pollux/r0.nbd /dev/nbd0 -N r0 -b 4096");
}

/// Its power fails, and it comes back: bytes on the wire until both are the same again.
fn cut(alpha: &mut Guest<'_>, beta: &mut Guest<'_>) -> u64 {
    alpha.power_off();
    alpha.boot();
    alpha.must(MOUNT);
    beta.wait("it notices", seconds(60), "! polluxadm cstate r0 | grep -q Connected");
    let before = wire(beta);
    alpha.must("polluxadm up r0 && polluxadm wait-connect r0 && polluxadm wait-sync r0");
    wire(beta) - before
}

#[test]
fn a_power_cut_costs_what_was_written() {
    let programs = ["nbd-client", "mkfs.ext4", "fio"].map(Need::Program);
    if lacks(&[NEEDS, &programs].concat()) {
        return;
    }
    let blocks = (MEBIBYTES << 20) / 78 / 4096;
    let lab = Lab::new();
    let disk = [MEBIBYTES + MEBIBYTES / 8 + 64];
    let [mut alpha, mut beta] = ["alpha", "beta"].map(|name| lab.guest(name, &disk));
    for guest in [&mut alpha, &mut beta] {
        guest.put("/etc/pollux/pollux.conf", 0o644, CONFIG);
        guest.power_on();
    }
    for guest in [&mut alpha, &mut beta] {
        guest.wait_until_up();
        guest.must(&format!("mkfs.ext4 -q /dev/vda && {MOUNT}"));
    }
    // No holes: each active extent has to be read.
    alpha.must(&format!("dd if=/dev/urandom of=/srv/disk/data bs=1M count={MEBIBYTES} conv=fsync"));
    beta.must(&format!("truncate -s {MEBIBYTES}M /srv/disk/data"));
    for guest in [&mut alpha, &mut beta] {
        guest.must("polluxadm create-md --force r0 && polluxadm up r0");
    }
    alpha.must("polluxadm wait-connect r0 && polluxadm primary --force r0");
    promote(&mut alpha);

    write(&mut alpha, blocks);
    let written = blocks * 4096;
    let on_wire = cut(&mut alpha, &mut beta);
    println!("{MEBIBYTES} MiB, {written} bytes written: {on_wire} on the wire");
    assert!(on_wire <= 2 * written, "{on_wire} for {written}");
    // Or the caches were not lost, and nothing was shown.
    assert!(on_wire >= written / 4, "{on_wire} for {written}");

    // Quiet for some seconds before it happens: there is nothing to do.
    promote(&mut alpha);
    write(&mut alpha, blocks);
    let clean = "[ $(polluxadm get-gi r0 | cut -d: -f9) = 1 ]";
    let quiet = alpha.wait("an empty activity log", seconds(60), clean);
    let on_wire = cut(&mut alpha, &mut beta);
    println!("after {quiet:.1?} without a write: {on_wire} on the wire");
    assert!(on_wire <= SMALL_TALK, "{on_wire}");

    for guest in [&mut alpha, &mut beta] {
        guest.must("polluxadm down r0");
    }
    let [one, other] = [&mut alpha, &mut beta].map(|guest| guest.must("md5sum </srv/disk/data"));
    assert_eq!(one, other);
}

//! The cookbook's virtual machine: a guest whose only disk, its root file system, is Pollux. The active host loses its power; the guest sees
//! a slow disk, no error, and every record that it acknowledged is there.

use std::time::SystemTime;
use tests::cluster::records::Writer;
use tests::cluster::{Host, NEEDS, Stack};
use tests::cookbook::Recipe;
use tests::guest;
use tests::real::{Need, lacks, seconds};

/// Pid 1 of the guest: a server that makes records durable, and one that runs commands.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
/lab records 0.0.0.0:5000 /records &
/lab obey 0.0.0.0:5555 &
while :; do sleep 1000; done
";

/// An image of the guest's disk: busybox, the program of the tests, what it is linked with.
const IMAGE: &str = "mkdir -p /run/vm/bin /run/vm/dev /run/vm/proc /run/vm/sys
cp \"$(command -v busybox)\" /run/vm/bin/busybox
for name in sh sleep cat dmesg mount poweroff sync; do ln -s busybox /run/vm/bin/$name; done
cp /mnt/lab/lab /run/vm/lab
ldd /mnt/lab/lab | grep -o '/[^ ]*' | while read -r file; do
  mkdir -p \"/run/vm${file%/*}\"
  cp \"$file\" \"/run/vm$file\"
done
mv /run/init /run/vm/init
truncate -s 100M /srv/vm.raw
mkfs.ext4 -q -d /run/vm /srv/vm.raw";

/// Runs a command in the guest, from the host that runs it.
#[track_caller]
fn in_guest(host: &Host, command: &str) -> String {
    host.must(&["/mnt/lab/lab", "ask", "127.0.0.1:5555", command])
}

#[test]
fn a_guest_goes_on_when_the_host_of_its_disk_loses_its_power() {
    let more = [Need::Program("qemu-img"), Need::File("/usr/libexec/heartbeat/heartbeat")];
    if lacks(&[NEEDS, guest::NEEDS, &more].concat()) {
        return;
    }
    let stack = Stack::new("vm", 128);
    let (alpha, beta, host) = (&stack.alpha, &stack.beta, &stack.client);
    let page = Recipe::read("qemu").with("/dev/vg/vm", "/mnt/disk/vm");
    stack.set_up(&page);
    for (file, mode) in [("/etc/pollux/vm-disk.json", 0o644), ("/usr/local/sbin/vm", 0o755)] {
        host.put(file, mode, alpha.text(file));
    }
    stack.start_heartbeat(&stack.nodes());
    stack.wait_for_service(alpha, seconds(60));

    host.put("/run/init", 0o755, INIT);
    host.must(&["sh", "-euc", IMAGE]);
    let said = page.later("install", host);
    assert!(said.is_ok() && said.out.contains("virtual size: 128 MiB"), "{}", said.said);

    // The guest boots, from that disk and nothing else.
    let kernel = guest::kernel::directory().expect("needed");
    for file in ["vmlinuz", "initramfs"] {
        std::fs::copy(kernel.join(file), host.path("/mnt/lab").join(file)).expect("a copy");
    }
    let (shared, console) = (std::path::Path::new("/mnt/lab"), std::path::Path::new("/dev/stdout"));
    let environment = "NAME=guest ROOT=/dev/vda INIT=/init";
    let mut words = vec!["/usr/local/sbin/vm".to_owned()];
    words.extend(guest::arguments(shared, console, environment, 2));
    words.extend(guest::network(&[("127.0.0.1:5000", 5000), ("127.0.0.1:5555", 5555)]));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    host.spawn("qemu", &words);
    let writer = Writer::start(host, "127.0.0.1:5000");
    writer.wait_for_more(100, seconds(120));
    assert!(in_guest(host, "cat /proc/mounts").contains("/dev/vda / ext4 rw"));

    let failed = SystemTime::now();
    let took = stack.fail_over(alpha, beta);
    writer.wait_for_more(100, seconds(60));
    println!(
        "power off: the address was back after {took:?}, the guest's disk did nothing for {:?}",
        writer.longest_silence(failed)
    );
    stack.rejoin(alpha);
    writer.wait_for_more(50, seconds(30));
    let count = writer.assert_all_in(&in_guest(host, "cat /records"));
    assert!(count > 250);
    let kernel_said = in_guest(host, "dmesg");
    assert!(!kernel_said.contains("error"), "{kernel_said}");
    assert!(in_guest(host, "cat /proc/mounts").contains("/dev/vda / ext4 rw"));

    // Not what the guest's cache holds: what is on the disk, after the guest was killed.
    assert_eq!(host.kill9(&["qemu-system-x86"]), 1);
    beta.must(&["/usr/lib/pollux/pollux-mount", "start", "vm", "/srv/guest", "ext4"]);
    let on_disk = writer.assert_all_in(&beta.text("/srv/guest/records"));
    beta.must(&["/usr/lib/pollux/pollux-mount", "stop", "vm", "/srv/guest"]);
    beta.must(&["e2fsck", "-fn", "/mnt/disk/vm"]);
    println!("{on_disk} records acknowledged; none is missing");
    page.assert_all_played(&stack.nodes());
}

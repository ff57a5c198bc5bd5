//! Past the page cache, through io_uring: what was acknowledged is there after every kill.
//!
//! That is how block devices are used, and files with `direct-io yes`. Loop devices with sectors of 4 KiB stand in for disks.

use std::path::{Path, PathBuf};
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::process::{run, run_ok};
use tests::real::sandbox::Sandbox;
use tests::real::{Host, Ledger, Load, Need, Pair, Plan, lacks, seconds};

/// A loop device over a file, detached when dropped.
struct Device(PathBuf);

impl Device {
    fn over(file: &Path) -> Self {
        let words = ["--find", "--show", "--sector-size", "4096"].map(Path::new);
        let said = run_ok(seconds(20), "losetup", words.into_iter().chain([file]));
        Self(PathBuf::from(said.trim()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        run(seconds(20), "losetup", [Path::new("--detach"), &self.0]);
    }
}

/// Flags of every descriptor that the daemon has of its backing disk, as the kernel knows them.
fn open_flags(host: &mut Host) -> Vec<i32> {
    let process = PathBuf::from(format!("/proc/{}", host.daemon().pid()));
    let descriptors = std::fs::read_dir(process.join("fd")).expect("it runs").flatten();
    let of_disk = descriptors
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == host.backing));
    let flags = of_disk.map(|entry| {
        let info = std::fs::read_to_string(process.join("fdinfo").join(entry.file_name()));
        let info = info.expect("it runs");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        i32::from_str_radix(flags.trim(), 8).expect("octal")
    });
    flags.collect()
}

/// What the last start said of the disk.
fn said_of_disk(host: &Host) -> String {
    let said = host.said();
    said.lines().rfind(|line| line.contains("engine=")).unwrap_or("nothing").to_owned()
}

/// Everybody dies under load, and comes back.
fn die_and_come_back(pair: &mut Pair, seed: u64, ledger: Ledger) -> Ledger {
    let work = Work { span: 16 << 20, depth: 16, flush_every: 20, seed };
    let load = Load::start(pair.alpha.client(), ledger, work);
    load.wait_for_more(300);
    pair.alpha.kill();
    pair.beta.kill();
    let mut ledger = load.join().ledger;
    for host in pair.hosts() {
        host.start();
    }
    pair.alpha.wait_status("the connection", seconds(20), |status| status.is_connected());
    pair.alpha.promote();
    ledger.verify(&mut pair.alpha.client());
    pair.wait_in_sync();
    ledger
}

fn story(devices_of: usize, disk: &'static str, forbid_io_uring: bool) {
    let sandbox = Sandbox { forbid_io_uring, ..Sandbox::none() };
    let mut pair = Pair::new(Plan { sandbox, disk, ..Plan::default() });
    let mut devices = Vec::new();
    for host in pair.hosts().into_iter().take(devices_of) {
        let device = Device::over(&host.backing);
        host.backing.clone_from(&device.0);
        devices.push(device);
    }
    pair.write_configuration();
    pair.start();
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    pair.wait_in_sync();
    for (i, host) in pair.hosts().into_iter().enumerate() {
        let (is_direct, said) = (i < devices_of || !disk.is_empty(), said_of_disk(host));
        println!("{}: {said}", host.name);
        let engine = match (is_direct, forbid_io_uring) {
            (true, false) => "io_uring",
            (true, true) => "threads",
            (false, _) => "pread",
        };
        assert!(said.contains(&format!("engine=\"{engine}\" direct={is_direct}")), "{said}");
        let direct = |flags: &i32| flags & libc::O_DIRECT != 0;
        let flags = open_flags(host);
        // Where data goes through the page cache the metadata has a description of its own, past it.
        assert_eq!(flags.iter().any(|flags| !direct(flags)), !is_direct, "{flags:?}");
        assert!(flags.iter().any(direct), "{flags:?}");
    }
    let mut ledger = Ledger::default();
    for seed in 1..=3 {
        ledger = die_and_come_back(&mut pair, seed, ledger);
    }
    // Neither aligned to sectors nor in whole ones: read, merged, written.
    let mut client = pair.alpha.client();
    let (at, length) = ((40 << 20) + 512, 7 * 512);
    client.write(40 << 20, &[1; 8192]).expect("written");
    client.write(at, &vec![2; length]).expect("part of two sectors");
    client.flush().expect("flushed");
    drop(client);
    pair.alpha.kill();
    pair.beta.promote();
    let found = pair.beta.client().read(40 << 20, 8192).expect("read");
    let wanted = [vec![1; 512], vec![2; length], vec![1; 8192 - 512 - length]].concat();
    assert!(found == wanted, "other bytes than were written");
    pair.alpha.start();
    pair.wait_in_sync();
    pair.end(Some(&mut ledger));
}

#[test]
fn two_block_devices_through_io_uring() {
    if !lacks(&[Need::Root, Need::Loop]) {
        story(2, "", false);
    }
}

#[test]
fn a_block_device_and_a_file() {
    if !lacks(&[Need::Root, Need::Loop]) {
        story(1, "", false);
    }
}

#[test]
fn two_block_devices_where_io_uring_is_forbidden() {
    if !lacks(&[Need::Root, Need::Loop]) {
        story(2, "", true);
    }
}

#[test]
fn two_files_past_the_page_cache() {
    story(0, "direct-io yes;", false);
}

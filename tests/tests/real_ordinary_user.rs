//! Without root, and where io_uring is forbidden. (Where the tests run as root, nearly all stories run the product as an ordinary user; here
//! it is what the story is about.)

use std::os::unix::fs::chown;
use tests::real::foreign::Loop;
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::sandbox::{NOBODY, Sandbox};
use tests::real::{Ledger, Load, Need, Pair, Plan, lacks, seconds};

/// The words of the daemon's warning.
const WARNING: &str = "io_uring is not to be had here";

/// Served, killed, promoted, returned, resynced.
fn whole_life(pair: &mut Pair) -> Ledger {
    let work = Work { span: 16 << 20, depth: 8, flush_every: 25, seed: 3 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    load.wait_for_more(200);
    pair.alpha.kill();
    let mut ledger = load.join().ledger;
    pair.beta.promote();
    ledger.verify(&mut pair.beta.client());
    pair.alpha.start();
    pair.wait_in_sync();
    pair.beta.must(&["secondary", RESOURCE]);
    pair.alpha.must(&["primary", RESOURCE]);
    ledger
}

#[test]
fn an_ordinary_user_can_do_all_of_it() {
    for external_meta in [false, true] {
        let mut pair = Pair::start_in_sync(Plan { external_meta, ..Plan::default() });
        for host in pair.hosts() {
            let pid = host.daemon().pid();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            let line =
                |key| status.lines().find(|line| line.starts_with(key)).unwrap_or("").to_owned();
            assert!(!line("Uid:").split_whitespace().any(|word| word == "0"), "{}", line("Uid:"));
            assert!(line("CapEff:").ends_with("0000000000000000"), "{}", line("CapEff:"));
        }
        let mut ledger = whole_life(&mut pair);
        pair.end(Some(&mut ledger));
    }
}

#[test]
fn where_io_uring_is_forbidden_it_says_so_once_and_works() {
    if lacks(&[Need::Root, Need::Loop]) {
        return;
    }
    for forbid_io_uring in [false, true] {
        let sandbox = Sandbox { user: Some(NOBODY), forbid_io_uring };
        let mut pair = Pair::new(Plan { sandbox, ..Plan::default() });
        // Block devices are what io_uring is used for.
        let mut devices = Vec::new();
        for host in pair.hosts() {
            let device = Loop::over(&host.backing);
            chown(device.device(), Some(NOBODY), Some(NOBODY)).expect("root may give devices away");
            host.backing = device.device().to_owned();
            devices.push(device);
        }
        pair.write_configuration();
        pair.start();
        pair.alpha.must(&["primary", "--force", RESOURCE]);
        pair.wait_in_sync();
        let mut ledger = whole_life(&mut pair);
        ledger.verify(&mut pair.alpha.client());
        let size = pair.alpha.status().size;
        let wanted = usize::from(forbid_io_uring);
        // alpha has run twice.
        for (host, runs) in pair.hosts().into_iter().zip([2, 1]) {
            let (count, is_forbidden) = (host.said().matches(WARNING).count(), forbid_io_uring);
            assert_eq!(
                count,
                wanted * runs,
                "{}, forbidden: {is_forbidden}\n{}",
                host.name,
                host.said()
            );
        }
        let uses_ring = |pid: i32| {
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
            descriptors.flatten().any(|entry| {
                std::fs::read_link(entry.path())
                    .is_ok_and(|to| to.to_string_lossy().contains("io_uring"))
            })
        };
        for host in pair.hosts() {
            let pid = host.daemon().pid();
            assert_eq!(uses_ring(pid), !forbid_io_uring, "{}: the wrong engine", host.name);
        }
        pair.alpha.wait_in_sync(seconds(10));
        pair.alpha.down();
        pair.beta.down();
        tests::real::backing::assert_equal(&pair.alpha.backing, &pair.beta.backing, size);
    }
}

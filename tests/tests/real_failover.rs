//! A node dies, the other serves: the Primary, the Secondary again and again, and both at once.

use tests::real::foreign::VerifyingFio;
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::mount::{Mount, Writer, assert_whole};
use tests::real::{Ledger, Load, Need, Pair, Plan, lacks, seconds, wait_for};

#[test]
fn ext4_survives_the_death_of_its_primary() {
    let needs =
        [Need::Root, Need::Fuse, Need::Loop, Need::Program("nbdfuse"), Need::Program("mkfs.ext4")];
    if lacks(&needs) {
        return;
    }
    let mut pair = Pair::start_in_sync(Plan { size: 128 << 20, ..Plan::default() });
    let mut mount = Mount::ext4(pair.dir(), "alpha", &pair.alpha.uri(), true);
    let writer = Writer::start(mount.directory());
    wait_for("fifty files", seconds(60), || writer.safe() >= 50);

    pair.alpha.kill();
    let mut files = writer.stop();
    assert!(files.len() >= 50);
    drop(mount);
    pair.beta.promote();

    // Its journal is replayed by mounting; what is then on the disk must be clean.
    mount = Mount::ext4(pair.dir(), "beta", &pair.beta.uri(), false);
    assert_whole(mount.directory(), &files);
    let more = mount.directory().join("after");
    std::fs::create_dir(&more).expect("it can be written to");
    let writer = Writer::start(&more);
    wait_for("ten files more", seconds(60), || writer.safe() >= 10);
    let after = writer.stop();

    // The old node returns while the file system is in use.
    pair.alpha.start();
    pair.wait_in_sync();
    assert_eq!(pair.alpha.status().role, "Secondary");
    assert_whole(mount.directory(), &files);
    mount.unmount();
    mount.assert_clean();
    drop(mount);

    // And it can take over again.
    pair.beta.must(&["secondary", RESOURCE]);
    pair.alpha.must(&["primary", RESOURCE]);
    mount = Mount::ext4(pair.dir(), "again", &pair.alpha.uri(), false);
    assert_whole(mount.directory(), &files);
    assert_whole(&mount.directory().join("after"), &after);
    mount.unmount();
    mount.assert_clean();
    drop(mount);
    files.extend(after);
    println!("{} fsynced files, all whole", files.len());
    pair.end(None);
}

#[test]
fn acknowledged_writes_survive_the_primary() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut ledger = Ledger::default();
    // There and back again: each node dies as Primary.
    for round in 0..4 {
        let work = Work { span: 32 << 20, depth: 16, flush_every: 50, seed: 77 + round };
        let [alpha, beta] = pair.hosts();
        let (primary, secondary) = if round % 2 == 0 { (alpha, beta) } else { (beta, alpha) };
        if primary.status().role != "Primary" {
            primary.must(&["primary", RESOURCE]);
        }
        let load = Load::start(primary.client(), ledger, work);
        load.wait_for_more(300);
        primary.kill();
        let ended = load.join();
        ledger = ended.ledger;
        assert!(ended.lost.is_some());

        secondary.promote();
        let mut client = secondary.client();
        ledger.verify(&mut client);
        ledger.write(&mut client, (0..20).map(|i| i * 4096));
        drop(client);
        primary.start();
        secondary.wait_in_sync(seconds(30));
        primary.wait_in_sync(seconds(30));
        secondary.must(&["secondary", RESOURCE]);
        println!("round {round}: {} writes acknowledged", ended.acked);
        // The returned one is as good as the other.
        primary.must(&["primary", RESOURCE]);
        ledger.verify(&mut primary.client());
        primary.must(&["secondary", RESOURCE]);
    }
    pair.end(Some(&mut ledger));
}

#[test]
fn fio_notices_nothing_of_a_secondary_that_dies_twenty_times() {
    if lacks(&[Need::Program("fio")]) {
        return;
    }
    let mut pair = Pair::start_in_sync(Plan::default());
    let fio = VerifyingFio::start(&pair.alpha.uri(), pair.dir(), 32);
    wait_for("fio to be connected", seconds(20), || {
        pair.alpha.status().json.contains("\"open\": true")
    });
    for _ in 0..20 {
        pair.beta.kill();
        pair.alpha.wait_status("the loss", seconds(3), |status| !status.is_connected());
        fio.assert_content();
        pair.beta.start();
        // Under load: it must catch up with continuous writes.
        pair.alpha.wait_in_sync(seconds(30));
        fio.assert_content();
    }
    let passes = fio.end();
    println!("20 deaths, {passes} passes of fio");
    assert!(passes > 0);
    pair.end(None);
}

#[test]
fn both_nodes_die_at_once() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let work = Work { span: 32 << 20, depth: 16, flush_every: 40, seed: 4 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    load.wait_for_more(300);
    for host in pair.hosts() {
        host.daemon().strike();
    }
    for host in pair.hosts() {
        host.kill();
    }
    let mut ended = load.join();
    println!("{} writes acknowledged", ended.acked);
    for host in pair.hosts() {
        host.start();
    }
    pair.wait_in_sync();
    pair.alpha.must(&["primary", RESOURCE]);
    ended.ledger.verify(&mut pair.alpha.client());
    pair.end(Some(&mut ended.ledger));
}

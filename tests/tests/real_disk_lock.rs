//! Two daemons never write to one backing file: also not when the first was killed and its last write has not landed yet.

use std::net::TcpStream;
use std::process::Command;
use tests::real::foreign::Fuse;
use tests::real::host::RESOURCE;
use tests::real::link::Link;
use tests::real::nbd::Ask;
use tests::real::ports::{free, loopback};
use tests::real::process::Process;
use tests::real::sandbox::Sandbox;
use tests::real::{Host, Ledger, Need, Pair, Plan, lacks, seconds, wait_for};

/// Another node over the disk of `owner`.
fn intruder(owner: &Host, plan: Plan) -> Pair {
    let mut pair = Pair::new(plan);
    pair.alpha.backing.clone_from(&owner.backing);
    pair.alpha.meta.clone_from(&owner.meta);
    pair.write_configuration();
    pair
}

/// It runs, if at all, without a disk, and says who has it.
fn assert_refused(host: &mut Host) {
    host.start();
    let status = host.wait_status("the refusal", seconds(5), |status| !status.advice.is_empty());
    println!("{}", status.advice.trim());
    assert_eq!(status.disk, "Diskless", "{status}");
    assert!(status.advice.contains("in use"), "{}", status.advice);
    let answer = host.adm(&["attach", RESOURCE]);
    assert_ne!(answer.code, Some(0), "attached: {}", answer.said);
}

#[test]
fn a_second_daemon_on_the_same_file_is_refused() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), (0..64).map(|i| i * 4096));
    let mut other = intruder(&pair.alpha, Plan::default());
    let answer = other.alpha.adm(&["create-md", "--force", RESOURCE]);
    assert_ne!(answer.code, Some(0), "metadata in use was overwritten: {}", answer.said);
    assert_refused(&mut other.alpha);
    // Nor the same node again in the same place.
    let (control, config) = (pair.alpha.run_dir.clone(), pair.alpha.config.clone());
    other.alpha.kill();
    (other.alpha.run_dir, other.alpha.config) = (control, config);
    other.alpha.spawn();
    assert!(!other.alpha.daemon().wait().success(), "two daemons run in one run directory");

    let mut client = pair.alpha.client();
    ledger.verify(&mut client);
    drop(client);
    pair.alpha.kill();
    pair.alpha.start();
    pair.wait_in_sync();
    pair.end(Some(&mut ledger));
}

#[test]
fn a_killed_daemon_keeps_its_disk_until_its_last_write_has_landed() {
    let needs = [Need::Root, Need::Fuse, Need::Program("nbdkit"), Need::Program("nbdfuse")];
    if lacks(&needs) {
        return;
    }
    // A disk that hangs when we want it to: a file whose file system waits for what comes over a link of ours.
    let plan = Plan { sandbox: Sandbox::none(), external_meta: true, ..Plan::default() };
    let mut pair = Pair::new(plan.clone());
    let [port, other_port] = [free(), free()];
    let mut command = Command::new("nbdkit");
    let (address, port_text) = (loopback(port).ip().to_string(), port.to_string());
    command.args(["--foreground", "--ipaddr", &address, "--port", &port_text]);
    command.args(["memory", "64M"]);
    let mut server = Process::start("nbdkit", &mut command, &pair.dir().join("nbdkit.log"));
    let listens = || TcpStream::connect(loopback(port)).is_ok();
    server.wait_until("its port", seconds(10), listens);
    let link = Link::new([loopback(other_port), loopback(port)]);
    let fuse = Fuse::mount(pair.dir(), "hanging", &format!("nbd://{}", link.address_of(1)));
    pair.alpha.backing = fuse.file().to_owned();
    pair.write_configuration();
    pair.start_first();
    let mut ledger = Ledger::default();
    let mut client = pair.alpha.client();
    ledger.write(&mut client, (0..16).map(|i| i * 4096));

    link.silence_to(0);
    let before = link.carried_to(1);
    client.send(&Ask::WriteFua(0, &[7; 4096])).expect("the kernel takes it");
    // Not one in the queue of an engine, or of the kernel: that dies with the process.
    wait_for("a write in flight", seconds(10), || link.carried_to(1) > before);
    pair.alpha.daemon().strike();
    let mut other = intruder(&pair.alpha, plan);
    assert_refused(&mut other.alpha);
    assert!(pair.alpha.daemon().ended().is_none(), "nothing was in flight, so nothing was tested");

    link.heal();
    pair.alpha.kill();
    other.alpha.must(&["attach", RESOURCE]);
    other.alpha.wait_status("the disk", seconds(5), |status| status.disk != "Diskless");
    other.alpha.down();
    pair.beta.down();
    drop((client, fuse));
    server.terminate();
}

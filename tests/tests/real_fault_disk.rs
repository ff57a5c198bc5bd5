//! Disks that fail (EIO, no space) or hang, below either node and at any kind of operation: no client sees it while the other copy is good (IO-2),
//! what was acknowledged stays (DUR-3), a failed flush is the end of a disk (IO-4), and when the disk is well again both copies become equal (CONV).

use tests::real::fault_disk::{Cache, Fault, FaultDisk, On, Rule, Set};
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::{Host, Ledger, Load, Need, Pair, Plan, Status, lacks, seconds, wait_for};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Program("fusermount3")];
const SIZE: u64 = 32 << 20;
/// The file of a node's metadata comes so many after that of its data.
const META: usize = 2;
/// Longer than a silent peer is waited for, several times over.
const HANGS: std::time::Duration = seconds(4);

/// How a node goes to its disk: by system calls through the page cache, or past it by a ring of the kernel. What the configuration says
/// for that, and what the log calls it.
#[derive(Clone, Copy)]
enum Engine {
    Pread,
    IoUring,
}

const ENGINES: [Engine; 2] = [Engine::Pread, Engine::IoUring];

impl Engine {
    fn option(self) -> &'static str {
        match self {
            Self::Pread => "",
            Self::IoUring => "direct-io yes;",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Pread => "engine=\"pread\"",
            Self::IoUring => "engine=\"io_uring\"",
        }
    }
}

/// Two nodes in sync over one fault disk, their metadata in files of their own. The disk is dropped last.
fn in_sync(engine: Engine) -> (Pair, FaultDisk) {
    let files = [("alpha", SIZE), ("beta", SIZE), ("alpha-meta", 0), ("beta-meta", 0)];
    let disk = FaultDisk::mount(&files, Cache::None);
    let plan = Plan { size: SIZE, external_meta: true, disk: engine.option(), ..Plan::default() };
    let mut pair = Pair::new(plan);
    for (file, host) in pair.hosts().into_iter().enumerate() {
        (host.backing, host.meta) = (disk.path(file), Some(disk.path(file + META)));
    }
    pair.write_configuration();
    pair.start_first();
    for host in pair.hosts() {
        assert!(host.said().contains(engine.told()), "not {}: {}", engine.told(), host.said());
    }
    (pair, disk)
}

fn load(pair: &Pair, ledger: Ledger, seed: u64) -> Load {
    let work = Work { span: 16 << 20, depth: 8, flush_every: 20, seed };
    Load::start(pair.alpha.client(), ledger, work)
}

/// Something fails on a node under load; it is given up, the other goes on, and it comes back. With each engine.
fn given_up(node: usize, rule: Rule, provoke: impl Fn(&mut Pair)) {
    if lacks(&NEEDS) {
        return;
    }
    for engine in ENGINES {
        given_up_with(engine, node, rule.clone(), &provoke);
    }
}

fn given_up_with(engine: Engine, node: usize, rule: Rule, provoke: &impl Fn(&mut Pair)) {
    let (mut pair, disk) = in_sync(engine);
    let load = load(&pair, Ledger::default(), 5 + node as u64);
    load.wait_for_more(100);
    let broken = disk.set(rule);
    provoke(&mut pair);
    wait_for("the fault", seconds(10), || broken.met() > 0);
    let given_up = |status: &Status| status.disk == "Diskless" && status.is_connected();
    let host = &*pair.hosts()[node];
    host.wait_status("it is given up", seconds(20), given_up);
    assert!(host.said().contains("the disk is"), "{}", host.history());
    load.wait_for_more(200);

    drop(broken);
    pair.hosts()[node].must(&["attach", RESOURCE]);
    pair.wait_in_sync();
    load.wait_for_more(100);
    let mut ended = load.stop();
    assert!(ended.lost.is_none(), "IO-2: the client was told of it: {:?}", ended.lost);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

const EIO: Fault = Fault::Fail(libc::EIO);

#[test]
fn a_write_fails_once_on_the_primary() {
    given_up(0, Rule::once(0, &[On::Write], EIO), |_| {});
}

#[test]
fn every_write_fails_on_the_primary() {
    given_up(0, Rule::always(0, &[On::Write], EIO), |_| {});
}

#[test]
fn every_write_fails_on_the_secondary() {
    given_up(1, Rule::always(1, &[On::Write], EIO), |_| {});
}

#[test]
fn one_region_of_the_secondary_is_bad() {
    let range = 1 << 20..5 << 20;
    given_up(1, Rule { range, ..Rule::always(1, &[On::Write], EIO) }, |_| {});
}

#[test]
fn the_disk_of_the_secondary_is_full() {
    given_up(1, Rule::always(1, &[On::Write], Fault::Fail(libc::ENOSPC)), |_| {});
}

#[test]
fn a_flush_fails_once_on_the_primary() {
    given_up(0, Rule::once(0, &[On::Flush], EIO), |_| {});
}

#[test]
fn a_flush_fails_once_on_the_secondary() {
    given_up(1, Rule::once(1, &[On::Flush], EIO), |_| {});
}

/// What makes a node write metadata: the other goes away and comes back.
fn part_and_meet(pair: &mut Pair) {
    pair.alpha.must(&["disconnect", RESOURCE]);
    pair.alpha.must(&["connect", RESOURCE]);
}

#[test]
fn metadata_cannot_be_written_on_the_secondary() {
    given_up(1, Rule::always(1 + META, &[On::Write], EIO), part_and_meet);
}

#[test]
fn metadata_cannot_be_made_stable_on_the_secondary() {
    given_up(1, Rule::once(1 + META, &[On::Flush], EIO), part_and_meet);
}

#[test]
fn a_read_fails_on_the_primary_and_the_peer_serves() {
    given_up(0, Rule::always(0, &[On::Read], EIO), |pair| {
        let bytes = pair.alpha.client().read(20 << 20, 4096).expect("IO-2: the peer has it");
        assert!(bytes.iter().all(|&byte| byte == 0));
    });
}

#[test]
fn metadata_cannot_be_written_on_the_primary() {
    // Nothing is written there while all that is written to is active: an extent that has not been.
    given_up(0, Rule::always(META, &[On::Write], EIO), |pair| {
        pair.alpha.client().write(24 << 20, &[0; 4096]).expect("IO-2: the peer takes it");
    });
}

/// While a disk hangs its node answers, and so does the other; then all goes on.
fn hangs(node: usize, on: &'static [On]) {
    if lacks(&NEEDS) {
        return;
    }
    for engine in ENGINES {
        hangs_with(engine, node, on);
    }
}

fn hangs_with(engine: Engine, node: usize, on: &'static [On]) {
    let (pair, disk) = in_sync(engine);
    let load = load(&pair, Ledger::default(), 9 + node as u64);
    load.wait_for_more(100);
    let hung = disk.set(Rule::always(node, on, Fault::Hang));
    wait_for("the disk to hang", seconds(10), || hung.met() > 0);
    let begin = std::time::Instant::now();
    while begin.elapsed() < HANGS {
        for host in [&pair.alpha, &pair.beta] {
            let status = host.status();
            assert!(status.is_connected(), "LIVE-3: {}: {status}", host.name);
        }
    }
    drop(hung);
    load.wait_for_more(100);
    let mut ended = load.stop();
    assert!(ended.lost.is_none() && ended.longest >= HANGS, "{:?} {:?}", ended.lost, ended.longest);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

#[test]
fn writes_hang_on_the_primary() {
    hangs(0, &[On::Write]);
}

#[test]
fn writes_hang_on_the_secondary() {
    hangs(1, &[On::Write]);
}

#[test]
fn flushes_hang_on_the_secondary() {
    hangs(1, &[On::Flush]);
}

#[test]
fn a_primary_whose_disk_hangs_is_killed_and_its_late_writes_are_overwritten() {
    if lacks(&NEEDS) {
        return;
    }
    ENGINES.into_iter().for_each(killed_while_its_disk_hangs);
}

fn killed_while_its_disk_hangs(engine: Engine) {
    let (mut pair, disk) = in_sync(engine);
    let load = load(&pair, Ledger::default(), 13);
    load.wait_for_more(100);
    let hung: Set = disk.set(Rule::always(0, &[On::Write], Fault::Hang));
    // One is enough, and may be all there is: a flush that is due lets no further write begin.
    wait_for("a write to hang", seconds(10), || hung.met() > 0);
    // It does not go before its disk lets it go; the peer does not wait for that.
    pair.alpha.daemon().strike();
    let take_over = |host: &Host| host.adm(&["primary", RESOURCE]).code == Some(0);
    wait_for("beta to take over", seconds(20), || take_over(&pair.beta));
    let mut client = pair.beta.client();
    let places = || (0..32).map(|block| block * 4096);
    let late = disk.record().entries.iter().filter(|entry| entry.file == 0).count();

    drop(hung);
    pair.alpha.kill();
    let mut ledger = load.join().ledger;
    ledger.verify(&mut client);
    ledger.write(&mut client, places());
    drop(client);
    println!("{late} operations had reached the disk of the dead");
    pair.alpha.start();
    pair.wait_in_sync();
    pair.end(Some(&mut ledger));
}

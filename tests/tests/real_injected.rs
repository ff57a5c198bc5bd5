//! Each system call of the disk engine that uses the page cache fails, on either node: the disk is given up and no client sees it (IO-2), what
//! was acknowledged stays (DUR-3), and when calls succeed again both copies become equal (CONV). The kernel does as it is told by strace;
//! what disks do by themselves, and the other engine, is in `real_fault_disk`.

use std::process::Command;
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::nbd::Ask;
use tests::real::process::Process;
use tests::real::{Client, Host, Ledger, Load, Need, Pair, Plan, Status, lacks, seconds, wait_for};

/// Another user's process is only root's to trace.
const NEEDS: [Need; 2] = [Need::Program("strace"), Need::Root];

const WRITE: &str = "pwrite64,pwritev,pwritev2";
const READ: &str = "pread64,preadv,preadv2";
const FLUSH: &str = "fsync,fdatasync";

/// Which of a node's files.
#[derive(Clone, Copy)]
enum On {
    Data,
    Metadata,
}

/// strace on a daemon, which makes its calls fail. It lets go when it is dropped.
struct Injected {
    strace: Process,
    status: String,
}

impl Injected {
    fn new(pair: &mut Pair, node: usize, on: On, calls: &str, how: &str) -> Self {
        let log = pair.dir().join("strace.log");
        let hosts = pair.hosts();
        let host = &hosts[node];
        let path = match on {
            On::Data => host.backing.clone(),
            On::Metadata => host.meta.clone().expect("metadata has a file of its own"),
        };
        let pid = host.daemon.as_ref().expect("it runs").pid();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-p", &pid.to_string(), "-P"]).arg(path);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")]);
        let mut strace = Process::start("strace", &mut command, &log);
        let status = format!("/proc/{pid}/status");
        strace.wait_until("it traces", seconds(10), || is_traced(&status));
        Self { strace, status }
    }

    /// Calls it has met.
    fn met(&self) -> bool {
        ["(INJECTED)", "(DELAYED)"].iter().any(|word| self.strace.said().contains(word))
    }

    fn end(mut self) {
        self.strace.terminate();
        wait_for("the daemon to run alone", seconds(10), || !is_traced(&self.status));
    }
}

fn is_traced(status: &str) -> bool {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
}

fn pair() -> Pair {
    Pair::start_in_sync(Plan { external_meta: true, ..Plan::default() })
}

fn load(pair: &Pair, seed: u64) -> Load {
    let work = Work { span: 16 << 20, depth: 8, flush_every: 20, seed };
    Load::start(pair.alpha.client(), Ledger::default(), work)
}

fn host(pair: &mut Pair, node: usize) -> &mut Host {
    let [alpha, beta] = pair.hosts();
    if node == 0 { alpha } else { beta }
}

/// Calls fail on a node under load: its disk is given up, the other goes on, and it comes back.
fn given_up(node: usize, on: On, calls: &str, how: &str) {
    if lacks(&NEEDS) {
        return;
    }
    let mut pair = pair();
    let load = load(&pair, 3 + node as u64);
    load.wait_for_more(100);
    let injected = Injected::new(&mut pair, node, on, calls, how);
    match (on, node) {
        (On::Data, _) => {}
        // Nothing is written there while all that is written to is active: an extent that has not been.
        (On::Metadata, 0) => {
            pair.alpha.client().write(24 << 20, &[0; 4096]).expect("IO-2: the peer takes it");
        }
        // The other goes away and comes back.
        (On::Metadata, _) => {
            pair.alpha.must(&["disconnect", RESOURCE]);
            pair.alpha.must(&["connect", RESOURCE]);
        }
    }
    let given_up = |status: &Status| status.disk == "Diskless" && status.is_connected();
    host(&mut pair, node).wait_status("it is given up", seconds(20), given_up);
    assert!(injected.met(), "strace says: {}", injected.strace.said());
    load.wait_for_more(100);
    injected.end();

    host(&mut pair, node).must(&["attach", RESOURCE]);
    pair.wait_in_sync();
    load.wait_for_more(100);
    let mut ended = load.stop();
    assert!(ended.lost.is_none(), "IO-2: the client was told of it: {:?}", ended.lost);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

/// Calls fail in a way that is no failure of the disk.
fn borne(node: usize, on: On, calls: &str, how: &str) {
    if lacks(&NEEDS) {
        return;
    }
    let mut pair = pair();
    let load = load(&pair, 5 + node as u64);
    load.wait_for_more(100);
    let injected = Injected::new(&mut pair, node, on, calls, how);
    wait_for("the call", seconds(20), || injected.met());
    load.wait_for_more(50);
    // A tracer that ends in the middle of a call lets that fail as one that the kernel does not know.
    let mut ended = load.stop();
    injected.end();
    assert!(pair.alpha.status().is_in_sync(), "{}", pair.alpha.status());
    assert!(ended.lost.is_none(), "a client was told of it: {:?}", ended.lost);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

#[test]
fn a_write_fails_on_the_primary() {
    given_up(0, On::Data, WRITE, "error=EIO:when=20");
}

#[test]
fn a_write_fails_on_the_secondary() {
    given_up(1, On::Data, WRITE, "error=EIO:when=20");
}

#[test]
fn no_space_is_left_on_the_primary() {
    given_up(0, On::Data, WRITE, "error=ENOSPC");
}

#[test]
fn no_space_is_left_on_the_secondary() {
    given_up(1, On::Data, WRITE, "error=ENOSPC");
}

#[test]
fn a_flush_fails_on_the_primary() {
    given_up(0, On::Data, FLUSH, "error=EIO:when=2");
}

#[test]
fn a_flush_fails_on_the_secondary() {
    given_up(1, On::Data, FLUSH, "error=EIO:when=2");
}

#[test]
fn metadata_cannot_be_written_on_the_primary() {
    given_up(0, On::Metadata, WRITE, "error=EIO");
}

#[test]
fn metadata_cannot_be_written_on_the_secondary() {
    given_up(1, On::Metadata, WRITE, "error=EIO");
}

#[test]
fn metadata_cannot_be_made_stable_on_the_primary() {
    given_up(0, On::Metadata, "pwritev2,fsync,fdatasync", "error=EIO");
}

#[test]
fn a_write_is_interrupted() {
    borne(0, On::Data, WRITE, "error=EINTR:when=5+7");
}

#[test]
fn flushes_take_half_a_second_on_the_secondary() {
    borne(1, On::Data, FLUSH, "delay_enter=500000");
}

/// Blocks that the node's page cache does not hold for certain, read back.
fn reads(client: &mut Client) -> bool {
    (0..64).all(|block| client.read(block * 65536, 65536).is_ok())
}

#[test]
fn reads_fail_on_the_primary_and_the_peer_serves() {
    if lacks(&NEEDS) {
        return;
    }
    let mut pair = pair();
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), (0..64).map(|block| block * 65536));
    let injected = Injected::new(&mut pair, 0, On::Data, READ, "error=EIO");
    let mut client = pair.alpha.client();
    assert!(reads(&mut client), "IO-2: a client was told of it");
    assert!(injected.met(), "strace says: {}", injected.strace.said());
    ledger.verify(&mut client);
    injected.end();
    let disk = pair.alpha.status().disk;
    assert_eq!(disk, "Diskless", "who cannot read is no copy");
    pair.alpha.must(&["attach", RESOURCE]);
    pair.wait_in_sync();
    drop(client);
    pair.end(Some(&mut ledger));
}

#[test]
fn zeroes_are_written_where_they_cannot_be_allocated() {
    if lacks(&NEEDS) {
        return;
    }
    let mut pair = pair();
    let mut ledger = Ledger::default();
    let mut client = pair.alpha.client();
    ledger.write(&mut client, (0..64).map(|block| block * 4096));
    let injected = Injected::new(&mut pair, 0, On::Data, "fallocate", "error=EOPNOTSUPP");
    client.call(&Ask::WriteZeroes(1 << 20, 1 << 20)).expect("zeroes");
    client.call(&Ask::WriteZeroes(0, 32 * 4096)).expect("zeroes");
    assert!(injected.met(), "strace says: {}", injected.strace.said());
    injected.end();
    assert!(client.read(0, 32 * 4096).expect("a read").iter().all(|&byte| byte == 0));
    assert!(pair.alpha.status().is_in_sync());
    drop(client);
    pair.end(None);
}

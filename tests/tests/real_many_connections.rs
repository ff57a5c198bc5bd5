//! Ten thousand connections that come and go, that say nothing, or garbage, on every socket: memory and descriptors stay bounded, clients are
//! served, and the log names the cause once in a while and not ten thousand times (LIM, NET-2).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use tests::real::load::Work;
use tests::real::ports::loopback;
use tests::real::{Host, Ledger, Load, Pair, Plan, seconds, wait_for};

const MANY: usize = 10_000;
/// What a connection may leave behind in a daemon that is not hurt: what an allocator keeps.
const MOST_GROWTH: u64 = 48 << 20;
/// Lines of a log while strangers knock, a second: of each socket five causes in ten seconds, and what the story itself causes.
const MOST_LINES: usize = 3;

/// What daemons had before, and the lines they had said.
struct Before(Vec<(u64, usize, usize)>);

fn lines(host: &Host) -> usize {
    host.said().lines().count()
}

impl Before {
    fn of(pair: &mut Pair) -> Self {
        let look = |host: &mut Host| {
            let lines = lines(host);
            (host.daemon().resident_bytes(), host.daemon().descriptors(), lines)
        };
        Self(pair.hosts().map(look).to_vec())
    }

    /// It is as it was; strangers have knocked since `begun`.
    fn is_restored(&self, pair: &mut Pair, begun: Instant) {
        let most_lines = MOST_LINES * (begun.elapsed().as_secs() as usize + 10);
        for (host, (memory, descriptors, before)) in pair.hosts().into_iter().zip(&self.0) {
            wait_for("its descriptors to be closed", seconds(30), || {
                host.daemon().descriptors() <= descriptors + 2
            });
            let grown = host.daemon().resident_bytes().saturating_sub(*memory);
            let said = lines(host) - before;
            println!("{}: {} KiB more memory, {said} lines", host.name, grown >> 10);
            assert!(grown < MOST_GROWTH, "{}: memory grew by {grown} bytes", host.name);
            assert!(said <= most_lines, "{}: {said} lines of log", host.name);
        }
    }
}

fn load(pair: &Pair, seed: u64) -> Load {
    let work = Work { span: 16 << 20, depth: 4, flush_every: 50, seed };
    Load::start(pair.alpha.client(), Ledger::default(), work)
}

fn end(pair: Pair, load: Load) {
    load.wait_for_more(50);
    let mut ended = load.stop();
    assert!(ended.lost.is_none(), "a client noticed: {:?}", ended.lost);
    println!("{} writes, the longest took {:?}", ended.acked, ended.longest);
    drop(ended.client.take());
    pair.end(Some(&mut ended.ledger));
}

/// All sockets of the two daemons that strangers reach.
fn sockets(pair: &Pair) -> Vec<Box<dyn Fn() -> Box<dyn Stranger> + Send + Sync>> {
    let mut all: Vec<Box<dyn Fn() -> Box<dyn Stranger> + Send + Sync>> = Vec::new();
    for port in [pair.alpha.nbd_port, pair.beta.peer_port] {
        all.push(Box::new(move || {
            Box::new(TcpStream::connect(loopback(port)).expect("somebody listens"))
        }));
    }
    for path in [pair.alpha.nbd_socket(), pair.alpha.run_dir.join("r0.sock")] {
        all.push(Box::new(move || Box::new(UnixStream::connect(&path).expect("somebody listens"))));
    }
    all
}

trait Stranger: Read + Write + Send {
    /// So that a test ends, whatever a server does.
    fn limit(&self);
    /// It will say no more.
    fn end(&self);
}

impl Stranger for TcpStream {
    fn limit(&self) {
        self.set_read_timeout(Some(seconds(15))).expect("a timeout");
    }
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Stranger for UnixStream {
    fn limit(&self) {
        self.set_read_timeout(Some(seconds(15))).expect("a timeout");
    }
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

#[test]
fn ten_thousand_connections_are_opened_and_dropped() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let before = Before::of(&mut pair);
    let load = load(&pair, 3);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for connect in sockets(&pair) {
            scope.spawn(move || (0..MANY).for_each(|_| drop(connect())));
        }
    });
    println!("{} connections in {:?}", 4 * MANY, begun.elapsed());
    load.wait_for_more(50);
    // Somebody new is served, too.
    pair.alpha.client();
    before.is_restored(&mut pair, begun);
    end(pair, load);
}

#[test]
fn two_thousand_say_garbage() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let before = Before::of(&mut pair);
    let load = load(&pair, 4);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for connect in sockets(&pair) {
            scope.spawn(move || {
                for round in 0..2000_u32 {
                    let mut stranger = connect();
                    stranger.limit();
                    let bytes: Vec<u8> =
                        (0..64).map(|i| (round * 31 + i * 7) as u8 | 0x80).collect();
                    // It may have hung up already.
                    let _ = stranger.write_all(&bytes);
                    stranger.end();
                    let _ = stranger.read_to_end(&mut Vec::new());
                }
            });
        }
    });
    load.wait_for_more(50);
    pair.alpha.client();
    before.is_restored(&mut pair, begun);
    end(pair, load);
}

#[test]
fn many_that_say_one_byte_now_and_then_keep_nobody_out() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let before = Before::of(&mut pair);
    let load = load(&pair, 5);
    let begun = Instant::now();
    // More than any of the sockets has places for.
    let mut slow: Vec<_> =
        sockets(&pair).iter().flat_map(|connect| (0..200).map(|_| connect())).collect();
    for byte in 0..4_u8 {
        // Who was sent away is told so here; the others wait for the rest.
        slow.retain_mut(|stranger| stranger.write_all(&[byte]).is_ok());
        pair.alpha.client().read(0, 4096).expect("a new client is served");
        assert_eq!(pair.alpha.status().role, "Primary", "and an operator");
        load.wait_for_more(50);
    }
    // And the peer.
    pair.link.cut();
    pair.alpha.wait_status("the loss", seconds(3), |status| !status.is_connected());
    pair.link.heal();
    pair.alpha.wait_in_sync(seconds(20));
    println!("{} of 800 had not been sent away after {:?}", slow.len(), begun.elapsed());
    drop(slow);
    before.is_restored(&mut pair, begun);
    end(pair, load);
}

//! Bytes that no peer, no client and no operator would send: the connection closes, and nothing else happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use tests::real::load::Work;
use tests::real::ports::loopback;
use tests::real::status::Status;
use tests::real::{Ledger, Load, Pair, Plan, seconds, wait_for};

/// So many bytes that follow from the seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(byte).take(length).collect()
}

/// Sends it and reads until the server hangs up.
fn is_hung_up_on(stream: &mut (impl Read + Write), bytes: &[u8]) -> bool {
    // It may hang up before it has taken all.
    let _ = stream.write_all(bytes);
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(loopback(port)).expect("somebody listens");
    stream.set_read_timeout(Some(seconds(15))).expect("a timeout");
    stream
}

#[test]
fn garbage_closes_its_connection_and_nothing_else() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let before: Vec<_> = pair
        .hosts()
        .into_iter()
        .map(|host| (host.daemon().resident_bytes(), host.daemon().descriptors()))
        .collect();
    let work = Work { span: 16 << 20, depth: 4, flush_every: 50, seed: 8 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    load.wait_for_more(50);

    let hello = [
        &3u32.to_be_bytes()[..],
        b"IHAVEOPT",
        &7u32.to_be_bytes(),
        &8u32.to_be_bytes(),
        &2u32.to_be_bytes(),
        b"r0",
        &[0, 0],
    ]
    .concat();
    let endless =
        [&3u32.to_be_bytes()[..], b"IHAVEOPT", &7u32.to_be_bytes(), &u32::MAX.to_be_bytes()]
            .concat();
    let control = pair.alpha.run_dir.join("r0.sock");
    let (peer, nbd) = (pair.beta.peer_port, pair.alpha.nbd_port);
    // All at once: too few bytes are waited upon until the time for a handshake is over.
    std::thread::scope(|scope| {
        // Beta is the one that waits for its peer.
        for (seed, length) in (1..).zip([1, 8, 64, 4096, 100_000, 1 << 20]) {
            scope.spawn(move || {
                let is_over = is_hung_up_on(&mut tcp(peer), &noise(seed, length));
                assert!(is_over, "{length} bytes on the peer port");
            });
        }
        for (seed, length) in (20..).zip([28, 4096, 1 << 20]) {
            let late = [&hello[..], &noise(seed, length)].concat();
            scope.spawn(move || {
                let is_over = is_hung_up_on(&mut tcp(nbd), &noise(seed, length));
                assert!(is_over, "{length} bytes instead of the NBD handshake");
                let is_over = is_hung_up_on(&mut tcp(nbd), &late);
                assert!(is_over, "{length} bytes after the NBD handshake");
            });
        }
        scope.spawn(|| assert!(is_hung_up_on(&mut tcp(nbd), &endless), "an endless option"));
        for (seed, length) in (40..).zip([16, 100_000]) {
            let mut stream = UnixStream::connect(&control).expect("somebody listens");
            stream.set_read_timeout(Some(seconds(15))).expect("a timeout");
            scope.spawn(move || {
                let bytes = [&b"\x80"[..], &noise(seed, length)].concat();
                let is_over = is_hung_up_on(&mut stream, &bytes);
                assert!(is_over, "{length} bytes on the control socket");
            });
        }
    });
    // Many that say nothing do not keep the peer out.
    let silent: Vec<_> = (0..40).map(|_| tcp(pair.beta.peer_port)).collect();
    pair.link.cut();
    pair.alpha.wait_status("the loss", seconds(3), |status| !status.is_connected());
    pair.link.heal();
    pair.alpha.wait_in_sync(seconds(20));
    drop(silent);

    load.wait_for_more(50);
    let mut ended = load.stop();
    assert!(ended.lost.is_none(), "a client noticed: {:?}", ended.lost);
    drop(ended.client.take());
    pair.wait_in_sync();
    for (host, (resident, descriptors)) in pair.hosts().into_iter().zip(before) {
        let daemon = host.daemon();
        wait_for("its descriptors to be closed", seconds(15), || {
            daemon.descriptors() <= descriptors + 2
        });
        let grown = daemon.resident_bytes().saturating_sub(resident);
        println!("{}: memory grew by {} KiB", host.name, grown >> 10);
        assert!(grown < 96 << 20, "{}: memory grew by {grown} bytes", host.name);
    }
    pair.end(Some(&mut ended.ledger));
}

#[test]
fn a_peer_that_does_not_know_the_secret_stays_outside() {
    let mut pair = Pair::new(Plan::default());
    let text = std::fs::read_to_string(&pair.beta.config).expect("a configuration");
    std::fs::write(&pair.beta.config, text.replace("castor", "helena")).expect("written");
    for host in pair.hosts() {
        host.must(&["create-md", "--force", "r0"]);
        host.start();
    }
    // NET-3: both say why, and neither changes anything. Who dials has an attempt that failed; who waits has a stranger to report.
    let why = "the shared secrets differ";
    let says_why = |status: &Status| status.advice.contains(why);
    let began = std::time::Instant::now();
    for host in pair.hosts() {
        let status = host.wait_status("the reason", seconds(15), says_why);
        println!("{}: {}", host.name, status.advice.trim());
        wait_for("the reason in its log", seconds(15), || host.said().contains(why));
    }
    // However often it knocks, the log says it once in ten seconds.
    for _ in 0..20 {
        let _ = pair.alpha.adm(&["connect", "r0"]);
        pair.alpha.wait_status("the reason again", seconds(15), |status| {
            status.connection == "StandAlone" && says_why(status)
        });
    }
    let lines = pair.beta.said().lines().filter(|line| line.contains(why)).count() as u64;
    let most = 1 + began.elapsed().as_secs() / 10 + 1;
    assert!(lines <= most, "{lines} lines, {most} are enough");
    for host in pair.hosts() {
        let status = host.status();
        assert!(!status.is_connected(), "{status}");
        assert_eq!(status.disk, "Inconsistent", "{status}");
    }
    std::fs::write(&pair.beta.config, text).expect("written");
    pair.beta.down();
    pair.beta.start();
    let _ = pair.alpha.adm(&["connect", "r0"]);
    pair.alpha.wait_status("the connection", seconds(15), |status| status.is_connected());
}

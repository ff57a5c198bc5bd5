//! Bounds: what one client may have in flight, what all may, and that a client that does not read,
//! vanishes or resets its connection harms nobody else.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

mod common;

use common::*;
use nbd_server::Limits;
use nbd_server::nbd::protocol::*;
use rustix::net::sockopt::set_socket_linger;
use std::io::{ErrorKind, Write};
use std::time::Duration;

fn small() -> Limits {
    Limits {
        requests: 16,
        all_requests: 24,
        bytes: 32 << 20,
        all_bytes: 48 << 20,
        linger: Duration::from_millis(100),
        ..Limits::DEFAULT
    }
}

#[test]
fn requests_in_flight_are_bounded_and_go_on_one_by_one() {
    let host = Host::with(small());
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    // More than the receive buffer holds.
    let requests = 20_000;
    let script: Vec<u8> =
        (0..requests).flat_map(|cookie| request(0, command::READ, cookie, 0, 1)).collect();
    let mut writer = client.0.try_clone().unwrap();
    let sender = std::thread::spawn(move || writer.write_all(&script));
    host.wait_until_held(16);
    // Each one that is answered lets exactly one in: never more than 16 are with the device.
    for cookie in 0..84 {
        assert_eq!(host.run(|server| server.in_flight()), (16, 16));
        host.device(|device| assert!(device.release(0)));
        assert_eq!(client.simple_reply(cookie), 0);
        client.receive(1);
        host.wait_until_held(16);
        assert_eq!(host.device(|device| device.inspect(|held| held.len())), 16);
    }
    host.device(|device| device.resume());
    for cookie in 84..requests {
        assert_eq!(client.simple_reply(cookie), 0);
        client.receive(1);
    }
    sender.join().unwrap().unwrap();
    client.expect_alive();
}

#[test]
fn clients_share_the_bound_of_all_and_nobody_is_starved() {
    let host = Host::with(small());
    host.device(|device| device.hold());
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(&host).simple("r0")).collect();
    for client in &mut clients[..2] {
        for cookie in 0..50 {
            client.request(0, command::READ, cookie, 0, 1);
        }
    }
    host.wait_until_held(24);
    // The others have nothing in flight, so one request each is let in above the bound.
    for client in &mut clients[2..] {
        for cookie in 0..50 {
            client.request(0, command::READ, cookie, 0, 1);
        }
    }
    host.wait_until_held(26);
    assert_eq!(host.run(|server| server.in_flight().0), 26);
    host.device(|device| device.resume());
    for client in &mut clients {
        for cookie in 0..50 {
            assert_eq!(client.simple_reply(cookie), 0);
            client.receive(1);
        }
        client.expect_alive();
    }
}

#[test]
fn room_that_one_client_leaves_is_offered_to_the_others() {
    let host = Host::with(small());
    host.device(|device| device.hold());
    let mut first = Client::connect(&host).simple("r0");
    let mut second = Client::connect(&host).simple("r0");
    first.request(0, command::READ, 1, 0, 32 << 20);
    host.wait_until_held(1);
    // Too much beside the first, and nothing of its own whose end it could wait for.
    second.request(0, command::READ, 2, 0, 20 << 20);
    second.request(0, command::READ, 3, 0, 1);
    host.device(|device| device.resume());
    assert_eq!(first.simple_reply(1), 0);
    first.receive(32 << 20);
    assert_eq!(second.simple_reply(2), 0);
    second.receive(20 << 20);
    assert_eq!(second.simple_reply(3), 0);
}

#[test]
fn a_client_that_does_not_read_gets_no_more_memory_and_others_are_served() {
    let host = Host::with(small());
    let mut greedy = Client::connect(&host).simple("r0");
    let mut other = Client::connect(&host).simple("r0");
    let mut asked = 0_u64;
    greedy.0.set_nonblocking(true).unwrap();
    // It asks for 4 MiB again and again until the server listens no more.
    loop {
        let bytes = request(0, command::READ, asked, 0, 4 << 20);
        match greedy.0.write(&bytes) {
            Ok(sent) => {
                assert_eq!(sent, bytes.len(), "a socket takes 28 bytes or none");
                asked += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        let (_, bytes) = host.run(|server| server.in_flight());
        assert!(bytes <= 32 << 20, "{bytes}");
        if asked == 40 {
            break;
        }
    }
    host.until("its share is used up", |server| server.in_flight() == (8, 32 << 20));
    assert_eq!(other.write(0, &vec![9; 8 << 20]), 0);
    assert_eq!(other.read(0, 1), [9]);
    // When it reads at last, it gets all of it.
    greedy.0.set_nonblocking(false).unwrap();
    for cookie in 0..asked {
        assert_eq!(greedy.simple_reply(cookie), 0);
        greedy.receive(4 << 20);
    }
    greedy.expect_alive();
}

#[test]
fn a_client_that_vanishes_is_waited_for_and_then_forgotten() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut other = Client::connect(&host).simple("ro");
    let mut client = Client::connect(&host).simple("r0");
    for cookie in 0..10 {
        client.request(0, command::READ, cookie, 0, 1 << 20);
    }
    // And a write whose payload never comes.
    client.request(0, command::WRITE, 99, 0, 1 << 20);
    client.send(&[0xdd; 1000]);
    host.wait_until_held(10);
    drop(client);
    other.expect_alive();
    // What it asked for is still under way, so its handle is not given back yet.
    assert_eq!(host.run(|server| server.exports().clients("r0")), 1);
    host.device(|device| device.resume());
    host.until("it is forgotten", |server| server.exports().clients("r0") == 0);
    assert_eq!(host.run(|server| server.in_flight()), (0, 0));
    // Nothing of the write cut short has been applied.
    assert!(host.device(|device| device.contents(|bytes| bytes.iter().all(|byte| *byte == 0))));
    other.expect_alive();
}

#[test]
fn resets_with_reads_queued_harm_nobody() {
    let host = Host::start();
    let mut witness = Client::connect_tcp(&host).simple("r0");
    for round in 0..40 {
        let mut client = Client::connect_tcp(&host).simple("r0");
        let mut script = Vec::new();
        for cookie in 0..64 {
            script.extend(request(0, command::READ, cookie, 0, 1 << 20));
        }
        script.extend(request(0, command::WRITE, 99, 0, 1 << 20));
        script.extend(vec![0xee; 1 << 19]);
        if round % 2 == 0 {
            client.send(&script);
        } else {
            // Not even the first header is complete.
            client.send(&script[..20]);
        }
        // Closing resets the connection at once.
        set_socket_linger(&client.0, Some(Duration::ZERO)).unwrap();
        drop(client);
        witness.expect_alive();
    }
    host.until("they are forgotten", |server| {
        server.connections() == 1 && server.in_flight() == (0, 0)
    });
    assert_eq!(witness.read(0, 1 << 20), vec![0; 1 << 20]);
}

#[test]
fn clients_above_the_limit_wait_for_a_place() {
    let host = Host::with(Limits { connections: 1, ..Limits::DEFAULT });
    let first = Client::connect(&host).simple("r0");
    let mut second = Client::connect(&host);
    second.0.set_nonblocking(true).unwrap();
    assert_eq!(host.run(|server| server.connections()), 1);
    let early = std::io::Read::read(&mut second.0, &mut [0; 1]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    first.disconnect();
    second.0.set_nonblocking(false).unwrap();
    second.simple("r0").expect_alive();
}

#[test]
fn many_that_say_nothing_keep_nobody_out() {
    let host = Host::with(Limits { connections: 4, ..Limits::DEFAULT });
    let mut served = Client::connect(&host).simple("r0");
    let mut silent: Vec<Client> = (0..20).map(|_| Client::connect(&host)).collect();
    let mut late = Client::connect(&host).simple("r0");
    // Who came first went first; who is served stays.
    for client in &mut silent[..17] {
        client.receive(18);
        client.expect_end();
    }
    served.expect_alive();
    late.expect_alive();
    drop(silent);
    host.until("they are gone", |server| server.connections() == 2);
}

#[test]
fn a_handshake_has_a_deadline() {
    let host = Host::with(Limits { handshake: Duration::from_millis(50), ..Limits::DEFAULT });
    let mut silent = Client::connect(&host);
    silent.receive(18);
    let mut slow = Client::connect(&host);
    slow.greet(3);
    slow.send(b"IHAVEOPT\0\0\0\x07");
    silent.expect_end();
    slow.expect_end();
    host.until("both are gone", |server| server.connections() == 0);
}

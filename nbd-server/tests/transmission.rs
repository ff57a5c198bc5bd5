//! What a well-behaved client sees over a real socket.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

mod common;

use common::*;
use nbd_server::nbd::protocol::*;
use nbd_server::{IoError, Operation};
use std::net::Shutdown;

#[test]
fn what_is_written_is_read_at_any_offset_and_length() {
    let host = Host::start();
    let mut client = Client::connect(&host).simple("r0");
    for (offset, length) in [(0, 1), (511, 2), (4095, 4098), (1 << 20, 16 << 10), (7, 3 << 20)] {
        let data: Vec<u8> = (0..length).map(|n| (n * 31 + offset as usize) as u8).collect();
        assert_eq!(client.write(offset, &data), 0);
        assert!(client.read(offset, length as u32) == data, "{offset}+{length}");
    }
    client.disconnect();
}

#[test]
fn tcp_serves_as_well() {
    let host = Host::start();
    let mut client = Client::connect_tcp(&host).simple("r0");
    let data = vec![7; 5 << 20];
    assert_eq!(client.write(12345, &data), 0);
    assert!(client.read(12345, 5 << 20) == data);
    client.disconnect();
}

#[test]
fn trim_and_write_zeroes_leave_zeroes() {
    let host = Host::start();
    let mut client = Client::connect(&host).simple("r0");
    assert_eq!(client.write(0, &[1; 300_000]), 0);
    for (command, flags, offset) in [
        (command::TRIM, 0, 1000),
        (command::WRITE_ZEROES, command_flag::NO_HOLE, 101_000),
        (command::WRITE_ZEROES, command_flag::FUA, 201_000),
    ] {
        client.request(flags, command, 8, offset, 90_000);
        assert_eq!(client.simple_reply(8), 0);
        assert_eq!(client.read(offset, 90_000), [0; 90_000]);
        assert_eq!(client.read(offset - 1, 1), [1]);
        assert_eq!(client.read(offset + 90_000, 1), [1]);
    }
    client.request(0, command::CACHE, 8, 0, 4096);
    assert_eq!(client.simple_reply(8), 0);
}

#[test]
fn structured_reads_come_as_one_chunk() {
    let host = Host::start();
    let mut client = Client::connect(&host).structured("r0");
    assert_eq!(client.write(100, b"hello"), 0);
    for flags in [0, command_flag::DF, command_flag::FUA] {
        client.request(flags, command::READ, 77, 99, 7);
        let chunk = client.chunk();
        assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (CHUNK_DONE, chunk::OFFSET_DATA, 77));
        assert_eq!(chunk.payload, [&99u64.to_be_bytes()[..], b"\0hello\0"].concat());
    }
}

#[test]
fn block_status_tells_holes_from_data() {
    let host = Host::start();
    let mut client = Client::connect(&host).structured("r0");
    assert_eq!(client.write(128 << 10, &[1; 10]), 0);
    let mut status = |flags, offset, length| {
        client.request(flags, command::BLOCK_STATUS, 5, offset, length);
        let chunk = client.chunk();
        assert_eq!((chunk.flags, chunk.kind), (CHUNK_DONE, chunk::BLOCK_STATUS));
        assert_eq!(chunk.payload[..4], BASE_ALLOCATION_ID.to_be_bytes());
        let numbers: Vec<u32> = chunk.payload[4..]
            .chunks(4)
            .map(|n| u32::from_be_bytes(n.try_into().unwrap()))
            .collect();
        numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()
    };
    let k = 1 << 10;
    assert_eq!(status(0, 0, 1 << 20), [(128 * k, 3), (64 * k, 0), (832 * k, 3)]);
    assert_eq!(status(command_flag::REQ_ONE, 0, 1 << 20), [(128 * k, 3)]);
    assert_eq!(status(0, 192 * k as u64 - 1, 1), [(1, 0)]);
}

#[test]
fn fua_and_flush_reach_the_device() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    client.request(command_flag::FUA, command::WRITE, 1, 0, 1);
    client.send(b"x");
    client.request(command_flag::FUA, command::TRIM, 2, 0, 1);
    client.request(command_flag::FUA, command::FLUSH, 3, 0, 0);
    client.request(0, command::WRITE, 4, 0, 1);
    client.send(b"y");
    host.wait_until_held(4);
    host.device(|device| {
        device.inspect(|held| {
            assert!(matches!(held[0].operation, Operation::Write { fua: true, .. }));
            assert!(matches!(held[1].operation, Operation::Trim { fua: true, .. }));
            assert!(matches!(held[2].operation, Operation::Flush));
            assert!(matches!(held[3].operation, Operation::Write { fua: false, .. }));
        });
        device.resume();
    });
    for cookie in [1, 2, 3, 4] {
        assert_eq!(client.simple_reply(cookie), 0);
    }
}

#[test]
fn completions_may_come_in_any_order() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    for cookie in 0..100 {
        client.request(0, command::READ, cookie, cookie, 1 + cookie as u32);
    }
    host.wait_until_held(100);
    host.device(|device| (0..100).rev().for_each(|index| assert!(device.release(index))));
    for cookie in (0..100).rev() {
        assert_eq!(client.simple_reply(cookie), 0);
        client.receive(1 + cookie as usize);
    }
    host.device(|device| device.resume());
    client.expect_alive();
}

#[test]
fn every_error_of_a_device_reaches_the_client_and_harms_nothing_else() {
    let host = Host::start();
    let mut simple = Client::connect(&host).simple("r0");
    let mut structured = Client::connect(&host).structured("r0");
    let table = [
        (IoError::NotPermitted, 1),
        (IoError::Io, 5),
        (IoError::NoMemory, 12),
        (IoError::Invalid, 22),
        (IoError::NoSpace, 28),
        (IoError::TooLong, 75),
        (IoError::NotSupported, 95),
        (IoError::ShuttingDown, 108),
    ];
    for (error, number) in table {
        // Everything but flushes fails, so that the connection can be seen to live.
        host.device(move |device| {
            device.set_fault(move |operation| {
                (!matches!(operation, Operation::Flush)).then_some(error)
            });
        });
        assert_eq!(simple.write(0, &[1; 100_000]), number);
        simple.request(0, command::READ, 7, 0, 100_000);
        assert_eq!(simple.simple_reply(7), number);
        structured.request(0, command::READ, 7, 0, 100_000);
        assert_eq!(structured.chunk_error(7), number);
        structured.request(0, command::BLOCK_STATUS, 7, 0, 100_000);
        assert_eq!(structured.chunk_error(7), number);
        structured.request(0, command::TRIM, 7, 0, 100_000);
        assert_eq!(structured.simple_reply(7), number);
        simple.expect_alive();
        structured.expect_alive();
    }
    host.device(|device| device.clear_fault());
    assert_eq!(simple.write(0, b"well"), 0);
}

#[test]
fn connections_are_coherent_and_one_flush_serves_all() {
    let host = Host::start();
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(&host).simple("r0")).collect();
    for round in 0..100_u64 {
        let (writer, reader) = ((round % 4) as usize, ((round + 1) % 4) as usize);
        let data = round.to_be_bytes();
        assert_eq!(clients[writer].write(round * 8, &data), 0);
        assert_eq!(clients[reader].read(round * 8, 8), data);
    }
    clients[0].expect_alive();
    assert_eq!(host.run(|server| server.exports().clients("r0")), 4);
    clients.into_iter().for_each(Client::disconnect);
    host.until("all handles are back", |server| server.exports().clients("r0") == 0);
}

#[test]
fn a_disconnect_gets_the_replies_to_what_was_asked_before() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    for cookie in 0..8 {
        client.request(0, command::READ, cookie, 0, 100_000);
    }
    client.request(0, command::DISC, 0, 5, 5);
    host.wait_until_held(8);
    host.device(|device| device.resume());
    for cookie in 0..8 {
        assert_eq!(client.simple_reply(cookie), 0);
        client.receive(100_000);
    }
    client.expect_end();
}

#[test]
fn a_client_that_closed_its_half_still_gets_its_replies() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    client.request(0, command::READ, 1, 0, 100_000);
    client.0.shutdown(Shutdown::Write).unwrap();
    host.wait_until_held(1);
    host.device(|device| device.resume());
    assert_eq!(client.simple_reply(1), 0);
    client.receive(100_000);
    client.expect_end();
}

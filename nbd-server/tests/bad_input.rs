//! Bad input over a real socket: what the server answers, and that it stays usable. Each test is
//! one kind of abuse; the decoders' own tests hold the finer tables.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

mod common;

use common::*;
use nbd_server::nbd::limits::OPTION_PAYLOAD;
use nbd_server::nbd::protocol::*;
use option_reply as rep;
use std::io::Write;

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;

/// The answer to an option, after which LIST must still work.
fn answer(host: &Host, structured: bool, code: u32, payload: &[u8]) -> u32 {
    let mut client = Client::connect(host);
    client.greet(3);
    if structured {
        assert_eq!(client.ask(option::STRUCTURED_REPLY, b""), rep::ACK);
    }
    let answer = client.ask(code, payload);
    assert_eq!(client.ask(option::LIST, b""), rep::ACK, "unusable after option {code}");
    client.go("r0");
    client.expect_alive();
    answer
}

#[test]
fn options_are_consumed_and_answered() {
    let host = Host::start();
    let name_beyond = [&100u32.to_be_bytes()[..], b"r0\0\0"].concat();
    let count_beyond = [&2u32.to_be_bytes()[..], b"r0\0\x05\0\x01"].concat();
    let trailing = [&go(b"r0")[..], b"x"].concat();
    let table: [(u32, &[u8], u32); 20] = [
        (77, b"some data", rep::ERR_UNSUP),
        (77, &vec![1; 1 << 20], rep::ERR_UNSUP),
        (4, b"r0", rep::ERR_UNSUP),
        (option::STARTTLS, b"", rep::ERR_UNSUP),
        (option::EXTENDED_HEADERS, b"", rep::ERR_UNSUP),
        (option::LIST, b"x", rep::ERR_INVALID),
        (option::STRUCTURED_REPLY, b"x", rep::ERR_INVALID),
        (option::STARTTLS, b"x", rep::ERR_INVALID),
        (option::EXTENDED_HEADERS, b"x", rep::ERR_INVALID),
        (option::GO, b"", rep::ERR_INVALID),
        (option::GO, &name_beyond, rep::ERR_INVALID),
        (option::GO, &count_beyond, rep::ERR_INVALID),
        (option::GO, &trailing, rep::ERR_INVALID),
        (option::GO, &go(&[b'a'; 4097]), rep::ERR_INVALID),
        (option::GO, &go(b"r\0"), rep::ERR_INVALID),
        (option::GO, &go(b"\xff\xfe"), rep::ERR_INVALID),
        (option::GO, &vec![0; OPTION_PAYLOAD + 1], rep::ERR_TOO_BIG),
        (option::GO, &go(b"unknown"), rep::ERR_UNKNOWN),
        (option::INFO, &go(b"unknown"), rep::ERR_UNKNOWN),
        (option::SET_META_CONTEXT, &meta(b"r0", &[b"base:allocation"]), rep::ERR_INVALID),
    ];
    for (code, payload, expected) in table {
        assert_eq!(answer(&host, false, code, payload), expected, "option {code}");
    }
}

#[test]
fn metadata_options_are_checked() {
    let host = Host::start();
    let mut query_beyond = meta(b"r0", &[b"base:allocation"]);
    query_beyond.truncate(20);
    let trailing = [&meta(b"r0", &[b"base:allocation"])[..], b"\0"].concat();
    let many = [&b"base:allocation"[..]; 2000];
    let table: [(&[u8], u32); 6] = [
        (&query_beyond, rep::ERR_INVALID),
        (&trailing, rep::ERR_INVALID),
        (&meta(b"unknown", &[b"base:allocation"]), rep::ERR_UNKNOWN),
        (&meta(b"r0", &many), rep::ACK),
        (&meta(b"r0", &[b"nocolon"]), rep::ACK),
        (&vec![0; OPTION_PAYLOAD + 1], rep::ERR_TOO_BIG),
    ];
    for (payload, expected) in table {
        assert_eq!(answer(&host, true, option::SET_META_CONTEXT, payload), expected);
    }
}

#[test]
fn an_unknown_export_gets_no_info_and_an_old_client_is_disconnected() {
    let host = Host::start();
    let mut client = Client::connect(&host);
    client.greet(3);
    client.option(option::GO, &go(b"unknown"));
    assert_eq!(client.option_reply(option::GO).0, rep::ERR_UNKNOWN);
    for name in [&b"unknown"[..], b"second", b"\xff", b"a\0", &[b'a'; 4097]] {
        let mut client = Client::connect(&host);
        client.greet(0);
        client.option(option::EXPORT_NAME, name);
        client.expect_end();
    }
}

#[test]
fn a_client_of_a_secondary_is_told_why() {
    let host = Host::start();
    let mut client = Client::connect(&host);
    client.greet(3);
    client.option(option::GO, &go(b"second"));
    let answer = client.option_reply(option::GO);
    assert_eq!(answer, (rep::ERR_POLICY, b"this node is Secondary".to_vec()));
    host.run(|server| server.exports().set_refusal("second", None));
    client.go("second");
    client.expect_alive();
}

#[test]
fn handshakes_that_cannot_be_answered_are_ended() {
    let host = Host::start();
    let endless = [&3u32.to_be_bytes()[..], b"IHAVEOPT\0\0\0\x63\x80\0\0\0"].concat();
    let wrong_magic = [&3u32.to_be_bytes()[..], b"IHAVEOPTIHAVEOPT"].concat();
    for bytes in [&b"\0\0\0\x04"[..], b"\x80\0\0\x01", b"GET / HTTP/1.1\r\n", &endless] {
        let mut client = Client::connect(&host);
        client.receive(18);
        client.send(bytes);
        client.expect_end();
    }
    let mut client = Client::connect(&host);
    client.receive(18);
    client.send(&[&wrong_magic[..4], b"xHAVEOPTIHAVEOPT"].concat());
    client.expect_end();
    // More options than anybody needs.
    let mut client = Client::connect(&host);
    client.greet(3);
    let mut refused = 0;
    let many = option_bytes(99, b"").repeat(2000);
    // The server may hang up while we talk.
    let _ = client.0.write_all(&many);
    let mut reply = [0; 20];
    while std::io::Read::read_exact(&mut client.0, &mut reply).is_ok() {
        let text = u32::from_be_bytes(reply[16..].try_into().unwrap());
        client.receive(text as usize);
        refused += 1;
    }
    assert!(refused <= 1024, "{refused}");
}

#[test]
fn an_abort_is_acknowledged() {
    let host = Host::start();
    let mut client = Client::connect(&host);
    client.greet(3);
    assert_eq!(client.ask(option::ABORT, b"why not"), rep::ACK);
    client.expect_end();
}

#[test]
fn a_wrong_request_magic_ends_the_connection() {
    let host = Host::start();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 28]] {
        let mut client = Client::connect(&host).simple("r0");
        client.send(garbage);
        client.expect_end();
    }
}

/// Errors with simple replies, and the connection alive after each.
#[test]
fn bad_requests_are_refused() {
    let host = Host::start();
    let end = 1 << 20;
    let max = 32 << 20;
    let table: [(&str, u16, u16, u64, u32, u32); 34] = [
        ("r0", 0, command::READ, SIZE, 1, EINVAL),
        ("r0", 0, command::READ, SIZE - 1, 2, EINVAL),
        ("r0", 0, command::TRIM, SIZE, 1, EINVAL),
        ("r0", 0, command::CACHE, SIZE, 1, EINVAL),
        ("r0", 0, command::WRITE, SIZE, 512, ENOSPC),
        ("r0", 0, command::WRITE_ZEROES, SIZE - 1, 2, ENOSPC),
        ("r0", 0, command::READ, u64::MAX, 2, EINVAL),
        ("r0", 0, command::TRIM, u64::MAX - 5, 100, EINVAL),
        ("r0", 0, command::WRITE, u64::MAX, 512, ENOSPC),
        ("ro", 0, command::WRITE, 0, 512, EPERM),
        ("ro", 0, command::TRIM, 0, 512, EPERM),
        ("ro", 0, command::WRITE_ZEROES, 0, 512, EPERM),
        ("ro", 0, command::WRITE, end, 512, EPERM),
        ("ro", 0, command::FLUSH, 0, 0, 0),
        ("r0", 0, command::READ, 0, max + 1, EINVAL),
        ("r0", 0, command::READ, 0, 65 << 20, EINVAL),
        ("r0", 0, command::READ, 0, u32::MAX, EINVAL),
        ("r0", 0, command::WRITE, 0, max, 0),
        ("r0", 0, command::WRITE, 0, max + 1, EINVAL),
        ("r0", 0, command::READ, 0, 0, 0),
        ("r0", 0, command::WRITE, 0, 0, 0),
        ("r0", 0, command::TRIM, 0, 0, 0),
        ("r0", 0, command::WRITE_ZEROES, 0, 0, 0),
        ("blocks", 0, command::READ, 100, 512, EINVAL),
        ("blocks", 0, command::WRITE, 0, 100, EINVAL),
        ("blocks", 0, command::TRIM, 0, 100, EINVAL),
        ("r0", 0, 8, 0, 512, EINVAL),
        ("r0", 0, 4711, 0, 512, EINVAL),
        ("r0", 1 << 9, command::WRITE, 0, 512, EINVAL),
        ("r0", command_flag::DF, command::WRITE, 0, 512, EINVAL),
        ("r0", 1 << 5, command::WRITE, 0, 512, EINVAL),
        ("r0", command_flag::NO_HOLE, command::READ, 0, 512, EINVAL),
        ("r0", 0, command::FLUSH, 1, 1, EINVAL),
        ("r0", 0, command::BLOCK_STATUS, 0, 512, EINVAL),
    ];
    let payload = vec![0xab; max as usize + 1];
    for (export, flags, command, offset, length, error) in table {
        let mut client = Client::connect(&host).simple(export);
        client.request(flags, command, 9, offset, length);
        if command == command::WRITE {
            client.send(&payload[..length as usize]);
        }
        let answer = client.simple_reply(9);
        assert_eq!(answer, error, "{export} command {command} flags {flags} {offset}+{length}");
        client.expect_alive();
        client.disconnect();
    }
    // No refused write has left a trace.
    host.run(|server| {
        let untouched = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        assert!(server.exports().device("ro").contents(untouched));
        assert!(server.exports().device("blocks").contents(untouched));
    });
}

#[test]
fn bad_requests_are_refused_with_structured_replies() {
    let host = Host::start();
    let mut client = Client::connect(&host).structured("r0");
    // Reads fail in chunks, also when they are refused early.
    let table = [
        (0, command::READ, SIZE, 1, EINVAL),
        (0, command::READ, 0, (32 << 20) + 1, EOVERFLOW),
        (0, command::READ, 0, 65 << 20, EOVERFLOW),
        (1 << 7, command::READ, 0, 512, EINVAL),
        (0, command::BLOCK_STATUS, SIZE, 512, EINVAL),
        (0, command::BLOCK_STATUS, 0, 0, EINVAL),
    ];
    for (flags, command, offset, length, error) in table {
        client.request(flags, command, 5, offset, length);
        assert_eq!(client.chunk_error(5), error);
        client.expect_alive();
    }
    client.request(0, command::READ, 6, 0, 0);
    let empty = Chunk { flags: CHUNK_DONE, kind: chunk::NONE, cookie: 6, payload: Vec::new() };
    assert_eq!(client.chunk(), empty);
    client.disconnect();
}

#[test]
fn block_status_without_its_context_is_invalid() {
    let host = Host::start();
    let mut client = Client::connect(&host);
    client.greet(3);
    assert_eq!(client.ask(option::STRUCTURED_REPLY, b""), rep::ACK);
    // Selected for another export than the one that is used then.
    let selection = meta(b"ro", &[b"base:allocation"]);
    assert_eq!(client.ask(option::SET_META_CONTEXT, &selection), rep::ACK);
    client.go("r0");
    client.request(0, command::BLOCK_STATUS, 4, 0, 512);
    assert_eq!(client.chunk_error(4), EINVAL);
    client.expect_alive();
}

//! The driver over socket pairs that cut the stream into unpleasant pieces: the bytes that come
//! out must not depend on how bytes go in and out.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

mod common;

use common::*;
use nbd_server::Limits;
use nbd_server::nbd::protocol::*;
use nbd_server::nbd::transport::{Socket, Transport};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll};

/// Receives and sends at most so many bytes at a time; 0 means: as many as there are.
struct Pieces {
    socket: Socket,
    receive: usize,
    send: usize,
    /// Every other call finds nothing, although the socket said it was ready.
    fickle: bool,
    calls: Cell<usize>,
}

impl Pieces {
    fn refuses(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.fickle && self.calls.get().is_multiple_of(2)
    }
}

impl Transport for Pieces {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_readable(context)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_writable(context)
    }

    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.refuses() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.receive == 0 {
            return self.socket.receive(into);
        }
        let first = into.iter_mut().find(|slice| !slice.is_empty()).unwrap();
        let length = first.len().min(self.receive);
        self.socket.receive(&mut [IoSliceMut::new(&mut first[..length])])
    }

    fn send(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.refuses() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.send == 0 {
            return self.socket.send(from);
        }
        let length = from[0].len().min(self.send);
        self.socket.send(&[IoSlice::new(&from[0][..length])])
    }

    fn finish(&self) {
        self.socket.finish();
    }
}

/// Feeds `script` to a connection that works in such pieces; everything it says.
fn replies(host: &Host, script: Vec<u8>, receive: usize, send: usize, fickle: bool) -> Vec<u8> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ours = Client::over(ours).0;
    let mut writer = ours.try_clone().unwrap();
    // The script is there before the server looks, as far as the socket holds it.
    let sender = std::thread::spawn(move || writer.write_all(&script));
    host.wait(move |server| async move {
        theirs.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(tokio::net::UnixStream::from_std(theirs).unwrap());
        let pieces = Pieces { socket, receive, send, fickle, calls: Cell::new(0) };
        server.serve(pieces, "a socket pair".into()).await;
    });
    let mut out = Vec::new();
    ours.read_to_end(&mut out).unwrap();
    sender.join().unwrap().unwrap();
    out
}

/// What is expected of one request: its error and its data.
type Replies = BTreeMap<u64, (u32, Vec<u8>)>;

/// Handshake, then writes and reads of all sizes around the thresholds, refused ones among them,
/// then the end. And what must come of it: the handshake literally, the replies in any order.
fn script(max: usize) -> (Vec<u8>, Vec<u8>, Replies) {
    let mut script = 3u32.to_be_bytes().to_vec();
    script.extend(option_bytes(99, &[5; 1000]));
    script.extend(option_bytes(option::GO, &go(b"r0")));
    let mut handshake = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let mut reply = |option: u32, code: u32, payload: &[u8]| {
        handshake.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        handshake.extend([option, code, payload.len() as u32].map(u32::to_be_bytes).concat());
        handshake.extend(payload);
    };
    reply(99, option_reply::ERR_UNSUP, b"unknown option");
    reply(option::GO, option_reply::INFO, b"\0\0\0\0\0\0\x04\0\0\0\x05\x6d");
    reply(option::GO, option_reply::INFO, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0");
    reply(option::GO, option_reply::ACK, b"");

    let mut expected = Replies::new();
    let mut ask = |flags, command, size: usize, payload: &[u8], error, data: &[u8]| {
        let cookie = expected.len() as u64;
        let offset = if command == command::FLUSH { 0 } else { 1000 };
        script.extend(request(flags, command, cookie, offset, size as u32));
        script.extend(payload);
        expected.insert(cookie, (error, data.to_vec()));
    };
    let sizes = [1, 4096, 27, 28, 29, 16383, 16384, 16385, 40_000, 300_000, 2, 70_000];
    for size in sizes.into_iter().filter(|size| *size <= max) {
        let data: Vec<u8> = (0..size).map(|n| (n * 13 + size) as u8).collect();
        ask(0, command::WRITE, size, &data, 0, b"");
        ask(1 << 12, command::WRITE, size, &vec![0xbb; size], 22, b"");
        ask(0, command::READ, size, b"", 0, &data);
        ask(0, command::FLUSH, 0, b"", 0, b"");
    }
    script.extend(request(0, command::DISC, 0, 0, 0));
    (script, handshake, expected)
}

/// Simple replies by cookie; how much data follows one is taken from `expected`.
fn decode(mut out: &[u8], expected: &Replies) -> Replies {
    let mut replies = Replies::new();
    while !out.is_empty() {
        let (head, rest) = out.split_at(16);
        assert_eq!(head[..4], SIMPLE_REPLY_MAGIC.to_be_bytes());
        let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
        let cookie = u64::from_be_bytes(head[8..].try_into().unwrap());
        let (data, rest) = rest.split_at(expected[&cookie].1.len());
        assert!(replies.insert(cookie, (error, data.to_vec())).is_none(), "answered twice");
        out = rest;
    }
    replies
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    let host = Host::start();
    let table = [
        (0, 0, 1 << 20),
        (1, 0, 20_000),
        (0, 1, 20_000),
        (1, 1, 5_000),
        (27, 15, 50_000),
        (28, 16, 50_000),
        (4096, 4096, 1 << 20),
        (20_000, 100_000, 1 << 20),
    ];
    for (receive, send, max) in table {
        for fickle in [false, true] {
            let (script, handshake, expected) = script(max);
            let out = replies(&host, script, receive, send, fickle);
            let which = format!("pieces of {receive} and {send} bytes, fickle: {fickle}");
            let (start, rest) = out.split_at(handshake.len());
            assert_eq!(start, handshake, "{which}");
            assert!(decode(rest, &expected) == expected, "{which}");
        }
    }
}

/// A client that says all it has to say at once, and closes its half of the stream before it is heard.
#[test]
fn what_came_with_the_handshake_is_answered_though_nothing_follows() {
    let host = Host::start();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ours = Client::over(ours).0;
    let (script, handshake, expected) = script(1);
    ours.write_all(&script).unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    host.wait(move |server| async move {
        theirs.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(tokio::net::UnixStream::from_std(theirs).unwrap());
        server.serve(socket, "a socket pair".into()).await;
    });
    let mut out = Vec::new();
    ours.read_to_end(&mut out).unwrap();
    let (start, rest) = out.split_at(handshake.len());
    assert_eq!(start, handshake);
    assert_eq!(decode(rest, &expected), expected);
}

/// Headers, payloads and skipped payloads that end at, and one byte to either side of, the end of
/// the receive buffer.
#[test]
fn a_receive_buffer_may_be_exactly_full() {
    let capacity = OPTION_HEADER + nbd_server::nbd::limits::OPTION_PAYLOAD;
    let host = Host::with(Limits { receive_buffer: capacity, ..Limits::DEFAULT });
    for shift in 0..30_usize {
        let mut script = 3u32.to_be_bytes().to_vec();
        script.extend(option_bytes(option::GO, &go(b"r0")));
        let handshake = script.len();
        // One write moves all that follows by `shift` bytes; then more than three buffers of reads.
        script.extend(request(0, command::WRITE, 1, 0, shift as u32));
        script.extend(vec![0xcc; shift]);
        let reads = 4 * capacity / REQUEST_HEADER;
        for cookie in 0..reads as u64 {
            script.extend(request(0, command::READ, cookie, 0, 1));
        }
        script.extend(request(0, command::DISC, 0, 0, 0));
        assert!(script.len() > handshake + 3 * capacity);
        let out = replies(&host, script, 0, 0, false);
        let greeting = 18 + (20 + 12) + (20 + 14) + 20;
        assert_eq!(out.len(), greeting + 16 + 17 * reads, "shifted by {shift}");
        for (cookie, reply) in out[greeting + 16..].chunks(17).enumerate() {
            assert_eq!(reply[..8], *b"\x67\x44\x66\x98\0\0\0\0");
            assert_eq!(reply[8..16], (cookie as u64).to_be_bytes());
        }
    }
}

/// The longest option that is not skipped fills the smallest receive buffer to the last byte.
#[test]
fn an_option_may_fill_the_receive_buffer() {
    let payload = nbd_server::nbd::limits::OPTION_PAYLOAD;
    let capacity = OPTION_HEADER + payload;
    let host = Host::with(Limits { receive_buffer: capacity, ..Limits::DEFAULT });
    let mut client = Client::connect(&host);
    client.greet(3);
    assert_eq!(client.ask(option::STRUCTURED_REPLY, b""), option_reply::ACK);
    // 4 + 2 + 4 bytes before the queries, each 4 bytes more than its text.
    let mut left = payload - 10;
    let mut queries = vec![];
    while left > 0 {
        let length = (left - 4).min(4000);
        let length = if (1..5).contains(&(left - 4 - length)) { length - 5 } else { length };
        queries.push(vec![b'q'; length]);
        left -= 4 + length;
    }
    let queries: Vec<&[u8]> = queries.iter().map(|query| &query[..]).collect();
    let exact = meta(b"r0", &queries);
    assert_eq!(exact.len(), payload);
    assert_eq!(client.ask(option::SET_META_CONTEXT, &exact), option_reply::ACK);
    client.go("r0");
    client.expect_alive();
}

//! A client of the NBD server: the real server with devices in memory, and a stream that ends where the input does.
//!
//! Input: a byte that says into which pieces the stream is cut, then what the client sends. Nothing may panic, stay in flight or
//! hang, and what the server says is read as a client would (`nbd/reader.rs`).

mod reader;

use crate::Seed;
use nbd_server::memory::{MemoryDevice, MemoryExports};
use nbd_server::nbd::protocol::{command, command_flag, option};
use nbd_server::nbd::transport::Transport;
use nbd_server::{Geometry, Limits, Refusal, Server};
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::task::{LocalSet, yield_now};

const SIZE: u64 = 256 << 10;
/// So small that a client can reach them.
const LIMITS: Limits = Limits {
    requests: 8,
    bytes: 32 << 20,
    all_requests: 8,
    all_bytes: 32 << 20,
    ..Limits::DEFAULT
};
/// Far more turns than any input takes.
const TURNS: u32 = 1_000_000;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((&shape, client)) = bytes.split_first() else { return };
    let said = Rc::new(RefCell::new(Vec::new()));
    let stream = Stream::new(shape, client, Rc::clone(&said));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without sockets needs nothing of the system");
    LocalSet::new().block_on(&runtime, async {
        let server = Server::new(exports(), LIMITS);
        server.serve(stream, String::new()).await;
        let mut turns = 0;
        while server.connections() > 0 {
            yield_now().await;
            turns += 1;
            assert!(turns < TURNS, "the connection does not end");
        }
        assert_eq!(server.in_flight(), (0, 0), "nothing outlives its connection");
    });
    reader::check(client, &said.borrow());
}

fn exports() -> MemoryExports {
    let exports = MemoryExports::new();
    let plain = Geometry::any_range(SIZE);
    exports.add("r0", "the first", MemoryDevice::new(plain));
    exports.add("ro", "", MemoryDevice::new(Geometry { read_only: true, ..plain }));
    exports.add("blocks", "", MemoryDevice::new(Geometry { minimum: 512, ..plain }));
    exports.add("second", "", MemoryDevice::new(plain));
    exports.set_refusal("second", Some(Refusal::policy("this node is Secondary")));
    exports
}

/// Gives what is to be received, and takes what is sent, in pieces; now and then there is nothing for a moment.
struct Stream {
    client: Vec<u8>,
    received: Cell<usize>,
    said: Rc<RefCell<Vec<u8>>>,
    /// Bytes at once.
    receives: usize,
    sends: usize,
    /// Every second call finds nothing.
    falters: bool,
    calls: Cell<u32>,
}

impl Stream {
    fn new(shape: u8, client: &[u8], said: Rc<RefCell<Vec<u8>>>) -> Self {
        let receives = match shape & 0x3f {
            0 => usize::MAX,
            bytes => usize::from(bytes),
        };
        Self {
            client: client.to_vec(),
            received: Cell::new(0),
            said,
            receives,
            sends: if shape & 0x40 == 0 { usize::MAX } else { 7 },
            falters: shape & 0x80 != 0,
            calls: Cell::new(0),
        }
    }

    fn has_nothing(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.falters && self.calls.get() % 2 == 1
    }
}

impl Transport for Stream {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.has_nothing() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let left = &self.client[self.received.get()..];
        let left = &left[..left.len().min(self.receives)];
        let mut taken = 0;
        for slice in into {
            let part = slice.len().min(left.len() - taken);
            slice[..part].copy_from_slice(&left[taken..taken + part]);
            taken += part;
        }
        self.received.set(self.received.get() + taken);
        Ok(taken)
    }

    fn send(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.has_nothing() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for slice in from {
            let part = slice.len().min(self.sends - taken);
            self.said.borrow_mut().extend_from_slice(&slice[..part]);
            taken += part;
        }
        Ok(taken)
    }

    fn finish(&self) {}
}

/// Sessions as clients have them: each way to begin, each request, each refusal.
pub fn seeds() -> Vec<Seed> {
    let name = |name: &str| [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat();
    let go = |export| [name(export), vec![0, 2, 0, 1, 0, 2]].concat();
    let meta = |export, queries: &[&str]| {
        let queries = queries.iter().flat_map(|query| name(query));
        let count = [0, 0, 0, queries.clone().count().min(1) as u8];
        [name(export), count.to_vec(), queries.collect()].concat()
    };
    let context = |export| meta(export, &["base:allocation"]);
    let begin = |options: &[Vec<u8>]| [3_u32.to_be_bytes().to_vec(), options.concat()].concat();
    let simple = |export| begin(&[option_of(option::GO, &go(export))]);
    let structured = |export| {
        begin(&[
            option_of(option::STRUCTURED_REPLY, &[]),
            option_of(option::SET_META_CONTEXT, &context(export)),
            option_of(option::GO, &go(export)),
        ])
    };
    let requests = |bits: u16| {
        let write = |cookie, offset, len: u32, flags| {
            let header = request(flags, command::WRITE, cookie, offset, len);
            [header, vec![0x5a; len as usize]].concat()
        };
        [
            write(1, 0, 512, bits & command_flag::FUA),
            write(2, 4096, 32, 0),
            request(0, command::READ, 3, 0, 1024),
            request(command_flag::DF, command::READ, 4, SIZE - 512, 512),
            request(0, command::FLUSH, 5, 0, 0),
            request(0, command::TRIM, 6, 0, 65_536),
            request(command_flag::NO_HOLE, command::WRITE_ZEROES, 7, 512, 1024),
            request(0, command::CACHE, 8, 0, 4096),
            request(command_flag::REQ_ONE, command::BLOCK_STATUS, 9, 0, 1 << 17),
            request(0, command::BLOCK_STATUS, 10, 65_535, 4096),
            request(0, command::READ, 11, SIZE, 1),
            write(12, SIZE - 1, 512, 0),
            request(0, 77, 13, 0, 0),
            request(0, command::DISC, 14, 0, 0),
        ]
        .concat()
    };
    let old = |flags: u32, export: &str| {
        [flags.to_be_bytes().to_vec(), option_of(option::EXPORT_NAME, export.as_bytes())].concat()
    };
    let asked = begin(&[
        option_of(option::LIST, &[]),
        option_of(option::STARTTLS, &[]),
        option_of(option::EXTENDED_HEADERS, &[]),
        option_of(option::LIST_META_CONTEXT, &meta("r0", &[])),
        option_of(option::STRUCTURED_REPLY, &[]),
        option_of(option::LIST_META_CONTEXT, &meta("", &[])),
        option_of(option::LIST_META_CONTEXT, &meta("ro", &["base:"])),
        option_of(option::INFO, &go("second")),
        option_of(option::INFO, &go("nobody")),
        option_of(option::GO, &go("second")),
        option_of(99, &[1, 2, 3]),
        option_of(option::ABORT, &[]),
    ]);
    let sessions = [
        ("simple", [simple("r0"), requests(0)].concat()),
        ("fua", [simple(""), requests(command_flag::FUA)].concat()),
        ("structured", [structured("r0"), requests(0)].concat()),
        ("read-only", [structured("ro"), requests(0)].concat()),
        ("blocks", [structured("blocks"), requests(0)].concat()),
        ("refused", simple("second")),
        ("old", [old(3, "r0"), requests(0)].concat()),
        ("old-zeroes", [old(1, "r0"), requests(0)].concat()),
        ("oldest", [old(0, "ro"), requests(0)].concat()),
        ("options", asked),
    ];
    let shapes = [("whole", 0), ("bytes", 1 | 0x40), ("pieces", 33 | 0xc0)];
    let all = sessions.iter().flat_map(|(session, bytes)| {
        shapes.map(|(shape, byte)| (format!("{session}-{shape}"), [&[byte], &bytes[..]].concat()))
    });
    all.collect()
}

fn option_of(code: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [b"IHAVEOPT", &code.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = nbd_server::nbd::protocol::REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

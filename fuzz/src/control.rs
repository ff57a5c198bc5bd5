//! The control socket of a running resource: the real routes and the real owner of a node without a disk, over a stream in memory.
//!
//! Input: a byte, 0x80: what follows is the body of a command, else it is all that is sent, which may be several requests; the rest of the
//! byte is the length of the pieces it comes in. Every answer is HTTP and none says that the server failed; what is asked after a command
//! that nobody sent is still answered.

use crate::Seed;
use axum::serve::Listener;
use bitmap::{NodeId, Placement};
use replicator::buffers::Buffer;
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::daemon::control::{Names, router};
use replicator::daemon::{Daemon, Programs, Setup, VolumeFiles, Waiter};
use replicator::disk::Options;
use replicator::link::{LinkConfig, LinkTiming, SEND_BYTES};
use replicator::node::{Protocol, RequestError};
use replicator::wire::Integrity;
use std::future::{IntoFuture, pending};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

/// Far longer than any answer takes that does not wait for a state.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer to an input.
const ANSWER: usize = 4 << 20;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((&shape, bytes)) = bytes.split_first() else { return };
    let request = if shape & 0x80 == 0 { bytes.to_vec() } else { command(bytes) };
    let piece = match shape & 0x7f {
        0 => usize::MAX,
        bytes => bytes.into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let daemon = Daemon::<Nobody>::new(setup()).await.expect("no address is needed");
        let remote = daemon.remote();
        let run = spawn_local(daemon.run());
        let names =
            Names { resource: "r0".into(), node: "oslo".into(), version: "0", peers: vec![] };
        let (client, server) = duplex(64 << 10);
        let router = router(remote.clone(), names, vec![]);
        let serve = tokio::spawn(axum::serve(Once(Some(server)), router).into_future());
        let answer = timeout(PATIENCE, converse(client, &request, piece)).await;
        check(&answer.expect("it hangs up when the client does"));
        serve.abort();
        if !run.is_finished() {
            // Unless it has gone down, it still tells what it is like.
            assert!(remote.snapshot().await.is_ok() || run.is_finished(), "the owner answers");
        }
        remote.end().await;
        timeout(PATIENCE, run).await.expect("it ends").expect("it does not panic");
    });
}

async fn converse(mut client: DuplexStream, request: &[u8], piece: usize) -> Vec<u8> {
    for part in request.chunks(piece) {
        // It may have hung up.
        if client.write_all(part).await.is_err() {
            break;
        }
        yield_now().await;
    }
    // As long as a command takes that need not wait.
    for _ in 0..32 {
        yield_now().await;
    }
    let _ = client.shutdown().await;
    let mut answer = Vec::new();
    let _ = client.take(ANSWER as u64).read_to_end(&mut answer).await;
    answer
}

fn check(answer: &[u8]) {
    assert!(answer.len() < ANSWER, "LIM: an answer without end");
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&answer[..answer.len().min(12)]);
    assert!(text.starts_with("HTTP/1."), "{text}");
    assert!(!text.ends_with(" 500"), "the server failed");
}

/// `POST /command`.
fn command(body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST /command HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Accepts one connection.
struct Once(Option<DuplexStream>);

impl Listener for Once {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(stream) => (stream, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// No client asks.
struct Nobody;

impl Waiter for Nobody {
    fn done(self, _: Result<Option<Buffer>, RequestError>) {}
}

fn setup() -> Setup {
    Setup {
        config: Config {
            node: NodeId(0),
            volumes: vec![VolumeConfig { number: 0, placement: Placement::Internal, size: 0 }],
            peers: vec![],
            protocol: Protocol::C,
            flush_peer: true,
            suspend_no_data: false,
            fencing: Fencing::DontCare,
            auto_promote: false,
            timing: Timing::default(),
            limits: Limits::default(),
        },
        files: vec![VolumeFiles { volume: 0, disk: None, options: Options::default() }],
        links: LinkConfig {
            me: NodeId(0),
            incarnation: 0,
            resource: "r0".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            peers: vec![],
            secret: None,
            integrity: Integrity::None,
            send_bytes: SEND_BYTES,
            timing: LinkTiming::default(),
        },
        programs: Programs::default(),
    }
}

/// Every command, every page, and what is none.
pub fn seeds() -> Vec<Seed> {
    let bodies = [
        ("attach", r#"{"command":"attach","volume":0}"#),
        ("attach-all", r#"{"command":"attach"}"#),
        ("detach", r#"{"command":"detach","volume":null}"#),
        ("connect", r#"{"command":"connect","discard-my-data":true}"#),
        ("disconnect", r#"{"command":"disconnect"}"#),
        ("primary", r#"{"command":"primary","force":true}"#),
        ("secondary", r#"{"command":"secondary","force":false}"#),
        ("invalidate", r#"{"command":"invalidate"}"#),
        ("invalidate-remote", r#"{"command":"invalidate-remote"}"#),
        ("outdate", r#"{"command":"outdate"}"#),
        ("suspend", r#"{"command":"suspend-io"}"#),
        ("resume", r#"{"command":"resume-io"}"#),
        ("lease", r#"{"command":"lease","until":18446744073709551615}"#),
        ("no-lease", r#"{"command":"lease","until":null}"#),
        ("down", r#"{"command":"down"}"#),
        ("unknown", r#"{"command":"up"}"#),
        ("more", r#"{"command":"down","now":[{"a":1.5e3}]}"#),
        ("twice", r#"{"command":"down","command":"outdate"}"#),
        ("text", r#""\u0041\n\ud83d\ude00""#),
        ("nothing", ""),
    ];
    let mut seeds: Vec<Seed> = Vec::new();
    for (name, body) in bodies {
        seeds.push((format!("command-{name}"), [&[0x80], body.as_bytes()].concat()));
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    let chunked = "POST /command HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n\
                   11\r\n{\"command\":\"down\"\r\n1\r\n}\r\n0\r\n\r\n";
    let several = [post("/wait/connect?seconds=1.5"), get("/metrics"), get("/nothing")].concat();
    let whole = [
        ("metrics", get("/metrics")),
        ("wait", post("/wait/sync?seconds=0.001")),
        ("wait-long", post("/wait/connect?seconds=1e300&seconds=nan")),
        ("wrong-method", get("/command")),
        ("chunked", chunked.into()),
        ("several", several),
        (
            "long",
            "POST /command HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{".into(),
        ),
        ("old", "GET /metrics HTTP/1.0\r\n\r\n".into()),
    ];
    for (name, text) in whole {
        seeds.push((format!("{name}-whole"), [&[0], text.as_bytes()].concat()));
        seeds.push((format!("{name}-pieces"), [&[5], text.as_bytes()].concat()));
    }
    seeds
}

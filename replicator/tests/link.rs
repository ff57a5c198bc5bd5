//! Links over loopback: two ends in one process, and strangers of all kinds.
#![allow(clippy::unwrap_used)]

mod samples;

use bitmap::{ByteRange, NodeId};
use hmac::{Hmac, Mac};
use replicator::buffers::{Buffer, Pool};
use replicator::link::{Arrival, LinkConfig, LinkLimits, LinkTiming, Links, PeerAddress, Secret};
use replicator::node::{BufferId, LinkDown, LinkEvent, LinkId};
use replicator::wire::{
    ANSWER_LEN, Answer, Encoder, End, HELLO_LEN, Hello, Integrity, MAX_PAYLOAD, Message, UNNAMED,
};
use samples::{Sample, pattern, plain, write};
use sha2::Sha256;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

const LOW: NodeId = NodeId(0);
const HIGH: NodeId = NodeId(1);

/// One node as far as links see it: what arrived, and the payloads by name.
struct Host {
    links: Links,
    arrivals: Vec<Arrival>,
    buffers: HashMap<BufferId, Buffer>,
    pool: Pool,
}

type Seen = (LinkId, Message, Option<Vec<u8>>);

impl Host {
    async fn new(config: LinkConfig) -> Self {
        let pool = Pool::new(64 << 20);
        let links = Links::new(config, pool.clone()).await.unwrap();
        Self { links, arrivals: vec![], buffers: HashMap::new(), pool }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        let buffers = &mut self.buffers;
        let name = |buffer| {
            let id = BufferId(1 + buffers.len() as u64);
            buffers.insert(id, buffer);
            id
        };
        self.links.poll(context, name, &mut self.arrivals);
    }

    fn send(&mut self, link: u64, sample: &Sample) {
        let payload = sample.payload.as_ref().map(|bytes| self.pool.copy_of(bytes));
        let payload = |id| {
            assert_eq!(id, UNNAMED);
            payload.expect("the sample has one")
        };
        self.links.send(LinkId(link), sample.message.clone(), payload);
    }

    fn up(&mut self) -> Option<(LinkId, u64)> {
        let up = |arrival: &mut Arrival| matches!(arrival, Arrival::Link(_, LinkEvent::Up { .. }));
        match self.arrivals.extract_if(.., up).next()? {
            Arrival::Link(id, LinkEvent::Up { incarnation }) => Some((id, incarnation)),
            _ => unreachable!(),
        }
    }

    fn down(&mut self) -> Option<(LinkId, LinkDown)> {
        let down = |arrival: &mut Arrival| matches!(arrival, Arrival::Link(_, LinkEvent::Down(_)));
        match self.arrivals.extract_if(.., down).next()? {
            Arrival::Link(id, LinkEvent::Down(why)) => Some((id, why)),
            _ => unreachable!(),
        }
    }

    /// The messages that stand first, without the names of their buffers.
    fn messages(&mut self) -> Vec<Seen> {
        let count = self.arrivals.iter().take_while(|a| matches!(a, Arrival::Message(..))).count();
        let seen = |arrival| match arrival {
            Arrival::Message(id, mut message) => {
                let payload = message.buffer().map(|name| self.buffers[&name].as_ref().to_vec());
                if message.buffer().is_some() {
                    message.name_buffer(UNNAMED);
                }
                (id, message, payload)
            }
            Arrival::Link(..) => unreachable!(),
        };
        self.arrivals.drain(..count).map(seen).collect()
    }
}

/// Runs all hosts until `done` has an answer.
async fn until<T>(
    hosts: &mut [&mut Host],
    mut done: impl FnMut(&mut [&mut Host]) -> Option<T>,
) -> T {
    let run = poll_fn(|context| {
        for host in &mut *hosts {
            let before = host.arrivals.len();
            host.poll(context);
            host.links.flush_turn();
            if host.arrivals.len() > before {
                context.waker().wake_by_ref();
            }
        }
        done(hosts).map_or(Poll::Pending, Poll::Ready)
    });
    timeout(PATIENCE, run).await.expect("in time")
}

/// Runs the host while somebody else does something.
async fn during<T>(host: &mut Host, other: impl Future<Output = T>) -> T {
    let mut other = std::pin::pin!(other);
    let run = poll_fn(|context| {
        host.poll(context);
        host.links.flush_turn();
        other.as_mut().poll(context)
    });
    timeout(PATIENCE, run).await.expect("in time")
}

fn config(me: NodeId, peer: NodeId, address: SocketAddr) -> LinkConfig {
    LinkConfig {
        me,
        incarnation: 100 + u64::from(me.0),
        resource: "r0".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        peers: vec![PeerAddress { node: peer, address }],
        secret: None,
        integrity: Integrity::None,
        limits: LinkLimits::default(),
        timing: LinkTiming::default(),
    }
}

/// The acceptor's configuration; its peer's address is that of loopback.
fn high() -> LinkConfig {
    config(HIGH, LOW, "127.0.0.1:1".parse().unwrap())
}

/// Two hosts that know each other, with what is to be changed on both, then on the lower.
async fn hosts(change: impl Fn(&mut LinkConfig), lower: impl Fn(&mut LinkConfig)) -> (Host, Host) {
    let mut high = high();
    change(&mut high);
    let high = Host::new(high).await;
    let mut low = config(LOW, HIGH, high.links.address().unwrap());
    change(&mut low);
    lower(&mut low);
    (Host::new(low).await, high)
}

async fn connect(low: &mut Host, high: &mut Host, id: u64) {
    low.links.connect(LinkId(id), HIGH);
    high.links.connect(LinkId(id + 100), LOW);
    let (mut a, mut b) = (None, None);
    until(&mut [low, high], |hosts| {
        a = a.or(hosts[0].up());
        b = b.or(hosts[1].up());
        a.zip(b)
    })
    .await;
    assert_eq!((a, b), (Some((LinkId(id), 101)), Some((LinkId(id + 100), 100))));
}

async fn linked(change: impl Fn(&mut LinkConfig)) -> (Host, Host) {
    let (mut low, mut high) = hosts(change, |_| {}).await;
    connect(&mut low, &mut high, 1).await;
    (low, high)
}

/// A write of these bytes.
fn writing(dagtag: u64, bytes: Vec<u8>) -> Sample {
    Sample { name: "", message: write(dagtag, 0, bytes.len() as u64), payload: Some(bytes) }
}

fn every_message() -> Vec<Sample> {
    let mut all = samples::all();
    for (i, len) in [4096, 20_000, (16 << 10) - 1, 16 << 10, 1 << 20].into_iter().enumerate() {
        all.push(writing(i as u64, pattern(len, i as u64)));
    }
    all
}

/// What is asked, so that the answers among the samples are expected.
fn asks() -> Vec<Sample> {
    let ask = |id, sync| {
        let range = ByteRange::new(0, 12);
        plain(
            "",
            match sync {
                true => Message::SyncRead { id, volume: 0, range },
                false => Message::Read { id, volume: 0, range },
            },
        )
    };
    vec![ask(21, false), ask(22, false), ask(23, true), ask(24, true)]
}

async fn exchange(low: &mut Host, high: &mut Host) {
    asks().iter().for_each(|ask| low.send(1, ask));
    let expected = every_message();
    expected.iter().for_each(|sample| high.send(101, sample));
    let mut seen = vec![];
    until(&mut [low, high], |hosts| {
        seen.extend(hosts[0].messages());
        (seen.len() == expected.len()).then_some(())
    })
    .await;
    for ((link, message, payload), sample) in seen.into_iter().zip(expected) {
        assert_eq!(link, LinkId(1));
        assert_eq!(message, sample.message, "{}", sample.name);
        assert_eq!(payload, sample.payload, "{}", sample.name);
    }
}

#[tokio::test]
async fn every_message_travels() {
    for integrity in [Integrity::None, Integrity::Crc32] {
        for secret in [None, Some(Secret::new("castor and pollux"))] {
            let (mut low, mut high) = linked(|config| {
                config.integrity = integrity;
                config.secret = secret.clone();
            })
            .await;
            exchange(&mut low, &mut high).await;
            assert_eq!(low.links.linked(), [HIGH]);
        }
    }
}

#[tokio::test]
async fn payloads_are_aligned_and_keep_their_order() {
    let (mut low, mut high) = linked(|_| {}).await;
    // Far more than a socket takes at once: sends are continued, receives are cut anywhere.
    let lens = [1 << 20, 512, 16 << 10, 4096, 3 << 20, 100_000, 512, 2 << 20];
    let mut sent = vec![];
    for round in 0..5 {
        for (i, &len) in lens.iter().enumerate() {
            let (dagtag, bytes) = (sent.len() as u64, pattern(len, round * 8 + i as u64));
            low.send(1, &writing(dagtag, bytes.clone()));
            sent.push(bytes);
        }
    }
    let mut received = vec![];
    until(&mut [&mut low, &mut high], |hosts| {
        received.extend(hosts[1].messages());
        (received.len() == sent.len()).then_some(())
    })
    .await;
    let address = |buffer: &Buffer| buffer.as_ref().as_ptr() as usize;
    assert!(high.buffers.values().all(|buffer| address(buffer).is_multiple_of(4096)));
    for (i, (_, message, payload)) in received.iter().enumerate() {
        assert_eq!(*message, write(i as u64, 0, sent[i].len() as u64));
        assert!(payload.as_ref() == Some(&sent[i]), "payload {i}");
    }
}

#[tokio::test]
async fn an_attempt_nobody_wants_ends() {
    let short = |config: &mut LinkConfig| {
        config.timing.hello = Duration::from_millis(200);
        config.timing.wait = Duration::from_millis(200);
    };
    let (mut low, mut high) = hosts(short, |_| {}).await;
    low.links.connect(LinkId(1), HIGH);
    let down = until(&mut [&mut low, &mut high], |hosts| hosts[0].down()).await;
    assert_eq!(down, (LinkId(1), LinkDown::Unreachable));
    high.links.connect(LinkId(101), LOW);
    let down = until(&mut [&mut high], |hosts| hosts[0].down()).await;
    assert_eq!(down, (LinkId(101), LinkDown::Unreachable));
    // Nobody listens at all.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut low = Host::new(config(LOW, HIGH, nobody)).await;
    low.links.connect(LinkId(2), HIGH);
    let down = until(&mut [&mut low], |hosts| hosts[0].down()).await;
    assert_eq!(down, (LinkId(2), LinkDown::Unreachable));
}

/// Connects two that do not fit; what the dialer is told. The acceptor must go on wanting its link.
async fn rejected(lower: impl Fn(&mut LinkConfig), upper: impl Fn(&mut LinkConfig)) -> String {
    let mut config = high();
    upper(&mut config);
    let peer = config.peers[0].node;
    let mut high = Host::new(config).await;
    let mut config = self::config(LOW, HIGH, high.links.address().unwrap());
    lower(&mut config);
    let mut low = Host::new(config).await;
    high.links.connect(LinkId(101), peer);
    low.links.connect(LinkId(1), HIGH);
    let down = until(&mut [&mut low, &mut high], |hosts| hosts[0].down()).await;
    if peer == LOW {
        let complaint = |hosts: &mut [&mut Host]| hosts[0].links.complaint(LOW).map(str::to_owned);
        let told = until(&mut [&mut high], complaint).await;
        assert!(told.contains("from 127.0.0.1 (says it is node 0) closed: "), "{told}");
    }
    assert_eq!(high.arrivals, [], "NET-3: a stranger changes no state");
    match down {
        (LinkId(1), LinkDown::Rejected(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_does_not_fit_is_told_what_to_configure() {
    let secret = |secret: &'static str| {
        move |config: &mut LinkConfig| config.secret = Some(Secret::new(secret))
    };
    let text = rejected(secret("one"), secret("other")).await;
    assert!(text.contains("the shared secrets differ"), "{text}");
    let text = rejected(|_| {}, secret("one")).await;
    assert!(text.contains("it has a shared-secret and we have none: configure"), "{text}");
    let text = rejected(|low| low.resource = "r1".into(), |_| {}).await;
    assert!(text.contains("it serves resource \"r0\", we serve \"r1\""), "{text}");
    let text = rejected(|_| {}, |high| high.me = NodeId(7)).await;
    assert!(text.contains("it is node-id 7 and looks for node-id 0; we are 0"), "{text}");
    let other = (NodeId(9), NodeId(7));
    let text = rejected(|_| {}, |high| (high.me, high.peers[0].node) = other).await;
    assert!(text.contains("it is node-id 9 and looks for node-id 7; we are 0"), "{text}");
}

/// Mismatches between ends that have proved who they are: both are told.
async fn both_rejected(
    change: impl Fn(&mut LinkConfig),
    lower: impl Fn(&mut LinkConfig),
) -> [String; 2] {
    let (mut low, mut high) = hosts(change, lower).await;
    low.links.connect(LinkId(1), HIGH);
    high.links.connect(LinkId(101), LOW);
    let (mut a, mut b) = (None, None);
    let downs = until(&mut [&mut low, &mut high], |hosts| {
        a = a.take().or(hosts[0].down());
        b = b.take().or(hosts[1].down());
        Some([a.clone()?, b.clone()?])
    })
    .await;
    downs.map(|(_, down)| match down {
        LinkDown::Rejected(text) => text,
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn mismatches_of_proved_ends_are_told_to_both() {
    let secret = |config: &mut LinkConfig| config.secret = Some(Secret::new("one"));
    let texts = both_rejected(secret, |low| low.integrity = Integrity::Crc32).await;
    assert!(texts[0].contains("is none there and crc32 here"), "{texts:?}");
    assert!(texts[1].contains("is crc32 there and none here"), "{texts:?}");
    // Who asks for no proof takes what a peer says of itself.
    let texts = both_rejected(|_| {}, secret).await;
    assert!(texts[0].contains("we have a shared-secret and it has none"), "{texts:?}");
    assert!(texts[1].contains("it has a shared-secret and we have none"), "{texts:?}");
}

// ---- ends that are no `Links` ----

async fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![];
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time");
    bytes
}

fn stranger(end: End, from: NodeId, to: NodeId, secret: bool) -> Hello {
    let new = Hello::new(end, from, to, "r0".into());
    Hello { authentication: secret, nonce: [7; 32], incarnation: 666, ..new }
}

const DIALER: &[u8] = b"pollux link 1, dialer";
const ACCEPTOR: &[u8] = b"pollux link 1, acceptor";

fn prove(secret: &str, end: &[u8], dialer: &[u8], acceptor: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
    mac.chain_update(end).chain_update(dialer).chain_update(acceptor).finalize().into_bytes().into()
}

/// Says hello and hears it.
async fn greet(address: SocketAddr, hello: &[u8]) -> (TcpStream, [u8; HELLO_LEN]) {
    let mut stream = dial(address).await;
    stream.write_all(hello).await.unwrap();
    let mut theirs = [0; HELLO_LEN];
    stream.read_exact(&mut theirs).await.unwrap();
    (stream, theirs)
}

async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = [0; ANSWER_LEN];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("in time").unwrap();
    Answer::decode(&bytes).unwrap()
}

/// A handshake as node 0, up to our proof.
async fn shake(address: SocketAddr, secret: &str) -> TcpStream {
    let ours = stranger(End::Dialer, LOW, HIGH, true).encode();
    let (mut stream, theirs) = greet(address, &ours).await;
    let proof = Answer::Proof(prove(secret, DIALER, &ours, &theirs));
    stream.write_all(&proof.encode()).await.unwrap();
    stream
}

async fn guarded(change: impl Fn(&mut LinkConfig)) -> (Host, SocketAddr) {
    let mut config = high();
    config.secret = Some(Secret::new("one"));
    change(&mut config);
    let host = Host::new(config).await;
    let address = host.links.address().unwrap();
    (host, address)
}

/// A link of a guarded host whose other end is in our hands.
async fn handmade(host: &mut Host, address: SocketAddr, id: u64) -> TcpStream {
    host.links.connect(LinkId(id), LOW);
    let stream = during(host, async {
        let mut stream = shake(address, "one").await;
        assert!(matches!(answer(&mut stream).await, Answer::Proof(_)));
        assert_eq!(answer(&mut stream).await, Answer::Begin);
        stream
    })
    .await;
    assert_eq!(host.up(), Some((LinkId(id), 666)));
    stream
}

fn frames(samples: &[Sample]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(Integrity::None), vec![]);
    for sample in samples {
        encoder.encode(&sample.message, sample.payload.as_deref(), &mut bytes);
        bytes.extend(sample.payload.as_deref().unwrap_or_default());
    }
    bytes
}

fn ping() -> Sample {
    plain("", Message::Ping)
}

#[tokio::test]
async fn garbage_closes_that_connection_only() {
    let (mut low, mut high) = linked(|_| {}).await;
    let address = high.links.address().unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[255; 100_000]] {
        let answered = during(&mut high, async {
            let mut stream = dial(address).await;
            // It may be closed while we write.
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            rest(&mut stream).await
        });
        assert_eq!(answered.await, b"");
    }
    exchange(&mut low, &mut high).await;
    assert!(!high.arrivals.iter().any(|arrival| matches!(arrival, Arrival::Link(..))));
}

#[tokio::test]
async fn a_proof_is_of_this_secret_and_this_connection() {
    let (mut host, address) = guarded(|_| {}).await;
    host.links.connect(LinkId(101), LOW);
    let ours = stranger(End::Dialer, LOW, HIGH, true).encode();
    during(&mut host, async {
        let mut wrong = shake(address, "other").await;
        assert_eq!(rest(&mut wrong).await, Answer::WrongProof.encode());

        // A proof that was right, on a connection with another nonce.
        let (_first, theirs) = greet(address, &ours).await;
        let recorded = Answer::Proof(prove("one", DIALER, &ours, &theirs)).encode();
        let (mut second, _) = greet(address, &ours).await;
        second.write_all(&recorded).await.unwrap();
        assert_eq!(rest(&mut second).await, Answer::WrongProof.encode());

        // The right secret, for the other end.
        let (mut other, theirs) = greet(address, &ours).await;
        let proof = Answer::Proof(prove("one", ACCEPTOR, &ours, &theirs));
        other.write_all(&proof.encode()).await.unwrap();
        assert_eq!(rest(&mut other).await, Answer::WrongProof.encode());

        // Words out of order, and noise.
        for bytes in [Answer::Begin.encode(), Answer::WrongProof.encode(), [0; ANSWER_LEN]] {
            let (mut stream, _) = greet(address, &ours).await;
            stream.write_all(&bytes).await.unwrap();
            assert_eq!(rest(&mut stream).await, b"");
        }

        // No authentication at all.
        let open = stranger(End::Dialer, LOW, HIGH, false).encode();
        let (mut open, theirs) = greet(address, &open).await;
        assert!(Hello::decode(&theirs).unwrap().authentication);
        assert_eq!(rest(&mut open).await, b"");
    })
    .await;
    assert_eq!(host.arrivals, [], "NET-3");
    assert_eq!(host.links.linked(), []);
}

#[tokio::test]
async fn our_own_words_are_not_believed() {
    // To the acceptor: its own hello, from another connection.
    let (mut host, address) = guarded(|_| {}).await;
    host.links.connect(LinkId(101), LOW);
    during(&mut host, async {
        let ours = stranger(End::Dialer, LOW, HIGH, true).encode();
        let (_first, theirs) = greet(address, &ours).await;
        let (mut second, _) = greet(address, &theirs).await;
        assert_eq!(rest(&mut second).await, b"");
    })
    .await;
    assert_eq!(host.arrivals, []);

    // To the dialer: all it says; then its proof as if it were the acceptor's.
    for mirror_hello in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(LOW, HIGH, listener.local_addr().unwrap());
        config.secret = Some(Secret::new("one"));
        let mut low = Host::new(config).await;
        low.links.connect(LinkId(1), HIGH);
        during(&mut low, async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; HELLO_LEN];
            stream.read_exact(&mut hello).await.unwrap();
            if !mirror_hello {
                hello = stranger(End::Acceptor, HIGH, LOW, true).encode();
            }
            stream.write_all(&hello).await.unwrap();
            let mut proof = [0; ANSWER_LEN];
            if stream.read_exact(&mut proof).await.is_ok() {
                stream.write_all(&proof).await.unwrap();
            }
            rest(&mut stream).await
        })
        .await;
        let (_, why) = until(&mut [&mut low], |hosts| hosts[0].down()).await;
        let LinkDown::Rejected(text) = why else { panic!("{why:?}") };
        let expected = if mirror_hello { "our own words came back" } else { "secrets differ" };
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_connection_waits_for_the_node_to_want_it() {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = during(&mut host, shake(address, "one")).await;
    let first = during(&mut host, answer(&mut stream)).await;
    assert!(matches!(first, Answer::Proof(_)), "{first:?}");
    assert_eq!(host.arrivals, []);
    host.links.connect(LinkId(101), LOW);
    assert_eq!(during(&mut host, answer(&mut stream)).await, Answer::Begin);
    assert_eq!(host.up(), Some((LinkId(101), 666)));
}

#[tokio::test]
async fn a_connection_waits_no_longer_than_it_may() {
    let (mut host, address) = guarded(|c| c.timing.wait = Duration::from_millis(100)).await;
    let left = during(&mut host, async {
        let mut stream = shake(address, "one").await;
        assert!(matches!(answer(&mut stream).await, Answer::Proof(_)));
        rest(&mut stream).await
    });
    assert_eq!(left.await, b"");
    assert_eq!(host.arrivals, []);
}

#[tokio::test]
async fn a_fresh_connection_ends_the_old_link_first() {
    let (mut host, address) = guarded(|_| {}).await;
    // The old one is never closed by the peer: its host has lost power.
    let mut old = handmade(&mut host, address, 101).await;
    let mut fresh = during(&mut host, shake(address, "one")).await;
    let down = until(&mut [&mut host], |hosts| hosts[0].down()).await;
    assert_eq!(down, (LinkId(101), LinkDown::Broken));
    assert_eq!(during(&mut host, rest(&mut old)).await, b"");
    assert!(matches!(during(&mut host, answer(&mut fresh)).await, Answer::Proof(_)));
    host.links.connect(LinkId(102), LOW);
    assert_eq!(during(&mut host, answer(&mut fresh)).await, Answer::Begin);
    assert_eq!(host.up(), Some((LinkId(102), 666)));
    // Nothing of the old one reaches the new one.
    host.send(101, &ping());
    let pong = plain("", Message::Pong);
    host.send(102, &pong);
    let mut bytes = vec![0; 32];
    during(&mut host, fresh.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(bytes, frames(&[pong]));
}

#[tokio::test]
async fn a_dead_connection_does_not_break_a_good_link() {
    let (mut host, address) = guarded(|_| {}).await;
    let mut good = handmade(&mut host, address, 101).await;
    // It proves itself and is gone before the owner hears of it.
    let mut dead = shake(address, "one").await;
    assert!(matches!(answer(&mut dead).await, Answer::Proof(_)));
    drop(dead);
    good.write_all(&frames(&[ping()])).await.unwrap();
    let seen = until(&mut [&mut host], |hosts| {
        let seen = hosts[0].messages();
        (!seen.is_empty()).then_some(seen)
    })
    .await;
    assert_eq!(seen, [(LinkId(101), Message::Ping, None)]);
    assert_eq!(host.links.linked(), [LOW]);
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let (mut host, address) = guarded(|c| c.timing.hello = Duration::from_millis(500)).await;
    during(&mut host, async {
        let mut silent = dial(address).await;
        let mut slow = dial(address).await;
        slow.write_all(b"POLL").await.unwrap();
        let (mut mute, _) = greet(address, &stranger(End::Dialer, LOW, HIGH, true).encode()).await;
        for stream in [&mut silent, &mut slow, &mut mute] {
            assert_eq!(rest(stream).await, b"");
        }
    })
    .await;
}

#[tokio::test]
async fn many_silent_strangers_do_not_keep_a_peer_out() {
    let (mut host, address) = guarded(|c| c.timing.hello = PATIENCE).await;
    let strangers = during(&mut host, async {
        let mut strangers = vec![];
        for _ in 0..20 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
            strangers.push(socket.connect(address).await.unwrap());
        }
        // Those beyond the limit are closed at once, the others held.
        for stream in &mut strangers[8..] {
            assert_eq!(rest(stream).await, b"");
        }
        strangers
    })
    .await;
    let link = handmade(&mut host, address, 101).await;
    let nothing = strangers[0].try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "still held");
    drop(link);
}

/// What becomes of a link on which these bytes arrive, then the end.
async fn ended_by(bytes: &[u8]) -> Vec<Seen> {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = handmade(&mut host, address, 101).await;
    asks().iter().for_each(|ask| host.send(101, ask));
    // Take the questions, so that our end closes without a reset.
    let mut asked = vec![0; frames(&asks()).len()];
    during(&mut host, stream.read_exact(&mut asked)).await.unwrap();
    assert_eq!(asked, frames(&asks()));
    // It may be closed while we write.
    let _ = during(&mut host, stream.write_all(bytes)).await;
    let _ = stream.shutdown().await;
    let mut seen = vec![];
    let down = until(&mut [&mut host], |hosts| {
        seen.extend(hosts[0].messages());
        hosts[0].down()
    })
    .await;
    assert_eq!(down, (LinkId(101), LinkDown::Broken));
    assert_eq!(host.arrivals, [], "nothing after the end");
    assert_eq!(host.links.linked(), []);
    seen
}

#[tokio::test]
async fn what_came_whole_counts_when_a_link_ends() {
    let small = || writing(1, pattern(512, 1));
    let first = |seen: &[Seen]| matches!(seen, [(_, Message::Ping, None)]);
    assert!(first(&ended_by(&frames(&[ping()])).await), "closed between messages");
    for sample in [small(), writing(2, pattern(50_000, 2))] {
        let whole = frames(&[ping(), sample]);
        let head = frames(&[ping()]).len();
        for cut in [head + 1, head + 32, head + 33, whole.len() - 1] {
            assert!(first(&ended_by(&whole[..cut]).await), "cut after {cut}");
        }
        assert_eq!(ended_by(&whole).await.len(), 2);
    }
    let mut altered = frames(&[ping(), small()]);
    altered[40] ^= 1;
    assert!(first(&ended_by(&altered).await), "checksum");
    let repeated = [frames(&[ping()]), frames(&[ping()])].concat();
    assert!(first(&ended_by(&repeated).await), "sequence");
}

#[tokio::test]
async fn answers_must_be_to_questions() {
    let answer = |id, len: usize| Sample {
        name: "",
        message: Message::ReadData { id, buffer: Some(UNNAMED) },
        payload: Some(vec![1; len]),
    };
    assert_eq!(ended_by(&frames(&[ping(), answer(21, 12)])).await.len(), 2);
    assert_eq!(ended_by(&frames(&[ping(), answer(21, 13)])).await.len(), 1, "too long");
    assert_eq!(ended_by(&frames(&[ping(), answer(21, 11)])).await.len(), 1, "too short");
    assert_eq!(ended_by(&frames(&[ping(), answer(20, 12)])).await.len(), 1, "not asked");
    assert_eq!(ended_by(&frames(&[ping(), answer(23, 12)])).await.len(), 1, "asked otherwise");
    assert_eq!(ended_by(&frames(&[answer(21, 12), answer(21, 12)])).await.len(), 1, "twice");
}

#[tokio::test]
async fn bytes_may_arrive_one_by_one() {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = handmade(&mut host, address, 101).await;
    stream.set_nodelay(true).unwrap();
    let mut samples = samples::all();
    samples.retain(|s| !matches!(s.message, Message::ReadData { .. } | Message::SyncData { .. }));
    let mut seen = vec![];
    for &byte in &frames(&samples) {
        stream.write_all(&[byte]).await.unwrap();
        until(&mut [&mut host], |_| Some(())).await;
        seen.extend(host.messages());
    }
    until(&mut [&mut host], |hosts| {
        seen.extend(hosts[0].messages());
        (seen.len() == samples.len()).then_some(())
    })
    .await;
    for ((_, message, payload), sample) in seen.into_iter().zip(samples) {
        assert_eq!((message, payload), (sample.message, sample.payload));
    }
}

#[tokio::test]
async fn receives_may_end_anywhere() {
    const RECEIVE: usize = 256 << 10;
    for total in [RECEIVE - 1, RECEIVE, RECEIVE + 1, RECEIVE + 31, RECEIVE + 32, RECEIVE + 33] {
        // 4 KiB writes, then one that ends exactly at `total`; all of it there at once.
        let one = |dagtag: usize, len| writing(dagtag as u64, pattern(len, dagtag as u64));
        let frame = frames(&[one(0, 4096)]).len();
        let mut samples: Vec<_> = (0..total / frame - 1).map(|i| one(i, 4096)).collect();
        let left = total - frames(&samples).len();
        samples.push(one(samples.len(), left - (frame - 4096)));
        let mut stream_bytes = frames(&samples);
        assert_eq!(stream_bytes.len(), total);
        let whole = samples.len();
        samples.push(ping());
        stream_bytes = frames(&samples);

        let (mut host, address) = guarded(|_| {}).await;
        let mut stream = handmade(&mut host, address, 101).await;
        // Our writes come first: nothing reads meanwhile until the socket is full.
        let (sent, seen) = (stream.write_all(&stream_bytes), &mut vec![]);
        during(&mut host, sent).await.unwrap();
        until(&mut [&mut host], |hosts| {
            seen.extend(hosts[0].messages());
            (seen.len() == whole + 1).then_some(())
        })
        .await;
        for ((_, message, payload), sample) in seen.iter().zip(&samples) {
            assert_eq!(message, &sample.message);
            assert!(payload == &sample.payload);
        }
    }
}

#[tokio::test]
async fn close_delivers_what_was_sent_before() {
    let (mut low, mut high) = linked(|_| {}).await;
    const COUNT: usize = 40;
    let len = 1 << 20;
    for i in 0..COUNT {
        let sample = |seed| writing(i as u64, pattern(len, seed));
        high.send(101, &sample(i as u64));
        // What is never read must not make the kernel throw away what was sent.
        low.send(1, &sample(0));
    }
    high.send(101, &plain("", Message::Bye { outdate: false }));
    low.links.flush_turn();
    high.links.close(LinkId(101));
    assert_eq!(high.links.linked(), []);
    let mut seen = vec![];
    let down = async {
        until(&mut [&mut low], |hosts| {
            seen.extend(hosts[0].messages());
            hosts[0].down()
        })
        .await
    };
    let (down, ()) = tokio::join!(down, high.links.closed());
    assert_eq!(down, (LinkId(1), LinkDown::Broken));
    assert_eq!(seen.len(), COUNT + 1);
    for (i, (_, message, payload)) in seen[..COUNT].iter().enumerate() {
        assert_eq!(*message, write(i as u64, 0, len as u64));
        assert!(*payload == Some(pattern(len, i as u64)), "payload {i}");
    }
    assert_eq!(seen[COUNT].1, Message::Bye { outdate: false });
    assert_eq!(high.arrivals, [], "a closed link says nothing");
    // And again, over the same hosts.
    connect(&mut low, &mut high, 2).await;
}

#[tokio::test]
async fn an_attempt_can_be_closed() {
    let (mut low, mut high) = hosts(|_| {}, |_| {}).await;
    low.links.connect(LinkId(1), HIGH);
    high.links.connect(LinkId(101), LOW);
    low.links.close(LinkId(1));
    high.links.close(LinkId(101));
    connect(&mut low, &mut high, 2).await;
    assert_eq!((low.arrivals.len(), high.arrivals.len()), (0, 0));
}

#[tokio::test]
async fn a_queue_beyond_its_limit_breaks_the_link() {
    let (mut low, mut high) = linked(|config| config.limits.send_bytes = 1 << 20).await;
    let large = |len| writing(1, vec![1; len]);
    low.send(1, &large((1 << 20) - 100));
    until(&mut [&mut low, &mut high], |hosts| (!hosts[1].messages().is_empty()).then_some(()))
        .await;
    low.send(1, &large(1 << 20));
    let down = until(&mut [&mut low, &mut high], |hosts| hosts[0].down()).await;
    assert_eq!(down, (LinkId(1), LinkDown::Broken));
    assert_eq!(low.links.linked(), []);
}

/// LIM: what a peer reads through us is read ahead no further than it takes the answers; the link stays.
#[tokio::test]
async fn a_peer_that_asks_for_more_than_it_takes_waits() {
    let (mut low, mut high) = linked(|config| config.limits.send_bytes = 16 << 20).await;
    let (count, len) = (200, 1 << 20);
    for id in 0..count {
        low.send(1, &plain("", Message::Read { id, volume: 0, range: ByteRange::new(0, len) }));
    }
    low.links.flush_turn();
    let payload = high.pool.copy_of(&pattern(len as usize, 3));
    let answer = |high: &mut Host| {
        let asked = high.messages();
        for (_, message, _) in &asked {
            let Message::Read { id, .. } = *message else { panic!("{message:?}") };
            let message = Message::ReadData { id, buffer: Some(UNNAMED) };
            high.links.send(LinkId(101), message, |_| payload.clone());
        }
        asked.len()
    };
    let (mut told, mut seen) = (0, 0);
    until(&mut [&mut high], |hosts| {
        let now = answer(hosts[0]);
        told += now;
        (told > 0 && now == 0).then_some(())
    })
    .await;
    assert!(told < 50, "{told} MiB were read for a peer that takes nothing");
    until(&mut [&mut low, &mut high], |hosts| {
        answer(hosts[1]);
        seen += hosts[0].messages().len() as u64;
        (seen == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_largest_payload_travels() {
    let (mut low, mut high) = linked(|config| config.integrity = Integrity::Crc32).await;
    low.send(1, &writing(1, pattern(MAX_PAYLOAD, 5)));
    let mut seen = vec![];
    until(&mut [&mut low, &mut high], |hosts| {
        seen = hosts[1].messages();
        (!seen.is_empty()).then_some(())
    })
    .await;
    assert!(seen[0].2 == Some(pattern(MAX_PAYLOAD, 5)));
}

/// How often a host is woken in a while in which nothing happens.
async fn wakes(host: &mut Host) -> u32 {
    let mut wakes = 0;
    let mut quiet = std::pin::pin!(tokio::time::sleep(Duration::from_millis(100)));
    poll_fn(|context| {
        wakes += 1;
        host.poll(context);
        quiet.as_mut().poll(context)
    })
    .await;
    assert_eq!(host.arrivals, []);
    wakes
}

#[tokio::test]
async fn waiting_costs_nothing() {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = handmade(&mut host, address, 101).await;
    stream.write_all(&frames(&[ping()])).await.unwrap();
    until(&mut [&mut host], |hosts| (!hosts[0].messages().is_empty()).then_some(())).await;
    assert!(wakes(&mut host).await < 10, "nothing to read");
    // The peer reads nothing: the socket is full.
    for dagtag in 0..100 {
        host.send(101, &writing(dagtag, pattern(1 << 20, dagtag)));
    }
    host.links.flush_turn();
    wakes(&mut host).await;
    assert!(wakes(&mut host).await < 10, "nothing can be sent");
    let mut all = vec![0; 100 << 20];
    during(&mut host, stream.read_exact(&mut all)).await.unwrap();
}

/// 4 KiB writes, 32 in flight, each acknowledged. Prints what it measures; `--nocapture` shows it.
#[tokio::test]
async fn writes_are_batched() {
    let (mut low, mut high) = linked(|_| {}).await;
    let payload = low.pool.copy_of(&pattern(4096, 1));
    let (count, depth) = (20_000u64, 32);
    let (mut sent, mut acknowledged, mut turns) = (0, 0, 0u64);
    let start = Instant::now();
    while acknowledged < count {
        while sent < count.min(acknowledged + depth) {
            sent += 1;
            low.links.send(LinkId(1), write(sent, 0, 4096), |_| payload.clone());
        }
        low.links.flush_turn();
        until(&mut [&mut high], |hosts| (!hosts[0].arrivals.is_empty()).then_some(())).await;
        turns += 1;
        for arrival in high.arrivals.drain(..) {
            let Arrival::Message(id, Message::Write(write)) = arrival else {
                panic!("{arrival:?}")
            };
            high.links.send(id, Message::Written(write.dagtag), |_| unreachable!());
        }
        high.buffers.clear();
        high.links.flush_turn();
        until(&mut [&mut low], |hosts| (!hosts[0].arrivals.is_empty()).then_some(())).await;
        for arrival in low.arrivals.drain(..) {
            assert_eq!(arrival, Arrival::Message(LinkId(1), Message::Written(acknowledged + 1)));
            acknowledged += 1;
        }
    }
    let (each, batch) = (start.elapsed() / count as u32, count as f64 / turns as f64);
    println!("{each:?} a write, both ends; {batch:.1} writes a turn");
    assert!(turns <= count / depth + count / 100, "{turns} turns");
}

//! Links over loopback: two ends in one process, and strangers of all kinds.

mod samples;

use bitmap::{ByteRange, NodeId};
use hmac::{Hmac, Mac};
use replicator::buffers::{Buffer, Pool};
use replicator::link::{Arrival, LinkConfig, LinkLimits, LinkTiming, Links, PeerAddress, Secret};
use replicator::node::{BufferId, LinkDown, LinkEvent, LinkId};
use replicator::wire::{
    ANSWER_LEN, Answer, Encoder, End, HELLO_LEN, Hello, Integrity, MAX_PAYLOAD, Message, UNNAMED,
};
use samples::{Sample, pattern, write};
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

fn every_message() -> Vec<Sample> {
    let mut all = samples::all();
    for (i, len) in [4096, 20_000, (16 << 10) - 1, 16 << 10, 1 << 20].into_iter().enumerate() {
        let (message, payload) = (write(i as u64, 0, len as u64), Some(pattern(len, i as u64)));
        all.push(Sample { name: "", message, payload });
    }
    all
}

/// What is asked, so that the answers among the samples are expected.
fn asks() -> Vec<Sample> {
    let ask = |id, sync| {
        let range = ByteRange::new(0, 12);
        let message = match sync {
            true => Message::SyncRead { id, volume: 0, range },
            false => Message::Read { id, volume: 0, range },
        };
        Sample { name: "", message, payload: None }
    };
    vec![ask(21, false), ask(22, false), ask(23, true), ask(24, true)]
}

async fn exchange(low: &mut Host, high: &mut Host) {
    for ask in asks() {
        low.send(1, &ask);
    }
    let expected = every_message();
    for sample in &expected {
        high.send(101, sample);
    }
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
            let message = write(dagtag, 0, len as u64);
            low.send(1, &Sample { name: "", message, payload: Some(bytes.clone()) });
            sent.push(bytes);
        }
    }
    let mut received = vec![];
    until(&mut [&mut low, &mut high], |hosts| {
        received.extend(hosts[1].messages());
        (received.len() == sent.len()).then_some(())
    })
    .await;
    assert!(high.buffers.values().all(|buffer| buffer.as_ref().as_ptr() as usize % 4096 == 0));
    for (i, (_, message, payload)) in received.iter().enumerate() {
        assert_eq!(*message, write(i as u64, 0, sent[i].len() as u64));
        assert!(payload.as_ref() == Some(&sent[i]), "payload {i}");
    }
}

#[tokio::test]
async fn both_nodes_must_want_the_link() {
    let (mut low, mut high) = hosts(|_| {}, |_| {}).await;
    // The dialer first: its authenticated connection waits.
    low.links.connect(LinkId(1), HIGH);
    let address = high.links.address().unwrap();
    // A second, complete handshake ends only after the first one was taken note of.
    during(&mut high, async {
        let _ = &address;
        until(&mut [&mut low], |_| Some(())).await;
    })
    .await;
    high.links.connect(LinkId(101), LOW);
    let mut ups = vec![];
    until(&mut [&mut low, &mut high], |hosts| {
        ups.extend(hosts.iter_mut().filter_map(|host| host.up()));
        (ups.len() == 2).then_some(())
    })
    .await;
    ups.sort_unstable();
    assert_eq!(ups, [(LinkId(1), 101), (LinkId(101), 100)]);
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
    let mut high = Host::new(config).await;
    let mut config = self::config(LOW, HIGH, high.links.address().unwrap());
    lower(&mut config);
    let mut low = Host::new(config).await;
    high.links.connect(LinkId(101), LOW);
    low.links.connect(LinkId(1), HIGH);
    let down = until(&mut [&mut low, &mut high], |hosts| hosts[0].down()).await;
    assert_eq!(high.arrivals, [], "NET-3: a stranger changes no state");
    match down {
        (LinkId(1), LinkDown::Rejected(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_secret_is_rejected() {
    let text = rejected(
        |low| low.secret = Some(Secret::new("one")),
        |high| high.secret = Some(Secret::new("other")),
    )
    .await;
    assert!(text.contains("the shared secrets differ"), "{text}");
}

#[tokio::test]
async fn a_missing_secret_is_rejected_with_what_to_configure() {
    let text = rejected(|_| {}, |high| high.secret = Some(Secret::new("one"))).await;
    assert!(text.contains("it has a shared-secret and we have none: configure"), "{text}");
}

#[tokio::test]
async fn a_wrong_resource_is_rejected() {
    let text = rejected(|low| low.resource = "r1".into(), |_| {}).await;
    assert!(text.contains("it serves resource \"r0\", we serve \"r1\""), "{text}");
}

#[tokio::test]
async fn a_wrong_node_is_rejected() {
    let other = NodeId(7);
    let text = rejected(|_| {}, |high| high.me = other).await;
    assert!(text.contains("it is node-id 7 and looks for node-id 0; we are 0"), "{text}");
    let text = rejected(|_| {}, |high| (high.me, high.peers[0].node) = (NodeId(9), other)).await;
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

// ---- strangers ----

async fn dial(host: &Host) -> TcpStream {
    TcpStream::connect(host.links.address().unwrap()).await.unwrap()
}

/// Is the connection closed without another byte?
async fn is_closed(stream: &mut TcpStream) -> bool {
    match timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("in time") {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn stranger(end: End, from: NodeId, to: NodeId, secret: bool) -> Hello {
    Hello {
        authentication: secret,
        nonce: [7; 32],
        incarnation: 666,
        ..Hello::new(end, from, to, "r0".into())
    }
}

fn prove(secret: &str, end: &[u8], dialer: &[u8], acceptor: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
    mac.chain_update(end).chain_update(dialer).chain_update(acceptor).finalize().into_bytes().into()
}

const DIALER: &[u8] = b"pollux link 1, dialer";

/// A handshake as a dialer, built here; the stream after the acceptor's proof.
async fn shake(host: &Host, secret: &str) -> TcpStream {
    let mut stream = dial(host).await;
    let ours = stranger(End::Dialer, LOW, HIGH, true).encode();
    stream.write_all(&ours).await.unwrap();
    let mut theirs = [0; HELLO_LEN];
    stream.read_exact(&mut theirs).await.unwrap();
    let proof = prove(secret, DIALER, &ours, &theirs);
    stream.write_all(&Answer::Proof(proof).encode()).await.unwrap();
    stream
}

async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = [0; ANSWER_LEN];
    stream.read_exact(&mut bytes).await.unwrap();
    Answer::decode(&bytes).unwrap()
}

async fn guarded() -> Host {
    let mut config = high();
    config.secret = Some(Secret::new("one"));
    Host::new(config).await
}

#[tokio::test]
async fn garbage_closes_that_connection_only() {
    let (mut low, mut high) = linked(|_| {}).await;
    let address = high.links.address().unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[255; 100_000]] {
        let refused = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The end may be closed while we write.
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            is_closed(&mut stream).await
        };
        assert!(during(&mut high, refused).await);
    }
    exchange(&mut low, &mut high).await;
    assert_eq!(high.arrivals.iter().filter(|a| matches!(a, Arrival::Link(..))).count(), 0);
}

#[tokio::test]
async fn a_proof_must_be_of_this_secret_and_this_connection() {
    let mut host = guarded().await;
    host.links.connect(LinkId(101), LOW);
    let strangers = async |host: &Host| {
        // A good one, to record what it says, and that the acceptor proves itself too.
        let mut good = shake(host, "one").await;
        assert!(matches!(answer(&mut good).await, Answer::Proof(_)));
        let mut wrong = shake(host, "other").await;
        assert_eq!(answer(&mut wrong).await, Answer::WrongProof);
        assert!(is_closed(&mut wrong).await);

        // Replay: the acceptor's nonce is another one.
        let ours = stranger(End::Dialer, LOW, HIGH, true).encode();
        let mut first = dial(host).await;
        first.write_all(&ours).await.unwrap();
        let mut theirs = [0; HELLO_LEN];
        first.read_exact(&mut theirs).await.unwrap();
        let recorded = Answer::Proof(prove("one", DIALER, &ours, &theirs)).encode();
        let mut second = dial(host).await;
        second.write_all(&ours).await.unwrap();
        second.read_exact(&mut theirs).await.unwrap();
        second.write_all(&recorded).await.unwrap();
        assert_eq!(answer(&mut second).await, Answer::WrongProof);

        // No proof, and words out of order.
        for bytes in [Answer::Proof([0; 32]).encode(), Answer::Begin.encode(), [0; ANSWER_LEN]] {
            let mut stream = dial(host).await;
            stream.write_all(&ours).await.unwrap();
            stream.read_exact(&mut theirs).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut rest = vec![];
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty() || rest == Answer::WrongProof.encode());
        }

        // Without authentication: refused, and told so by our hello.
        let mut open = dial(host).await;
        open.write_all(&stranger(End::Dialer, LOW, HIGH, false).encode()).await.unwrap();
        open.read_exact(&mut theirs).await.unwrap();
        assert!(Hello::decode(&theirs).unwrap().authentication);
        assert!(is_closed(&mut open).await);
        good
    };
    let address = host.links.address().unwrap();
    let observer = Observer(address);
    let good = during(&mut host, observer.run(strangers)).await;
    // The good one came first and got the link; the others changed nothing.
    assert_eq!(host.up(), Some((LinkId(101), 666)));
    assert_eq!(host.arrivals, []);
    drop(good);
}

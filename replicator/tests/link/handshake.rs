//! How a link comes to be: who fits, who is told what, what a stranger can do, and which connection becomes the link.

use crate::by_hand::*;
use crate::host::*;
use crate::samples::plain;
use bitmap::NodeId;
use replicator::link::{LinkConfig, Secret};
use replicator::node::{LinkDown, LinkId};
use replicator::wire::{ANSWER_LEN, Answer, End, HELLO_LEN, Hello, Integrity, Message};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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
async fn an_attempt_can_be_closed() {
    let (mut low, mut high) = hosts(|_| {}, |_| {}).await;
    low.links.connect(LinkId(1), HIGH);
    high.links.connect(LinkId(101), LOW);
    low.links.close(LinkId(1));
    high.links.close(LinkId(101));
    connect(&mut low, &mut high, 2).await;
    assert_eq!((low.arrivals.len(), high.arrivals.len()), (0, 0));
}

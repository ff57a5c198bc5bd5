//! The other end of a connection in our hands: strangers of all kinds, and a peer that says what it likes.

use crate::host::*;
use crate::samples::{Sample, plain};
use bitmap::NodeId;
use hmac::{Hmac, Mac};
use replicator::link::{LinkConfig, Secret};
use replicator::node::LinkId;
use replicator::wire::{ANSWER_LEN, Answer, Encoder, End, HELLO_LEN, Hello, Integrity, Message};
use sha2::Sha256;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) async fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![];
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time");
    bytes
}

pub(crate) fn stranger(end: End, from: NodeId, to: NodeId, secret: bool) -> Hello {
    let new = Hello::new(end, from, to, "r0".into());
    Hello { authentication: secret, nonce: [7; 32], incarnation: 666, ..new }
}

pub(crate) const DIALER: &[u8] = b"pollux link 1, dialer";
pub(crate) const ACCEPTOR: &[u8] = b"pollux link 1, acceptor";

pub(crate) fn prove(secret: &str, end: &[u8], dialer: &[u8], acceptor: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
    mac.chain_update(end).chain_update(dialer).chain_update(acceptor).finalize().into_bytes().into()
}

/// Says hello and hears it.
pub(crate) async fn greet(address: SocketAddr, hello: &[u8]) -> (TcpStream, [u8; HELLO_LEN]) {
    let mut stream = dial(address).await;
    stream.write_all(hello).await.unwrap();
    let mut theirs = [0; HELLO_LEN];
    stream.read_exact(&mut theirs).await.unwrap();
    (stream, theirs)
}

pub(crate) async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = [0; ANSWER_LEN];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("in time").unwrap();
    Answer::decode(&bytes).unwrap()
}

/// A handshake as node 0, up to our proof.
pub(crate) async fn shake(address: SocketAddr, secret: &str) -> TcpStream {
    let ours = stranger(End::Dialer, LOW, HIGH, true).encode();
    let (mut stream, theirs) = greet(address, &ours).await;
    let proof = Answer::Proof(prove(secret, DIALER, &ours, &theirs));
    stream.write_all(&proof.encode()).await.unwrap();
    stream
}

pub(crate) async fn guarded(change: impl Fn(&mut LinkConfig)) -> (Host, SocketAddr) {
    let mut config = high();
    config.secret = Some(Secret::new("one"));
    change(&mut config);
    let host = Host::new(config).await;
    let address = host.links.address().unwrap();
    (host, address)
}

/// A link of a guarded host whose other end is in our hands.
pub(crate) async fn handmade(host: &mut Host, address: SocketAddr, id: u64) -> TcpStream {
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

pub(crate) fn frames(samples: &[Sample]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(Integrity::None), vec![]);
    for sample in samples {
        encoder.encode(&sample.message, sample.payload.as_deref(), &mut bytes);
        bytes.extend(sample.payload.as_deref().unwrap_or_default());
    }
    bytes
}

pub(crate) fn ping() -> Sample {
    plain("", Message::Ping)
}

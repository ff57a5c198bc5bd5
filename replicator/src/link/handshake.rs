//! How a connection begins: hellos both ways, proofs both ways, then the acceptor's word that its node wants the link.
//!
//! ```text
//! dialer                       acceptor
//!   │ ── hello ──────────────────► │   fixed size, before anything else is read
//!   │ ◄────────────────── hello ── │
//!   │ ── proof ──────────────────► │   the acceptor shows nothing to somebody who cannot prove himself
//!   │ ◄── proof, or "wrong proof"  │
//!   │ ◄────────────────── begin ── │   when its node has asked for the link; frames follow
//! ```
//!
//! Each end judges the other's hello by itself; both come to the same. An acceptor lets nobody who has not proved himself
//! change anything but the log and what status tells: else any stranger could stop its attempt to connect.

use super::config::{LinkConfig, PeerAddress};
use super::error::HandshakeError;
use super::proof::Transcript;
use crate::wire::{
    ANSWER_LEN, Answer, End, HELLO_LEN, Hello, HelloError, Mismatch, PROOF_LEN, Session,
    authenticable, identify, settle,
};
use bitmap::NodeId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// A connection whose ends know each other, and that is not a link yet.
pub(super) struct Fresh {
    pub(super) stream: TcpStream,
    pub(super) session: Session,
    /// The acceptor's last word, when its node wants the link.
    pub(super) begin: Option<Answer>,
}

impl Fresh {
    /// Is the other end still there, and silent as it must be?
    pub(super) fn is_open(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let nothing = rustix::net::recv(&self.stream, &mut [0u8; 1], flags);
        matches!(nothing, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }
}

/// One attempt to get a connection that the peer's node wants too.
pub(super) async fn dial(
    config: Arc<LinkConfig>,
    peer: PeerAddress,
) -> Result<Fresh, HandshakeError> {
    let shaken = async {
        let mut stream = open(&config, peer.address).await?;
        prepare(&stream, &config)?;
        let session = shake_as_dialer(&mut stream, &config, peer.node).await?;
        Ok::<_, HandshakeError>(Fresh { stream, session, begin: None })
    };
    let mut fresh =
        timeout(config.timing.hello, shaken).await.map_err(|_| HandshakeError::Late)??;
    // The acceptor gives up first, so that a refusal to wait any longer is seen as its end.
    let wait = config.timing.wait + config.timing.hello;
    let begin = timeout(wait, read_answer(&mut fresh.stream)).await;
    match begin.map_err(|_| HandshakeError::Late)?? {
        Answer::Begin => Ok(fresh),
        _ => Err(HelloError::Damaged("order of answers").into()),
    }
}

/// One attempt that is the peer's to make.
pub(super) async fn wait(patience: Duration) -> Result<Fresh, HandshakeError> {
    sleep(patience).await;
    Err(io::Error::from(io::ErrorKind::TimedOut).into())
}

async fn open(config: &LinkConfig, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let source = config.listen.ip();
    if source.is_ipv4() == address.is_ipv4() && !source.is_unspecified() {
        // The peer keeps room for connections from our address. Without it, the route decides.
        let _ = socket.bind(SocketAddr::new(source, 0));
    }
    socket.connect(address).await
}

/// What every connection is set to, before the first byte.
pub(super) fn prepare(stream: &TcpStream, config: &LinkConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let milliseconds = config.timing.user.as_millis().try_into().unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    Ok(())
}

pub(super) async fn shake_as_dialer(
    stream: &mut TcpStream,
    config: &LinkConfig,
    peer: NodeId,
) -> Result<Session, HandshakeError> {
    let ours = hello(config, End::Dialer, peer)?;
    let dialer = ours.encode();
    stream.write_all(&dialer).await?;
    let acceptor = read::<HELLO_LEN>(stream).await?;
    let theirs = Hello::decode(&acceptor)?;
    identify(&ours, &theirs)?;
    authenticable(&ours, &theirs)?;
    let (transcript, secret) = (Transcript { dialer, acceptor }, config.secret.as_ref());
    let proof = transcript.prove(secret, End::Dialer);
    stream.write_all(&Answer::Proof(proof).encode()).await?;
    match read_answer(stream).await? {
        Answer::Proof(proof) if transcript.believes(secret, End::Acceptor, &proof) => {}
        Answer::Proof(_) | Answer::WrongProof => return Err(Mismatch::of_secrets().into()),
        Answer::Begin => return Err(HelloError::Damaged("order of answers").into()),
    }
    Ok(settle(&ours, &theirs)?)
}

/// The acceptor's side. `caller` tells, whatever comes of it, which peer it says to be, and whether it has proved it.
pub(super) async fn shake_as_acceptor(
    stream: &mut TcpStream,
    config: &LinkConfig,
    caller: &mut Option<(NodeId, bool)>,
) -> Result<(NodeId, Session), HandshakeError> {
    let dialer = read::<HELLO_LEN>(stream).await?;
    let theirs = Hello::decode(&dialer)?;
    // Who is no peer of ours is told whom we look for, and sees by itself that it is somebody else.
    let expected = config.dialing_peers().find(|&peer| peer == theirs.from);
    *caller = expected.map(|peer| (peer, false));
    let peer = expected.or_else(|| config.dialing_peers().next()).unwrap_or(config.me);
    let ours = hello(config, End::Acceptor, peer)?;
    let acceptor = ours.encode();
    stream.write_all(&acceptor).await?;
    identify(&ours, &theirs)?;
    let secret = config.secret.as_ref();
    if secret.is_none() {
        // Then what it says of itself is all the proof we ask for.
        *caller = Some((peer, true));
    }
    authenticable(&ours, &theirs)?;
    let transcript = Transcript { dialer, acceptor };
    let Answer::Proof(proof) = read_answer(stream).await? else {
        return Err(HelloError::Damaged("order of answers").into());
    };
    if !transcript.believes(secret, End::Dialer, &proof) {
        stream.write_all(&Answer::WrongProof.encode()).await?;
        return Err(Mismatch::of_secrets().into());
    }
    *caller = Some((peer, true));
    let proof = transcript.prove(secret, End::Acceptor);
    stream.write_all(&Answer::Proof(proof).encode()).await?;
    Ok((peer, settle(&ours, &theirs)?))
}

fn hello(config: &LinkConfig, end: End, peer: NodeId) -> io::Result<Hello> {
    let mut nonce = [0; PROOF_LEN];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Hello {
        authentication: config.secret.is_some(),
        integrity: config.integrity,
        incarnation: config.incarnation,
        nonce,
        ..Hello::new(end, config.me, peer, config.resource.clone())
    })
}

async fn read_answer(stream: &mut TcpStream) -> Result<Answer, HandshakeError> {
    Ok(Answer::decode(&read::<ANSWER_LEN>(stream).await?)?)
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

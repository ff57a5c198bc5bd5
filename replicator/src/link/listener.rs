//! Accepts connections and shakes hands with a bounded number of strangers at a time.

use super::config::{LinkConfig, UNAUTHENTICATED};
use super::error::HandshakeError;
use super::handshake::{Fresh, prepare, shake_as_acceptor};
use super::log::LogGate;
use crate::wire::Answer;
use bitmap::NodeId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long accepting rests when it fails: out of descriptors, most likely.
const REST: Duration = Duration::from_millis(100);

/// What came of a connection from one who says to be this peer.
pub(super) type Outcome = (NodeId, What);

pub(super) enum What {
    /// It is who it says.
    Accepted(Fresh),
    /// It does not fit. Unless it has proved to be the peer, it may be anybody.
    Refused { proved: bool, text: String },
}

/// Accepts for ever. Dropping it ends all handshakes with it.
pub(super) async fn listen(
    listener: TcpListener,
    config: Arc<LinkConfig>,
    report: mpsc::Sender<Outcome>,
) {
    // Strangers cannot take the places of peers: theirs are counted apart.
    let places = || Arc::new(Semaphore::new(UNAUTHENTICATED / 2));
    let (peers, strangers) = (places(), places());
    let mut handshakes: JoinSet<Result<Outcome, String>> = JoinSet::new();
    let mut gate = LogGate::default();
    loop {
        tokio::select! {
            Some(Ok(shaken)) = handshakes.join_next() => {
                if let Ok((_, What::Refused { text, .. })) | Err(text) = &shaken {
                    gate.warn(text);
                }
                if let Ok(outcome) = shaken {
                    // If nobody takes it any more, the links are gone.
                    let _ = report.send(outcome).await;
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let places = if config.is_peer_address(from) { &peers } else { &strangers };
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        let why = "too many others have not said who they are";
                        gate.warn(&format!("connection from {}: {why}", from.ip()));
                        continue;
                    };
                    handshakes.spawn(shake(stream, from, config.clone(), place));
                }
                Err(error) => {
                    gate.warn(&format!("cannot accept connections: {error}"));
                    sleep(REST).await;
                }
            },
        }
    }
}

/// One connection; if it is of no peer, what is wrong with it. Says it without the port: the next one is the same cause.
async fn shake(
    mut stream: TcpStream,
    from: SocketAddr,
    config: Arc<LinkConfig>,
    _place: OwnedSemaphorePermit,
) -> Result<Outcome, String> {
    let mut caller = None;
    let shaken = async {
        prepare(&stream, &config)?;
        shake_as_acceptor(&mut stream, &config, &mut caller).await
    };
    let shaken = timeout(config.timing.hello, shaken).await;
    let error = match shaken.unwrap_or(Err(HandshakeError::Late)) {
        Ok((node, session)) => {
            let fresh = Fresh { stream, session, begin: Some(Answer::Begin) };
            return Ok((node, What::Accepted(fresh)));
        }
        Err(error) => error,
    };
    let who = match caller {
        Some((node, true)) => format!(" (node {})", node.0),
        Some((node, false)) => format!(" (says it is node {})", node.0),
        None => String::new(),
    };
    let text = format!("connection from {}{who} closed: {error}", from.ip());
    match (caller, error) {
        (Some((node, proved)), HandshakeError::Mismatch(_)) => {
            Ok((node, What::Refused { proved, text }))
        }
        _ => Err(text),
    }
}

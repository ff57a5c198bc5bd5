//! Accepts connections and shakes hands with a bounded number of strangers at a time.

use super::config::LinkConfig;
use super::error::HandshakeError;
use super::handshake::{Fresh, Outcome, Shaken, prepare, shake_as_acceptor};
use super::log::LogGate;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long accepting rests when it fails: out of descriptors, most likely.
const REST: Duration = Duration::from_millis(100);

/// Accepts for ever. Dropping it ends all handshakes with it.
pub(super) async fn listen(
    listener: TcpListener,
    config: Arc<LinkConfig>,
    report: mpsc::Sender<Outcome>,
) {
    // Strangers cannot take the places of peers: theirs are counted apart.
    let half = (config.limits.unauthenticated / 2).max(1);
    let (peers, strangers) = (Arc::new(Semaphore::new(half)), Arc::new(Semaphore::new(half)));
    let mut handshakes: JoinSet<Option<String>> = JoinSet::new();
    let mut gate = LogGate::default();
    loop {
        tokio::select! {
            Some(ended) = handshakes.join_next() => {
                if let Ok(Some(complaint)) = ended {
                    gate.warn(&config.resource, format_args!("{complaint}"));
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let places = if config.is_peer_address(from) { &peers } else { &strangers };
                    match places.clone().try_acquire_owned() {
                        Ok(place) => {
                            let (config, report) = (config.clone(), report.clone());
                            handshakes.spawn(shake(stream, from, config, report, place));
                        }
                        Err(_) => gate.warn(
                            &config.resource,
                            format_args!("connection from {from}: too many others have not said who they are"),
                        ),
                    }
                }
                Err(error) => {
                    gate.warn(&config.resource, format_args!("cannot accept connections: {error}"));
                    sleep(REST).await;
                }
            },
        }
    }
}

/// One connection; says what is wrong with it, if anything is.
async fn shake(
    mut stream: TcpStream,
    from: SocketAddr,
    config: Arc<LinkConfig>,
    report: mpsc::Sender<Outcome>,
    place: OwnedSemaphorePermit,
) -> Option<String> {
    let shaken = async {
        match prepare(&stream, &config) {
            Ok(()) => shake_as_acceptor(&mut stream, &config).await,
            Err(error) => Shaken::Unknown(error.into()),
        }
    };
    let shaken = timeout(config.timing.hello, shaken).await;
    let (outcome, complaint) = match shaken.unwrap_or(Shaken::Unknown(HandshakeError::Late)) {
        Shaken::Proved(peer, Ok(session)) => {
            (Some(Outcome::Accepted(Fresh { stream, peer, session })), None)
        }
        Shaken::Proved(peer, Err(mismatch)) => {
            let text = format!("connection from node {} at {from}: {mismatch}", peer.0);
            (Some(Outcome::Refused { peer, text: text.clone() }), Some(text))
        }
        Shaken::Unknown(error) => (None, Some(format!("connection from {from} closed: {error}"))),
    };
    if let Some(outcome) = outcome {
        // If nobody listens any more, the links are gone.
        let _ = report.send(outcome).await;
    }
    drop(place);
    complaint
}

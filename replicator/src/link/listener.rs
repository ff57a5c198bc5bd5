//! Accepts connections and shakes hands with a bounded number of strangers at a time.

use super::config::LinkConfig;
use super::error::HandshakeError;
use super::handshake::{Fresh, Outcome, What, prepare, shake_as_acceptor};
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
                    gate.warn(&complaint);
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
                    let (config, report) = (config.clone(), report.clone());
                    handshakes.spawn(shake(stream, from, config, report, place));
                }
                Err(error) => {
                    gate.warn(&format!("cannot accept connections: {error}"));
                    sleep(REST).await;
                }
            },
        }
    }
}

/// One connection; says what is wrong with it, if anything is. Says it without the port: the next one is the same cause.
async fn shake(
    mut stream: TcpStream,
    from: SocketAddr,
    config: Arc<LinkConfig>,
    report: mpsc::Sender<Outcome>,
    _place: OwnedSemaphorePermit,
) -> Option<String> {
    let mut caller = None;
    let shaken = async {
        prepare(&stream, &config)?;
        shake_as_acceptor(&mut stream, &config, &mut caller).await
    };
    let shaken = timeout(config.timing.hello, shaken).await;
    let (node, what, complaint) = match shaken.unwrap_or(Err(HandshakeError::Late)) {
        Ok((node, session)) => (node, What::Accepted(Fresh { stream, session }), None),
        Err(error) => {
            let who = caller.map(|(node, proved)| match proved {
                true => format!(" (node {})", node.0),
                false => format!(" (says it is node {})", node.0),
            });
            let who = who.unwrap_or_default();
            let text = format!("connection from {}{who} closed: {error}", from.ip());
            match (caller, error) {
                (Some((node, proved)), HandshakeError::Mismatch(_)) => {
                    (node, What::Refused { proved, text: text.clone() }, Some(text))
                }
                _ => return Some(text),
            }
        }
    };
    // If nobody listens any more, the links are gone.
    let _ = report.send((node, what)).await;
    complaint
}

//! Drives the handshake of one connection: moves bytes between the transport and [`Handshake`],
//! and its questions to the exports. It holds no parser; the deadline is the caller's.

use super::exports::{Exports, Refusal};
use super::handshake::{Ending, Handshake, Next, Session, Step};
use super::receive::Receiver;
use super::transport::Transport;
use crate::closing::Closing;
use crate::device::{BlockDevice, Geometry};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why there is no transmission phase.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// All is said; the client may still be reading it.
    #[error(transparent)]
    Ended(#[from] Ending),
    #[error("the server is shutting down")]
    ShutDown,
    #[error("the client hung up")]
    HungUp,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// What a successful handshake leads to.
pub(super) struct Negotiated<D> {
    pub(super) session: Session,
    pub(super) device: D,
    pub(super) geometry: Geometry,
    pub(super) export: String,
}

pub(super) async fn negotiate<E: Exports>(
    transport: &impl Transport,
    receiver: &mut Receiver,
    exports: &E,
    mut closing: Closing,
    linger: Duration,
    tell: impl Fn(&str),
) -> Result<Negotiated<E::Device>, Failure> {
    let mut out = Vec::new();
    let mut handshake = Handshake::new(&mut out);
    let mut until: Option<Instant> = None;
    loop {
        let mut input = receiver.unread();
        let before = input.len();
        let step = handshake.next(&mut input, &mut out);
        let consumed = before - input.len();
        receiver.consume(consumed);
        let next = match step {
            Step::Starved => {
                send(transport, &mut out).await?;
                let receiving = receive(transport, receiver);
                if let Some(until) = until {
                    timeout_at(until, receiving).await.map_err(|_| Failure::ShutDown)??;
                } else {
                    match or_closing(receiving, &mut closing).await {
                        Ok(received) => received?,
                        Err(reason) => {
                            // What the client says for a while still gets an answer: why not.
                            handshake.shut_down(&reason);
                            until = Some(Instant::now() + linger);
                        }
                    }
                }
                continue;
            }
            Step::List => {
                handshake.listed(&exports.list(), &mut out);
                Next::Options
            }
            Step::Describe(name) => {
                let described = exports.describe(&name);
                let described = described.as_ref().map(|(info, geometry)| (info, geometry));
                handshake.described(described, &mut out)
            }
            Step::Open(name) => {
                let opening = or_closing(open(exports, &name), &mut closing).await;
                let opened = opening.unwrap_or_else(|why| Err(Refusal::shutting_down(&*why)));
                match opened {
                    Ok((export, device)) => {
                        let geometry = device.geometry();
                        let next = handshake.described(Ok((&export, &geometry)), &mut out);
                        let Next::Transmission(session) = next else {
                            unreachable!("only options that start the transmission open an export")
                        };
                        send(transport, &mut out).await?;
                        let export = export.name;
                        return Ok(Negotiated { session, device, geometry, export });
                    }
                    Err(refusal) => {
                        tell(&format!("{name} is refused: {}", refusal.reason));
                        handshake.described(Err(&refusal), &mut out)
                    }
                }
            }
            Step::Close(ending) => Next::Close(ending),
        };
        // LIM: at most one answer waits, however many options are pipelined.
        send(transport, &mut out).await?;
        if let Next::Close(ending) = next {
            return Err(ending.into());
        }
    }
}

async fn open<E: Exports>(
    exports: &E,
    name: &str,
) -> Result<(super::exports::ExportInfo, E::Device), Refusal> {
    let (export, _) = exports.describe(name)?;
    Ok((export, exports.open(name).await?))
}

/// The value of `future`, or the reason why the server closes before there is one.
async fn or_closing<F: Future>(future: F, closing: &mut Closing) -> Result<F::Output, Rc<str>> {
    tokio::select! {
        biased;
        reason = closing.closed() => Err(reason),
        value = future => Ok(value),
    }
}

async fn receive(transport: &impl Transport, receiver: &mut Receiver) -> Result<(), Failure> {
    while receive_now(transport, receiver)? == 0 {
        poll_fn(|context| transport.poll_readable(context)).await;
    }
    Ok(())
}

/// Receives what is there; 0 if there is nothing.
fn receive_now(transport: &impl Transport, receiver: &mut Receiver) -> Result<usize, Failure> {
    let spare = receiver.spare();
    assert!(!spare.is_empty(), "the longest option fits into the receive buffer");
    match transport.receive(&mut [IoSliceMut::new(spare)]) {
        Ok(0) => Err(Failure::HungUp),
        Ok(received) => {
            receiver.received(received);
            Ok(received)
        }
        Err(error) if is_no_error(&error) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Sends all of `out` and empties it.
async fn send(transport: &impl Transport, out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut left = &out[..];
    while !left.is_empty() {
        match transport.send(&[IoSlice::new(left)]) {
            Ok(sent) => left = &left[sent..],
            Err(error) if is_no_error(&error) => {
                poll_fn(|context| transport.poll_writable(context)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    out.clear();
    Ok(())
}

/// Says that nothing more comes and waits until the client hangs up, so that it can read our last
/// words: closing a socket with unread bytes would reset it. The deadline is the caller's.
pub(super) async fn see_off(transport: &impl Transport, receiver: &mut Receiver) {
    transport.finish();
    loop {
        receiver.consume(receiver.unread().len());
        if receive(transport, receiver).await.is_err() {
            return;
        }
    }
}

pub(super) fn is_no_error(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

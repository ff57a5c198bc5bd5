//! The end of a link that we close: what was sent before goes out first.

use super::outgoing::Outgoing;
use super::socket::Socket;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::time::Duration;
use tokio::time::timeout;

/// Sends what is left, then waits for the peer to have read it, no longer than `linger`.
pub(super) async fn close(socket: Socket, outgoing: Outgoing, linger: Duration) {
    // Whatever comes of it, the link is gone.
    let _ = timeout(linger, drain(socket, outgoing)).await;
}

async fn drain(socket: Socket, mut outgoing: Outgoing) -> io::Result<()> {
    loop {
        outgoing.write(&socket)?;
        if outgoing.bytes == 0 {
            break;
        }
        poll_fn(|context| socket.poll_writable(context)).await;
    }
    socket.finish()?;
    // Bytes that nobody reads make the kernel reset the connection, and the reset may overtake what we have sent: read
    // until the peer closes too.
    let mut nothing = [0; 4096];
    loop {
        match socket.read(&mut [IoSliceMut::new(&mut nothing)])? {
            Some(0) => return Ok(()),
            Some(_) => {}
            None => poll_fn(|context| socket.poll_readable(context)).await,
        }
    }
}

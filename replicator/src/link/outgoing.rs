//! What waits to be sent on one link: headers in one piece of memory, payloads where they lie, gathered into few sends.

use super::socket::Socket;
use crate::buffers::Buffer;
use crate::wire::{Encoder, Message};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Pieces handed to the kernel at once.
const GATHER: usize = 128;

/// Sent bytes that are kept at the front of `headers` before they are cleared away.
const CLEAR_AWAY: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Outgoing {
    encoder: Encoder,
    headers: Vec<u8>,
    /// Bytes of `headers` that were sent.
    headers_sent: usize,
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent.
    piece_sent: usize,
    /// Bytes of all pieces that were not sent.
    pub(super) bytes: usize,
    /// The socket was full when we last tried, so something is left.
    pub(super) blocked: bool,
}

#[derive(Debug)]
enum Piece {
    /// So many bytes of `headers`.
    Headers(usize),
    Payload(Buffer),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Headers(len) => *len,
            Self::Payload(buffer) => buffer.len(),
        }
    }
}

impl Outgoing {
    /// `greeting` goes out before the first frame.
    pub(super) fn new(encoder: Encoder, greeting: Vec<u8>) -> Self {
        Self {
            encoder,
            headers_sent: 0,
            pieces: [Piece::Headers(greeting.len())].into(),
            piece_sent: 0,
            bytes: greeting.len(),
            headers: greeting,
            blocked: false,
        }
    }

    pub(super) fn push(&mut self, message: &Message, payload: Option<Buffer>) {
        if self.headers_sent > CLEAR_AWAY && self.headers_sent * 2 > self.headers.len() {
            self.headers.drain(..self.headers_sent);
            self.headers_sent = 0;
        }
        let before = self.headers.len();
        self.encoder.encode(message, payload.as_deref(), &mut self.headers);
        let added = self.headers.len() - before;
        self.bytes += added;
        match self.pieces.back_mut() {
            Some(Piece::Headers(len)) => *len += added,
            _ => self.pieces.push_back(Piece::Headers(added)),
        }
        if let Some(buffer) = payload {
            self.bytes += buffer.len();
            self.pieces.push_back(Piece::Payload(buffer));
        }
    }

    /// Sends until nothing is left or the socket is full.
    pub(super) fn write(&mut self, socket: &Socket) -> io::Result<()> {
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); GATHER];
            let count = self.gather(&mut slices);
            let gathered = &slices[..count];
            let sent = if self.blocked {
                socket.write_if_ready(gathered)?
            } else {
                socket.write(gathered)?
            };
            self.blocked = sent.is_none();
            match sent {
                Some(sent) => self.advance(sent),
                None => break,
            }
        }
        Ok(())
    }

    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut headers, mut skip) = (&self.headers[self.headers_sent..], self.piece_sent);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match piece {
                Piece::Headers(len) => {
                    // `headers_sent` is past what was sent of the first piece.
                    let (piece, rest) = headers.split_at(len - skip);
                    headers = rest;
                    piece
                }
                Piece::Payload(buffer) => &buffer.as_ref()[skip..],
            });
            skip = 0;
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while sent > 0 {
            let piece = self.pieces.front().expect("the kernel takes no more than it was given");
            let now = sent.min(piece.len() - self.piece_sent);
            if let Piece::Headers(_) = piece {
                self.headers_sent += now;
            }
            self.piece_sent += now;
            sent -= now;
            if self.piece_sent == piece.len() {
                self.pieces.pop_front();
                self.piece_sent = 0;
            }
        }
        if self.headers_sent == self.headers.len() {
            self.headers.clear();
            self.headers_sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Pool;
    use crate::node::BufferId;
    use crate::wire::Integrity;
    use std::io::Read;
    use tokio::net::{TcpListener, TcpStream};

    // LIM: a peer that is always behind, and always takes something, must not make us keep what it has taken.
    #[tokio::test]
    async fn headers_do_not_pile_up_behind_a_slow_peer() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let ours = TcpStream::connect(listener.local_addr()?).await?;
        let mut theirs = listener.accept().await?.0.into_std()?;
        theirs.set_nonblocking(false)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 64 << 10)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&theirs, 64 << 10)?;
        let mut outgoing = Outgoing::new(Encoder::new(Integrity::None), vec![]);
        let payload = Pool::new(0).copy_of(&[7; 512]);
        let message = Message::ReadData { id: 1, buffer: Some(BufferId(0)) };
        let socket = Socket::new(ours);
        let push = |outgoing: &mut Outgoing| outgoing.push(&message, Some(payload.clone()));
        while outgoing.bytes < 1 << 20 {
            push(&mut outgoing);
            outgoing.write(&socket)?;
        }
        let mut largest = 0;
        let mut taken = vec![0; 16 << 10];
        for _ in 0..1000 {
            theirs.read_exact(&mut taken)?;
            while outgoing.bytes < 1 << 20 {
                push(&mut outgoing);
            }
            // The runtime looks whether the socket takes more.
            tokio::task::yield_now().await;
            outgoing.write(&socket)?;
            assert!(outgoing.bytes > 0, "always behind");
            largest = largest.max(outgoing.headers.len());
        }
        assert!(largest < 512 << 10, "{largest} bytes of headers");
        Ok(())
    }
}

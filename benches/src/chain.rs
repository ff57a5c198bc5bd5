//! What two loopback links in a row can carry: a source, a relay that forwards whatever it has, a sink that acknowledges each message. It
//! does nothing else, so it is what a mirror of large writes is measured by.

use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Instant;

/// Bytes of a message: 1 MiB and a header.
const MESSAGE: usize = (1 << 20) + 28;
/// Bytes of an acknowledgement.
const REPLY: usize = 16;
/// Messages under way.
const DEPTH: usize = 8;
/// Most bytes that the relay and the sink take at once.
const PIECE: usize = 4 << 20;

/// Bytes a second, over so many bytes.
pub fn bandwidth(bytes: u64) -> Result<f64> {
    let messages = (bytes as usize).div_ceil(MESSAGE).max(DEPTH);
    let ((mut source, near), (far, sink)) = (connection()?, connection()?);
    let threads = [
        forward(near.try_clone()?, far.try_clone()?),
        forward(far, near),
        std::thread::spawn(move || acknowledge(sink)),
    ];
    let message = vec![0; MESSAGE];
    let begun = Instant::now();
    for _ in 0..DEPTH {
        source.write_all(&message)?;
    }
    let (mut sent, mut answered, mut replies) = (DEPTH, 0, vec![0; DEPTH * REPLY]);
    while answered < messages * REPLY {
        let before = answered / REPLY;
        answered += some(&mut source, &mut replies)?;
        for _ in before..answered / REPLY {
            if sent < messages {
                source.write_all(&message)?;
                sent += 1;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(source);
    for thread in threads {
        let _ = thread.join();
    }
    Ok((messages * MESSAGE) as f64 / seconds)
}

fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// As much as there is. The end of the stream is an error.
fn some(from: &mut TcpStream, into: &mut [u8]) -> Result<usize> {
    match from.read(into)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        len => Ok(len),
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut bytes = vec![0; PIECE];
        let ended = loop {
            let moved = some(&mut from, &mut bytes).and_then(|len| to.write_all(&bytes[..len]));
            if moved.is_err() {
                break moved;
            }
        };
        // Whoever sends here, or waits there, learns it.
        let _ = from.shutdown(std::net::Shutdown::Both);
        let _ = to.shutdown(std::net::Shutdown::Both);
        ended
    })
}

fn acknowledge(mut from: TcpStream) -> Result<()> {
    let (mut bytes, mut held) = (vec![0; PIECE], 0);
    loop {
        held += some(&mut from, &mut bytes)?;
        from.write_all(&vec![0; held / MESSAGE * REPLY])?;
        held %= MESSAGE;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_message_goes_all_the_way_and_back() {
        assert!(super::bandwidth(64 << 20).unwrap() > 0.0);
    }
}

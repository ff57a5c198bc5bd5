//! A link that takes time: forwards TCP connections to another port, each byte some time after it came, in both directions. It does
//! not limit the rate: any number of bytes is on its way at once.

use crate::Error;
use rustix::thread::set_current_timer_slack;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Most bytes that are read at once.
const PIECE: usize = 128 << 10;
/// Most pieces on their way in one direction; then no more are read. At 5 ms it is never reached by what two cores can send.
const PIECES: usize = 1024;

/// A running link. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Delay {
    port: u16,
    over: Arc<AtomicBool>,
}

impl Delay {
    /// Listens on a port of the loopback interface and forwards to `to`.
    pub(super) fn before(to: u16, delay: Duration) -> Result<Self, Error> {
        let failed = || Error::file("the delayed link");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
        let port = listener.local_addr().map_err(failed())?.port();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        thread("accept", move || accept(&listener, to, delay, &seen)).map_err(failed())?;
        Ok(Self { port, over })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // So that the thread that accepts looks. Connections end when the ends of them do.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, to: u16, delay: Duration, over: &AtomicBool) {
    for near in listener.incoming() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // Who dials while nobody listens behind us finds the connection closed, and dials again.
        let joined = near.and_then(|near| {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
            join(near.try_clone()?, far.try_clone()?, delay)?;
            join(far, near, delay)
        });
        if let Err(error) = joined {
            eprintln!("delayed link: {error}");
        }
    }
}

/// Two threads for one direction.
fn join(from: TcpStream, to: TcpStream, delay: Duration) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    let (sender, receiver) = sync_channel(PIECES);
    thread("delay-in", move || take(from, delay, &sender))?;
    thread("delay-out", move || give(to, &receiver))
}

type Piece = (Instant, Vec<u8>);

fn take(mut from: TcpStream, delay: Duration, sender: &SyncSender<Piece>) {
    let mut bytes = vec![0; PIECE];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now() + delay, bytes[..len].to_vec())).is_err() {
            break;
        }
    }
    // If it was the other side that is gone, who sends here must learn it.
    let _ = from.shutdown(Shutdown::Read);
}

fn give(mut to: TcpStream, receiver: &Receiver<Piece>) {
    // The kernel's usual slack of 50 us would be a quarter of the shortest delay.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    while let Ok((due, bytes)) = receiver.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than this the tests wait for nothing.
    const LIMIT: Duration = Duration::from_secs(20);

    fn ends(delay: Duration) -> (TcpStream, TcpStream, Delay) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let link = Delay::before(listener.local_addr().unwrap().port(), delay).unwrap();
        let near = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).unwrap();
        let (far, _) = listener.accept().unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(LIMIT)).unwrap();
            end.set_nodelay(true).unwrap();
        }
        (near, far, link)
    }

    #[test]
    fn each_way_takes_its_time_and_many_bytes_take_it_together() {
        let delay = Duration::from_millis(50);
        let (mut near, mut far, _link) = ends(delay);
        let start = Instant::now();
        let mut answer = [0; 1];
        near.write_all(&[7]).unwrap();
        far.read_exact(&mut answer).unwrap();
        assert!(start.elapsed() >= delay);
        far.write_all(&answer).unwrap();
        near.read_exact(&mut answer).unwrap();
        assert!(start.elapsed() >= 2 * delay && answer == [7]);

        // Four thousand writes, one after the other: were each delayed by itself, it would take minutes.
        let sent: Vec<u8> = (0..4000_u32).flat_map(u32::to_le_bytes).collect();
        for word in sent.chunks(4) {
            near.write_all(word).unwrap();
        }
        let mut came = vec![0; sent.len()];
        far.read_exact(&mut came).unwrap();
        assert!(came == sent, "bytes were changed or changed places");
    }

    #[test]
    fn an_end_that_closes_is_seen_at_the_other() {
        let (near, mut far, _link) = ends(Duration::ZERO);
        drop(near);
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
    }
}

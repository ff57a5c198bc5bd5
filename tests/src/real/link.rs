//! What lies between two hosts: a TCP proxy that can be cut, go silent and heal, so that no root is needed to break a network.
//!
//! Each host's configuration names the proxy as the peer's address. One proxy for each direction of dialing.

use super::ports::{listener, loopback};
use super::weather::{Lot, Tally, Weather};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes on their way in one direction of one connection, beside what the kernel holds.
const BUFFER: usize = 64 << 10;

/// The link. Dropped, it is cut for ever.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    addresses: [SocketAddr; 2],
    acceptors: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing passes: connections are reset, new ones too.
    cut: bool,
    /// What is sent to this node stays under way.
    silent_to: [bool; 2],
    /// Cut when so many more bytes have passed.
    cut_after: Option<usize>,
    /// Bytes per second, at most, in each direction of each connection.
    pace: Option<u64>,
    /// Seed of a bad day.
    weather: Option<u64>,
    tally: Tally,
    /// Directions of connections there ever were.
    carriers: u64,
    /// Both ends of every connection, to reset them.
    streams: Vec<TcpStream>,
    ended: bool,
    /// Bytes that reached each node.
    carried_to: [u64; 2],
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reset(&mut self) {
        self.cut = true;
        for stream in self.streams.drain(..) {
            // One end may have gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Link {
    /// Between these two hosts, by node-id.
    ///
    /// # Panics
    /// If no port is free.
    pub fn new(hosts: [SocketAddr; 2]) -> Self {
        let shared = Arc::new(Shared::default());
        let mut acceptors = Vec::new();
        let addresses = [0, 1].map(|node| {
            let (listener, port) = listener();
            let address = loopback(port);
            let (shared, host) = (Arc::clone(&shared), hosts[node]);
            acceptors.push(std::thread::spawn(move || accept(&shared, &listener, host, node)));
            address
        });
        Self { shared, addresses, acceptors }
    }

    /// Where the node of this id is reached through the link.
    pub fn address_of(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    /// Resets every connection, and every new one.
    pub fn cut(&self) {
        self.shared.state().reset();
        self.shared.changed.notify_all();
    }

    /// Cuts in the midst of whatever is being sent, when so many more bytes have passed.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.state().cut_after = Some(bytes);
    }

    /// A slow network: so many bytes per second in each direction; `None`: as fast as it goes.
    pub fn set_pace(&self, pace: Option<u64>) {
        self.shared.state().pace = pace;
    }

    /// Bad weather from now on, drawn from this seed; `None`: it is fine again. What it does heals by itself.
    pub fn set_weather(&self, seed: Option<u64>) {
        self.shared.state().weather = seed;
    }

    /// What the weather has done so far.
    pub fn tally(&self) -> Tally {
        self.shared.state().tally
    }

    /// Is it cut?
    pub fn is_cut(&self) -> bool {
        self.shared.state().cut
    }

    /// What is sent to this node stays under way, until it heals. Nobody is told.
    pub fn silence_to(&self, node: usize) {
        self.shared.state().silent_to[node] = true;
    }

    /// Both directions: as a network whose switch has died.
    pub fn silence(&self) {
        self.shared.state().silent_to = [true; 2];
    }

    /// Everything passes again; what stayed under way arrives.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.cut = false;
        state.silent_to = [false; 2];
        state.cut_after = None;
        self.shared.changed.notify_all();
    }

    /// Bytes that have reached this node so far.
    pub fn carried_to(&self, node: usize) -> u64 {
        self.shared.state().carried_to[node]
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.reset();
        state.ended = true;
        drop(state);
        self.shared.changed.notify_all();
        for address in self.addresses {
            // Wakes the acceptor.
            let _ = TcpStream::connect(address);
        }
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, host: SocketAddr, node: usize) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        {
            let mut state = shared.state();
            if state.ended {
                return;
            }
            if state.cut {
                continue;
            }
            // A host that does not listen refuses, and so does the proxy.
            let Ok(server) = TcpStream::connect(host) else { continue };
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("a connected socket");
                state.streams.push(stream.try_clone().expect("a descriptor"));
            }
            let pairs = [(&client, &server, node), (&server, &client, 1 - node)];
            for (from, to, receiver) in pairs {
                let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                let (shared, from, to) = (Arc::clone(shared), clone(from), clone(to));
                // Ends with its connection.
                std::thread::spawn(move || carry(&shared, from, to, receiver));
            }
        }
    }
}

fn carry(shared: &Shared, mut from: TcpStream, mut to: TcpStream, receiver: usize) {
    let mut buffer = vec![0; BUFFER];
    let stream = {
        let mut state = shared.state();
        state.carriers += 1;
        state.carriers
    };
    let mut weather: Option<Weather> = None;
    while let Ok(length) = from.read(&mut buffer) {
        let mut state = shared.state();
        while state.silent_to[receiver] && !state.cut && !state.ended {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut passes = length;
        if let Some(left) = state.cut_after {
            passes = length.min(left);
            state.cut_after = Some(left - passes);
        }
        state.carried_to[receiver] += passes as u64;
        let (is_last, pace) = (passes < length, state.pace);
        match state.weather {
            Some(seed) => drop(weather.get_or_insert_with(|| Weather::new(seed, stream))),
            None => weather = None,
        }
        drop(state);
        if let Some(pace) = pace {
            std::thread::sleep(Duration::from_nanos(length as u64 * 1_000_000_000 / pace));
        }
        let passed = match &mut weather {
            Some(weather) => brave(shared, weather, &mut to, &mut buffer[..passes]),
            None => to.write_all(&buffer[..passes]),
        };
        if length == 0 || passed.is_err() {
            break;
        }
        if is_last {
            shared.state().reset();
            return;
        }
    }
    // An end in one direction is passed on; what goes the other way may still be read.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Passes bytes on through bad weather. An error: the connection broke, or was broken.
fn brave(
    shared: &Shared,
    weather: &mut Weather,
    to: &mut TcpStream,
    bytes: &mut [u8],
) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let lot = weather.lot();
    let mut passes = bytes.len();
    match lot {
        Lot::Pass => {}
        Lot::Silence(length) => {
            shared.state().tally.silences += 1;
            std::thread::sleep(length);
        }
        Lot::Flip(bit) => {
            shared.state().tally.flips += 1;
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Lot::Break(after) => {
            shared.state().tally.breaks += 1;
            passes = after % bytes.len();
        }
    }
    let mut rest = &bytes[..passes];
    while !rest.is_empty() {
        let (length, late) = weather.piece(rest.len());
        std::thread::sleep(late);
        to.write_all(&rest[..length])?;
        rest = &rest[length..];
    }
    match lot {
        Lot::Break(_) => {
            to.shutdown(Shutdown::Both)?;
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
        Lot::Pass | Lot::Silence(_) | Lot::Flip(_) => Ok(()),
    }
}

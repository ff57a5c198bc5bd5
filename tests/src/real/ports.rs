//! Ports of the loopback interface.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what the kernel hands out by itself (32768 and up), so that no outgoing connection of another test takes one of them before
/// its daemon binds it.
const FIRST: u16 = 10_240;
const COUNT: u16 = 22_000;

/// A port nobody listens on now, never given out twice by this process.
///
/// # Panics
/// If there is none.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each test process begins elsewhere.
    static START: std::sync::LazyLock<u16> =
        std::sync::LazyLock::new(|| (RandomState::new().hash_one(()) % u64::from(COUNT)) as u16);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (*START + step % COUNT) % COUNT;
        if TcpListener::bind(loopback(port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// An address on loopback.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

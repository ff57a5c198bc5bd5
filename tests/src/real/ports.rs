//! Ports of the loopback interface, none of which another test can take before a daemon binds it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port of [`loopback`], never given out twice by this process. (A service of the machine may listen on all addresses.)
///
/// # Panics
/// After tens of thousands of them.
pub fn free() -> u16 {
    listener().1
}

/// The same, and somebody listens there. (Not to be had by binding what `free` gave: a process that another thread has just forked
/// may hold that for another moment.)
pub fn listener() -> (TcpListener, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < u16::MAX, "no free port");
        if let Ok(listener) = TcpListener::bind(loopback(port)) {
            return (listener, port);
        }
    }
}

/// An address of this process alone: tests run side by side, and all of 127.0.0.0/8 is loopback. (Linux counts processes in 22 bits.)
pub fn loopback(port: u16) -> SocketAddr {
    let ours = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | std::process::id());
    SocketAddr::new(IpAddr::V4(ours), port)
}

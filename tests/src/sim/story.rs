//! A shrunk seed as a person can read it: what is special, what is done and when, what becomes of the nodes, and what is broken.

use super::shrink::Case;
use super::swarm::Knobs;
use replicator::config::{Fencing, Limits, Timing};
use replicator::node::Protocol;

/// A knob that has a plain value.
pub(super) struct Knob {
    /// Gives it that.
    pub(super) set: fn(&mut Knobs),
    tell: fn(&Knobs) -> String,
}

macro_rules! knob {
    ($($field:ident).+ = $plain:expr) => {
        Knob {
            set: |knobs| knobs.$($field).+ = $plain,
            tell: |knobs| format!("{} {:?}", stringify!($($field).+), knobs.$($field).+),
        }
    };
}

macro_rules! knobs {
    ($($($field:ident).+ = $plain:expr,)*) => { [$(knob!($($field).+ = $plain)),*] };
}

/// Those that are told if a plain value breaks nothing.
pub(super) const KNOBS: [Knob; 27] = knobs![
    protocol = Protocol::C,
    fencing = Fencing::DontCare,
    leases = false,
    volumes = 1,
    auto_promote = false,
    suspend_no_data = false,
    flush_peer = true,
    battery = false,
    rates = [1_000_000; 2],
    timing.ping_interval = Timing::default().ping_interval,
    timing.ping_timeout = Timing::default().ping_timeout,
    timing.reconnect_min = Timing::default().reconnect_min,
    timing.reconnect_max = Timing::default().reconnect_max,
    timing.connect_wait = Timing::default().connect_wait,
    timing.handshake = Timing::default().handshake,
    timing.checkpoint = Timing::default().checkpoint,
    limits.requests = Limits::default().requests,
    limits.peer_bytes = Limits::default().peer_bytes,
    limits.target_bytes = Limits::default().target_bytes,
    limits.unflushed = Limits::default().unflushed,
    limits.resync_bytes = Limits::default().resync_bytes,
    limits.resync_bytes_beside_clients = Limits::default().resync_bytes_beside_clients,
    limits.piece_bytes = Limits::default().piece_bytes,
    limits.extents_per_request = 2,
    limits.resync_commit_blocks = Limits::default().resync_commit_blocks,
    limits.compare_unit = Limits::default().compare_unit,
    limits.bitmap_runs = Limits::default().bitmap_runs,
];

impl Knob {
    /// Has it another value than the plain one?
    pub(super) fn matters(&self, knobs: &Knobs) -> bool {
        let mut plain = knobs.clone();
        (self.set)(&mut plain);
        (self.tell)(&plain) != (self.tell)(knobs)
    }
}

/// Tells it.
pub(super) fn tell(case: &Case) {
    let special: Vec<String> =
        KNOBS.iter().filter(|k| k.matters(&case.knobs)).map(|k| (k.tell)(&case.knobs)).collect();
    println!("special: {}", if special.is_empty() { "nothing".into() } else { special.join(", ") });
    println!("Both nodes run; * is what is done to them, the rest is what becomes of them.");
    case.play(1);
    if let Some(violation) = &case.violation {
        println!("seed {}: {}: {}", case.seed, violation.invariant, violation.story);
    }
}

//! A shrunk seed as a person can read it: what is special, what is done and when, what becomes of the nodes, and what is broken.

use super::shrink::Case;
use super::swarm::Knobs;
use super::world::World;
use crate::model::View;
use replicator::config::{Fencing, Limits, Timing};
use replicator::node::{Command, Protocol};

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

/// What follows from a deed that was told, or is done at every start.
pub(super) fn needs_no_telling(command: &Command) -> bool {
    match command {
        Command::Attach(..) | Command::Connect { .. } | Command::Lease(_) => true,
        Command::Detach(_)
        | Command::Disconnect
        | Command::Primary { .. }
        | Command::Secondary { .. }
        | Command::Invalidate
        | Command::InvalidateRemote
        | Command::Outdate
        | Command::SuspendIo
        | Command::ResumeIo
        | Command::Down => false,
    }
}

impl World {
    /// A script is played for somebody to read.
    pub(super) fn tells_a_story(&self) -> bool {
        self.trace == 1 && self.is_scripted()
    }

    /// What is new of a node since `old`.
    pub(super) fn tell_change(&self, n: usize, v: usize, old: &View) {
        let new = self.volumes[v].model.view(n);
        let of = if self.volumes.len() > 1 { format!("volume {v} ") } else { String::new() };
        let mut changes = Vec::new();
        if old.role != new.role && v == 0 {
            changes.push(format!("{:?}", new.role));
        }
        if old.connection != new.connection && v == 0 {
            changes.push(format!("{:?}", new.connection));
        }
        if old.disk != new.disk {
            changes.push(format!("{of}disk {:?}", new.disk));
        }
        if old.replication != new.replication {
            changes.push(format!("{of}{:?}", new.replication));
        }
        if old.current != new.current {
            changes.push(format!("{of}generation {:04x}", new.current & 0xffff));
        }
        if old.suspended != new.suspended {
            changes.push(format!("{of}I/O {}", if new.suspended { "held" } else { "goes on" }));
        }
        if !changes.is_empty() {
            self.say(&format!("{n} {}", changes.join(", ")));
        }
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

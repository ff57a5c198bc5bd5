//! What the outside world does to the two nodes: people, programs, and what goes wrong. Each deed checks for itself that it may
//! be done now: in a script from which others were taken the world is another. When it is done is decided elsewhere.

use super::client::Place;
use super::host::IoKind;
use super::meta_area::Decay;
use super::volume;
use super::world::{MS, What, World};
use crate::model::{Kind, View};
use replicator::node::{Command, DiskState, Role};
use std::fmt;

/// A deed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A process dies, perhaps with its machine.
    Crash {
        node: usize,
        power: bool,
    },
    /// The same, in the middle of what it does next.
    CrashSoon {
        node: usize,
        power: bool,
    },
    Cut {
        half_open: bool,
    },
    Partition {
        half_open: bool,
    },
    /// Nothing arrives at these nodes for a while.
    Stall {
        at: [bool; 2],
        length: u64,
    },
    Pause {
        node: usize,
        length: u64,
    },
    /// It stops, and its clock with it.
    Freeze {
        node: usize,
        length: u64,
    },
    /// A machine that is down comes up without this disk, which is found later.
    DiskLate {
        node: usize,
        v: usize,
        length: u64,
    },
    /// Somebody takes a disk away, in order, and brings it back.
    DiskAway {
        node: usize,
        v: usize,
        length: u64,
    },
    /// Its clock goes forward at once.
    Leap {
        node: usize,
        by: u64,
    },
    DiskDies {
        node: usize,
        v: usize,
    },
    DiskHangs {
        node: usize,
        v: usize,
    },
    DiskSlow {
        node: usize,
        v: usize,
    },
    /// The operation of this kind that ends next fails.
    DiskFails {
        node: usize,
        v: usize,
        kind: IoKind,
    },
    Replace {
        node: usize,
        v: usize,
    },
    /// A sector of metadata that nobody uses changes.
    Decay {
        node: usize,
        v: usize,
        at: u64,
        decay: Decay,
    },
    /// An operator's or a manager's command, where it makes sense.
    Command {
        node: usize,
        command: Command,
    },
    /// One that need not.
    Cruel {
        node: usize,
        command: Command,
    },
    /// It is to be disconnected until somebody wants it otherwise.
    Part {
        node: usize,
    },
    Join {
        node: usize,
    },
    Detach {
        node: usize,
        v: usize,
    },
    Reattach {
        node: usize,
        v: usize,
    },
    /// Its I/O is suspended for a while.
    Suspend {
        node: usize,
    },
    BringUp {
        node: usize,
    },
    BringUpAll,
    /// After a split brain its data is given up.
    Victim {
        node: usize,
    },
    Open {
        client: usize,
        node: usize,
    },
    Leave {
        client: usize,
    },
    Request {
        client: usize,
        node: usize,
        kind: Kind,
        start: u32,
        len: u32,
        fua: bool,
    },
}

impl World {
    /// Does it, if it may be done now.
    pub(super) fn enact(&mut self, deed: Deed) {
        match deed {
            Deed::Crash { node, power } => self.crash_now(node, power),
            Deed::CrashSoon { node, power } => {
                if self.hosts[node].running() {
                    self.hosts[node].dies = Some(power);
                }
            }
            Deed::Cut { half_open } => self.cut_link(half_open),
            Deed::Partition { half_open } => {
                self.network.partitioned = true;
                self.cut_link(half_open);
                let length = self.rng.spread(100 * MS, 20_000 * MS);
                self.after(length, What::Mend);
            }
            Deed::Stall { at, length } => {
                for c in self.network.connections.values_mut() {
                    for to in (0..2).filter(|&to| at[to]) {
                        c.stalled[to] = self.now + length;
                    }
                }
                self.counters.mark("link: stalled");
            }
            Deed::Pause { node, length } => self.pause(node, length),
            Deed::Freeze { node, length } => self.freeze(node, length),
            Deed::Leap { node, by } => self.leap(node, by),
            Deed::DiskLate { node, v, length } => {
                if !self.hosts[node].running() && !self.disk(node, v).detached {
                    self.disk(node, v).detached = true;
                    self.counters.mark("disk: not there when its node started");
                    self.after(length, What::DiskFound { node, v });
                }
            }
            Deed::DiskAway { node, v, length } => {
                if self.hosts[node].running() && !self.disk(node, v).detached {
                    self.disk(node, v).detached = true;
                    self.counters.mark("disk: taken away and brought back");
                    self.command(node, Command::Detach(volume::number(v)));
                    self.after(length, What::DiskFound { node, v });
                }
            }
            Deed::DiskDies { node, v } => self.disk_dies(node, v),
            Deed::DiskHangs { node, v } => {
                self.disk(node, v).hangs = true;
                let delay = self.rng.spread(100 * MS, 20_000 * MS);
                self.after(delay, What::Unhang { node, v });
            }
            Deed::DiskSlow { node, v } => {
                self.disk(node, v).slow ^= true;
                self.counters.mark("disk: slow");
            }
            Deed::DiskFails { node, v, kind } => self.hosts[node].doomed.push((v, kind)),
            Deed::Replace { node, v } => {
                if self.volumes[v].model.together() && !self.disk(1 - node, v).dead {
                    self.replace_disk(node, v);
                }
            }
            Deed::Decay { node, v, at, decay } => self.decay(node, v, at, decay),
            Deed::Command { node, command } => {
                if self.makes_sense(node, &command) {
                    self.command(node, command);
                }
            }
            Deed::Cruel { node, command } => {
                self.excused = true;
                self.counters.mark("operator: was cruel");
                self.command(node, command);
            }
            Deed::Part { node } => {
                self.hosts[node].disconnected = true;
                self.command(node, Command::Disconnect);
            }
            Deed::Join { node } => {
                self.hosts[node].disconnected = false;
                self.command(node, Command::Connect { discard_my_data: false });
            }
            Deed::Detach { node, v } => {
                if self.volumes[v].model.view(node).disk == DiskState::UpToDate {
                    self.disk(node, v).detached = true;
                    self.command(node, Command::Detach(volume::number(v)));
                }
            }
            Deed::Reattach { node, v } => {
                self.disk(node, v).detached = false;
                self.bring_up(node);
            }
            Deed::Suspend { node } => {
                self.hosts[node].suspended = true;
                let length = self.rng.spread(50 * MS, 5000 * MS);
                let life = self.hosts[node].life;
                self.after(length, What::ResumeIo { node, life });
                self.command(node, Command::SuspendIo);
            }
            Deed::BringUp { node } => self.bring_up(node),
            Deed::BringUpAll => {
                for n in 0..2 {
                    self.volumes.iter_mut().for_each(|volume| volume.disks.0[n].detached = false);
                    self.hosts[n].disconnected = false;
                    self.bring_up(n);
                }
            }
            Deed::Victim { node } => self.give_up(node),
            Deed::Open { client, node } => self.open_at(client, node),
            Deed::Leave { client } => self.leave(client),
            Deed::Request { client, node, kind, start, len, fua } => {
                if self.clients[client].place == Place::Open(node) {
                    self.request(client, node, kind, start, len, fua);
                }
            }
        }
    }

    /// Would an operator who knows his trade command it now?
    fn makes_sense(&self, n: usize, command: &Command) -> bool {
        let primary = self.view(n).role == Role::Primary;
        match command {
            Command::Secondary { .. } => primary,
            Command::Invalidate => !primary && self.views(n).any(View::peer_good),
            Command::InvalidateRemote => primary && self.views(n).any(View::mirrored),
            Command::Down => !primary,
            Command::Attach(..)
            | Command::Detach(_)
            | Command::Connect { .. }
            | Command::Disconnect
            | Command::Primary { .. }
            | Command::Outdate
            | Command::SuspendIo
            | Command::ResumeIo
            | Command::Lease(_) => true,
        }
    }
}

impl Deed {
    /// A class of deeds that may be needless as a whole.
    pub(super) fn class(&self) -> (std::mem::Discriminant<Self>, Option<Kind>, bool) {
        let kind = if let Self::Request { kind, .. } = self { Some(*kind) } else { None };
        let of_a_client = matches!(self, Self::Open { .. } | Self::Leave { .. }) || kind.is_some();
        (std::mem::discriminant(self), kind, of_a_client)
    }

    /// The client that does it.
    pub(super) fn client(&self) -> Option<usize> {
        match self {
            Self::Open { client, .. } | Self::Leave { client } | Self::Request { client, .. } => {
                Some(*client)
            }
            _ => None,
        }
    }

    /// The same in simple: one block, no FUA.
    pub(super) fn simpler(&self) -> Option<Self> {
        let Self::Request { client, node, kind, start, len, .. } = *self else { return None };
        let (start, len) = (start / 8 * 8, len.min(8));
        let simple = Self::Request { client, node, kind, start, len, fua: false };
        (simple != *self && kind != Kind::Flush).then_some(simple)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dies = |power: &bool| if *power { "loses power" } else { "is killed" };
        match self {
            Self::Crash { node, power } => write!(f, "node {node} {}", dies(power)),
            Self::CrashSoon { node, power } => {
                write!(f, "node {node} {} in the middle of its next actions", dies(power))
            }
            Self::Cut { half_open: false } => write!(f, "the connection breaks"),
            Self::Cut { half_open: true } => write!(f, "the connection breaks, nobody is told"),
            Self::Partition { half_open } => {
                let told = if *half_open { ", nobody is told" } else { "" };
                write!(f, "the network is parted for a while{told}")
            }
            Self::Stall { at, length } => {
                let at = match at {
                    [true, true] => "both nodes",
                    [true, false] => "node 0",
                    _ => "node 1",
                };
                write!(f, "nothing arrives at {at} for {} ms", length / MS)
            }
            Self::Pause { node, length } => {
                write!(f, "node {node} is stopped for {} ms", length / MS)
            }
            Self::Freeze { node, length } => {
                write!(f, "node {node} is stopped for {} ms, and its clock, too", length / MS)
            }
            Self::DiskLate { node, v, length } => {
                write!(f, "disk {v} of node {node} is not to be found for {} ms", length / MS)
            }
            Self::DiskAway { node, v, length } => {
                write!(f, "disk {v} of node {node} is detached for {} ms", length / MS)
            }
            Self::Leap { node, by } => {
                write!(f, "the clock of node {node} goes forward by {} ms", by / MS)
            }
            Self::DiskDies { node, v } => write!(f, "disk {v} of node {node} dies"),
            Self::DiskHangs { node, v } => write!(f, "disk {v} of node {node} hangs for a while"),
            Self::DiskSlow { node, v } => {
                write!(f, "disk {v} of node {node} becomes slow, or no longer is")
            }
            Self::DiskFails { node, v, kind } => {
                write!(f, "disk {v} of node {node} fails the next {kind:?}")
            }
            Self::Replace { node, v } => write!(f, "disk {v} of node {node} is replaced"),
            Self::Decay { node, v, at, decay } => {
                write!(f, "metadata at {at} of disk {v} of node {node} changes: {decay:?}")
            }
            Self::Command { node, command } => write!(f, "node {node} is told: {command:?}"),
            Self::Cruel { node, command } => {
                write!(f, "node {node} is told by a cruel operator: {command:?}")
            }
            Self::Part { node } => write!(f, "node {node} is told to disconnect, and to stay so"),
            Self::Join { node } => write!(f, "node {node} is told to connect"),
            Self::Detach { node, v } => write!(f, "disk {v} of node {node} is detached"),
            Self::Reattach { node, v } => write!(f, "disk {v} of node {node} is attached again"),
            Self::Suspend { node } => write!(f, "the I/O of node {node} is suspended for a while"),
            Self::BringUp { node } => write!(f, "node {node} is brought up"),
            Self::BringUpAll => write!(f, "both nodes are brought up, and nothing is kept apart"),
            Self::Victim { node } => write!(f, "the data of node {node} is given up"),
            Self::Open { client, node } => write!(f, "client {client} opens node {node}"),
            Self::Leave { client } => write!(f, "client {client} leaves"),
            Self::Request { client, node, kind: Kind::Flush, .. } => {
                write!(f, "client {client} flushes on node {node}")
            }
            Self::Request { client, node, kind, start, len, fua } => {
                let verb = match kind {
                    Kind::Read => "reads",
                    Kind::Write => "writes",
                    Kind::Zero => "zeroes",
                    Kind::Flush => "flushes",
                };
                let fua = if *fua { ", FUA" } else { "" };
                write!(f, "client {client} {verb} {len} sectors at {start}{fua} on node {node}")
            }
        }
    }
}

//! When two states are the same: everything that decides what can happen from here on, and what will be thought of it.
//!
//! Left out is what only counts (how many events there were, who has which number in the world's future). The names that nodes give to
//! what is under way are replaced by the order in which they appear, and times by how far away they are.

use super::State;
use crate::sim::world::World;
use replicator::digest::Digest;
use replicator::node::{HandlerId, Time};
use std::fmt::{Debug, Write};

/// Names that nodes give, as they print.
const NAMES: [&str; 5] = ["IoId", "LinkId", "BufferId", "CommandId", "HandlerId"];

/// Nothing asks how much longer ago than this something was: three times the longest wait, in nanoseconds.
const LONG_AGO: i64 = 30_000_000_000;

/// Digests of the parts that seldom change, each with what it counts its changes by.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    processes: [Option<(Turn, Digest)>; 2],
    /// Of each disk.
    metadata: Vec<Option<(u64, Digest)>>,
}

/// A process changes with these: its life, how much it was given to handle, the time.
type Turn = (u32, u64, u64);

/// Asked for again only if the key has changed.
fn known<K: PartialEq>(
    at: &mut Option<(K, Digest)>,
    key: K,
    digest: impl FnOnce() -> Digest,
) -> Digest {
    match at {
        Some((known, digest)) if *known == key => *digest,
        _ => at.insert((key, digest())).1,
    }
}

impl State {
    pub(super) fn fingerprint(&mut self) -> u128 {
        let Self { world, left, known: Known { processes, metadata }, .. } = self;
        let mut parts = Vec::with_capacity(7);
        for (n, host) in world.hosts.iter().enumerate() {
            let key = (host.life, host.turns, world.now);
            parts.push(known(&mut processes[n], key, || world.process(n)));
        }
        metadata.resize(world.disks().count(), None);
        for (disk, known_of) in world.disks().zip(metadata) {
            parts.push(known(known_of, disk.meta.version, || disk.meta.digest()));
        }
        parts.push(world.surroundings(left));
        u128::from_le_bytes(Digest::of_all(&parts).0)
    }
}

impl World {
    /// A process, and what it has there: its buffers, its requests.
    fn process(&self, n: usize) -> Digest {
        let host = &self.hosts[n];
        let parts = (
            host.process.as_ref(),
            (&host.buffers, &host.client_buffers, &host.resync_buffers),
            (&host.ios, host.accepted, &host.waiting),
            host.commands.values().map(|pending| &pending.command).collect::<Vec<_>>(),
        );
        renamed(&parts, host.clock.read(self.now).0)
    }

    /// What a node's handlers have done and may do.
    fn fence_of(&self, n: usize) -> impl Debug {
        let fenced = &self.fenced[n];
        let runs = fenced.runs.iter().map(|(&id, run)| (HandlerId(id), run.stands(self.now)));
        (fenced.allowed, fenced.idle_since.map(Time), runs.collect::<Vec<_>>())
    }

    /// All else.
    fn surroundings(&self, left: &super::Budget) -> Digest {
        let mut future: Vec<String> = self
            .future()
            .map(|(at, _, what)| format!("{} {what:?}", at.saturating_sub(self.now)))
            .collect();
        future.sort();
        let connections = self.network.connections.values().map(|c| {
            let under_way = c.to.each_ref().map(|queue| queue.iter().map(|(_, parcel)| parcel));
            (&c.ends, &c.told, &c.agreed, under_way.map(Iterator::collect::<Vec<_>>), c.cut)
        });
        let disks = self.volumes.iter().flat_map(|volume| &volume.disks.0);
        let models = self.volumes.iter().map(|volume| (&volume.model, volume.resync_since));
        let parts = (
            left,
            future,
            disks.map(|disk| disk.data()).collect::<Vec<_>>(),
            (connections.collect::<Vec<_>>(), self.network.wanted),
            (&self.clients, &self.ops, &self.commits),
            [0, 1].map(|n| self.fence_of(n)),
            (self.initialised, self.split, self.two_primaries, self.excused, self.unrelated),
            models.collect::<Vec<_>>(),
        );
        renamed(&parts, self.now)
    }
}

/// What stands for something as it prints, but for names and times: those are replaced by the order of their first appearance, and by
/// their distance from now.
pub(super) fn renamed(something: &impl Debug, now: u64) -> Digest {
    let text = format!("{something:?}");
    let mut into = String::with_capacity(text.len());
    let mut known: Vec<(usize, u64)> = Vec::new();
    let mut rest = &text[..];
    while let Some(open) = rest.find('(') {
        let (before, after) = rest.split_at(open);
        let digits = after[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let number = after[1..=digits].parse::<u64>().ok();
        let named = NAMES.iter().position(|name| before.ends_with(name));
        into.push_str(before);
        match (number, named) {
            (Some(number), Some(name)) => {
                let at = known.iter().position(|&k| k == (name, number)).unwrap_or_else(|| {
                    known.push((name, number));
                    known.len() - 1
                });
                write!(into, "({at}").expect("a string takes all");
            }
            (Some(number), None) if before.ends_with("Time") => {
                let away = (number as i64 - now as i64).max(-LONG_AGO);
                write!(into, "({away}").expect("a string takes all");
            }
            _ => into.push_str(&after[..=digits]),
        }
        rest = &after[digits + 1..];
    }
    into.push_str(rest);
    Digest::of(into.as_bytes())
}

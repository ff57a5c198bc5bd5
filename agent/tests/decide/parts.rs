//! What the world is made of: chance, etcd, the disk and daemon of a node. Each only as far as agents can tell.

use agent::decide::{Lock, Ms};

pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Held {
    pub(crate) node: usize,
    pub(crate) revision: u64,
    pub(crate) expires: Ms,
}

#[derive(Default)]
pub(crate) struct Etcd {
    pub(crate) lock: Option<Held>,
    pub(crate) outdated: [bool; 2],
    pub(crate) revision: u64,
}

impl Etcd {
    pub(crate) fn look(&self, node: usize) -> Lock {
        match self.lock {
            Some(held) if held.node == node => Lock::Mine,
            Some(_) => Lock::Other,
            None if self.outdated[node] => Lock::Barred,
            None => Lock::Free,
        }
    }
}

/// A daemon: what is on its disk, and whom it answers.
#[derive(Clone, Default)]
pub(crate) struct Storage {
    pub(crate) up: bool,
    pub(crate) primary: bool,
    pub(crate) lease: Option<Ms>,
    /// The newest write on its disk.
    pub(crate) version: u64,
    pub(crate) outdated: bool,
    /// It was told that the peer is out of the way.
    pub(crate) fenced_peer: bool,
    pub(crate) connected: bool,
}

//! What one copy must hold: for each sector the newest acknowledged write that was promised to be there, by what
//! the copy has to survive to still have it.

use super::{History, OpId};

/// How deep an acknowledged write has sunk into a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// In the memory of the process: gone when it dies.
    Memory,
    /// In the operating system's or the disk's cache: gone with the power.
    Cache,
    /// On the medium.
    Stable,
}

/// The promises about one copy.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Held while the process runs.
    pub memory: Vec<OpId>,
    /// Held while the power is on.
    pub cache: Vec<OpId>,
    /// Held for ever.
    pub stable: Vec<OpId>,
    /// Writes in `cache` that are not yet in `stable`.
    pending: Vec<OpId>,
}

impl Replica {
    /// A copy of which nothing is promised.
    pub fn new(sectors: u32) -> Self {
        let none = vec![0; sectors as usize];
        Self { memory: none.clone(), cache: none.clone(), stable: none, pending: Vec::new() }
    }

    /// This write was acknowledged, and this copy counted.
    pub(super) fn acknowledged(&mut self, history: &History, id: OpId, depth: Depth) {
        let op = *history.op(id);
        for s in op.sectors() {
            let s = s as usize;
            self.memory[s] = history.newer_of(self.memory[s], id);
            if depth >= Depth::Cache {
                self.cache[s] = history.newer_of(self.cache[s], id);
            }
            if depth >= Depth::Stable {
                self.stable[s] = history.newer_of(self.stable[s], id);
            }
        }
        if depth == Depth::Cache {
            self.pending.push(id);
        }
    }

    /// A FLUSH sent at `invoked` was acknowledged, and this copy counted: returns the writes that became stable.
    pub(super) fn flushed(&mut self, history: &History, invoked: u64) -> Vec<OpId> {
        let (done, rest) =
            self.pending.iter().copied().partition(|&id| history.op(id).ended < invoked);
        self.pending = rest;
        let done: Vec<OpId> = done;
        for &id in &done {
            for s in history.op(id).sectors() {
                let s = s as usize;
                self.stable[s] = history.newer_of(self.stable[s], id);
            }
        }
        done
    }

    /// The process died.
    pub fn killed(&mut self) {
        self.memory.clone_from(&self.cache);
    }

    /// The power failed.
    pub fn power_cut(&mut self) {
        self.cache.clone_from(&self.stable);
        self.memory.clone_from(&self.stable);
        self.pending.clear();
    }

    /// Nothing is promised of this copy any more.
    pub fn void(&mut self) {
        *self = Self::new(u32::try_from(self.stable.len()).expect("sectors are counted in u32"));
    }

    /// This copy was made the same as another.
    pub fn assign(&mut self, source: &Self) {
        self.cache.clone_from(&source.cache);
        self.memory.clone_from(&source.cache);
        self.stable.clone_from(&source.stable);
        self.pending.clone_from(&source.pending);
    }

    /// This copy is the same as another: what is promised of either is promised of both; what is on the other's medium only
    /// if a FLUSH reaches both.
    pub(super) fn join(&mut self, other: &Self, history: &History, stable: bool) {
        let newer = |mine: &mut Vec<OpId>, theirs: &[OpId]| {
            for (m, &t) in mine.iter_mut().zip(theirs) {
                *m = history.newer_of(*m, t);
            }
        };
        newer(&mut self.memory, &other.memory);
        newer(&mut self.cache, &other.cache);
        if stable {
            newer(&mut self.stable, &other.stable);
        }
        for &id in &other.pending {
            if !self.pending.contains(&id) {
                self.pending.push(id);
            }
        }
    }
}

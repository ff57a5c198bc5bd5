//! One volume: its two disks, and what the checkers know of it. What a node is as a whole (role, connection) every volume's
//! account says alike.

use super::disks::{Disks, FactsCache};
use crate::model::Cluster;

/// One volume.
#[derive(Clone)]
pub(super) struct Volume {
    pub(super) disks: Disks,
    pub(super) facts: FactsCache,
    pub(super) model: Cluster,
    /// Stamp of the last client write that touched each block, at its begin or end.
    pub(super) block_stamps: Vec<u64>,
    /// Stamp at which a resync began.
    pub(super) resync_since: u64,
}

impl Volume {
    /// A volume that nobody has written to.
    pub(super) fn new(disks: Disks, model: Cluster) -> Self {
        let blocks = disks.0[0].sectors.div_ceil(8);
        Self {
            disks,
            facts: FactsCache::default(),
            model,
            block_stamps: vec![0; blocks as usize],
            resync_since: 0,
        }
    }

    /// Of a block: is a client writing there, or has one since this stamp?
    pub(super) fn written_since(&self, since: u64) -> impl Fn(u32) -> bool {
        let open: Vec<_> = self.model.history.open().map(|(_, op)| op.sectors()).collect();
        move |b: u32| {
            self.block_stamps[b as usize] > since
                || open.iter().any(|o| o.start < b * 8 + 8 && b * 8 < o.end)
        }
    }
}

/// The number a volume has on both nodes: not its index.
pub(super) fn number(v: usize) -> u16 {
    [0, 7][v]
}

/// The volume with this number.
pub(super) fn index(number: u16) -> usize {
    usize::from(number == 7)
}

/// What a node calls a client's operation: operations are counted by volume.
pub(super) fn request(v: usize, op: u32) -> u64 {
    ((v as u64) << 32) | u64::from(op)
}

/// The volume and the operation of a request.
pub(super) fn operation(request: u64) -> (usize, u32) {
    ((request >> 32) as usize, request as u32)
}

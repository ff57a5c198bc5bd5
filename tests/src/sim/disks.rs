//! Both disks as the checkers see them: content now, content after a power cut, metadata as recovery would read it.

use super::disk::Disk;
use crate::model::{Copies, StableFacts, Token};
use bitmap::{OpenError, OpenStep, Opened, Opening, Placement};
use std::sync::Arc;

/// The two disks.
#[derive(Clone)]
pub(super) struct Disks(pub(super) [Disk; 2]);

impl Copies for Disks {
    fn visible(&self, node: usize, sector: u32) -> Token {
        self.0[node].visible(sector)
    }
    fn stable(&self, node: usize, sector: u32) -> Token {
        self.0[node].stable(sector)
    }
    fn in_flight(&self, node: usize, sector: u32) -> bool {
        self.0[node].writing(sector)
    }
    fn sectors(&self) -> u32 {
        self.0[0].sectors
    }
}

/// What was last read of each disk's metadata.
#[derive(Clone, Default)]
pub(super) struct FactsCache([Option<(u32, u64, Option<StableFacts>)>; 2]);

impl FactsCache {
    /// Whether the metadata has not changed since it was last read.
    pub(super) fn fresh(&self, disks: &Disks, node: usize) -> bool {
        let disk = &disks.0[node];
        matches!(&self.0[node], Some((n, v, _)) if (*n, *v) == (disk.number, disk.meta.version))
    }

    /// The metadata of a node's disk, recovered.
    pub(super) fn read(&mut self, disks: &Disks, node: usize) -> Option<StableFacts> {
        let disk = &disks.0[node];
        if !self.fresh(disks, node) {
            let facts = |opened: Box<Opened>| StableFacts { metadata: Arc::new(opened.metadata) };
            self.0[node] = Some((disk.number, disk.meta.version, opened(disk).ok().map(facts)));
        }
        self.0[node].as_ref().and_then(|(_, _, facts)| facts.clone())
    }
}

/// Metadata as recovery would find it.
pub(super) fn opened(disk: &Disk) -> Result<Box<Opened>, OpenError> {
    let mut opening = Opening::new(Placement::Internal, disk.size);
    let mut results = Vec::new();
    loop {
        match opening.step(results) {
            OpenStep::Read(ranges) => results = disk.peek_meta(&ranges),
            OpenStep::Done(opened) => return Ok(opened),
            OpenStep::Refused(why) => return Err(why),
        }
    }
}

//! A disk in memory that the tests of this folder write, tear, rot and open.
#![allow(dead_code, reason = "each test binary uses a part")]

use bitmap::{
    Bytes, FormatParams, MetaWrite, Metadata, NodeId, OpenError, OpenStep, Opened, Opening,
    Placement, SECTOR,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// One sector.
pub(crate) type Sector = [u8; SECTOR];

/// A disk: a shared image, and the sectors that differ from it.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) placement: Placement,
    image: Arc<Vec<u8>>,
    pub(crate) changed: BTreeMap<u64, Sector>,
    /// Sectors that fail to read.
    pub(crate) unreadable: BTreeSet<u64>,
}

impl Disk {
    /// A disk full of old bytes that mean nothing.
    pub(crate) fn new(placement: Placement, size: u64) -> Self {
        let image = (0..size).map(|n| (n * 7 + n / 512 * 13 + 1) as u8).collect();
        Self {
            placement,
            image: Arc::new(image),
            changed: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.image.len() as u64
    }

    /// Makes the image what the disk holds.
    pub(crate) fn settle(&mut self) {
        let image = Arc::make_mut(&mut self.image);
        for (offset, sector) in std::mem::take(&mut self.changed) {
            image[offset as usize..][..SECTOR].copy_from_slice(&sector);
        }
    }

    pub(crate) fn sector(&self, offset: u64) -> Sector {
        let base = || self.image[offset as usize..][..SECTOR].try_into().expect("a sector");
        self.changed.get(&offset).copied().unwrap_or_else(base)
    }

    pub(crate) fn put(&mut self, offset: u64, sector: Sector) {
        self.unreadable.remove(&offset);
        self.changed.insert(offset, sector);
    }

    pub(crate) fn write(&mut self, write: &MetaWrite) {
        for (offset, sector) in sectors(write) {
            self.put(offset, sector);
        }
    }

    pub(crate) fn write_stages(&mut self, stages: &[Vec<MetaWrite>]) {
        for write in stages.iter().flatten() {
            self.write(write);
        }
    }

    fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, ()> {
        let mut bytes = Vec::new();
        for at in (offset..offset + u64::from(len)).step_by(SECTOR) {
            if self.unreadable.contains(&at) || at + SECTOR as u64 > self.size() {
                return Err(());
            }
            bytes.extend(self.sector(at));
        }
        Ok(bytes)
    }

    /// Opens the metadata as a node would.
    pub(crate) fn open(&self) -> Result<Opened, OpenError> {
        self.open_as(self.placement, self.size())
    }

    pub(crate) fn open_as(&self, placement: Placement, size: u64) -> Result<Opened, OpenError> {
        let mut opening = Opening::new(placement, size);
        let mut results = Vec::new();
        loop {
            match opening.step(results) {
                OpenStep::Read(reads) => {
                    results = reads.iter().map(|&(at, len)| self.read(at, len)).collect();
                }
                OpenStep::Done(opened) => return Ok(*opened),
                OpenStep::Refused(error) => return Err(error),
            }
        }
    }

    /// Runs everything pending of `metadata` as one commit.
    pub(crate) fn commit(&mut self, metadata: &mut Metadata) {
        if let Some(commit) = metadata.start_commit() {
            check_stages(&commit.stages);
            self.write_stages(&commit.stages);
            metadata.finish_commit();
        }
    }
}

/// The sectors of a write.
pub(crate) fn sectors(write: &MetaWrite) -> Vec<(u64, Sector)> {
    assert_eq!(write.offset % SECTOR as u64, 0, "a write starts at a sector");
    assert_eq!(write.bytes.len() % SECTOR as u64, 0, "a write has whole sectors");
    let offsets = (0..write.bytes.len()).step_by(SECTOR).map(|at| write.offset + at);
    match &write.bytes {
        Bytes::Data(data) => {
            let parts = data.chunks(SECTOR).map(|part| part.try_into().expect("a sector"));
            offsets.zip(parts).collect()
        }
        Bytes::Zeros(_) => offsets.map(|offset| (offset, [0; SECTOR])).collect(),
    }
}

/// What every commit keeps: something to write, no empty stage, no overlap inside a stage.
pub(crate) fn check_stages(stages: &[Vec<MetaWrite>]) {
    assert!(!stages.is_empty());
    for stage in stages {
        assert!(!stage.is_empty());
        let mut seen = BTreeSet::new();
        for (offset, _) in stage.iter().flat_map(sectors) {
            assert!(seen.insert(offset), "sector {offset} twice in a stage");
        }
    }
}

/// A small device: 8 KiB extents of two blocks, a log of `al_slots` in the smallest ring.
pub(crate) fn params(
    placement: Placement,
    device_size: u64,
    al_slots: u32,
    peers: u8,
) -> FormatParams {
    FormatParams {
        placement,
        device_size,
        data_size: (placement == Placement::External).then_some(EXTERNAL_DATA),
        size: None,
        node_id: NodeId(0),
        device_uuid: 0x1122_3344_5566_7788,
        slots: (1..=peers).map(NodeId).collect(),
        al_slots,
        al_sectors: al_slots.div_ceil(24) + 2 * al_slots.div_ceil(60) + 2,
        block_size: 4096,
        extent_size: 8192,
        logical_block_size: 512,
    }
}

/// Data of the external test device: four bitmap units, the last one partial.
pub(crate) const EXTERNAL_DATA: u64 = (3 * 3840 + 100) * 4096;

/// A formatted disk.
pub(crate) fn formatted(params: FormatParams) -> (Disk, Metadata) {
    let mut disk = Disk::new(params.placement, params.device_size);
    let (metadata, stages) = Metadata::format(params).expect("the parameters are legal");
    check_stages(&stages);
    disk.write_stages(&stages);
    (disk, metadata)
}

/// A set of blocks, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Blocks(Vec<u64>);

impl Blocks {
    pub(crate) fn insert(&mut self, blocks: Range<u64>) {
        for block in blocks {
            let word = (block / 64) as usize;
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= 1 << (block % 64);
        }
    }

    fn merge(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let word = |words: &Self, n: usize| words.0.get(n).copied().unwrap_or(0);
        let len = self.0.len().max(other.0.len());
        let mut words: Vec<u64> = (0..len).map(|n| f(word(self, n), word(other, n))).collect();
        // One form for each set, so that equal sets are equal.
        while words.last() == Some(&0) {
            words.pop();
        }
        Self(words)
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        self.merge(other, |a, b| a | b)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.merge(other, |a, b| a & b)
    }

    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.merge(other, |a, b| a & !b)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let bits = |(n, &word): (usize, &u64)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| n as u64 * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

/// The set bits of a slot.
pub(crate) fn bits(metadata: &Metadata, slot: usize) -> Blocks {
    let mut blocks = Blocks::default();
    for run in metadata.bits(slot).runs() {
        let words = run.start.div_ceil(64)..run.end / 64;
        if words.start < words.end {
            blocks.insert(run.start..words.start * 64);
            blocks.0.resize(words.start as usize, 0);
            blocks.0.resize(words.end as usize, u64::MAX);
            blocks.insert(words.end * 64..run.end);
        } else {
            blocks.insert(run);
        }
    }
    blocks
}

/// The blocks of extents.
pub(crate) fn blocks_of(metadata: &Metadata, extents: impl IntoIterator<Item = u32>) -> Blocks {
    let mut blocks = Blocks::default();
    for extent in extents {
        blocks.insert(metadata.geometry().extent_blocks(extent));
    }
    blocks
}

/// A small deterministic generator.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

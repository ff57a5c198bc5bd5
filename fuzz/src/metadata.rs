//! A disk to be attached: whatever is on it, its metadata is opened, or refused with a reason; what was opened can be made whole, and
//! is the same when it is opened again (MD-3).
//!
//! Input: a byte, 1: external, 2: checksums are made right, 4: every seventh read fails; the size in sectors; then what is not zeros, as
//! sector, length and bytes.

use crate::Seed;
use crate::input::Input;
use bitmap::{
    Bytes, FormatParams, Generation, MetaWrite, Metadata, NodeId, OpenError, OpenStep, Opened,
    Opening, Placement, SECTOR, SUPERBLOCK_SIZE,
};
use std::collections::BTreeMap;

/// Sectors of the largest device: 1 GiB.
const SECTORS: u32 = 1 << 21;
/// Bytes of one read, at most (LIM).
const LONGEST_READ: u32 = 128 << 10;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut disk = Disk::read(Input(bytes));
    let Ok(mut opened) = disk.open() else { return };
    let metadata = &mut opened.metadata;
    let repaired = opened.repaired;
    assert!(!repaired || metadata.needs_commit(), "what is bad is repaired");
    // What does not fit into one commit waits for the next.
    for _ in 0..2 {
        if let Some(commit) = metadata.start_commit() {
            commit.stages.iter().flatten().for_each(|write| disk.write(write));
            metadata.finish_commit();
        }
    }
    disk.fails = false;
    let again = match disk.open() {
        Ok(again) => again,
        // It came to the end of its numbers.
        Err(OpenError::Corrupt { why: "an impossible sequence number" }) => return,
        Err(error) => panic!("what was opened and repaired is opened again, not: {error}"),
    };
    assert!(!again.repaired && !again.log_lost && again.bad_units == 0, "it is whole now");
    assert_eq!(again.metadata.superblock(), metadata.superblock());
    assert!(again.metadata.active_extents().eq(metadata.active_extents()), "active extents");
    for slot in 0..metadata.superblock().slots.len() {
        let (before, after) = (metadata.bits(slot), again.metadata.bits(slot));
        assert!(before.runs().eq(after.runs()), "the bits of slot {slot}");
    }
}

/// Zeros, but for some sectors.
struct Disk {
    placement: Placement,
    size: u64,
    fails: bool,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
}

impl Disk {
    fn read(mut input: Input<'_>) -> Self {
        let shape = input.u8();
        let placement = if shape & 1 == 0 { Placement::Internal } else { Placement::External };
        let count = u64::from(input.u32() % (SECTORS + 1));
        let size = count * SECTOR as u64;
        let mut disk = Self { placement, size, fails: shape & 4 != 0, sectors: BTreeMap::new() };
        while !input.is_empty() && count > 0 {
            let sector = u64::from(input.u32()) % count;
            let len = usize::from(input.u16());
            let mut bytes = input.bytes(len).to_vec();
            bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
            if shape & 2 != 0 {
                seal(&mut bytes);
            }
            disk.put(sector, &bytes);
        }
        disk
    }

    fn put(&mut self, first: u64, bytes: &[u8]) {
        for (sector, bytes) in (first..).zip(bytes.chunks_exact(SECTOR)) {
            self.sectors.insert(sector, bytes.try_into().expect("a whole sector"));
        }
    }

    fn write(&mut self, write: &MetaWrite) {
        let first = write.offset / SECTOR as u64;
        match &write.bytes {
            Bytes::Data(bytes) => self.put(first, bytes),
            Bytes::Zeros(len) => {
                let last = first + len / SECTOR as u64;
                self.sectors.retain(|sector, _| !(first..last).contains(sector));
            }
        }
    }

    fn at(&self, offset: u64, len: u32) -> Result<Vec<u8>, ()> {
        assert!(len <= LONGEST_READ, "LIM: a read of {len} bytes");
        let first = offset / SECTOR as u64;
        if (self.fails && first % 7 == 3) || offset + u64::from(len) > self.size {
            return Err(());
        }
        let mut bytes = vec![0; len as usize];
        let last = first + u64::from(len) / SECTOR as u64;
        for (sector, there) in self.sectors.range(first..last) {
            bytes[(sector - first) as usize * SECTOR..][..SECTOR].copy_from_slice(there);
        }
        Ok(bytes)
    }

    fn open(&self) -> Result<Opened, OpenError> {
        let mut opening = Opening::new(self.placement, self.size);
        let mut results = Vec::new();
        let mut read = 0;
        loop {
            match opening.step(results) {
                OpenStep::Read(reads) => {
                    read += reads.iter().map(|&(_, len)| u64::from(len)).sum::<u64>();
                    // Each sector once, and those that failed once more.
                    assert!(read <= 3 * self.size, "LIM: more is read than there is");
                    results = reads.iter().map(|&(at, len)| self.at(at, len)).collect();
                }
                OpenStep::Done(opened) => return Ok(*opened),
                OpenStep::Refused(error) => return Err(error),
            }
        }
    }

    /// As an input whose checksums are made right.
    fn written(&self) -> Vec<u8> {
        let placement = u8::from(self.placement == Placement::External);
        let mut input = vec![placement | 2];
        input.extend(((self.size / SECTOR as u64) as u32).to_le_bytes());
        let mut rest = self.sectors.iter().peekable();
        while let Some((&first, bytes)) = rest.next() {
            let mut record = bytes.to_vec();
            while is_superblock(&record) && record.len() < SUPERBLOCK_SIZE {
                let next = rest.next().map_or(&[0; SECTOR], |(_, bytes)| bytes);
                record.extend_from_slice(next);
            }
            let used = record.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                input.extend((first as u32).to_le_bytes());
                input.extend((used as u16).to_le_bytes());
                input.extend_from_slice(&record[..used]);
            }
        }
        input
    }
}

fn is_superblock(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PolluxSB")
}

/// Puts the checksum where a record of that kind has it.
fn seal(bytes: &mut Vec<u8>) {
    let at = if is_superblock(bytes) {
        bytes.resize(SUPERBLOCK_SIZE, 0);
        12..16
    } else {
        bytes.truncate(SECTOR);
        4..8
    };
    if let Some(place) = bytes.get_mut(at.clone()) {
        place.fill(0);
        let checksum = crc32fast::hash(bytes).to_le_bytes();
        bytes[at].copy_from_slice(&checksum);
    }
}

/// Fresh metadata, in use, with a full log, after many commits, of one and of three peers, of either placement.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (placed, placement) in
        [("internal", Placement::Internal), ("external", Placement::External)]
    {
        for peers in [1, 3] {
            let (mut disk, mut metadata) = formatted(placement, peers);
            let mut keep = |what: &str, disk: &Disk| {
                seeds.push((format!("{placed}-{peers}-{what}"), disk.written()));
            };
            keep("fresh", &disk);
            metadata.edit(|superblock| {
                superblock.current = Generation(0x1234_5678_9abc_def0);
                superblock.flags.consistent = true;
            });
            metadata.clear_all_bits(0);
            metadata.activate(2..5);
            commit(&mut disk, &mut metadata);
            keep("used", &disk);
            metadata.set_bits(0, 40..900);
            metadata.sync_bits();
            commit(&mut disk, &mut metadata);
            keep("dirty", &disk);
            for extent in 5..40 {
                metadata.activate(extent..extent + 1);
                commit(&mut disk, &mut metadata);
                metadata.retire(extent - 3);
            }
            commit(&mut disk, &mut metadata);
            keep("wrapped", &disk);
            let copy = metadata.layout().metadata_area();
            let torn = if placement == Placement::External { copy.start } else { copy.end } / 512;
            disk.sectors.remove(&if placement == Placement::External { torn } else { torn - 8 });
            keep("torn", &disk);
        }
    }
    seeds
}

fn commit(disk: &mut Disk, metadata: &mut Metadata) {
    if let Some(commit) = metadata.start_commit() {
        commit.stages.iter().flatten().for_each(|write| disk.write(write));
        metadata.finish_commit();
    }
}

fn formatted(placement: Placement, peers: u8) -> (Disk, Metadata) {
    let external = placement == Placement::External;
    let size = if external { 1 << 20 } else { 64 << 20 };
    let (metadata, stages) = Metadata::format(FormatParams {
        placement,
        device_size: size,
        data_size: external.then_some(64 << 20),
        size: None,
        node_id: NodeId(0),
        device_uuid: 0x1122_3344_5566_7788,
        slots: (1..=peers).map(NodeId).collect(),
        al_slots: 7,
        al_sectors: 6,
        block_size: 4096,
        extent_size: 64 << 10,
        logical_block_size: 512,
    })
    .expect("it fits");
    let mut disk = Disk { placement, size, fails: false, sectors: BTreeMap::new() };
    stages.iter().flatten().for_each(|write| disk.write(write));
    (disk, metadata)
}

//! The activity log: what a write to an extent that is in it costs, what one to an extent that is not, and what reading it back. A device of
//! 1 TiB, 1237 places. The bytes of transactions are made and not written anywhere; the disk comes on top.

use bitmap::{
    Activation, Bytes, FormatParams, MetaWrite, Metadata, NodeId, OpenStep, Opened, Opening,
    Placement,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SLOTS: u32 = 1237;
/// Extents of 4 MiB.
const EXTENTS: u32 = 1 << 18;
/// Bytes of the file of metadata.
const FILE: u64 = 64 << 20;

/// Fresh metadata without a bit set, and the file it is in.
fn fresh() -> (Metadata, Vec<u8>) {
    let params = FormatParams {
        placement: Placement::External,
        device_size: FILE,
        data_size: Some(u64::from(EXTENTS) << 22),
        size: None,
        node_id: NodeId(0),
        device_uuid: 1,
        slots: vec![NodeId(1)],
        al_slots: SLOTS,
        al_sectors: 256,
        block_size: 4096,
        extent_size: 4 << 20,
        logical_block_size: 512,
    };
    let (mut metadata, stages) = Metadata::format(params).expect("a valid layout");
    let mut file = vec![0; FILE as usize];
    stages.iter().flatten().for_each(|write| apply(&mut file, write));
    metadata.clear_all_bits(0);
    metadata.sync_bits();
    commit(&mut metadata, |write| apply(&mut file, write));
    (metadata, file)
}

fn apply(file: &mut [u8], write: &MetaWrite) {
    let at = write.offset as usize;
    match &write.bytes {
        Bytes::Data(bytes) => file[at..at + bytes.len()].copy_from_slice(bytes),
        Bytes::Zeros(len) => file[at..at + *len as usize].fill(0),
    }
}

/// Hands all that is pending to `write`.
fn commit(metadata: &mut Metadata, write: impl FnMut(&MetaWrite)) {
    let commit = metadata.start_commit().expect("something is pending");
    commit.stages.iter().flatten().for_each(write);
    metadata.finish_commit();
}

/// These extents take places, if need be those that were used longest ago; one transaction.
fn enter(metadata: &mut Metadata, extents: std::ops::Range<u32>, write: impl FnMut(&MetaWrite)) {
    while metadata.log_free() < extents.len() as u32 {
        let oldest = metadata.oldest_active(|_| true).expect("the log is full");
        metadata.retire(oldest);
    }
    let activation = metadata.activate(extents);
    assert!(matches!(activation, Activation::Pending(_)), "cold extents, and room: {activation:?}");
    commit(metadata, write);
}

/// Every place is taken, three times over, so that the ring of transactions was written round and round.
fn full() -> (Metadata, Vec<u8>) {
    let (mut metadata, mut file) = fresh();
    for extent in 0..3 * SLOTS {
        enter(&mut metadata, extent..extent + 1, |write| apply(&mut file, write));
    }
    assert_eq!(metadata.log_free(), 0);
    (metadata, file)
}

fn entering(c: &mut Criterion) {
    let mut group = c.benchmark_group("activity log");
    let (full, _) = full();
    let hot: Vec<_> = full.active_extents().collect();

    group.throughput(Throughput::Elements(1));
    group.bench_function("a write to an active extent", |b| {
        let mut metadata = full.clone();
        let mut place = 0;
        b.iter(|| {
            // Far from the one before, and each has its turn: 1237 is prime.
            place = (place + 617) % hot.len();
            let extent = hot[place];
            let activation = metadata.activate(extent..extent + 1);
            metadata.touch(extent);
            assert!(matches!(activation, Activation::Active));
        });
    });
    for (name, count) in [("a cold extent, one transaction", 1), ("32 cold extents, one", 32)] {
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(name, |b| {
            let mut metadata = full.clone();
            let mut extent = 3 * SLOTS;
            b.iter(|| {
                extent += count;
                if extent + count > EXTENTS {
                    extent = 0;
                }
                enter(&mut metadata, extent..extent + count, |write| {
                    black_box(write);
                });
            });
        });
    }
    group.finish();
}

/// What an attach does, without the disk.
fn open(file: &[u8]) -> Box<Opened> {
    let mut opening = Opening::new(Placement::External, FILE);
    let mut read = Vec::new();
    loop {
        match opening.step(read) {
            OpenStep::Read(wanted) => {
                let bytes = |(at, len)| Ok(file[at as usize..][..len as usize].to_vec());
                read = wanted.into_iter().map(|(at, len): (u64, u32)| bytes((at, len))).collect();
            }
            OpenStep::Done(opened) => return opened,
            OpenStep::Refused(error) => panic!("{error}"),
        }
    }
}

fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("opening metadata");
    for (name, recovered, (_, file)) in
        [("with an empty log", 0, fresh()), ("with a full log", SLOTS, full())]
    {
        let opened = open(&file);
        assert_eq!(opened.recovered_extents.len(), recovered as usize);
        assert!(!opened.log_lost && !opened.repaired);
        group.bench_function(name, |b| b.iter_with_large_drop(|| open(&file)));
    }
    group.finish();
}

criterion_group!(benches, entering, opening);
criterion_main!(benches);

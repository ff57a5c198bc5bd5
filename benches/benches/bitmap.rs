//! The dirty bitmap and the metadata around it: marking, finding, encoding. A device of 1 TiB, blocks of 4 KiB. The activity log is in
//! `log.rs`.

use bitmap::{DirtyBitmap, FormatParams, Metadata, NodeId, Placement};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const BITS: u64 = 1 << 28;
const SCATTERED: u64 = 100_000;

/// Numbers that look random and are the same in every run: a step of the golden ratio round the device.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BITS)
}

fn dirty() -> DirtyBitmap {
    let mut bits = DirtyBitmap::new(BITS);
    scattered(SCATTERED).for_each(|block| {
        bits.set(block..block + 1);
    });
    bits
}

fn marking(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitmap");
    group.throughput(Throughput::Elements(SCATTERED));
    group.bench_function("set 100 000 scattered blocks", |b| b.iter(dirty));
    group.bench_function("clear 100 000 scattered blocks", |b| {
        let clear = |mut bits: DirtyBitmap| {
            scattered(SCATTERED).for_each(|block| {
                bits.clear(block..block + 1);
            });
            assert_eq!(bits.count(), 0);
            bits
        };
        b.iter_batched(dirty, clear, BatchSize::LargeInput);
    });
    group.finish();
}

fn finding(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitmap");
    let bits = dirty();
    group.throughput(Throughput::Elements(bits.runs().count() as u64));
    group.bench_function("all runs of 100 000 scattered blocks", |b| {
        b.iter(|| black_box(&bits).runs().count());
    });
    group.throughput(Throughput::Elements(1));
    let clean = DirtyBitmap::new(BITS);
    group.bench_function("next_run where nothing is set", |b| {
        b.iter(|| black_box(&clean).next_run(0, u64::MAX));
    });
    group.bench_function("fill, then clear_all", |b| {
        let mut bits = DirtyBitmap::new(BITS);
        b.iter(|| {
            bits.fill();
            bits.clear_all();
        });
    });
    group.bench_function("clone with 100 000 scattered blocks", |b| b.iter(|| bits.clone()));
    group.finish();
}

fn metadata() -> Metadata {
    let params = FormatParams {
        placement: Placement::External,
        device_size: 1 << 30,
        data_size: Some(BITS * 4096),
        size: None,
        node_id: NodeId(0),
        device_uuid: 1,
        slots: vec![NodeId(1)],
        al_slots: 1237,
        al_sectors: 256,
        block_size: 4096,
        extent_size: 4 << 20,
        logical_block_size: 512,
    };
    let (mut metadata, _) = Metadata::format(params).expect("a valid layout");
    metadata.clear_all_bits(0);
    commit(&mut metadata);
    metadata
}

/// Encodes all that is pending; returns how many bytes would be written.
fn commit(metadata: &mut Metadata) -> u64 {
    let commit = metadata.start_commit().expect("something is pending");
    let bytes = commit.stages.iter().flatten().map(|write| write.bytes.len()).sum();
    metadata.finish_commit();
    bytes
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("metadata");
    let mut dirty = metadata();
    scattered(1000).for_each(|block| {
        dirty.set_bits(0, block..block + 1);
    });
    dirty.sync_bits();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("commit of 1000 changed units", |b| {
        b.iter_batched_ref(|| dirty.clone(), commit, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, marking, finding, encoding);
criterion_main!(benches);

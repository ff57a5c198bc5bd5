//! Messages between nodes, to bytes and back: the hot ones, and the largest.

use bitmap::{ByteRange, NodeId};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use replicator::node::BufferId;
use replicator::wire::{
    Content, Decoded, Decoder, Encoder, Integrity, MAX_RUNS, Message, PeerWrite,
};
use std::hint::black_box;

/// Messages of one turn.
const BATCH: u64 = 64;

fn write() -> Message {
    Message::Write(PeerWrite {
        volume: 0,
        range: ByteRange::new(1 << 30, 4096),
        content: Content::Data(BufferId(7)),
        fua: false,
        author: NodeId(0),
        dagtag: 12_345,
        epoch: 67,
        want_received: false,
    })
}

fn bits() -> Message {
    let runs = (0..MAX_RUNS as u64).map(|n| (n * 1000, n % 7 + 1)).collect();
    Message::Bits { volume: 0, runs, last: true }
}

/// One message many times over.
fn both_ways(
    c: &mut Criterion,
    name: &str,
    message: &Message,
    payload: Option<&[u8]>,
    integrity: Integrity,
) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH));
    let encode = |out: &mut Vec<u8>| {
        out.clear();
        let mut encoder = Encoder::new(integrity);
        for _ in 0..BATCH {
            encoder.encode(black_box(message), payload, out);
            out.extend_from_slice(payload.unwrap_or_default());
        }
    };
    let mut stream = Vec::new();
    group.bench_function("encode", |b| b.iter(|| encode(&mut stream)));
    encode(&mut stream);
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(integrity);
            let mut input = black_box(&stream[..]);
            let mut decoded = 0;
            while !input.is_empty() {
                let next = decoder.decode(&mut input).expect("what was encoded");
                let Decoded::Message(..) = next else { panic!("all of it is there: {next:?}") };
                decoded += 1;
            }
            assert_eq!(decoded, BATCH);
        });
    });
    group.finish();
}

fn codec(c: &mut Criterion) {
    let payload = vec![0x5a; 4096];
    both_ways(c, "codec/write of 4 KiB", &write(), Some(&payload), Integrity::None);
    both_ways(c, "codec/write of 4 KiB, crc32", &write(), Some(&payload), Integrity::Crc32);
    both_ways(c, "codec/written", &Message::Written(12_345), None, Integrity::None);
    both_ways(c, "codec/bits, all runs", &bits(), None, Integrity::None);
}

criterion_group!(benches, codec);
criterion_main!(benches);

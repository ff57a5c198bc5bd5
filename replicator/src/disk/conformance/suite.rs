//! What every engine must do, whatever lies under it.

use super::super::error::Cause;
use super::super::{Done, IoToken, Op, limits};
use super::kinds::{self, DATA, Disk, META};
use super::{Bytes, Random, meta_write, pool, run, run_one};
use crate::digest::Digest;

/// One test for each pair of a kind of disk and a demand.
macro_rules! suite {
    ($($kind:ident)*) => { $(
        mod $kind {
            use super::kinds;

            #[test]
            fn random_operations_match_a_model() {
                kinds::$kind().map(super::random_operations_match_a_model);
            }

            #[test]
            fn unaligned_edges_touch_nothing_else() {
                kinds::$kind().map(super::unaligned_edges_touch_nothing_else);
            }

            #[test]
            fn zeros_are_detected() {
                kinds::$kind().map(super::zeros_are_detected);
            }

            #[test]
            fn outside_of_the_disk_is_an_error_and_nothing_happens() {
                kinds::$kind().map(super::outside_of_the_disk_is_an_error);
            }

            #[test]
            fn each_operation_completes_once_and_the_rest_waits() {
                kinds::$kind().map(super::each_operation_completes_once);
            }

            #[test]
            fn neighbouring_sectors_of_metadata_may_be_written_together() {
                kinds::$kind().map(super::neighbouring_sectors_of_metadata);
            }

            #[test]
            fn large_transfers_arrive_whole() {
                kinds::$kind().map(super::large_transfers_arrive_whole);
            }
        }
    )* };
}

suite! {
    tmpfs page_cache page_cache_uring direct_threads direct_uring external_page_cache
    external_direct block_device_uring block_device_page_cache
}

fn write(offset: u64, bytes: &[u8]) -> Op {
    Op::Write { offset, buffer: pool().copy_of(bytes), fua: false }
}

fn read(offset: u64, len: u64) -> Op {
    Op::Read { offset, len: len as u32, detect_zero: false }
}

fn bytes_of(done: Done) -> Vec<u8> {
    match done {
        Done::Read(buffer) => buffer.as_ref().to_vec(),
        Done::Zeros(len) => vec![0; len as usize],
        Done::Digests(digests) => digests.iter().flat_map(|digest| digest.0).collect(),
        Done::Finished => panic!("a read ended like a write"),
    }
}

fn contents(disk: &mut Disk) -> Vec<u8> {
    bytes_of(run_one(&mut disk.engine, read(0, DATA)).expect("reading all of it"))
}

fn random_operations_match_a_model(mut disk: Disk) {
    for seed in [0x5eed, 0xca5707, 0x9011f] {
        let mut random = Random(seed);
        let mut model = contents(&mut disk);
        let mut meta = vec![0; META as usize];
        let zero = meta_write(disk.meta_at, Bytes::Zeros(META));
        run_one(&mut disk.engine, zero).expect("metadata is zeroed");
        for round in 0..60 {
            let mut busy = vec![false; (DATA / 512) as usize];
            let mut expected = Vec::new();
            let mut ops = Vec::new();
            for token in 0..random.below(40) {
                let op = random_op(&mut random, disk.meta_at);
                if claim(&op, disk.meta_at, disk.block.max(512), &mut busy) {
                    expected.push(apply(&op, disk.meta_at, &mut model, &mut meta));
                    ops.push((expected.len() as IoToken - 1, op));
                } else {
                    assert!(token > 0, "the first always fits");
                }
            }
            for completion in run(&mut disk.engine, ops.clone()) {
                let token = completion.token as usize;
                let done = completion.result.expect("no faults here");
                if let Some(expected) = &expected[token] {
                    let op = &ops[token].1;
                    assert!(bytes_of(done) == *expected, "seed {seed:x} round {round} {op:?}");
                }
            }
        }
        assert!(contents(&mut disk) == model, "seed {seed:x}");
        let op = Op::ReadMeta { offset: disk.meta_at, len: META as u32 };
        let found = bytes_of(run_one(&mut disk.engine, op).expect("metadata"));
        assert!(found == meta, "metadata, seed {seed:x}");
    }
}

fn random_op(random: &mut Random, meta_at: u64) -> Op {
    let grain = [1, 512, 4096][random.below(3) as usize];
    let end = if random.below(8) == 0 { META } else { DATA };
    let is_meta = end == META;
    let offset = random.below(end / grain) * grain;
    let len = (random.below(20_000 / grain + 1) * grain).min(end - offset);
    let fill = |random: &mut Random| (0..len).map(|_| random.next() as u8).collect::<Vec<u8>>();
    if is_meta {
        let offset = meta_at + offset;
        return match random.below(3) {
            0 => Op::ReadMeta { offset, len: len as u32 },
            1 => meta_write(offset, Bytes::Data(fill(random))),
            _ => meta_write(offset, Bytes::Zeros(len)),
        };
    }
    let (fua, flag) = (random.below(4) == 0, random.below(2) == 0);
    match random.below(10) {
        0 => Op::Digest { offset, len: len as u32, block: 1024 },
        1..3 => Op::Read { offset, len: len as u32, detect_zero: flag },
        3 => Op::Flush,
        4..6 => Op::Zero { offset, len, fua, may_unmap: flag },
        _ => Op::Write { offset, buffer: pool().copy_of(&fill(random)), fua },
    }
}

/// Claims the blocks an operation touches for this round; `false` if another one has some of them.
fn claim(op: &Op, meta_at: u64, block: u64, busy: &mut Vec<bool>) -> bool {
    let (offset, len) = op.range();
    // Metadata has no marks of its own: at most one operation on it in a round, marked by one more.
    if matches!(op, Op::ReadMeta { .. } | Op::WriteMeta(_)) {
        assert!(offset >= meta_at && offset + len <= meta_at + META);
        let free = busy.len() == (DATA / 512) as usize;
        busy.push(true);
        return free;
    }
    let first = offset - offset % block;
    let end = (offset + len).next_multiple_of(block).min(DATA);
    let marks = &mut busy[(first / 512) as usize..(end / 512) as usize];
    let free = !marks.contains(&true);
    if free {
        marks.fill(true);
    }
    free
}

/// What the operation does to the model, and what it reads.
fn apply(op: &Op, meta_at: u64, data: &mut [u8], meta: &mut [u8]) -> Option<Vec<u8>> {
    let (offset, len) = op.range();
    let of = |start: u64| (offset - start) as usize..(offset - start + len) as usize;
    match op {
        Op::Read { .. } => return Some(data[of(0)].to_vec()),
        Op::Digest { block, .. } => {
            let blocks = data[of(0)].chunks(*block as usize);
            return Some(blocks.flat_map(|block| Digest::of(block).0).collect());
        }
        Op::ReadMeta { .. } => return Some(meta[of(meta_at)].to_vec()),
        Op::Write { buffer, .. } => data[of(0)].copy_from_slice(buffer.as_ref()),
        Op::Zero { .. } => data[of(0)].fill(0),
        Op::Flush => {}
        Op::WriteMeta(write) => match &write.bytes {
            Bytes::Data(bytes) => meta[of(meta_at)].copy_from_slice(bytes),
            Bytes::Zeros(_) => meta[of(meta_at)].fill(0),
        },
    }
    None
}

fn unaligned_edges_touch_nothing_else(mut disk: Disk) {
    let mut model: Vec<u8> = (0..DATA).map(|i| (i % 251) as u8 + 1).collect();
    run_one(&mut disk.engine, write(0, &model)).expect("the pattern");
    let edges = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 12289, DATA - 1, DATA];
    for (round, pair) in edges.iter().flat_map(|a| edges.iter().map(move |b| (*a, *b))).enumerate()
    {
        let (start, end) = pair;
        if start > end {
            continue;
        }
        let range = start as usize..end as usize;
        let op = match round % 3 {
            0 => Op::Zero { offset: start, len: end - start, fua: false, may_unmap: true },
            1 => Op::Zero { offset: start, len: end - start, fua: true, may_unmap: false },
            _ => write(start, &vec![round as u8; range.len()]),
        };
        model[range.clone()].fill(if round % 3 == 2 { round as u8 } else { 0 });
        run_one(&mut disk.engine, op).expect("anywhere inside");
        assert!(contents(&mut disk) == model, "after {range:?}");
        let found = run_one(&mut disk.engine, read(start, end - start)).expect("anywhere inside");
        assert!(bytes_of(found) == model[range.clone()], "reading {range:?}");
    }
}

fn zeros_are_detected(mut disk: Disk) {
    let engine = &mut disk.engine;
    let asked = |offset, len| Op::Read { offset, len, detect_zero: true };
    let zeros = |done| matches!(done, Ok(Done::Zeros(len)) if len == 8192);
    assert!(zeros(run_one(engine, asked(4096, 8192))), "never written");
    assert!(zeros(run_one(engine, asked(DATA - 8192, 8192))), "up to the end");
    run_one(engine, write(4096, &[0; 8192])).expect("written zeros");
    assert!(zeros(run_one(engine, asked(4096, 8192))), "zeros that are written");
    for at in [4096, 8191, 12287] {
        run_one(engine, write(at, &[1])).expect("one byte");
        let Ok(Done::Read(found)) = run_one(engine, asked(4096, 8192)) else {
            panic!("a byte at {at} was missed")
        };
        assert_eq!((found.len(), found.as_ref()[at as usize - 4096]), (8192, 1));
        run_one(engine, write(at, &[0])).expect("one byte");
    }
    run_one(engine, write(0, &[3; 65536])).expect("data");
    let punch = Op::Zero { offset: 4096, len: 8192, fua: false, may_unmap: true };
    run_one(engine, punch).expect("a hole");
    assert!(zeros(run_one(engine, asked(4096, 8192))), "a hole");
    let plain = run_one(engine, read(4096, 8192));
    assert!(matches!(plain, Ok(Done::Read(_))), "not asked for");
}

fn outside_of_the_disk_is_an_error(mut disk: Disk) {
    let size = disk.meta_at.max(DATA) + if disk.meta_at > 0 { META } else { 0 };
    for (offset, len) in [(size, 1), (size - 1, 2), (u64::MAX, 1), (u64::MAX - 4095, 4096)] {
        let write = write(offset, &vec![9; len as usize]);
        let zero = Op::Zero { offset, len, fua: true, may_unmap: false };
        for op in [read(offset, len), write, zero] {
            let action = op.action();
            let error = run_one(&mut disk.engine, op).expect_err("outside");
            assert_eq!((error.action, error.offset, error.len), (action, offset, len));
            assert_eq!(error.cause, Cause::OutOfRange { size });
        }
    }
    let meta_end = disk.meta_at + META;
    let op = meta_write(meta_end - 1, Bytes::Data(vec![9; 2]));
    let error = run_one(&mut disk.engine, op).expect_err("outside");
    assert_eq!(error.cause, Cause::OutOfRange { size: meta_end });
    // A request that was wrong says nothing about the disk.
    assert!(run_one(&mut disk.engine, Op::Flush).is_ok());
    assert!(contents(&mut disk).iter().all(|&byte| byte == 0));
}

fn each_operation_completes_once(mut disk: Disk) {
    let engine = &mut disk.engine;
    let total = limits::IN_FLIGHT + 100;
    let op = |i: usize| match i % 4 {
        0 => read((i % 7) as u64 * 4096, 4096),
        1 => read((i % 7) as u64 * 512 + 3, 99),
        2 => Op::Read { offset: 8192, len: 4096, detect_zero: true },
        _ => Op::Flush,
    };
    let mut batch: Vec<_> = (0..total).map(|i| (i as IoToken, op(i))).collect();
    engine.submit(&mut batch);
    assert_eq!((batch.len(), engine.in_flight()), (100, limits::IN_FLIGHT));
    assert_eq!(batch[0].0, limits::IN_FLIGHT as IoToken, "the first ones were taken");
    engine.submit(&mut batch);
    assert_eq!(batch.len(), 100, "full is full");
    let mut out = Vec::new();
    while out.len() < total {
        let before = out.len();
        engine.poll(&mut out);
        assert_eq!(engine.in_flight() + batch.len() + out.len(), total);
        if out.len() == before {
            super::sleep_until_woken(engine);
        }
        engine.submit(&mut batch);
    }
    let mut tokens: Vec<IoToken> = out.iter().map(|completion| completion.token).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..total as IoToken), "each exactly once");
    assert!(out.iter().all(|completion| completion.result.is_ok()));
    engine.poll(&mut out);
    assert_eq!(out.len(), total, "and nothing more");
}

fn neighbouring_sectors_of_metadata(mut disk: Disk) {
    let sectors = META / 512;
    for round in 1..4u8 {
        let at = disk.meta_at;
        let op = |i: u64| {
            let bytes = vec![round.wrapping_mul(i as u8 | 1); 512];
            meta_write(at + i * 512, Bytes::Data(bytes))
        };
        let ops = (0..sectors).map(|i| (i, op(i))).collect();
        for completion in run(&mut disk.engine, ops) {
            completion.result.expect("no faults here");
        }
        let all = Op::ReadMeta { offset: at, len: META as u32 };
        let found = bytes_of(run_one(&mut disk.engine, all).expect("metadata"));
        for (i, sector) in found.chunks(512).enumerate() {
            let expected = round.wrapping_mul(i as u8 | 1);
            assert!(sector.iter().all(|&byte| byte == expected), "round {round} sector {i}");
        }
    }
}

fn large_transfers_arrive_whole(mut disk: Disk) {
    let mut random = Random(77);
    let pattern: Vec<u8> = (0..DATA).map(|_| random.next() as u8).collect();
    // A slice: its memory does not start where direct transfers want it.
    let padded = pool().copy_of(&[&[0; 3], &pattern[..]].concat());
    let buffer = padded.slice(3..padded.len());
    run_one(&mut disk.engine, Op::Write { offset: 0, buffer, fua: true }).expect("written");
    assert!(contents(&mut disk) == pattern);
}

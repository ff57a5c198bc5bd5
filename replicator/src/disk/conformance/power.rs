//! What only the disk in memory can show: which writes a flush covers, and that a hung disk hangs
//! nobody else.

use std::time::Duration;

use super::super::memory::{Fault, Memory};
use super::super::{Action, Cause, Engine, Errno, Op, limits};
use super::{pool, run, run_one, woken_within};

fn disk() -> Memory {
    Memory::new(1 << 30, &pool()).expect("an eventfd")
}

fn write(offset: u64, byte: u8, fua: bool) -> Op {
    Op::Write { offset, buffer: pool().copy_of(&[byte; 512]), fua }
}

fn first_bytes(disk: &Memory, count: u64) -> Vec<u8> {
    (0..count).map(|i| disk.contents(i * 512, 1)[0]).collect()
}

#[test]
fn a_flush_covers_what_was_polled_before_it_and_nothing_else() {
    let disk = disk();
    let mut engine = disk.clone();
    run_one(&mut engine, write(0, 1, false)).expect("polled before the flush");
    // Completed, since this disk is instant, but not polled when the flush is submitted.
    engine.submit(&mut vec![(0, write(512, 2, false)), (1, Op::Flush)]);
    let mut out = Vec::new();
    engine.poll(&mut out);
    assert_eq!(out.len(), 2);
    run_one(&mut engine, write(1024, 3, true)).expect("durable by itself");
    run_one(&mut engine, write(1536, 4, false)).expect("never flushed");
    assert_eq!(first_bytes(&disk, 4), [1, 2, 3, 4]);
    disk.power_cut(|_| false);
    assert_eq!(first_bytes(&disk, 4), [1, 0, 3, 0]);
}

#[test]
fn after_a_power_cut_each_write_that_was_not_flushed_is_there_or_not() {
    let disk = disk();
    let mut engine = disk.clone();
    let ops = (0..4).map(|i| (i, write(i * 512, i as u8 + 1, false))).collect();
    run(&mut engine, ops);
    run_one(&mut engine, Op::Zero { offset: 0, len: 512, fua: true, may_unmap: true })
        .expect("durable by itself");
    disk.power_cut(|offset| offset == 0 || offset == 1024);
    assert_eq!(first_bytes(&disk, 4), [0, 0, 3, 0], "the older write does not come back");
}

#[test]
fn writes_that_nobody_flushes_do_not_fill_the_memory() {
    let disk = disk();
    let mut engine = disk.clone();
    let payload = pool().copy_of(&vec![5; 1 << 20]);
    let count = (2 * limits::MEMORY_UNFLUSHED as u64) >> 20;
    for i in 0..count {
        let op = Op::Write { offset: i << 20, buffer: payload.clone(), fua: false };
        run_one(&mut engine, op).expect("written");
    }
    disk.power_cut(|_| false);
    let kept = (0..count).filter(|i| disk.contents(i << 20, 1) == [5]).count() as u64;
    assert!((count / 2..count).contains(&kept), "{kept} of {count} were written back");
}

#[test]
fn faults_hit_what_they_name_and_a_failed_flush_is_for_good() {
    let disk = disk();
    let mut engine = disk.clone();
    let fault = |action, bytes, times| Fault { action, bytes, errno: Errno::IO, times };
    disk.inject(fault(Action::Write, 512..513, 1));
    assert!(run_one(&mut engine, write(0, 1, false)).is_ok());
    let error = run_one(&mut engine, write(512, 1, false)).expect_err("injected");
    assert_eq!(error.cause, Cause::Os(Errno::IO));
    assert_eq!(disk.contents(512, 1), [0], "nothing of it was written");
    assert!(run_one(&mut engine, write(512, 1, false)).is_ok(), "it was to hit once");
    assert!(run_one(&mut engine, Op::Flush).is_ok(), "a failed write is no failed flush");

    disk.inject(fault(Action::Flush, 0..0, 1));
    assert_eq!(run_one(&mut engine, Op::Flush).expect_err("injected").cause, Cause::Os(Errno::IO));
    for op in [Op::Flush, write(0, 1, true), Op::WriteMeta { offset: 0, bytes: vec![1] }] {
        let error = run_one(&mut engine, op).expect_err("IO-4");
        assert_eq!(error.cause, Cause::FlushFailedBefore);
    }
    assert!(run_one(&mut engine, write(0, 1, false)).is_ok());
}

#[test]
fn a_disk_that_hangs_completes_nothing_and_wakes_when_it_comes_back() {
    let disk = disk();
    let mut engine = disk.clone();
    disk.hold();
    engine.submit(&mut vec![(1, write(0, 1, false)), (2, Op::Flush)]);
    let mut out = Vec::new();
    engine.poll(&mut out);
    assert_eq!((out.len(), engine.in_flight()), (0, 2));
    assert!(!woken_within(&engine, Duration::ZERO));
    disk.release();
    assert!(woken_within(&engine, super::PATIENCE));
    engine.poll(&mut out);
    let tokens: Vec<_> = out.iter().map(|completion| completion.token).collect();
    assert_eq!(tokens, [1, 2]);
}

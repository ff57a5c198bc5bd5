//! Power fails under real daemons at hundreds of instants of a run, on either node or both: what was promised is there (DUR-1, DUR-2, DUR-3),
//! nothing is that nobody wrote (DUR-5), and both copies become equal (COV-2, CONV).
//!
//! A run over a disk that records is cut afterwards, as often as wanted: `POLLUX_CUTS=1000` (of each run; 100 if it is not said),
//! `POLLUX_SEED=N` for the choices of an earlier run. Not shown: that a kernel's own flush does what it says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tests::real::blocks::BLOCK;
use tests::real::fault_disk::{Cache, Fault, FaultDisk, On, Rule};
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::power::history;
use tests::real::power::image::{Kept, Toll, image};
use tests::real::power::trial::{Cut, Run};
use tests::real::{Ledger, Load, Need, Pair, Plan, Random, lacks, seconds, seed};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Program("fusermount3")];
/// Bytes of each disk: eight extents of the activity log.
const SIZE: u64 = 32 << 20;
const REQUESTS: u64 = 3000;
/// Trials mostly wait.
const AT_A_TIME: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Two daemons in sync on a disk that records.
fn recorded(plan: &Plan, cache: Cache) -> (Pair, FaultDisk) {
    let size = plan.size;
    let names = [("alpha", size), ("beta", size), ("alpha-meta", 0), ("beta-meta", 0)];
    let disk = FaultDisk::mount(&names, cache);
    let mut pair = Pair::new(plan.clone());
    for (file, host) in pair.hosts().into_iter().enumerate() {
        host.backing = disk.path(file);
        host.meta = plan.external_meta.then(|| disk.path(file + 2));
    }
    pair.write_configuration();
    pair.start_first();
    (pair, disk)
}

/// A normal run of a client of alpha that writes, zeroes, flushes and uses FUA.
fn record(plan: &Plan, cache: Cache, seed: u64) -> Run {
    let (pair, disk) = recorded(plan, cache);
    let from = disk.stamp();
    // So that now one node is behind, and now the other; a flush that nobody waits for is seen if it takes its time.
    let slow = |file, on, one_in, up_to| {
        let fault = Fault::Slow { one_in, up_to: Duration::from_millis(up_to) };
        disk.set(Rule::always(file, on, fault))
    };
    let slow = [0, 1].map(|file| (slow(file, &[On::Write], 8, 3), slow(file, &[On::Flush], 2, 4)));
    let mut client = pair.alpha.client();
    let history = history::write(&mut client, &disk, REQUESTS, seed);
    let to = disk.stamp();
    drop((client, slow));
    let record = disk.record();
    let files = [0, 1].map(|node| {
        let files = if plan.external_meta { vec![node, node + 2] } else { vec![node] };
        files.into_iter().map(|file| (file, disk.content(file).size)).collect()
    });
    pair.end(None);
    println!("{} operations, {} of them in the run of the client", record.now, to - from);
    Run { record, history, files, span: (from, to) }
}

/// Looks at every promise of a run, then cuts it so many times.
fn cut(run: &Run, plan: &Plan, seed: u64) {
    let (promises, broken) = run.check_promises();
    println!("{promises} promises, {} of them broken", broken.len());
    assert!(promises > 0 && broken.is_empty(), "{}", broken[0]);
    let cuts = number("POLLUX_CUTS").unwrap_or(100);
    let (next, total) = (AtomicU64::new(0), Mutex::new((Toll::default(), 0)));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cuts {
                        break;
                    }
                    let cut = run.cut(number, seed);
                    println!("cut {number}: {cut:?}");
                    let toll = run.try_cut(plan, cut);
                    let toll = toll.unwrap_or_else(|broken| panic!("cut {number}: {broken}"));
                    let mut total = total.lock().expect("no other has failed");
                    total.0.unflushed += toll.unflushed;
                    total.0.gone += toll.gone;
                    total.0.torn += toll.torn;
                    total.1 += u64::from(run.history.at_risk(cut.at) > 0);
                }
            });
        }
    });
    let (toll, at_risk) = total.into_inner().expect("none has failed");
    println!("{cuts} cuts: {toll:?}; in {at_risk} something acknowledged had not been flushed");
    assert!(
        toll.gone > 0 && toll.torn > 0 && at_risk > 0,
        "a cut that takes nothing tests nothing"
    );
}

#[test]
fn what_was_flushed_survives_through_the_page_cache() {
    if lacks(&NEEDS) {
        return;
    }
    let (plan, seed) = (Plan { size: SIZE, ..Plan::default() }, seed());
    cut(&record(&plan, Cache::Page, seed), &plan, seed);
}

#[test]
fn what_was_flushed_survives_past_the_page_cache() {
    if lacks(&NEEDS) {
        return;
    }
    let (external_meta, seed) = (true, seed());
    let plan = Plan { size: SIZE, external_meta, disk: "direct-io yes;", ..Plan::default() };
    cut(&record(&plan, Cache::None, seed), &plan, seed);
}

/// Who looks must see it: a disk that loses what was flushed is found out.
#[test]
fn a_disk_that_lies_is_found_out() {
    if lacks(&NEEDS) {
        return;
    }
    let plan = Plan { size: SIZE, external_meta: true, ..Plan::default() };
    let mut run = record(&plan, Cache::Page, seed());
    // Of the data of both, nothing that the client wrote has ever been made stable.
    for entry in &mut run.record.entries {
        if entry.file < 2 && entry.begun > run.span.0 {
            entry.stable = None;
        }
    }
    assert!(!run.check_promises().1.is_empty(), "DUR-1: all is lost");
    for primary in 0..2 {
        let kept = [Kept::Nothing; 2];
        let cut = Cut { at: run.span.1, kept, primary, alone: true, seed: 1 };
        let found = run.try_cut(&plan, cut).expect_err("all is lost");
        assert!(found.starts_with("DUR-1"), "{found}");
    }
}

/// RES-6: what travels after a Primary has lost power goes by what was written, not by what was active.
#[test]
fn what_a_power_cut_took_travels_and_little_else() {
    const ACTIVE: u64 = 1 << 30;
    if lacks(&NEEDS) {
        return;
    }
    let (plan, seed) = (Plan { size: ACTIVE + (16 << 20), ..Plan::default() }, seed());
    let (pair, disk) = recorded(&plan, Cache::Page);
    let work = Work { span: ACTIVE, depth: 16, flush_every: 0, seed };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    load.wait_for_more((13 << 20) / BLOCK);
    let mut ended = load.stop();
    drop(ended.client);
    let (at, record) = (disk.stamp(), disk.record());
    pair.end(None);

    let mut pair = Pair::new(plan.clone());
    let mut random = Random::new(seed);
    let mut gone = 0;
    for (node, kept) in [Kept::Nothing, Kept::Completed].into_iter().enumerate() {
        let (found, toll) = image(&record, node, plan.size, at, kept, &mut random);
        gone += toll.gone;
        found.save(&pair.hosts()[node].backing);
    }
    pair.write_configuration();
    pair.beta.start();
    pair.beta.wait_status("its disk", seconds(20), |status| status.disk == "UpToDate");
    pair.beta.must(&["primary", RESOURCE]);
    ended.ledger.verify(&mut pair.beta.client());
    pair.alpha.start();
    pair.wait_in_sync();
    let blocks = ended.ledger.offsets().count() as u64;
    let copied = pair.alpha.status().resync_copied;
    let wire = pair.link.carried_to(0) + pair.link.carried_to(1);
    println!(
        "{blocks} blocks written, {gone} writes gone: {copied} bytes copied, {wire} on the wire"
    );
    assert!(gone > 100 && copied >= ACTIVE / 2, "much was lost, all was active");
    assert!(wire <= 2 * blocks * BLOCK, "{wire} bytes travelled for {blocks} blocks");
    pair.end(Some(&mut ended.ledger));
}

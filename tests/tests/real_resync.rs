//! A returning node is brought up to date by copying what may differ and nothing else, and a resync may be interrupted anywhere.

use serde_json::Value;
use tests::real::backing;
use tests::real::blocks::{BLOCK, encode};
use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::{Client, Ledger, Load, Pair, Plan, seconds, wait_for};

const LARGE: u64 = 64 << 30;
/// Bytes of an extent of the activity log.
const EXTENT: u64 = 4 << 20;
/// Extents of an activity log of the least size.
const FEW_EXTENTS: u64 = 67;

/// RES-6, COV-7: the blocks copied are those that may differ, and they are counted as such.
#[test]
fn on_a_large_device_what_may_differ_is_copied_and_nothing_else() {
    // The fewest extents an activity log can have.
    let mut pair = Pair::new(Plan { size: LARGE, disk: "al-extents 67;", ..Plan::default() });
    let began = std::time::Instant::now();
    pair.start();
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    pair.beta.wait_in_sync(seconds(240));
    println!("the first full sync of {} GiB of holes took {:?}", LARGE >> 30, began.elapsed());
    let mut ledger = scattered_blocks(&mut pair);
    death_under_load(&mut pair, &mut ledger);
    pair.end(Some(&mut ledger));
}

/// A hundred blocks are written while the peer is away.
fn scattered_blocks(pair: &mut Pair) -> Ledger {
    let size = pair.alpha.status().size;
    pair.beta.kill();
    pair.alpha.wait_status("the loss", seconds(3), |status| !status.is_connected());

    // All over the device, no two in one extent.
    let step = size / 100 / BLOCK * BLOCK;
    let offsets: Vec<_> = (0..100).map(|i| i * step + i * BLOCK).collect();
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), offsets.iter().copied());
    assert_eq!(pair.alpha.status().out_of_sync, 100 * BLOCK);

    pair.beta.start();
    pair.wait_in_sync();
    for host in pair.hosts() {
        let status = host.status();
        println!("{}: {} bytes copied", host.name, status.resync_copied);
        assert_eq!(status.resync_copied, 100 * BLOCK, "{}: {status}", host.name);
    }
    // A witness that knows nothing of Pollux: where the file system of the target has data.
    let data = backing::data(&pair.beta.backing, size);
    assert_eq!(data, offsets.iter().map(|&offset| (offset, BLOCK)).collect::<Vec<_>>());
    ledger
}

/// The Primary is killed under random writes, and returns.
fn death_under_load(pair: &mut Pair, ledger: &mut Ledger) {
    let work = Work { span: LARGE, depth: 8, flush_every: 64, seed: 9 };
    let load = Load::start(pair.alpha.client(), std::mem::take(ledger), work);
    load.wait_for_more(400);
    pair.alpha.kill();
    let ended = load.join();
    *ledger = ended.ledger;
    pair.beta.promote();
    ledger.verify(&mut pair.beta.client());

    pair.alpha.start();
    pair.wait_in_sync();
    let status = pair.alpha.status();
    let (copied, most) = (status.resync_copied, FEW_EXTENTS * EXTENT);
    println!("{} writes acknowledged; {copied} bytes copied, at most {most} allowed", ended.acked);
    assert!(copied <= most, "{copied} bytes copied, {most} active: {status}");
    assert!(copied > 0, "nothing was active under load: {status}");
}

/// What a crash costs is what was written since its extents were last clean, however much of the device is active; after a quiet
/// while that is nothing.
#[test]
fn after_a_crash_what_was_written_travels_and_not_what_was_active() {
    const SIZE: u64 = 1 << 30;
    const WRITTEN: u64 = 13 << 20;
    let mut pair = Pair::start_in_sync(Plan { size: SIZE + (16 << 20), ..Plan::default() });
    fill(&mut pair.alpha.client(), 0..SIZE >> 20);
    let clean = |pair: &Pair| {
        let line = pair.alpha.must(&["get-gi", RESOURCE]);
        line.trim().split(':').nth(8).expect("al-clean") == "1"
    };
    wait_for("the log to be empty", seconds(60), || clean(&pair));

    let work = Work { span: SIZE, depth: 16, flush_every: 0, seed: 11 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    load.wait_for_more(WRITTEN / BLOCK);
    pair.alpha.kill();
    let blocks = load.join().ledger.offsets().count() as u64;
    let (copied, wire) = return_of_alpha(&mut pair);
    println!("{blocks} blocks written: {copied} bytes copied, {wire} on the wire");
    assert!(copied >= SIZE / 2, "the whole device was active, and compared: {copied}");
    assert!(wire <= 2 * blocks * BLOCK, "{wire} bytes travelled for {blocks} blocks");

    pair.beta.must(&["secondary", RESOURCE]);
    pair.alpha.promote();
    wait_for("the log to be empty", seconds(60), || clean(&pair));
    pair.alpha.kill();
    let (copied, wire) = return_of_alpha(&mut pair);
    assert!(copied == 0 && wire < 64 << 10, "{copied} bytes copied, {wire} on the wire");
    pair.end(None);
}

/// Node beta takes over from the one that was killed. What its return costs: bytes of blocks that were copied or found equal, and bytes
/// that travelled.
fn return_of_alpha(pair: &mut Pair) -> (u64, u64) {
    pair.beta.promote();
    let carried = |pair: &Pair| pair.link.carried_to(0) + pair.link.carried_to(1);
    let before = carried(pair);
    pair.alpha.start();
    pair.wait_in_sync();
    (pair.alpha.status().resync_copied, carried(pair) - before)
}

/// Writes these mebibytes: no two blocks alike, no zeros, which would travel as a few words.
fn fill(client: &mut Client, mebibytes: std::ops::Range<u64>) {
    let mut bytes: Vec<u8> = (0..256).flat_map(|block| encode(block * BLOCK, 1)).collect();
    for i in mebibytes {
        for block in bytes.chunks_mut(BLOCK as usize) {
            block[..8].copy_from_slice(&(i + 1).to_le_bytes());
        }
        client.write(i << 20, &bytes).expect("a Primary alone serves");
    }
    client.flush().expect("a Primary alone serves");
}

#[test]
fn a_resync_that_is_interrupted_goes_on_where_it_was() {
    const DIRTY: u64 = 160 << 20;
    let mut pair = Pair::start_in_sync(Plan { size: 256 << 20, ..Plan::default() });
    pair.beta.kill();
    pair.alpha.wait_status("the loss", seconds(3), |status| !status.is_connected());
    let mut client = pair.alpha.client();
    fill(&mut client, 0..DIRTY >> 20);

    // When some of it is settled (both have flushed, the bits are gone) and the rest is under way, in the midst of a frame.
    pair.link.set_pace(Some(64 << 20));
    pair.beta.start();
    pair.alpha.wait_status("a part that is settled", seconds(30), |status| {
        status.replication == "SyncSource" && status.out_of_sync < DIRTY
    });
    pair.beta.wait_status("pieces on their way", seconds(30), |status| {
        let status: Value = serde_json::from_str(&status.json).expect("JSON");
        let connection = &status[0]["connections"][0];
        let asked = [&connection["rs-in-flight"], &connection["peer_devices"][0]["pending"]];
        asked.iter().all(|count| count.as_u64().expect("a number") > 0)
    });
    pair.link.cut_after(100_000);
    wait_for("the cut", seconds(30), || pair.link.is_cut());
    pair.beta.kill();
    pair.beta.start();
    // RES-3: restartable, never a source, never promoted.
    pair.beta.wait_status("the disk", seconds(5), |status| status.disk == "Inconsistent");
    let answer = pair.beta.adm(&["primary", RESOURCE]);
    assert_eq!(answer.code, Some(17), "an Inconsistent disk was promoted: {}", answer.said);

    let left = pair.alpha.status().out_of_sync.max(pair.beta.status().out_of_sync);
    assert!((1..DIRTY).contains(&left), "{left} bytes are left of {DIRTY}");
    pair.link.set_pace(None);
    pair.link.heal();
    pair.wait_in_sync();
    let copied = pair.beta.status().resync_copied;
    println!("{DIRTY} bytes were out of sync, {left} when interrupted; {copied} copied afterwards");
    assert_eq!(copied, left, "what was settled was copied again, or something was left out");
    drop(client);
    pair.end(None);
}

#[test]
fn a_full_sync_is_shown_while_it_runs() {
    let mut pair = Pair::new(Plan { size: 256 << 20, ..Plan::default() });
    let mut ledger = Ledger::default();
    pair.start();
    pair.beta.down();
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    let mut client = pair.alpha.client();
    fill(&mut client, 16..200);
    ledger.write(&mut client, (0..64).map(|i| i * BLOCK));
    pair.beta.start();
    let status = pair.beta.wait_status("a running resync", seconds(10), |status| {
        status.replication == "SyncTarget" && status.resync_done.is_some()
    });
    assert_eq!(status.disk, "Inconsistent");
    let shown = pair.beta.must(&["status", RESOURCE]);
    println!("{shown}");
    pair.wait_in_sync();
    drop(client);
    pair.end(Some(&mut ledger));
}

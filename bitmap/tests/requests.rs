//! Requests, tickets and commits, one by one.

mod common;

use bitmap::{Activation, LEAF_BITS, MetaWrite, Metadata, Placement, Ticket};
use common::{Disk, check_stages, formatted, params};

fn clean() -> (Disk, Metadata) {
    let (mut disk, mut metadata) = formatted(params(Placement::External, 160 * 1024, 4, 1));
    assert!(!metadata.needs_commit() && metadata.start_commit().is_none());
    assert_eq!(metadata.bits(0).count(), metadata.geometry().blocks(), "nobody knows");
    metadata.clear_all_bits(0);
    disk.commit(&mut metadata);
    (disk, metadata)
}

/// Starts and ends a commit; its stages, and the ticket that is durable then.
fn commit(metadata: &mut Metadata) -> (Vec<Vec<MetaWrite>>, Ticket) {
    assert!(metadata.needs_commit());
    let commit = metadata.start_commit().expect("something is pending");
    check_stages(&commit.stages);
    (commit.stages, metadata.finish_commit())
}

#[test]
fn requests_of_one_moment_share_a_commit() {
    let (_, mut metadata) = clean();
    let ticket = metadata.edit(|superblock| superblock.flags.consistent = true);
    metadata.set_bits(0, 3..4);
    assert_eq!(metadata.sync_bits(), ticket);
    assert_eq!(metadata.activate(1..3), Activation::Pending(ticket));
    assert_eq!(metadata.fill_bits(0), ticket);
    assert!(metadata.durable() < ticket);
    let first = metadata.start_commit().expect("much");
    // What comes now goes into the next.
    let later = metadata.edit(|superblock| superblock.flags.consistent = false);
    assert!(later > ticket);
    assert_eq!(metadata.activate(1..2), Activation::Pending(ticket), "it is on its way");
    assert_eq!(metadata.activate(1..4), Activation::Pending(later));
    assert_eq!(metadata.finish_commit(), ticket);
    assert_eq!(metadata.activate(1..3), Activation::Active);
    assert_eq!(metadata.activate(3..4), Activation::Pending(later));
    assert_eq!(commit(&mut metadata).1, later);
    assert_eq!(metadata.durable(), later);
    assert_eq!(metadata.activate(1..4), Activation::Active);
    assert_eq!(first.stages.len(), 3, "two superblock copies, one log sector");
}

#[test]
fn a_sync_of_nothing_is_durable_already() {
    let (_, mut metadata) = clean();
    assert_eq!(metadata.sync_bits(), metadata.durable());
    assert!(!metadata.needs_commit());
    assert_eq!(metadata.clear_bits(0, 3..4), 0, "they are clear");
    assert_eq!(metadata.sync_bits(), metadata.durable());
    metadata.set_bits(0, 3..4);
    let ticket = metadata.sync_bits();
    metadata.start_commit().expect("a unit");
    assert_eq!(metadata.sync_bits(), ticket, "it is on its way");
    assert_eq!(metadata.finish_commit(), ticket);
    assert_eq!(metadata.sync_bits(), ticket);
    assert!(!metadata.needs_commit());
}

/// Filling waits in the superblock, not in a unit; a sync covers it all the same.
#[test]
fn a_sync_covers_a_fill() {
    let (_, mut metadata) = clean();
    let fill = metadata.fill_bits(0);
    metadata.set_bits(0, 3..4);
    assert_eq!(metadata.sync_bits(), fill);
    assert!(metadata.durable() < fill);
}

#[test]
fn a_commit_always_writes_something() {
    let (mut disk, mut metadata) = clean();
    metadata.set_bits(0, 3..4);
    metadata.clear_bits(0, 3..4);
    let ticket = metadata.sync_bits();
    let (stages, durable) = commit(&mut metadata);
    assert_eq!(durable, ticket);
    disk.write_stages(&stages);
    assert_eq!(disk.open().expect("it is good").metadata.bits(0).count(), 0);
}

/// What a status counts is what is written.
#[test]
fn a_commit_tells_what_it_writes() {
    let (_, mut metadata) = clean();
    let written = |metadata: &mut Metadata| {
        let commit = metadata.start_commit().expect("something is pending");
        metadata.finish_commit();
        (commit.writes_log, commit.bitmap_writes, commit.stages.iter().flatten().count())
    };
    metadata.edit(|superblock| superblock.flags.consistent = true);
    assert_eq!(written(&mut metadata), (false, 0, 2), "two superblock copies");
    metadata.activate(1..3);
    assert_eq!(written(&mut metadata), (true, 0, 1), "a log sector");
    metadata.set_bits(0, 3..4);
    metadata.sync_bits();
    assert_eq!(written(&mut metadata), (false, 2, 2), "a unit and its summary");
    metadata.set_bits(0, 4..5);
    metadata.retire(1);
    metadata.edit(|superblock| superblock.flags.consistent = false);
    assert_eq!(written(&mut metadata), (true, 1, 4), "all of it");
}

/// COV-4 asks for the bits of what leaves, and for no others: another unit can wait.
#[test]
fn an_extent_that_leaves_takes_its_own_unit_along() {
    let (_, mut metadata) = clean();
    // The last extent of the first unit, of two blocks.
    let extent = LEAF_BITS as u32 / 2 - 1;
    metadata.activate(extent..extent + 1);
    commit(&mut metadata);
    for unit in 0..3 {
        metadata.set_bits(0, unit * LEAF_BITS + 3..unit * LEAF_BITS + 4);
    }
    metadata.retire(extent);
    let leaving = metadata.start_commit().expect("it leaves");
    assert_eq!(leaving.bitmap_writes, 2, "a unit and its summary");
    metadata.finish_commit();
    metadata.sync_bits();
    let rest = metadata.start_commit().expect("two units");
    let bytes: u64 = rest.stages.iter().flatten().map(|write| write.bytes.len()).sum();
    assert_eq!(bytes, 3 * 512, "two units and the summary");
}

#[test]
fn a_full_log_says_what_is_missing_and_assigns_nothing() {
    let (_, mut metadata) = clean();
    assert_eq!(metadata.log_free(), 4);
    assert_eq!(metadata.activate(0..6), Activation::Full { missing: 2 });
    assert!(!metadata.needs_commit());
    metadata.activate(0..3);
    commit(&mut metadata);
    assert_eq!(metadata.activate(2..6), Activation::Full { missing: 2 });
    assert_eq!(metadata.oldest_active(|_| true), Some(0), "a refusal is no use");
    metadata.retire(1);
    assert_eq!(metadata.log_free(), 2);
    assert_eq!(metadata.activate(2..6), Activation::Full { missing: 1 });
    // What is asked for does not make room for itself.
    assert_eq!(metadata.activate(1..5), Activation::Full { missing: 1 });
    metadata.retire(0);
    assert!(matches!(metadata.activate(2..6), Activation::Pending(_)));
    let (stages, _) = commit(&mut metadata);
    assert_eq!(stages.len(), 1, "leaving and entering share a sector");
    assert!(metadata.active_extents().eq(2..6));
}

#[test]
fn a_retired_extent_can_stay() {
    let (_, mut metadata) = clean();
    metadata.activate(0..2);
    commit(&mut metadata);
    metadata.retire(0);
    assert!(!metadata.is_active(0) && metadata.is_active(1));
    assert_eq!(metadata.oldest_active(|_| true), Some(1));
    assert_eq!(metadata.activate(0..1), Activation::Active, "nothing was written yet");
    assert!(!metadata.needs_commit());
    let ticket = metadata.retire(0);
    metadata.start_commit().expect("it leaves");
    assert!(matches!(metadata.activate(0..1), Activation::Pending(again) if again > ticket));
    assert_eq!(metadata.finish_commit(), ticket);
    assert!(!metadata.is_active(0));
    commit(&mut metadata);
    assert!(metadata.is_active(0));
    assert!(metadata.retire(7) <= metadata.durable(), "it was never there");
}

#[test]
#[should_panic(expected = "one commit at a time")]
fn two_commits_in_flight() {
    let (_, mut metadata) = clean();
    metadata.edit(|_| {});
    metadata.start_commit().expect("an edit");
    metadata.edit(|_| {});
    metadata.start_commit();
}

#[test]
#[should_panic(expected = "an edit changed the layout")]
fn an_edit_of_the_layout() {
    let (_, mut metadata) = clean();
    metadata.edit(|superblock| superblock.slots[0].epoch += 1);
}

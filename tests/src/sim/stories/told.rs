//! Stories that no invariant tells: who is told of what, and which disk is kept although it fails. Nothing is lost either way, so the random
//! runs see no difference; an operator does.

use super::fencing::{fences, fencing_pair};
use super::{fine, lives_on_the_peers_disk, open, pair, pair_of, step_to, together, write};
use crate::model::{Kind, Outcome, Token};
use crate::sim::host::IoKind;
use crate::sim::swarm::Knobs;
use crate::sim::volume;
use crate::sim::world::{MS, World};
use replicator::config::{Fencing, Timing};
use replicator::node::{
    Command, ConnectionState, DiskState, Protocol, ReplicationState, Role, Time,
};

/// A read that fails, and how it is answered is not of interest here.
fn read_that_fails(world: &mut World) {
    world.disk(0, 0).dead = true;
    world.request(0, 0, Kind::Read, 48, 8, false);
    let end = world.now + 5000 * MS;
    assert!(world.run_to(end, |w| w.ops.is_empty()), "{}", world.unsettled());
    world.disk(0, 0).dead = false;
}

/// What either node tells a monitor: are both copies good and equal?
fn equal(world: &World) -> [bool; 2] {
    [0, 1].map(|n| {
        let node = world.hosts[n].process.as_ref().expect("it runs");
        node.in_sync().all(|(_, _, equal)| equal)
    })
}

#[test]
fn a_disk_that_fails_a_read_is_let_go_where_the_peer_can_serve_and_kept_where_it_is_the_last() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    write(&mut world, 0, 0, 6);
    world.divide();
    world.run_until(world.now + 1000 * MS);
    assert!(!world.view(0).connected());
    read_that_fails(&mut world);
    assert_eq!(world.view(0).disk, DiskState::UpToDate, "there is no other");
    assert_eq!(equal(&world), [false; 2]);
    world.mend();
    together(&mut world);
    assert_eq!(equal(&world), [true; 2]);
    read_that_fails(&mut world);
    assert!(world.view(0).disk < DiskState::UpToDate, "the peer has another");
    assert_eq!(equal(&world), [false; 2], "one is no longer there");
    fine(&world);
}

#[test]
fn handlers_are_told_of_a_split_brain_and_of_no_other_refusal() {
    let told = |world: &World| {
        ["initial-split-brain", "split-brain"].map(|name| world.counters.of("action", name))
    };
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    world.divide();
    world.run_until(world.now + 6000 * MS);
    world.command(1, Command::Primary { force: true });
    world.run_until(world.now + 1000 * MS);
    write(&mut world, 0, 0, 5);
    assert_eq!(told(&world), [0, 0]);
    world.mend();
    world.run_until(world.now + 10_000 * MS);
    assert_eq!([0, 1].map(|n| world.view(n).connection), [ConnectionState::StandAlone; 2]);
    assert_eq!(told(&world), [2, 2], "on both");
    fine(&world);
}

#[test]
fn an_order_that_contradicts_the_one_under_way_is_refused_and_the_first_is_carried_out() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    // Until it is answered, the node is not Secondary.
    world.request(0, 0, Kind::Write, 40, 8, false);
    world.command(0, Command::Secondary { force: true });
    world.command(0, Command::Primary { force: false });
    assert_eq!(world.counters.count("operator: a command was refused"), 1);
    let end = world.now + 5000 * MS;
    assert!(world.run_to(end, |w| w.hosts[0].commands.is_empty()));
    assert_eq!(world.view(0).role, Role::Secondary);
    assert_eq!(world.counters.count("operator: a command was refused"), 1);
    together(&mut world);
}

#[test]
fn a_copy_is_outdated_by_hand_as_often_as_asked_and_not_when_it_is_worse() {
    let mut world = pair(Protocol::C);
    world.command(1, Command::Disconnect);
    world.run_until(world.now + 1000 * MS);
    let refused = "operator: a command was refused";
    for _ in 0..2 {
        world.command(1, Command::Outdate);
        world.run_until(world.now + 1000 * MS);
        assert_eq!((world.view(1).disk, world.counters.count(refused)), (DiskState::Outdated, 0));
    }
    world.command(1, Command::Detach(volume::number(0)));
    world.run_until(world.now + 1000 * MS);
    assert_eq!((world.view(1).disk, world.counters.count(refused)), (DiskState::Diskless, 0));
    world.command(1, Command::Outdate);
    assert_eq!((world.view(1).disk, world.counters.count(refused)), (DiskState::Diskless, 1));
    fine(&world);
}

/// Handlers that were run to fence a peer.
fn fence_runs(world: &World) -> u64 {
    world.counters.count("fence: handler ran")
}

#[test]
fn a_peer_that_is_lost_before_any_verdict_stays_fenced() {
    let mut world = fencing_pair(1);
    let end = world.now + 60_000 * MS;
    world.divide();
    step_to(&mut world, end, |w| w.fenced[0].allowed);
    assert_eq!((world.view(0).suspended, fence_runs(&world)), (false, 1));
    world.mend();
    step_to(&mut world, end, |w| w.view(0).connection == ConnectionState::Handshaking);
    world.divide();
    world.run_until(world.now + 1000 * MS);
    assert_eq!((world.view(0).suspended, fence_runs(&world)), (false, 1));
    let unfences = |world: &World| world.counters.of("action", "unfence-peer");
    let before = unfences(&world);
    world.mend();
    together(&mut world);
    world.run_until(world.now + 5000 * MS);
    assert_eq!(unfences(&world), before + 2, "once on each");
}

#[test]
fn a_peer_that_could_not_be_fenced_is_left_alone_while_it_shakes_hands() {
    let mut world = fencing_pair(1);
    open(&mut world, 0);
    world.divide();
    // It cannot say what it has before this is written.
    world.disk(0, 0).hangs = true;
    world.request(0, 0, Kind::Write, 40, 8, false);
    let run = fences(&mut world, 0);
    world.fence_ends(0, run, Ok(1));
    let again = world.now + Timing::default().fence_retry * MS;
    world.run_until(again - 1000 * MS);
    world.mend();
    step_to(&mut world, again, |w| w.view(0).connection == ConnectionState::Handshaking);
    world.run_until(again + 1000 * MS);
    let connection = world.view(0).connection;
    assert_eq!((connection, fence_runs(&world)), (ConnectionState::Handshaking, 1));
    world.unhang(0, 0);
    together(&mut world);
    assert!(world.ops.is_empty() && fence_runs(&world) == 1);
}

#[test]
fn what_is_on_the_own_disk_is_not_written_again_when_the_peer_is_lost() {
    let mut world = pair(Protocol::C);
    let end = world.now + 60_000 * MS;
    open(&mut world, 0);
    let writes = |world: &World| -> Vec<u64> {
        let ios = world.hosts[0].ios.iter().filter(|(_, io)| io.kind == IoKind::Write);
        ios.map(|(&id, _)| id).collect()
    };
    world.request(0, 0, Kind::Write, 40, 8, false);
    step_to(&mut world, end, |w| !writes(w).is_empty());
    step_to(&mut world, end, |w| writes(w).is_empty());
    assert!(!world.ops.is_empty(), "the peer has not answered");
    world.divide();
    step_to(&mut world, end, |w| {
        assert!(writes(w).is_empty());
        w.ops.is_empty()
    });
    fine(&world);
}

#[test]
fn a_secondary_that_leaves_its_primary_is_outdated_whoever_ordered_it() {
    for ordered in 0..2 {
        let mut world = pair(Protocol::C);
        world.command(ordered, Command::Disconnect);
        world.run_until(world.now + 1000 * MS);
        assert_eq!(world.view(ordered).connection, ConnectionState::StandAlone);
        let disks = [0, 1].map(|n| world.view(n).disk);
        assert_eq!(disks, [DiskState::UpToDate, DiskState::Outdated], "ordered at {ordered}");
        world.command(1, Command::Primary { force: false });
        world.run_until(world.now + 1000 * MS);
        assert_eq!(world.view(1).role, Role::Secondary);
        fine(&world);
    }
}

#[test]
fn who_becomes_primary_is_not_made_secondary_before_it_is() {
    let mut world = fencing_pair(1);
    world.command(0, Command::Secondary { force: false });
    world.run_until(world.now + 1000 * MS);
    world.divide();
    let end = world.now + 60_000 * MS;
    step_to(&mut world, end, |w| !w.view(1).connected());
    world.command(1, Command::Primary { force: false });
    fences(&mut world, 1);
    world.command(1, Command::Secondary { force: false });
    assert_eq!(world.counters.count("operator: a command was refused"), 1);
    let done = |w: &World| w.hosts[1].commands.is_empty();
    step_to(&mut world, end, done);
    assert_eq!(world.view(1).role, Role::Primary);
    world.mend();
    together(&mut world);
}

#[test]
fn a_peer_that_was_let_become_primary_counts_as_one_before_it_says_so() {
    for left in [false, true] {
        let mut world = fencing_pair(1);
        world.command(0, Command::Secondary { force: false });
        world.run_until(world.now + 1000 * MS);
        world.command(1, Command::Primary { force: false });
        let end = world.now + 60_000 * MS;
        step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
        assert_eq!(world.view(0).peer_role, Role::Secondary);
        let disk = if left {
            world.command(0, Command::Disconnect);
            DiskState::Outdated
        } else {
            world.divide();
            DiskState::Consistent
        };
        step_to(&mut world, end, |w| !w.view(0).connected());
        assert_eq!(world.view(0).disk, disk);
        fine(&world);
    }
}

#[test]
fn a_lease_that_ends_answers_nobody_and_makes_nobody_primary_but_by_force() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    let lease = |world: &World, length: u64| {
        let Time(now) = world.hosts[0].clock.read(world.now);
        Command::Lease(Some(Time(now + length)))
    };
    let refused = |w: &World| w.counters.count("operator: a command was refused");
    world.command(0, lease(&world, 1000 * MS));
    write(&mut world, 0, 0, 5);
    world.run_until(world.now + 1000 * MS);
    // ROLE-6.
    world.request(0, 0, Kind::Write, 48, 8, false);
    world.run_until(world.now + 2000 * MS);
    assert_eq!(world.ops.len(), 1, "nobody is answered");
    world.command(0, lease(&world, 1000 * MS));
    let end = world.now + 500 * MS;
    step_to(&mut world, end, |w| w.ops.is_empty());
    // A Secondary's lease that has ended keeps it from being promoted; that of a Primary goes with its role.
    world.command(0, Command::Secondary { force: true });
    world.run_until(world.now + 2000 * MS);
    world.command(0, lease(&world, 100 * MS));
    world.run_until(world.now + 1000 * MS);
    assert_eq!((world.view(0).role, refused(&world)), (Role::Secondary, 0));
    world.command(0, Command::Primary { force: false });
    world.run_until(world.now + 1000 * MS);
    assert_eq!((world.view(0).role, refused(&world)), (Role::Secondary, 1));
    world.command(0, Command::Primary { force: true });
    world.run_until(world.now + 1000 * MS);
    assert_eq!((world.view(0).role, refused(&world)), (Role::Primary, 1));
    fine(&world);
}

/// Node 0, Primary, is the target of a resync from node 1.
pub(super) fn primary_that_is_a_target() -> World {
    let mut knobs = Knobs::calm(Protocol::C);
    knobs.limits.resync_bytes = 4096;
    let mut world = pair_of(knobs);
    open(&mut world, 0);
    lives_on_the_peers_disk(&mut world);
    for block in 0..40 {
        write(&mut world, 0, 0, block);
    }
    world.network.delay = (4 * MS, 5 * MS);
    world.disk(0, 0).detached = false;
    world.bring_up(0);
    let end = world.now + 5000 * MS;
    step_to(&mut world, end, |w| w.view(0).replication == ReplicationState::SyncTarget);
    world
}

/// A write that node 0, a target, has on its disk, and node 1, the source, may have or not: it is lost. What is late: the source's disk, or both.
fn taken_by_a_target(both: bool) -> (World, u32) {
    let mut world = primary_that_is_a_target();
    // Its extent is in the log from here on.
    write(&mut world, 0, 0, 39);
    world.disk(1, 0).hangs = true;
    world.disk(0, 0).hangs = both;
    let id = world.request(0, 0, Kind::Write, 39 * 8, 8, false);
    let end = world.now + 20_000 * MS;
    if !both {
        step_to(&mut world, end, |w| target_has(w, id));
    }
    world.divide();
    step_to(&mut world, end, |w| !w.view(0).connected());
    world.unhang(0, 0);
    step_to(&mut world, end, |w| target_has(w, id));
    world.run_until(world.now + 5000 * MS);
    assert_eq!(world.ops.len(), 1, "its only copy is Inconsistent");
    (world, id)
}

fn target_has(world: &World, id: u32) -> bool {
    world.volumes[0].disks.0[0].visible(39 * 8) == Token::write(id, 0)
}

#[test]
fn what_only_a_target_took_is_answered_when_the_source_is_back() {
    for both in [false, true] {
        let (mut world, id) = taken_by_a_target(both);
        world.unhang(1, 0);
        world.mend();
        together(&mut world);
        assert!(world.ops.is_empty() && target_has(&world, id));
    }
}

#[test]
fn what_only_a_target_took_fails_when_the_source_stays_away() {
    for both in [false, true] {
        let (mut world, id) = taken_by_a_target(both);
        world.unhang(1, 0);
        let end = world.now + 60_000 * MS;
        step_to(&mut world, end, |w| w.ops.is_empty());
        assert_eq!(world.volumes[0].model.history.op(id).outcome, Outcome::Failed);
        world.mend();
        together(&mut world);
    }
}

#[test]
fn a_secondary_that_has_the_last_good_copy_stays_up_to_date_when_its_primary_leaves() {
    for ordered in 0..2 {
        let mut world = primary_that_is_a_target();
        world.command(ordered, Command::Disconnect);
        world.run_until(world.now + 1000 * MS);
        assert_eq!(world.view(ordered).connection, ConnectionState::StandAlone);
        let disks = [0, 1].map(|n| world.view(n).disk);
        assert_eq!(disks, [DiskState::Inconsistent, DiskState::UpToDate], "ordered at {ordered}");
        fine(&world);
    }
}

#[test]
fn what_a_handler_says_of_a_peer_that_is_back_already_does_not_count_when_it_is_lost_again() {
    let mut world = fencing_pair(1);
    let end = world.now + 60_000 * MS;
    open(&mut world, 0);
    world.divide();
    world.disk(0, 0).hangs = true;
    world.request(0, 0, Kind::Write, 40, 8, false);
    let run = fences(&mut world, 0);
    world.mend();
    step_to(&mut world, end, |w| w.view(0).connection == ConnectionState::Handshaking);
    assert!(world.fenced[0].runs.contains_key(&run), "it runs still");
    world.fence_ends(0, run, Ok(7));
    world.unhang(0, 0);
    together(&mut world);
    assert_eq!(fence_runs(&world), 1);
    world.divide();
    let end = world.now + 60_000 * MS;
    step_to(&mut world, end, |w| fence_runs(w) == 2);
    world.mend();
    together(&mut world);
}

#[test]
fn what_was_copied_and_waits_for_a_client_ends_with_its_connection() {
    let mut world = primary_that_is_a_target();
    let end = world.now + 60_000 * MS;
    let read = |w: &World| w.hosts[1].ios.values().any(|io| io.kind == IoKind::Read);
    step_to(&mut world, end, read);
    step_to(&mut world, end, |w| !read(w));
    // Its answer is on its way. What clients write to any block is at the peer before that is here, and waits there.
    for block in 0..40 {
        world.request(0, 0, Kind::Write, block * 8, 8, false);
    }
    world.disk(1, 0).hangs = true;
    world.run_until(world.now + 20 * MS);
    world.divide();
    world.run_until(world.now + 1000 * MS);
    world.unhang(1, 0);
    world.mend();
    together(&mut world);
    assert!(world.ops.is_empty());
}

#[test]
fn who_has_no_disk_takes_its_peers_word_for_what_came_after_it() {
    let mut knobs = Knobs::calm(Protocol::A);
    knobs.fencing = Fencing::ResourceAndStonith;
    let mut world = pair_of(knobs);
    world.calm = true;
    let end = world.now + 60_000 * MS;
    world.command(0, Command::Secondary { force: false });
    world.disk(0, 0).detached = true;
    world.command(0, Command::Detach(volume::number(0)));
    step_to(&mut world, end, |w| w.view(0).disk == DiskState::Diskless);
    world.divide();
    world.command(1, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    open(&mut world, 1);
    write(&mut world, 1, 1, 5);
    let seen = world.view(0).current;
    assert_ne!(world.view(1).current, seen);
    // Under A nothing says, when it starts, that nobody has newer data.
    world.kill(1, true);
    world.start(1);
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::Consistent);
    world.mend();
    step_to(&mut world, end, |w| w.view(0).connected());
    assert_eq!(world.view(0).peer_disk, DiskState::UpToDate);
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::UpToDate);
    fine(&world);
}

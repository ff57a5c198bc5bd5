//! Stories of what a node says of itself: status, handlers, warnings. No data depends on it, so the random runs see no difference; an
//! operator does, and what he has connected to it.

use super::told::primary_that_is_a_target;
use super::{fine, open, pair, pair_of, step_to, together, write};
use crate::model::Kind;
use crate::sim::swarm::Knobs;
use crate::sim::world::{MS, World};
use replicator::node::{
    Command, ConnectionState, DiskState, Occasion, PeerStatus, Protocol, Resync, Role, Status,
};

fn status(world: &World, n: usize) -> Status {
    world.hosts[n].process.as_ref().expect("it runs").status()
}

fn peer(world: &World, n: usize) -> PeerStatus {
    status(world, n).peers.remove(0)
}

fn resync(world: &World, n: usize) -> Resync {
    peer(world, n).volumes[0].resync
}

#[test]
fn what_waits_for_the_peer_is_pending_and_what_the_log_wrote_is_counted() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    let before = status(&world, 0).volumes.remove(0);
    assert_eq!(peer(&world, 0).volumes[0].pending, 0);
    world.disk(1, 0).hangs = true;
    world.request(0, 0, Kind::Write, 40, 8, false);
    let end = world.now + 5000 * MS;
    step_to(&mut world, end, |w| peer(w, 1).volumes[0].unacked == 1);
    assert_eq!(peer(&world, 0).volumes[0].pending, 1);
    assert_eq!(peer(&world, 0).in_flight, 4096);
    world.unhang(1, 0);
    step_to(&mut world, end, |w| w.ops.is_empty());
    assert_eq!(peer(&world, 0).volumes[0].pending, 0);
    let after = status(&world, 0).volumes.remove(0);
    assert_eq!((after.al_writes, after.active_extents), (before.al_writes + 1, 1));
    fine(&world);
}

#[test]
fn both_sides_of_a_resync_say_how_much_of_it_was_found_equal() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    for block in 0..3 {
        write(&mut world, 0, 0, block);
    }
    world.kill(0, true);
    world.run_until(world.now + 1000 * MS);
    world.start(0);
    together(&mut world);
    let [target, source] = [0, 1].map(|n| resync(&world, n));
    // All but what was written, and where it was written only the target looks closer.
    assert_eq!((target.total, target.equal), (64 * 4096, 61 * 4096));
    assert_eq!((target.copied, source.copied - source.equal), (target.total, 3 * 4096));
    assert_eq!(source.equal, 48 * 4096);
}

#[test]
fn no_more_is_asked_for_than_may_be_under_way() {
    let mut knobs = Knobs::calm(Protocol::C);
    knobs.limits.resync_bytes = 8192;
    let mut world = pair_of(knobs);
    open(&mut world, 0);
    world.kill(1, false);
    for block in 0..40 {
        write(&mut world, 0, 0, block);
    }
    world.start(1);
    let mut most = 0;
    let end = world.now + 60_000 * MS;
    while !world.view(1).mirrored() {
        assert!(world.step(end), "{}", world.unsettled());
        most = most.max(peer(&world, 1).resync_in_flight);
    }
    assert_eq!(most, 8192);
    together(&mut world);
}

#[test]
fn what_is_written_during_a_resync_is_not_copied_as_well() {
    let mut knobs = Knobs::calm(Protocol::C);
    knobs.limits.resync_bytes = 4096;
    let mut world = pair_of(knobs);
    open(&mut world, 0);
    world.kill(1, false);
    for block in 0..40 {
        write(&mut world, 0, 0, block);
    }
    world.network.delay = (4 * MS, 5 * MS);
    world.start(1);
    let end = world.now + 60_000 * MS;
    step_to(&mut world, end, |w| resync(w, 1).copied >= 2 * 4096);
    assert!(resync(&world, 1).milliseconds >= 16, "four trips at the least");
    world.request(0, 0, Kind::Write, 30 * 8, 8 * 8, false);
    together(&mut world);
    let Resync { total, copied, .. } = resync(&world, 1);
    assert_eq!((total, copied), (40 * 4096, 32 * 4096));
}

/// Who had good data when a node ran a handler on this occasion.
fn told(world: &World, n: usize, occasion: Occasion) -> Option<u32> {
    world.fenced[n].told.get(&occasion).map(|handler| handler.up_to_date)
}

#[test]
fn who_is_left_alone_with_good_data_says_so() {
    let mut world = pair(Protocol::C);
    world.divide();
    world.run_until(world.now + 5000 * MS);
    let alone = [0, 1].map(|n| told(&world, n, Occasion::Disconnected));
    assert_eq!(alone, [Some(0b01), Some(0b10)]);
}

#[test]
fn handlers_are_told_whose_copies_are_good() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    world.disk(0, 0).dead = true;
    world.request(0, 0, Kind::Write, 40, 8, false);
    let end = world.now + 5000 * MS;
    step_to(&mut world, end, |w| w.ops.is_empty());
    assert_eq!(told(&world, 0, Occasion::LocalIoError), Some(0b10));
    assert_eq!(told(&world, 0, Occasion::PriOnInconDegr), None, "the peer has it");
    world.divide();
    world.run_until(world.now + 20_000 * MS);
    assert_eq!(told(&world, 0, Occasion::PriOnInconDegr), Some(0));
    assert_eq!(world.counters.of("action", "pri-on-incon-degr"), 1, "on the Primary alone");
    fine(&world);
}

#[test]
fn a_crash_is_told_when_the_disk_is_found_and_a_clean_end_is_not() {
    let mut world = pair(Protocol::C);
    for role in [Role::Secondary, Role::Primary] {
        world.command(0, Command::Secondary { force: false });
        world.run_until(world.now + 5000 * MS);
        if role == Role::Primary {
            world.command(0, Command::Primary { force: false });
            world.run_until(world.now + 1000 * MS);
            open(&mut world, 0);
            write(&mut world, 0, 0, 5);
        }
        assert_eq!(world.view(0).role, role);
        world.kill(0, true);
        world.hosts[0].warning.clear();
        world.start(0);
        world.run_until(world.now + 100 * MS);
        assert!(world.view(0).disk > DiskState::Attaching);
        let crash = "volume 0: recovered after a crash: 1 active extents, was Primary";
        let warning = if role == Role::Primary { crash } else { "" };
        assert_eq!(world.hosts[0].warning, warning);
        together(&mut world);
    }
}

#[test]
fn a_connection_that_is_lost_is_told_once_and_one_that_never_was_is_not() {
    let mut world = pair(Protocol::C);
    let before = world.counters.of("action", "disconnected");
    let told = |world: &World| world.counters.of("action", "disconnected") - before;
    world.kill(1, false);
    world.run_until(world.now + 5000 * MS);
    assert_eq!(told(&world), 1);
    open(&mut world, 0);
    write(&mut world, 0, 0, 5);
    // Node 0 waits for its disk before it says what it has.
    world.disk(0, 0).hangs = true;
    world.request(0, 0, Kind::Write, 48, 8, false);
    world.start(1);
    let end = world.now + 20_000 * MS;
    step_to(&mut world, end, |w| w.view(0).connection == ConnectionState::Handshaking);
    world.kill(1, false);
    step_to(&mut world, end, |w| w.view(0).connection < ConnectionState::Handshaking);
    assert_eq!(told(&world), 1);
    world.unhang(0, 0);
    world.start(1);
    together(&mut world);
    assert_eq!(told(&world), 1);
}

#[test]
fn who_was_demoted_before_it_crashed_is_no_crashed_primary() {
    for demoted in [false, true] {
        let mut world = pair(Protocol::C);
        let end = world.now + 60_000 * MS;
        open(&mut world, 0);
        write(&mut world, 0, 0, 5);
        if demoted {
            world.command(0, Command::Secondary { force: true });
            step_to(&mut world, end, |w| w.view(0).role == Role::Secondary);
        }
        world.divide();
        world.kill(0, true);
        world.start(0);
        step_to(&mut world, end, |w| w.view(0).disk > DiskState::Attaching);
        assert_eq!(status(&world, 0).volumes[0].crashed_primary, !demoted);
        fine(&world);
    }
}

#[test]
fn only_what_is_good_is_copied_over_what_the_peer_has() {
    let mut world = primary_that_is_a_target();
    let refused = |w: &World| w.counters.count("operator: a command was refused");
    let before = refused(&world);
    world.command(0, Command::InvalidateRemote);
    world.run_until(world.now + MS);
    assert_eq!(refused(&world), before + 1);
    together(&mut world);
    world.command(0, Command::InvalidateRemote);
    let end = world.now + 60_000 * MS;
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::Inconsistent);
    assert_eq!(refused(&world), before + 1);
    together(&mut world);
}

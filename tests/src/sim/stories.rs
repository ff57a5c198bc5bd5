//! Stories told step by step on the simulated pair: what the random runs found or must never find, pinned by name.

use super::Rng;
use super::host::IoKind;
use super::swarm::Knobs;
use super::volume;
use super::world::{MS, What, World};
use crate::model::{Kind, Outcome, Token, same_content};
use replicator::config::Fencing;
use replicator::node::{Command, ConnectionState, DiskState, Protocol, ReplicationState, Role};

mod crash;
mod fencing;
mod said;
mod told;

/// Two nodes, connected and in sync; node 0 is Primary.
fn pair(protocol: Protocol) -> World {
    pair_with(protocol, 1)
}

/// With so many volumes; client `c` uses volume `c` modulo that.
fn pair_with(protocol: Protocol, volumes: usize) -> World {
    let mut knobs = Knobs::calm(protocol);
    knobs.volumes = volumes;
    pair_of(knobs)
}

fn pair_of(knobs: Knobs) -> World {
    let mut world = new_pair(knobs);
    let end = world.now + 10_000 * MS;
    assert!(world.run_to(end, World::settled), "{}", world.unsettled());
    world
}

/// Node 0 is Primary and begins to copy what it has to node 1.
fn new_pair(mut knobs: Knobs) -> World {
    knobs.clients = 2;
    // They send what the story says and nothing else.
    knobs.depth = 0;
    let mut world = World::new(2, knobs, Rng::new(7));
    for node in 0..2 {
        world.after(0, What::Start { node });
    }
    world.run_until(world.now + 100 * MS);
    world.command(0, Command::Primary { force: true });
    world.initialised = true;
    world
}

/// Client `c` opens the export of the Primary.
fn open(world: &mut World, c: usize) {
    world.reopen(c);
    world.run_until(world.now + 50 * MS);
}

/// Writes one block and waits for the answer; returns what it wrote.
fn write(world: &mut World, c: usize, node: usize, block: u32) -> Token {
    let id = world.request(c, node, Kind::Write, block * 8, 8, false);
    let end = world.now + 5000 * MS;
    assert!(world.run_to(end, |w| w.ops.is_empty()), "{}", world.unsettled());
    Token::write(id, 0)
}

fn step_to(world: &mut World, end: u64, done: impl Fn(&World) -> bool) {
    while !done(world) {
        assert!(world.step(end), "{}", world.unsettled());
    }
}

fn fine(world: &World) {
    assert_eq!(world.verdict(), None);
}

fn together(world: &mut World) {
    let end = world.now + 60_000 * MS;
    let settled = world.run_to(end, World::settled);
    fine(world);
    assert!(settled, "{}", world.unsettled());
    same_content(&world.volumes[0].disks, "CONV").expect("mirrored");
    fine(world);
}

#[test]
fn a_write_is_on_both_disks_when_it_is_acknowledged_under_c() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    let token = write(&mut world, 0, 0, 5);
    assert_eq!([0, 1].map(|n| world.volumes[0].disks.0[n].visible(40)), [token; 2]);
    fine(&world);
}

#[test]
fn a_killed_primary_comes_back_as_target_and_nothing_is_lost() {
    for power in [false, true] {
        let mut world = pair(Protocol::C);
        open(&mut world, 0);
        let before = write(&mut world, 0, 0, 5);
        world.kill(0, power);
        world.run_until(world.now + 4000 * MS);
        world.command(1, Command::Primary { force: false });
        world.run_until(world.now + 1000 * MS);
        assert_eq!(world.view(1).role, Role::Primary);
        open(&mut world, 1);
        let after = write(&mut world, 1, 1, 6);
        world.start(0);
        together(&mut world);
        for n in 0..2 {
            assert_eq!(world.volumes[0].disks.0[n].visible(40), before);
            assert_eq!(world.volumes[0].disks.0[n].visible(48), after);
        }
    }
}

#[test]
fn a_split_brain_is_told_on_both_and_changes_neither_until_discarded() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    world.divide();
    world.run_until(world.now + 6000 * MS);
    world.command(1, Command::Primary { force: false });
    world.run_until(world.now + 1000 * MS);
    let mine = write(&mut world, 0, 0, 5);
    world.clients[1].place = super::client::Place::Away;
    // The second client uses the other side.
    world.next_command += 1;
    world.clients[1].open = world.next_command;
    world.clients[1].place = super::client::Place::Opening(1);
    let id = replicator::node::OpenId(world.next_command);
    world.feed(1, replicator::node::Event::Open(id), None);
    world.run_until(world.now + 50 * MS);
    let theirs = write(&mut world, 1, 1, 5);
    world.mend();
    world.run_until(world.now + 10_000 * MS);
    fine(&world);
    for n in 0..2 {
        assert_eq!(world.view(n).connection, ConnectionState::StandAlone, "node {n}");
    }
    assert_eq!([0, 1].map(|n| world.volumes[0].disks.0[n].visible(40)), [mine, theirs]);
    world.command(1, Command::Secondary { force: true });
    world.run_until(world.now + 1000 * MS);
    world.command(1, Command::Connect { discard_my_data: true });
    world.command(0, Command::Connect { discard_my_data: false });
    together(&mut world);
    assert_eq!([0, 1].map(|n| world.volumes[0].disks.0[n].visible(40)), [mine; 2]);
}

#[test]
fn a_primary_that_slept_serves_nothing_before_it_has_shaken_hands() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    let id = world.request(0, 0, Kind::Write, 40, 8, false);
    world.pause(0, 30_000 * MS);
    world.run_until(world.now + 10_000 * MS);
    world.command(1, Command::Primary { force: false });
    world.run_until(world.now + 1000 * MS);
    assert_eq!(world.view(1).role, Role::Primary);
    assert!(world.ops.contains_key(&u64::from(id)));
    // ROLE-5 is watched at every reply.
    world.run_until(world.now + 40_000 * MS);
    fine(&world);
    assert_eq!(world.view(0).role, Role::Secondary);
    together(&mut world);
}

#[test]
fn a_resync_that_is_interrupted_leaves_the_target_inconsistent_and_goes_on() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    world.kill(1, true);
    for block in 0..40 {
        write(&mut world, 0, 0, block);
    }
    world.start(1);
    let end = world.now + 20_000 * MS;
    let syncing = |w: &World| w.view(1).disk == DiskState::Inconsistent;
    assert!(world.run_to(end, syncing));
    world.kill(1, true);
    world.start(1);
    world.run_until(world.now + MS);
    world.command(1, Command::Primary { force: false });
    assert_eq!(world.view(1).role, Role::Secondary);
    together(&mut world);
}

/// ROLE-4: what it said holds, whatever grant is under way.
#[test]
fn a_target_that_told_its_leaving_primary_that_it_is_out_of_the_way_stays_so() {
    for luck in 0..60 {
        let mut knobs = Knobs::calm(Protocol::C);
        knobs.fencing = Fencing::ResourceAndStonith;
        // Much happens on the disks while a message is under way.
        (knobs.disk_delay, knobs.link_delay) = ((MS / 1000, MS / 500), (MS, 5 * MS));
        let mut world = pair_of(knobs);
        open(&mut world, 0);
        // All is equal: nothing is to be flushed at the end.
        world.command(1, Command::Invalidate);
        let end = world.now + 60_000 * MS;
        step_to(&mut world, end, |w| w.view(0).replication == ReplicationState::SyncSource);
        world.rng = Rng::new(luck);
        step_to(&mut world, end, |w| w.view(0).out_of_sync == 0);
        world.command(0, Command::Disconnect);
        step_to(&mut world, end, |w| w.view(0).connection == ConnectionState::StandAlone);
        world.run_until(world.now + 500 * MS);
        assert!(world.view(1).disk <= DiskState::Outdated, "luck {luck}: {:?}", world.view(1));
        fine(&world);
    }
}

#[test]
fn a_resync_that_is_cut_every_two_seconds_ends() {
    let mut knobs = Knobs::calm(Protocol::C);
    knobs.limits.resync_bytes = 4096;
    let mut world = pair_of(knobs);
    open(&mut world, 0);
    world.kill(1, false);
    for block in 0..40 {
        write(&mut world, 0, 0, block);
    }
    // A block takes a tenth of a second.
    world.network.delay = (40 * MS, 50 * MS);
    for _ in 0..10 {
        world.start(1);
        world.run_until(world.now + 2000 * MS);
        fine(&world);
        world.kill(1, false);
    }
    world.start(1);
    let end = world.now + 1000 * MS;
    assert!(world.run_to(end, |w| w.view(1).mirrored()), "{}", world.unsettled());
    together(&mut world);
}

#[test]
fn an_order_given_twice_is_carried_out_once_and_both_are_told() {
    let mut world = pair(Protocol::C);
    open(&mut world, 0);
    world.request(0, 0, Kind::Write, 40, 8, false);
    let end = world.now + 5000 * MS;
    for role in [Role::Secondary, Role::Primary] {
        for _ in 0..2 {
            let command = match role {
                Role::Secondary => Command::Secondary { force: true },
                Role::Primary | Role::Unknown => Command::Primary { force: false },
            };
            world.command(0, command);
        }
        assert!(world.run_to(end, |w| w.hosts[0].commands.is_empty()));
        assert_eq!(world.view(0).role, role);
    }
    assert_eq!(world.counters.count("operator: a command was refused"), 0);
    together(&mut world);
}

/// Node 0 has no disk for volume 0 any more: node 1's holds what was written since.
fn lives_on_the_peers_disk(world: &mut World) {
    world.disk(0, 0).detached = true;
    world.command(0, Command::Detach(volume::number(0)));
    world.run_until(world.now + 1000 * MS);
    write(world, 0, 0, 5);
}

#[test]
fn two_nodes_that_each_wrote_alone_to_another_volume_are_a_split_brain() {
    let mut world = pair_with(Protocol::C, 2);
    open(&mut world, 0);
    open(&mut world, 1);
    // It goes on alone with volume 1.
    lives_on_the_peers_disk(&mut world);
    world.divide();
    write(&mut world, 1, 0, 6);
    world.kill(0, false);
    // Node 1 takes over, and writes to volume 0 alone: it has not touched volume 1.
    world.run_until(world.now + 6000 * MS);
    world.command(1, Command::Primary { force: false });
    world.run_until(world.now + 1000 * MS);
    open(&mut world, 0);
    write(&mut world, 0, 1, 7);
    world.command(1, Command::Secondary { force: true });
    world.run_until(world.now + 1000 * MS);
    world.disk(0, 0).detached = false;
    world.start(0);
    world.mend();
    world.run_until(world.now + 10_000 * MS);
    fine(&world);
    for n in 0..2 {
        assert_eq!(world.view(n).connection, ConnectionState::StandAlone, "node {n}");
    }
}

#[test]
fn a_request_of_which_a_piece_was_given_up_with_the_peers_disk_fails() {
    let mut knobs = Knobs::calm(Protocol::C);
    knobs.limits.piece_bytes = 8 << 10;
    let mut world = pair_of(knobs);
    open(&mut world, 0);
    // Node 0 lives on node 1's disk, which dies between two pieces of a request.
    world.command(0, Command::Detach(0));
    world.run_until(world.now + 1000 * MS);
    let id = world.request(0, 0, Kind::Zero, 0, 32, false);
    let end = world.now + 5000 * MS;
    while world.disk(1, 0).busy() < 2 {
        assert!(world.step(end));
    }
    while world.disk(1, 0).busy() == 2 {
        assert!(world.step(end));
    }
    world.disk(1, 0).dead = true;
    world.run_until(world.now + 1000 * MS);
    assert!(world.ops.contains_key(&u64::from(id)), "it waits for good data");
    world.disk(1, 0).dead = false;
    world.excused = true;
    for n in 0..2 {
        world.bring_up(n);
    }
    world.run_until(world.now + 5000 * MS);
    for n in 0..2 {
        assert_eq!(world.view(n).connection, ConnectionState::StandAlone, "node {n}");
    }
    // The operator goes on with what node 0 has.
    world.command(1, Command::Connect { discard_my_data: true });
    world.command(0, Command::Connect { discard_my_data: false });
    together(&mut world);
    assert_eq!(world.volumes[0].model.history.op(id).outcome, Outcome::Failed);
}

/// Node 0, which was killed as Primary, is back and connected, without its disk.
fn back_without_its_disk(world: &mut World) {
    world.disk(0, 0).detached = true;
    world.start(0);
    world.mend();
    let end = world.now + 60_000 * MS;
    step_to(world, end, |w| w.view(0).connection == ConnectionState::Connected);
    world.run_until(world.now + 100 * MS);
    assert_eq!(world.view(0).disk, DiskState::Diskless);
}

#[test]
fn a_disk_of_a_node_that_became_primary_while_it_was_attached_is_outdated() {
    let mut world = pair(Protocol::C);
    let end = world.now + 60_000 * MS;
    open(&mut world, 0);
    write(&mut world, 0, 0, 5);
    world.kill(0, false);
    back_without_its_disk(&mut world);
    // The mark of its crash is being written, and it takes long; meanwhile it is Primary, on the peer's disk.
    world.disk(0, 0).detached = false;
    world.disk(0, 0).slow = true;
    world.bring_up(0);
    step_to(&mut world, end, |w| w.hosts[0].ios.values().any(|io| io.kind == IoKind::WriteMeta));
    world.command(0, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(0).role == Role::Primary);
    world.reopen(0);
    step_to(&mut world, end, |w| w.hosts[0].process.as_ref().is_some_and(|p| p.status().open > 0));
    write(&mut world, 0, 0, 6);
    assert_eq!(world.view(0).disk, DiskState::Attaching);
    step_to(&mut world, end, |w| w.view(0).disk > DiskState::Attaching);
    assert_eq!(world.view(0).disk, DiskState::Outdated, "what was just written is not there");
    together(&mut world);
}

#[test]
fn a_disk_without_what_its_node_saw_of_the_peer_is_outdated() {
    // Each wrote alone.
    let mut world = pair(Protocol::C);
    let end = world.now + 60_000 * MS;
    open(&mut world, 0);
    world.divide();
    write(&mut world, 0, 0, 5);
    world.kill(0, false);
    world.command(1, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    open(&mut world, 1);
    write(&mut world, 1, 1, 6);
    world.command(1, Command::Secondary { force: true });
    step_to(&mut world, end, |w| w.view(1).role == Role::Secondary);
    // Its clients may have been served with what is on the peer.
    back_without_its_disk(&mut world);
    world.disk(0, 0).detached = false;
    world.bring_up(0);
    step_to(&mut world, end, |w| w.view(0).disk > DiskState::Attaching);
    assert_eq!(world.view(0).disk, DiskState::Outdated);
    fine(&world);
}

#[test]
fn a_disk_that_failed_is_not_good_when_it_comes_back() {
    // What a failed write leaves is a matter of luck.
    for luck in 0..8 {
        let mut world = pair(Protocol::C);
        let end = world.now + 60_000 * MS;
        open(&mut world, 0);
        lives_on_the_peers_disk(&mut world);
        // It takes nothing any more, neither what is written nor the mark that it lost writes.
        world.disk(1, 0).dead = true;
        world.request(0, 0, Kind::Write, 48, 8, false);
        step_to(&mut world, end, |w| w.view(1).disk == DiskState::Diskless);
        // Nor the mark at the next attach.
        for _ in 0..luck {
            world.rng.next();
        }
        world.disk(1, 0).dead = false;
        world.bring_up(1);
        let marks = |w: &World| w.hosts[1].ios.values().any(|io| io.kind == IoKind::WriteMeta);
        step_to(&mut world, end, marks);
        world.disk(1, 0).dead = true;
        step_to(&mut world, end, |w| w.view(1).disk == DiskState::Diskless);
        world.disk(1, 0).dead = false;
        world.bring_up(1);
        step_to(&mut world, end, |w| w.view(1).disk > DiskState::Attaching);
        assert_eq!(world.view(1).disk, DiskState::Inconsistent, "luck {luck}");
        fine(&world);
    }
}

#[test]
fn a_primary_without_its_disk_does_not_live_on_what_was_forced_good() {
    // The first copy is interrupted; node 0 writes on, and loses its disk.
    let mut world = new_pair(Knobs::calm(Protocol::C));
    let end = world.now + 60_000 * MS;
    step_to(&mut world, end, |w| w.view(1).replication == ReplicationState::SyncTarget);
    world.divide();
    open(&mut world, 0);
    write(&mut world, 0, 0, 5);
    world.disk(0, 0).dead = true;
    world.request(0, 0, Kind::Write, 48, 8, false);
    step_to(&mut world, end, |w| w.view(0).disk == DiskState::Diskless);
    world.command(1, Command::Primary { force: true });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    world.command(1, Command::Secondary { force: false });
    step_to(&mut world, end, |w| w.view(1).role == Role::Secondary);
    world.mend();
    step_to(&mut world, end, |w| w.view(0).role == Role::Secondary);
    fine(&world);
}

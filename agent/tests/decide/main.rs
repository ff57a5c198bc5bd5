//! Two agents against a simulated world: no two nodes acknowledge, nothing is lost, one serves in the end, in time, and does not flap.
//! What is promised of each step is in `promises`; the IDs are those of docs/guarantees.md.

mod parts;
mod promises;
mod world;

use agent::decide::{Arbiter, Event, Ms, Phase};
use world::{PATIENCE, TTL, World};

/// The arbiter, and whether a switch can turn the other off.
const KINDS: [(Arbiter, bool); 3] =
    [(Arbiter::Etcd, false), (Arbiter::Etcd, true), (Arbiter::Fencing, true)];

/// A world in which one serves, and which.
fn settled(seed: u64, (arbiter, stonith): (Arbiter, bool)) -> (World, usize) {
    let mut world = World::new(seed, arbiter, stonith);
    world.run(10_000);
    let [active] = world.serving()[..] else { world.fail("HA-4", "nobody begins to serve") };
    (world, active)
}

fn story(seed: u64, kind: (Arbiter, bool)) -> World {
    let (mut world, _) = settled(seed, kind);
    world.calm = false;
    for _ in 0..12 {
        world.misfortune();
        let calm = world.chance.below(9_000);
        world.run(calm);
    }
    world.heal();
    let acknowledged = world.acknowledged;
    world.run(60_000);
    let serving = world.serving();
    if serving.len() != 1 || world.acknowledged == acknowledged {
        world.fail("HA-4", &format!("serving: {serving:?}"));
    }
    // And stays there: nothing flaps.
    let started = world.started;
    world.run(60_000);
    if world.started != started || world.serving() != serving {
        world.fail("HA-5", "it flaps");
    }
    world
}

#[test]
fn with_etcd_no_two_acknowledge_and_nothing_is_lost() {
    for seed in 1..=1500 {
        story(seed, KINDS[0]);
    }
}

#[test]
fn with_etcd_and_a_switch_the_other_is_off_first() {
    let shots: u64 = (1..=1500).map(|seed| story(seed, KINDS[1]).shots).sum();
    assert!(shots > 100, "the stories fence: {shots}");
}

#[test]
fn with_fencing_no_two_acknowledge_and_nothing_is_lost() {
    let shots: u64 = (1..=1500).map(|seed| story(seed, KINDS[2]).shots).sum();
    assert!(shots > 100, "the stories fence: {shots}");
}

/// Something befalls the active node, for good: in this time the other serves.
fn replaced(limit: Ms, fault: impl Fn(&mut World, usize)) {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| (1..=50).map(move |seed| (kind, seed))) {
        let (mut world, active) = settled(seed, kind);
        fault(&mut world, active);
        let begin = world.now;
        while world.serving() != [1 - active] {
            world.step();
            // If it was turned off, it stays so.
            world.nodes[active].back_at = Ms::MAX;
            if world.now > begin + limit {
                world.fail("HA-4", "too late");
            }
        }
    }
}

#[test]
fn it_takes_over_within_the_dead_time_and_two_seconds() {
    replaced(TTL + 2_000, |world, active| world.power_off(active, "for good"));
}

#[test]
fn a_daemon_that_hangs_does_not_keep_the_resource() {
    replaced(TTL + PATIENCE + 2_500, |world, active| hang(world, active, false));
}

/// The daemon of a node hangs for good; with `anew`, its agent is killed meanwhile and started again.
fn hang(world: &mut World, n: usize, anew: bool) {
    world.nodes[n].hung = Ms::MAX;
    if anew {
        let back_at = world.now + world.chance.below(TTL);
        world.agent_ends(n, back_at);
        while world.nodes[n].agent.is_none() {
            world.step();
        }
    }
}

#[test]
fn an_agent_started_anew_does_not_free_what_its_hanging_daemon_has() {
    replaced(TTL + PATIENCE + 2_500, |world, active| hang(world, active, true));
}

/// The lock is taken up again; when that is granted the daemon, Primary, hangs already.
#[test]
fn a_lock_is_not_given_back_for_a_daemon_that_hangs_as_primary() {
    for seed in 1..=100 {
        let (mut world, active) = settled(seed, KINDS[0]);
        world.calm = false;
        world.agent_ends(active, world.now);
        let asks = Some(Phase::Asking { adopt: true });
        while world.nodes[active].agent.as_ref().map(|agent| agent.phase) != asks {
            world.step();
        }
        hang(&mut world, active, false);
        world.run(20_000);
        if world.serving().len() != 1 {
            world.fail("HA-4", "nobody serves");
        }
    }
}

/// The active one is suspended until it has the word of the other, or that is off.
#[test]
fn a_passive_daemon_that_hangs_does_not_keep_the_active_one_from_going_on() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| (1..=50).map(move |seed| (kind, seed))) {
        for anew in [false, true] {
            let (mut world, active) = settled(seed, kind);
            hang(&mut world, 1 - active, anew);
            let acknowledged = world.acknowledged;
            world.run(TTL + 3_000);
            if world.serving() != [active] || world.acknowledged < acknowledged + 10 {
                world.fail("HA-4", "the active node does not go on");
            }
        }
    }
}

#[test]
fn nobody_is_shot_because_its_daemon_is_not_up_yet() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| (1..=50).map(move |seed| (kind, seed))) {
        let mut world = World::new(seed, kind.0, kind.1);
        for n in 0..2 {
            world.nodes[n].daemon_back_at = world.now + world.chance.below(20_000);
        }
        world.run(30_000);
        if world.serving().len() != 1 || (kind.0 == Arbiter::Fencing && world.shots > 0) {
            world.fail("HA-4", &format!("{} shots", world.shots));
        }
    }
}

#[test]
fn standby_hands_over_and_stays_away() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| (1..=50).map(move |seed| (kind, seed))) {
        let (mut world, active) = settled(seed, kind);
        world.event(active, Event::Standby(true));
        world.run(5_000);
        if world.serving() != [1 - active] {
            world.fail("HA-4", "it is not handed over");
        }
        if world.shots > 0 {
            world.fail("HA-4", "a handover shoots");
        }
        let failures = |node: &world::Node| node.agent.as_ref().map(|it| it.counters.failures);
        if world.nodes.iter().any(|node| failures(node) != Some(0)) {
            world.fail("HA-5", "a failure is counted where nobody failed");
        }
        world.power_off(1 - active, "the last one");
        world.nodes[1 - active].back_at = Ms::MAX;
        world.run(30_000);
        if !world.serving().is_empty() {
            world.fail("HA-5", "it does not stay away");
        }
    }
}

#[test]
fn a_lock_that_is_lost_is_not_held_on_to() {
    for seed in 1..=50 {
        let (mut world, active) = settled(seed, KINDS[0]);
        world.event(active, Event::Lost);
        world.run(10_000);
        if world.serving().len() != 1 {
            world.fail("HA-4", "nobody serves again");
        }
    }
}

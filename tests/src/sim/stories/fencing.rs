//! Who is out of the way of a Primary that goes on alone (ROLE-4): what a handler says, and what a peer has written down.

use super::*;
use crate::sim::fencing::Run;
use replicator::node::Occasion;

/// As [`pair_with`], and a lost peer is shot.
pub(super) fn fencing_pair(volumes: usize) -> World {
    let mut knobs = Knobs::calm(Protocol::C);
    knobs.volumes = volumes;
    knobs.fencing = Fencing::ResourceAndStonith;
    let mut world = pair_of(knobs);
    // Handlers do what they can.
    world.calm = true;
    world
}

/// Waits until a handler that fences its peer runs at this node.
pub(super) fn fences(world: &mut World, n: usize) -> u64 {
    let end = world.now + 20_000 * MS;
    step_to(world, end, |w| !w.fenced[n].runs.is_empty());
    *world.fenced[n].runs.keys().next().expect("it runs")
}

#[test]
fn whose_disk_served_a_diskless_primary_is_not_the_one_that_went_on_alone() {
    let mut world = fencing_pair(2);
    open(&mut world, 0);
    open(&mut world, 1);
    lives_on_the_peers_disk(&mut world);
    // It goes on with volume 1, the other being shot; and is still Primary when that one is back, unheard.
    world.network.partitioned = true;
    world.kill(1, true);
    let end = world.now + 20_000 * MS;
    assert!(world.run_to(end, |w| w.fenced[0].allowed), "{}", world.unsettled());
    write(&mut world, 1, 0, 6);
    world.start(1);
    world.run_until(world.now + 1000 * MS);
    world.command(1, Command::Primary { force: false });
    world.run_until(world.now + 1000 * MS);
    fine(&world);
    assert!(world.hosts[0].running(), "only who asks its handler first may shoot it");
    assert_ne!(world.view(1).role, Role::Primary, "what node 0 wrote to volume 1 is not here");
}

#[test]
fn a_disk_that_comes_back_beside_a_primary_is_not_good_before_the_handshake() {
    let mut world = fencing_pair(1);
    // Both are Secondary when the disk is detached: it does not know that the peer goes on without it.
    let end = world.now + 60_000 * MS;
    world.command(0, Command::Secondary { force: false });
    step_to(&mut world, end, |w| w.view(1).peer_role == Role::Secondary);
    world.disk(1, 0).detached = true;
    world.command(1, Command::Detach(volume::number(0)));
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::Diskless && w.view(0).connected());
    world.command(0, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(0).role == Role::Primary);
    open(&mut world, 0);
    write(&mut world, 0, 0, 5);
    world.disk(1, 0).detached = false;
    world.bring_up(1);
    step_to(&mut world, end, |w| w.view(1).disk >= DiskState::Consistent);
    world.kill(0, true);
    world.command(1, Command::Primary { force: false });
    world.run_until(world.now + 20_000 * MS);
    fine(&world);
    assert_ne!(world.view(1).role, Role::Primary, "what node 0 wrote is not here");
}

#[test]
fn a_primary_without_a_good_disk_yields_to_the_one_that_went_on_with_what_it_wrote() {
    let mut world = fencing_pair(1);
    let end = world.now + 60_000 * MS;
    open(&mut world, 0);
    lives_on_the_peers_disk(&mut world);
    // That disk goes and comes back while they do not see each other; meanwhile node 0 finds its own again, which is older.
    world.network.partitioned = true;
    world.disk(1, 0).detached = true;
    world.command(1, Command::Detach(volume::number(0)));
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::Diskless);
    step_to(&mut world, end, |w| w.fenced[0].allowed);
    for n in 0..2 {
        world.disk(n, 0).detached = false;
        world.bring_up(n);
    }
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::UpToDate);
    world.command(1, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    assert_eq!(world.view(0).role, Role::Primary);
    world.mend();
    step_to(&mut world, end, |w| w.view(0).role == Role::Secondary);
    together(&mut world);
}

#[test]
fn a_target_counts_as_out_of_the_way_when_it_is_stably_inconsistent() {
    // A handler that has ended before they met may be heard of after that.
    for answer in [None, Some(Ok(4))] {
        let mut world = fencing_pair(1);
        open(&mut world, 0);
        world.divide();
        // Written here, and not acknowledged: the handler hangs before it has reached node 1.
        let id = u64::from(world.request(0, 0, Kind::Write, 40, 8, false));
        let run = fences(&mut world, 0);
        world.fenced[0].runs.clear();
        world.mend();
        let end = world.now + 20_000 * MS;
        step_to(&mut world, end, |w| w.view(1).connection == ConnectionState::Handshaking);
        assert_eq!(world.view(1).disk, DiskState::Consistent);
        // Node 1 cannot write that it is Inconsistent: it might be promoted yet.
        world.disk(1, 0).hangs = true;
        step_to(&mut world, end, |w| w.view(0).connected());
        if let Some(answer) = answer {
            world.fence_ends(0, run, answer);
        }
        world.run_until(world.now + 300 * MS);
        assert!(world.view(0).connected() && world.view(0).suspended, "freed too soon");
        assert!(world.ops.contains_key(&id), "acknowledged too soon");
        world.unhang(1, 0);
        assert!(world.run_to(end, |w| w.ops.is_empty()), "{}", world.unsettled());
        together(&mut world);
    }
}

#[test]
fn a_handler_that_could_not_fence_is_run_again_and_nobody_need_resume() {
    let mut world = fencing_pair(1);
    open(&mut world, 0);
    world.kill(1, true);
    let id = u64::from(world.request(0, 0, Kind::Write, 40, 8, false));
    for end in [Ok(1), Err("did not end and was killed".into()), Ok(5)] {
        let run = fences(&mut world, 0);
        world.fence_ends(0, run, end);
        world.run_until(world.now + 1000 * MS);
        assert!(world.view(0).suspended && world.ops.contains_key(&id), "nobody was fenced");
    }
    // A guess, which this policy does not act on.
    world.unsafe_fencing = false;
    let late = world.now + 20_000 * MS;
    assert!(world.run_to(late, |w| w.ops.is_empty()), "{}", world.unsettled());
    assert!(world.fenced[0].allowed && !world.view(0).suspended);
    world.start(1);
    together(&mut world);
}

#[test]
fn a_target_that_is_about_to_be_good_is_outdated_like_one_that_is() {
    let mut world = fencing_pair(1);
    open(&mut world, 0);
    world.kill(1, true);
    write(&mut world, 0, 0, 5);
    world.start(1);
    let end = world.now + 60_000 * MS;
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::Inconsistent);
    // It was granted the source's generation, and its superblock cannot be written yet.
    step_to(&mut world, end, |w| w.view(1).current == w.view(0).current);
    assert_eq!(world.view(1).disk, DiskState::Inconsistent);
    world.disk(1, 0).hangs = true;
    world.divide();
    let id = u64::from(world.request(0, 0, Kind::Write, 48, 8, false));
    step_to(&mut world, end, |w| w.fenced[0].runs.values().any(Run::is_asked));
    world.run_until(world.now + 10 * MS);
    assert!(world.ops.contains_key(&id), "it is not stably outdated");
    world.unhang(1, 0);
    assert!(world.run_to(end, |w| w.ops.is_empty()), "{}", world.unsettled());
    assert_eq!(world.view(1).disk, DiskState::Outdated);
    world.mend();
    together(&mut world);
}

/// ROLE-4: until the two disks have met, the one that was left behind is of no use to anybody.
#[test]
fn who_went_on_alone_need_not_fence_again_after_it_was_met_without_its_disk() {
    let mut world = fencing_pair(1);
    let end = world.now + 60_000 * MS;
    world.kill(0, true);
    world.command(1, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    open(&mut world, 1);
    write(&mut world, 1, 1, 5);
    world.kill(1, true);
    world.disk(1, 0).detached = true;
    world.start(1);
    world.start(0);
    step_to(&mut world, end, |w| w.view(0).connected() && w.view(1).connected());
    assert_eq!(world.view(0).disk, DiskState::Consistent);
    world.kill(0, true);
    world.disk(1, 0).detached = false;
    world.bring_up(1);
    step_to(&mut world, end, |w| w.view(1).disk == DiskState::UpToDate);
    let fences = |w: &World| w.counters.count("fence: handler ran");
    let before = fences(&world);
    world.command(1, Command::Primary { force: false });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    open(&mut world, 1);
    write(&mut world, 1, 1, 6);
    fine(&world);
    assert_eq!(fences(&world), before);
    world.start(0);
    together(&mut world);
}

/// DUR-5: what it had acknowledged was given up by force; its clients must not be shown what is there instead.
#[test]
fn a_primary_that_was_told_of_another_one_yields_also_when_that_is_secondary_by_now() {
    let mut world = fencing_pair(1);
    let end = world.now + 60_000 * MS;
    open(&mut world, 0);
    world.divide();
    world.request(0, 0, Kind::Write, 40, 8, false);
    let run = fences(&mut world, 0);
    // It finds a Primary.
    world.command(1, Command::Primary { force: true });
    step_to(&mut world, end, |w| w.view(1).role == Role::Primary);
    world.fence_ends(0, run, Ok(6));
    step_to(&mut world, end, |w| w.view(0).disk == DiskState::Outdated);
    world.kill(1, true);
    world.start(1);
    world.mend();
    step_to(&mut world, end, |w| w.view(0).connected());
    assert_eq!(world.view(0).role, Role::Secondary);
    assert!(world.fenced[0].told.contains_key(&Occasion::PriLost));
    together(&mut world);
}

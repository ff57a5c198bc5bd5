//! What a Primary that crashed had acknowledged: it is where it is promised to be.

use super::*;

/// Its peer has all of it, also when one of the two disks is away when they meet again.
fn survives_without_the_disk_of(away: usize) {
    for luck in 0..20 {
        let mut world = pair(Protocol::C);
        world.rng = Rng::new(luck);
        open(&mut world, 0);
        let token = write(&mut world, 0, 0, 5);
        world.kill(0, true);
        world.run_until(world.now + 1000 * MS);
        world.disk(away, 0).detached = true;
        if away == 1 {
            world.command(1, Command::Detach(volume::number(0)));
            world.run_until(world.now + 1000 * MS);
        }
        world.start(0);
        let end = world.now + 60_000 * MS;
        step_to(&mut world, end, |w| w.view(0).connected() && w.view(1).connected());
        assert_eq!(world.view(away).disk, DiskState::Diskless);
        world.disk(away, 0).detached = false;
        world.bring_up(away);
        together(&mut world);
        assert_eq!([0, 1].map(|n| world.volumes[0].disks.0[n].visible(40)), [token; 2]);
    }
}

#[test]
fn a_survivor_remembers_what_it_has_while_the_crashed_primary_is_back_without_its_disk() {
    survives_without_the_disk_of(0);
}

#[test]
fn a_survivor_remembers_what_it_has_while_its_own_disk_is_away() {
    survives_without_the_disk_of(1);
}

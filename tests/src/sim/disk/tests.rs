//! The disk does what the node was promised, and nothing more.

use super::*;

fn write(disk: &mut Disk, io: u64, start: u32, token: u64, fua: bool) {
    let payload = Payload::Data(Arc::new([token]));
    disk.submit(io, DiskCommand::Write { start, len: 1, payload, fua });
    let order = disk.order_of(io);
    disk.finish(io);
    disk.handed(order);
}

#[test]
fn a_write_is_visible_but_not_stable_until_flushed() {
    let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
    write(&mut disk, 1, 5, 77, false);
    assert_eq!(disk.visible(5), Token(77));
    assert_eq!(disk.stable(5), Token::garbage(0, 5));
    disk.submit(2, DiskCommand::Flush);
    disk.finish(2);
    assert_eq!(disk.stable(5), Token(77));
}

#[test]
fn a_flush_covers_nothing_that_completed_after_it_was_submitted() {
    let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
    disk.submit(1, DiskCommand::Flush);
    write(&mut disk, 2, 5, 77, false);
    disk.finish(1);
    assert_eq!(disk.stable(5), Token::garbage(0, 5));
}

#[test]
fn a_flush_covers_no_write_whose_completion_was_not_handed_over() {
    let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
    let payload = Payload::Data(Arc::new([9]));
    disk.submit(1, DiskCommand::Write { start: 0, len: 1, payload, fua: false });
    disk.finish(1);
    disk.submit(2, DiskCommand::Flush);
    disk.finish(2);
    assert_eq!(disk.stable(0), Token::garbage(0, 0));
}

#[test]
fn an_older_cached_write_never_lands_over_a_newer_fua_write() {
    let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
    write(&mut disk, 1, 5, 77, false);
    write(&mut disk, 2, 5, 78, true);
    assert_eq!(disk.stable(5), Token(78));
    disk.submit(3, DiskCommand::Flush);
    disk.finish(3);
    assert_eq!(disk.stable(5), Token(78));
    let mut rng = Rng::new(1);
    for _ in 0..20 {
        disk.clone().power_cut(&mut rng);
        assert_eq!(disk.stable(5), Token(78));
    }
}

#[test]
fn a_power_cut_keeps_some_and_loses_some() {
    let mut kept = 0;
    for seed in 0..200 {
        let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
        write(&mut disk, 1, 5, 77, false);
        write(&mut disk, 2, 6, 78, false);
        disk.power_cut(&mut Rng::new(seed));
        assert_eq!(disk.visible(5), disk.stable(5));
        kept += u32::from(disk.visible(5) == Token(77)) + u32::from(disk.visible(6) == Token(78));
    }
    assert!((100..300).contains(&kept), "{kept} of 400");
}

#[test]
fn a_kill_keeps_the_cache() {
    let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
    write(&mut disk, 1, 5, 77, false);
    disk.kill(&mut Rng::new(3));
    assert_eq!(disk.visible(5), Token(77));
    assert_eq!(disk.cached(), 1);
}

#[test]
fn a_failed_flush_can_lose_what_no_later_flush_brings_back() {
    let mut lost = 0;
    for seed in 0..64 {
        let mut disk = Disk::new(0, 1 << 16, 1 << 17, false);
        write(&mut disk, 1, 5, 77, false);
        disk.submit(2, DiskCommand::Flush);
        disk.fail(2, &mut Rng::new(seed));
        disk.submit(3, DiskCommand::Flush);
        disk.finish(3);
        assert_eq!(disk.visible(5), Token(77));
        disk.open();
        assert_eq!(disk.visible(5), disk.stable(5));
        lost += u32::from(disk.stable(5) != Token(77));
    }
    assert!(lost > 10, "{lost}");
}

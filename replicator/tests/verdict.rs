//! The verdict over all its inputs: total, mirrored on both ends (GI-4), never "no resync" over bits (COV-6), never a
//! Primary with good data as target, never an Inconsistent source (RES-3).

use bitmap::{Generation, NodeId};
use replicator::node::{DiskState, Protocol, Role, mirror, verdict};
use replicator::wire::{Agreed, Facts, RefuseReason, VolumeFacts, VolumeVerdict};

const NONE: Generation = Generation::NONE;
const NEW: Generation = Generation::JUST_CREATED;
const G: Generation = Generation(0x10);
const X: Generation = Generation(0x20);
const Y: Generation = Generation(0x30);

fn volumes() -> Vec<VolumeFacts> {
    let mut all = Vec::new();
    let disks =
        [DiskState::Diskless, DiskState::Inconsistent, DiskState::Outdated, DiskState::UpToDate];
    for disk in disks {
        for current in [NEW, G, X, Y] {
            for bitmap in [NONE, G, X] {
                for history in [vec![], vec![G], vec![X, G]] {
                    for bits in [0, 3] {
                        let diskless = disk == DiskState::Diskless;
                        let odd = (current == NEW && disk > DiskState::Inconsistent)
                            || bitmap == current
                            || history.contains(&current)
                            || (diskless && (bits > 0 || bitmap != NONE || !history.is_empty()));
                        if !odd {
                            let size = if diskless { 0 } else { 1 << 20 };
                            let history = history.clone();
                            let number = 0;
                            all.push(VolumeFacts {
                                number,
                                disk,
                                size,
                                current,
                                bitmap,
                                history,
                                bits,
                                // See `facts`.
                                crashed_primary: false,
                                peer_incarnation: 0,
                            });
                        }
                    }
                }
            }
        }
    }
    all
}

fn volume(
    number: u16,
    disk: DiskState,
    current: Generation,
    bitmap: Generation,
    bits: u64,
) -> VolumeFacts {
    VolumeFacts {
        number,
        disk,
        size: 1 << 20,
        current,
        bitmap,
        history: vec![],
        bits,
        crashed_primary: false,
        peer_incarnation: 0,
    }
}

fn facts(node: u8, volume: VolumeFacts, traits: u32, protocol: Protocol) -> Facts {
    let has = |bit: u32| traits & (1 << bit) != 0;
    let crashed_primary = volume.disk >= DiskState::Inconsistent && !has(1) && has(2);
    let peer_incarnation = if has(0) { 7 } else { 0 };
    Facts {
        node: NodeId(node),
        incarnation: 100 + u64::from(node),
        protocol,
        role: if has(1) { Role::Primary } else { Role::Secondary },
        suspended: has(1) && has(2),
        discard_my_data: has(3) && !has(1),
        volumes: vec![VolumeFacts { crashed_primary, peer_incarnation, ..volume }],
    }
}

fn check(a: &Facts, b: &Facts) {
    let ours = verdict(a, b);
    let theirs = verdict(b, a);
    assert_eq!(theirs, mirror(&ours), "GI-4\n{a:#?}\n{b:#?}");
    assert_eq!(mirror(&theirs), ours, "mirroring twice is nothing");
    let (va, vb) = (&a.volumes[0], &b.volumes[0]);
    match &ours {
        Agreed::Go(verdicts) => match verdicts[0] {
            VolumeVerdict::NoSync => {
                assert_eq!((va.bits, vb.bits), (0, 0), "COV-6\n{a:#?}\n{b:#?}");
                assert_eq!(va.current, vb.current, "GI-1\n{a:#?}\n{b:#?}");
            }
            VolumeVerdict::Source { .. } => {
                assert!(va.disk > DiskState::Inconsistent, "RES-3\n{a:#?}\n{b:#?}");
                let overrun = b.role == Role::Primary && vb.disk == DiskState::UpToDate;
                assert!(!overrun, "a good Primary is no target\n{a:#?}\n{b:#?}");
            }
            VolumeVerdict::Target { .. } => {
                assert!(vb.disk > DiskState::Inconsistent, "RES-3\n{a:#?}\n{b:#?}");
            }
            VolumeVerdict::Idle => {
                let (worse, better) = (va.disk.min(vb.disk), va.disk.max(vb.disk));
                let replaced = [va, vb].iter().any(|v| !v.current.is_real());
                let nothing = worse < DiskState::Inconsistent
                    || better == DiskState::Inconsistent
                    || (worse == DiskState::Inconsistent
                        && better == DiskState::Outdated
                        && replaced);
                assert!(nothing, "idle with data on both sides\n{a:#?}\n{b:#?}");
            }
        },
        Agreed::IStepDown => assert_eq!(a.role, Role::Primary),
        Agreed::YouStepDown => assert_eq!(b.role, Role::Primary),
        Agreed::Refuse(RefuseReason::SplitBrain) => {
            // SB-2: exactly one word given resolves it, unless roles stand against it.
            let one_word = a.discard_my_data != b.discard_my_data;
            let roles = a.role == Role::Primary || b.role == Role::Primary;
            assert!(!one_word || roles, "SB-2\n{a:#?}\n{b:#?}");
        }
        Agreed::Refuse(_) => {}
    }
}

#[test]
fn the_verdict_is_total_and_mirrored() {
    let volumes = volumes();
    let mut pairs = 0_u64;
    for va in &volumes {
        for vb in &volumes {
            for traits in 0..256 {
                let a = facts(0, va.clone(), traits & 15, Protocol::C);
                let b = facts(1, vb.clone(), traits >> 4, Protocol::C);
                check(&a, &b);
                pairs += 1;
            }
        }
    }
    println!("{pairs} pairs of facts");
}

#[test]
fn two_volumes_go_both_ways_only_where_one_side_stood_still() {
    let good: Vec<_> =
        volumes().into_iter().filter(|v| v.disk > DiskState::Outdated && v.bits == 0).collect();
    for a0 in &good {
        for b0 in &good {
            for a1 in &good {
                for b1 in &good {
                    let mut a = facts(0, a0.clone(), 0, Protocol::C);
                    let mut b = facts(1, b0.clone(), 0, Protocol::C);
                    a.volumes.push(VolumeFacts { number: 1, ..a1.clone() });
                    b.volumes.push(VolumeFacts { number: 1, ..b1.clone() });
                    let ours = verdict(&a, &b);
                    assert_eq!(verdict(&b, &a), mirror(&ours), "GI-4\n{a:#?}\n{b:#?}");
                    if let Agreed::Go(verdicts) = ours {
                        let source =
                            verdicts.iter().any(|v| matches!(v, VolumeVerdict::Source { .. }));
                        let target =
                            verdicts.iter().any(|v| matches!(v, VolumeVerdict::Target { .. }));
                        let forked = a.volumes.iter().zip(&b.volumes).any(|(x, y)| {
                            let knows = |x: &VolumeFacts, y: &VolumeFacts| {
                                x.bitmap == y.current || x.history.contains(&y.current)
                            };
                            x.current != y.current
                                && x.bitmap.is_real()
                                && x.bitmap == y.bitmap
                                && !knows(x, y)
                                && !knows(y, x)
                        });
                        assert!(!(source && target && forked), "SB-1\n{a:#?}\n{b:#?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_primary_whose_second_disk_was_away_gets_that_back_and_no_split_brain() {
    // On volume 0 the Primary went on for a moment, on volume 1 the peer's disk was the only one.
    let mut primary = facts(0, volume(0, DiskState::UpToDate, X, G, 3), 2, Protocol::C);
    primary.volumes.push(volume(1, DiskState::Outdated, G, NONE, 0));
    let mut peer = facts(1, volume(0, DiskState::UpToDate, G, NONE, 0), 0, Protocol::C);
    peer.volumes.push(volume(1, DiskState::UpToDate, X, G, 5));
    let both = vec![VolumeVerdict::Source { full: false }, VolumeVerdict::Target { full: false }];
    assert_eq!(verdict(&primary, &peer), Agreed::Go(both));
    // Where both went on with both volumes, it is one.
    primary.volumes[1] = volume(1, DiskState::UpToDate, Y, G, 0);
    peer.volumes[0] = volume(0, DiskState::UpToDate, Y, G, 0);
    assert_eq!(verdict(&primary, &peer), Agreed::Refuse(RefuseReason::SplitBrain));
}

/// A Primary that crashed while it copied volume 1 to the other, and that one.
fn crashed_and_survivor(protocol: Protocol) -> [Facts; 2] {
    let mut crashed = facts(0, volume(0, DiskState::UpToDate, G, NONE, 5), 0, protocol);
    crashed.volumes[0].crashed_primary = true;
    crashed.volumes.push(volume(1, DiskState::UpToDate, X, G, 5));
    let mut survivor = facts(1, volume(0, DiskState::UpToDate, G, NONE, 0), 1, protocol);
    survivor.volumes.push(volume(1, DiskState::Inconsistent, G, NONE, 5));
    [crashed, survivor]
}

#[test]
fn what_one_volume_needs_is_no_reason_for_another() {
    // The crashed Primary is the only source of volume 1; of volume 0 the survivor has what the crash may have taken.
    let [crashed, survivor] = crashed_and_survivor(Protocol::C);
    let (to, from) = (VolumeVerdict::Source { full: false }, VolumeVerdict::Target { full: false });
    assert_eq!(verdict(&crashed, &survivor), Agreed::Go(vec![from, to]));

    // Volume 0 was written on both sides, volume 1 only on the side whose operator gives its data up: what is newer there and
    // contradicts nothing is kept.
    let mut kept = facts(0, volume(0, DiskState::UpToDate, X, G, 5), 0, Protocol::C);
    kept.volumes.push(volume(1, DiskState::Outdated, G, NONE, 0));
    let mut given_up = facts(1, volume(0, DiskState::Outdated, Y, G, 5), 8, Protocol::C);
    given_up.volumes.push(volume(1, DiskState::UpToDate, X, G, 5));
    assert_eq!(verdict(&kept, &given_up), Agreed::Go(vec![to, from]));
    given_up.discard_my_data = false;
    assert_eq!(verdict(&kept, &given_up), Agreed::Refuse(RefuseReason::SplitBrain));
}

#[test]
fn a_crash_counts_for_the_volumes_that_were_written_to() {
    // Both crashed as Primary at some time: the survivor's mark of volume 1, which was not in sync again, is none of volume 0.
    let [crashed, mut survivor] = crashed_and_survivor(Protocol::A);
    survivor.volumes[1].crashed_primary = true;
    let to = VolumeVerdict::Source { full: false };
    assert_eq!(verdict(&crashed, &survivor), Agreed::Go(vec![to, to]));
}

#[test]
fn after_a_crash_the_survivor_is_the_source_under_b_and_c() {
    let same = |bits| volume(0, DiskState::UpToDate, G, NONE, bits);
    for (protocol, crashed_is_source) in
        [(Protocol::A, true), (Protocol::B, false), (Protocol::C, false)]
    {
        let mut crashed = facts(0, same(5), 0, protocol);
        crashed.volumes[0].crashed_primary = true;
        let mut survivor = facts(1, same(0), 0, protocol);
        survivor.volumes[0].peer_incarnation = 7;
        let expected = if crashed_is_source {
            VolumeVerdict::Source { full: false }
        } else {
            VolumeVerdict::Target { full: false }
        };
        assert_eq!(verdict(&crashed, &survivor), Agreed::Go(vec![expected]));
        // Both processes died: the crashed Primary has everything it acknowledged.
        survivor.volumes[0].peer_incarnation = 0;
        let source = VolumeVerdict::Source { full: false };
        assert_eq!(verdict(&crashed, &survivor), Agreed::Go(vec![source]));
    }
}

#[test]
fn of_two_primaries_without_good_data_the_one_that_is_behind_yields() {
    let primary = |node, current, history| {
        let volume = VolumeFacts { history, ..volume(0, DiskState::Outdated, current, NONE, 0) };
        facts(node, volume, 2, Protocol::C)
    };
    let (ahead, behind) = (primary(0, X, vec![G]), primary(1, G, vec![]));
    assert_eq!(verdict(&ahead, &behind), Agreed::YouStepDown);
    assert_eq!(verdict(&behind, &ahead), Agreed::IStepDown);
}

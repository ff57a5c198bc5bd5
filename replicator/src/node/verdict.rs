//! The verdict: what two nodes that meet do with each other's data. One pure, total function of both sides' facts,
//! mirrored on both ends (GI-4). It says "no resync" only if neither side holds bits against the other (COV-6).

use super::types::{DiskState, Protocol, Role};
use crate::wire::{Agreed, Facts, RefuseReason, VolumeFacts, VolumeVerdict};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use bitmap::Generation;

/// How the data of one volume relates, from `a`'s side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// There is nothing to compare: a side has no disk, or neither has a good one.
    Idle,
    /// The same generation.
    Same,
    /// Has everything the other has.
    Ahead {
        /// No bits say what the other lacks.
        full: bool,
        /// Both made a generation of their own, but only one wrote under it.
        forked: bool,
    },
    /// The other way round.
    Behind {
        /// As above.
        full: bool,
        /// As above.
        forked: bool,
    },
    /// Each has what the other lacks.
    Split {
        /// No bits say what.
        full: bool,
    },
    /// The other's disk is newer, but not good; ours is good, but older.
    OthersRuined,
    /// The other way round.
    OursRuined,
    /// They never held the same.
    Unrelated,
}

/// What decides which of two with the same generation is the source, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// One is Primary.
    Primary,
    /// One crashed as Primary, and the other went on (B and C).
    SawTheCrash,
    /// One crashed as Primary.
    Crashed,
    /// One saw the end of the other's process.
    Survived,
    /// One is Outdated.
    Current,
    /// One has marked blocks.
    Bits,
    /// Nothing else does.
    NodeId,
}

impl Relation {
    fn mirror(self) -> Self {
        match self {
            Self::Ahead { full, forked } => Self::Behind { full, forked },
            Self::Behind { full, forked } => Self::Ahead { full, forked },
            Self::OthersRuined => Self::OursRuined,
            Self::OursRuined => Self::OthersRuined,
            Self::Idle | Self::Same | Self::Split { .. } | Self::Unrelated => self,
        }
    }

    /// Does it end in a copy whatever the bits say?
    fn copies(self) -> bool {
        !matches!(self, Self::Idle | Self::Same)
    }
}

/// The mirror image of an outcome.
pub fn mirror(agreed: &Agreed) -> Agreed {
    match agreed {
        Agreed::Go(volumes) => Agreed::Go(
            volumes
                .iter()
                .map(|verdict| match *verdict {
                    VolumeVerdict::Source { full } => VolumeVerdict::Target { full },
                    VolumeVerdict::Target { full } => VolumeVerdict::Source { full },
                    same @ (VolumeVerdict::Idle | VolumeVerdict::NoSync) => same,
                })
                .collect(),
        ),
        Agreed::YouStepDown => Agreed::IStepDown,
        Agreed::IStepDown => Agreed::YouStepDown,
        Agreed::Refuse(reason) => Agreed::Refuse(reason.clone()),
    }
}

/// What `a` does with `b`. `verdict(b, a)` is the mirror image.
pub fn verdict(a: &Facts, b: &Facts) -> Agreed {
    if let Some(why) = incompatible(a, b) {
        return Agreed::Refuse(RefuseReason::Incompatible(why));
    }
    let relations: Vec<_> = a.volumes.iter().zip(&b.volumes).map(|(a, b)| relate(a, b)).collect();
    if relations.contains(&Relation::Unrelated) {
        return Agreed::Refuse(RefuseReason::Unrelated);
    }
    let any = |wanted: fn(&Relation) -> bool| relations.iter().any(wanted);
    let ahead = any(|r| matches!(r, Relation::Ahead { .. }));
    let behind = any(|r| matches!(r, Relation::Behind { .. }));
    // Each side has volumes on which it is ahead. That is no split brain where the other made no generation of its own: it had
    // no disk there, and a Primary makes one for every volume that it has a disk for.
    let crossed = ahead && behind;
    let forked = any(|r| {
        matches!(r, Relation::Ahead { forked: true, .. } | Relation::Behind { forked: true, .. })
    });
    let split = any(|r| matches!(r, Relation::Split { .. })) || (crossed && forked);

    let ruined = |which| relations.contains(&which);
    let (ours, others) = (ruined(Relation::OursRuined), ruined(Relation::OthersRuined));
    let word_given = match (a.discard_my_data, b.discard_my_data) {
        (false, true) => Some(true),
        (true, false) => Some(false),
        (true, true) | (false, false) => None,
    };
    let word = if split || (ours && others) {
        // SB-2: only an operator's word, given on exactly one side, resolves it.
        if word_given.is_none() {
            return Agreed::Refuse(RefuseReason::SplitBrain);
        }
        word_given
    } else if ours || others {
        // GI-5: the older data replaces the newer only by the word of the side that has the newer.
        if word_given != Some(others) {
            return Agreed::Refuse(RefuseReason::Stale);
        }
        word_given
    } else {
        None
    };
    // Is `a` the source, of each volume? DUR-3: what one volume says is nothing to another. A side that must be a target here may
    // be the only one that holds everything there.
    let way = |(v, relation): (usize, &Relation)| match (relation, word) {
        (Relation::Idle | Relation::Same, _) => tie(a, b, v).1,
        (Relation::Ahead { forked: false, .. }, _) | (Relation::Ahead { .. }, None) => true,
        (Relation::Behind { forked: false, .. }, _) | (Relation::Behind { .. }, None) => false,
        (_, Some(a_is_source)) => a_is_source,
        (Relation::Split { .. } | Relation::OthersRuined | Relation::OursRuined, None)
        | (Relation::Unrelated, None) => unreachable!("refused without a word"),
    };
    let natural: Vec<_> = relations.iter().enumerate().map(way).collect();
    let ways = match (roles_forbid(a, b, &relations, &natural), word_given) {
        // A Primary that has nothing of its own is no target; a word from the other side gives that side's data up.
        (Some(Agreed::Refuse(RefuseReason::SplitBrain)), Some(a_is_source)) => {
            vec![a_is_source; relations.len()]
        }
        _ => natural,
    };

    let mixture = relations.iter().enumerate().any(|(v, &r)| {
        let source = if ways[v] { a } else { b };
        source.volumes[v].disk <= DiskState::Inconsistent && r.copies()
    });
    if mixture {
        // RES-3: a mixture of times is no source; `primary --force` declares it good first.
        return Agreed::Refuse(RefuseReason::Stale);
    }
    if let Some(agreed) = roles_forbid(a, b, &relations, &ways) {
        return agreed;
    }

    let volumes = relations.iter().enumerate().map(|(i, &relation)| {
        let bits = a.volumes[i].bits > 0 || b.volumes[i].bits > 0;
        let full = match relation {
            Relation::Idle => return VolumeVerdict::Idle,
            // COV-6: equal generations are no proof of equal content while anyone holds a bit.
            Relation::Same if !bits => return VolumeVerdict::NoSync,
            Relation::Same | Relation::Unrelated => false,
            Relation::Ahead { full, .. } | Relation::Behind { full, .. } => full,
            Relation::Split { full } => full,
            Relation::OursRuined | Relation::OthersRuined => true,
        };
        if ways[i] { VolumeVerdict::Source { full } } else { VolumeVerdict::Target { full } }
    });
    Agreed::Go(volumes.collect())
}

/// What must be the same in both configurations. The text is the same from both sides.
fn incompatible(a: &Facts, b: &Facts) -> Option<alloc::string::String> {
    let (low, high) = if a.node <= b.node { (a, b) } else { (b, a) };
    if low.node == high.node {
        return Some(format!("both nodes say they are node-id {}", low.node.0));
    }
    let (l, h) = (low.node.0, high.node.0);
    if low.protocol != high.protocol {
        return Some(format!(
            "protocol is {:?} on node {l} and {:?} on node {h}: make `net {{ protocol }}` the same, then connect",
            low.protocol, high.protocol
        ));
    }
    let numbers = |f: &Facts| f.volumes.iter().map(|v| v.number).collect::<Vec<_>>();
    if numbers(low) != numbers(high) {
        return Some(format!(
            "node {l} has volumes {:?}, node {h} has {:?}: make the configuration the same",
            numbers(low),
            numbers(high)
        ));
    }
    low.volumes.iter().zip(&high.volumes).find_map(|(x, y)| {
        (has_disk(x) && has_disk(y) && x.size != y.size).then(|| {
            format!(
                "volume {} has {} bytes on node {l} and {} on node {h}: set `disk {{ size }}` to the smaller one on both, then create-md",
                x.number, x.size, y.size
            )
        })
    })
}

fn has_disk(v: &VolumeFacts) -> bool {
    v.disk >= DiskState::Inconsistent
}

/// How what `a` holds relates to what `b` holds.
pub fn relate(a: &VolumeFacts, b: &VolumeFacts) -> Relation {
    if !has_disk(a) || !has_disk(b) {
        return Relation::Idle;
    }
    match (a.disk > DiskState::Inconsistent, b.disk > DiskState::Inconsistent) {
        (false, false) => Relation::Idle,
        (true, false) => inconsistent_peer(a, b),
        (false, true) => inconsistent_peer(b, a).mirror(),
        (true, true) => compare(a, b),
    }
}

/// `bad` can only be a target (RES-3). By bitmap if `good` has kept track of it.
///
/// An Outdated disk is `good` here, and in `compare`: it was left behind by this very peer, which would hold a generation of
/// its own if it had acknowledged anything since (GI-2). Whoever is ahead of all there is, is up to date.
fn inconsistent_peer(good: &VolumeFacts, bad: &VolumeFacts) -> Relation {
    // RES-4: a target that missed the end of its resync holds what `good` called in sync last.
    let ended = good.history.first().copied().unwrap_or(Generation::NONE);
    if bad.current.is_real() && [good.current, good.bitmap, ended].contains(&bad.current) {
        Relation::Ahead { full: false, forked: false }
    } else if !bad.current.is_real() && good.disk == DiskState::Outdated {
        // The disk that left `good` behind is gone, and a new one in its place: what is newer may be lost. Nobody may say
        // that `good` is up to date but an operator (`primary --force`).
        Relation::Idle
    } else if !bad.current.is_real() || good.history.contains(&bad.current) {
        Relation::Ahead { full: true, forked: false }
    } else if bad.bitmap == good.current || bad.history.contains(&good.current) {
        // GI-5: it went on after `good` was left behind, and its disk failed then. What it holds is newer, though no longer
        // whole: only an operator gives that up.
        Relation::OthersRuined
    } else if related(good, bad) {
        Relation::Split { full: true }
    } else {
        Relation::Unrelated
    }
}

fn compare(a: &VolumeFacts, b: &VolumeFacts) -> Relation {
    if a.current == b.current {
        return Relation::Same;
    }
    let tracks = |x: &VolumeFacts, y: &VolumeFacts| x.bitmap.is_real() && x.bitmap == y.current;
    match (tracks(a, b), tracks(b, a)) {
        (true, false) => return Relation::Ahead { full: false, forked: false },
        (false, true) => return Relation::Behind { full: false, forked: false },
        (true, true) => return Relation::Split { full: true },
        (false, false) => {}
    }
    let knows =
        |x: &VolumeFacts, y: &VolumeFacts| y.current.is_real() && x.history.contains(&y.current);
    match (knows(a, b), knows(b, a)) {
        (true, false) => Relation::Ahead { full: true, forked: false },
        (false, true) => Relation::Behind { full: true, forked: false },
        (true, true) => Relation::Split { full: true },
        (false, false) if a.bitmap.is_real() && a.bitmap == b.bitmap => {
            // Both went on from the same generation. A side without a bit has nothing the other lacks: it only was ready
            // to go on (SB-4).
            match (a.bits > 0, b.bits > 0) {
                (true, true) => Relation::Split { full: false },
                (true, false) => Relation::Ahead { full: false, forked: true },
                (false, true) => Relation::Behind { full: false, forked: true },
                (false, false) if a.current > b.current => {
                    Relation::Ahead { full: false, forked: true }
                }
                (false, false) => Relation::Behind { full: false, forked: true },
            }
        }
        (false, false) if related(a, b) => Relation::Split { full: true },
        (false, false) => Relation::Unrelated,
    }
}

/// Is there any generation both have held?
fn related(a: &VolumeFacts, b: &VolumeFacts) -> bool {
    let all = |x: &VolumeFacts| {
        let mut all: Vec<_> = [x.current, x.bitmap].into();
        all.extend_from_slice(&x.history);
        all.retain(|g| g.is_real());
        all
    };
    let of_b = all(b);
    all(a).iter().any(|g| of_b.contains(g))
}

/// Equal generations in this volume: who is the source of what the bits say, `a`? And why.
pub fn tie(a: &Facts, b: &Facts, v: usize) -> (Tie, bool) {
    if (a.role == Role::Primary) != (b.role == Role::Primary) {
        return (Tie::Primary, a.role == Role::Primary);
    }
    // It saw the former life of the other, which may have lost what was not flushed.
    let survived = |x: &Facts, y: &Facts| {
        let known = x.volumes[v].peer_incarnation;
        known != 0 && known != y.incarnation
    };
    let has_crashed = |f: &Facts| f.volumes[v].crashed_primary;
    if has_crashed(a) != has_crashed(b) {
        let (crashed, other) = if has_crashed(a) { (a, b) } else { (b, a) };
        // DUR-3: a survivor has every write that the crashed Primary acknowledged under B and C; under A it may lack some.
        let other_is_source = survived(other, crashed) && a.protocol != Protocol::A;
        let why = if other_is_source { Tie::SawTheCrash } else { Tie::Crashed };
        return (why, other_is_source != core::ptr::eq(crashed, a));
    }
    if survived(a, b) != survived(b, a) {
        return (Tie::Survived, survived(a, b));
    }
    let current = |f: &Facts| f.volumes[v].disk != DiskState::Outdated;
    if current(a) != current(b) {
        return (Tie::Current, current(a));
    }
    let bits = |f: &Facts| f.volumes[v].bits > 0;
    if bits(a) != bits(b) {
        return (Tie::Bits, bits(a));
    }
    (Tie::NodeId, a.node < b.node)
}

/// Two Primaries, and a Primary with good data that would be a target.
fn roles_forbid(a: &Facts, b: &Facts, relations: &[Relation], ways: &[bool]) -> Option<Agreed> {
    let step_down = |who: &Facts| {
        if core::ptr::eq(who, a) { Agreed::IStepDown } else { Agreed::YouStepDown }
    };
    let overrun = |who: &Facts| {
        let is_a = core::ptr::eq(who, a);
        who.role == Role::Primary
            && who.volumes.iter().zip(relations).zip(ways).any(|((v, r), &a_is_source)| {
                v.disk == DiskState::UpToDate && r.copies() && a_is_source != is_a
            })
    };
    let (a_overrun, b_overrun) = (overrun(a), overrun(b));
    let copies = a_overrun || b_overrun;
    if copies || (a.role == Role::Primary && b.role == Role::Primary) {
        let a_yields = a_overrun || (!b_overrun && ways.first() == Some(&false));
        let (first, second) = if a_yields { (a, b) } else { (b, a) };
        // ROLE-5: a Primary that slept, or has no good disk to go on with, yields to the one that took over. What a disk lost since was
        // acknowledged on alone is judged before: as Stale here, as `lost` below.
        let silent =
            |who: &Facts| who.suspended || who.volumes.iter().all(|v| v.disk < DiskState::UpToDate);
        if silent(first) {
            return Some(step_down(first));
        }
        if second.role == Role::Primary && silent(second) && !copies {
            return Some(step_down(second));
        }
        let reason = if copies { RefuseReason::SplitBrain } else { RefuseReason::TwoPrimaries };
        return Some(Agreed::Refuse(reason));
    }
    // A diskless Primary whose peer's data moved on without it has nothing to offer its clients any more. Nor does one that left
    // the peer behind while it had a disk: what the peer went on from then was forced good (DUR-5).
    for (who, other) in [(a, b), (b, a)] {
        let lost = who.role == Role::Primary
            && who.volumes.iter().zip(&other.volumes).any(|(v, o)| {
                !has_disk(v)
                    && has_disk(o)
                    && v.current.is_real()
                    && v.current != o.current
                    && (v.current != o.bitmap || v.bitmap != Generation::NONE)
            });
        if lost {
            return Some(step_down(who));
        }
    }
    None
}

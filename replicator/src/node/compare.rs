//! Comparing instead of copying. After a crash whole extents count as changed, of which next to nothing is: target and source tell each
//! other digests of what they hold, and only blocks that differ travel.
//!
//! The target reads a piece and sends one digest for each unit of it; the source reads the same piece and answers with the digests of
//! the blocks of those units that differ; what the target then knows to differ it asks for (`resync.rs`). Blocks that are equal are
//! treated as if they had just been copied: COV-3 asks for a flush on both sides, whoever wrote them.
//!
//! An answer "equal" stays true whatever is written meanwhile. Each side reads under its range lock, so no write is half done there,
//! and every write goes to both: what it covers is equal by that, what it does not cover is as it was read.

use super::Node;
use crate::digest::Digest;
use crate::wire::{MAX_DIGESTS, Message};

use alloc::vec::Vec;
use bitmap::{ByteRange, Geometry};
use core::ops::Range;

/// Most units of a piece: there is one bit for each in the answer.
pub(super) const UNITS: u64 = 64;

/// A comparison in a row without use makes the next this much rarer, up to one in 32 pieces.
const MISSES: u32 = 5;

/// A piece that is compared, at the target.
#[derive(Clone, Debug)]
pub(super) struct Compare {
    pub(super) blocks: Range<u64>,
    /// Digests of our blocks, once they were read.
    own: Vec<Digest>,
}

impl Compare {
    pub(super) fn new(blocks: Range<u64>) -> Self {
        Self { blocks, own: Vec::new() }
    }
}

/// Whether comparing pays. Where most differs (a new disk, a long outage) it costs both disks a read for nothing, so it is tried ever
/// more rarely; where most is equal (a crash) all is compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Worth {
    /// Comparisons in a row that found next to nothing equal.
    misses: u32,
    /// Pieces to copy before the next is tried.
    copies: u32,
}

impl Worth {
    /// Shall the next piece be compared? `trying`: a comparison is under way.
    pub(super) fn compares(&mut self, trying: bool) -> bool {
        if self.copies > 0 {
            self.copies -= 1;
            return false;
        }
        // One that is to find out is enough.
        self.misses == 0 || !trying
    }

    /// Of so many blocks so many were equal.
    fn found(&mut self, equal: u64, blocks: u64) {
        if equal * 4 >= blocks {
            *self = Self::default();
        } else {
            self.misses = (self.misses + 1).min(MISSES);
            self.copies = 1 << self.misses;
        }
    }
}

/// One digest for each unit.
fn of_units(blocks: &[Digest], unit: u64) -> Vec<Digest> {
    blocks.chunks(unit as usize).map(Digest::of_all).collect()
}

/// The source's answer: which units differ, one bit each, and the digests of their blocks.
pub(super) fn answer(blocks: &[Digest], unit: u64, theirs: &[Digest]) -> (u64, Vec<Digest>) {
    let (mut units, mut digests) = (0, Vec::new());
    let both = blocks.chunks(unit as usize).zip(theirs);
    for (i, (part, their)) in both.take(UNITS as usize).enumerate() {
        if Digest::of_all(part) != *their {
            units |= 1 << i;
            digests.extend_from_slice(part);
        }
    }
    (units, digests)
}

/// What the answer says of our blocks, in order: is each equal? None if the answer does not fit the question.
fn equal(own: &[Digest], unit: u64, units: u64, digests: &[Digest]) -> Option<Vec<bool>> {
    let mut theirs = digests.iter();
    let mut equal = Vec::with_capacity(own.len());
    for (i, part) in own.chunks(unit as usize).enumerate() {
        let told = units & 1 << i != 0;
        for block in part {
            equal.push(!told || theirs.next()? == block);
        }
    }
    let beyond = own.len().div_ceil(unit as usize);
    let fits = theirs.next().is_none() && units.checked_shr(beyond as u32).unwrap_or(0) == 0;
    fits.then_some(equal)
}

/// Runs of neighbours that are alike, counted from `first`.
fn runs(first: u64, equal: &[bool]) -> impl Iterator<Item = (Range<u64>, bool)> + '_ {
    let mut at = first;
    equal.chunk_by(|a, b| a == b).map(move |run| {
        let start = at;
        at += run.len() as u64;
        (start..at, run[0])
    })
}

/// Does a question of a peer make sense, and does any answer to it fit a message (LIM)?
pub(super) fn is_sound(geometry: &Geometry, range: ByteRange, unit: u64, digests: usize) -> bool {
    let blocks = geometry.blocks_out(range);
    let whole = geometry.block_bytes(blocks.clone()) == range;
    let count = blocks.end - blocks.start;
    let units = count.div_ceil(unit.max(1));
    let fits = count <= MAX_DIGESTS as u64 && units <= UNITS;
    whole && unit > 0 && fits && units == digests as u64
}

impl Node {
    /// Our part of a comparison was read; `None`: it cannot be, and is copied.
    pub(super) fn digested(&mut self, p: usize, id: u64, own: Option<Vec<Digest>>) {
        let unit = self.config.limits.compare_unit;
        let found = self.peers[p]
            .volumes
            .iter_mut()
            .enumerate()
            .find_map(|(v, volume)| Some((v, volume.target.as_mut()?.compares.get_mut(&id)?)));
        // Else the link it was for is gone.
        let Some((v, compare)) = found else { return };
        match own {
            Some(own) => {
                let digests = of_units(&own, unit);
                compare.own = own;
                let blocks = compare.blocks.clone();
                let geometry = self.volumes[v].geometry().expect("a target has a disk");
                let (volume, range) = (self.volumes[v].number, geometry.block_bytes(blocks));
                self.send(p, Message::SyncCompare { id, volume, range, unit, digests });
            }
            None => {
                self.copy_instead(p, id);
            }
        }
    }

    /// A comparison came to nothing: the piece is asked for as it is. Was there one of this name?
    pub(super) fn copy_instead(&mut self, p: usize, id: u64) -> bool {
        let found = self.end_compare(p, id);
        let Some((v, compare)) = found else { return false };
        self.fetch(p, v, compare.blocks);
        true
    }

    fn end_compare(&mut self, p: usize, id: u64) -> Option<(usize, Compare)> {
        for v in 0..self.volumes.len() {
            let Some(target) = &mut self.peers[p].volumes[v].target else { continue };
            let Some(compare) = target.compares.remove(&id) else { continue };
            let geometry = self.volumes[v].geometry().expect("a target has a disk");
            target.asked -= geometry.block_bytes(compare.blocks.clone()).len();
            return Some((v, compare));
        }
        None
    }

    /// The source has compared.
    pub(super) fn sync_differs(
        &mut self,
        p: usize,
        id: u64,
        serves: bool,
        units: u64,
        digests: &[Digest],
    ) -> Result<(), &'static str> {
        let unit = self.config.limits.compare_unit;
        let (v, compare) = self.end_compare(p, id).ok_or("a comparison that was not asked for")?;
        let equal = equal(&compare.own, unit, units, digests).ok_or("a comparison of others")?;
        let geometry = *self.volumes[v].geometry().expect("a target has a disk");
        let same = equal.iter().filter(|&&equal| equal).count() as u64;
        let now = self.now;
        let volume = &mut self.peers[p].volumes[v];
        let target = volume.target.as_mut().expect("it has compared");
        target.worth.found(same, equal.len() as u64);
        target.pace.source_serves = serves;
        for (blocks, equal) in runs(compare.blocks.start, &equal) {
            if equal {
                let bytes = geometry.block_bytes(blocks.clone()).len();
                volume.progress.copied += bytes;
                volume.progress.equal += bytes;
                target.note_copied(blocks, now);
            }
        }
        for (blocks, _) in runs(compare.blocks.start, &equal).filter(|(_, equal)| !equal) {
            self.fetch(p, v, blocks);
        }
        Ok(())
    }

    /// As source we have found so many blocks equal.
    pub(super) fn equal_at_source(&mut self, p: usize, v: usize, blocks: usize) {
        let block = self.volumes[v].geometry().map_or(0, |geometry| geometry.block_size);
        let bytes = blocks as u64 * u64::from(block);
        let progress = &mut self.peers[p].volumes[v].progress;
        progress.copied += bytes;
        progress.equal += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn digests(content: &[u8]) -> Vec<Digest> {
        content.iter().map(|&byte| Digest::of(&[byte])).collect()
    }

    /// What the target makes of the source's answer.
    fn compare(target: &[u8], source: &[u8], unit: u64) -> Vec<bool> {
        let (own, theirs) = (digests(target), digests(source));
        let (units, told) = answer(&theirs, unit, &of_units(&own, unit));
        equal(&own, unit, units, &told).expect("an answer to the question")
    }

    #[test]
    fn exactly_what_is_equal_is_called_equal() {
        let source = vec![7; 21];
        for unit in [1, 2, 3, 16, 21, 64] {
            assert_eq!(compare(&source, &source, unit), [true; 21]);
            for changed in [vec![0], vec![20], vec![0, 1, 15, 16], (0..21).collect()] {
                let mut target = source.clone();
                changed.iter().for_each(|&i: &usize| target[i] = 1);
                let expected: Vec<_> = (0..21).map(|i| !changed.contains(&i)).collect();
                assert_eq!(compare(&target, &source, unit), expected, "units of {unit}");
            }
        }
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let own = digests(&[1; 20]);
        assert!(equal(&own, 16, 0, &[]).is_some());
        assert!(equal(&own, 16, 1, &own[..15]).is_none(), "too few");
        assert!(equal(&own, 16, 1, &own[..17]).is_none(), "too many");
        assert!(equal(&own, 16, 2, &own[..4]).is_some());
        assert!(equal(&own, 16, 4, &[]).is_none(), "a unit that does not exist");
        let many = digests(&[1; 64]);
        assert!(equal(&many, 1, 1 << 63, &many[..1]).is_some());
    }

    #[test]
    fn runs_are_as_long_as_they_can_be() {
        let equal = [true, true, false, true];
        let all: Vec<_> = runs(10, &equal).collect();
        assert_eq!(all, [(10..12, true), (12..13, false), (13..14, true)]);
        assert_eq!(runs(10, &[]).count(), 0);
    }

    #[test]
    fn comparing_is_tried_rarely_where_all_differs_and_always_where_most_is_equal() {
        let mut worth = Worth::default();
        let mut compared = 0;
        for _ in 0..1000 {
            if worth.compares(false) {
                compared += 1;
                worth.found(0, 256);
            }
        }
        assert!((30..60).contains(&compared), "{compared} of 1000");
        while !worth.compares(false) {}
        assert!(!worth.compares(true), "one at a time finds out");
        worth.found(200, 256);
        assert!((0..100).all(|_| worth.compares(true)));
    }
}

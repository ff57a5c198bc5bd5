//! COV and CONV: where the two copies may differ, somebody knows.

use super::{Check, Cluster, Copies, StableFacts, Token, Violation};

/// Blocks of 4 KiB in which the two copies differ, sectors with a write under way left out.
pub fn differing_blocks<C: Copies>(
    copies: &C,
    content: impl Fn(&C, usize, u32) -> Token,
) -> Vec<u32> {
    let differs = |s: u32| {
        content(copies, 0, s) != content(copies, 1, s)
            && !copies.in_flight(0, s)
            && !copies.in_flight(1, s)
    };
    let end = copies.sectors();
    (0..end.div_ceil(8)).filter(|b| (b * 8..end.min(b * 8 + 8)).any(differs)).collect()
}

/// CONV (and COV-2 where a resync just ended): both copies are the same, bit by bit.
pub fn same_content(copies: &impl Copies, invariant: &'static str) -> Check {
    let different = differing_blocks(copies, |copies, n, s| copies.visible(n, s));
    let Some(block) = different.first() else { return Ok(()) };
    let of =
        |n: usize| (block * 8..block * 8 + 8).map(|s| copies.visible(n, s)).collect::<Vec<_>>();
    let story = format!(
        "both say UpToDate with nothing to copy, but {} blocks differ, first {block}:\n  node 0 {:?}\n  node 1 {:?}",
        different.len(),
        of(0),
        of(1)
    );
    Err(Violation::new(invariant, story))
}

/// Blocks that a target asks its source to clear, and of each sector what the source held then; none if it was being written.
pub type Committing = Vec<(u32, Vec<Option<Token>>)>;

impl Cluster {
    /// COV-1, and with it IO-3: before a Primary's write leaves for a disk or a peer, its medium says that these blocks may differ.
    pub fn write_covered(
        &self,
        node: usize,
        start: u32,
        len: u32,
        to: &str,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        let Some(facts) = facts(node) else { return Ok(()) };
        if facts.covers(1 - node, start, len) {
            return Ok(());
        }
        let story = format!(
            "node {node} submits a write of sectors {start}+{len} to {to}, and neither a stable active extent nor a \
             stable bit covers it"
        );
        Err(Violation::new("COV-1", story))
    }

    /// COV-3: the source clears the bits of these blocks: both media hold the same there, and the source's medium what the
    /// source held when it was asked. `newer` tells of a block that was written again since it was copied, which its extent
    /// covers.
    pub fn bits_cleared(
        &self,
        copies: &impl Copies,
        source: usize,
        blocks: &Committing,
        newer: impl Fn(u32) -> bool,
    ) -> Check {
        for (block, held) in blocks {
            for (s, held) in (block * 8..(block * 8 + 8).min(copies.sectors())).zip(held) {
                let (a, b) = (copies.stable(0, s), copies.stable(1, s));
                let read = [copies.visible(0, s), copies.visible(1, s)];
                let quiet = !copies.in_flight(0, s) && !copies.in_flight(1, s);
                let unflushed =
                    *held == Some(read[source]) && copies.stable(source, s) != read[source];
                if unflushed || a != b && quiet && !newer(*block) {
                    let story = format!(
                        "source {source} clears the bit of block {block}, but sector {s} of the media is {a:?} and {b:?} (read now: {read:?})",
                    );
                    return Err(Violation::new("COV-3", story));
                }
            }
        }
        Ok(())
    }
}

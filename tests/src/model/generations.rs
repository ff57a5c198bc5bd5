//! GI: generation identifiers say truthfully who has what.

use super::{Check, Cluster, Copies, Kind, OpId, View, Violation, differing_blocks};
use bitmap::{ByteRange, Metadata, NodeId};
use replicator::node::{DiskState, Protocol, Role};
use std::sync::Arc;

/// A node's metadata as an attach would find it after a power cut now.
#[derive(Clone, Debug)]
pub struct StableFacts {
    /// What recovery makes of it.
    pub metadata: Arc<Metadata>,
}

impl StableFacts {
    fn slot(&self, peer: usize) -> Option<usize> {
        self.metadata.superblock().slot_of(NodeId(peer as u8))
    }

    /// Its current generation.
    pub fn current(&self) -> u64 {
        self.metadata.superblock().current.0
    }

    /// Its data is one state, not a mixture.
    pub fn consistent(&self) -> bool {
        self.metadata.superblock().flags.consistent
    }

    /// It is a state that was once good, and somebody went on without it. A target is not: the end of its resync may be under way.
    pub fn outdated(&self) -> bool {
        let flags = &self.metadata.superblock().flags;
        flags.consistent && !flags.was_up_to_date
    }

    /// It was, or may have been, Primary when it stopped.
    pub fn crashed(&self) -> bool {
        let flags = &self.metadata.superblock().flags;
        flags.crashed_primary || flags.primary_ind
    }

    /// Bits against the peer, active extents included.
    pub fn bits(&self, peer: usize) -> u64 {
        self.slot(peer).map_or(0, |slot| self.metadata.bits(slot).count())
    }

    /// Whether bits or active extents cover these sectors against the peer.
    pub fn covers(&self, peer: usize, start: u32, len: u32) -> bool {
        let range = ByteRange::new(u64::from(start) * 512, u64::from(len) * 512);
        let blocks = self.metadata.geometry().blocks_out(range);
        self.slot(peer).is_some_and(|slot| self.metadata.bits(slot).all(blocks))
    }
}

impl Cluster {
    /// GI-2: what only one copy has is acknowledged only when the stable generations tell the copies apart.
    pub(super) fn acknowledging_generation(
        &self,
        id: OpId,
        copies: &impl Copies,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        let op = *self.history.op(id);
        let (n, peer) = (op.node, 1 - op.node);
        let view = self.acting(n);
        let own = view.own_good() || self.promised[n].is_some();
        let other = view.peer_good() || self.grant[n];
        if !view.own_good() && !view.peer_good() && op.kind != Kind::Flush {
            let story = format!("write #{id} acknowledged with no UpToDate copy: {view:?}");
            return Err(Violation::new("DUR-3", story));
        }
        if own && other {
            return Ok(());
        }
        let lacking = if own { peer } else { n };
        if op.kind == Kind::Flush && !self.lacks(lacking, op.invoked, copies) {
            return Ok(());
        }
        // Its own disk is about to count again, and holds it as well as the peer's.
        let holds = |s| self.history.judge(s, copies.visible(n, s), id).is_ok();
        if op.writes() && view.disk == DiskState::Outdated && op.sectors().all(holds) {
            return Ok(());
        }
        let (Some(a), Some(b)) = (facts(0), facts(1)) else { return Ok(()) };
        if a.current() == b.current() && a.consistent() && b.consistent() {
            let story = format!(
                "#{id} {op:?} acknowledged, node {lacking} may lack it, and both media say generation {:016X}",
                a.current()
            );
            return Err(Violation::new("GI-2", story));
        }
        Ok(())
    }

    /// GI-2: under A a Primary that loses a peer which lacks acknowledged writes goes on in a new generation. `old`: what it
    /// said before.
    pub fn left_behind(&self, n: usize, old: &View, copies: &impl Copies) -> Check {
        let (view, peer) = (&self.views[n], 1 - n);
        let lost = old.peer_good() && !view.connected();
        let serves = old.role == Role::Primary && old.own_good() && view.own_good();
        let judged = self.protocol == Protocol::A && !self.lost_power[peer];
        if !lost || !serves || !judged || view.current != old.current {
            return Ok(());
        }
        for (s, &floor) in (0..).zip(&self.service[n]) {
            if copies.in_flight(peer, s) {
                continue;
            }
            if let Err(why) = self.history.judge(s, copies.visible(peer, s), floor) {
                let story = format!(
                    "node {n} lost its peer, goes on in the same generation, and over there {why}"
                );
                return Err(Violation::new("GI-2", story));
            }
        }
        Ok(())
    }

    /// Whether this node's medium lacks a write that the other holds and that was acknowledged before stamp `invoked`.
    pub(super) fn lacks(&self, node: usize, invoked: u64, copies: &impl Copies) -> bool {
        (0..copies.sectors()).zip(&self.replicas[1 - node].cache).any(|(s, &w)| {
            w != 0
                && self.history.op(w).ended < invoked
                && self.history.judge(s, copies.stable(node, s), w).is_err()
        })
    }

    /// GI-3: a Primary's new generation was never there before.
    pub(super) fn generation_changed(&mut self, n: usize, old: &View, view: View) -> Check {
        if old.current == view.current || view.current == 0 {
            return Ok(());
        }
        let known = self.generations.iter().any(|g| g.contains(&view.current));
        // A disk that was just attached brings its own.
        let good = old.own_good() && view.own_good();
        let minted = good && view.role == Role::Primary && view.current != 4;
        self.generations[n].insert(view.current);
        if minted && known {
            let story =
                format!("node {n} made generation {:016X} that was there before", view.current);
            return Err(Violation::new("GI-3", story));
        }
        Ok(())
    }

    /// GI-1: media that claim the same generation, with nothing noted against the pair, hold the same.
    pub fn equal_generations(
        &self,
        copies: &impl Copies,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        let (Some(a), Some(b)) = (facts(0), facts(1)) else { return Ok(()) };
        let quiet =
            |f: &StableFacts, peer: usize| f.consistent() && !f.crashed() && f.bits(peer) == 0;
        if a.current() != b.current() || !quiet(&a, 1) || !quiet(&b, 0) || a.current() == 4 {
            return Ok(());
        }
        let different = differing_blocks(copies, |copies, n, s| copies.stable(n, s));
        match different.first() {
            None => Ok(()),
            Some(block) => {
                let s = block * 8;
                let story = format!(
                    "both media say generation {:016X} and note nothing, but {} blocks differ, first {block}: \
                     {:?} against {:?}",
                    a.current(),
                    different.len(),
                    (s..s + 8).map(|s| copies.stable(0, s)).collect::<Vec<_>>(),
                    (s..s + 8).map(|s| copies.stable(1, s)).collect::<Vec<_>>(),
                );
                Err(Violation::new("GI-1", story))
            }
        }
    }
}

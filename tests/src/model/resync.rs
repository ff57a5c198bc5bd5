//! RES: a target is marked as a mixture before it becomes one, and loses the mark only when it is none.

use super::{Check, Cluster, Copies, Replica, StableFacts, Violation};
use replicator::node::Role;

impl Cluster {
    /// RES-1 (and SB-3, where the target is the side that is given up): resync data is about to be written to this node's disk.
    pub fn resync_write(
        &self,
        target: usize,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        if facts(target).is_some_and(|f| f.consistent()) {
            let story = format!("node {target} writes resync data, and its medium says Consistent");
            return Err(Violation::new("RES-1", story));
        }
        Ok(())
    }

    /// A verdict is about to be carried out: what either medium has marked by now may be copied until the two are the same;
    /// everything, if it says so.
    pub fn may_copy(&mut self, full: bool, facts: &mut dyn FnMut(usize) -> Option<StableFacts>) {
        for n in 0..2 {
            let Some(facts) = facts(n) else { continue };
            for (s, marked) in (0..).step_by(8).zip(&mut self.marked) {
                *marked |= full || facts.covers(1 - n, s, 1);
            }
        }
    }

    /// RES-6: this node asks its source for these sectors: each was marked, or written since the two were the same.
    pub fn asks_for(
        &self,
        target: usize,
        start: u32,
        len: u32,
        written: impl Fn(u32) -> bool,
    ) -> Check {
        let mut blocks = start / 8..(start + len).div_ceil(8);
        match blocks.find(|&b| !self.marked[b as usize] && !written(b)) {
            Some(b) => {
                let story = format!("node {target} asks for block {b}, which nobody has marked");
                Err(Violation::new("RES-6", story))
            }
            None => Ok(()),
        }
    }

    /// RES-2: a target says UpToDate: its medium says so too, and holds all that its source had promised then.
    pub(super) fn finished(
        &self,
        target: usize,
        promised: &Replica,
        copies: &impl Copies,
        facts: &mut dyn FnMut(usize) -> Option<StableFacts>,
    ) -> Check {
        if facts(target).is_some_and(|f| !f.consistent()) {
            let story = format!("node {target} says UpToDate, and its medium says Inconsistent");
            return Err(Violation::new("RES-2", story));
        }
        // A target that is Primary has writes of its own, which no FLUSH has covered yet; its log does.
        let own = self.views[target].role == Role::Primary;
        let promised = if own { &promised.stable } else { &promised.cache };
        for s in 0..copies.sectors() {
            if copies.in_flight(target, s) {
                // DUR-1: this copy counts from now on, and no FLUSH would wait for what was acknowledged before.
                let floor = self.service[target][s as usize];
                if own && let Err(why) = self.history.judge(s, copies.visible(target, s), floor) {
                    let story =
                        format!("node {target} says UpToDate, with a write under way, and {why}");
                    return Err(Violation::new("DUR-1", story));
                }
                continue;
            }
            if let Err(why) = self.history.judge(s, copies.stable(target, s), promised[s as usize])
            {
                let story = format!("node {target} says UpToDate, but on its medium {why}");
                return Err(Violation::new("RES-2", story));
            }
        }
        Ok(())
    }
}

//! DUR and ORD: what was promised to be there is there, and nothing is there without what came before it.

use super::{Check, Cluster, Copies, Kind, OpId, Outcome, Violation};
use replicator::node::{DiskState, Protocol, Role};

impl Cluster {
    /// DUR-1, DUR-4: this acknowledged write is on the medium of this node.
    pub(super) fn must_be_stable(
        &self,
        node: usize,
        id: OpId,
        copies: &impl Copies,
        invariant: &'static str,
    ) -> Check {
        for s in self.history.op(id).sectors() {
            let floor = self.history.newer_of(id, self.replicas[node].stable[s as usize]);
            if let Err(why) = self.history.judge(s, copies.stable(node, s), floor) {
                let story = format!("acknowledged as stable, but on node {node}'s medium {why}");
                return Err(Violation::new(invariant, story));
            }
        }
        Ok(())
    }

    /// DUR-1: an acknowledged write is not still on its way to our own disk: this may be a target that counts by the time of
    /// the next FLUSH, and a FLUSH covers only what was completed before.
    pub(super) fn here_or_lost(&self, node: usize, id: OpId, copies: &impl Copies) -> Check {
        if self.views[node].disk < DiskState::Inconsistent {
            return Ok(());
        }
        for s in self.history.op(id).sectors().filter(|&s| copies.in_flight(node, s)) {
            if let Err(why) = self.history.judge(s, copies.visible(node, s), id) {
                let story = format!("acknowledged, and still on its way to node {node}: {why}");
                return Err(Violation::new("DUR-1", story));
            }
        }
        Ok(())
    }

    /// DUR-2, DUR-3, DUR-4: a copy that is to be served holds all that was promised of it.
    pub fn holds_promises(&self, node: usize, copies: &impl Copies) -> Check {
        let replica = &self.replicas[node];
        for s in 0..copies.sectors() {
            let token = copies.visible(node, s);
            if copies.in_flight(node, s) {
                continue;
            }
            let i = s as usize;
            if let Err(why) = self.history.judge(s, token, replica.memory[i]) {
                let flushed = self.history.judge(s, token, replica.stable[i]).is_err();
                let alone =
                    self.history.op(replica.stable[i]).node == node && self.alone_stable[node];
                let invariant = match (flushed, alone) {
                    (false, _) => "DUR-3",
                    (true, true) => "DUR-4",
                    (true, false) => "DUR-2",
                };
                return Err(Violation::new(invariant, format!("node {node} serves, but {why}")));
            }
        }
        Ok(())
    }

    /// DUR-3: a node tells facts, by which the peer may give its copy up: a power cut would take nothing any more.
    pub fn facts_stable(&self, node: usize, copies: &impl Copies) -> Check {
        if self.views[node].disk < DiskState::Outdated {
            return Ok(());
        }
        for (s, &floor) in (0..).zip(&self.replicas[node].memory) {
            if let Err(why) = self.history.judge(s, copies.stable(node, s), floor) {
                let story = format!("node {node} tells facts, but on its medium {why}");
                return Err(Violation::new("DUR-3", story));
            }
        }
        Ok(())
    }

    /// DUR-3, DUR-4, GI-5: a copy is about to be overwritten; nothing promised of it may be newer than the source.
    pub(super) fn newer_overwritten(&self, target: usize, copies: &impl Copies) -> Check {
        let source = 1 - target;
        if self.ordered() {
            return Ok(());
        }
        // Under A, a Secondary that took over lacks the last moments of the lost Primary, and goes on without them; under
        // B, and where a FLUSH does not reach the peer, too, if it lost what it had received.
        // What it did to another volume counts if that made a generation of this one, too.
        let ahead = self.views[source].current != self.views[target].current;
        let takes_over = self.views[source].role == Role::Primary
            || self.touched[source]
            || (self.elsewhere[source] && ahead)
            || self.took_over[source];
        let lossless = match self.protocol {
            Protocol::A => false,
            Protocol::B => self.kept_running[source],
            Protocol::C => self.flush_peer || self.kept_running[source],
        };
        if takes_over && !lossless {
            return Ok(());
        }
        let replica = &self.replicas[target];
        let all_kept = !self.lost_power[source]
            || (self.protocol == Protocol::C && self.kept_running[target] && !takes_over);
        for s in 0..copies.sectors() {
            let i = s as usize;
            let token = copies.visible(source, s);
            if copies.in_flight(source, s) {
                continue;
            }
            if let Err(why) = self.history.judge(s, token, replica.stable[i]) {
                let story =
                    format!("source {source} overwrites newer data of node {target}: {why}");
                return Err(Violation::new("DUR-4", story));
            }
            if all_kept && let Err(why) = self.history.judge(s, token, replica.memory[i]) {
                let story =
                    format!("source {source} overwrites newer data of node {target}: {why}");
                return Err(Violation::new("DUR-3", story));
            }
        }
        Ok(())
    }

    /// ORD-1, ORD-2: the copy of a node that followed a Primary is a prefix of what that Primary acknowledged: nothing
    /// sent after an acknowledgement (after a power cut: after a FLUSH) is there without what was acknowledged before.
    /// `since`: the stamp from which it followed.
    pub fn in_order(&self, node: usize, since: u64, powered: bool, copies: &impl Copies) -> Check {
        let of_stint = |id: OpId| {
            let op = self.history.op(id);
            op.node != node && op.invoked > since
        };
        let newest = (0..copies.sectors())
            .filter_map(|s| copies.visible(node, s).writer())
            .map(|(id, _)| id)
            .filter(|&id| of_stint(id))
            .max_by_key(|&id| self.history.op(id).invoked);
        let Some(newest) = newest else { return Ok(()) };
        let sent = self.history.op(newest).invoked;
        let before = if powered {
            sent
        } else {
            let flush = self.history.ops().filter(|(id, op)| {
                op.kind == Kind::Flush
                    && op.outcome == Outcome::Ok
                    && op.ended < sent
                    && of_stint(*id)
            });
            match flush.map(|(_, op)| op.invoked).max() {
                Some(invoked) => invoked,
                None => return Ok(()),
            }
        };
        let mut floor = vec![0; copies.sectors() as usize];
        for (id, op) in self.history.ops() {
            if op.writes() && op.outcome == Outcome::Ok && op.ended < before && of_stint(id) {
                for s in op.sectors() {
                    floor[s as usize] = self.history.newer_of(floor[s as usize], id);
                }
            }
        }
        for (s, &f) in (0..).zip(&floor) {
            if f != 0
                && let Err(why) = self.history.judge(s, copies.visible(node, s), f)
            {
                let story = format!(
                    "node {node} holds write #{newest} {:?}, but {why}",
                    self.history.op(newest)
                );
                return Err(Violation::new(if powered { "ORD-2" } else { "ORD-1" }, story));
            }
        }
        Ok(())
    }
}

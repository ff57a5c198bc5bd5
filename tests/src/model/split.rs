//! SB: a split brain is declared where there is one, and only there.

use super::{Check, Cluster, Violation};
use replicator::node::Role;

impl Cluster {
    /// SB-4: a node declares a split brain; `roles`: what both said they were.
    pub fn split_brain_declared(&self, roles: [Role; 2]) -> Check {
        // A Primary with good data is never made a target, even if it has written nothing (DESIGN 4.3).
        let untouchable = (0..2).any(|n| roles[n] == Role::Primary && self.touched[1 - n]);
        if self.may_be_split() || untouchable {
            return Ok(());
        }
        let story = format!(
            "a split brain was declared, but since the nodes were the same only {} accepted anything",
            match self.touched {
                [true, false] => "node 0",
                [false, true] => "node 1",
                _ => "neither",
            }
        );
        Err(Violation::new("SB-4", story))
    }

    /// SB-1: the nodes agreed that they are the same.
    pub(super) fn unnoticed_split(&self) -> Check {
        if self.alone == [true; 2] && !self.ordered() {
            let story = "both nodes acknowledged alone, and no split brain was declared";
            return Err(Violation::new("SB-1", story));
        }
        Ok(())
    }
}

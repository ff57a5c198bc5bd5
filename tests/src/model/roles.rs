//! ROLE: who may serve, and when it may stop.

use super::{Check, Cluster, Violation};
use replicator::node::{DiskState, Role};

impl Cluster {
    /// ROLE-1: two nodes that know each other are not both Primary.
    pub(super) fn two_primaries(&self, linked: bool) -> Check {
        let both = |f: fn(&super::View) -> bool| self.views.iter().all(f);
        if linked && both(|v| v.connected()) && both(|v| v.role == Role::Primary) {
            return Err(Violation::new("ROLE-1", "both nodes are connected and Primary"));
        }
        Ok(())
    }

    /// ROLE-5: only a Primary acknowledges.
    pub(super) fn acknowledging_role(&self, node: usize) -> Check {
        if self.views[node].role != Role::Primary {
            let story = format!("node {node} acknowledged and is {:?}", self.views[node].role);
            return Err(Violation::new("ROLE-5", story));
        }
        Ok(())
    }

    /// A node takes its leave of the peer: if it called itself Outdated, the peer goes on counting on that.
    pub fn leaves(&mut self, node: usize) {
        self.outdated[node] |= self.views[node].disk == DiskState::Outdated;
    }

    /// A node carries out a verdict: if it called itself Outdated, that may be lifted.
    pub fn meets(&mut self, node: usize) {
        self.met[node] |= self.acting(node).disk == DiskState::Outdated;
    }

    /// ROLE-2: Outdated survives a restart. A node attached a disk and calls it UpToDate.
    pub(super) fn came_back_good(&self, node: usize) -> Check {
        if self.outdated[node] && !self.forced[node] {
            let story = format!("node {node} was Outdated, and is UpToDate after a restart");
            return Err(Violation::new("ROLE-2", story));
        }
        Ok(())
    }

    /// ROLE-2: what was Outdated does not become Primary by forgetting it.
    pub(super) fn remembers_outdated(&mut self, node: usize) -> Check {
        if self.forced[node] {
            self.outdated[node] = false;
        }
        if self.outdated[node] && !self.views[node].peer_good() {
            let story =
                format!("node {node} was Outdated, nobody updated it, and it became Primary");
            return Err(Violation::new("ROLE-2", story));
        }
        Ok(())
    }

    /// ROLE-3: a node says that it was demoted.
    pub fn demoted(&self, node: usize) -> Check {
        let open = self.history.open().find(|(_, op)| op.node == node);
        if let Some((id, op)) = open {
            let story =
                format!("node {node} says it is Secondary, and #{id} {op:?} is not answered");
            return Err(Violation::new("ROLE-3", story));
        }
        Ok(())
    }
}

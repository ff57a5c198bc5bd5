//! What is true after every event, checked in release too: a node that finds itself wrong ends at once, and the peer takes over.

use super::types::{ConnectionState, DiskState, Role};
use super::{Node, Op};

impl Node {
    pub(super) fn check(&self) {
        let limits = &self.config.limits;
        assert!(self.unanswered <= limits.requests, "LIM: requests");
        assert!(self.work.is_empty(), "every step was taken");
        if self.role == Role::Secondary && !self.demoting() {
            assert!(
                self.requests.is_empty() || self.ops.values().any(|op| matches!(op, Op::Client(_))),
                "ROLE-5: a Secondary has no request that is not being given up"
            );
        }
        for (p, peer) in self.peers.iter().enumerate() {
            assert_eq!(
                peer.state >= ConnectionState::Connecting,
                peer.link.is_some(),
                "a link is there exactly when the state says so"
            );
            if !peer.connected() {
                assert!(
                    peer.awaited.is_empty() && peer.unflushed.is_empty(),
                    "NET-1: nothing outlives its link"
                );
            }
            for (v, volume) in peer.volumes.iter().enumerate() {
                if volume.target.is_some() {
                    assert_eq!(
                        self.volumes[v].state,
                        DiskState::Inconsistent,
                        "RES-1: a target is Inconsistent"
                    );
                }
                assert!(!volume.granted || peer.connected(), "a grant ends with its link");
            }
            debug_assert!(
                self.slot(p, 0).is_some() || self.volumes[0].meta.is_none(),
                "a peer has its slot"
            );
        }
        for volume in &self.volumes {
            assert_eq!(
                volume.usable(),
                volume.meta.is_some() && volume.state != DiskState::Attaching,
                "a usable disk has its metadata in memory"
            );
        }
        debug_assert!(self.locks.len() <= self.ops.len(), "a lock belongs to an operation");
    }
}

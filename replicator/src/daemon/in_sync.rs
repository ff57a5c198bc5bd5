//! When the two copies of a volume were last known to be equal: what tells a monitor how old the
//! other copy is. Only watched, after each turn of the loop; nothing is decided by it.

use super::snapshot::InSync;
use crate::node::{Node, Time, VolumeNumber};
use bitmap::NodeId;
use std::time::Duration;

/// Of one volume and peer.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// Not since the process started.
    Never,
    /// They are now.
    Now,
    /// Not any more since then.
    Until(Time),
}

/// All volumes and peers, as the node lists them.
#[derive(Debug, Default)]
pub(super) struct Watch(Vec<(NodeId, VolumeNumber, Last)>);

impl Watch {
    /// After the node has handled what came.
    pub(super) fn note(&mut self, node: &Node, now: Time) {
        for (at, (peer, volume, is_in_sync)) in node.in_sync().enumerate() {
            if self.0.len() == at {
                self.0.push((peer, volume, Last::Never));
            }
            let last = &mut self.0[at].2;
            *last = match *last {
                _ if is_in_sync => Last::Now,
                Last::Now => Last::Until(now),
                last => last,
            };
        }
    }

    /// How long ago that was.
    pub(super) fn told(&self, now: Time) -> Vec<InSync> {
        let ago = |last| match last {
            Last::Never => None,
            Last::Now => Some(Duration::ZERO),
            Last::Until(then) => Some(Duration::from_nanos(now.0.saturating_sub(then.0))),
        };
        self.0.iter().map(|&(peer, volume, last)| InSync { peer, volume, ago: ago(last) }).collect()
    }
}

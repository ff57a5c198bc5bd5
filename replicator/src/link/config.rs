//! What a link needs to know: who we are, where the peers are, secrets, and every bound.

use super::error::StartError;
use crate::wire::{Integrity, MAX_RESOURCE_NAME};
use bitmap::NodeId;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// LIM: bytes queued on one link and not yet taken by its socket, unless the node may have more on the way.
pub const SEND_BYTES: usize = 256 << 20;

/// LIM: connections accepted and not yet authenticated. Half of them are kept for the addresses of peers.
pub(super) const UNAUTHENTICATED: usize = 16;

/// LIM: links that are being closed in the background; one more is cut.
pub(super) const CLOSING: usize = 8;

/// How long a closed link may take to send what is left.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The links of one resource.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Our node-id.
    pub me: NodeId,
    /// Random number of this process (`Node::incarnation`).
    pub incarnation: u64,
    /// Name of the resource; equal on all nodes, at most `MAX_RESOURCE_NAME` bytes.
    pub resource: String,
    /// Our `address`: listened on if a peer has a lower node-id, and the source address of what we dial.
    pub listen: SocketAddr,
    /// The peers.
    pub peers: Vec<PeerAddress>,
    /// `net { shared-secret }`; with it, both ends must prove that they know it.
    pub secret: Option<Secret>,
    /// `net { data-integrity-alg }`; equal on all nodes.
    pub integrity: Integrity,
    /// Bytes queued on one link and not yet taken by its socket; more breaks the link. The node keeps well below:
    /// `config::Limits::peer_bytes`, plus answers to `resync_bytes` of the peer. The peer's reads wait while
    /// `read_ahead` of it is owed or queued.
    pub send_bytes: usize,
    /// Times.
    pub timing: LinkTiming,
}

/// Where a peer listens.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress {
    /// Its node-id.
    pub node: NodeId,
    /// Its `address`.
    pub address: SocketAddr,
}

/// A shared secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes of the configuration's text; not empty.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Every time a link waits for something.
#[derive(Clone, Copy, Debug)]
pub struct LinkTiming {
    /// From the first packet to the end of the handshake.
    pub hello: Duration,
    /// How long an authenticated connection waits for the other end's node to want it.
    pub wait: Duration,
    /// Bytes sent and not acknowledged by the peer's kernel for this long end the connection (`TCP_USER_TIMEOUT`). The
    /// node's pings find a dead peer earlier; not below `ping_interval + ping_timeout`.
    pub user: Duration,
}

impl Default for LinkTiming {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(5),
            wait: Duration::from_secs(5),
            user: Duration::from_secs(10),
        }
    }
}

impl LinkConfig {
    /// Refuses what the operator must change.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let bad = |what: &str| Err(StartError::Config(what.into()));
        if self.resource.is_empty() || self.resource.len() > MAX_RESOURCE_NAME {
            return bad("a resource name has 1 to 128 bytes");
        }
        if self.secret.as_ref().is_some_and(|secret| secret.bytes().is_empty()) {
            return bad("the shared-secret is empty");
        }
        for (at, peer) in self.peers.iter().enumerate() {
            if peer.node == self.me || self.peers[..at].iter().any(|other| other.node == peer.node)
            {
                return bad("two nodes have the same node-id");
            }
        }
        Ok(())
    }

    /// Bytes queued, or owed in answer to the peer's reads, at which its next read waits. More than the node's own writes
    /// ever fill, or a resync would stand still while clients write.
    pub(super) fn read_ahead(&self) -> usize {
        self.send_bytes / 4 * 3
    }

    /// The peers that dial us.
    pub(super) fn dialing_peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().map(|peer| peer.node).filter(|&node| node < self.me)
    }

    /// Does this address belong to a peer?
    pub(super) fn is_peer_address(&self, from: SocketAddr) -> bool {
        self.peers.iter().any(|peer| peer.address.ip() == from.ip().to_canonical())
    }
}

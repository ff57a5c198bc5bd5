//! What must be true of a mirrored device, whoever runs it: one file for each family of invariants.
//!
//! The reading order is the data flow: `token` (what a sector holds), `history` (what clients asked and were told),
//! `replica` (what each copy must hold because of that), `view` (what the nodes say about themselves), `cluster` (all
//! of it together); then the families: `durability`, `reads`, `generations`, `split`, `roles`, `coverage`, `resync`.
//! Nothing here knows the node's code, the simulator or a socket.

mod cluster;
mod coverage;
mod durability;
mod generations;
mod history;
mod reads;
mod replica;
mod resync;
mod roles;
mod split;
#[cfg(test)]
mod tests;
mod token;
mod view;

pub use cluster::{Cluster, Order};
pub use coverage::{Committing, differing_blocks, same_content};
pub use generations::StableFacts;
pub use history::{History, Kind, Op, OpId, Outcome};
pub use replica::Replica;
pub use split::Parted;
pub use token::Token;
pub use view::View;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its ID, as in docs/guarantees.md.
    pub invariant: &'static str,
    /// What was seen, in one or a few lines.
    pub story: String,
}

impl Violation {
    /// A violation of `invariant`, with its story.
    pub fn new(invariant: &'static str, story: impl Into<String>) -> Self {
        Self { invariant, story: story.into() }
    }
}

/// Outcome of a check.
pub type Check = Result<(), Violation>;

/// What the two data areas hold now. Sectors are counted in 512 bytes from the start of the volume.
pub trait Copies {
    /// What a read of this node's disk would return.
    fn visible(&self, node: usize, sector: u32) -> Token;
    /// What this node's disk would return after a power cut now, if its cache were lost.
    fn stable(&self, node: usize, sector: u32) -> Token;
    /// Whether a write to this sector of this node's disk is under way.
    fn in_flight(&self, node: usize, sector: u32) -> bool;
    /// Sectors of the volume.
    fn sectors(&self) -> u32;
}

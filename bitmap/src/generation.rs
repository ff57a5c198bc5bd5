//! Generation identifiers and how they rotate. The rules are methods on [`Superblock`], because
//! a rotation touches current, slots and history together. What the identifiers mean for a
//! handshake is not decided here.

use crate::geometry::NodeId;
use crate::superblock::{SlotKind, Superblock};
use alloc::vec::Vec;
use core::fmt;

/// One generation of the data. Two nodes with the same current generation once held the same data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

impl Generation {
    /// No generation: an empty slot or the unused end of the history.
    pub const NONE: Self = Self(0);
    /// The current generation of a device that never held data worth replicating.
    pub const JUST_CREATED: Self = Self(4);

    /// Whether this names a generation of data, so that it is worth remembering.
    pub fn is_real(self) -> bool {
        self != Self::NONE && self != Self::JUST_CREATED
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Superblock {
    /// The slot of a peer.
    pub fn slot_of(&self, node: NodeId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.kind == SlotKind::Peer && slot.node == node)
    }

    /// The history without its empty places, newest first.
    pub fn past(&self) -> Vec<Generation> {
        self.history.iter().copied().filter(|generation| generation.is_real()).collect()
    }

    /// Was this generation once the data here, or is it?
    pub fn descends_from(&self, generation: Generation) -> bool {
        let left = self.slots.iter().map(|slot| slot.bitmap_uuid);
        let mut known = left.chain(self.history).chain([self.current]);
        !generation.is_real() || known.any(|it| it == generation)
    }

    /// Starts the generation `new`. Every peer that `lacks` says may miss what follows keeps the
    /// generation it last shared with us as its bitmap UUID; one it already has stays, since that
    /// is the older and hence the right one. A peer that lacks what a just-created device gets
    /// written is marked with `JUST_CREATED`, so that its slot is not taken for "in sync" (GI-2).
    pub fn mint(&mut self, new: Generation, lacks: impl Fn(NodeId) -> bool) {
        let old = self.current;
        let mark = if old.is_real() { old } else { Generation::JUST_CREATED };
        for slot in &mut self.slots {
            let empty = slot.kind == SlotKind::Peer && slot.bitmap_uuid == Generation::NONE;
            if empty && lacks(slot.node) {
                slot.bitmap_uuid = mark;
            }
        }
        self.current = new;
        if !self.slots.iter().any(|slot| slot.bitmap_uuid == old) {
            self.remember(old);
        }
    }

    /// The peer now holds what we hold: its bitmap UUID moves into the history.
    pub fn peer_in_sync(&mut self, node: NodeId) {
        let Some(index) = self.slot_of(node) else {
            return;
        };
        let shared = core::mem::replace(&mut self.slots[index].bitmap_uuid, Generation::NONE);
        self.remember(shared);
    }

    /// Takes over the generation of the node we now equal, with its history. The source's
    /// history goes before our own: it is the line the data now belongs to.
    pub fn adopt(&mut self, current: Generation, history: &[Generation]) {
        let old = core::mem::replace(&mut self.current, current);
        let ours = core::mem::replace(&mut self.history, [Generation::NONE; HISTORY]);
        let mut known = 0;
        for &generation in core::iter::once(&old).chain(history).chain(&ours) {
            let new = generation.is_real()
                && generation != current
                && !self.history[..known].contains(&generation);
            if new && known < HISTORY {
                self.history[known] = generation;
                known += 1;
            }
        }
        for slot in &mut self.slots {
            if slot.bitmap_uuid == current {
                slot.bitmap_uuid = Generation::NONE;
            }
        }
    }

    /// Puts a generation at the head of the history, unless it is there or says nothing.
    fn remember(&mut self, generation: Generation) {
        let new = generation.is_real()
            && generation != self.current
            && !self.history.contains(&generation);
        if new {
            self.history.rotate_right(1);
            self.history[0] = generation;
        }
    }
}

/// Generations kept in the history.
pub(crate) const HISTORY: usize = 32;

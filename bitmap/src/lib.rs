//! What a node writes beside the data: the superblock with the generation identifiers, the
//! activity log, and one dirty bitmap per peer.
//!
//! Pure: it encodes, decodes and decides what must be written, and returns that as values. It
//! does no I/O, knows no clock and no network, and takes no decision about replication.
//!
//! [`Metadata`] is the whole of one volume's metadata and the only way to change it durably;
//! [`Opening`] is the only way to read it back.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod activity;
mod codec;
mod commit;
mod dirty;
mod dump;
mod format;
mod generation;
mod geometry;
mod journal;
mod layout;
mod metadata;
mod opening;
mod slot_bits;
mod superblock;
mod unit;

#[cfg(test)]
mod tests;

pub use activity::Activation;
pub use codec::{Field, SECTOR};
pub use commit::{Bytes, Commit, MetaWrite, Ticket};
pub use dirty::{DirtyBitmap, LEAF_BITS};
pub use format::FormatParams;
pub use generation::Generation;
pub use geometry::{ByteRange, Geometry, NodeId};
pub use layout::{AREA_ALIGN, COPY_DISTANCE, Layout, LayoutError, Placement};
pub use metadata::Metadata;
pub use opening::{OpenError, OpenStep, Opened, Opening};
pub use superblock::{
    DeviceFlags, FORMAT_VERSION, MAX_SLOTS, SUPERBLOCK_SIZE, Slot, SlotFlags, SlotKind, Superblock,
};

/// The fields of every on-disk record, by the record's name, in order of offset.
pub const RECORDS: [(&str, &[Field]); 5] = [
    ("superblock", superblock::FIELDS),
    ("superblock slot", superblock::SLOT_FIELDS),
    ("log sector", journal::FIELDS),
    ("log update", journal::UPDATE_FIELDS),
    ("bitmap sector", unit::FIELDS),
];

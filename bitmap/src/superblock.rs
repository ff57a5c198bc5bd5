//! The superblock: one 4096-byte record, kept in two copies, that says what the device is, which
//! generation its data has, and what each peer's slot means. Its bytes are in `superblock/record.rs`,
//! its rules in `generation.rs`; when it is written is decided in `metadata.rs`.

mod record;

use crate::codec::flags;
use crate::generation::{Generation, HISTORY};
use crate::geometry::{Geometry, NodeId};
use crate::layout::{Layout, LayoutError, Placement};
use alloc::vec::Vec;
#[cfg(test)]
pub(crate) use record::CRC;
pub(crate) use record::{FIELDS, IMPOSSIBLE_SEQUENCE, SLOT_FIELDS, Unusable};

/// Most slots a superblock has room for: every other node of a full resource.
pub const MAX_SLOTS: usize = 31;

/// Bytes of one copy.
pub const SUPERBLOCK_SIZE: usize = 4096;
/// Version of the whole metadata format. What an older program may not touch gets a feature bit;
/// what it cannot even read gets a new version.
pub const FORMAT_VERSION: u32 = 1;

/// Everything durable about a volume that is not the log and not the bitmaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Random, made by create-md; every metadata sector carries it, so that none of an earlier
    /// life of the device is believed.
    pub device_uuid: u64,
    /// The node this metadata belongs to.
    pub node_id: NodeId,
    /// Counts updates; the newer of two valid copies wins.
    pub sequence: u64,
    /// Where the metadata lies.
    pub placement: Placement,
    /// Bytes of the device or file that holds the metadata.
    pub device_size: u64,
    /// Bytes the layout has for data; `geometry.size` is at most that.
    pub data_size: u64,
    /// Shape of the data area.
    pub geometry: Geometry,
    /// Counts resizes of the resource.
    pub resize_generation: u32,
    /// Slots of the activity log.
    pub al_slots: u32,
    /// 512-byte sectors of the activity log ring.
    pub al_sectors: u32,
    /// Log sectors with a lower sequence number were durable when this record was written. A log
    /// that does not reach it lost writes.
    pub log_floor: u64,
    /// State of this node's disk.
    pub flags: DeviceFlags,
    /// Nodes that belong to the resource, one bit each.
    pub members: u32,
    /// The generation of our data; of the target of an unfinished resync, the one since which its
    /// source marks what it lacks (RES-4).
    pub current: Generation,
    /// Dagtag up to which a diskless Primary's writes were seen.
    pub exposed_dagtag: u64,
    /// Former generations, newest first, `NONE` behind the last.
    pub history: [Generation; HISTORY],
    /// One per dirty bitmap. The number is fixed by create-md.
    pub slots: Vec<Slot>,
    /// Features an older version may ignore, and lose by rewriting the superblock.
    pub compat: u32,
    /// Features an older version may ignore while it only reads.
    pub ro_compat: u32,
    /// Features without which nothing here may be believed.
    pub incompat: u32,
}

flags! {
    /// State of this node's disk.
    DeviceFlags {
        /// The data is a state some Primary once had, not a mixture.
        consistent,
        /// The data was up to date when last seen.
        was_up_to_date,
        /// A Primary may write here: the activity log matters at attach.
        primary_ind,
        /// This node was Primary and did not stop cleanly.
        crashed_primary,
        /// The activity log was applied.
        al_clean,
        /// The resource had quorum.
        have_quorum,
        /// This node was Primary and lost quorum.
        primary_lost_quorum,
    }
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Nothing.
    Free,
    /// The blocks a peer may lack.
    Peer,
    /// The blocks changed since a named moment.
    Named,
}

/// One dirty bitmap's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Use of the slot.
    pub kind: SlotKind,
    /// The peer.
    pub node: NodeId,
    /// The generation we last shared with the peer; `NONE` if it shares our current one.
    pub bitmap_uuid: Generation,
    /// Dagtag at which `bitmap_uuid` was set.
    pub dagtag: u64,
    /// What is known of the peer.
    pub flags: SlotFlags,
    /// Units of another epoch do not count. Only `Metadata` changes it.
    pub epoch: u32,
    /// What a unit not written in this epoch holds: all set, or all clear. Only `Metadata`
    /// changes it.
    pub default_set: bool,
}

flags! {
    /// What is known of a peer.
    SlotFlags {
        /// The peer is an intentionally diskless node.
        no_bitmap,
        /// The peer's data is known to be outdated.
        outdated,
        /// The peer is to be fenced.
        fencing,
        /// The peer needs every block.
        full_sync,
        /// The peer was seen with a disk.
        device_seen,
        /// The peer was declared lost for good.
        lost_member,
    }
}

impl Superblock {
    /// Where everything else lies.
    pub(crate) fn layout(&self) -> Result<Layout, LayoutError> {
        let data_size = (self.placement == Placement::External).then_some(self.data_size);
        Layout::new(
            self.placement,
            self.device_size,
            data_size,
            self.slots.len() as u8,
            self.al_slots,
            self.al_sectors,
            self.geometry.block_size,
        )
    }
}

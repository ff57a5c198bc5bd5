//! create-md: fresh metadata, and the writes that put it on disk.

use crate::activity::ActivityLog;
use crate::commit::{Bytes, MetaWrite, join};
use crate::generation::{Generation, HISTORY};
use crate::geometry::{Geometry, NodeId};
use crate::journal::Journal;
use crate::layout::{AREA_ALIGN, Layout, LayoutError, Placement, check_geometry};
use crate::metadata::{Metadata, fresh_slots, ring_of};
use crate::superblock::{DeviceFlags, SUPERBLOCK_SIZE, Slot, SlotFlags, SlotKind, Superblock};
use alloc::vec;
use alloc::vec::Vec;

/// What create-md is asked to make.
#[derive(Clone, Debug)]
pub struct FormatParams {
    /// Where the metadata goes.
    pub placement: Placement,
    /// Bytes of the device or file that holds the metadata.
    pub device_size: u64,
    /// Bytes of the data device, if it is another one.
    pub data_size: Option<u64>,
    /// Bytes the volume shall have at most; `None`: as many as there are for data.
    pub size: Option<u64>,
    /// Our node.
    pub node_id: NodeId,
    /// A random number, never used before.
    pub device_uuid: u64,
    /// The peers, one slot each.
    pub slots: Vec<NodeId>,
    /// Slots of the activity log; 1237 is usual.
    pub al_slots: u32,
    /// 512-byte sectors of the activity log ring; 256 is usual.
    pub al_sectors: u32,
    /// Bytes that one bit stands for; 4096 is usual.
    pub block_size: u32,
    /// Bytes of an activity log extent; 4 MiB is usual.
    pub extent_size: u32,
    /// Smallest unit of I/O, in bytes.
    pub logical_block_size: u32,
}

impl Metadata {
    /// Fresh metadata, and the stages that create it on disk: just created, not consistent, every
    /// bit set. What was there is made unreadable first and the superblocks come last, so that a
    /// crash leaves the old metadata, none, or the new.
    ///
    /// # Errors
    /// A parameter out of range, or a device too small.
    pub fn format(params: FormatParams) -> Result<(Self, Vec<Vec<MetaWrite>>), LayoutError> {
        let nodes = core::iter::once(params.node_id).chain(params.slots.iter().copied());
        let members = members(nodes)?;
        let slot = |&node: &NodeId| Slot {
            kind: SlotKind::Peer,
            node,
            bitmap_uuid: Generation::NONE,
            dagtag: 0,
            flags: SlotFlags::default(),
            epoch: 1,
            // Nobody knows what the peer holds.
            default_set: true,
        };
        let slots = params.slots.iter().map(slot).collect();
        let layout = Layout::new(
            params.placement,
            params.device_size,
            params.data_size,
            params.slots.len() as u8,
            params.al_slots,
            params.al_sectors,
            params.block_size,
        )?;
        // Not the layout: what is there for data can be used later without moving anything.
        let size = params.size.map_or(u64::MAX, |size| size / AREA_ALIGN * AREA_ALIGN);
        let geometry = Geometry {
            size: size.min(layout.data_size()),
            block_size: params.block_size,
            extent_size: params.extent_size,
            logical_block_size: params.logical_block_size,
        };
        check_geometry(&geometry)?;
        let superblock = Superblock {
            device_uuid: params.device_uuid,
            node_id: params.node_id,
            sequence: 1,
            placement: params.placement,
            device_size: params.device_size,
            data_size: layout.data_size(),
            geometry,
            resize_generation: 0,
            al_slots: params.al_slots,
            al_sectors: params.al_sectors,
            log_floor: u64::from(params.al_sectors) + 1,
            flags: DeviceFlags::default(),
            members,
            current: Generation::JUST_CREATED,
            exposed_dagtag: 0,
            history: [Generation::NONE; HISTORY],
            slots,
            compat: 0,
            ro_compat: 0,
            incompat: 0,
        };
        let (journal, ring) = Journal::format(ring_of(&superblock));
        let log = ActivityLog::new(params.al_slots);
        let bitmaps = fresh_slots(&superblock);
        let mut metadata = Self::assemble(superblock, layout, bitmaps, log, journal);

        let copies = layout.superblocks();
        let zeros = |offset, len| MetaWrite { offset, bytes: Bytes::Zeros(len) };
        let wipe = copies.map(|offset| zeros(offset, SUPERBLOCK_SIZE as u64)).to_vec();
        let area = layout.slots_area(params.slots.len());
        let clean = if area.is_empty() { vec![] } else { vec![zeros(area.start, area.len())] };
        let place = |(position, sector)| (layout.log_sector(position), sector);
        let mut sectors: Vec<_> = ring.into_iter().map(place).collect();
        sectors.extend(metadata.summary_sectors());
        let copy = |n: usize| vec![metadata.superblock_write(copies[n])];
        let mut stages = vec![wipe, clean, join(sectors), copy(0), copy(1)];
        stages.retain(|stage| !stage.is_empty());
        Ok((metadata, stages))
    }
}

/// The members mask of a resource.
fn members(nodes: impl Iterator<Item = NodeId>) -> Result<u32, LayoutError> {
    let mut mask = 0_u32;
    for NodeId(id) in nodes {
        if id > NodeId::MAX.0 {
            return Err(LayoutError::Parameter("a node id is at most 31"));
        }
        if mask >> id & 1 == 1 {
            return Err(LayoutError::Parameter("every node has its own id"));
        }
        mask |= 1 << id;
    }
    Ok(mask)
}

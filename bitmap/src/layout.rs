//! Where each part of the metadata lies, and which sizes are legal. Offsets are absolute in the
//! device or file that holds the metadata; every area starts at a multiple of 4096.
//!
//! ```text
//! internal:  data | slot 0: summary, units | slot 1 | .. | log | copy 1 | unused | copy 0
//! external:  copy 0 | unused | copy 1 | log | slot 0: summary, units | slot 1 | ..
//! ```

use crate::codec::SECTOR;
use crate::dirty::LEAF_BITS;
use crate::geometry::{ByteRange, Geometry};
use crate::journal;
use crate::superblock::{MAX_SLOTS, SUPERBLOCK_SIZE};
use thiserror::Error;

/// Alignment of every area, so that metadata and data never share a page.
pub const AREA_ALIGN: u64 = 4096;
/// Distance between the starts of the two superblock copies: further than one flash page or
/// track is likely to take with it.
pub const COPY_DISTANCE: u64 = 64 * 1024;
/// Most slots of the activity log: a slot number has 16 bits.
const MAX_AL_SLOTS: u32 = 65_534;
/// Most sectors of the log ring: it is read whole at attach.
const MAX_AL_SECTORS: u32 = 65_536;

/// Where the metadata of a volume lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the end of the device that holds the data.
    Internal,
    /// In a device or file of its own, from offset 0.
    External,
}

/// A layout that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// The device or file is too small.
    #[error("the device or file has {found} bytes, at least {needed} are needed")]
    TooSmall {
        /// Bytes needed, at least.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A parameter is out of its range.
    #[error("{0}")]
    Parameter(&'static str),
}

/// The place of every metadata area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    superblocks: [u64; 2],
    log: u64,
    slots: u64,
    slot_stride: u64,
    summary_bytes: u64,
    data_size: u64,
    area: ByteRange,
}

impl Layout {
    /// The layout for a device or file of `device_size` bytes. `data_size` is the size of the
    /// data device, given exactly when the placement is external.
    pub fn new(
        placement: Placement,
        device_size: u64,
        data_size: Option<u64>,
        slots: u8,
        al_slots: u32,
        al_sectors: u32,
        block_size: u32,
    ) -> Result<Self, LayoutError> {
        use LayoutError::Parameter;
        if usize::from(slots) > MAX_SLOTS {
            return Err(Parameter("at most 31 slots"));
        }
        if al_slots == 0 || al_slots > MAX_AL_SLOTS {
            return Err(Parameter("the activity log has 1 to 65534 slots"));
        }
        if al_sectors < journal::least_sectors(al_slots) || al_sectors > MAX_AL_SECTORS {
            return Err(Parameter(
                "the activity log ring is too small for its slots, or too large",
            ));
        }
        if !block_size.is_power_of_two() || !(4096..=1 << 20).contains(&block_size) {
            return Err(Parameter("a bit stands for a power of two from 4 KiB to 1 MiB"));
        }
        // Internal metadata has bits for its own area too: that costs a 30000th of itself, and
        // spares a sum that chases its own tail.
        let covered = match (placement, data_size) {
            (Placement::Internal, None) => device_size,
            (Placement::External, Some(size)) => size,
            _ => {
                return Err(Parameter("the data size is given for external metadata only"));
            }
        };
        let units = covered.div_ceil(u64::from(block_size)).div_ceil(LEAF_BITS);
        if units > u64::from(u32::MAX) {
            return Err(Parameter("the device is too large for this block size"));
        }
        let summary_bytes = area(units.div_ceil(LEAF_BITS));
        let slot_stride = summary_bytes + area(units);
        let log_bytes = area(u64::from(al_sectors));
        let superblocks_bytes = COPY_DISTANCE + SUPERBLOCK_SIZE as u64;
        let needed = superblocks_bytes + log_bytes + u64::from(slots) * slot_stride;

        let least = needed + if placement == Placement::Internal { AREA_ALIGN } else { 0 };
        let usable = device_size / AREA_ALIGN * AREA_ALIGN;
        let too_small = LayoutError::TooSmall { needed: least, found: device_size };
        let superblocks = Self::superblock_offsets(device_size, placement).ok_or(too_small)?;
        if usable < least {
            return Err(too_small);
        }
        let (log, slots_at, data_size, area) = match placement {
            Placement::Internal => {
                let log = superblocks[1] - log_bytes;
                let start = usable - needed;
                (log, start, start, ByteRange { start, end: device_size })
            }
            Placement::External => {
                let log = superblocks_bytes;
                let data = covered / AREA_ALIGN * AREA_ALIGN;
                (log, log + log_bytes, data, ByteRange { start: 0, end: needed })
            }
        };
        if data_size == 0 {
            return Err(Parameter("the data area is smaller than 4096 bytes"));
        }
        Ok(Self { superblocks, log, slots: slots_at, slot_stride, summary_bytes, data_size, area })
    }

    /// Bytes there are for data; a multiple of 4096.
    pub fn data_size(&self) -> u64 {
        self.data_size
    }

    /// Offsets of superblock copy 0 and copy 1, known from the size alone; `None` if the device
    /// is too small to have them.
    pub fn superblock_offsets(device_size: u64, placement: Placement) -> Option<[u64; 2]> {
        let size = SUPERBLOCK_SIZE as u64;
        let usable = device_size / AREA_ALIGN * AREA_ALIGN;
        if usable < COPY_DISTANCE + size {
            return None;
        }
        Some(match placement {
            Placement::Internal => [usable - size, usable - size - COPY_DISTANCE],
            Placement::External => [0, COPY_DISTANCE],
        })
    }

    /// Everything the metadata occupies, in its device or file. For internal metadata this goes
    /// to the end of the device.
    pub fn metadata_area(&self) -> ByteRange {
        self.area
    }

    /// Offsets of the superblock copies.
    pub(crate) fn superblocks(&self) -> [u64; 2] {
        self.superblocks
    }

    /// Offset of one sector of the log ring.
    pub(crate) fn log_sector(&self, position: u32) -> u64 {
        self.log + sectors(u64::from(position))
    }

    /// Offset of one summary sector.
    pub(crate) fn summary(&self, slot: usize, index: u32) -> u64 {
        self.slots + slot as u64 * self.slot_stride + sectors(u64::from(index))
    }

    /// Offset of one bitmap unit.
    pub(crate) fn unit(&self, slot: usize, index: u32) -> u64 {
        self.summary(slot, 0) + self.summary_bytes + sectors(u64::from(index))
    }

    /// The slots' areas, that is everything create-md fills with zeros.
    pub(crate) fn slots_area(&self, slots: usize) -> ByteRange {
        ByteRange::new(self.slots, slots as u64 * self.slot_stride)
    }
}

/// Whether the shape of a data area is legal.
pub(crate) fn check_geometry(geometry: &Geometry) -> Result<(), LayoutError> {
    use LayoutError::Parameter;
    let Geometry { size, block_size, extent_size, logical_block_size } = *geometry;
    if size == 0 || !size.is_multiple_of(AREA_ALIGN) {
        return Err(Parameter("the data area is a positive multiple of 4096 bytes"));
    }
    if !extent_size.is_power_of_two() || extent_size < block_size || extent_size > 1 << 30 {
        return Err(Parameter("an extent is a power of two from a block to 1 GiB"));
    }
    if size.div_ceil(u64::from(extent_size)) >= u64::from(u32::MAX) {
        return Err(Parameter("the device is too large for this extent size"));
    }
    if !logical_block_size.is_power_of_two() || !(512..=4096).contains(&logical_block_size) {
        return Err(Parameter("a logical block is a power of two from 512 to 4096 bytes"));
    }
    Ok(())
}

fn sectors(count: u64) -> u64 {
    count * SECTOR as u64
}

/// Bytes of an area of `count` sectors.
fn area(count: u64) -> u64 {
    sectors(count).div_ceil(AREA_ALIGN) * AREA_ALIGN
}

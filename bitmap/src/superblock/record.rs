//! The superblock's bytes: fixed little-endian fields in 4096 bytes, sealed by a checksum. What
//! they mean is `superblock.rs`.

use super::Superblock;
use super::{DeviceFlags, FORMAT_VERSION, MAX_SLOTS, SUPERBLOCK_SIZE, Slot, SlotFlags, SlotKind};
use crate::codec::{is_sealed, record, seal};
use crate::generation::{Generation, HISTORY};
use crate::geometry::{Geometry, NodeId};
use crate::journal::SEQUENCE_LIMIT;
use crate::layout::{Placement, check_geometry};
use alloc::vec;
use alloc::vec::Vec;

/// Features this program knows; none yet.
const KNOWN_COMPAT: u32 = 0;
const KNOWN_RO_COMPAT: u32 = 0;
const KNOWN_INCOMPAT: u32 = 0;

/// Why what counts further than any disk lives is refused.
pub(crate) const IMPOSSIBLE_SEQUENCE: &str = "an impossible sequence number";

const MAGIC: u64 = u64::from_le_bytes(*b"PolluxSB");
const SLOT_SIZE: usize = 64;

record! {
    /// The fields of the superblock.
    FIELDS:
    MAGIC_F = "magic", 0, 8;
    VERSION = "version", 8, 4;
    CRC = "crc32", 12, 4;
    OFFSET = "offset", 16, 8;
    SEQUENCE = "sequence", 24, 8;
    DEVICE = "device_uuid", 32, 8;
    COMPAT = "compat", 40, 4;
    RO_COMPAT = "ro_compat", 44, 4;
    INCOMPAT = "incompat", 48, 4;
    NODE = "node_id", 52, 1;
    PLACEMENT = "placement", 53, 1;
    SLOT_COUNT = "slot_count", 54, 1;
    RESERVED_0 = "reserved", 55, 1;
    SIZE = "size", 56, 8;
    DEVICE_SIZE = "device_size", 64, 8;
    DATA_SIZE = "data_size", 72, 8;
    BLOCK_SIZE = "block_size", 80, 4;
    EXTENT_SIZE = "extent_size", 84, 4;
    LOGICAL = "logical_block_size", 88, 4;
    RESIZE = "resize_generation", 92, 4;
    AL_SLOTS = "al_slots", 96, 4;
    AL_SECTORS = "al_sectors", 100, 4;
    LOG_FLOOR = "log_floor", 104, 8;
    FLAGS = "flags", 112, 4;
    MEMBERS = "members", 116, 4;
    CURRENT = "current", 120, 8;
    EXPOSED = "exposed_dagtag", 128, 8;
    RESERVED_1 = "reserved", 136, 120;
    HISTORY_F = "history", 256, HISTORY * 8;
    SLOTS = "slots", 512, MAX_SLOTS * SLOT_SIZE;
    RESERVED_2 = "reserved", 2496, 1600;
}

record! {
    /// The fields of one slot of the superblock.
    SLOT_FIELDS:
    SLOT_KIND = "kind", 0, 1;
    SLOT_NODE = "node_id", 1, 1;
    SLOT_FLAGS = "flags", 2, 2;
    SLOT_EPOCH = "epoch", 4, 4;
    SLOT_UUID = "bitmap_uuid", 8, 8;
    SLOT_DAGTAG = "dagtag", 16, 8;
    SLOT_DEFAULT = "default_set", 24, 1;
    SLOT_RESERVED = "reserved", 25, 39;
}

/// Why 4096 bytes are not a superblock for this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is none.
    NoMagic,
    /// The checksum is wrong.
    Checksum,
    /// It is a superblock of another place.
    WrongPlace { recorded: u64 },
    /// It has a version this program does not know.
    Version(u32),
    /// It uses features this program does not know.
    Feature { incompat: u32, ro_compat: u32 },
    /// The checksum is right and a field is not.
    Malformed(&'static str),
}

impl Superblock {
    /// The copy to write at `offset`.
    pub(crate) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut record = vec![0; SUPERBLOCK_SIZE];
        let out = record.as_mut_slice();
        MAGIC_F.put(out, MAGIC);
        VERSION.put(out, FORMAT_VERSION);
        OFFSET.put(out, offset);
        SEQUENCE.put(out, self.sequence);
        DEVICE.put(out, self.device_uuid);
        COMPAT.put(out, self.compat);
        RO_COMPAT.put(out, self.ro_compat);
        INCOMPAT.put(out, self.incompat);
        NODE.put(out, self.node_id.0);
        PLACEMENT.put(out, self.placement as u64);
        SLOT_COUNT.put(out, self.slots.len() as u64);
        SIZE.put(out, self.geometry.size);
        DEVICE_SIZE.put(out, self.device_size);
        DATA_SIZE.put(out, self.data_size);
        BLOCK_SIZE.put(out, self.geometry.block_size);
        EXTENT_SIZE.put(out, self.geometry.extent_size);
        LOGICAL.put(out, self.geometry.logical_block_size);
        RESIZE.put(out, self.resize_generation);
        AL_SLOTS.put(out, self.al_slots);
        AL_SECTORS.put(out, self.al_sectors);
        LOG_FLOOR.put(out, self.log_floor);
        FLAGS.put(out, self.flags.word());
        MEMBERS.put(out, self.members);
        CURRENT.put(out, self.current.0);
        EXPOSED.put(out, self.exposed_dagtag);
        for (index, generation) in self.history.iter().enumerate() {
            HISTORY_F.element(index, 8).put(out, generation.0);
        }
        for (index, slot) in self.slots.iter().enumerate() {
            slot.encode(&mut out[SLOTS.element(index, SLOT_SIZE).range()]);
        }
        seal(out, CRC);
        record
    }

    /// The superblock in the bytes read at `offset` (MD-3, MD-4). Total: any bytes lead to a
    /// superblock that every other function here can work with, or to a reason.
    pub(crate) fn decode(record: &[u8], offset: u64) -> Result<Self, Unusable> {
        use Unusable::Malformed;
        if record.len() != SUPERBLOCK_SIZE || MAGIC_F.u64(record) != MAGIC {
            return Err(Unusable::NoMagic);
        }
        if !is_sealed(record, CRC) {
            return Err(Unusable::Checksum);
        }
        if VERSION.u32(record) != FORMAT_VERSION {
            return Err(Unusable::Version(VERSION.u32(record)));
        }
        let incompat = INCOMPAT.u32(record) & !KNOWN_INCOMPAT;
        let ro_compat = RO_COMPAT.u32(record) & !KNOWN_RO_COMPAT;
        if (incompat | ro_compat) != 0 {
            // Also the read-only ones: metadata is opened to be written.
            return Err(Unusable::Feature { incompat, ro_compat });
        }
        if OFFSET.u64(record) != offset {
            return Err(Unusable::WrongPlace { recorded: OFFSET.u64(record) });
        }
        let slot_count = SLOT_COUNT.u64(record) as usize;
        if slot_count > MAX_SLOTS {
            return Err(Malformed("too many slots"));
        }
        let slot = |index| Slot::decode(&record[SLOTS.element(index, SLOT_SIZE).range()]);
        let superblock = Self {
            device_uuid: DEVICE.u64(record),
            node_id: node(NODE.u8(record))?,
            sequence: SEQUENCE.u64(record),
            placement: match PLACEMENT.u8(record) {
                0 => Placement::Internal,
                1 => Placement::External,
                _ => return Err(Malformed("unknown placement")),
            },
            device_size: DEVICE_SIZE.u64(record),
            data_size: DATA_SIZE.u64(record),
            geometry: Geometry {
                size: SIZE.u64(record),
                block_size: BLOCK_SIZE.u32(record),
                extent_size: EXTENT_SIZE.u32(record),
                logical_block_size: LOGICAL.u32(record),
            },
            resize_generation: RESIZE.u32(record),
            al_slots: AL_SLOTS.u32(record),
            al_sectors: AL_SECTORS.u32(record),
            log_floor: LOG_FLOOR.u64(record),
            flags: DeviceFlags::from_word(FLAGS.u32(record)).ok_or(UNKNOWN_FLAG)?,
            members: MEMBERS.u32(record),
            current: Generation(CURRENT.u64(record)),
            exposed_dagtag: EXPOSED.u64(record),
            history: core::array::from_fn(|n| Generation(HISTORY_F.element(n, 8).u64(record))),
            slots: (0..slot_count).map(slot).collect::<Result<_, _>>()?,
            compat: COMPAT.u32(record) & KNOWN_COMPAT,
            ro_compat: RO_COMPAT.u32(record),
            incompat: INCOMPAT.u32(record),
        };
        if superblock.sequence.max(superblock.log_floor) > SEQUENCE_LIMIT {
            return Err(Malformed(IMPOSSIBLE_SEQUENCE));
        }
        let layout = superblock.layout().map_err(|_| Malformed("an impossible layout"))?;
        let fits = check_geometry(&superblock.geometry).is_ok()
            && superblock.geometry.size <= superblock.data_size
            && superblock.data_size == layout.data_size();
        if fits { Ok(superblock) } else { Err(Malformed("an impossible data area")) }
    }
}

impl Slot {
    fn encode(&self, out: &mut [u8]) {
        SLOT_KIND.put(out, self.kind as u64);
        SLOT_NODE.put(out, self.node.0);
        SLOT_FLAGS.put(out, self.flags.word());
        SLOT_EPOCH.put(out, self.epoch);
        SLOT_UUID.put(out, self.bitmap_uuid.0);
        SLOT_DAGTAG.put(out, self.dagtag);
        SLOT_DEFAULT.put(out, self.default_set);
    }

    fn decode(record: &[u8]) -> Result<Self, Unusable> {
        Ok(Self {
            kind: match SLOT_KIND.u8(record) {
                0 => SlotKind::Free,
                1 => SlotKind::Peer,
                2 => SlotKind::Named,
                _ => return Err(Unusable::Malformed("unknown kind of slot")),
            },
            node: node(SLOT_NODE.u8(record))?,
            bitmap_uuid: Generation(SLOT_UUID.u64(record)),
            dagtag: SLOT_DAGTAG.u64(record),
            flags: SlotFlags::from_word(SLOT_FLAGS.u32(record)).ok_or(UNKNOWN_FLAG)?,
            epoch: SLOT_EPOCH.u32(record),
            default_set: match SLOT_DEFAULT.u8(record) {
                0 => false,
                1 => true,
                _ => return Err(Unusable::Malformed("unknown default of a slot")),
            },
        })
    }
}

fn node(id: u8) -> Result<NodeId, Unusable> {
    if id > NodeId::MAX.0 {
        return Err(Unusable::Malformed("a node id above 31"));
    }
    Ok(NodeId(id))
}

/// A flag this program does not know comes with a feature bit, so here it is damage.
const UNKNOWN_FLAG: Unusable = Unusable::Malformed("unknown flags");

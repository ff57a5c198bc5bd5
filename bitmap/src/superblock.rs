//! The superblock: one 4096-byte record, kept in two copies, that says what the device is, which
//! generation its data has, and what each peer's slot means. This file knows its bytes;
//! `generation.rs` its rules, `metadata.rs` when it is written.

use crate::codec::{Field, is_sealed, seal};
use crate::generation::{Generation, HISTORY};
use crate::geometry::{Geometry, NodeId};
use crate::journal::SEQUENCE_LIMIT;
use crate::layout::{Layout, LayoutError, Placement, check_geometry};
use alloc::vec;
use alloc::vec::Vec;

/// Most slots a superblock has room for: every other node of a full resource.
pub const MAX_SLOTS: usize = 31;

/// Bytes of one copy.
pub const SUPERBLOCK_SIZE: usize = 4096;
/// Version of the whole metadata format. What an older program may not touch gets a feature bit;
/// what it cannot even read gets a new version.
pub const FORMAT_VERSION: u32 = 1;

/// Features this program knows; none yet.
const KNOWN_COMPAT: u32 = 0;
const KNOWN_RO_COMPAT: u32 = 0;
const KNOWN_INCOMPAT: u32 = 0;

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
    /// The generation of our data.
    pub current: Generation,
    /// The generation this disk was being synchronised to when it became Inconsistent; `NONE` if
    /// it is not the target of an unfinished resync. Lets an interrupted resync go on by bitmap (RES-4).
    pub sync_to: Generation,
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

/// State of this node's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceFlags {
    /// The data is a state some Primary once had, not a mixture.
    pub consistent: bool,
    /// The data was up to date when last seen.
    pub was_up_to_date: bool,
    /// A Primary may write here: the activity log matters at attach.
    pub primary_ind: bool,
    /// This node was Primary and did not stop cleanly.
    pub crashed_primary: bool,
    /// The activity log was applied.
    pub al_clean: bool,
    /// The resource had quorum.
    pub have_quorum: bool,
    /// This node was Primary and lost quorum.
    pub primary_lost_quorum: bool,
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

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotFlags {
    /// The peer is an intentionally diskless node.
    pub no_bitmap: bool,
    /// The peer's data is known to be outdated.
    pub outdated: bool,
    /// The peer is to be fenced.
    pub fencing: bool,
    /// The peer needs every block.
    pub full_sync: bool,
    /// The peer was seen with a disk.
    pub device_seen: bool,
    /// The peer was declared lost for good.
    pub lost_member: bool,
}

const MAGIC: u64 = u64::from_le_bytes(*b"PolluxSB");
const SLOT_SIZE: usize = 64;

const MAGIC_F: Field = Field::new("magic", 0, 8);
const VERSION: Field = Field::new("version", 8, 4);
const CRC: Field = Field::new("crc32", 12, 4);
const OFFSET: Field = Field::new("offset", 16, 8);
const SEQUENCE: Field = Field::new("sequence", 24, 8);
const DEVICE: Field = Field::new("device_uuid", 32, 8);
const COMPAT: Field = Field::new("compat", 40, 4);
const RO_COMPAT: Field = Field::new("ro_compat", 44, 4);
const INCOMPAT: Field = Field::new("incompat", 48, 4);
const NODE: Field = Field::new("node_id", 52, 1);
const PLACEMENT: Field = Field::new("placement", 53, 1);
const SLOT_COUNT: Field = Field::new("slot_count", 54, 1);
const RESERVED_0: Field = Field::new("reserved", 55, 1);
const SIZE: Field = Field::new("size", 56, 8);
const DEVICE_SIZE: Field = Field::new("device_size", 64, 8);
const DATA_SIZE: Field = Field::new("data_size", 72, 8);
const BLOCK_SIZE: Field = Field::new("block_size", 80, 4);
const EXTENT_SIZE: Field = Field::new("extent_size", 84, 4);
const LOGICAL: Field = Field::new("logical_block_size", 88, 4);
const RESIZE: Field = Field::new("resize_generation", 92, 4);
const AL_SLOTS: Field = Field::new("al_slots", 96, 4);
const AL_SECTORS: Field = Field::new("al_sectors", 100, 4);
const LOG_FLOOR: Field = Field::new("log_floor", 104, 8);
const FLAGS: Field = Field::new("flags", 112, 4);
const MEMBERS: Field = Field::new("members", 116, 4);
const CURRENT: Field = Field::new("current", 120, 8);
const EXPOSED: Field = Field::new("exposed_dagtag", 128, 8);
const SYNC_TO: Field = Field::new("sync_to", 136, 8);
const RESERVED_1: Field = Field::new("reserved", 144, 112);
const HISTORY_F: Field = Field::new("history", 256, HISTORY * 8);
const SLOTS: Field = Field::new("slots", 512, MAX_SLOTS * SLOT_SIZE);
const RESERVED_2: Field = Field::new("reserved", 2496, 1600);

/// The fields of the superblock.
pub(crate) const FIELDS: &[Field] = &[
    MAGIC_F,
    VERSION,
    CRC,
    OFFSET,
    SEQUENCE,
    DEVICE,
    COMPAT,
    RO_COMPAT,
    INCOMPAT,
    NODE,
    PLACEMENT,
    SLOT_COUNT,
    RESERVED_0,
    SIZE,
    DEVICE_SIZE,
    DATA_SIZE,
    BLOCK_SIZE,
    EXTENT_SIZE,
    LOGICAL,
    RESIZE,
    AL_SLOTS,
    AL_SECTORS,
    LOG_FLOOR,
    FLAGS,
    MEMBERS,
    CURRENT,
    EXPOSED,
    SYNC_TO,
    RESERVED_1,
    HISTORY_F,
    SLOTS,
    RESERVED_2,
];

const SLOT_KIND: Field = Field::new("kind", 0, 1);
const SLOT_NODE: Field = Field::new("node_id", 1, 1);
const SLOT_FLAGS: Field = Field::new("flags", 2, 2);
const SLOT_EPOCH: Field = Field::new("epoch", 4, 4);
const SLOT_UUID: Field = Field::new("bitmap_uuid", 8, 8);
const SLOT_DAGTAG: Field = Field::new("dagtag", 16, 8);
const SLOT_DEFAULT: Field = Field::new("default_set", 24, 1);
const SLOT_RESERVED: Field = Field::new("reserved", 25, 39);

/// The fields of one slot of the superblock.
pub(crate) const SLOT_FIELDS: &[Field] = &[
    SLOT_KIND,
    SLOT_NODE,
    SLOT_FLAGS,
    SLOT_EPOCH,
    SLOT_UUID,
    SLOT_DAGTAG,
    SLOT_DEFAULT,
    SLOT_RESERVED,
];

/// The checksum, for tests that forge records.
#[cfg(test)]
pub(crate) fn crc_field() -> Field {
    CRC
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
        FLAGS.put(out, pack(self.flags.bits()));
        MEMBERS.put(out, self.members);
        CURRENT.put(out, self.current.0);
        EXPOSED.put(out, self.exposed_dagtag);
        SYNC_TO.put(out, self.sync_to.0);
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
            flags: DeviceFlags::from_bits(unpack(FLAGS.u64(record))?),
            members: MEMBERS.u32(record),
            current: Generation(CURRENT.u64(record)),
            exposed_dagtag: EXPOSED.u64(record),
            sync_to: Generation(SYNC_TO.u64(record)),
            history: core::array::from_fn(|n| Generation(HISTORY_F.element(n, 8).u64(record))),
            slots: (0..slot_count).map(slot).collect::<Result<_, _>>()?,
            compat: COMPAT.u32(record) & KNOWN_COMPAT,
            ro_compat: RO_COMPAT.u32(record),
            incompat: INCOMPAT.u32(record),
        };
        if superblock.sequence.max(superblock.log_floor) > SEQUENCE_LIMIT {
            return Err(Malformed("an impossible sequence number"));
        }
        let layout = superblock.layout().map_err(|_| Malformed("an impossible layout"))?;
        let fits = check_geometry(&superblock.geometry).is_ok()
            && superblock.geometry.block_size <= superblock.geometry.extent_size
            && superblock.geometry.size <= superblock.data_size
            && superblock.data_size == layout.data_size();
        if fits { Ok(superblock) } else { Err(Malformed("an impossible data area")) }
    }
}

impl Slot {
    /// A slot used for nothing.
    pub const FREE: Self = Self {
        kind: SlotKind::Free,
        node: NodeId(0),
        bitmap_uuid: Generation::NONE,
        dagtag: 0,
        flags: SlotFlags {
            no_bitmap: false,
            outdated: false,
            fencing: false,
            full_sync: false,
            device_seen: false,
            lost_member: false,
        },
        epoch: 0,
        default_set: false,
    };

    fn encode(&self, out: &mut [u8]) {
        SLOT_KIND.put(out, self.kind as u64);
        SLOT_NODE.put(out, self.node.0);
        SLOT_FLAGS.put(out, pack(self.flags.bits()));
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
            flags: SlotFlags::from_bits(unpack(SLOT_FLAGS.u64(record))?),
            epoch: SLOT_EPOCH.u32(record),
            default_set: match SLOT_DEFAULT.u8(record) {
                0 => false,
                1 => true,
                _ => return Err(Unusable::Malformed("unknown default of a slot")),
            },
        })
    }
}

impl DeviceFlags {
    /// Bit 0 first.
    fn bits(self) -> [bool; 7] {
        [
            self.consistent,
            self.was_up_to_date,
            self.primary_ind,
            self.crashed_primary,
            self.al_clean,
            self.have_quorum,
            self.primary_lost_quorum,
        ]
    }

    fn from_bits(bits: [bool; 7]) -> Self {
        let [
            consistent,
            was_up_to_date,
            primary_ind,
            crashed_primary,
            al_clean,
            have_quorum,
            primary_lost_quorum,
        ] = bits;
        Self {
            consistent,
            was_up_to_date,
            primary_ind,
            crashed_primary,
            al_clean,
            have_quorum,
            primary_lost_quorum,
        }
    }
}

impl SlotFlags {
    /// Bit 0 first.
    fn bits(self) -> [bool; 6] {
        [
            self.no_bitmap,
            self.outdated,
            self.fencing,
            self.full_sync,
            self.device_seen,
            self.lost_member,
        ]
    }

    fn from_bits(bits: [bool; 6]) -> Self {
        let [no_bitmap, outdated, fencing, full_sync, device_seen, lost_member] = bits;
        Self { no_bitmap, outdated, fencing, full_sync, device_seen, lost_member }
    }
}

fn node(id: u8) -> Result<NodeId, Unusable> {
    if id > NodeId::MAX.0 {
        return Err(Unusable::Malformed("a node id above 31"));
    }
    Ok(NodeId(id))
}

fn pack<const N: usize>(flags: [bool; N]) -> u64 {
    flags.iter().rev().fold(0, |word, &flag| word << 1 | u64::from(flag))
}

/// A flag this program does not know comes with a feature bit, so here it is damage.
fn unpack<const N: usize>(word: u64) -> Result<[bool; N], Unusable> {
    if word >> N != 0 {
        return Err(Unusable::Malformed("unknown flags"));
    }
    Ok(core::array::from_fn(|bit| word >> bit & 1 == 1))
}

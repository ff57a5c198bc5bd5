//! The self-checking sector of a slot: 3840 bits with a header that says whose they are. Two
//! levels share it: a unit holds dirty bits, a summary sector holds one bit per unit. This file
//! knows its bytes; `slot_bits.rs` knows what they mean together.

use crate::codec::{SECTOR, Sector, is_sealed, record, seal};
use crate::dirty::LEAF_BYTES;

const MAGIC: u64 = u32::from_le_bytes(*b"PlxB") as u64;

record! {
    /// The fields of a unit.
    FIELDS:
    MAGIC_F = "magic", 0, 4;
    CRC = "crc32", 4, 4;
    DEVICE = "device_uuid", 8, 8;
    SLOT = "slot", 16, 1;
    LEVEL = "level", 17, 1;
    RESERVED = "reserved", 18, 2;
    INDEX = "index", 20, 4;
    EPOCH = "epoch", 24, 4;
    SEQUENCE = "sequence", 28, 4;
    PAYLOAD = "payload", 32, LEAF_BYTES;
}

/// What the bits of a sector stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// One bit a block: it may differ.
    Unit = 0,
    /// One bit a unit: it was written in this epoch.
    Summary = 1,
}

/// Which sector this is. Each is written into the sector, so that one that strayed is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device_uuid: u64,
    pub(crate) slot: usize,
    pub(crate) level: Level,
    pub(crate) index: u32,
}

/// What a sector holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) epoch: u32,
    /// Lowest bits of the next log sequence number when it was written; for people only.
    pub(crate) sequence: u32,
    pub(crate) bits: [u8; LEAF_BYTES],
}

impl Unit {
    /// The sector to write.
    pub(crate) fn encode(&self, identity: Identity) -> Sector {
        let mut sector = [0; SECTOR];
        MAGIC_F.put(&mut sector, MAGIC);
        DEVICE.put(&mut sector, identity.device_uuid);
        SLOT.put(&mut sector, identity.slot as u64);
        LEVEL.put(&mut sector, identity.level as u64);
        INDEX.put(&mut sector, identity.index);
        EPOCH.put(&mut sector, self.epoch);
        SEQUENCE.put(&mut sector, self.sequence);
        sector[PAYLOAD.range()].copy_from_slice(&self.bits);
        seal(&mut sector, CRC);
        sector
    }

    /// What a sector read holds, if it is the one it should be (MD-3).
    pub(crate) fn decode(sector: &[u8], identity: Identity) -> Option<Self> {
        let believed = sector.len() == SECTOR
            && is_sealed(sector, CRC)
            && MAGIC_F.u64(sector) == MAGIC
            && DEVICE.u64(sector) == identity.device_uuid
            && SLOT.u64(sector) == identity.slot as u64
            && LEVEL.u64(sector) == identity.level as u64
            && RESERVED.u64(sector) == 0
            && INDEX.u32(sector) == identity.index;
        believed.then(|| Self {
            epoch: EPOCH.u32(sector),
            sequence: SEQUENCE.u32(sector),
            bits: sector[PAYLOAD.range()].try_into().expect("the payload has its size"),
        })
    }
}

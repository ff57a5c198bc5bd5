//! Metadata of disks that are not in use: makes it, reads it. What it looks like is `bitmap`'s.

use crate::config::{Resource, Volume};
use crate::failure::{Failure, Result, code};
use crate::resource::{disk_options, placement};
use crate::status::GenerationIds;
use bitmap::{
    Bytes, FormatParams, MetaWrite, Metadata, NodeId, OpenError, OpenStep, Opened, Opening,
    Placement,
};
use replicator::buffers::Pool;
use replicator::disk::{Backing, Done, Op, limits};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Sectors of the ring of the activity log, at least.
const AL_SECTORS: u32 = 256;
const BLOCK: u32 = 4096;
const EXTENT: u32 = 4 << 20;
/// Unused memory to keep between two operations.
const IDLE: usize = 8 << 20;

/// A disk, opened and locked, that is to get metadata.
pub struct Blank {
    backing: Backing,
    path: PathBuf,
    params: FormatParams,
    /// As it will be.
    metadata: Metadata,
}

/// Opens the disk of a volume to give it metadata.
///
/// # Errors
/// If it is in use, or too small.
pub fn open_blank(resource: &Resource, volume: &Volume) -> Result<Blank> {
    let (backing, path) = open(volume, true)?;
    let placement = placement(volume);
    let slots: Vec<NodeId> = resource.peers.iter().map(|peer| NodeId(peer.node_id)).collect();
    let al_slots = volume.options.number("al-extents") as u32;
    // What recovery needs is the whole table in the ring, twice over.
    let al_sectors = AL_SECTORS.max((2 * (al_slots.div_ceil(20) + 2)).next_power_of_two());
    let (data_size, device_size) = match placement {
        Placement::Internal => (None, backing.size()),
        // An external file is made as large as it must be; a device is as large as it is.
        Placement::External => (Some(backing.size()), u64::MAX >> 1),
    };
    let size = volume.options.number("size");
    let params = FormatParams {
        placement,
        device_size,
        data_size,
        size: (size > 0).then_some(size),
        node_id: NodeId(resource.me.node_id),
        device_uuid: getrandom::u64()
            .map_err(|error| Failure::of("no random numbers from the system", error))?,
        slots,
        al_slots,
        al_sectors,
        block_size: BLOCK,
        extent_size: EXTENT,
        logical_block_size: backing.logical_block().min(BLOCK),
    };
    let (metadata, _) = format(&params, &path)?;
    Ok(Blank { backing, path, params, metadata })
}

impl Blank {
    /// Where the metadata goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that clients will see.
    pub fn size(&self) -> u64 {
        self.metadata.geometry().size
    }

    /// What is there now, in words; `None`: zeros only.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn found(&mut self) -> Result<Option<String>> {
        let size = self.backing.meta_size();
        match read(&mut self.backing, self.params.placement) {
            Ok(opened) => {
                let superblock = opened.metadata.superblock();
                let (node, generation) = (superblock.node_id.0, superblock.current);
                return Ok(Some(format!("metadata of node-id {node}, generation {generation}")));
            }
            Err(OpenError::NoMetadata) => {}
            Err(error) => return Ok(Some(format!("metadata that cannot be used: {error}"))),
        }
        let area = self.metadata.layout().metadata_area();
        let mut offset = area.start;
        while offset < area.end.min(size) {
            let len = (area.end.min(size) - offset).min(limits::TRANSFER as u64);
            let read = Op::ReadMeta { offset, len: len as u32 };
            if let Done::Read(bytes) = self.perform(&read)?
                && bytes.as_ref().iter().any(|&byte| byte != 0)
            {
                let kept = self.metadata.layout().data_size();
                return Ok(Some(format!(
                    "data behind byte {kept}, where the metadata goes (a file system?)"
                )));
            }
            offset += len;
        }
        Ok(None)
    }

    /// Makes the metadata; what was there is lost.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn format(mut self) -> Result {
        let area = self.metadata.layout().metadata_area();
        let allocated = self.backing.allocate_meta(area.start, area.len());
        allocated.map_err(|error| Failure::of(self.path.display(), error))?;
        self.params.device_size = self.backing.meta_size();
        let (_, stages) = format(&self.params, &self.path)?;
        for MetaWrite { offset, bytes } in stages.into_iter().flatten() {
            let op = match bytes {
                Bytes::Data(bytes) => Op::WriteMeta { offset, bytes },
                Bytes::Zeros(len) => Op::ZeroMeta { offset, len },
            };
            self.perform(&op)?;
        }
        Ok(())
    }

    fn perform(&mut self, op: &Op) -> Result<Done> {
        let done = self.backing.perform(op);
        done.map_err(|error| Failure::of(self.path.display(), error))
    }
}

/// The metadata as it will be, and the writes that make it.
fn format(params: &FormatParams, path: &Path) -> Result<(Metadata, Vec<Vec<MetaWrite>>)> {
    Metadata::format(params.clone()).map_err(|error| unusable(path, error))
}

/// What is wrong lies in what was asked for, or was found: not in the disk.
fn unusable(path: &Path, error: impl Display) -> Failure {
    Failure::new(code::CONFIGURATION, format_args!("{}: {error}", path.display()))
}

/// Reads the metadata of a volume that is not attached; changes nothing.
///
/// # Errors
/// If the disk is in use, or there is no metadata that can be used.
pub fn read_volume(volume: &Volume) -> Result<Metadata> {
    let (mut backing, path) = open(volume, false)?;
    let opened = read(&mut backing, placement(volume));
    Ok(opened.map_err(|error| unusable(&path, error))?.metadata)
}

/// Opens and locks the disk of a volume; also, the path of what holds the metadata.
fn open(volume: &Volume, create_meta: bool) -> Result<(Backing, PathBuf)> {
    let disk = volume.disk.as_ref().ok_or_else(|| {
        let number = volume.number;
        let text =
            format!("volume {number} has no disk here (`disk none;`), so it has no metadata");
        Failure::new(code::NEEDS_DISK, text)
    })?;
    let options = disk_options(volume, create_meta);
    let backing = Backing::open(disk, &options, &Pool::new(IDLE)).map_err(Failure::failed)?;
    Ok((backing, volume.meta_disk.as_ref().unwrap_or(disk).clone()))
}

fn read(backing: &mut Backing, placement: Placement) -> Result<Opened, OpenError> {
    let mut opening = Opening::new(placement, backing.meta_size());
    let mut results = Vec::new();
    loop {
        match opening.step(results) {
            OpenStep::Done(opened) => return Ok(*opened),
            OpenStep::Refused(error) => return Err(error),
            OpenStep::Read(ranges) => {
                let read = ranges.into_iter().map(|(offset, len)| {
                    match backing.perform(&Op::ReadMeta { offset, len }) {
                        Ok(Done::Read(buffer)) => Ok(buffer.as_ref().to_vec()),
                        // The other copy may be good: the format decides.
                        _ => Err(()),
                    }
                });
                results = read.collect();
            }
        }
    }
}

/// What the metadata says of the disk, in DRBD's word.
pub fn disk_state(metadata: &Metadata) -> &'static str {
    let flags = &metadata.superblock().flags;
    match (flags.consistent, flags.was_up_to_date) {
        (false, _) => "Inconsistent",
        (true, false) => "Outdated",
        (true, true) => "UpToDate",
    }
}

/// The generations of a volume that is not attached, towards one peer; `None`: no slot for it.
pub fn generations(metadata: &Metadata, peer: u8) -> Option<GenerationIds> {
    let superblock = metadata.superblock();
    let slot = &superblock.slots[superblock.slot_of(NodeId(peer))?];
    let flags = &superblock.flags;
    Some(GenerationIds {
        current: superblock.current.0,
        bitmap: slot.bitmap_uuid.0,
        history: [superblock.history[0].0, superblock.history[1].0],
        flags: [
            flags.consistent,
            flags.was_up_to_date,
            flags.primary_ind,
            flags.crashed_primary,
            metadata.active_extents().next().is_none(),
            false,
            flags.primary_lost_quorum,
            false,
            slot.flags.outdated,
            slot.flags.fencing,
            slot.flags.full_sync,
            slot.flags.device_seen,
        ],
    })
}

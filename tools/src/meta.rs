//! Metadata of disks that are not in use: makes it, reads it. What it looks like is `bitmap`'s.

use crate::config::{Host, Resource, Volume};
use crate::failure::{Failure, Result, code};
use crate::resource::{disk_options, placement};
use crate::status::gi_line;
use bitmap::{
    FormatParams, MetaWrite, Metadata, NodeId, OpenError, OpenStep, Opened, Opening, Placement,
};
use replicator::buffers::Pool;
use replicator::disk::{Backing, Done, Op, limits};
use std::fmt::Display;
use std::path::PathBuf;

/// Sectors of the ring of the activity log, at least.
const AL_SECTORS: u32 = 256;
const BLOCK: u32 = 4096;
const EXTENT: u32 = 4 << 20;
/// Unused memory to keep between two operations.
const IDLE: usize = 8 << 20;

/// A disk that is not attached, opened and locked.
struct Disk {
    backing: Backing,
    /// Of what holds the metadata.
    path: PathBuf,
    placement: Placement,
}

impl Disk {
    fn open(volume: &Volume, create_meta: bool) -> Result<Self> {
        let (Some(disk), Some(path)) = (&volume.disk, volume.meta_path()) else {
            let number = volume.number;
            let text =
                format!("volume {number} has no disk here (`disk none;`), so it has no metadata");
            return Err(Failure::new(code::NEEDS_DISK, text));
        };
        let backing = Backing::open(disk, &disk_options(volume, create_meta), &Pool::new(IDLE));
        let backing = backing.map_err(Failure::failed)?;
        Ok(Self { backing, path: path.to_owned(), placement: placement(volume) })
    }

    fn perform(&mut self, op: &Op) -> Result<Done> {
        let done = self.backing.perform(op);
        done.map_err(|error| Failure::of(self.path.display(), error))
    }

    /// What is wrong lies in what was asked for, or was found: not in the disk.
    fn unusable(&self, error: impl Display) -> Failure {
        Failure::new(code::CONFIGURATION, format_args!("{}: {error}", self.path.display()))
    }

    fn read(&mut self) -> Result<Opened, OpenError> {
        let mut opening = Opening::new(self.placement, self.backing.meta_size());
        let mut results = Vec::new();
        loop {
            match opening.step(results) {
                OpenStep::Done(opened) => return Ok(*opened),
                OpenStep::Refused(error) => return Err(error),
                OpenStep::Read(ranges) => {
                    let read = ranges.into_iter().map(|(offset, len)| {
                        match self.backing.perform(&Op::ReadMeta { offset, len }) {
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

    /// The metadata as it will be, and the writes that make it.
    fn plan(&self, params: &FormatParams) -> Result<(Metadata, Vec<Vec<MetaWrite>>)> {
        Metadata::format(params.clone()).map_err(|error| self.unusable(error))
    }

    /// What is there where that metadata goes, in words; `None`: zeros only.
    fn found(&mut self, metadata: &Metadata) -> Result<Option<String>> {
        match self.read() {
            Ok(opened) => {
                let superblock = opened.metadata.superblock();
                let (node, generation) = (superblock.node_id.0, superblock.current);
                return Ok(Some(format!("metadata of node-id {node}, generation {generation}")));
            }
            Err(OpenError::NoMetadata) => {}
            Err(error) => return Ok(Some(format!("metadata that cannot be used: {error}"))),
        }
        let area = metadata.layout().metadata_area();
        let end = area.end.min(self.backing.meta_size());
        for offset in (area.start..end).step_by(limits::TRANSFER) {
            let len = (end - offset).min(limits::TRANSFER as u64) as u32;
            if let Done::Read(bytes) = self.perform(&Op::ReadMeta { offset, len })?
                && bytes.as_ref().iter().any(|&byte| byte != 0)
            {
                let kept = metadata.layout().data_size();
                return Ok(Some(format!(
                    "data behind byte {kept}, where the metadata goes (a file system?)"
                )));
            }
        }
        Ok(None)
    }
}

/// Gives metadata to a volume whose disk is not in use, if it is large enough. What is there already
/// is lost if `overwrite`, which is told about it, agrees. The bytes that clients will see.
pub(crate) fn create(
    resource: &Resource,
    volume: &Volume,
    overwrite: impl FnOnce(&str) -> Result,
) -> Result<u64> {
    let mut disk = Disk::open(volume, true)?;
    let slots: Vec<NodeId> = resource.peers.iter().map(|peer| NodeId(peer.node_id)).collect();
    let al_slots = volume.options.number("al-extents") as u32;
    // What recovery needs is the whole table in the ring, twice over.
    let al_sectors = AL_SECTORS.max((2 * (al_slots.div_ceil(20) + 2)).next_power_of_two());
    let (data_size, device_size) = match disk.placement {
        Placement::Internal => (None, disk.backing.size()),
        // An external file is made as large as it must be; a device is as large as it is.
        Placement::External => (Some(disk.backing.size()), u64::MAX >> 1),
    };
    let size = volume.options.number("size");
    let mut params = FormatParams {
        placement: disk.placement,
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
        logical_block_size: disk.backing.logical_block().min(BLOCK),
    };
    let (metadata, _) = disk.plan(&params)?;
    if let Some(what) = disk.found(&metadata)? {
        overwrite(&format!("{}: holds {what}", disk.path.display()))?;
    }
    let area = metadata.layout().metadata_area();
    let reserved = disk.backing.reserve_meta(area.start, area.len());
    reserved.map_err(|error| Failure::of(disk.path.display(), error))?;
    params.device_size = disk.backing.meta_size();
    let (_, stages) = disk.plan(&params)?;
    for write in stages.into_iter().flatten() {
        disk.perform(&Op::WriteMeta(write))?;
    }
    Ok(metadata.geometry().size)
}

/// Reads the metadata of a volume that is not attached; changes nothing. Fails if the disk is in
/// use, or there is no metadata that can be used.
pub(crate) fn read_volume(volume: &Volume) -> Result<Metadata> {
    let mut disk = Disk::open(volume, false)?;
    Ok(disk.read().map_err(|error| disk.unusable(error))?.metadata)
}

/// What the metadata says of the disk, in DRBD's word.
pub(crate) fn disk_state(metadata: &Metadata) -> &'static str {
    let flags = &metadata.superblock().flags;
    match (flags.consistent, flags.was_up_to_date) {
        (false, _) => "Inconsistent",
        (true, false) => "Outdated",
        (true, true) => "UpToDate",
    }
}

/// The generations of a volume that is not attached, towards one peer: the line of `get-gi`.
pub(crate) fn generations(volume: &Volume, peer: &Host) -> Result<String> {
    let metadata = read_volume(volume)?;
    let superblock = metadata.superblock();
    let slot = superblock.slot_of(NodeId(peer.node_id)).ok_or_else(|| {
        let (volume, peer) = (volume.number, &peer.name);
        let text = format!("the metadata of volume {volume} knows no peer `{peer}`");
        Failure::new(code::CONFIGURATION, text)
    })?;
    let (slot, flags) = (&superblock.slots[slot], &superblock.flags);
    let [young, old, ..] = superblock.history;
    Ok(gi_line(
        [superblock.current, slot.bitmap_uuid, young, old].map(|generation| generation.0),
        [
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
    ))
}

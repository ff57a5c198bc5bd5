//! Metadata as text, for dump-md. For people: nothing reads it back.

use crate::generation::Generation;
use crate::layout::Placement;
use crate::metadata::Metadata;
use crate::superblock::{FORMAT_VERSION, Slot, SlotKind, Superblock};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Runs of set bits shown of each slot.
const RUNS_SHOWN: usize = 64;
/// Active extents shown.
const EXTENTS_SHOWN: usize = 1024;

impl Metadata {
    /// A text rendering: the superblock, the active extents, and the runs of set bits of each
    /// slot. Long lists are cut, and say so.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        write_dump(self, &mut text).expect("writing to a string does not fail");
        text
    }
}

fn write_dump(metadata: &Metadata, out: &mut String) -> fmt::Result {
    let superblock = metadata.superblock();
    write_superblock(superblock, out)?;
    let area = metadata.layout().metadata_area();
    writeln!(out, "metadata-area    {} to {}", area.start, area.end)?;
    let active: Vec<u32> = metadata.active_extents().take(EXTENTS_SHOWN + 1).collect();
    write!(out, "active-extents  ")?;
    for extent in active.iter().take(EXTENTS_SHOWN) {
        write!(out, " {extent}")?;
    }
    writeln!(out, "{}", if active.len() > EXTENTS_SHOWN { " .." } else { "" })?;
    for (index, slot) in superblock.slots.iter().enumerate() {
        write_slot(index, slot, out)?;
        let bits = metadata.bits(index);
        writeln!(out, "  bits-set       {} of {}", bits.count(), bits.len())?;
        for run in bits.runs().take(RUNS_SHOWN) {
            writeln!(out, "    {} + {}", run.start, run.end - run.start)?;
        }
        if bits.runs().nth(RUNS_SHOWN).is_some() {
            writeln!(out, "    ..")?;
        }
        writeln!(out, "}}")?;
    }
    Ok(())
}

fn write_superblock(superblock: &Superblock, out: &mut String) -> fmt::Result {
    let geometry = &superblock.geometry;
    let placement = match superblock.placement {
        Placement::Internal => "internal",
        Placement::External => "external",
    };
    writeln!(out, "version          {FORMAT_VERSION}")?;
    writeln!(out, "device-uuid      {:016X}", superblock.device_uuid)?;
    writeln!(out, "node-id          {}", superblock.node_id.0)?;
    writeln!(out, "sequence         {}", superblock.sequence)?;
    writeln!(out, "placement        {placement}")?;
    writeln!(out, "device-size      {}", superblock.device_size)?;
    writeln!(out, "data-size        {} of {}", geometry.size, superblock.data_size)?;
    writeln!(out, "bytes-per-bit    {}", geometry.block_size)?;
    writeln!(out, "extent-size      {}", geometry.extent_size)?;
    writeln!(out, "logical-block    {}", geometry.logical_block_size)?;
    writeln!(out, "resize-generation {}", superblock.resize_generation)?;
    writeln!(out, "al-slots         {}", superblock.al_slots)?;
    writeln!(out, "al-sectors       {}", superblock.al_sectors)?;
    writeln!(out, "log-floor        {}", superblock.log_floor)?;
    write!(out, "flags           ")?;
    write_flags(superblock.flags.names(), out)?;
    writeln!(out, "members          {:#010x}", superblock.members)?;
    writeln!(out, "exposed-dagtag   {:016X}", superblock.exposed_dagtag)?;
    writeln!(out, "current          {}", superblock.current)?;
    let known = superblock.history.iter().filter(|&&generation| generation != Generation::NONE);
    for generation in known {
        writeln!(out, "history          {generation}")?;
    }
    Ok(())
}

fn write_slot(index: usize, slot: &Slot, out: &mut String) -> fmt::Result {
    match slot.kind {
        SlotKind::Free => writeln!(out, "slot {index} free {{")?,
        SlotKind::Peer => writeln!(out, "slot {index} peer {} {{", slot.node.0)?,
        SlotKind::Named => writeln!(out, "slot {index} named {{")?,
    }
    writeln!(out, "  bitmap-uuid    {}", slot.bitmap_uuid)?;
    writeln!(out, "  dagtag         {:016X}", slot.dagtag)?;
    write!(out, "  flags         ")?;
    write_flags(slot.flags.names(), out)?;
    let default = if slot.default_set { "set" } else { "clear" };
    writeln!(out, "  epoch          {}, default {default}", slot.epoch)
}

/// The names of the flags that are set, each with a space before it.
fn write_flags(names: impl Iterator<Item = &'static str>, out: &mut String) -> fmt::Result {
    for name in names {
        write!(out, " {name}")?;
    }
    writeln!(out)
}

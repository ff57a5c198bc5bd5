//! Makes two fresh disks equal by decree, as an operator would who has carried one copy to the other machine: the metadata of both
//! says that they hold the same. Without it a first copy of 16 TiB of holes would be measured.

use crate::Error;
use bitmap::{Bytes, Generation, MetaWrite, Metadata, OpenStep, Opening, Placement};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The generation that both disks hold.
const SHARED: Generation = Generation(0x0BAD_5EED_0000_0000);

/// Changes the external metadata of a disk that create-md has made and nobody has open.
pub(super) fn declare_equal(path: &Path) -> Result<(), Error> {
    let file = File::options().read(true).write(true).open(path).map_err(Error::file(path))?;
    let len = file.metadata().map_err(Error::file(path))?.len();
    let mut metadata = open(&file, len)?;
    for slot in 0..metadata.superblock().slots.len() {
        metadata.clear_all_bits(slot);
    }
    metadata.edit(|superblock| {
        superblock.current = SHARED;
        superblock.flags.consistent = true;
        superblock.flags.was_up_to_date = true;
        for slot in &mut superblock.slots {
            slot.bitmap_uuid = Generation::NONE;
            slot.flags.device_seen = true;
        }
    });
    while let Some(commit) = metadata.start_commit() {
        for write in commit.stages.into_iter().flatten() {
            store(&file, write).map_err(Error::file(path))?;
        }
        metadata.finish_commit();
    }
    file.sync_all().map_err(Error::file(path))
}

fn open(file: &File, len: u64) -> Result<Metadata, Error> {
    let mut opening = Opening::new(Placement::External, len);
    let mut results = Vec::new();
    loop {
        match opening.step(results) {
            OpenStep::Done(opened) => return Ok(opened.metadata),
            OpenStep::Refused(error) => {
                return Err(Error::Nonsense { what: "metadata", said: error.to_string() });
            }
            OpenStep::Read(ranges) => {
                let read = |(offset, len): (u64, u32)| {
                    let mut bytes = vec![0; len as usize];
                    file.read_exact_at(&mut bytes, offset).map(|()| bytes).map_err(|_| ())
                };
                results = ranges.into_iter().map(read).collect();
            }
        }
    }
}

fn store(file: &File, write: MetaWrite) -> std::io::Result<()> {
    match write.bytes {
        Bytes::Data(bytes) => file.write_all_at(&bytes, write.offset),
        Bytes::Zeros(len) => file.write_all_at(&vec![0; len as usize], write.offset),
    }
}

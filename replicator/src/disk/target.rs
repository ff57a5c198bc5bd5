//! One open description of a disk: what it is, which transfers it takes, and how to carry out any
//! transfer through it, aligned or not. Every call here may wait for the disk.
//!
//! Not here: which bytes are data and which metadata, and what a failure means (`files.rs`).

use std::fs::{File, Metadata};
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::backing::Direct;
use super::error::{Cause, OpenError, OpenFault};
use super::{limits, lock};
use crate::buffers::Pool;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
const FUSE_MAGIC: i64 = 0x6573_5546;

/// Pieces in which bytes go to the page cache. It keeps in one folio what came in one piece, and on ext4 every later write into a folio
/// looks at all of its blocks: in folios of 1 MiB and more a 4 KiB write takes three times as long, in single pages a long one does.
const FOLIO: usize = 64 << 10;

/// RWF_DONTCACHE, of Linux 6.14: what a read brings into the page cache does not stay there. rustix has no name for it.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// How to open a description.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) direct: Direct,
    /// Make an empty file if there is none.
    pub(super) create: bool,
    /// Claim a block device against mounts and other drivers.
    pub(super) exclusive: bool,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    /// As it was when opened: for its identity, not its size.
    pub(super) metadata: Metadata,
    /// Bytes of whole blocks, when last measured.
    size: AtomicU64,
    pub(super) direct: bool,
    /// Transfers start and end at multiples of this; 1 for the page cache.
    pub(super) block: u64,
    /// And their memory starts at multiples of this.
    memory: usize,
    /// Ranges for `fallocate` start and end at multiples of this.
    zero_block: u64,
    pub(super) in_memory: bool,
    /// RWF_DSYNC does what it says: writes may carry it in place of a later fdatasync. A FUSE server
    /// may ignore it, and knows fdatasync.
    pub(super) dsync: bool,
    /// A FUSE file is read and written before the submission to a ring returns. If its server hangs, so would who submits.
    pub(super) blocks_submitter: bool,
}

impl Target {
    /// Opens `path` for reading and writing.
    pub(super) fn open(path: &Path, access: Access) -> Result<Self, OpenError> {
        Self::try_open(path, access).map_err(OpenFault::of(path))
    }

    fn try_open(path: &Path, access: Access) -> Result<Self, OpenFault> {
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC;
        // Asked before it is opened: opening a FIFO or a tape would have effects.
        match std::fs::metadata(path) {
            Ok(found) if !is_disk(&found) => return Err(OpenFault::NotADisk),
            // Without O_CREAT, O_EXCL claims a block device.
            Ok(found) => flags.set(OFlags::EXCL, access.exclusive && is_block_device(&found)),
            Err(error) if access.create && error.kind() == io::ErrorKind::NotFound => {
                flags |= OFlags::CREATE | OFlags::EXCL;
            }
            Err(error) => return Err(OpenFault::System("open", error)),
        }
        let file = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::BUSY) => {
                let holder = std::fs::metadata(path).ok().and_then(|disk| lock::holder(&disk));
                return Err(OpenFault::InUse(holder));
            }
            Err(errno) => return Err(OpenFault::System("open", errno.into())),
        };
        let metadata = file.metadata().map_err(OpenFault::system("fstat"))?;
        if !is_disk(&metadata) {
            return Err(OpenFault::NotADisk);
        }
        let block_device = is_block_device(&metadata);
        let system = rustix::fs::fstatfs(&file).map_err(OpenFault::system("fstatfs"))?;
        // A device node may live on a tmpfs; what it names does not.
        let on = |magic| !block_device && system.f_type as i64 == magic;
        let mut sector = 1;
        if block_device {
            let told = rustix::fs::ioctl_blksszget(&file);
            sector = told.map_err(OpenFault::system("ask for the block size"))?.into();
        }
        let mut target = Self {
            file,
            metadata,
            size: AtomicU64::new(0),
            direct: false,
            block: 1,
            memory: 1,
            zero_block: sector,
            in_memory: on(TMPFS_MAGIC) || on(RAMFS_MAGIC),
            dsync: !on(FUSE_MAGIC),
            blocks_submitter: on(FUSE_MAGIC),
        };
        // Reading must not make the file system note that it was read, which can wait for a journal.
        // Only the owner may ask for that.
        let _ = target.add_flag(OFlags::NOATIME);
        let try_direct = match access.direct {
            Direct::No => false,
            Direct::Auto => block_device,
            Direct::Yes => !target.in_memory,
        };
        if try_direct {
            target.make_direct(sector);
        }
        // IO-4: after a failed write-back the page cache goes on showing what the medium lacks, and no later flush writes it.
        // Who attaches a disk reads the medium.
        rustix::fs::fadvise(&target.file, 0, None, Advice::DontNeed)
            .map_err(OpenFault::system("drop the page cache"))?;
        // Clients read ahead for themselves, and what the kernel reads ahead lies in large folios.
        let _ = rustix::fs::fadvise(&target.file, 0, None, Advice::Random);
        Ok(target)
    }

    /// Turns the description to O_DIRECT, if the file system has it.
    fn make_direct(&mut self, sector: u64) {
        let asked = rustix::fs::statx(&self.file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
        let (block, memory) = match asked {
            Ok(told) if told.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
                if told.stx_dio_offset_align == 0 {
                    return;
                }
                (u64::from(told.stx_dio_offset_align), told.stx_dio_mem_align as usize)
            }
            // Kernels before 6.1, or a file system that does not tell: what suits all.
            _ if sector > 1 => (sector, sector as usize),
            _ => (4096, 4096),
        };
        // A file system that has no O_DIRECT refuses the flag here as it would in open.
        if self.add_flag(OFlags::DIRECT).is_ok() {
            (self.direct, self.block, self.memory) = (true, block, memory.max(1));
            self.zero_block = block;
        }
    }

    fn add_flag(&self, flag: OFlags) -> Result<(), Errno> {
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        rustix::fs::fcntl_setfl(&self.file, flags | flag)
    }

    /// Bytes of whole blocks, as of [`Self::measure`].
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Looks how large it is now.
    pub(super) fn measure(&self) -> Result<(), Errno> {
        // Seeking moves an offset that nobody uses: all transfers name theirs.
        let size = rustix::fs::seek(&self.file, SeekFrom::End(0))?;
        self.size.store(size - size % self.block, Ordering::Relaxed);
        Ok(())
    }

    /// The smallest range of whole blocks around `offset..offset + len`.
    pub(super) fn whole_blocks(&self, offset: u64, len: u64) -> Range<u64> {
        offset - offset % self.block..(offset + len).next_multiple_of(self.block)
    }

    /// Whether the kernel takes this transfer as it stands.
    pub(super) fn takes(&self, offset: u64, bytes: &[u8]) -> bool {
        offset.is_multiple_of(self.block)
            && (bytes.len() as u64).is_multiple_of(self.block)
            && bytes.as_ptr().addr().is_multiple_of(self.memory)
    }

    /// Reads whole blocks into aligned memory.
    pub(super) fn read(&self, mut offset: u64, mut bytes: &mut [u8]) -> Result<(), Cause> {
        while !bytes.is_empty() {
            let read = retry_on_intr(|| rustix::io::pread(&self.file, &mut *bytes, offset))?;
            // O_DIRECT stops inside a block only at the end of the file.
            if read == 0 || !(read as u64).is_multiple_of(self.block) {
                return Err(Cause::UnexpectedEnd);
            }
            bytes = &mut bytes[read..];
            offset += read as u64;
        }
        Ok(())
    }

    /// Reads what nobody is going to need again soon: whatever is not in the page cache is not kept there, if the kernel can.
    pub(super) fn read_once(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Cause> {
        let mut at = 0;
        while at < bytes.len() && !self.direct && !self.in_memory {
            let into = &mut [IoSliceMut::new(&mut bytes[at..])];
            match rustix::io::preadv2(&self.file, into, offset + at as u64, DONT_CACHE) {
                Ok(read) if read > 0 => at += read,
                Err(Errno::INTR) => {}
                // Of an older kernel, or at the end: what follows says why.
                Ok(_) | Err(_) => break,
            }
        }
        self.read(offset + at as u64, &mut bytes[at..])
    }

    /// Reads what is in the page cache, never waiting: `None` if not all of it is, or if the file
    /// system cannot tell.
    pub(super) fn read_now(&self, offset: u64, bytes: &mut [u8]) -> Option<()> {
        let len = bytes.len();
        let into = &mut [IoSliceMut::new(bytes)];
        let read = rustix::io::preadv2(&self.file, into, offset, ReadWriteFlags::NOWAIT);
        (read == Ok(len)).then_some(())
    }

    /// Writes any bytes anywhere. Blocks covered in part are read, merged and written whole:
    /// nothing else may write them meanwhile.
    pub(super) fn write(
        &self,
        offset: u64,
        bytes: &[u8],
        durable: bool,
        pool: &Pool,
    ) -> Result<(), Cause> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.takes(offset, bytes) {
            self.write_blocks(offset, bytes, durable)?;
        } else {
            let range = self.whole_blocks(offset, bytes.len() as u64);
            let mut scratch = pool.take((range.end - range.start) as usize);
            let whole = scratch.as_mut();
            let (head, block) = ((offset - range.start) as usize, self.block as usize);
            let tail = head + bytes.len();
            if head > 0 {
                self.read(range.start, &mut whole[..block])?;
            }
            let last = whole.len() - block;
            if tail < whole.len() && !(head > 0 && last == 0) {
                self.read(range.end - self.block, &mut whole[last..])?;
            }
            whole[head..tail].copy_from_slice(bytes);
            self.write_blocks(range.start, whole, durable)?;
        }
        if durable && !self.dsync {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what [`Self::takes`].
    fn write_blocks(&self, mut offset: u64, mut bytes: &[u8], durable: bool) -> Result<(), Cause> {
        let flags = match durable && self.dsync {
            true => ReadWriteFlags::DSYNC,
            false => ReadWriteFlags::empty(),
        };
        let cached = !self.direct && !self.in_memory;
        while !bytes.is_empty() {
            let piece = if cached { FOLIO - offset as usize % FOLIO } else { bytes.len() };
            let from = &[IoSlice::new(&bytes[..piece.min(bytes.len())])];
            let written = retry_on_intr(|| rustix::io::pwritev2(&self.file, from, offset, flags))?;
            // Go on at a block boundary; the next attempt says what stopped this one.
            let whole = written - written % self.block as usize;
            if whole == 0 {
                return Err(Errno::IO.into());
            }
            bytes = &bytes[whole..];
            offset += whole as u64;
        }
        Ok(())
    }

    /// Makes exactly this range read as zeros; not durable. With `may_unmap` the space is given
    /// back where that is possible, else it stays allocated.
    pub(super) fn zero(
        &self,
        offset: u64,
        len: u64,
        may_unmap: bool,
        pool: &Pool,
    ) -> Result<(), Cause> {
        let end = offset + len;
        // The whole blocks inside.
        let block = self.zero_block;
        let middle = offset.next_multiple_of(block)..end - end % block;
        if middle.is_empty() {
            return self.write_zeros(offset, len, pool);
        }
        self.write_zeros(offset, middle.start - offset, pool)?;
        self.write_zeros(middle.end, end - middle.end, pool)?;
        let len = middle.end - middle.start;
        // On a block device both mean "reads as zeros", never a discard of undefined result.
        let punch = may_unmap.then_some(FallocateFlags::PUNCH_HOLE);
        for how in punch.into_iter().chain([FallocateFlags::ZERO_RANGE]) {
            let how = how | FallocateFlags::KEEP_SIZE;
            match retry_on_intr(|| rustix::fs::fallocate(&self.file, how, middle.start, len)) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {}
                done => return Ok(done?),
            }
        }
        self.write_zeros(middle.start, len, pool)
    }

    /// Writes real zeros, in bounded pieces: what they cover is allocated afterwards.
    pub(super) fn write_zeros(&self, mut offset: u64, len: u64, pool: &Pool) -> Result<(), Cause> {
        if len == 0 {
            return Ok(());
        }
        let end = offset + len;
        let zeros = pool.zeroed(len.min(limits::ZERO_CHUNK) as usize);
        while offset < end {
            // Pieces end at multiples of the chunk, so that only the first and last are unaligned.
            let next = (offset + 1).next_multiple_of(limits::ZERO_CHUNK).min(end);
            let piece = &zeros.as_ref()[..(next - offset) as usize];
            self.write(offset, piece, false, pool)?;
            offset = next;
        }
        Ok(())
    }

    /// Reserves space for a range, extending the file if need be; nothing where the file system
    /// cannot, or on a block device, whose space is there.
    pub(super) fn reserve(&self, offset: u64, len: u64) -> Result<(), Cause> {
        if is_block_device(&self.metadata) {
            return Ok(());
        }
        match retry_on_intr(|| {
            rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len)
        }) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                // Only if it is too short: not every file system can set a size.
                let size = rustix::fs::seek(&self.file, SeekFrom::End(0))?;
                if size < offset + len {
                    rustix::fs::ftruncate(&self.file, offset + len)?;
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// Whether the file system knows the range as a hole: `true` is sure, `false` is not.
    pub(super) fn is_hole(&self, offset: u64, len: u64) -> bool {
        if is_block_device(&self.metadata) {
            return false;
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data >= offset + len,
            // No data up to the end of the file, wherever that is by now.
            Err(Errno::NXIO) => {
                rustix::fs::fstat(&self.file).is_ok_and(|now| now.st_size as u64 >= offset + len)
            }
            Err(_) => false,
        }
    }

    pub(super) fn flush(&self) -> Result<(), Cause> {
        // Once only: the kernel reports a write-back error to the first who asks (IO-4). It does
        // not interrupt fdatasync.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }
}

fn is_disk(metadata: &Metadata) -> bool {
    metadata.is_file() || is_block_device(metadata)
}

fn is_block_device(metadata: &Metadata) -> bool {
    metadata.file_type().is_block_device()
}

//! The FUSE side of a fault disk: one flat directory whose files are in memory. It decides nothing: `mod.rs` does.

use super::record::Change;
use super::{Ask, Shared};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nobody but the kernel changes what it was told of names and sizes.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Inode 1 is the directory.
const FIRST: u64 = 2;

pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    /// Files are opened so that nothing goes through the page cache, and writes do not wait for each other.
    pub(super) direct: bool,
}

impl Server {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0),
            INodeNo(ino) => (FileType::RegularFile, self.shared.size(index(ino)?)?),
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: if kind == FileType::Directory { 0o755 } else { 0o666 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn index(ino: u64) -> Option<usize> {
    ino.checked_sub(FIRST).map(|index| index as usize)
}

/// The file of a request that can only be about a file.
fn file(ino: INodeNo) -> usize {
    index(ino.0).expect("the kernel reads and writes files only")
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.shared.find(name).map(|index| INodeNo(index as u64 + FIRST));
        match found.and_then(|ino| self.attr(ino)) {
            Some(attr) => reply.entry(&FOR_EVER, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&FOR_EVER, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Times and modes are nothing to us.
        if let Some(size) = size {
            self.shared.grow(file(ino), size);
        }
        self.getattr(request, ino, handle, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        let flags = if self.direct { direct } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        Shared::serve(&self.shared, file(ino), Ask::Read(offset, size.into()), |done| match done {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (ask, len) = (Ask::Change(Change::Write(offset, data.into())), data.len() as u32);
        Shared::serve(&self.shared, file(ino), ask, move |done| match done {
            Ok(_) => reply.written(len),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        });
    }

    /// This is close(2), which promises nothing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let ask = Ask::Change(Change::Flush);
        Shared::serve(&self.shared, file(ino), ask, |done| finish(reply, done));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const ZEROS: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & ZEROS != 0 {
            let ask = Ask::Change(Change::Zero(offset, length));
            Shared::serve(&self.shared, file(ino), ask, |done| finish(reply, done));
        } else {
            self.shared.grow(file(ino), offset + length);
            reply.ok();
        }
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.shared.seek(file(ino), offset as u64, whence) {
            Some(at) => reply.offset(at as i64),
            None => reply.error(Errno::ENXIO),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (index, name) in self.shared.names().into_iter().enumerate().skip(offset as usize) {
            let (ino, next) = (INodeNo(index as u64 + FIRST), index as u64 + 1);
            if reply.add(ino, next, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}

fn finish(reply: ReplyEmpty, done: Result<Vec<u8>, i32>) {
    match done {
        Ok(_) => reply.ok(),
        Err(errno) => reply.error(Errno::from_i32(errno)),
    }
}

//! The metadata of a disk: bytes in sectors that are stable when written, and what may become of them while nobody looks. What one must
//! notice is in `docs/metadata.md`; whether it was noticed is judged by `decay`.

use super::Rng;
use bitmap::{Bytes, MetaWrite, Placement};
use replicator::digest::Digest;
use std::ops::Range;
use std::sync::Arc;

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;
/// What stands where in a sector of the log and of a bitmap, by `docs/metadata.md`.
const LOG_MAGIC: &[u8] = b"PlxL";
const SEQUENCE: usize = 16;
const BATCH_START: usize = 24;
const UNIT_MAGIC: &[u8] = b"PlxB";
const LEVEL: usize = 17;
const EPOCH: Range<usize> = 24..28;

/// What becomes of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decay {
    /// It cannot be read.
    Unreadable,
    /// A bit of it is another.
    Flipped { bit: u16 },
    /// It holds what was written for this other one.
    Strayed { from: u64 },
    /// It holds what it held before it was last written. Of a superblock copy, the whole copy.
    Lost,
}

fn number(sector: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"))
}

/// Pages of bytes from `start` on; clones share what is equal.
#[derive(Clone)]
struct Pages {
    start: u64,
    pages: Vec<Arc<[u8; PAGE as usize]>>,
}

impl Pages {
    fn new(start: u64, end: u64) -> Self {
        let zero = Arc::new([0; PAGE as usize]);
        Self { start, pages: vec![zero; (end - start).div_ceil(PAGE) as usize] }
    }

    fn sector(&self, offset: u64) -> Option<&[u8]> {
        let at = offset.checked_sub(self.start)?;
        let i = (at % PAGE) as usize;
        self.pages.get((at / PAGE) as usize)?.get(i..i + SECTOR as usize)
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let Some(at) = offset.checked_sub(self.start) else { return };
        if let Some(page) = self.pages.get_mut((at / PAGE) as usize) {
            let i = (at % PAGE) as usize;
            Arc::make_mut(page)[i..i + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// The metadata area.
#[derive(Clone)]
pub(super) struct MetaArea {
    /// Counts changes.
    pub(super) version: u64,
    now: Pages,
    /// What each sector held before, if somebody may want to know.
    former: Option<Pages>,
    unreadable: Vec<u64>,
    /// What decayed, was noticed, and was not written again.
    decayed: Vec<u64>,
    copies: [u64; 2],
}

impl MetaArea {
    /// Internal metadata from `start` to the end of a device. `remembers`: writes may be lost.
    pub(super) fn new(start: u64, end: u64, remembers: bool) -> Self {
        let copies = bitmap::Layout::superblock_offsets(end, Placement::Internal);
        let now = Pages::new(start, end);
        let former = remembers.then(|| now.clone());
        let copies = copies.expect("room for two superblocks");
        Self { version: 0, now, former, unreadable: Vec::new(), decayed: Vec::new(), copies }
    }

    /// What stands for all of it.
    pub(super) fn digest(&self) -> Digest {
        let zeros = |page: &[u8]| page.iter().all(|&byte| byte == 0);
        let digest = |page: &Arc<[u8; PAGE as usize]>| {
            if zeros(&page[..]) { Digest::default() } else { Digest::of(&page[..]) }
        };
        let pages: Vec<_> = self.now.pages.iter().map(digest).collect();
        Digest::of_all(&pages)
    }

    /// Reads; an error if a sector of it cannot be read.
    pub(super) fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, ()> {
        let mut bytes = Vec::with_capacity(len as usize);
        for at in (offset..offset + u64::from(len)).step_by(SECTOR as usize) {
            if self.unreadable.contains(&at) {
                return Err(());
            }
            bytes.extend_from_slice(self.now.sector(at).ok_or(())?);
        }
        Ok(bytes)
    }

    /// Writes the sectors that arrive.
    pub(super) fn write(&mut self, write: &MetaWrite, mut arrives: impl FnMut() -> bool) {
        self.version += 1;
        let zeros = [0; SECTOR as usize];
        let len = match &write.bytes {
            Bytes::Data(bytes) => bytes.len() as u64,
            Bytes::Zeros(len) => *len,
        };
        for at in (0..len).step_by(SECTOR as usize) {
            if !arrives() {
                continue;
            }
            let bytes = match &write.bytes {
                Bytes::Data(bytes) => &bytes[at as usize..][..zeros.len()],
                Bytes::Zeros(_) => &zeros,
            };
            let at = write.offset + at;
            if let Some(former) = &mut self.former
                && let Some(old) = self.now.sector(at)
            {
                former.put(at, old);
            }
            self.now.put(at, bytes);
            self.unreadable.retain(|&bad| bad != at);
            self.forget(at);
        }
    }

    /// Until a decayed superblock copy was written again, another fault is more than the promise covers.
    pub(super) fn fragile(&self) -> bool {
        self.decayed.iter().any(|&at| self.is_superblock(at))
    }

    /// What decayed and was not written again; the last of it, for superblocks come last.
    pub(super) fn decayed(&self) -> Option<u64> {
        self.decayed.iter().max().copied()
    }

    /// It does not matter any more.
    pub(super) fn forget(&mut self, at: u64) {
        self.decayed.retain(|&other| other != at);
    }

    /// Somebody must have noticed this.
    pub(super) fn noticed(&mut self, at: u64) {
        self.decayed.push(at);
    }

    pub(super) fn is_superblock(&self, at: u64) -> bool {
        at >= self.copies[1]
    }

    pub(super) fn copies(&self) -> [u64; 2] {
        self.copies
    }

    /// Where the log ring begins: it ends where the superblocks begin.
    pub(super) fn log(&self, al_sectors: u32) -> u64 {
        self.copies[1] - (u64::from(al_sectors) * SECTOR).next_multiple_of(PAGE)
    }

    /// Some sector: of a superblock copy, of the log, rather a new one, or of a bitmap, rather the
    /// first, which small devices use.
    pub(super) fn some_sector(&self, al_sectors: u32, rng: &mut Rng) -> u64 {
        let log = self.log(al_sectors);
        match rng.below(8) {
            0 => *rng.pick(&self.copies) + rng.below(8) * SECTOR,
            1 => log + rng.below(u64::from(al_sectors)) * SECTOR,
            2 | 3 => {
                let ring = u64::from(al_sectors) * SECTOR;
                let newest = self.newest(log).map_or(0, |(at, _)| at - log);
                log + (newest + ring - rng.below(4) * SECTOR) % ring
            }
            4 => self.now.start + rng.below((log - self.now.start) / SECTOR) * SECTOR,
            _ => self.now.start + rng.below(2) * PAGE,
        }
    }

    /// May this happen? One at a time in each part; and what no format can notice happens to nobody.
    pub(super) fn may(&self, at: u64, decay: Decay, log: u64, al_slots: u32) -> bool {
        let part = |at| (self.is_superblock(at), at >= log);
        if self.decayed.iter().any(|&other| part(other) == part(at)) {
            return false;
        }
        match decay {
            _ if self.is_superblock(at) => self.mirrored(),
            Decay::Lost if at >= log => self.is_old_log(at, log, al_slots),
            Decay::Lost => self.is_first_of_its_epoch(at),
            Decay::Unreadable | Decay::Flipped { .. } | Decay::Strayed { .. } => true,
        }
    }

    /// Both copies of the superblock are readable and new: they differ in their own offset and checksum only.
    pub(super) fn mirrored(&self) -> bool {
        let [a, b] = self.copies.map(|at| self.read(at, PAGE as u32));
        let (Ok(a), Ok(b)) = (a, b) else { return false };
        // All but checksum and place, which come behind magic and version.
        a[..12] == b[..12] && a[24..] == b[24..]
    }

    /// The newest sector of the log: where it is, and what it holds.
    fn newest(&self, log: u64) -> Option<(u64, &[u8])> {
        let sectors = (log..self.copies[1]).step_by(SECTOR as usize);
        let sectors = sectors.filter_map(|at| Some((at, self.log_sector(at)?)));
        sectors.max_by_key(|(_, sector)| number(sector, SEQUENCE))
    }

    fn log_sector(&self, at: u64) -> Option<&[u8]> {
        self.now.sector(at).filter(|bytes| bytes.starts_with(LOG_MAGIC))
    }

    /// A sector of the log that is needed, and not of the newest batch: that its writing was lost shows by its number.
    fn is_old_log(&self, at: u64, log: u64, al_slots: u32) -> bool {
        let Some((_, newest)) = self.newest(log) else { return false };
        let end = number(newest, BATCH_START);
        let start = end.saturating_sub(u64::from(al_slots.div_ceil(24)) + 1);
        self.log_sector(at).is_some_and(|sector| (start..end).contains(&number(sector, SEQUENCE)))
    }

    /// A unit that was written once in its epoch: that this was lost shows, for the summary vouches for it.
    fn is_first_of_its_epoch(&self, at: u64) -> bool {
        let former = self.former.as_ref().and_then(|former| former.sector(at));
        let (Some(now), Some(former)) = (self.now.sector(at), former) else { return false };
        now.starts_with(UNIT_MAGIC) && now[LEVEL] == 0 && now[EPOCH] != former[EPOCH]
    }

    /// It happens. False if all is as it was.
    pub(super) fn decay(&mut self, at: u64, decay: Decay) -> bool {
        self.version += 1;
        let before = (self.unreadable.len(), self.read(at / PAGE * PAGE, PAGE as u32));
        self.change(at, decay);
        before != (self.unreadable.len(), self.read(at / PAGE * PAGE, PAGE as u32))
    }

    fn change(&mut self, at: u64, decay: Decay) {
        let sector = |pages: &Pages, at| pages.sector(at).map(<[u8]>::to_vec);
        match decay {
            Decay::Unreadable => self.unreadable.push(at),
            Decay::Flipped { bit } => {
                let Some(mut bytes) = sector(&self.now, at) else { return };
                bytes[usize::from(bit / 8)] ^= 1 << (bit % 8);
                self.now.put(at, &bytes);
            }
            Decay::Strayed { from } => {
                let Some(bytes) = sector(&self.now, from) else { return };
                self.now.put(at, &bytes);
            }
            Decay::Lost => {
                let len = if self.is_superblock(at) { PAGE } else { SECTOR };
                for at in (at..at + len).step_by(SECTOR as usize) {
                    let former = self.former.as_ref().and_then(|former| sector(former, at));
                    let Some(bytes) = former else { return };
                    self.now.put(at, &bytes);
                }
            }
        }
    }
}

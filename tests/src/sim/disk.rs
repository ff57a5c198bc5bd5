//! A disk with a volatile write cache: data as one token per sector, metadata as bytes.
//!
//! It does exactly what the node was promised and nothing more: a flush covers the writes whose completion the node
//! had been handed before it asked, metadata writes are stable when done. It does not know time; the world decides when an
//! operation completes, and whether it fails.

use super::Rng;
use super::medium::Cells;
use super::meta_area::MetaArea;
use crate::model::Token;
use bitmap::MetaWrite;
use replicator::digest::Digest;
use std::fmt;
use std::sync::Arc;

/// What a data write writes.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// These sectors.
    Data(Arc<[u64]>),
    /// Zeros.
    Zeros,
}

impl Payload {
    fn token(&self, index: u32) -> u64 {
        match self {
            Self::Data(tokens) => tokens[index as usize],
            Self::Zeros => 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Cached {
    order: u32,
    start: u32,
    len: u32,
    payload: Payload,
    handed: bool,
}

/// A write a power cut may take: order, completed, data, metadata.
type Exposed = (u32, bool, Option<Cached>, Option<Vec<MetaWrite>>);

/// An operation of the disk.
#[derive(Clone, Debug)]
pub(super) enum DiskCommand {
    /// Read sectors.
    Read { start: u32, len: u32 },
    /// Read sectors, and digest so many at a time.
    Digest { start: u32, len: u32, block: u32 },
    /// Write sectors.
    Write { start: u32, len: u32, payload: Payload, fua: bool },
    /// Flush.
    Flush,
    /// Read metadata.
    ReadMeta(Vec<(u64, u32)>),
    /// Write metadata.
    WriteMeta(Vec<MetaWrite>),
}

#[derive(Clone, Debug)]
struct InFlight {
    io: u64,
    order: u32,
    command: DiskCommand,
    covers: Vec<u32>,
}

/// What an operation brought.
pub(super) enum Finished {
    /// Done.
    Done,
    /// The sectors read.
    Data(Vec<u64>),
    /// What the sectors digest to.
    Digests(Vec<Digest>),
    /// The metadata read.
    Meta(Vec<Result<Vec<u8>, ()>>),
}

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    /// Completed writes that are gone, whole or in part.
    pub(super) writes: u32,
    /// Metadata writes under way that arrived in part.
    pub(super) torn_meta: u32,
    /// Writes that arrived in part.
    pub(super) torn: u32,
}

/// One disk.
#[derive(Clone)]
pub(super) struct Disk {
    /// Number of this disk in the world: a replaced one has another.
    pub(super) number: u32,
    /// Sectors of the data area.
    pub(super) sectors: u32,
    /// Bytes of the whole device.
    pub(super) size: u64,
    /// Its metadata, which is stable when written.
    pub(super) meta: MetaArea,
    /// Every operation fails.
    pub(super) dead: bool,
    /// The cache survives power cuts.
    pub(super) battery: bool,
    /// A process uses it.
    pub(super) in_use: bool,
    /// IO-4: that process was told that a flush failed.
    pub(super) flush_failed: bool,
    /// Operations do not end, or late.
    pub(super) hangs: bool,
    pub(super) slow: bool,
    /// An operator took it away, and wants it so.
    pub(super) detached: bool,
    visible: Cells,
    stable: Cells,
    cache: Vec<Cached>,
    in_flight: Vec<InFlight>,
    /// What a failed flush dropped: readable until the disk is opened again.
    dropped: Vec<Cached>,
    order: u32,
}

impl Disk {
    /// A new disk: `data` bytes of data, then metadata up to `size`, of which writes may be lost if it `remembers`.
    pub(super) fn new(number: u32, data: u64, size: u64, remembers: bool) -> Self {
        let sectors = (data / 512) as u32;
        let cells = Cells::new(number, sectors);
        Self {
            number,
            sectors,
            size,
            meta: MetaArea::new(data, size, remembers),
            dead: false,
            battery: false,
            in_use: false,
            flush_failed: false,
            hangs: false,
            slow: false,
            detached: false,
            visible: cells.clone(),
            stable: cells,
            cache: Vec::new(),
            in_flight: Vec::new(),
            dropped: Vec::new(),
            order: 0,
        }
    }

    /// What a read would return.
    pub(super) fn visible(&self, sector: u32) -> Token {
        Token(self.visible.token(sector))
    }

    /// What is on the medium.
    pub(super) fn stable(&self, sector: u32) -> Token {
        Token(self.stable.token(sector))
    }

    /// Whether a write to this sector is under way.
    pub(super) fn writing(&self, sector: u32) -> bool {
        self.in_flight.iter().any(|f| match &f.command {
            DiskCommand::Write { start, len, .. } => (*start..start + len).contains(&sector),
            _ => false,
        })
    }

    /// What a flush that is asked for now will make stable; none if a write to it is under way, or its end not yet told.
    pub(super) fn settled(&self, sector: u32) -> Option<Token> {
        let untold = |c: &Cached| !c.handed && (c.start..c.start + c.len).contains(&sector);
        let open = self.writing(sector) || self.cache.iter().any(untold);
        (!open && sector < self.sectors).then(|| self.visible(sector))
    }

    /// All that decides what it will answer, but for its metadata.
    pub(super) fn data(&self) -> impl fmt::Debug + use<'_> {
        (&self.visible, &self.stable, &self.cache, &self.in_flight, self.in_use)
    }

    /// Operations under way.
    pub(super) fn busy(&self) -> usize {
        self.in_flight.len()
    }

    /// A write of metadata is under way.
    pub(super) fn writes_metadata(&self) -> bool {
        self.in_flight.iter().any(|f| matches!(f.command, DiskCommand::WriteMeta(_)))
    }

    /// Completed writes that are not stable.
    pub(super) fn cached(&self) -> usize {
        self.cache.len()
    }

    /// A write under way that shares a sector with this range.
    pub(super) fn overlapping(&self, start: u32, len: u32, with_reads: bool) -> Option<u64> {
        let hit = |s: u32, l: u32| s < start + len && start < s + l;
        self.in_flight.iter().find_map(|f| match f.command {
            DiskCommand::Write { start: s, len: l, .. } if hit(s, l) => Some(f.io),
            DiskCommand::Read { start: s, len: l }
            | DiskCommand::Digest { start: s, len: l, .. }
                if with_reads && hit(s, l) =>
            {
                Some(f.io)
            }
            _ => None,
        })
    }

    /// Takes an operation; `finish` or `fail` ends it.
    pub(super) fn submit(&mut self, io: u64, command: DiskCommand) {
        self.order += 1;
        let covers = match command {
            DiskCommand::Flush => self.cache.iter().filter(|c| c.handed).map(|c| c.order).collect(),
            _ => Vec::new(),
        };
        self.in_flight.push(InFlight { io, order: self.order, command, covers });
    }

    fn take(&mut self, io: u64) -> InFlight {
        let at = self.in_flight.iter().position(|f| f.io == io).expect("ended once");
        self.in_flight.swap_remove(at)
    }

    /// Ends an operation well.
    pub(super) fn finish(&mut self, io: u64) -> Finished {
        let done = self.take(io);
        match done.command {
            DiskCommand::Read { start, len } => {
                Finished::Data((start..start + len).map(|s| self.visible.token(s)).collect())
            }
            DiskCommand::Digest { start, len, block } => {
                let bytes: Vec<_> = (start..start + len)
                    .flat_map(|sector| self.visible.token(sector).to_le_bytes())
                    .collect();
                Finished::Digests(bytes.chunks(block as usize * 8).map(Digest::of).collect())
            }
            DiskCommand::Write { start, len, payload, fua } => {
                self.arrive(done.order, start, len, payload, fua);
                Finished::Done
            }
            DiskCommand::Flush => {
                self.write_back(|c| done.covers.contains(&c.order));
                Finished::Done
            }
            DiskCommand::ReadMeta(ranges) => {
                Finished::Meta(ranges.iter().map(|&(at, len)| self.meta.read(at, len)).collect())
            }
            DiskCommand::WriteMeta(writes) => {
                for write in &writes {
                    self.meta.write(write, || true);
                }
                Finished::Done
            }
        }
    }

    /// Ends an operation with an error: a write may have arrived in part, a flush may have lost what it should have
    /// written back, for ever and without a second error.
    pub(super) fn fail(&mut self, io: u64, rng: &mut Rng) {
        let done = self.take(io);
        match done.command {
            DiskCommand::Write { start, len, payload, .. } => {
                for i in 0..len {
                    if rng.percent(50) {
                        continue;
                    }
                    let token = payload.token(i);
                    self.arrive(done.order, start + i, 1, Payload::Data(Arc::new([token])), false);
                }
                // The error is handed over, too: a later flush covers what arrived.
                for c in self.cache.iter_mut().filter(|c| c.order == done.order) {
                    c.handed = true;
                }
            }
            DiskCommand::Flush => {
                let lost: Vec<u32> = done.covers.into_iter().filter(|_| rng.percent(50)).collect();
                let (lost, kept) = std::mem::take(&mut self.cache)
                    .into_iter()
                    .partition(|c| lost.contains(&c.order));
                self.cache = kept;
                self.dropped.extend(lost);
            }
            DiskCommand::WriteMeta(writes) => {
                for write in &writes {
                    self.meta.write(write, || rng.percent(50));
                }
            }
            DiskCommand::Read { .. } | DiskCommand::Digest { .. } | DiskCommand::ReadMeta(_) => {}
        }
    }

    /// A process opens it: what a failed flush dropped is no longer shown (the shell empties the page cache).
    pub(super) fn open(&mut self) {
        self.in_use = true;
        for c in std::mem::take(&mut self.dropped) {
            for s in c.start..c.start + c.len {
                self.visible.copy(s, &self.stable);
            }
        }
        for c in &self.cache {
            for i in 0..c.len {
                self.visible.put(c.start + i, c.payload.token(i), c.order);
            }
        }
    }

    /// No process uses it any more.
    pub(super) fn close(&mut self) {
        self.in_use = false;
        self.flush_failed = false;
    }

    /// The node was handed the completions of its writes so far.
    pub(super) fn handed(&mut self, order: u32) {
        if let Some(c) = self.cache.iter_mut().rev().find(|c| c.order == order) {
            c.handed = true;
        }
    }

    /// The submission number of an operation under way, to name it in `handed`.
    pub(super) fn order_of(&self, io: u64) -> u32 {
        self.in_flight.iter().find(|f| f.io == io).map_or(0, |f| f.order)
    }

    fn arrive(&mut self, order: u32, start: u32, len: u32, payload: Payload, fua: bool) {
        for i in 0..len {
            self.visible.put(start + i, payload.token(i), order);
            if fua {
                self.stable.put(start + i, payload.token(i), order);
            }
        }
        if !fua {
            self.cache.push(Cached { order, start, len, payload, handed: false });
        }
    }

    fn write_back(&mut self, covered: impl Fn(&Cached) -> bool) {
        let stable = &mut self.stable;
        self.cache.retain(|c| {
            let done = covered(c);
            if done {
                for i in 0..c.len {
                    stable.put(c.start + i, c.payload.token(i), c.order);
                }
            }
            !done
        });
    }

    /// Writes metadata at once (create-md).
    pub(super) fn format(&mut self, stages: &[Vec<MetaWrite>]) {
        for write in stages.iter().flatten() {
            self.meta.write(write, || true);
        }
    }

    /// Reads metadata as recovery would.
    pub(super) fn peek_meta(&self, ranges: &[(u64, u32)]) -> Vec<Result<Vec<u8>, ()>> {
        ranges.iter().map(|&(at, len)| self.meta.read(at, len)).collect()
    }

    /// The process that used it is dead: what was under way arrives whole, in part or not; the cache stays.
    pub(super) fn kill(&mut self, rng: &mut Rng) {
        // A failed flush and a kill before anybody could note it is more than the promise covers.
        self.cache.append(&mut self.dropped);
        self.cache.sort_by_key(|c| c.order);
        let mut left = std::mem::take(&mut self.in_flight);
        left.sort_by_key(|f| f.order);
        for f in left {
            match f.command {
                DiskCommand::Write { start, len, payload, fua } => {
                    let whole = rng.below(3);
                    for i in 0..len {
                        if whole == 0 || (whole == 1 && rng.percent(50)) {
                            let one = Payload::Data(Arc::new([payload.token(i)]));
                            self.arrive(f.order, start + i, 1, one, fua && rng.percent(50));
                        }
                    }
                }
                DiskCommand::Flush => {
                    if rng.percent(50) {
                        self.write_back(|c| f.covers.contains(&c.order));
                    }
                }
                DiskCommand::WriteMeta(writes) => {
                    let whole = if self.meta.fragile() { 0 } else { rng.below(3) };
                    for write in &writes {
                        self.meta.write(write, || whole == 0 || (whole == 1 && rng.percent(50)));
                    }
                }
                DiskCommand::Read { .. }
                | DiskCommand::Digest { .. }
                | DiskCommand::ReadMeta(_) => {}
            }
        }
        // Whoever flushes next, flushes all of it.
        for c in &mut self.cache {
            c.handed = true;
        }
    }

    /// The power fails: each write in the cache or under way is kept, dropped or torn.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) -> Loss {
        let mut loss = Loss::default();
        let way = if self.battery { 0 } else { rng.below(4) };
        let count = self.cache.len() + self.in_flight.len();
        let prefix = rng.below(count as u64 + 1) as usize;
        let mut writes: Vec<Exposed> = Vec::new();
        for c in std::mem::take(&mut self.cache) {
            writes.push((c.order, true, Some(c), None));
        }
        for f in std::mem::take(&mut self.in_flight) {
            match f.command {
                DiskCommand::Write { start, len, payload, .. } => {
                    let order = f.order;
                    let c = Cached { order, start, len, payload, handed: false };
                    writes.push((order, false, Some(c), None));
                }
                DiskCommand::WriteMeta(meta) => writes.push((f.order, false, None, Some(meta))),
                _ => {}
            }
        }
        writes.sort_by_key(|w| w.0);
        for (i, (order, completed, data, meta)) in writes.into_iter().enumerate() {
            // 0: arrives, 1: does not, 2: sector by sector
            let fate = match way {
                0 => u64::from(!completed && self.battery && rng.percent(50)),
                1 => 1,
                2 if i == prefix => 2,
                2 => u64::from(i > prefix),
                _ => rng.below(3),
            };
            let mut arrived = 0;
            let mut sectors = 0;
            let fate = if meta.is_some() && self.meta.fragile() { 0 } else { fate };
            if let Some(c) = data {
                for s in 0..c.len {
                    sectors += 1;
                    if fate == 0 || (fate == 2 && rng.percent(50)) {
                        arrived += 1;
                        self.stable.put(c.start + s, c.payload.token(s), order);
                    }
                }
                loss.writes += u32::from(completed && arrived < sectors);
                loss.torn += u32::from(arrived > 0 && arrived < sectors);
            }
            for write in meta.into_iter().flatten() {
                self.meta.write(&write, || {
                    sectors += 1;
                    let arrives = fate == 0 || (fate == 2 && rng.percent(50));
                    arrived += u32::from(arrives);
                    arrives
                });
            }
            loss.torn_meta += u32::from(arrived > 0 && arrived < sectors);
        }
        self.dropped.clear();
        self.visible = self.stable.clone();
        loss
    }
}

#[cfg(test)]
mod tests;

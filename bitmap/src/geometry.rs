//! Arithmetic between bytes of the data area, blocks (one bit each) and activity log extents.
//! Rounding is decided here and nowhere else: setting rounds out, clearing rounds in.

use core::ops::Range;

/// A half-open range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// First byte behind the range.
    pub end: u64,
}

impl ByteRange {
    /// The `len` bytes from `start`. Panics if the end does not fit a `u64`: ranges from
    /// outside are checked against the device size before they get here.
    pub fn new(start: u64, len: u64) -> Self {
        let end = start.checked_add(len).expect("a byte range ends below 2^64");
        Self { start, end }
    }

    /// Bytes in the range.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range holds no byte.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Whether the two share a byte. An empty range overlaps nothing.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }

    /// Whether every byte of `other` is in `self`. Every range contains the empty one.
    pub fn contains(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The shared bytes, if there are any.
    pub fn intersect(&self, other: Self) -> Option<Self> {
        let shared = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (!shared.is_empty()).then_some(shared)
    }

    /// The smallest range of whole `unit`s that contains this one. An empty range stays empty.
    pub fn align_out(&self, unit: u64) -> Self {
        let start = self.start / unit * unit;
        if self.is_empty() {
            return Self { start, end: start };
        }
        let end = self.end.div_ceil(unit).checked_mul(unit).expect("aligned end below 2^64");
        Self { start, end }
    }

    /// The largest range of whole `unit`s inside this one, if it holds one.
    pub fn align_in(&self, unit: u64) -> Option<Self> {
        let start = self.start.div_ceil(unit).checked_mul(unit)?;
        let inner = Self { start, end: self.end / unit * unit };
        (!inner.is_empty()).then_some(inner)
    }
}

/// The shape of one volume's data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the data area.
    pub size: u64,
    /// Bytes that one bit stands for.
    pub block_size: u32,
    /// Bytes of one activity log extent; a multiple of `block_size`.
    pub extent_size: u32,
    /// Smallest unit of I/O, in bytes.
    pub logical_block_size: u32,
}

impl Geometry {
    /// Blocks of the device; the last one may be partial.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(u64::from(self.block_size))
    }

    /// Activity log extents of the device; the last one may be partial.
    pub fn extents(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.extent_size)))
            .expect("the layout limits extents to 32 bits")
    }

    /// Every block that `range` touches: the blocks to set.
    pub fn blocks_out(&self, range: ByteRange) -> Range<u64> {
        let block = u64::from(self.block_size);
        let end = range.end.min(self.size);
        if range.start >= end {
            return 0..0;
        }
        range.start / block..end.div_ceil(block)
    }

    /// Every block that `range` covers whole: the blocks that may be cleared. The last block of
    /// the device is whole when the range reaches the end of the device.
    pub fn blocks_in(&self, range: ByteRange) -> Range<u64> {
        let block = u64::from(self.block_size);
        let start = range.start.div_ceil(block);
        let end = if range.end >= self.size { self.blocks() } else { range.end / block };
        if start >= end { 0..0 } else { start..end }
    }

    /// The bytes of `blocks`, cut at the end of the device.
    pub fn block_bytes(&self, blocks: Range<u64>) -> ByteRange {
        let block = u64::from(self.block_size);
        ByteRange {
            start: blocks.start.saturating_mul(block).min(self.size),
            end: blocks.end.saturating_mul(block).min(self.size),
        }
    }

    /// Every extent that `range` touches.
    pub fn extents_of(&self, range: ByteRange) -> Range<u32> {
        let extent = u64::from(self.extent_size);
        let end = range.end.min(self.size);
        if range.start >= end {
            return 0..0;
        }
        let index = |n: u64| u32::try_from(n).expect("the layout limits extents to 32 bits");
        index(range.start / extent)..index(end.div_ceil(extent))
    }

    /// The blocks of one extent.
    pub fn extent_blocks(&self, extent: u32) -> Range<u64> {
        self.blocks_out(self.extent_bytes(extent))
    }

    /// The bytes of one extent, cut at the end of the device.
    pub fn extent_bytes(&self, extent: u32) -> ByteRange {
        let size = u64::from(self.extent_size);
        let start = (u64::from(extent) * size).min(self.size);
        ByteRange { start, end: (start + size).min(self.size) }
    }
}

/// A node of the resource: 0 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u8);

impl NodeId {
    /// The largest legal id.
    pub const MAX: Self = Self(31);
}

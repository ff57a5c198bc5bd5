//! Power that fails under real daemons, at any instant of a run that was recorded.
//!
//! Reading order: [`history`] (a client that notes what it sent and was told, in the order of the disk's record), [`image`] (the files of a node
//! as they may be after a cut at an instant of that order), [`trial`] (daemons started on such files, and what must be true of them).

pub mod history;
pub mod image;
pub mod trial;

/// Bytes of the piece in which a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

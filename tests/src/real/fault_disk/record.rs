//! What was done to the files of a fault disk, in one order for all of them, and what its client noted in between.

use std::sync::Arc;

/// A place in the order: so many things happened before.
pub type At = usize;

/// What changes a file, or what is stable of it.
#[derive(Clone, Debug)]
pub enum Change {
    /// These bytes, at this offset.
    Write(u64, Arc<[u8]>),
    /// Zeros from this offset, so many.
    Zero(u64, u64),
    /// What was completed before becomes stable.
    Flush,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which file.
    pub file: usize,
    /// What.
    pub change: Change,
    /// When it reached the disk.
    pub begun: At,
    /// When it ended well. What failed has done nothing.
    pub ended: Option<At>,
    /// When it began to be stable.
    pub stable: Option<At>,
    /// It failed.
    pub failed: bool,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// In the order in which they began.
    pub entries: Vec<Entry>,
    /// What happened so far.
    pub now: At,
    /// The writes of each file that are not stable.
    unstable: Vec<Vec<usize>>,
}

impl Record {
    /// Something happens: where that stands in the order.
    pub fn stamp(&mut self) -> At {
        self.now += 1;
        self.now - 1
    }

    pub(crate) fn begin(&mut self, file: usize, change: Change) -> usize {
        let begun = self.stamp();
        let entry = Entry { file, change, begun, ended: None, stable: None, failed: false };
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub(crate) fn end(&mut self, index: usize, good: bool) {
        let at = self.stamp();
        let entry = &mut self.entries[index];
        if !good {
            entry.failed = true;
            return;
        }
        entry.ended = Some(at);
        let (file, begun) = (entry.file, entry.begun);
        if self.unstable.len() <= file {
            self.unstable.resize_with(file + 1, Vec::new);
        }
        if !matches!(entry.change, Change::Flush) {
            self.unstable[file].push(index);
            return;
        }
        // A flush makes stable what was completed before it began, and nothing more.
        let entries = &mut self.entries;
        self.unstable[file].retain(|&write| {
            let write = &mut entries[write];
            let covered = write.ended.is_some_and(|ended| ended < begun);
            if covered {
                write.stable = Some(at);
            }
            !covered
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_covers_what_was_completed_before_it_began() {
        let mut record = Record::default();
        let write = |record: &mut Record, file| record.begin(file, Change::Zero(0, 512));
        let (early, late, other) =
            (write(&mut record, 0), write(&mut record, 0), write(&mut record, 1));
        record.end(early, true);
        record.end(other, true);
        let failing = record.begin(0, Change::Flush);
        record.end(failing, false);
        let flush = record.begin(0, Change::Flush);
        record.end(late, true);
        assert_eq!(record.entries[early].stable, None);
        record.end(flush, true);
        let stable = |index: usize| record.entries[index].stable.is_some();
        assert_eq!([early, late, other].map(stable), [true, false, false]);
    }
}

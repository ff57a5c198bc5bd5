//! The files of a node as they may be after its power failed, or its daemon was killed, at one instant of a record.
//!
//! What was flushed is there. Of what was written and not flushed, completed or not, each sector of 512 bytes holds what was written last, or
//! something older: the disk may have done all of it, none, the first so many writes, or any.

use super::SECTOR;
use crate::real::Random;
use crate::real::fault_disk::{At, Change, Entry, Record, Sparse};

/// What became of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing of it is there.
    Nothing,
    /// All of it is there.
    All,
    /// The first so many writes are there, and the next one in part.
    Prefix,
    /// Each write is there, or not, or in part.
    Some,
    /// Power did not fail, the daemon died: what had been completed is there, what had not is there, or not, or in part.
    Completed,
}

impl Kept {
    /// What may become of it when power fails.
    pub const LOST_POWER: [Self; 4] = [Self::Nothing, Self::All, Self::Prefix, Self::Some];
}

/// What a cut took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Toll {
    /// Writes that were not flushed.
    pub unflushed: usize,
    /// Of them: gone whole.
    pub gone: usize,
    /// Of them: there in part.
    pub torn: usize,
}

/// The file of this number, of `size` bytes, as it was found after a cut right before `at`.
pub fn image(
    record: &Record,
    file: usize,
    size: u64,
    at: At,
    kept: Kept,
    random: &mut Random,
) -> (Sparse, Toll) {
    let mut found = Sparse::new(size);
    let mut toll = Toll::default();
    let is_before = |when: Option<At>| when.is_some_and(|when| when < at);
    let writes = || {
        let ours = |entry: &&Entry| entry.file == file && entry.begun < at && !entry.failed;
        record.entries.iter().filter(ours).filter(|entry| !matches!(entry.change, Change::Flush))
    };
    let unflushed = writes().filter(|entry| !is_before(entry.stable)).count() as u64;
    let first = random.below(unflushed + 1);
    for entry in writes() {
        if is_before(entry.stable) {
            apply(&mut found, &entry.change);
            continue;
        }
        let number = toll.unflushed as u64;
        toll.unflushed += 1;
        // 0: gone, 1: there, 2: in part.
        let fate = match kept {
            Kept::Nothing => 0,
            Kept::All => 1,
            Kept::Prefix if number == first => 2,
            Kept::Prefix => u64::from(number < first),
            Kept::Completed if is_before(entry.ended) => 1,
            Kept::Some | Kept::Completed => random.below(3),
        };
        match fate {
            0 => toll.gone += 1,
            1 => apply(&mut found, &entry.change),
            _ => {
                toll.torn += 1;
                tear(&mut found, &entry.change, random);
            }
        }
    }
    // Nothing is longer than its file.
    found.size = size;
    (found, toll)
}

/// Does all of a change.
fn apply(found: &mut Sparse, change: &Change) {
    match change {
        Change::Write(offset, bytes) => found.write(*offset, bytes),
        Change::Zero(offset, len) => found.zero(*offset, *len),
        Change::Flush => {}
    }
}

/// Does a change to some of its sectors.
fn tear(found: &mut Sparse, change: &Change, random: &mut Random) {
    let (offset, len) = match change {
        Change::Write(offset, bytes) => (*offset, bytes.len() as u64),
        Change::Zero(offset, len) => (*offset, *len),
        Change::Flush => return,
    };
    let (mut at, end) = (offset, offset + len);
    while at < end {
        // Sectors of the disk, not of the write.
        let next = (at + SECTOR - at % SECTOR).min(end);
        if random.below(2) == 0 {
            match change {
                Change::Write(_, bytes) => {
                    found.write(at, &bytes[(at - offset) as usize..(next - offset) as usize]);
                }
                Change::Zero(..) | Change::Flush => found.zero(at, next - at),
            }
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three writes over each other, of which the first is flushed: what a sector may be afterwards.
    fn of_three(kept: Kept, at: At) -> Vec<u8> {
        let mut record = Record::default();
        for value in 1..=3 {
            let change = Change::Write(256, vec![value; 1024].into());
            let write = record.begin(0, change);
            record.end(write, true);
            if value == 1 {
                let flush = record.begin(0, Change::Flush);
                record.end(flush, true);
            }
        }
        let (found, _) = image(&record, 0, 4096, at, kept, &mut Random::new(7));
        let bytes = found.read(0, 4096);
        // A sector is whole: 256..512, 512..1024, 1024..1280.
        let ends = [(0, 256), (256, 512), (512, 1024), (1024, 1280), (1280, 4096)];
        assert!(ends.iter().all(|&(from, to)| bytes[from..to].iter().all(|b| *b == bytes[from])));
        vec![bytes[256], bytes[512], bytes[1024]]
    }

    #[test]
    fn what_was_flushed_is_there_and_of_the_rest_any_part() {
        let end = At::MAX;
        assert_eq!(of_three(Kept::Nothing, end), [1, 1, 1]);
        assert_eq!(of_three(Kept::All, end), [3, 3, 3]);
        assert_eq!(of_three(Kept::Completed, end), [3, 3, 3]);
        assert!(of_three(Kept::Some, end).iter().all(|value| (1..=3).contains(value)));
        // Before the flush has ended nothing is stable; before the first write has begun nothing is there.
        assert_eq!(of_three(Kept::Nothing, 3), [0, 0, 0]);
        assert_eq!(of_three(Kept::All, 3), [1, 1, 1]);
        assert_eq!(of_three(Kept::All, 0), [0, 0, 0]);
    }
}

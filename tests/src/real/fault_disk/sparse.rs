//! The bytes of a file, in memory: only pages that were written to take any.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// A sparse file.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    /// Bytes.
    pub size: u64,
}

impl Sparse {
    /// Nothing but zeros.
    pub fn new(size: u64) -> Self {
        Self { pages: BTreeMap::new(), size }
    }

    /// What is there, up to the end of the file.
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let len = len.min(self.size.saturating_sub(offset));
        let mut bytes = vec![0; len as usize];
        for (page, inside, part) in parts(offset, len) {
            if let Some(found) = self.pages.get(&page) {
                bytes[part].copy_from_slice(&found[inside]);
            }
        }
        bytes
    }

    /// Puts bytes there; the file grows if need be.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, inside, part) in parts(offset, bytes.len() as u64) {
            let into = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            into[inside].copy_from_slice(&bytes[part]);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    /// Zeros there; the file does not grow.
    pub fn zero(&mut self, offset: u64, len: u64) {
        for (page, inside, _) in parts(offset, len) {
            if inside.len() as u64 == PAGE {
                self.pages.remove(&page);
            } else if let Some(into) = self.pages.get_mut(&page) {
                into[inside].fill(0);
            }
        }
    }

    /// The first byte from `offset` on that may not be zero; `None`: none is.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        let (&page, _) = self.pages.range(offset / PAGE..).next()?;
        Some(offset.max(page * PAGE)).filter(|&at| at < self.size)
    }

    /// The first byte from `offset` on that is in no page: at the latest the end.
    pub fn next_hole(&self, offset: u64) -> u64 {
        let mut page = offset / PAGE;
        while self.pages.contains_key(&page) {
            page += 1;
        }
        offset.max(page * PAGE).min(self.size.max(offset))
    }

    /// Makes a file of it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn save(&self, path: &Path) {
        let file = File::create(path).expect("a file can be made");
        file.set_len(self.size).expect("a sparse file");
        for (&page, bytes) in &self.pages {
            let len = PAGE.min(self.size.saturating_sub(page * PAGE));
            file.write_all_at(&bytes[..len as usize], page * PAGE).expect("a file can be written");
        }
    }
}

/// The pages of a range: number, bytes inside of the page, bytes inside of the range.
fn parts(
    offset: u64,
    len: u64,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset + len;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let (from, to) = ((page * PAGE).max(offset), ((page + 1) * PAGE).min(end));
        let inside = (from - page * PAGE) as usize..(to - page * PAGE) as usize;
        (page, inside, (from - offset) as usize..(to - offset) as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_where_they_were_put() {
        let mut sparse = Sparse::new(5 * PAGE);
        assert_eq!((sparse.next_data(0), sparse.next_hole(0)), (None, 0));
        sparse.write(PAGE + 4000, &[7; 200]);
        assert_eq!(sparse.read(PAGE + 3999, 202), [&[0][..], &[7; 200], &[0]].concat());
        assert_eq!((sparse.next_data(0), sparse.next_hole(PAGE + 1)), (Some(PAGE), 3 * PAGE));
        sparse.zero(PAGE + 4001, PAGE);
        assert_eq!(sparse.read(PAGE + 3999, 4), [0, 7, 0, 0]);
        sparse.zero(0, 5 * PAGE);
        assert_eq!((sparse.next_data(0), sparse.size), (None, 5 * PAGE));
        assert_eq!(sparse.read(5 * PAGE - 1, 10), [0]);
        sparse.write(5 * PAGE, &[1]);
        assert_eq!(sparse.size, 5 * PAGE + 1);
    }
}

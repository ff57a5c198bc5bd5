//! The files below the nodes: made sparse, compared byte by byte, holes skipped.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes compared at a time.
const PIECE: u64 = 1 << 20;

/// A file of so many bytes that takes no space.
///
/// # Panics
/// If it cannot be made.
pub fn sparse(path: &Path, size: u64) {
    let file = File::create_new(path).expect("a new file");
    file.set_len(size).expect("a sparse file");
}

/// Where a file may hold something else than zeros, below `size`: (offset, length), in order.
///
/// # Panics
/// If the file cannot be read.
pub fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = File::open(path).expect("the file can be read");
    if !path.is_file() {
        // A device does not tell.
        return vec![(0, size)];
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match seek(&file, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        at = seek(&file, SeekFrom::Hole(begin)).expect("data ends somewhere").min(size);
        found.push((begin, at - begin));
    }
    found
}

/// # Panics
/// If the first `size` bytes of the two files differ.
pub fn assert_equal(one: &Path, other: &Path, size: u64) {
    assert!(size > 0, "nothing to compare");
    let files = [one, other].map(|path| File::open(path).expect("the file can be read"));
    let mut buffers = [vec![0; PIECE as usize], vec![0; PIECE as usize]];
    for (begin, length) in data(one, size).into_iter().chain(data(other, size)) {
        let mut at = begin;
        while at < begin + length {
            let piece = PIECE.min(begin + length - at) as usize;
            for (file, buffer) in files.iter().zip(&mut buffers) {
                file.read_exact_at(&mut buffer[..piece], at).expect("the file can be read");
            }
            let [a, b] = buffers.each_ref().map(|buffer| &buffer[..piece]);
            if a != b {
                let first = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or_default();
                let (place, kib) = (at + first as u64, size >> 10);
                let differ = a.iter().zip(b).filter(|(a, b)| a != b).count();
                panic!(
                    "the copies differ from byte {place} of {kib} KiB on: {differ} bytes in this piece"
                );
            }
            at += piece as u64;
        }
    }
}

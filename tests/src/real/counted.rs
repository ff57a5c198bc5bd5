//! What a daemon copies in its memory and allocates, counted inside of it by `counted.c` while it works; it needs `cc`. It does not say
//! what the kernel copies, nor where in the daemon it happens.

use super::host::Host;
use super::process::run_ok;
use super::seconds;
use std::fs::File;
use std::ops::Sub;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SOURCE: &str = include_str!("counted.c");

/// What was counted since a daemon began. As in `counted.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Pieces of memory asked of the allocator, also to make one larger.
    pub allocations: u64,
    /// Copies of 4 KiB or more, and less than 16 KiB.
    pub small_copies: u64,
    /// Copies of 16 KiB or more.
    pub large_copies: u64,
    /// Bytes of all copies of 256 bytes or more: also of a payload that is copied in pieces.
    pub copied_bytes: u64,
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            allocations: self.allocations - before.allocations,
            small_copies: self.small_copies - before.small_copies,
            large_copies: self.large_copies - before.large_copies,
            copied_bytes: self.copied_bytes - before.copied_bytes,
        }
    }
}

/// Makes the library that counts.
///
/// # Panics
/// If it cannot be made.
pub fn library(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("counted.c"), dir.join("counted.so"));
    std::fs::write(&source, SOURCE).expect("a file can be written");
    // The compiler must not take what is defined there for what it knows.
    let options = ["-shared", "-fPIC", "-O2", "-fno-builtin", "-o"].map(PathBuf::from);
    run_ok(seconds(60), "cc", options.iter().chain([&library, &source]));
    library
}

/// The counters of one host's daemon.
#[derive(Debug)]
pub struct Counters(File);

impl Counters {
    /// Its daemon counts from its next start on. Whoever it runs as must be able to write what is made here.
    ///
    /// # Panics
    /// If the file cannot be made.
    pub fn within(host: &mut Host, library: &Path) -> Self {
        let path = host.run_dir.join("counters");
        let zeros = [0; size_of::<Counted>()];
        std::fs::write(&path, zeros).expect("a file can be written");
        let file = File::open(&path).expect("it was just written");
        host.environment.push(("LD_PRELOAD", library.to_owned()));
        host.environment.push(("POLLUX_COUNTERS", path));
        Self(file)
    }

    /// What was counted until now.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn look(&self) -> Counted {
        let number = |place: u64| {
            let mut bytes = [0; 8];
            self.0.read_exact_at(&mut bytes, place * 8).expect("the file has its full length");
            u64::from_ne_bytes(bytes)
        };
        Counted {
            allocations: number(0),
            small_copies: number(1),
            large_copies: number(2),
            copied_bytes: number(3),
        }
    }
}

//! All inputs that are kept, once more, with any compiler: what libFuzzer found to reach more, and what failed once. Memory that one input
//! takes has a bound here too, or a length that is believed would show on one machine and not on another.

use fuzz::TARGETS;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one allocation, at most: 32 MiB of payload, and room.
const LARGEST: usize = 64 << 20;
/// Bytes at a time.
const ALL: usize = 512 << 20;

/// The system's memory, with bounds.
struct Bounded;

static USED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is the system's allocator; nothing is done but counting.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if layout.size() > LARGEST || used > ALL {
            // A panic would allocate.
            std::process::abort();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Bounded = Bounded;

/// The files of a folder of a target, by name; none if there is no such folder.
fn files(folder: &str, name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        (path.display().to_string(), std::fs::read(&path).expect("a file"))
    };
    let mut files: Vec<_> = entries.map(read).collect();
    files.sort();
    files
}

/// An input that fails is the last that is named.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let corpus = files("corpus", name);
    assert!(corpus.len() > 20, "{} inputs in fuzz/corpus/{name}", corpus.len());
    for (file, bytes) in corpus.into_iter().chain(files("regressions", name)) {
        println!("{file}");
        (target.run)(&bytes);
    }
    let (corpus, seeds) = (files("corpus", name), (target.seeds)());
    let stale = |seed: &&(String, Vec<u8>)| {
        let ending = format!("/seed-{}", seed.0);
        !corpus.iter().any(|(file, bytes)| file.ends_with(&ending) && *bytes == seed.1)
    };
    let stale: Vec<_> = seeds.iter().filter(stale).map(|seed| &seed.0).collect();
    assert!(
        stale.is_empty(),
        "cargo run -p fuzz --example seeds: {stale:?} are not as the product writes them now"
    );
}

#[test]
fn nbd() {
    replay("nbd");
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn node() {
    replay("node");
}

#[test]
fn control() {
    replay("control");
}

#[test]
fn metadata() {
    replay("metadata");
}

#[test]
fn configuration() {
    replay("configuration");
}

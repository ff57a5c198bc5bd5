//! Aligned memory for payloads: filled once, then shared read-only, so that one buffer feeds the
//! disk and the peer without a copy.
//!
//! [`Pool::take`] hands out a [`BufferMut`] that has one owner; [`BufferMut::freeze`] turns it into
//! a [`Buffer`] that may be cloned, sliced and sent to another thread. When the last clone goes,
//! the memory (with its reference count) returns to the pool, so steady state allocates nothing.
//!
//! This file knows nothing of requests or disks, and it does not bound how much memory is *in use*
//! at a time: whoever accepts requests does that. It bounds what lies idle.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Every buffer starts at a multiple of this, which suits O_DIRECT on every device known.
pub const ALIGNMENT: usize = 4096;

/// The largest buffer, in bytes. A longer one is a bug: whoever accepts a length checks it first.
pub const MAX_LEN: usize = ALIGNMENT << (CLASSES - 1);

/// Capacities are `ALIGNMENT << class`.
const CLASSES: usize = 15;

/// The unit of allocation. Its alignment is what makes a buffer aligned, with no unsafe code.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; ALIGNMENT]);

struct Block {
    pages: Box<[Page]>,
    class: usize,
    home: Weak<Mutex<Shelf>>,
}

/// What lies idle, by class.
struct Shelf {
    idle: [Vec<Arc<Block>>; CLASSES],
    bytes: usize,
    limit: usize,
}

impl Shelf {
    fn pop(&mut self, class: usize) -> Option<Arc<Block>> {
        let block = self.idle[class].pop()?;
        self.bytes -= ALIGNMENT << class;
        Some(block)
    }

    /// Keeps `block`, or gives it back so that the caller frees it after letting the lock go.
    fn push(&mut self, block: Arc<Block>) -> Option<Arc<Block>> {
        let mut evicted = None;
        if self.bytes + (ALIGNMENT << block.class) > self.limit {
            // A shelf full of large blocks must not make every small one a fresh allocation.
            let larger = (block.class + 1..CLASSES).rev().find(|&c| !self.idle[c].is_empty());
            let Some(larger) = larger else { return Some(block) };
            evicted = self.pop(larger);
        }
        self.bytes += ALIGNMENT << block.class;
        self.idle[block.class].push(block);
        evicted
    }
}

/// Hands out buffers and takes their memory back. Clones share one free list.
#[derive(Clone)]
pub struct Pool {
    // Taken for a few instructions; contended only when a disk thread needs scratch memory, since
    // engines hand payloads back to the owner's thread before they are dropped.
    shelf: Arc<Mutex<Shelf>>,
}

impl Pool {
    /// A pool that keeps at most `idle_limit` bytes of unused memory; the rest goes back to the
    /// allocator.
    pub fn new(idle_limit: usize) -> Self {
        let shelf = Shelf { idle: Default::default(), bytes: 0, limit: idle_limit };
        Self { shelf: Arc::new(Mutex::new(shelf)) }
    }

    /// A buffer of `len` bytes with unspecified contents (zeros, or what an earlier user left):
    /// fill all of it before it leaves the process.
    pub fn take(&self, len: usize) -> BufferMut {
        assert!(len <= MAX_LEN, "a buffer of {len} bytes was asked for, the most is {MAX_LEN}");
        let class = len.div_ceil(ALIGNMENT).next_power_of_two().trailing_zeros() as usize;
        let recycled = locked(&self.shelf).pop(class);
        let block = recycled.unwrap_or_else(|| {
            let pages = vec![Page([0; ALIGNMENT]); 1 << class].into_boxed_slice();
            Arc::new(Block { pages, class, home: Arc::downgrade(&self.shelf) })
        });
        BufferMut { held: Held(Some(block)), len }
    }

    /// A buffer of `len` zero bytes.
    pub fn zeroed(&self, len: usize) -> BufferMut {
        let mut buffer = self.take(len);
        buffer.as_mut().zero();
        buffer
    }

    /// A shared copy of `bytes`.
    pub fn copy_of(&self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.take(bytes.len());
        buffer.as_mut().copy_from_slice(bytes);
        buffer.freeze()
    }

    /// Bytes that lie unused in the free list.
    pub fn idle_bytes(&self) -> usize {
        locked(&self.shelf).bytes
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} bytes idle)", self.idle_bytes())
    }
}

fn locked(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // A panic inside leaves at worst a wrong count of idle bytes.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A counted reference to a block that finds its way home. `None` only while it is being dropped.
#[derive(Clone)]
struct Held(Option<Arc<Block>>);

impl Held {
    fn block(&self) -> &Arc<Block> {
        self.0.as_ref().expect("only drop empties it")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut block) = self.0.take() else { return };
        // The last owner recycles. When two threads let go at the same instant neither may see
        // itself as the last: the memory is then freed, which costs one allocation later.
        if Arc::get_mut(&mut block).is_some()
            && let Some(home) = block.home.upgrade()
        {
            let surplus = locked(&home).push(block);
            drop(surplus);
        }
    }
}

/// A buffer with one owner, to be filled.
pub struct BufferMut {
    held: Held,
    len: usize,
}

impl BufferMut {
    /// Drops the bytes from `len` on; nothing if it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Ends the filling: from here on the bytes are shared and do not change.
    pub fn freeze(self) -> Buffer {
        Buffer { held: self.held, start: 0, len: self.len }
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.held.block().pages.as_bytes()[..self.len]
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        let block = self.held.0.as_mut().expect("only drop empties it");
        let block = Arc::get_mut(block).expect("a BufferMut is never cloned");
        &mut block.pages.as_mut_bytes()[..self.len]
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferMut({} bytes)", self.len)
    }
}

/// Shared bytes that do not change. Clones and slices cost a reference count.
#[derive(Clone)]
pub struct Buffer {
    held: Held,
    start: usize,
    len: usize,
}

impl Buffer {
    /// A view of the bytes in `range` (relative to this view); it keeps the whole memory alive.
    /// The start is aligned only as far as `range.start` is.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "a slice {range:?} of a buffer of {} bytes",
            self.len
        );
        let held = self.held.clone();
        Self { held, start: self.start + range.start, len: range.end - range.start }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.held.block().pages.as_bytes()[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = ALIGNMENT;

    #[test]
    fn buffers_are_aligned_and_have_the_length_asked_for() {
        let pool = Pool::new(1 << 20);
        for len in [0, 1, 511, 512, PAGE, PAGE + 1, 3 * PAGE, 1 << 20, MAX_LEN] {
            let mut buffer = pool.take(len);
            assert_eq!((buffer.len(), buffer.as_mut().len()), (len, len));
            assert_eq!(buffer.as_ref().as_ptr() as usize % PAGE, 0);
        }
    }

    #[test]
    fn memory_is_reused_only_after_the_last_view_is_gone() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(PAGE);
        buffer.as_mut().fill(7);
        let address = buffer.as_ref().as_ptr();
        let whole = buffer.freeze();
        let view = whole.slice(1..9).slice(1..3);
        drop(whole);
        assert_eq!(pool.idle_bytes(), 0);
        assert_ne!(pool.take(PAGE).as_ref().as_ptr(), address, "still shared");
        let idle = pool.idle_bytes();
        assert_eq!(view.as_ref(), [7, 7]);
        drop(view);
        assert_eq!(pool.idle_bytes(), idle + PAGE);
        assert_eq!(pool.take(1).as_ref().as_ptr(), address, "last in, first out");
    }

    #[test]
    fn the_free_list_is_bounded_and_prefers_small_blocks() {
        let pool = Pool::new(8 * PAGE);
        let large: Vec<_> = (0..4).map(|_| pool.take(4 * PAGE)).collect();
        let small: Vec<_> = (0..3).map(|_| pool.take(PAGE)).collect();
        drop(large);
        assert_eq!(pool.idle_bytes(), 8 * PAGE, "two of four kept");
        drop(small);
        assert_eq!(pool.idle_bytes(), 7 * PAGE, "one large made room for three small");
        drop(pool.take(16 * PAGE));
        assert_eq!(
            pool.idle_bytes(),
            7 * PAGE,
            "larger than what is free, nothing larger to evict"
        );
    }

    #[test]
    fn buffers_outlive_their_pool_and_cross_threads() {
        let pool = Pool::new(1 << 20);
        let buffer = pool.copy_of(b"castor");
        let other = buffer.clone();
        let thread = std::thread::spawn(move || other.as_ref().to_vec());
        assert_eq!(thread.join().expect("no panic"), b"castor");
        drop(pool);
        assert_eq!(buffer.as_ref(), b"castor");
    }

    #[test]
    fn zeroed_hides_what_an_earlier_user_left() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(100);
        buffer.as_mut().fill(9);
        drop(buffer);
        assert_eq!(pool.zeroed(100).as_ref(), [0; 100]);
    }

    #[test]
    #[should_panic(expected = "a slice 2..9")]
    fn a_slice_outside_is_a_bug() {
        let _ = Pool::new(0).copy_of(b"pollux").slice(2..9);
    }
}

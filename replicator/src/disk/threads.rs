//! A few disk threads that carry out operations one by one, for everything that could make the
//! owner's thread wait. A hung disk hangs these threads and nothing else; they are never joined.
//!
//! Waking a thread costs more than a write to the page cache. So of operations that are expected to
//! be short all that come together are carried out by two threads, and told of together; the second
//! is there because the first may wait after all. Each other operation has a thread of its own.
//!
//! Bounded: [`limits::DISK_THREADS`]; the queue of work by [`limits::IN_FLIGHT`], which
//! `queue.rs` keeps.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::DiskError;
use super::files::Files;
use super::wake::Wake;
use super::{Done, IoToken, Op, limits};

/// An operation on its way through an engine.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) token: IoToken,
    pub(super) op: Op,
    /// Its place among the durable ones (`syncs.rs`).
    pub(super) ticket: Option<u64>,
    /// It copies a little from or to memory, most likely, and waits for nothing.
    pub(super) is_short: bool,
}

/// Threads for short operations that come together.
const RUNNERS: usize = 2;

/// Short operations of which one thread tells together; more would keep the owner waiting.
const TOLD_TOGETHER: usize = 8;

/// The job comes back whole: its buffers are dropped on the owner's thread.
pub(super) type Finished = (Job, Result<Done, DiskError>);

#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wake: Arc<Wake>,
    work: Mutex<Work>,
    more_work: Condvar,
    finished: Mutex<Vec<Finished>>,
    /// Spares the owner the lock when there is nothing.
    any_finished: AtomicBool,
}

#[derive(Debug)]
struct Work {
    /// `None` when closed. A thread holds the files, and with them the lock on the disk, only while
    /// it carries something out: a disk with nothing in flight is free as soon as it is closed.
    files: Option<Arc<Files>>,
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Of the idle ones, those that were told that there is work.
    woken: usize,
}

impl Threads {
    /// Starts the first thread, so that a system without threads is found out when opening.
    pub(super) fn new(files: Arc<Files>, wake: Arc<Wake>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wake,
            work: Mutex::new(Work {
                files: Some(files),
                jobs: VecDeque::new(),
                threads: 1,
                idle: 0,
                woken: 0,
            }),
            more_work: Condvar::new(),
            finished: Mutex::default(),
            any_finished: AtomicBool::new(false),
        });
        start_thread(&shared)?;
        Ok(Self { shared })
    }

    /// Takes all of `jobs`.
    pub(super) fn push(&self, jobs: &mut Vec<Job>) {
        let long = jobs.iter().filter(|job| !job.is_short).count();
        let wanted = long + (jobs.len() - long).min(RUNNERS);
        let mut work = locked(&self.shared.work);
        work.jobs.extend(jobs.drain(..));
        let asleep = work.idle - work.woken;
        let to_wake = wanted.min(asleep);
        work.woken += to_wake;
        let to_start = (wanted - to_wake).min(limits::DISK_THREADS - work.threads);
        work.threads += to_start;
        drop(work);
        for _ in 0..to_wake {
            self.shared.more_work.notify_one();
        }
        // Without one more thread the work is done by those there are.
        for _ in 0..to_start {
            if let Err(error) = start_thread(&self.shared) {
                tracing::warn!(%error, "cannot start one more disk thread");
                locked(&self.shared.work).threads -= 1;
            }
        }
    }

    /// Moves what has finished to the end of `into`.
    pub(super) fn take_finished(&self, into: &mut Vec<Finished>) {
        if self.shared.any_finished.swap(false, Ordering::Acquire) {
            into.append(&mut locked(&self.shared.finished));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // No joining: one may hang in the kernel. What is queued is not begun any more.
        let mut work = locked(&self.shared.work);
        work.files = None;
        work.jobs.clear();
        drop(work);
        self.shared.more_work.notify_all();
    }
}

fn start_thread(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    let thread =
        std::thread::Builder::new().name("disk".to_owned()).stack_size(limits::DISK_THREAD_STACK);
    thread.spawn(move || shared.run()).map(drop)
}

impl Shared {
    fn run(&self) {
        block_signals();
        let mut done = Vec::with_capacity(TOLD_TOGETHER);
        while let Some((job, files)) = self.next(&mut done) {
            if !job.is_short {
                self.report(&mut done);
            }
            let result = files.perform(&job.op);
            drop(files);
            let is_short = job.is_short;
            done.push((job, result));
            if !is_short || done.len() == TOLD_TOGETHER {
                self.report(&mut done);
            }
        }
    }

    /// `None` when closed. What is `done` is told before there is nothing more to do.
    fn next(&self, done: &mut Vec<Finished>) -> Option<(Job, Arc<Files>)> {
        loop {
            let mut work = locked(&self.work);
            let files = Arc::clone(work.files.as_ref()?);
            if let Some(job) = work.jobs.pop_front() {
                return Some((job, files));
            }
            drop(files);
            if done.is_empty() {
                work.idle += 1;
                work = self.more_work.wait(work).unwrap_or_else(PoisonError::into_inner);
                work.idle -= 1;
                work.woken = work.woken.saturating_sub(1);
            } else {
                drop(work);
                self.report(done);
            }
        }
    }

    fn report(&self, done: &mut Vec<Finished>) {
        if done.is_empty() {
            return;
        }
        let mut list = locked(&self.finished);
        let first = list.is_empty();
        list.append(done);
        self.any_finished.store(true, Ordering::Release);
        drop(list);
        // Whoever made the list non-empty wakes the owner, who then takes all of it.
        if first {
            self.wake.signal();
        }
    }
}

/// Signals belong to the owner's thread. Here one could interrupt an fdatasync, which must not be
/// tried twice (IO-4), so it would cost the disk.
fn block_signals() {
    // SAFETY: `all` is a signal set on this stack, filled before it is used.
    let failed = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut())
    };
    assert_eq!(failed, 0, "pthread_sigmask");
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing inside these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

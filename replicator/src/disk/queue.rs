//! What is under way on one disk: admission, the bound on what is in flight, the disk threads, the
//! order in which durable successes are believed, and the completions not yet polled.
//!
//! Not here: the faster ways, on the owner's thread (`engine.rs`) and through the ring (`uring.rs`).

use std::io;
use std::sync::Arc;

use super::error::DiskError;
use super::files::Files;
use super::syncs::Syncs;
use super::threads::{Finished, Job, Threads};
use super::wake::Wake;
use super::{Completion, Done, IoToken, Op, limits};

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) files: Arc<Files>,
    pub(super) wake: Arc<Wake>,
    threads: Threads,
    /// For the threads, and not handed to them yet.
    jobs: Vec<Job>,
    /// Of the description of the data, and of that of metadata if it is another.
    syncs: [Syncs<Job>; 2],
    ready: Vec<Completion>,
    /// Submitted and not polled.
    pub(super) in_flight: usize,
    // Kept for its memory.
    finished: Vec<Finished>,
}

impl Queue {
    pub(super) fn new(files: Arc<Files>) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?);
        let threads = Threads::new(Arc::clone(&files), Arc::clone(&wake))?;
        Ok(Self {
            files,
            wake,
            threads,
            jobs: Vec::new(),
            syncs: Default::default(),
            ready: Vec::new(),
            in_flight: 0,
            finished: Vec::new(),
        })
    }

    /// How many more operations fit.
    pub(super) fn room(&self) -> usize {
        limits::IN_FLIGHT - self.in_flight
    }

    /// Takes an operation in. `None` if it failed already.
    pub(super) fn admit(&mut self, token: IoToken, op: Op) -> Option<Job> {
        self.in_flight += 1;
        if let Err(error) = self.files.admit(&op) {
            self.ready.push(Completion { token, result: Err(error) });
            return None;
        }
        let ticket = op.is_durable().then(|| self.syncs_of(&op).start());
        let through_cache = !self.files.target(&op).direct;
        let is_short = through_cache && op.is_short();
        Some(Job { token, op, ticket, is_short })
    }

    /// For a disk thread, with the next [`Self::hand_over`].
    pub(super) fn defer(&mut self, job: Job) {
        self.jobs.push(job);
    }

    /// Gives the threads what is theirs.
    pub(super) fn hand_over(&mut self) {
        if !self.jobs.is_empty() {
            self.threads.push(&mut self.jobs);
        }
    }

    /// An admitted operation has ended.
    pub(super) fn finish(&mut self, job: Job, result: Result<Done, DiskError>) {
        if let Some(ticket) = job.ticket {
            let late = self.may_be_deceived(&job.op);
            let syncs = self.syncs_of(&job.op);
            syncs.end(ticket);
            if result.is_ok() && late {
                syncs.hold(job);
                return;
            }
        }
        self.complete(&job, result);
    }

    /// Collects what the threads have done, and moves all completions to the end of `out`.
    pub(super) fn poll(&mut self, out: &mut Vec<Completion>) {
        let mut finished = std::mem::take(&mut self.finished);
        self.threads.take_finished(&mut finished);
        for (job, result) in finished.drain(..) {
            self.finish(job, result);
        }
        self.finished = finished;
        for via in 0..self.syncs.len() {
            while let Some(job) = self.syncs[via].release() {
                self.complete(&job, Ok(Done::Finished));
            }
        }
        self.in_flight -= self.ready.len();
        out.append(&mut self.ready);
    }

    fn complete(&mut self, job: &Job, result: Result<Done, DiskError>) {
        let result = self.files.settle(&job.op, result);
        self.ready.push(Completion { token: job.token, result });
    }

    /// Whether another operation may have been told of an error that was this one's. The result of
    /// an O_DIRECT write is its own; a flush, and whatever goes through the page cache, depends on
    /// the report that is made only once.
    fn may_be_deceived(&self, op: &Op) -> bool {
        let target = self.files.target(op);
        !target.direct || !target.dsync || matches!(op, Op::Flush | Op::Zero { .. })
    }

    fn syncs_of(&mut self, op: &Op) -> &mut Syncs<Job> {
        let is_apart = !std::ptr::eq(self.files.target(op), &self.files.data);
        &mut self.syncs[usize::from(is_apart)]
    }
}

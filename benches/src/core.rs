//! Work for the core alone: replicated requests through two nodes whose disks and link take no time (`pair`). What the clock says of it
//! is in `benches/node.rs`; what does not depend on a clock, in `cost`.

use crate::pair::Pair;
use bitmap::ByteRange;
use replicator::node::{BufferId, RequestOp};

const BLOCK: u64 = 4096;
/// Bytes that are written over and over: four extents, which stay hot.
const HOT: u64 = 16 << 20;
/// Turns until the extents are hot and tables have their size.
const WARM_UP: u64 = 100;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A 4 KiB write at a time.
    Write,
    /// 32 of them at once.
    Writes32,
    /// One with FUA.
    Fua,
    /// One, and a flush with it.
    WriteAndFlush,
    /// A 4 KiB read at a time.
    Read,
}

impl Work {
    /// All there is.
    pub const ALL: [Self; 5] =
        [Self::Write, Self::Writes32, Self::Fua, Self::WriteAndFlush, Self::Read];

    /// As typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Writes32 => "32-writes",
            Self::Fua => "write-fua",
            Self::WriteAndFlush => "write-and-flush",
            Self::Read => "read",
        }
    }

    /// Requests that are under way together; a flush belongs to its write.
    pub fn requests(self) -> u64 {
        if self == Self::Writes32 { 32 } else { 1 }
    }
}

/// Two nodes at work.
pub struct Core {
    pair: Pair,
    work: Work,
    count: u64,
}

impl Core {
    /// Nodes in sync, after enough of this work to be at steady state.
    pub fn new(work: Work) -> Self {
        let mut core = Self { pair: Pair::in_sync(), work, count: 0 };
        (0..WARM_UP).for_each(|_| core.turn());
        core
    }

    /// The requests of one turn, until all are answered.
    pub fn turn(&mut self) {
        for _ in 0..self.work.requests() {
            let op = self.next();
            self.pair.submit(op);
        }
        if self.work == Work::WriteAndFlush {
            self.pair.submit(RequestOp::Flush);
        }
        self.pair.settle();
    }

    /// Events that both nodes have handled so far.
    pub fn events(&self) -> u64 {
        self.pair.events
    }

    /// The next request, at a place that looks random.
    fn next(&mut self) -> RequestOp {
        self.count += 1;
        let block = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (HOT / BLOCK);
        let range = ByteRange::new(block * BLOCK, BLOCK);
        match self.work {
            Work::Read => RequestOp::Read(range),
            Work::Write | Work::Writes32 | Work::Fua | Work::WriteAndFlush => {
                let fua = self.work == Work::Fua;
                RequestOp::Write { range, buffer: BufferId(self.count), fua }
            }
        }
    }
}

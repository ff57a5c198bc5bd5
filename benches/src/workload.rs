//! What the client does to a contender: one line each.

/// A piece of work for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As typed and printed.
    pub name: &'static str,
    /// fio's `--rw`.
    pub pattern: &'static str,
    /// Bytes of a request.
    pub block: u32,
    /// Requests outstanding.
    pub depth: u32,
    /// Is every write followed by a flush?
    pub flush: bool,
}

const fn workload(
    name: &'static str,
    pattern: &'static str,
    block: u32,
    depth: u32,
    flush: bool,
) -> Workload {
    Workload { name, pattern, block, depth, flush }
}

/// All of them, in the order in which they run.
#[rustfmt::skip]
pub const ALL: [Workload; 8] = [
    workload("4k-randwrite-qd1",   "randwrite", 4 << 10,   1, false),
    workload("4k-write+flush-qd1", "randwrite", 4 << 10,   1, true),
    workload("4k-randwrite-qd32",  "randwrite", 4 << 10,  32, false),
    workload("4k-randread-qd1",    "randread",  4 << 10,   1, false),
    workload("4k-randread-qd32",   "randread",  4 << 10,  32, false),
    workload("64k-randwrite-qd16", "randwrite", 64 << 10, 16, false),
    workload("1m-seqwrite-qd8",    "write",     1 << 20,   8, false),
    workload("1m-seqread-qd8",     "read",      1 << 20,   8, false),
];

/// The one of this name.
pub fn named(name: &str) -> Result<Workload, String> {
    let found = ALL.iter().find(|work| work.name == name).copied();
    found.ok_or_else(|| format!("there are {}", ALL.map(|work| work.name).join(", ")))
}

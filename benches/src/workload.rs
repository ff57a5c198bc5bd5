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
    /// Connections, each a client of its own.
    pub jobs: u32,
    /// Requests outstanding on each connection.
    pub depth: u32,
    /// Is every write followed by a flush?
    pub flush: bool,
    /// Which part of the device is touched.
    pub place: Place,
}

/// A part of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All of it.
    Whole,
    /// So many bytes from its start.
    First(u64),
    /// Zones of so many bytes, one at the start of each `every` bytes; the client goes from one to the next when it has
    /// moved as many bytes as a zone has.
    Zones {
        /// Bytes of a zone.
        zone: u64,
        /// From the start of one to the start of the next.
        every: u64,
        /// How many there are.
        count: u64,
    },
}

impl Workload {
    /// Does it change anything?
    pub fn writes(&self) -> bool {
        self.pattern.contains("write")
    }
}

const fn workload(
    name: &'static str,
    pattern: &'static str,
    block: u32,
    jobs: u32,
    depth: u32,
    flush: bool,
) -> Workload {
    Workload { name, pattern, block, jobs, depth, flush, place: Place::Whole }
}

/// All of them, in the order in which they run.
#[rustfmt::skip]
pub const ALL: [Workload; 9] = [
    workload("4k-randwrite-qd1",   "randwrite", 4 << 10,  1,  1, false),
    workload("4k-write+flush-qd1", "randwrite", 4 << 10,  1,  1, true),
    workload("4k-randwrite-qd32",  "randwrite", 4 << 10,  1, 32, false),
    workload("4k-randwrite-4x8",   "randwrite", 4 << 10,  4,  8, false),
    workload("4k-randread-qd1",    "randread",  4 << 10,  1,  1, false),
    workload("4k-randread-qd32",   "randread",  4 << 10,  1, 32, false),
    workload("64k-randwrite-qd16", "randwrite", 64 << 10, 1, 16, false),
    workload("1m-seqwrite-qd8",    "write",     1 << 20,  1,  8, false),
    workload("1m-seqread-qd8",     "read",      1 << 20,  1,  8, false),
];

/// The one of this name.
pub fn named(name: &str) -> Result<Workload, String> {
    let found = ALL.iter().find(|work| work.name == name).copied();
    found.ok_or_else(|| format!("there are {}", ALL.map(|work| work.name).join(", ")))
}

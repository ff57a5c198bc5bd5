//! The values of each dimension, and what the client does at each of them.

use super::{Dimension, WORKING_SET};
use crate::workload::{Place, Workload};
use std::time::Duration;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const SIZES: [(&str, u64); 4] =
    [("1 GiB", GIB), ("64 GiB", 64 * GIB), ("1 TiB", TIB), ("16 TiB", 16 * TIB)];
const DEPTHS: [u32; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const CONNECTIONS: [u32; 5] = [1, 2, 4, 8, 16];
const RESOURCES: [u32; 4] = [1, 4, 16, 64];
/// What a byte waits one way, in microseconds; none: nothing is between the nodes.
const DELAYS: [(&str, Option<u64>); 5] = [
    ("no proxy", None),
    ("0 ms", Some(0)),
    ("0.2 ms", Some(200)),
    ("1 ms", Some(1000)),
    ("5 ms", Some(5000)),
];
/// Requests outstanding where it is not the depth that grows.
const USUAL_DEPTH: u32 = 32;
/// Requests outstanding over all resources: one each when there are the most.
const DEPTH_OF_ALL: u32 = 64;
/// Requests outstanding on each resource, where it is the same on all.
const DEPTH_OF_EACH: u32 = 8;
/// Zones over which a working set is spread over a device, 1 MiB each: all their extents fit into the activity log (1237).
const ZONES: u64 = 256;

/// A case that is still to be set up.
pub(super) struct Wanted {
    pub(super) label: String,
    /// Bytes of each device.
    pub(super) size: u64,
    pub(super) delay: Option<Duration>,
    pub(super) pairs: usize,
    /// Does it load the pairs of the cases before it, too? Else it has pairs of its own.
    pub(super) shares_pairs: bool,
    pub(super) works: Vec<Workload>,
}

/// One pair of 1 GiB.
fn usual(label: impl ToString, works: Vec<Workload>) -> Wanted {
    let label = label.to_string();
    Wanted { label, size: GIB, delay: None, pairs: 1, shares_pairs: true, works }
}

fn random(name: &'static str, pattern: &'static str, jobs: u32, depth: u32) -> Workload {
    let place = Place::First(WORKING_SET);
    Workload { name, pattern, block: 4096, jobs, depth, flush: false, place }
}

/// Writes and reads.
fn both(jobs: u32, depth: u32) -> Vec<Workload> {
    let of = |name, pattern| random(name, pattern, jobs, depth);
    vec![of("4k-randwrite", "randwrite"), of("4k-randread", "randread")]
}

/// All cases, the smallest first.
pub(super) fn of(dimension: Dimension) -> Vec<Wanted> {
    match dimension {
        Dimension::Size => SIZES.map(size).into(),
        Dimension::Depth => DEPTHS.map(|depth| usual(depth, both(1, depth))).into(),
        Dimension::Connections => {
            CONNECTIONS.map(|jobs| usual(jobs, both(jobs, USUAL_DEPTH / jobs))).into()
        }
        Dimension::Resources => RESOURCES.map(resources).into(),
        Dimension::Link => DELAYS.map(link).into(),
    }
}

fn size((label, size): (&str, u64)) -> Wanted {
    let mut works = both(1, USUAL_DEPTH);
    let every = size / ZONES;
    works.push(Workload {
        name: "4k-randwrite-spread",
        place: Place::Zones { zone: 1 << 20, every, count: ZONES },
        ..works[0]
    });
    Wanted { size, shares_pairs: false, ..usual(label, works) }
}

fn resources(pairs: u32) -> Wanted {
    let place = Place::First(WORKING_SET / u64::from(pairs));
    let of = |name, depth| Workload { place, ..random(name, "randwrite", 1, depth) };
    let works = vec![
        of("4k-randwrite-64-in-all", DEPTH_OF_ALL / pairs),
        // Else it could not be told from the cost of less depth.
        of("4k-randwrite-8-each", DEPTH_OF_EACH),
    ];
    Wanted { pairs: pairs as usize, ..usual(pairs, works) }
}

fn link((label, delay): (&str, Option<u64>)) -> Wanted {
    let works = vec![
        random("4k-randwrite-qd1", "randwrite", 1, 1),
        random("4k-randwrite-qd32", "randwrite", 1, USUAL_DEPTH),
    ];
    let delay = delay.map(Duration::from_micros);
    Wanted { delay, shares_pairs: false, ..usual(label, works) }
}

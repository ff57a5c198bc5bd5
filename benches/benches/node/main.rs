//! What deciding costs: replicated requests through two nodes whose disks and link take no time. Budget: 4 us a write over
//! both nodes, 0.5 us an event (DESIGN 7); the throughput shown is events.

mod pair;

use bitmap::ByteRange;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pair::Pair;
use replicator::node::{BufferId, RequestOp};

const BLOCK: u64 = 4096;
/// Bytes that are written over and over: four extents, which stay hot.
const HOT: u64 = 16 << 20;

/// Turns before the measurement.
const WARM_UP: u64 = 100;

/// Writes at places that look random.
struct Writes {
    count: u64,
    fua: bool,
}

impl Writes {
    fn next(&mut self) -> RequestOp {
        self.count += 1;
        let block = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (HOT / BLOCK);
        let range = ByteRange::new(block * BLOCK, BLOCK);
        RequestOp::Write { range, buffer: BufferId(self.count), fua: self.fua }
    }
}

fn bench(c: &mut Criterion, name: &str, requests: u64, mut next: impl FnMut() -> RequestOp) {
    let mut pair = Pair::in_sync();
    let mut turn = |pair: &mut Pair| {
        (0..requests).for_each(|_| pair.submit(next()));
        pair.settle();
    };
    // Until the extents are hot; then as many events as an average turn takes.
    (0..WARM_UP).for_each(|_| turn(&mut pair));
    let before = pair.events;
    (0..WARM_UP).for_each(|_| turn(&mut pair));
    let events = (pair.events - before) / WARM_UP;
    let mut group = c.benchmark_group("node");
    group.throughput(Throughput::Elements(events));
    group.bench_function(format!("{name} ({events} events)"), |b| {
        b.iter(|| turn(&mut pair));
    });
    group.finish();
}

fn node(c: &mut Criterion) {
    let mut plain = Writes { count: 0, fua: false };
    bench(c, "1 write of 4 KiB", 1, || plain.next());
    let mut plain = Writes { count: 0, fua: false };
    bench(c, "32 writes of 4 KiB at once", 32, || plain.next());
    let mut stable = Writes { count: 0, fua: true };
    bench(c, "1 write of 4 KiB with FUA", 1, || stable.next());
    let mut plain = Writes { count: 0, fua: false };
    let mut flush = true;
    bench(c, "1 write of 4 KiB and a flush", 2, || {
        flush = !flush;
        if flush { RequestOp::Flush } else { plain.next() }
    });
}

criterion_group!(benches, node);
criterion_main!(benches);

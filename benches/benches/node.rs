//! What deciding costs by the clock. Budget: 4 us a write over both nodes, 0.5 us an event (docs/performance.md); the throughput shown is
//! events. The same work without a clock: `cargo run --release -p benches --bin core-cost`.

use benches::core::{Core, Work};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Turns over which events are counted.
const TURNS: u64 = 100;

fn node(c: &mut Criterion) {
    for work in Work::ALL {
        let mut core = Core::new(work);
        let before = core.events();
        (0..TURNS).for_each(|_| core.turn());
        let events = (core.events() - before) / TURNS;
        let mut group = c.benchmark_group("node");
        group.throughput(Throughput::Elements(events));
        group.bench_function(format!("{} ({events} events)", work.name()), |b| {
            b.iter(|| core.turn());
        });
        group.finish();
    }
}

criterion_group!(benches, node);
criterion_main!(benches);

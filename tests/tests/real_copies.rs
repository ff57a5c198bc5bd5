//! What a request costs in memory, counted inside of real daemons: at steady state no allocation, one copy of a payload below 16 KiB, none
//! of a larger one, on either node. What of that goes on in the kernel is not seen here, nor is how long anything takes.

use std::fmt;
use tests::real::counted::{Counted, Counters, library};
use tests::real::nbd::Ask;
use tests::real::{Client, Need, Pair, Plan, lacks};

/// Bytes written to and read: a few extents, which stay in the activity log.
const SPAN: u64 = 16 << 20;
/// Places in it, one for each request: the largest fits.
const PLACES: u64 = SPAN / LARGE as u64;
const SMALL: u32 = 4 << 10;
const LARGE: u32 = 64 << 10;

const REQUESTS: u64 = 512;
/// The least of so many counts: heartbeats, checkpoints and the growth of a table come in some of them only, what belongs to a request in all.
const BATCHES: usize = 5;
/// Per request, of what must not be: when both wait for each other's processor, the start of a burst may look as if it were none.
const SLACK: f64 = 0.05;
/// Bytes of what is not payload, per request: what is told together is moved together.
const MOVED: f64 = 1024.0;

/// A load of requests that follow each other without pause.
#[derive(Clone, Copy)]
struct Kind {
    is_write: bool,
    /// Bytes of the requests, in turns.
    sizes: &'static [u32],
    /// Requests in flight.
    depth: usize,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<_> = self.sizes.iter().map(|size| (size >> 10).to_string()).collect();
        let what = if self.is_write { "write" } else { "read" };
        write!(f, "{} KiB {what}, depth {}", sizes.join("+"), self.depth)
    }
}

impl Kind {
    /// Sends so many requests and waits for all answers.
    fn drive(self, client: &mut Client) {
        let payload = [7; LARGE as usize];
        let (mut sent, mut answered) = (0, 0);
        while answered < REQUESTS {
            while sent < REQUESTS && client.in_flight() < self.depth {
                // Odd, so that each place has its turn, and far from the one before.
                let offset = sent * 1021 % PLACES * u64::from(LARGE);
                let size = self.sizes[sent as usize % self.sizes.len()];
                let ask = match self.is_write {
                    true => Ask::Write(offset, &payload[..size as usize]),
                    false => Ask::Read(offset, size),
                };
                client.send(&ask).expect("a Primary serves");
                sent += 1;
            }
            client.receive().expect("a Primary answers").1.expect("no error");
            answered += 1;
        }
    }

    /// Payloads that may be copied, of each request: the small ones of writes, once.
    fn copies(self) -> f64 {
        let small = self.sizes.iter().filter(|&&size| size < 16 << 10).count();
        if self.is_write { small as f64 / self.sizes.len() as f64 } else { 0.0 }
    }

    /// What of this is more than was promised; `counted` is of all requests.
    fn complaint(self, host: &str, counted: Counted) -> Option<String> {
        let per_request = |count: u64| count as f64 / REQUESTS as f64;
        let Counted { allocations, small_copies, large_copies, copied_bytes } = counted;
        let allocations = per_request(allocations);
        let (small, large) = (per_request(small_copies), per_request(large_copies));
        let bytes = per_request(copied_bytes);
        let text = format!(
            "{self}, {host}: {allocations:.3} allocations, {small:.3} copies of 4 KiB, {large:.3} of 16 KiB and more, {bytes:.0} bytes"
        );
        println!("{text}");
        let fits = allocations <= SLACK
            && small <= self.copies() + SLACK
            && large <= SLACK
            // A payload that is copied in pieces counts, too.
            && bytes <= self.copies() * f64::from(SMALL) + MOVED;
        (!fits).then_some(text)
    }
}

/// The least of each.
fn least(a: Counted, b: Counted) -> Counted {
    Counted {
        allocations: a.allocations.min(b.allocations),
        small_copies: a.small_copies.min(b.small_copies),
        large_copies: a.large_copies.min(b.large_copies),
        copied_bytes: a.copied_bytes.min(b.copied_bytes),
    }
}

#[test]
fn a_request_allocates_nothing_and_a_payload_is_copied_once_if_it_is_small() {
    if lacks(&[Need::Program("cc")]) {
        return;
    }
    let mut pair = Pair::new(Plan::default());
    let library = library(pair.dir());
    let counters = pair.hosts().map(|host| Counters::within(host, &library));
    // They belong to whoever the daemons run as.
    pair.write_configuration();
    pair.start_first();
    let look = || counters.each_ref().map(Counters::look);
    for counted in look() {
        let works = counted.allocations > 0 && counted.copied_bytes > 0;
        assert!(works, "no daemon starts without any: {counted:?}");
    }

    let mut client = pair.alpha.client();
    let mut complaints = Vec::new();
    for is_write in [true, false] {
        for sizes in [&[SMALL][..], &[LARGE], &[LARGE, SMALL]] {
            for depth in [1, 32] {
                let kind = Kind { is_write, sizes, depth };
                // All extents become active, all tables and buffers as many as are needed.
                kind.drive(&mut client);
                let counts = (0..BATCHES).map(|_| {
                    let before = look();
                    kind.drive(&mut client);
                    let after = look();
                    [0, 1].map(|host| after[host] - before[host])
                });
                let counts = counts.reduce(|a, b| [0, 1].map(|host| least(a[host], b[host])));
                let [primary, secondary] = counts.expect("there are batches");
                complaints.extend(kind.complaint("Primary", primary));
                complaints.extend(kind.complaint("Secondary", secondary));
            }
        }
    }
    drop(client);
    assert!(complaints.is_empty(), "more than that per request:\n{}", complaints.join("\n"));
    pair.end(None);
}

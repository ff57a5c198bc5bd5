//! A client that writes without pause and remembers what was acknowledged: [`Load`] writes, the [`Ledger`] remembers and verifies.
//!
//! The ledger lives in the test's memory, outside of the hosts under test.

use super::blocks::{BLOCK, Content, decode, encode};
use super::nbd::{Ask, Client, Lost};
use super::{Random, seconds, wait_for};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What each block may hold.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    blocks: BTreeMap<u64, Entry>,
    last_sequence: u64,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// The last acknowledged write; 0: none, zeros.
    acked: u64,
    /// Sent later and not acknowledged: each may have happened, or not, or happen still.
    maybe: Vec<u64>,
}

impl Ledger {
    /// A write that is about to be sent: its bytes.
    fn begin(&mut self, offset: u64) -> (u64, Vec<u8>) {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        self.blocks.entry(offset).or_default().maybe.push(sequence);
        (sequence, encode(offset, sequence))
    }

    /// It was acknowledged.
    fn acknowledge(&mut self, offset: u64, sequence: u64) {
        let entry = self.blocks.get_mut(&offset).expect("begun before");
        entry.acked = sequence;
        // Overlapping writes are in order: what was sent before cannot come after.
        entry.maybe.retain(|&other| other > sequence);
    }

    /// Blocks ever written to.
    pub fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.keys().copied()
    }

    /// Writes these blocks, one after the other, then flushes.
    ///
    /// # Panics
    /// If one fails.
    pub fn write(&mut self, client: &mut Client, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            let (sequence, bytes) = self.begin(offset);
            client.write(offset, &bytes).unwrap_or_else(|lost| panic!("write at {offset}: {lost}"));
            self.acknowledge(offset, sequence);
        }
        client.flush().unwrap_or_else(|lost| panic!("flush: {lost}"));
    }

    /// Reads every block that was ever written to: each holds its last acknowledged write, or one that was sent after it (DUR-3, DUR-5).
    /// What is found is what must be found from now on.
    ///
    /// # Panics
    /// If a block holds anything else.
    pub fn verify(&mut self, client: &mut Client) {
        assert!(!self.blocks.is_empty(), "nothing was written");
        for (&offset, entry) in &mut self.blocks {
            let bytes = client.read(offset, BLOCK as u32);
            let bytes = bytes.unwrap_or_else(|lost| panic!("read at {offset}: {lost}"));
            let found = match decode(offset, &bytes) {
                Content::Zeros => 0,
                Content::Sequence(sequence) => sequence,
                Content::Garbage => panic!("block at {offset}: torn or misplaced; {entry:?}"),
            };
            let allowed = found == entry.acked || entry.maybe.contains(&found);
            assert!(allowed, "block at {offset} holds write {found}, but {entry:?}");
            *entry = Entry { acked: found, maybe: Vec::new() };
        }
    }

    /// Is this what the block holds, as far as we were told?
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let acked = self.blocks.get(&offset).map_or(0, |entry| entry.acked);
        match decode(offset, bytes) {
            Content::Zeros => acked == 0,
            Content::Sequence(sequence) => acked == sequence,
            Content::Garbage => false,
        }
    }

    /// So that writes of two ledgers can be told from each other.
    pub fn begin_at(&mut self, sequence: u64) {
        assert!(sequence >= self.last_sequence, "numbers are used once");
        self.last_sequence = sequence;
    }
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes from the beginning of the device that are written to.
    pub span: u64,
    /// Writes in flight.
    pub depth: usize,
    /// A FLUSH after so many writes; 0: none.
    pub flush_every: u64,
    /// Of the random choice of blocks.
    pub seed: u64,
}

/// A client at work on a thread of its own.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Ended>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acked: AtomicU64,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// What it wrote.
    pub ledger: Ledger,
    /// Its connection, if it still stands.
    pub client: Option<Client>,
    /// Why it ended by itself.
    pub lost: Option<Lost>,
    /// Writes acknowledged.
    pub acked: u64,
    /// The longest time any request took.
    pub longest: Duration,
}

impl Load {
    /// Starts it.
    pub fn start(client: Client, ledger: Ledger, work: Work) -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || drive(client, ledger, work, &seen));
        Self { shared, thread }
    }

    /// Writes acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_more(&self, writes: u64) -> Duration {
        let goal = self.acked() + writes;
        let what = format!("{writes} more acknowledged writes");
        wait_for(&what, seconds(30), || self.acked() >= goal || self.thread.is_finished())
    }

    /// It has ended by itself: its connection has.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Sends nothing more, waits for what is in flight.
    ///
    /// # Panics
    /// If the thread did.
    pub fn stop(self) -> Ended {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until it ends by itself, because its connection does.
    ///
    /// # Panics
    /// If the thread did.
    pub fn join(self) -> Ended {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

enum Sent {
    Write { offset: u64, sequence: u64 },
    Flush,
}

fn drive(mut client: Client, mut ledger: Ledger, work: Work, shared: &Shared) -> Ended {
    let mut random = Random::new(work.seed);
    let mut in_flight: BTreeMap<u64, (Sent, Instant)> = BTreeMap::new();
    let mut busy = std::collections::BTreeSet::new();
    let (mut sent, mut longest) = (0, Duration::ZERO);
    let blocks = work.span.min(client.size) / BLOCK;
    assert!(blocks > work.depth as u64, "one write at a time for each block");
    let mut step = |client: &mut Client, ledger: &mut Ledger| -> Result<bool, Lost> {
        let stop = shared.stop.load(Ordering::Relaxed);
        while !stop && in_flight.len() < work.depth {
            let offset = random.below(blocks) * BLOCK;
            if !busy.insert(offset) {
                continue;
            }
            let (sequence, bytes) = ledger.begin(offset);
            let cookie = client.send(&Ask::Write(offset, &bytes))?;
            in_flight.insert(cookie, (Sent::Write { offset, sequence }, Instant::now()));
            sent += 1;
            if work.flush_every > 0 && sent % work.flush_every == 0 {
                let cookie = client.send(&Ask::Flush)?;
                in_flight.insert(cookie, (Sent::Flush, Instant::now()));
            }
        }
        if in_flight.is_empty() {
            return Ok(false);
        }
        let (cookie, answer) = client.receive()?;
        let (what, begin) = in_flight.remove(&cookie).expect("the client knows its cookies");
        longest = longest.max(begin.elapsed());
        answer.map_err(Lost::Errno)?;
        if let Sent::Write { offset, sequence } = what {
            ledger.acknowledge(offset, sequence);
            busy.remove(&offset);
            shared.acked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(true)
    };
    let lost = loop {
        match step(&mut client, &mut ledger) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(lost) => break Some(lost),
        }
    };
    let client = lost.is_none().then_some(client);
    Ended { ledger, client, lost, acked: shared.acked.load(Ordering::Relaxed), longest }
}

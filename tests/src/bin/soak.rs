//! `soak [--minutes M] [--seed S]`: two real daemons under load for half an hour, of which one dies or is cut off every two seconds.
//!
//! In each of ten phases one node is Primary: a client of ours writes blocks that tell who wrote them, fio reads and writes beside it and verifies, and the
//! Secondary is killed, stopped, cut off or not heard. At a phase's end the Primary is killed under load and the other takes over, or both die.
//! Nothing that was acknowledged may be missing, no client may notice what happens to a Secondary, and memory and descriptors of the
//! Primary must stay what they were. It ends with a line that tells what was done, or panics with the reason.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tests::real::load::Work;
use tests::real::process::Process;
use tests::real::{Host, Ledger, Load, Pair, Plan, Random, seconds};

const SIZE: u64 = 512 << 20;
/// Where the region of fio begins; before it is that of the client of ours.
const MIDDLE: u64 = SIZE / 2;
const PHASES: u32 = 10;
const TICK: Duration = seconds(2);
/// Memory may be more at a phase's end than after its beginning by so much: what an allocator keeps, and bits of what a dead peer lacks.
const MOST_GROWTH: u64 = 24 << 20;

fn main() -> ExitCode {
    let (mut minutes, mut seed) = (30, u64::from(std::process::id()));
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().and_then(|text| text.parse().ok());
        match (arg.as_str(), value) {
            ("--minutes", Some(number)) => minutes = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                eprintln!("usage: soak [--minutes M] [--seed S]");
                return ExitCode::from(2);
            }
        }
    }
    println!("soak: {minutes} minutes, --seed {seed}");
    let begun = Instant::now();
    let mut soak = Soak {
        pair: Pair::start_in_sync(Plan { size: SIZE, ..Plan::default() }),
        ledger: Ledger::default(),
        random: Random::new(seed),
        tally: Tally::default(),
    };
    for phase in 0..PHASES {
        soak.phase(phase, seconds(minutes * 60) / PHASES);
    }
    let Soak { pair, mut ledger, tally, .. } = soak;
    pair.end(Some(&mut ledger));
    println!("soak: {:.0} s, nothing lost: {tally:?}", begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// What was done and seen.
#[derive(Debug, Default)]
struct Tally {
    secondaries_killed: u32,
    secondaries_stopped: u32,
    primaries_killed: u32,
    both_killed: u32,
    cuts: u32,
    cuts_in_a_frame: u32,
    silences: u32,
    writes_acknowledged: u64,
    fio_mebibytes: u64,
    longest_request: Duration,
    most_growth_in_a_phase: i64,
    most_descriptors: usize,
}

struct Soak {
    pair: Pair,
    ledger: Ledger,
    random: Random,
    tally: Tally,
}

/// Of a Primary's daemon: bytes of memory, descriptors.
type Sample = (u64, usize);

impl Soak {
    fn host(&mut self, node: usize) -> &mut Host {
        let [alpha, beta] = self.pair.hosts();
        if node == 0 { alpha } else { beta }
    }

    fn phase(&mut self, phase: u32, length: Duration) {
        let primary = phase as usize % 2;
        let seed = self.random.below(u64::MAX);
        let ledger = std::mem::take(&mut self.ledger);
        let work = Work { span: MIDDLE, depth: 16, flush_every: 50, seed };
        let host = self.host(primary);
        host.promote();
        let (uri, load) = (host.uri(), Load::start(host.client(), ledger, work));
        let log = self.pair.dir().join("fio.log");
        let mut fio = start_fio(&uri, self.pair.dir(), &log, length);
        let begun = Instant::now();
        let mut samples: Vec<Sample> = Vec::new();
        let mut tick = begun;
        while begun.elapsed() < length {
            tick += TICK;
            self.strike(1 - primary);
            std::thread::sleep(tick.saturating_duration_since(Instant::now()));
            self.pair.link.heal();
            let daemon = self.host(primary).daemon();
            samples.push((daemon.resident_bytes(), daemon.descriptors()));
            assert!(!load.is_over(), "phase {phase}: a client noticed something");
            let early = begun.elapsed() + seconds(5) < length;
            assert!(!early || fio.ended().is_none(), "phase {phase}: fio: {}", fio.said());
        }
        let ended = fio.wait(seconds(120));
        assert!(ended.success(), "phase {phase}: fio: {ended}\n{}", fio.said());
        self.tally.fio_mebibytes += mebibytes(&log);
        self.judge(phase, &samples);
        // Beside the load: longer than without.
        self.host(primary).wait_in_sync(seconds(180));
        load.wait_for_more(100);
        self.end_of_phase(phase, primary, load);
    }

    /// Something happens to the Secondary, or to the link.
    fn strike(&mut self, secondary: usize) {
        match self.random.below(8) {
            0..4 => {
                self.tally.secondaries_killed += 1;
                self.host(secondary).kill();
                self.host(secondary).start();
            }
            4 => {
                self.tally.secondaries_stopped += 1;
                self.host(secondary).daemon().pause();
                // Both shorter and longer than a silent peer is waited for.
                std::thread::sleep(Duration::from_millis(self.random.below(1800)));
                self.host(secondary).daemon().resume();
            }
            5 => {
                self.tally.cuts += 1;
                self.pair.link.cut();
                std::thread::sleep(Duration::from_millis(self.random.below(1000)));
            }
            6 => {
                self.tally.cuts_in_a_frame += 1;
                let bytes = self.random.below(1 << 20) as usize;
                self.pair.link.cut_after(bytes);
            }
            _ => {
                self.tally.silences += 1;
                let node = self.random.below(2) as usize;
                self.pair.link.silence_to(node);
            }
        }
    }

    /// The Primary dies under load, and the other takes over; or both die.
    fn end_of_phase(&mut self, phase: u32, primary: usize, load: Load) {
        let both = phase % 4 == 3;
        self.host(primary).daemon().strike();
        if both {
            self.tally.both_killed += 1;
            self.host(1 - primary).kill();
        } else {
            self.tally.primaries_killed += 1;
        }
        self.host(primary).kill();
        let mut ended = load.join();
        assert!(ended.lost.is_some(), "its Primary was killed");
        self.tally.writes_acknowledged += ended.acked;
        self.tally.longest_request = self.tally.longest_request.max(ended.longest);
        let heir = if both {
            (0..2).for_each(|node| self.host(node).start());
            self.pair.wait_in_sync();
            primary
        } else {
            1 - primary
        };
        self.host(heir).promote();
        ended.ledger.verify(&mut self.host(heir).client());
        if !both {
            self.host(primary).start();
            self.pair.wait_in_sync();
        }
        self.host(heir).must(&["secondary", "r0"]);
        self.ledger = ended.ledger;
        println!("phase {phase}: {:?}", self.tally);
    }

    /// Memory and descriptors are flat.
    fn judge(&mut self, phase: u32, samples: &[Sample]) {
        let fifth = (samples.len() / 5).max(1);
        let memory = |of: &[Sample]| {
            let mut bytes: Vec<u64> = of.iter().map(|sample| sample.0).collect();
            bytes.sort_unstable();
            bytes[bytes.len() / 2]
        };
        // The first fifth fills the caches.
        let early = &samples[fifth.min(samples.len() - 1)..];
        let growth = memory(&samples[samples.len() - fifth..]) as i64
            - memory(&early[..fifth.min(early.len())]) as i64;
        let most = samples.iter().map(|sample| sample.1).max().unwrap_or(0);
        println!("phase {phase}: memory {} KiB more, descriptors {most} at most", growth >> 10);
        assert!(growth < MOST_GROWTH as i64, "phase {phase}: memory grew by {growth} bytes");
        let (first, last) = (samples[0].1, samples[samples.len() - 1].1);
        assert!(last <= first + 4, "phase {phase}: {first} descriptors, later {last}");
        self.tally.most_growth_in_a_phase = self.tally.most_growth_in_a_phase.max(growth);
        self.tally.most_descriptors = self.tally.most_descriptors.max(most);
    }
}

/// Reads and writes, some blocks far more often than others; each block read back is verified.
fn start_fio(uri: &str, dir: &Path, log: &Path, length: Duration) -> Process {
    // Of one phase only.
    let _ = std::fs::remove_file(log);
    let mut command = Command::new("fio");
    command.args([
        "--name=mixed",
        "--ioengine=nbd",
        "--rw=randrw",
        "--rwmixread=50",
        "--iodepth=8",
    ]);
    command.args(["--bsrange=4k-64k", "--fsync=64", "--norandommap", "--time_based"]);
    command.args(["--random_distribution=zipf:1.1", "--verify=crc32c", "--verify_fatal=1"]);
    command.args(["--verify_state_save=0", "--verify_backlog=256", "--output-format=json"]);
    command.arg(format!("--uri={uri}")).arg(format!("--aux-path={}", dir.display()));
    command.arg(format!("--offset={MIDDLE}")).arg(format!("--size={}", SIZE / 4));
    command.arg(format!("--runtime={}", length.as_secs()));
    Process::start("fio", &mut command, log)
}

/// What fio says it has moved.
fn mebibytes(log: &Path) -> u64 {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let bytes = |line: &str| {
        let number = line.trim().strip_prefix("\"io_bytes\" : ")?;
        number.trim_end_matches(',').parse::<u64>().ok()
    };
    said.lines().filter_map(bytes).sum::<u64>() >> 20
}

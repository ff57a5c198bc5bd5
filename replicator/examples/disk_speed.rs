//! How fast the engines are on the files given: 4 KiB random writes and reads, one at a time and
//! 32 deep, and writes that are each followed by a flush.
//!
//! `cargo run --release -p replicator --example disk_speed -- [--rounds N] [--seconds S] DIR...`
//!
//! In each directory it makes a file of 256 MiB, fills it, and removes it at the end. Rounds go over
//! all engines in turn, so that what else the machine does hits all of them; the table has medians
//! of thousand operations per second, with minimum and maximum, and of microseconds of processor
//! time per operation (all threads, the kernel's helpers included), which other work on the machine
//! disturbs least. It is a tool to look with: nothing depends on its figures.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replicator::buffers::Pool;
use replicator::disk::{Backing, Completion, Direct, EngineChoice, Op, Options};

const SIZE: u64 = 256 << 20;
const BLOCK: u64 = 4096;

const ENGINES: [(&str, Direct, EngineChoice); 4] = [
    ("page cache, pread", Direct::No, EngineChoice::Pread),
    ("page cache, io_uring", Direct::No, EngineChoice::Uring),
    ("O_DIRECT, threads", Direct::Yes, EngineChoice::Pread),
    ("O_DIRECT, io_uring", Direct::Yes, EngineChoice::Uring),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Write,
    Read,
    WriteFlush,
}

const WORKS: [(&str, Work, usize); 6] = [
    ("write qd1", Work::Write, 1),
    ("write qd32", Work::Write, 32),
    ("read qd1", Work::Read, 1),
    ("read qd32", Work::Read, 32),
    ("write+flush qd1", Work::WriteFlush, 1),
    ("write+flush qd32", Work::WriteFlush, 32),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut rounds = 3;
    let mut seconds = 0.5;
    let mut directories = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = words.next().ok_or("--rounds takes a number")?.parse()?,
            "--seconds" => seconds = words.next().ok_or("--seconds takes a number")?.parse()?,
            _ => directories.push(PathBuf::from(word)),
        }
    }
    if directories.is_empty() {
        return Err("which directories?".into());
    }
    for directory in directories {
        let path = directory.join("pollux-disk-speed");
        let measured = measure(&path, rounds, Duration::from_secs_f64(seconds));
        let removed = std::fs::remove_file(&path);
        print(&directory, &measured?);
        removed?;
    }
    Ok(())
}

/// Thousand operations per second and microseconds of processor time per operation, by engine,
/// workload and round.
type Figures = Vec<(&'static str, Vec<Vec<(f64, f64)>>)>;

fn measure(path: &Path, rounds: usize, time: Duration) -> Result<Figures, Box<dyn Error>> {
    File::create(path)?.set_len(SIZE)?;
    fill(path)?;
    let mut figures: Figures =
        ENGINES.iter().map(|e| (e.0, vec![Vec::new(); WORKS.len()])).collect();
    for round in 0..rounds {
        for (figures, &(_, direct, engine)) in figures.iter_mut().zip(&ENGINES) {
            let options = Options { direct, engine, ..Options::default() };
            for (figures, &(_, work, depth)) in figures.1.iter_mut().zip(&WORKS) {
                let mut backing = open(path, &options)?;
                figures.push(one(&mut backing, work, depth, time, round as u64 + 1)?);
            }
        }
    }
    Ok(figures)
}

/// The one before lets go a moment after it is dropped.
fn open(path: &Path, options: &Options) -> Result<Backing, Box<dyn Error>> {
    let pool = Pool::new(64 << 20);
    let start = Instant::now();
    loop {
        match Backing::open(path, options, &pool) {
            Ok(backing) => return Ok(backing),
            Err(_) if start.elapsed() < Duration::from_secs(10) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

fn fill(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut backing = open(path, &Options::default())?;
    let buffer = Pool::new(0).copy_of(&vec![1; 1 << 20]);
    for offset in (0..SIZE).step_by(1 << 20) {
        backing.perform(&Op::Write { offset, buffer: buffer.clone(), fua: false })?;
    }
    backing.perform(&Op::Flush)?;
    Ok(())
}

fn one(
    backing: &mut Backing,
    work: Work,
    depth: usize,
    time: Duration,
    seed: u64,
) -> Result<(f64, f64), Box<dyn Error>> {
    let buffer = Pool::new(1 << 20).copy_of(&[7; BLOCK as usize]);
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |token: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Each slot has its own part of the file: no two operations touch one block.
        let part = SIZE / BLOCK / depth as u64;
        let offset = (token * part + random % part) * BLOCK;
        let read = Op::Read { offset, len: BLOCK as u32, detect_zero: false };
        (
            token,
            if work == Work::Read {
                read
            } else {
                Op::Write { offset, buffer: buffer.clone(), fua: false }
            },
        )
    };
    // What an earlier workload left dirty is not this one's to write.
    backing.perform(&Op::Flush)?;
    let mut batch: Vec<_> = (0..depth as u64).map(&mut next).collect();
    let mut flushing = vec![false; depth];
    let mut out: Vec<Completion> = Vec::new();
    let mut done = 0u64;
    let (start, cpu) = (Instant::now(), processor_time());
    loop {
        backing.submit(&mut batch);
        backing.poll(&mut out);
        if out.is_empty() {
            wait(backing)?;
            continue;
        }
        let over = start.elapsed() >= time;
        for completion in out.drain(..) {
            completion.result?;
            let slot = completion.token as usize;
            if work == Work::WriteFlush && !flushing[slot] {
                flushing[slot] = true;
                batch.push((completion.token, Op::Flush));
                continue;
            }
            flushing[slot] = false;
            done += 1;
            if !over {
                batch.push(next(completion.token));
            }
        }
        if batch.is_empty() && backing.in_flight() == 0 {
            let (done, used) = (done as f64, processor_time() - cpu);
            return Ok((done / start.elapsed().as_secs_f64() / 1e3, used / done * 1e6));
        }
    }
}

/// Seconds this process has used.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it fills the value on this stack.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "every process has this clock");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Sleeps until a completion comes.
fn wait(backing: &Backing) -> io::Result<()> {
    let fd = backing.wake_fd();
    let mut watched = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry on this stack.
    match unsafe { libc::poll(&raw mut watched, 1, 10_000) } {
        0 => return Err(io::ErrorKind::TimedOut.into()),
        1 => {}
        _ => return Err(io::Error::last_os_error()),
    }
    File::from(fd.try_clone_to_owned()?).read_exact(&mut [0; 8])
}

fn print(directory: &Path, figures: &Figures) {
    println!("\n{}: kIOPS median (min..max), us CPU", directory.display());
    print!("{:24}", "");
    for (name, ..) in WORKS {
        print!("{name:>28}");
    }
    for (engine, works) in figures {
        print!("\n{engine:24}");
        for rounds in works {
            let sorted = |pick: fn(&(f64, f64)) -> f64| {
                let mut values: Vec<f64> = rounds.iter().map(pick).collect();
                values.sort_by(f64::total_cmp);
                values
            };
            let (ops, cpu) = (sorted(|round| round.0), sorted(|round| round.1));
            let (middle, last) = (ops.len() / 2, ops.len() - 1);
            let range = format!("({:.1}..{:.1})", ops[0], ops[last]);
            let text = format!("{:.1} {range} {:.1}", ops[middle], cpu[middle]);
            print!("{text:>28}");
        }
    }
    println!();
}

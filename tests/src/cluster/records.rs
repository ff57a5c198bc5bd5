//! A stand-in for a database: a server that makes numbered records durable before it acknowledges them, and a client in another host that
//! never stops asking. What was acknowledged must be there after any failover; the longest silence is the takeover a user feels.
//!
//! Both run inside of hosts: `/mnt/lab/lab records ADDRESS FILE`, `/mnt/lab/lab write ADDRESS`.

use super::host::Host;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the client waits for one connection, one answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two attempts, and between two records.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the server listens in a [`super::Stage`].
pub const SERVICE: &str = "10.0.0.100:5000";
/// Where it keeps its records there.
pub const RECORDS: &str = "/srv/data/records";

/// The server as a service of a cluster manager: by the contract of LSB, and with the word that Heartbeat expects. It does not start where
/// `/run/sick` is.
pub const SCRIPT: &str = r#"#!/bin/sh
is_running() { pid=$(cat /run/records.pid 2>/dev/null) && kill -0 "$pid" 2>/dev/null; }
case $1 in
  start)
    is_running && exit 0
    [ ! -e /run/sick ] || exit 1
    echo "started $(date +%s.%N)" >>/var/log/marks
    setsid /mnt/lab/lab records 10.0.0.100:5000 /srv/data/records </dev/null >>/var/log/records 2>&1 &
    echo $! >/run/records.pid
    ;;
  stop)
    if is_running; then kill -KILL "$pid"; fi
    rm -f /run/records.pid
    ;;
  status) if is_running; then echo running; else echo stopped && exit 3; fi ;;
  *) exit 2 ;;
esac
exit 0
"#;

/// When a script on a host last wrote this word to its `/var/log/marks`.
///
/// # Panics
/// If none did.
pub fn mark(host: &Host, word: &str) -> SystemTime {
    let marks = host.log_text("marks");
    let at = marks.lines().rev().find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
    let at = at.unwrap_or_else(|| panic!("{}: no mark {word} in {marks}", host.name()));
    UNIX_EPOCH + Duration::from_secs_f64(at)
}

/// Serves until it is killed or the file system fails: a line holds a number, which is appended to `file` and synced, then answered.
///
/// # Errors
/// What the file or the socket cannot do.
pub fn serve(address: &str, file: &str) -> std::io::Result<()> {
    let mut records = File::options().create(true).read(true).append(true).open(file)?;
    // A record that was torn by a crash was not acknowledged.
    let mut text = Vec::new();
    records.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    records.set_len(whole as u64)?;
    records.seek(SeekFrom::End(0))?;
    records.sync_all()?;
    let parent = std::path::Path::new(file).parent().expect("a file lies in a directory");
    File::open(parent)?.sync_all()?;
    let records = Arc::new(Mutex::new(records));
    for stream in TcpListener::bind(address)?.incoming() {
        let (stream, records) = (stream?, Arc::clone(&records));
        std::thread::spawn(move || {
            // A client that goes is no failure; a file system that does is the end.
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                let mut file = records.lock().unwrap_or_else(PoisonError::into_inner);
                let written = file.write_all(format!("{line}\n").as_bytes());
                if let Err(error) = written.and_then(|()| file.sync_all()) {
                    eprintln!("record {line}: {error}");
                    std::process::exit(1);
                }
                drop(file);
                if (&stream).write_all(format!("{line}\n").as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Sends records until it is killed; prints `NUMBER MILLISECONDS` for each that was acknowledged, and when (since 1970).
///
/// # Errors
/// If the address is none, or stdout is gone.
pub fn write(address: &str) -> std::io::Result<()> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut server = None;
    for number in 1_u64.. {
        // One number is sent again until it is acknowledged: it may be there twice.
        loop {
            match append(&mut server, address, number) {
                Ok(()) => break,
                Err(_) => server = None,
            }
            std::thread::sleep(PAUSE);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
        let line = format!("{number} {}\n", now.as_millis());
        std::io::stdout().write_all(line.as_bytes())?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn append(
    server: &mut Option<BufReader<TcpStream>>,
    address: SocketAddr,
    number: u64,
) -> std::io::Result<()> {
    if server.is_none() {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        *server = Some(BufReader::new(stream));
    }
    let server = server.as_mut().expect("just connected");
    server.get_mut().write_all(format!("{number}\n").as_bytes())?;
    let mut answer = String::new();
    server.read_line(&mut answer)?;
    match answer.trim() == number.to_string() {
        true => Ok(()),
        false => Err(std::io::Error::other("no acknowledgement")),
    }
}

/// The client, in a host of its own.
#[derive(Debug)]
pub struct Writer {
    host: Host,
}

impl Writer {
    /// Starts it; it runs until the host has no power.
    pub fn start(host: &Host, address: &str) -> Self {
        host.spawn("writer", &["/mnt/lab/lab", "write", address]);
        Self { host: host.clone() }
    }

    /// Of another program that writes the same lines to the log `writer`.
    pub fn of(host: &Host) -> Self {
        Self { host: host.clone() }
    }

    /// Number and time of every acknowledged record so far.
    pub fn acknowledged(&self) -> Vec<(u64, SystemTime)> {
        let text = std::fs::read_to_string(self.host.log("writer")).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let line = |line: &str| {
            let (number, at) = line.split_once(' ')?;
            let at = UNIX_EPOCH + Duration::from_millis(at.parse().ok()?);
            Some((number.parse().ok()?, at))
        };
        text[..whole].lines().filter_map(line).collect()
    }

    /// Waits for `count` acknowledgements of records sent from now on: how long the first took.
    ///
    /// # Panics
    /// If they do not come in time.
    pub fn wait_for_more(&self, count: usize, limit: Duration) -> Duration {
        let now = SystemTime::now();
        let mut first = None;
        self.host.wait("acknowledged records", limit, || {
            let all = self.acknowledged();
            let after: Vec<_> = all.iter().filter(|(_, at)| *at > now).collect();
            // The first may have been sent before.
            first = after.get(1).map(|(_, at)| *at);
            after.len() > count
        });
        first.and_then(|at| at.duration_since(now).ok()).unwrap_or_default()
    }

    /// When the first record after `since` was acknowledged that was not acknowledged before the longest silence after it: how long clients
    /// were without the service.
    pub fn longest_silence(&self, since: SystemTime) -> Duration {
        let all = self.acknowledged();
        let times: Vec<_> = all.iter().map(|(_, at)| *at).filter(|at| *at >= since).collect();
        let before = all.iter().map(|(_, at)| *at).rfind(|at| *at < since).unwrap_or(since);
        let gaps = times.iter().zip(std::iter::once(&before).chain(&times));
        gaps.filter_map(|(after, before)| after.duration_since(*before).ok())
            .max()
            .unwrap_or_default()
    }

    /// Does the file hold every acknowledged record? How many there are.
    ///
    /// # Panics
    /// If one is missing.
    pub fn assert_all_in(&self, records: &str) -> usize {
        let there: BTreeSet<u64> = records.lines().filter_map(|line| line.parse().ok()).collect();
        let acknowledged = self.acknowledged();
        let missing: Vec<_> =
            acknowledged.iter().map(|(number, _)| number).filter(|n| !there.contains(n)).collect();
        assert!(missing.is_empty(), "acknowledged, and lost: {missing:?}");
        acknowledged.len()
    }
}

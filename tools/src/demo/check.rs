//! The story of a failover, played to its end: what was acknowledged is there after the Primary was
//! killed, and the node that returns gets what it missed, and only that.

use super::{Demo, RESOURCE, say};
use crate::cli::{Life, up};
use crate::failure::{Failure, Result};
use nbd::client::{NbdClient, handshake};
use replicator::daemon::control::Wanted;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};

const BLOCK: u64 = 4096;
/// Writes before the Primary is killed; the writer does not stop for it.
const BEFORE: u64 = 500;
/// The numbers of the writes while it is away.
const AWAY: Range<u64> = 1 << 32..(1 << 32) + 100;

/// How long a node may take to answer, or to notice that its peer is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// What clients were told is written: block number and what is in it.
type Acknowledged = BTreeMap<u64, u64>;

pub(super) async fn check(demo: &Demo) -> Result {
    let [alpha, beta] = &demo.nodes[..] else { unreachable!("there are two") };
    let status = alpha.status().await?;
    let blocks = status.devices.iter().map(|device| device.size / 4).min().unwrap_or(0);

    let (told, heard) = mpsc::channel();
    let (socket, tell) = (alpha.socket(), told.clone());
    let writer = spawn_blocking(move || write(&socket, blocks, 0..AWAY.start, &tell));
    spawn_blocking(move || heard.recv())
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Failure::failed("the writer ended before the Primary was killed"))?;
    alpha.kill();
    let (mut acknowledged, doubtful) = joined(writer).await?;
    say(&format!(
        "{} writes were acknowledged; then alpha was killed (SIGKILL)",
        acknowledged.len()
    ));

    // A moment passes until beta notices.
    let noticed = async {
        while beta.status().await?.connections.iter().any(|c| c.connection_state == "Connected") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, Failure>(())
    };
    let noticed = tokio::time::timeout(PATIENCE, noticed).await;
    noticed.map_err(|_| Failure::failed("NOT well: beta does not notice"))??;
    beta.client.command(&Wanted::Primary { force: false }).await?;
    let (socket, expected) = (beta.socket(), acknowledged.clone());
    joined(spawn_blocking(move || read_back(&socket, &expected, doubtful))).await?;
    say("beta is Primary; it has every one of them");

    let socket = beta.socket();
    let (written, failed) =
        joined(spawn_blocking(move || write(&socket, blocks, AWAY, &told))).await?;
    if let Some(place) = failed {
        return Err(Failure::failed(format!("NOT well: block {place} was not written to beta")));
    }
    acknowledged.extend(written);
    say("100 more blocks were written while alpha is away");

    up(alpha, Life::Ours).await?;
    demo.wait_sync().await?;
    let status = beta.status().await?;
    let peers = status.connections.iter().flat_map(|connection| &connection.peer_devices);
    let copied: u64 = peers.map(|peer| peer.resync_copied).sum();
    say(&format!("alpha is back and UpToDate; {copied} KiB of {} KiB were copied", blocks * 4));

    let socket = beta.socket();
    joined(spawn_blocking(move || read_back(&socket, &acknowledged, None))).await?;
    demo.end().await;
    let (disks, size) = ([alpha.disk(), beta.disk()], blocks * BLOCK);
    joined(spawn_blocking(move || compare(&disks, size))).await?;
    say("both nodes are down; their disks are identical, byte by byte. All is well.");
    Ok(())
}

async fn joined<T>(task: JoinHandle<io::Result<T>>) -> Result<T> {
    match task.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::failed(format!("NOT well: {error}"))),
        Err(error) => Err(Failure::failed(format!("the demo itself failed: {error}"))),
    }
}

/// What the `n`th write puts where: scattered over the first part of the device, and no two alike.
/// Only that part has to be looked at after the crash.
fn nth(n: u64, blocks: u64) -> (u64, u64) {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed % (blocks / 16), mixed | 1)
}

fn block(content: u64) -> Vec<u8> {
    content.to_le_bytes().repeat(BLOCK as usize / 8)
}

fn open(socket: &Path) -> io::Result<NbdClient<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    // A daemon that holds I/O longer than this has failed.
    stream.set_read_timeout(Some(PATIENCE))?;
    let export = handshake(&mut stream, RESOURCE.as_bytes())?;
    Ok(NbdClient::new(stream, &export))
}

/// Makes these writes, and tells when it is time to kill the server. What was acknowledged; and if
/// the server dies, the one block whose write was not.
fn write(
    socket: &Path,
    blocks: u64,
    numbers: Range<u64>,
    told: &mpsc::Sender<()>,
) -> io::Result<(Acknowledged, Option<u64>)> {
    let mut client = open(socket)?;
    let mut acknowledged = Acknowledged::new();
    for n in numbers {
        let (place, content) = nth(n, blocks);
        client.seek(SeekFrom::Start(place * BLOCK))?;
        if client.write_all(&block(content)).is_err() {
            return Ok((acknowledged, Some(place)));
        }
        acknowledged.insert(place, content);
        if n + 1 == BEFORE && told.send(()).is_err() {
            break;
        }
    }
    client.flush()?;
    Ok((acknowledged, None))
}

/// Every acknowledged block, except the one that was being written, holds what was written last.
fn read_back(socket: &Path, expected: &Acknowledged, doubtful: Option<u64>) -> io::Result<()> {
    let mut client = open(socket)?;
    let mut found = vec![0; BLOCK as usize];
    for (&place, &content) in expected.iter().filter(|(place, _)| Some(**place) != doubtful) {
        client.seek(SeekFrom::Start(place * BLOCK))?;
        client.read_exact(&mut found)?;
        if found != block(content) {
            return Err(io::Error::other(format!("block {place} is not what was acknowledged")));
        }
    }
    Ok(())
}

fn compare(disks: &[PathBuf; 2], size: u64) -> io::Result<()> {
    let open = |path: &PathBuf| File::open(path);
    let files = [open(&disks[0])?, open(&disks[1])?];
    let mut chunks = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let mut offset = 0;
    while offset < size {
        let len = (size - offset).min(1 << 20) as usize;
        for (file, chunk) in files.iter().zip(&mut chunks) {
            file.read_exact_at(&mut chunk[..len], offset)?;
        }
        if chunks[0][..len] != chunks[1][..len] {
            return Err(io::Error::other(format!("the disks differ behind byte {offset}")));
        }
        offset += len as u64;
    }
    Ok(())
}

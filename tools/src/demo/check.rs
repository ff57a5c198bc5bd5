//! The story of a failover, played to its end: what was acknowledged is there after the Primary was
//! killed, and the node that returns gets what it missed, and only that.

use super::nbd_client::NbdClient;
use super::{Demo, RESOURCE, say};
use crate::cli::Failure;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc;

const BLOCK: u64 = 4096;
/// Writes before the Primary is killed; the writer does not stop for it.
const BEFORE: usize = 500;
/// Writes while it is away.
const AWAY: usize = 100;

/// What clients were told is written: block number and what is in it.
type Acknowledged = BTreeMap<u64, u64>;

pub(super) async fn check(demo: &mut Demo) -> Result<(), Failure> {
    let status = demo.nodes[0].status().await?;
    let blocks = status.devices.iter().map(|device| device.size / 4).min().unwrap_or(0);

    let (told, heard) = mpsc::channel();
    let socket = demo.socket(0);
    let writer = tokio::task::spawn_blocking(move || write_until_it_breaks(socket, blocks, &told));
    tokio::task::spawn_blocking(move || heard.recv())
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Failure::failed("the writer ended before the Primary was killed"))?;
    demo.nodes[0].kill();
    let (mut acknowledged, doubtful) = joined(writer.await)?;
    say(&format!(
        "{} writes were acknowledged; then alpha was killed (SIGKILL)",
        acknowledged.len()
    ));

    demo.nodes[1].client.command("primary", json!({})).await?;
    let socket = demo.socket(1);
    let expected = acknowledged.clone();
    joined(tokio::task::spawn_blocking(move || read_back(socket, &expected, doubtful)).await)?;
    say("beta is Primary; it has every one of them");

    let socket = demo.socket(1);
    let written = joined(tokio::task::spawn_blocking(move || write_some(socket, blocks)).await)?;
    acknowledged.extend(written);
    say(&format!("{AWAY} more blocks were written while alpha is away"));

    let config = demo.config();
    demo.nodes[0].start(&config, RESOURCE).await?;
    demo.wait_sync().await?;
    let status = demo.nodes[1].status().await?;
    let copied: u64 = status
        .connections
        .iter()
        .flat_map(|connection| &connection.peer_devices)
        .map(|peer| peer.resync_copied)
        .sum();
    say(&format!("alpha is back and UpToDate; {copied} KiB of {} KiB were copied", blocks * 4));

    let socket = demo.socket(1);
    joined(tokio::task::spawn_blocking(move || read_back(socket, &acknowledged, None)).await)?;
    demo.end().await;
    let disks = demo.nodes.each_ref().map(super::Node::disk);
    let size = blocks * BLOCK;
    joined(tokio::task::spawn_blocking(move || compare(&disks, size)).await)?;
    say("both nodes are down; their disks are identical, byte by byte. All is well.");
    Ok(())
}

impl Demo {
    fn socket(&self, node: usize) -> PathBuf {
        self.nodes[node].nbd_socket(RESOURCE).into()
    }
}

fn joined<T>(result: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Failure> {
    match result {
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

/// Writes until the server dies; tells when it is time to kill it. Returns what was acknowledged,
/// and the one block whose write was not.
fn write_until_it_breaks(
    socket: PathBuf,
    blocks: u64,
    told: &mpsc::Sender<()>,
) -> io::Result<(Acknowledged, Option<u64>)> {
    let mut client = NbdClient::open(&socket, RESOURCE)?;
    let mut acknowledged = Acknowledged::new();
    for n in 0.. {
        let (place, content) = nth(n, blocks);
        if client.write(place * BLOCK, &block(content)).is_err() {
            return Ok((acknowledged, Some(place)));
        }
        acknowledged.insert(place, content);
        if n + 1 == BEFORE as u64 && told.send(()).is_err() {
            break;
        }
    }
    Ok((acknowledged, None))
}

fn write_some(socket: PathBuf, blocks: u64) -> io::Result<Acknowledged> {
    let mut client = NbdClient::open(&socket, RESOURCE)?;
    let mut acknowledged = Acknowledged::new();
    for n in 0..AWAY as u64 {
        let (place, content) = nth(n + (1 << 32), blocks);
        client.write(place * BLOCK, &block(content))?;
        acknowledged.insert(place, content);
    }
    client.flush()?;
    Ok(acknowledged)
}

/// Every acknowledged block, except the one that was being written, holds what was written last.
fn read_back(socket: PathBuf, expected: &Acknowledged, doubtful: Option<u64>) -> io::Result<()> {
    let mut client = NbdClient::open(&socket, RESOURCE)?;
    for (&place, &content) in expected.iter().filter(|(place, _)| Some(**place) != doubtful) {
        if client.read(place * BLOCK, BLOCK as u32)? != block(content) {
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

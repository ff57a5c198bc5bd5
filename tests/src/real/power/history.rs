//! What a client sent and was told, in the order of the disk's record; and from that, what each block may hold after a cut.
//!
//! Written from the promise (docs/guarantees.md), not from the product.

use super::SECTOR;
use crate::real::Random;
use crate::real::blocks::{BLOCK, encode};
use crate::real::fault_disk::{At, FaultDisk};
use crate::real::nbd::{Ask, Client};
use std::collections::BTreeMap;

/// Bytes from one written region of the device to the next: an extent of the activity log.
const STRIDE: u64 = 4 << 20;
/// Bytes that are written to in each.
const REGION: u64 = 512 << 10;
/// Requests in flight.
const DEPTH: usize = 16;
/// Blocks of the longest write.
const LONGEST: u64 = 4;

/// One write to one block.
#[derive(Clone, Debug)]
struct Write {
    /// Names its content; `None`: zeros.
    sequence: Option<u64>,
    fua: bool,
    sent: At,
    acked: Option<At>,
}

impl Write {
    fn content(&self, offset: u64) -> Vec<u8> {
        match self.sequence {
            Some(sequence) => encode(offset, sequence),
            None => vec![0; BLOCK as usize],
        }
    }
}

/// What must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// DUR-1, DUR-2: what an acknowledged FLUSH covered, and acknowledged FUA writes.
    Flushed,
    /// DUR-3: all that was acknowledged.
    Acknowledged,
}

/// All of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The writes to each block, in their order: one at a time was under way.
    blocks: BTreeMap<u64, Vec<Write>>,
    /// Flushes that were acknowledged: when sent, when acknowledged.
    flushes: Vec<(At, At)>,
    last_sequence: u64,
}

/// What the blocks were found to hold.
pub type Found = BTreeMap<u64, Vec<u8>>;

impl History {
    /// Instants right after an acknowledgement that promised something.
    pub fn promises(&self) -> Vec<At> {
        let fua = self.blocks.values().flatten().filter(|write| write.fua);
        let fua = fua.filter_map(|write| write.acked);
        self.flushes.iter().map(|&(_, acked)| acked).chain(fua).map(|at| at + 1).collect()
    }

    /// Blocks of which something newer than what is stable for sure had been acknowledged.
    pub fn at_risk(&self, at: At) -> usize {
        let floors = |writes: &[Write]| {
            (
                self.floor(writes, at, Promise::Flushed),
                self.floor(writes, at, Promise::Acknowledged),
            )
        };
        self.blocks.values().map(|writes| floors(writes)).filter(|(a, b)| a != b).count()
    }

    /// The last write to a block that must be there, or something newer.
    fn floor(&self, writes: &[Write], at: At, promise: Promise) -> Option<usize> {
        writes.iter().rposition(|write| {
            let Some(acked) = write.acked.filter(|&acked| acked < at) else { return false };
            let covers = |&(sent, done): &(At, At)| acked < sent && done < at;
            promise == Promise::Acknowledged || write.fua || self.flushes.iter().any(covers)
        })
    }

    /// Reads every region that was written to of a device of `size` bytes, and compares it with what was promised before `at`.
    ///
    /// # Errors
    /// What is not there, or should not be.
    pub fn check(
        &self,
        size: u64,
        mut read: impl FnMut(u64, u64) -> Vec<u8>,
        at: At,
        promise: Promise,
    ) -> Result<Found, String> {
        let mut found = Found::new();
        for region in (0..size).step_by(STRIDE as usize) {
            for (i, block) in read(region, REGION).chunks(BLOCK as usize).enumerate() {
                let offset = region + i as u64 * BLOCK;
                self.check_block(offset, block, at, promise)?;
                found.insert(offset, block.to_vec());
            }
        }
        Ok(found)
    }

    fn check_block(
        &self,
        offset: u64,
        bytes: &[u8],
        at: At,
        promise: Promise,
    ) -> Result<(), String> {
        let none = Vec::new();
        let writes = self.blocks.get(&offset).unwrap_or(&none);
        let floor = self.floor(writes, at, promise);
        let sent: Vec<_> = writes.iter().filter(|write| write.sent < at).collect();
        let mut may: Vec<_> = sent[floor.unwrap_or(0).min(sent.len())..]
            .iter()
            .map(|write| write.content(offset))
            .collect();
        if floor.is_none() {
            may.push(vec![0; BLOCK as usize]);
        }
        let sectors =
            |bytes: &[u8]| bytes.chunks(SECTOR as usize).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let may: Vec<_> = may.iter().map(|content| sectors(content)).collect();
        for (i, sector) in sectors(bytes).iter().enumerate() {
            if may.iter().any(|content| content[i] == *sector) {
                continue;
            }
            // What else is it?
            let zeros = sector.iter().all(|&byte| byte == 0);
            let is = |write: &&Write| sectors(&write.content(offset))[i] == *sector;
            let older = writes.iter().find(is);
            let broken = match (older, zeros, promise) {
                (None, false, _) => "DUR-5: what nobody wrote there",
                (_, _, Promise::Flushed) => "DUR-1, DUR-2: not what was flushed, nor newer",
                (_, _, Promise::Acknowledged) => "DUR-3: not what was acknowledged, nor newer",
            };
            let must = floor.map(|floor| &writes[floor]);
            return Err(format!(
                "{broken}: block at {offset}, sector {i}, cut at {at}: holds {older:?} \
                 (zeros: {zeros}), must hold {must:?} or one of {} later writes",
                may.len() - 1
            ));
        }
        Ok(())
    }
}

/// # Panics
/// If a block holds something else than before.
pub fn assert_same(client: &mut Client, found: &Found) {
    for (&offset, bytes) in found {
        let now = client.read(offset, BLOCK as u32);
        let now = now.unwrap_or_else(|lost| panic!("read at {offset}: {lost}"));
        assert!(now == *bytes, "DUR-5: block at {offset} has changed by itself");
    }
}

/// A request without an answer.
enum Sent {
    /// To these blocks.
    Write(Vec<u64>),
    Flush(At),
}

/// Sends so many requests, of every kind that changes something, and notes what becomes of them.
///
/// # Panics
/// If one fails.
pub fn write(client: &mut Client, disk: &FaultDisk, requests: u64, seed: u64) -> History {
    let mut history = History::default();
    let mut random = Random::new(seed);
    let mut in_flight: BTreeMap<u64, Sent> = BTreeMap::new();
    let mut left = requests;
    while left > 0 || !in_flight.is_empty() {
        while left > 0 && in_flight.len() < DEPTH {
            let busy = |blocks: &[u64]| {
                let writes = blocks.iter().filter_map(|block| history.blocks.get(block)?.last());
                writes.into_iter().any(|write| write.acked.is_none())
            };
            let kind = random.below(100);
            let blocks = choose(&mut random, client.size);
            if busy(&blocks) {
                // Also lets the client look at answers, if all that is hot is busy.
                break;
            }
            left -= 1;
            let sent = disk.stamp();
            if kind < 2 {
                let cookie = client.send(&Ask::Flush).expect("sent");
                in_flight.insert(cookie, Sent::Flush(sent));
                continue;
            }
            let zeros = kind < 6;
            let fua = (6..8).contains(&kind);
            let mut bytes = Vec::new();
            for &block in &blocks {
                history.last_sequence += 1;
                let sequence = (!zeros).then_some(history.last_sequence);
                let write = Write { sequence, fua, sent, acked: None };
                bytes.extend(write.content(block));
                history.blocks.entry(block).or_default().push(write);
            }
            let (offset, len) = (blocks[0], bytes.len() as u32);
            let ask = match (zeros, fua) {
                (true, _) if kind.is_multiple_of(2) => Ask::Trim(offset, len),
                (true, _) => Ask::WriteZeroes(offset, len),
                (false, true) => Ask::WriteFua(offset, &bytes),
                (false, false) => Ask::Write(offset, &bytes),
            };
            let cookie = client.send(&ask).expect("sent");
            in_flight.insert(cookie, Sent::Write(blocks));
        }
        if in_flight.is_empty() {
            continue;
        }
        let (cookie, answer) = client.receive().expect("answered");
        let at = disk.stamp();
        answer.expect("done");
        match in_flight.remove(&cookie).expect("the client knows its cookies") {
            Sent::Flush(sent) => history.flushes.push((sent, at)),
            Sent::Write(blocks) => {
                for block in blocks {
                    let writes = history.blocks.get_mut(&block).expect("sent before");
                    writes.last_mut().expect("sent before").acked = Some(at);
                }
            }
        }
    }
    history
}

/// A few blocks in a row: half of the time of few, so that they are written again and again.
fn choose(random: &mut Random, size: u64) -> Vec<u64> {
    let (regions, blocks) = (size.div_ceil(STRIDE), REGION / BLOCK);
    let region = random.below(regions) * STRIDE;
    let choice = if random.below(2) == 0 { 8 } else { blocks };
    let first = random.below(choice);
    let len = (1 + random.below(LONGEST)).min(blocks - first);
    (first..first + len).map(|block| region + block * BLOCK).collect()
}

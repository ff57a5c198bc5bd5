//! MD-2, MD-3 of the ring alone: what a hole, rot, or a lost write makes of it.

use crate::codec::Sector;
use crate::journal::{
    Journal, LogSector, NO_EXTENT, Recovered, Ring, SEQUENCE_LIMIT, UPDATES, least_sectors,
    longest_batch, window,
};
use std::vec;
use std::vec::Vec;

/// A ring on a disk, with the table it should hold.
#[derive(Clone)]
struct Disk {
    ring: Ring,
    journal: Journal,
    sectors: Vec<Sector>,
    table: Vec<u32>,
    /// The generator of everything random here.
    seed: u64,
}

impl Disk {
    fn new(slots: u32, spare: u32) -> Self {
        let sectors = least_sectors(slots) + spare;
        let ring = Ring { device_uuid: 3, sectors, slots, extents: 1 << 20 };
        let (journal, written) = Journal::format(ring);
        let mut disk = Self {
            ring,
            journal,
            sectors: vec![[0; 512]; sectors as usize],
            table: vec![NO_EXTENT; slots as usize],
            seed: 1,
        };
        disk.write(&written);
        disk
    }

    fn write(&mut self, sectors: &[(u32, Sector)]) {
        for (position, sector) in sectors {
            self.sectors[*position as usize] = *sector;
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) as u32 % below
    }

    /// A batch that changes `count` slots, not yet written.
    fn batch(&mut self, count: u32) -> Vec<Vec<(u32, Sector)>> {
        let first = self.random(self.ring.slots);
        let mut updates = Vec::new();
        for n in 0..count {
            let slot = ((first + n) % self.ring.slots) as u16;
            let extent = if self.random(4) == 0 { NO_EXTENT } else { self.random(1 << 20) };
            self.table[usize::from(slot)] = extent;
            updates.push((slot, extent));
        }
        updates.sort_unstable();
        let table = self.table.clone();
        self.journal.append(&updates, &table)
    }

    fn commit(&mut self, count: u32) {
        for stage in self.batch(count) {
            self.write(&stage);
        }
    }

    fn decoded(&self) -> Vec<Option<LogSector>> {
        let decode = |n: u32| self.ring.decode(&self.sectors[n as usize], n);
        (0..self.ring.sectors).map(decode).collect()
    }

    fn recover(&self) -> Recovered {
        Journal::recover(self.ring, &self.decoded(), 0)
    }
}

#[test]
fn a_ring_that_came_round_often_holds_the_table() {
    for (slots, spare) in [(1, 0), (4, 0), (23, 3), (24, 0), (25, 1), (60, 0), (61, 0), (300, 7)] {
        let mut disk = Disk::new(slots, spare);
        for round in 0..disk.ring.sectors * 5 {
            let count = 1 + disk.random(slots);
            disk.commit(count);
            let recovered = disk.recover();
            assert!(!recovered.lost, "{slots} slots, round {round}");
            assert_eq!(recovered.table, disk.table, "{slots} slots, round {round}");
            assert_eq!(recovered.journal.next_sequence(), disk.journal.next_sequence());
            assert!(!recovered.journal.needs_repair());
        }
    }
}

#[test]
fn each_slot_of_an_unfinished_batch_is_old_or_new_and_the_hole_is_filled() {
    let slots = 300; // five sectors
    let mut disk = Disk::new(slots, 0);
    for _ in 0..100 {
        disk.commit(250);
    }
    let before = disk.clone();
    let stages = disk.batch(slots);
    assert_eq!(stages.len(), 1);
    let batch = &stages[0];
    assert_eq!(batch.len(), slots as usize / UPDATES);
    for subset in 0..1 << batch.len() {
        let mut torn = before.clone();
        for (n, sector) in batch.iter().enumerate() {
            if subset >> n & 1 == 1 {
                torn.write(&[*sector]);
            }
        }
        let recovered = torn.recover();
        assert!(!recovered.lost, "subset {subset:b}");
        for slot in 0..slots as usize {
            let found = recovered.table[slot];
            assert!(found == before.table[slot] || found == disk.table[slot], "slot {slot}");
        }
        // Go on from there, more often than the ring is long, crash at every commit.
        torn.journal = recovered.journal;
        torn.table = recovered.table;
        for round in 0..torn.ring.sectors * 2 {
            let count = 1 + torn.random(slots);
            torn.commit(count);
            let again = torn.recover();
            assert!(!again.lost, "subset {subset:b}, round {round}");
            assert_eq!(again.table, torn.table, "subset {subset:b}, round {round}");
        }
    }
}

#[test]
fn rot_where_it_matters_loses_the_log_and_elsewhere_is_repaired() {
    let slots = 130;
    let mut disk = Disk::new(slots, 20);
    for _ in 0..57 {
        disk.commit(3);
    }
    let last = disk.journal.next_sequence() - 1;
    let mut harmless = 0;
    for position in 0..disk.ring.sectors {
        let mut sectors = disk.decoded();
        let age = last - sectors[position as usize].as_ref().expect("it is good").sequence;
        sectors[position as usize] = None;
        let recovered = Journal::recover(disk.ring, &sectors, 0);
        // The newest itself is a batch that the one before knows nothing of; that must show too.
        let behind = u64::from(disk.ring.sectors) - age; // how far it is ahead of the newest
        let matters = age <= window(slots) || behind <= longest_batch(slots);
        assert_eq!(recovered.lost, matters, "position {position}, age {age}");
        if !matters {
            harmless += 1;
            assert_eq!(recovered.table, disk.table);
            assert!(recovered.journal.needs_repair());
            let mut repaired = disk.clone();
            repaired.sectors[position as usize] = [0xee; 512];
            repaired.journal = recovered.journal;
            repaired.commit(1);
            for _ in 0..disk.ring.sectors * 2 {
                assert!(!repaired.recover().lost);
                repaired.commit(1);
            }
        }
    }
    assert!(harmless >= 15, "{harmless}");
}

#[test]
fn a_lost_write_before_the_last_batch_shows() {
    let slots = 130;
    let mut disk = Disk::new(slots, 0);
    for _ in 0..40 {
        disk.commit(70);
    }
    for _ in 0..window(slots) / 2 {
        let before = disk.sectors.clone();
        disk.commit(70);
        let lost: Vec<usize> =
            (0..before.len()).filter(|&n| before[n] != disk.sectors[n]).collect();
        assert_eq!(lost.len(), 2);
        let mut later = disk.clone();
        later.commit(1);
        for position in lost {
            let mut liar = later.clone();
            liar.sectors[position] = before[position];
            assert!(liar.recover().lost, "position {position}");
        }
    }
}

#[test]
fn a_fresh_ring_has_used_a_number_for_each_of_its_sectors() {
    let disk = Disk::new(10, 0);
    let newest = disk.decoded().into_iter().flatten().map(|sector| sector.sequence).max();
    assert_eq!(newest, Some(u64::from(disk.ring.sectors)));
    assert_eq!(Some(disk.journal.next_sequence() - 1), newest, "a number is never used twice");
}

#[test]
fn a_floor_above_the_ring_loses_the_log() {
    let mut disk = Disk::new(10, 0);
    disk.commit(2);
    let next = disk.journal.next_sequence();
    assert!(!Journal::recover(disk.ring, &disk.decoded(), next).lost);
    let recovered = Journal::recover(disk.ring, &disk.decoded(), next + 1);
    assert!(recovered.lost);
    assert!(recovered.journal.next_sequence() > next, "a number is never used twice");
}

#[test]
fn a_lost_ring_is_made_anew_and_any_part_of_that_is_lost_or_empty() {
    let mut disk = Disk::new(61, 2);
    for _ in 0..40 {
        disk.commit(7);
    }
    for bad in [1, disk.ring.sectors / 2, disk.ring.sectors] {
        let mut rotten = disk.clone();
        let newest = disk.ring.position(disk.journal.next_sequence() - 1);
        for n in 0..bad {
            let position = (newest + disk.ring.sectors - n) % disk.ring.sectors;
            rotten.sectors[position as usize] = [0; 512];
        }
        let recovered = rotten.recover();
        assert!(recovered.lost && recovered.table.iter().all(|&extent| extent == NO_EXTENT));
        rotten.journal = recovered.journal;
        rotten.table = recovered.table;
        let stages = rotten.batch(5);
        assert_eq!(stages.len(), 2);
        for (n, stage) in stages.iter().enumerate() {
            for (done, &sector) in stage.iter().enumerate() {
                let all = n == 1 && done + 1 == stage.len();
                rotten.write(&[sector]);
                let recovered = rotten.recover();
                // The caller has filled the bitmaps by now: any answer but a panic is safe until
                // the end, and then it must be the right one.
                if all {
                    assert!(!recovered.lost && recovered.table == rotten.table);
                }
            }
        }
        for _ in 0..disk.ring.sectors * 2 {
            rotten.commit(2);
            assert!(!rotten.recover().lost);
        }
    }
}

/// Valid sectors that no program of ours wrote: no loop as long as their numbers are large.
#[test]
fn forged_sectors_lose_the_log() {
    let mut disk = Disk::new(30, 0);
    for _ in 0..20 {
        disk.commit(3);
    }
    let next = disk.journal.next_sequence();
    let ring = disk.ring;
    for (sequence, batch_start) in [
        (next + u64::from(ring.sectors) * 1000, next - 1),
        (SEQUENCE_LIMIT, next - 1),
        (SEQUENCE_LIMIT, SEQUENCE_LIMIT),
        (SEQUENCE_LIMIT, 0),
        (next + 3, 0),
    ] {
        let mut forged = disk.clone();
        let sector = ring.encode(sequence, batch_start, &[], &disk.table);
        forged.write(&[(ring.position(sequence), sector)]);
        assert!(forged.recover().lost, "{sequence} of a batch from {batch_start}");
    }
    let beyond = ring.encode(SEQUENCE_LIMIT + 1, next, &[], &disk.table);
    assert_eq!(ring.decode(&beyond, ring.position(SEQUENCE_LIMIT + 1)), None);
}

/// What a slot or an extent may be ends where the table and the device end, for updates and for context.
#[test]
fn a_sector_that_names_what_there_is_not_is_no_sector_of_ours() {
    let disk = Disk::new(30, 0);
    let (ring, position) = (disk.ring, disk.ring.position(7));
    let last = (u16::try_from(ring.slots).expect("few") - 1, ring.extents - 1);
    let decoded = |updates: &[(u16, u32)], table: &[u32]| {
        ring.decode(&ring.encode(7, 7, updates, table), position)
    };
    let updates = [last, (0, NO_EXTENT)];
    let sector = decoded(&updates, &disk.table).expect("these there are");
    assert_eq!(sector.updates, updates);
    assert_eq!(decoded(&[(last.0 + 1, last.1)], &disk.table), None);
    assert_eq!(decoded(&[(last.0, last.1 + 1)], &disk.table), None);
    let mut table = disk.table.clone();
    table.fill(last.1);
    assert!(decoded(&[], &table).is_some());
    table.fill(last.1 + 1);
    assert_eq!(decoded(&[], &table), None);
}

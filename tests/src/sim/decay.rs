//! Metadata that changes while no process runs: is it noticed, and does what is found then cover what was there? (MD-2, MD-3)

use super::disks::opened;
use super::meta_area::Decay;
use super::world::World;
use bitmap::{Metadata, Opened};

impl World {
    /// Some sector, and what becomes of it.
    pub(super) fn some_decay(&mut self, n: usize, v: usize) -> (u64, Decay) {
        let al_sectors = self.knobs.al_sectors;
        let meta = &self.volumes[v].disks.0[n].meta;
        let at = meta.some_sector(al_sectors, &mut self.rng);
        let decay = match self.rng.below(5) {
            0 => Decay::Unreadable,
            1 => Decay::Flipped { bit: self.rng.below(4096) as u16 },
            2 => Decay::Strayed { from: meta.some_sector(al_sectors, &mut self.rng) },
            _ => Decay::Lost,
        };
        // Of a superblock the whole copy is written, or not.
        (if decay == Decay::Lost && meta.is_superblock(at) { at / 4096 * 4096 } else { at }, decay)
    }

    /// A sector of a disk that nobody uses changes.
    pub(super) fn decay(&mut self, n: usize, v: usize, at: u64, decay: Decay) {
        if self.hosts[n].running() {
            return;
        }
        let (log, al_slots) = (self.knobs.al_sectors, self.knobs.al_slots);
        let disk = &mut self.volumes[v].disks.0[n];
        let log = disk.meta.log(log);
        if !disk.meta.may(at, decay, log, al_slots) {
            return;
        }
        let Ok(before) = opened(disk) else { return };
        if !disk.meta.decay(at, decay) {
            return;
        }
        let after = match opened(disk) {
            Ok(after) => after,
            Err(refused) => {
                let story =
                    format!("node {n} refuses its metadata after {decay:?} at {at}: {refused}");
                return self.violate("MD-1", story);
            }
        };
        let whole = |opened: &Opened| !opened.repaired && !opened.log_lost && opened.bad_units == 0;
        if whole(&before) && whole(&after) {
            if at >= log {
                let story = format!("node {n}, metadata at {at} {decay:?}: nobody noticed");
                return self.violate("MD-3", story);
            }
            // Of a bitmap much is not read.
            let same = same(&before.metadata, &after.metadata, false);
            return self.violate_unless("MD-3", same, n, at, decay);
        }
        disk.meta.noticed(at);
        let what = match (decay, disk.meta.is_superblock(at), at >= log) {
            (Decay::Lost, true, _) => "metadata: the writing of a superblock copy was lost",
            (Decay::Lost, _, true) => "metadata: a write to the log was lost",
            (Decay::Lost, ..) => "metadata: a write to a bitmap was lost",
            (Decay::Strayed { .. }, ..) => "metadata: a write strayed",
            (_, true, _) => "disk: a superblock copy decayed",
            (_, _, true) => "metadata: a sector of the log decayed",
            _ => "metadata: a sector of a bitmap decayed",
        };
        if whole(&before) {
            self.counters.mark(what);
            if after.log_lost {
                self.counters.mark("metadata: the log was not believed");
            }
        }
        let covered = same(&before.metadata, &after.metadata, true);
        self.violate_unless("MD-2", covered, n, at, decay);
    }

    /// What decayed and is relied upon still, though the disk was attached since.
    pub(super) fn still_decayed(&mut self, n: usize, v: usize) -> Option<u64> {
        let al_sectors = self.knobs.al_sectors;
        let disk = self.disk(n, v);
        let log = disk.meta.log(al_sectors);
        let at = disk.meta.decayed()?;
        if at < log && opened(disk).is_ok_and(|opened| opened.bad_units == 0) {
            // No summary vouches for it any more.
            disk.meta.forget(at);
            return None;
        }
        Some(at)
    }

    fn violate_unless(
        &mut self,
        invariant: &'static str,
        held: Result<(), String>,
        n: usize,
        at: u64,
        decay: Decay,
    ) {
        if let Err(why) = held {
            let story = format!("node {n}, metadata at {at} {decay:?}: {why}");
            self.violate(invariant, story);
        }
    }
}

/// Both say the same; or, if more will do, the second marks all that the first does.
fn same(before: &Metadata, after: &Metadata, more_will_do: bool) -> Result<(), String> {
    let (old, new) = (before.superblock(), after.superblock());
    let told = |block: &bitmap::Superblock| {
        let slots: Vec<_> = block.slots.iter().map(|s| (s.kind, s.flags, s.bitmap_uuid)).collect();
        (block.current, block.history, block.flags, block.members, slots)
    };
    if told(old) != told(new) {
        return Err(format!("{:?} became {:?}", told(old), told(new)));
    }
    for slot in 0..old.slots.len() {
        let (old, new) = (before.bits(slot), after.bits(slot));
        let everything = new.all(0..new.len());
        let gone = before.active_extents().find(|&extent| !after.is_active(extent));
        if let Some(extent) = gone.filter(|_| !everything) {
            return Err(format!("extent {extent} was active"));
        }
        let (olds, news) = (old.count(), new.count());
        if let Some(run) = old.runs().find(|run| !new.all(run.clone())) {
            return Err(format!("blocks {run:?} were marked; {olds} were, {news} are"));
        }
        if !more_will_do && olds != news {
            return Err(format!("{olds} blocks were marked, {news} are"));
        }
    }
    Ok(())
}

//! The source's end of a resync: it flushes and clears what the target has flushed (COV-3), and at the end lets the target become UpToDate.
//! What the target does is in `resync.rs`; the reads it asks for, in `peer_op.rs`.

use super::Node;
use super::types::{DiskState, LinkId, VolumeNumber};
use super::waits::Then;
use crate::wire::{Message, ranges};
use alloc::vec::Vec;
use bitmap::ByteRange;

impl Node {
    pub(super) fn sent_for_resync(&mut self, p: usize, v: usize, range: ByteRange, data: bool) {
        self.peers[p].volumes[v].progress.copied += range.len();
        if data {
            self.peers[p].sent_bytes += range.len();
        }
    }

    /// The target has these blocks stable: we flush, so that both have.
    pub(super) fn sync_commit(&mut self, p: usize, v: usize, id: u64, runs: Vec<(u64, u64)>) {
        let Some(link) = self.peers[p].link else {
            return;
        };
        if self.volumes[v].usable() {
            let wait = self.waits.open(Then::CommitAtSource { link, volume: v, id, runs });
            self.flush_local(v, wait);
        }
    }

    pub(super) fn commit_at_source(
        &mut self,
        link: LinkId,
        v: usize,
        id: u64,
        runs: &[(u64, u64)],
        ok: bool,
    ) {
        let Some(p) = self.peer_of(link).filter(|_| ok) else {
            return;
        };
        let Some(slot) = self.slot(p, v) else { return };
        let meta = self.volumes[v].meta.as_mut().expect("a slot is in the metadata");
        let blocks = meta.geometry().blocks();
        for run in ranges(runs) {
            meta.clear_bits(slot, run.start.min(blocks)..run.end.min(blocks));
        }
        meta.sync_bits();
        self.peers[p].volumes[v].source.asked = false;
        self.send(p, Message::SyncCommitted { id });
    }

    /// The target has no bit left.
    pub(super) fn sync_finish(&mut self, p: usize, v: usize) {
        let Some(link) = self.peers[p].link else {
            return;
        };
        let Some(slot) = self.slot(p, v) else { return };
        let node = self.peers[p].node;
        let good = self.volumes[v].good();
        let meta = self.volumes[v].meta.as_mut().expect("a slot is in the metadata");
        if !good || meta.bits(slot).count() > 0 {
            // Something is left on this side: the next handshake finds out what.
            self.restart_link(p, "bits are left at the end of the resync");
            return;
        }
        // From the grant on the target may hold our current generation. So its slot is rotated first, stably: a loss of
        // the link from then on mints (GI-2), and a target that missed the grant is known by what it was synchronised to.
        let ticket = meta.edit(|sb| sb.peer_in_sync(node));
        // It counts from now on, so that nothing is acknowledged without it while the slot says that nothing is missing.
        self.peers[p].volumes[v].granted = true;
        self.after_durable(v, ticket, Then::Grant { link, volume: v });
    }

    pub(super) fn grant(&mut self, link: LinkId, v: usize, ok: bool) {
        let Some(p) = self.peer_of(link).filter(|_| ok) else {
            return;
        };
        let sb = self.volumes[v].meta.as_ref().expect("a source has a disk").superblock();
        let (current, history) = (sb.current, sb.past());
        let volume = self.volumes[v].number;
        self.send(p, Message::SyncGrant { volume, current, history });
    }

    pub(super) fn peer_in_sync(
        &mut self,
        p: usize,
        volume: VolumeNumber,
    ) -> Result<(), &'static str> {
        let v = self.volume_index(volume).ok_or("a volume that does not exist")?;
        if !self.peers[p].volumes[v].granted {
            return Err("in sync without a grant");
        }
        self.peers[p].volumes[v].granted = false;
        self.peers[p].volumes[v].disk = DiskState::UpToDate;
        self.end_resync(p, v);
        if let Some(meta) = self.volumes[v].meta.as_mut()
            && meta.superblock().flags.crashed_primary
        {
            meta.edit(|sb| sb.flags.crashed_primary = false);
        }
        Ok(())
    }
}

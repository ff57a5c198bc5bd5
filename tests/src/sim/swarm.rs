//! The knobs of one seed. Each fault class is on in about half of the seeds; limits are small, because queues must fill
//! and the activity log must thrash to be tested.

use super::{Rng, volume};
use bitmap::{FormatParams, Layout, NodeId, Placement};
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::node::Protocol;
use replicator::wire::Integrity;

const MS: u64 = 1_000_000;

/// Faults that strike at random times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Kill,
    PowerCut,
    PowerCutBoth,
    CutLink,
    HalfOpen,
    Partition,
    Stall,
    Flap,
    Pause,
    DiskDies,
    DiskHangs,
    DiskSlow,
    Replace,
    Rot,
    /// Metadata anywhere.
    Decay,
    /// A machine and its clock stand still.
    Freeze,
    /// A clock goes forward.
    Leap,
    /// A disk is found after its node has started.
    DiskLate,
    /// A Primary loses power, and when it is back one of the two disks is away.
    Aftermath,
}

/// Those that any seed may have.
pub(super) const FAULTS: [Fault; 14] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutBoth,
    Fault::CutLink,
    Fault::HalfOpen,
    Fault::Partition,
    Fault::Stall,
    Fault::Flap,
    Fault::Pause,
    Fault::DiskDies,
    Fault::DiskHangs,
    Fault::DiskSlow,
    Fault::Replace,
    Fault::Rot,
];

/// Everything that is fixed for one seed.
#[derive(Clone, Debug)]
pub(super) struct Knobs {
    pub(super) protocol: Protocol,
    pub(super) flush_peer: bool,
    pub(super) suspend_no_data: bool,
    pub(super) fencing: Fencing,
    /// How often a handler asks its peer again.
    pub(super) fence_poll: u64,
    pub(super) auto_promote: bool,
    /// Whoever is promoted holds a lock.
    pub(super) leases: bool,
    pub(super) device_size: u64,
    pub(super) data_size: u64,
    pub(super) al_slots: u32,
    pub(super) al_sectors: u32,
    pub(super) extent_size: u32,
    pub(super) battery: bool,
    /// Writes of metadata may be lost.
    pub(super) forgets_writes: bool,
    /// Messages are encoded and decoded.
    pub(super) framed: Option<Integrity>,
    pub(super) timing: Timing,
    pub(super) limits: Limits,
    pub(super) rates: [u64; 2],
    pub(super) link_delay: (u64, u64),
    pub(super) disk_delay: (u64, u64),
    /// Mean time between strikes, per fault that is on.
    pub(super) faults: Vec<(Fault, u64)>,
    /// Failed operations per million: reads, writes, flushes.
    pub(super) eio: [u64; 3],
    pub(super) volumes: usize,
    pub(super) clients: usize,
    pub(super) depth: usize,
    pub(super) think: u64,
    pub(super) hot_blocks: u32,
    pub(super) longest: u32,
    pub(super) flush_percent: u64,
    pub(super) operator: Option<u64>,
    pub(super) cruel: bool,
    /// The cluster manager promotes a survivor.
    pub(super) failover: bool,
    pub(super) safety: u64,
    /// Events between two forks; 0: none.
    pub(super) fork_every: u64,
    /// A crash may fall between two actions of one batch.
    pub(super) split_batches: bool,
    /// A bug that tests put in: the nodes run A, whatever was promised.
    #[cfg(test)]
    pub(super) breaks_promise: bool,
}

impl Knobs {
    /// Draws them.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let longest = *rng.pick(&[8, 8, 32, 128]);
        let extent_size = *rng.pick(&[16 << 10, 64 << 10, 256 << 10]);
        // The log has room for the longest write, wherever it begins.
        let least = longest * 512 / extent_size + 2;
        let al_slots = if rng.percent(70) { rng.between(2, 7) as u32 } else { 32 }.max(least);
        let data = rng.between(48, 512) * 4096;
        let al_sectors = *rng.pick(&[32, 64, 128]);
        let device_size = data + (128 << 10) + u64::from(al_sectors) * 512;
        let layout =
            Layout::new(Placement::Internal, device_size, None, 1, al_slots, al_sectors, 4096)
                .expect("the layout of a small device");
        let timing = Timing {
            ping_interval: rng.between(200, 1500),
            ping_timeout: rng.between(100, 800),
            reconnect_min: rng.between(10, 200),
            reconnect_max: rng.between(200, 2000),
            connect_wait: rng.between(1000, 10_000),
            handshake: rng.between(2000, 10_000),
            checkpoint: rng.between(50, 2000),
            fence_retry: 5000,
        };
        let small = rng.percent(50);
        let limits = if small {
            Limits {
                requests: rng.between(1, 8) as usize,
                peer_bytes: rng.between(64 << 10, 512 << 10),
                target_bytes: rng.between(16 << 10, 256 << 10),
                unflushed: rng.between(1, 16) as usize,
                resync_bytes: rng.between(64 << 10, 256 << 10),
                resync_bytes_beside_clients: rng.between(4 << 10, 64 << 10),
                piece_bytes: *rng.pick(&[8 << 10, 32 << 10, 64 << 10]),
                extents_per_request: rng.between(1, 2) as u32,
                resync_commit_blocks: rng.between(1, 32),
                compare_unit: rng.between(1, 4),
                bitmap_runs: rng.between(1, 8) as usize,
            }
        } else {
            Limits { extents_per_request: al_slots.min(8), ..Limits::default() }
        };
        let slow_disk = rng.spread(MS / 100, 10 * MS);
        let slow_link = rng.spread(MS / 50, 20 * MS);
        let mut faults = Vec::new();
        for fault in FAULTS {
            if rng.percent(40) {
                let mean = match fault {
                    Fault::DiskDies | Fault::DiskHangs | Fault::Replace => {
                        rng.between(8000, 40_000)
                    }
                    Fault::CutLink | Fault::Kill => rng.spread(400, 20_000),
                    _ => rng.spread(1000, 30_000),
                };
                faults.push((fault, mean * MS));
            }
        }
        let eio = if rng.percent(25) {
            [rng.below(2000), rng.below(1000), rng.below(3000)]
        } else {
            [0; 3]
        };
        Self {
            protocol: *rng.pick(&[Protocol::C, Protocol::C, Protocol::A, Protocol::B]),
            flush_peer: !rng.one_in(10),
            suspend_no_data: rng.percent(50),
            fencing: Fencing::DontCare,
            fence_poll: 20 * MS,
            auto_promote: rng.one_in(4),
            leases: false,
            device_size,
            data_size: layout.data_size(),
            al_slots,
            al_sectors,
            extent_size,
            battery: rng.one_in(10),
            forgets_writes: false,
            framed: None,
            timing,
            limits,
            rates: [rng.between(950_000, 1_050_000), rng.between(950_000, 1_050_000)],
            link_delay: (slow_link / 4, slow_link),
            disk_delay: (slow_disk / 8, slow_disk),
            faults,
            eio,
            volumes: 1,
            clients: rng.between(1, 3) as usize,
            depth: *rng.pick(&[1, 1, 2, 4, 16]),
            think: rng.spread(MS / 10, 60 * MS),
            hot_blocks: rng.between(1, 64) as u32,
            longest,
            flush_percent: *rng.pick(&[1, 3, 3, 10]),
            operator: rng.percent(50).then(|| rng.between(500, 8000) * MS),
            cruel: rng.one_in(10),
            failover: rng.percent(70),
            safety: rng.between(5000, 30_000) * MS,
            fork_every: *rng.pick(&[150, 300, 600, 2000]),
            split_batches: rng.percent(70),
            #[cfg(test)]
            breaks_promise: false,
        }
    }

    /// Clients write so seldom that an operator can part and join the nodes with nothing written between.
    pub(super) fn hush(&mut self, rng: &mut Rng) {
        self.think = rng.spread(300 * MS, 5000 * MS);
        self.operator = Some(rng.between(200, 2000) * MS);
        self.fork_every = self.fork_every.min(300);
    }

    /// Two volumes, each used by somebody, of which now one and now the other is not whole.
    pub(super) fn double(&mut self, rng: &mut Rng) {
        self.volumes = 2;
        self.clients += 1;
        self.limits.bitmap_runs = *rng.pick(&[1, 1, 2, 8]);
        self.operator = Some(rng.between(300, 3000) * MS);
        self.faults.push((Fault::Replace, rng.between(3000, 10_000) * MS));
        self.fork_every = self.fork_every.min(300);
        self.faults.push((Fault::Partition, rng.between(3000, 10_000) * MS));
        self.failover = true;
        if rng.percent(50) {
            // A resync takes its time.
            (self.limits.resync_bytes, self.limits.piece_bytes) = (64 << 10, 8 << 10);
        } else {
            // A volume is not written for a while, and the other is.
            self.think = self.think.max(rng.spread(20 * MS, 1000 * MS));
        }
    }

    /// Nobody goes on without the other before that is fenced; and they lose each other often.
    pub(super) fn fence(&mut self, fencing: Fencing, rng: &mut Rng) {
        self.fencing = fencing;
        if fencing == Fencing::ResourceAndStonith && self.protocol == Protocol::A {
            self.protocol = Protocol::C;
        }
        self.faults.push((Fault::Partition, rng.between(2000, 10_000) * MS));
        self.failover = true;
    }

    /// More of what the other seeds have too little of: processes that sleep while the other node takes over, connections cut in the
    /// middle, disks that fail now and then.
    pub(super) fn harden(&mut self, rng: &mut Rng) {
        self.failover = true;
        self.faults.push((Fault::Pause, rng.between(2000, 8000) * MS));
        self.faults.push((Fault::CutLink, rng.spread(300, 5000) * MS));
        self.faults.push((Fault::Rot, rng.between(1000, 10_000) * MS));
        if rng.percent(50) {
            self.eio = [rng.below(20_000), rng.below(2000), rng.below(5000)];
        }
        if rng.percent(30) {
            self.faults.push((Fault::DiskHangs, rng.between(2000, 10_000) * MS));
            self.faults.push((Fault::DiskDies, rng.between(4000, 20_000) * MS));
        }
    }

    /// Machines that are less sound than most: metadata decays anywhere, disks are found late, clocks
    /// leap and stand, connections are made of bytes.
    pub(super) fn unsound(&mut self, rng: &mut Rng) {
        self.forgets_writes = true;
        self.faults.push((Fault::Decay, rng.between(300, 5000) * MS));
        self.faults.push((Fault::Kill, rng.between(1000, 10_000) * MS));
        self.faults.push((Fault::DiskLate, rng.between(500, 5000) * MS));
        self.faults.push((Fault::Leap, rng.between(1000, 20_000) * MS));
        if !self.leases {
            // A lease relies on a clock that goes on.
            self.faults.push((Fault::Freeze, rng.between(2000, 20_000) * MS));
        }
        self.framed = match rng.below(8) {
            0 => Some(Integrity::None),
            1 => Some(Integrity::Crc32),
            _ => None,
        };
    }

    /// A crashed Primary meets its survivor again, which nobody has promoted, and a disk is missing.
    pub(super) fn aftermath(&mut self, rng: &mut Rng) {
        (self.failover, self.auto_promote) = (false, false);
        self.faults.push((Fault::Aftermath, rng.between(2000, 8000) * MS));
    }

    /// A lock decides who is Primary.
    pub(super) fn lease(&mut self) {
        self.leases = true;
        self.auto_promote = false;
        self.failover = true;
    }

    /// Everything quiet and kind: for stories, and for the search of a small scope.
    pub(super) fn calm(protocol: Protocol) -> Self {
        let mut rng = Rng::new(1);
        let mut knobs = Self::draw(&mut rng);
        knobs.protocol = protocol;
        knobs.flush_peer = true;
        knobs.suspend_no_data = false;
        knobs.auto_promote = false;
        knobs.battery = false;
        knobs.timing = Timing::default();
        knobs.limits = Limits { extents_per_request: 2, ..Limits::default() };
        knobs.rates = [1_000_000; 2];
        knobs.link_delay = (MS / 10, MS / 5);
        knobs.disk_delay = (MS / 20, MS / 10);
        knobs.faults.clear();
        knobs.eio = [0; 3];
        knobs.clients = 0;
        knobs.operator = None;
        knobs.cruel = false;
        knobs.failover = false;
        knobs.fork_every = 0;
        knobs.split_batches = false;
        knobs
    }

    /// So many extents of so many bytes, and room for so many in the log.
    pub(super) fn shrink(&mut self, extents: u64, extent_size: u32, al_slots: u32) {
        (self.extent_size, self.al_slots, self.al_sectors) = (extent_size, al_slots, 32);
        let data_of = |size| {
            let (slots, sectors) = (self.al_slots, self.al_sectors);
            Layout::new(Placement::Internal, size, None, 1, slots, sectors, 4096)
                .expect("the layout of a small device")
                .data_size()
        };
        let data = extents * u64::from(extent_size);
        let ample = data + (256 << 10);
        self.device_size = ample - (data_of(ample) - data);
        self.data_size = data_of(self.device_size);
        assert_eq!(self.data_size, data, "metadata of a small device always take the same");
    }

    /// A node's configuration.
    pub(super) fn config(&self, node: usize) -> Config {
        let id = |n: usize| NodeId(n as u8);
        Config {
            node: id(node),
            volumes: (0..self.volumes)
                .map(|v| VolumeConfig {
                    number: volume::number(v),
                    placement: Placement::Internal,
                    size: 0,
                })
                .collect(),
            peers: vec![id(1 - node)],
            #[cfg(not(test))]
            protocol: self.protocol,
            #[cfg(test)]
            protocol: if self.breaks_promise { Protocol::A } else { self.protocol },
            flush_peer: self.flush_peer,
            suspend_no_data: self.suspend_no_data,
            fencing: self.fencing,
            auto_promote: self.auto_promote,
            timing: self.timing,
            limits: self.limits,
        }
    }

    /// What create-md makes on a node's disk.
    pub(super) fn format(&self, node: usize, device_uuid: u64) -> FormatParams {
        FormatParams {
            placement: Placement::Internal,
            device_size: self.device_size,
            data_size: None,
            size: None,
            node_id: NodeId(node as u8),
            device_uuid,
            slots: vec![NodeId(1 - node as u8)],
            al_slots: self.al_slots,
            al_sectors: self.al_sectors,
            block_size: 4096,
            extent_size: self.extent_size,
            logical_block_size: 512,
        }
    }
}

//! LIM: a peer that has proved who it is and sends without end. What it makes us hold has a bound, whatever our disk does
//! meanwhile; what is beyond ends the link. Reads, and what is sent and not taken, are bounded in the link (`tests/link`).

use bitmap::{ByteRange, Bytes, FormatParams, MetaWrite, Metadata, NodeId, Placement};
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::digest::Digest;
use replicator::node::{
    Action, Backing, BufferId, Command, CommandId, DiskDone, DiskOp, Event, LinkEvent, LinkId,
    Node, OpenId, Protocol, Request, RequestId, RequestOp, Role, Time,
};
use replicator::wire::{Agreed, Content, Message, PeerWrite, VolumeVerdict};

const US: NodeId = NodeId(0);
const PEER: NodeId = NodeId(1);
const DEVICE: u64 = 64 << 20;
const SOURCE: VolumeVerdict = VolumeVerdict::Source { full: false };
const TARGET: VolumeVerdict = VolumeVerdict::Target { full: false };

/// A node whose disk carries out metadata and nothing else, and its only peer, in our hands.
struct Host {
    node: Node,
    image: Vec<u8>,
    link: LinkId,
    actions: Vec<Action>,
    /// Named by us and not released.
    buffers: u64,
    named: u64,
    closed: bool,
    connected: bool,
    /// Operations on data, and refused reads.
    read: u64,
    refused: u64,
    /// Clients' requests that were answered.
    answered: u64,
}

impl Host {
    fn new() -> Self {
        let mut host = Self::attached();
        host.connect();
        host
    }

    /// The source of a resync.
    fn source() -> Self {
        let mut host = Self::attached();
        host.handle(Event::Admin(CommandId(3), Command::Primary { force: true }));
        host.connect();
        host
    }

    fn attached() -> Self {
        let params = FormatParams {
            placement: Placement::Internal,
            device_size: DEVICE,
            data_size: None,
            size: None,
            node_id: US,
            device_uuid: 7,
            slots: vec![PEER],
            al_slots: 67,
            al_sectors: 256,
            block_size: 4096,
            extent_size: 1 << 20,
            logical_block_size: 512,
        };
        let config = Config {
            node: US,
            volumes: vec![VolumeConfig { number: 0, placement: Placement::Internal, size: 0 }],
            peers: vec![PEER],
            protocol: Protocol::C,
            flush_peer: true,
            suspend_no_data: false,
            fencing: Fencing::DontCare,
            auto_promote: false,
            timing: Timing::default(),
            limits: Limits::default(),
        };
        let mut host = Self {
            node: Node::new(config, Time(0), 42),
            image: vec![0; DEVICE as usize],
            link: LinkId(0),
            actions: vec![],
            buffers: 0,
            named: 0,
            closed: false,
            connected: false,
            read: 0,
            refused: 0,
            answered: 0,
        };
        let (_, stages) = Metadata::format(params).expect("it fits");
        stages.into_iter().flatten().for_each(|write| host.write(&write));
        let backing = Backing { data_size: DEVICE, meta_size: None };
        host.handle(Event::Admin(CommandId(1), Command::Attach(0, backing)));
        host
    }

    fn connect(&mut self) {
        let connect = Command::Connect { discard_my_data: false };
        self.handle(Event::Admin(CommandId(2), connect));
        self.handle(Event::Link(self.link, LinkEvent::Up { incarnation: 99 }));
        assert!(self.connected, "shaken hands");
    }

    fn write(&mut self, write: &MetaWrite) {
        let at = write.offset as usize;
        match &write.bytes {
            Bytes::Data(bytes) => self.image[at..at + bytes.len()].copy_from_slice(bytes),
            Bytes::Zeros(len) => self.image[at..at + *len as usize].fill(0),
        }
    }

    /// The peer says what we say, mirrored, and is a Secondary.
    fn answer(&mut self, message: Message) {
        let reply = match message {
            Message::Facts(mut facts) => {
                (facts.node, facts.incarnation, facts.role) = (PEER, 99, Role::Secondary);
                Message::Facts(facts)
            }
            Message::Agreed(Agreed::Go(verdicts)) if verdicts == [SOURCE] => {
                Message::Agreed(Agreed::Go(vec![TARGET]))
            }
            Message::Agreed(agreed) => Message::Agreed(agreed),
            Message::Ready { currents } => {
                self.connected = true;
                Message::Ready { currents }
            }
            Message::ReadData { buffer: None, .. } => {
                self.refused += 1;
                return;
            }
            _ => return,
        };
        self.handle(Event::Peer(self.link, reply));
    }

    fn handle(&mut self, event: Event) {
        self.node.handle(Time(1), event, &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Disk { io, op, .. } => match op {
                    DiskOp::ReadMeta(ranges) => {
                        let read = |&(at, len): &(u64, u32)| {
                            Ok(self.image[at as usize..][..len as usize].to_vec())
                        };
                        let read = ranges.iter().map(read).collect();
                        self.handle(Event::Disk(io, Ok(DiskDone::Meta(read))));
                    }
                    DiskOp::WriteMeta(writes) => {
                        writes.iter().for_each(|write| self.write(write));
                        self.handle(Event::Disk(io, Ok(DiskDone::Ok)));
                    }
                    // While hands are shaken; later the disk hangs.
                    DiskOp::Flush if !self.connected => {
                        self.handle(Event::Disk(io, Ok(DiskDone::Ok)));
                    }
                    DiskOp::Digest { .. } => self.read += 1,
                    _ => {}
                },
                Action::Connect(link, _) => self.link = link,
                Action::Close(_) => self.closed = true,
                Action::Send(_, message) => self.answer(message),
                Action::Release(_) => self.buffers -= 1,
                Action::Reply(..) => self.answered += 1,
                _ => {}
            }
        }
    }

    fn name(&mut self) -> BufferId {
        self.buffers += 1;
        self.named += 1;
        BufferId(self.named)
    }

    fn write_of(&mut self, dagtag: u64, len: u64) -> Message {
        Message::Write(PeerWrite {
            volume: 0,
            range: ByteRange::new((dagtag % 8) << 22, len),
            content: Content::Data(self.name()),
            fua: false,
            author: PEER,
            dagtag,
            epoch: 1,
            want_received: false,
        })
    }

    /// How many of these messages are taken before the link is closed.
    fn taken(mut self, message: impl Fn(&mut Self, u64) -> Message) -> (u64, Self) {
        for n in 0..1_000_000 {
            let message = message(&mut self, n);
            self.handle(Event::Peer(self.link, message));
            if self.closed {
                return (n, self);
            }
        }
        panic!("it takes everything");
    }
}

#[test]
fn writes_without_end() {
    const LARGE: u64 = 4 << 20;
    // Half of what may be held is more than a peer of the largest `max-buffers` (131072 pages) has under way.
    let large = (1 << 30) / LARGE - 1;
    let (taken, host) = Host::new().taken(|host, n| {
        // A small one counts as a page.
        let len = if n < large { LARGE } else { 512 };
        host.write_of(n, len)
    });
    assert_eq!(taken, large + LARGE / 4096);
    assert_eq!(host.buffers, taken, "the last one was given up");
}

/// A write is under way for ever, and what comes after it waits.
fn behind_a_write(message: impl Fn(u64) -> Message) -> u64 {
    let behind = |host: &mut Host, n| match n {
        0 => host.write_of(0, 4096),
        _ => message(n),
    };
    Host::new().taken(behind).0 - 1
}

#[test]
fn flushes_without_end() {
    let taken = behind_a_write(|number| Message::Flush { number, barrier: true });
    assert_eq!(taken, (1 << 30) / 4096 - 1);
}

#[test]
fn a_resync_is_asked_for_one_step_at_a_time() {
    let runs: Vec<_> = (0..1000).map(|i| (2 * i, 1)).collect();
    let commit = |id| Message::SyncCommit { id, volume: 0, runs: runs.clone() };
    assert_eq!(behind_a_write(commit), 1);
    assert_eq!(behind_a_write(|_| Message::SyncFinish { volume: 0 }), 1);
}

#[test]
fn what_is_compared_fits_one_read_and_one_answer() {
    const BLOCK: u64 = 4096;
    let ask = |id, start, blocks, unit, digests| Message::SyncCompare {
        id,
        volume: 0,
        range: ByteRange::new(start, blocks * BLOCK),
        unit,
        digests: vec![Digest([7; Digest::LEN]); digests],
    };
    let mut host = Host::source();
    let mut last = 0;
    let mut read = |start, blocks, unit, digests| {
        last += 1;
        host.handle(Event::Peer(host.link, ask(last, start, blocks, unit, digests)));
        assert!(!host.closed && host.read + host.refused == last);
        host.read
    };
    assert_eq!(read(0, 64, 16, 4), 1, "as a peer of ours asks");
    assert_eq!(read(0, 4096, 64, 64), 2, "the most");
    // Units without blocks, more than one bit each, without a digest each, and other blocks than ours.
    for (start, blocks, unit, digests) in
        [(0, 64, 0, 4), (0, 65, 1, 65), (0, 64, 16, 3), (0, 64, 16, 5), (512, 64, 16, 4)]
    {
        assert_eq!(read(start, blocks, unit, digests), 2, "{blocks} blocks, unit {unit}");
    }
    // One unit of all there is.
    assert_eq!(read(0, 8192, u64::MAX, 1), 2);
}

#[test]
fn a_read_that_the_peer_was_not_asked_for_it_does_not_answer() {
    let mut host = Host::source();
    host.handle(Event::Open(OpenId(1)));
    let op = RequestOp::Read(ByteRange::new(0, 4096));
    host.handle(Event::Request(Request { id: RequestId(1), volume: 0, op }));
    // Names of operations are easily guessed.
    for id in 0..100 {
        let buffer = Some(host.name());
        host.handle(Event::Peer(host.link, Message::ReadData { id, buffer }));
    }
    assert_eq!((host.answered, host.buffers), (0, 0));
}

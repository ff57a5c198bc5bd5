//! A node with all that is around it: a disk that remembers metadata and no data, a link's checks, names of buffers, clients, operators.
//! It holds the node to what its surroundings rely on: I/O lies within the volume, buffers have the lengths they are used with and are
//! given up once, everything that is sent can be sent, every client and operator is answered once.

use bitmap::{Bytes, FormatParams, MetaWrite, Metadata, NodeId, Placement, SECTOR};
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::digest::Digest;
use replicator::node::{
    Action, Backing, BufferId, Command, CommandId, DiskDone, DiskOp, DiskState, Event, HandlerId,
    IoId, LinkId, NODE_BUFFER, Node, OpenId, Protocol, Request, RequestId, RequestOp, Time,
};
use replicator::wire::{Encoder, Integrity, MAX_PAYLOAD, Message};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

const DEVICE: u64 = 4 << 20;

type Image = BTreeMap<u64, [u8; SECTOR]>;

/// Both disks, as create-md leaves them.
static IMAGES: LazyLock<[(Image, u64); 2]> = LazyLock::new(|| [format(0), format(1)]);
/// Bytes of data of either.
pub(super) static DATA: LazyLock<u64> = LazyLock::new(|| IMAGES[0].1);
/// Stands for every payload.
static PAYLOAD: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; MAX_PAYLOAD]);

fn format(node: u8) -> (Image, u64) {
    let (metadata, stages) = Metadata::format(FormatParams {
        placement: Placement::Internal,
        device_size: DEVICE,
        data_size: None,
        size: None,
        node_id: NodeId(node),
        device_uuid: 7,
        slots: vec![NodeId(1 - node)],
        al_slots: 7,
        al_sectors: 6,
        block_size: 4096,
        extent_size: 64 << 10,
        logical_block_size: 512,
    })
    .expect("it fits");
    let mut image = Image::new();
    stages.iter().flatten().for_each(|write| put(&mut image, write));
    (image, metadata.layout().data_size())
}

fn put(image: &mut Image, write: &MetaWrite) {
    let first = write.offset / SECTOR as u64;
    match &write.bytes {
        Bytes::Data(bytes) => {
            for (sector, bytes) in (first..).zip(bytes.chunks_exact(SECTOR)) {
                image.insert(sector, bytes.try_into().expect("a whole sector"));
            }
        }
        Bytes::Zeros(len) => {
            let last = first + len / SECTOR as u64;
            image.retain(|sector, _| !(first..last).contains(sector));
        }
    }
}

/// What is under way to a node.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// With so many bytes of payload.
    Message(Message, u64),
    /// The other closed.
    End,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Side {
    pub(super) node: Node,
    image: Image,
    pub(super) link: Option<LinkId>,
    pub(super) up: bool,
    pub(super) inbox: VecDeque<Item>,
    pub(super) disk: VecDeque<(IoId, DiskOp)>,
    pub(super) handlers: VecDeque<HandlerId>,
    /// It has gone down.
    pub(super) ended: bool,
    /// Named and not given up, with their lengths.
    buffers: BTreeMap<BufferId, u64>,
    /// Reads it asked the other for, with kind and length; and the other's that it owes.
    asked: BTreeMap<u64, (Kind, u64)>,
    owed: BTreeSet<u64>,
    requests: BTreeSet<RequestId>,
    commands: BTreeMap<CommandId, bool>,
    opens: Vec<OpenId>,
    /// Of names that we give.
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Sync,
    Compare,
}

impl Side {
    pub(super) fn new(node: u8, protocol: Protocol, fencing: Fencing, auto_promote: bool) -> Self {
        let config = Config {
            node: NodeId(node),
            volumes: vec![VolumeConfig { number: 0, placement: Placement::Internal, size: 0 }],
            peers: vec![NodeId(1 - node)],
            protocol,
            flush_peer: true,
            suspend_no_data: false,
            fencing,
            auto_promote,
            timing: Timing::default(),
            // So small that they are reached.
            limits: Limits {
                requests: 16,
                peer_bytes: 64 << 10,
                target_bytes: 32 << 10,
                unflushed: 8,
                resync_bytes: 128 << 10,
                resync_bytes_beside_clients: 32 << 10,
                piece_bytes: 32 << 10,
                extents_per_request: 3,
                bitmap_runs: 2,
                resync_commit_blocks: 32,
                ..Limits::default()
            },
        };
        Self {
            node: Node::new(config, Time(0), 42 + u64::from(node)),
            image: IMAGES[usize::from(node)].0.clone(),
            link: None,
            up: false,
            inbox: VecDeque::new(),
            disk: VecDeque::new(),
            handlers: VecDeque::new(),
            ended: false,
            buffers: BTreeMap::new(),
            asked: BTreeMap::new(),
            owed: BTreeSet::new(),
            requests: BTreeSet::new(),
            commands: BTreeMap::new(),
            opens: Vec::new(),
            last: 0,
        }
    }

    /// What it sends.
    pub(super) fn handle(&mut self, now: Time, event: Event) -> Vec<Item> {
        let mut actions = Vec::new();
        self.node.handle(now, event, &mut actions);
        let mut sent = Vec::new();
        for action in actions {
            match action {
                Action::Disk { io, volume, op } => {
                    assert_eq!(volume, 0);
                    self.begin(&op);
                    self.disk.push_back((io, op));
                }
                Action::CloseDisk(_) => {
                    assert!(self.disk.is_empty(), "every operation has ended");
                }
                Action::Send(link, message) if self.link == Some(link) => {
                    let payload = message.buffer().map_or(0, |buffer| self.buffers[&buffer]);
                    self.sent(&message, payload);
                    sent.push(Item::Message(message, payload));
                }
                Action::Connect(link, _) => {
                    assert!(self.link.is_none(), "one link at a time");
                    self.link = Some(link);
                }
                Action::Close(link) => {
                    if self.link == Some(link) {
                        self.unlink();
                        sent.push(Item::End);
                    }
                }
                Action::Reply(request, result) => {
                    assert!(self.requests.remove(&request), "{request:?} is answered once");
                    if let Ok(Some(buffer)) = result {
                        assert!(self.buffers.contains_key(&buffer), "{buffer:?} is there");
                    }
                }
                Action::Release(buffer) => {
                    let was_there = self.buffers.remove(&buffer).is_some();
                    // A node's own name may never have got its bytes.
                    let is_nodes = buffer.0 & NODE_BUFFER != 0;
                    assert!(was_there || is_nodes, "{buffer:?} is given up once");
                }
                Action::Done(command, result) => {
                    let down = self.commands.remove(&command).expect("an answer to a command");
                    self.ended |= down && result.is_ok();
                }
                Action::Handler(id, _) => self.handlers.push_back(id),
                Action::Send(..)
                | Action::Opened(..)
                | Action::CloseExports(_)
                | Action::Notice(_) => {}
            }
        }
        sent
    }

    /// What a disk is asked is possible.
    fn begin(&mut self, op: &DiskOp) {
        let range = match op {
            DiskOp::Write { range, buffer, .. } => {
                assert_eq!(self.buffers.get(buffer), Some(&range.len()), "{buffer:?} fits");
                range
            }
            DiskOp::Read { range, .. }
            | DiskOp::Digest { range, .. }
            | DiskOp::Zero { range, .. } => range,
            DiskOp::Flush | DiskOp::ReadMeta(_) | DiskOp::WriteMeta(_) => return,
        };
        assert!(range.start < range.end && range.end <= *DATA, "{op:?} lies in the volume");
    }

    /// Carries an operation out.
    pub(super) fn carry_out(&mut self, op: &DiskOp) -> DiskDone {
        match op {
            DiskOp::Read { detect_zero: true, range, .. } if range.start & 1 << 16 != 0 => {
                DiskDone::Zero
            }
            DiskOp::Read { range, into, .. } => {
                assert!(self.buffers.insert(*into, range.len()).is_none(), "a name is new");
                DiskDone::Ok
            }
            DiskOp::Digest { range, block } => {
                let blocks = range.len().div_ceil(u64::from(*block));
                DiskDone::Digests((0..blocks).map(|n| Digest([n as u8; Digest::LEN])).collect())
            }
            DiskOp::ReadMeta(ranges) => {
                let read = |&(at, len): &(u64, u32)| {
                    let sector = |n| self.image.get(&n).copied().unwrap_or([0; SECTOR]);
                    let first = at / SECTOR as u64;
                    Ok((first..first + u64::from(len) / SECTOR as u64).flat_map(sector).collect())
                };
                DiskDone::Meta(ranges.iter().map(read).collect())
            }
            DiskOp::WriteMeta(writes) => {
                writes.iter().for_each(|write| put(&mut self.image, write));
                DiskDone::Ok
            }
            DiskOp::Write { .. } | DiskOp::Zero { .. } | DiskOp::Flush => DiskDone::Ok,
        }
    }

    /// The link sends it: the encoder takes it, and reads are remembered.
    fn sent(&mut self, message: &Message, payload: u64) {
        let payload = (payload > 0).then(|| &PAYLOAD[..payload as usize]);
        Encoder::new(Integrity::None).encode(message, payload, &mut Vec::new());
        if let Some((id, kind, len)) = asked_by(message) {
            self.asked.insert(id, (kind, len));
        } else if let Some(id) = answered_by(message) {
            self.owed.remove(&id);
        }
    }

    /// Does the link pass it on? It knows what was asked.
    pub(super) fn fits(&mut self, message: &Message, payload: u64) -> bool {
        if let Some((id, ..)) = asked_by(message) {
            return self.owed.insert(id);
        }
        let Some(id) = answered_by(message) else { return true };
        let Some((kind, len)) = self.asked.remove(&id) else { return false };
        let has_kind = match message {
            Message::SyncData { .. } => kind == Kind::Sync,
            Message::SyncDiffers { .. } => kind == Kind::Compare,
            _ => payload == 0 || kind == Kind::Client,
        };
        has_kind && (payload == 0 || payload == len)
    }

    /// The link is gone.
    pub(super) fn unlink(&mut self) {
        self.link = None;
        self.up = false;
        self.inbox.clear();
        self.asked.clear();
        self.owed.clear();
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A buffer of that length.
    pub(super) fn name(&mut self, len: u64) -> BufferId {
        let name = BufferId(self.next());
        self.buffers.insert(name, len);
        name
    }

    /// To attach the disk, if it is not.
    pub(super) fn attach(&self) -> Option<Command> {
        let is_free = self.node.status().volumes[0].disk == DiskState::Diskless;
        let backing = Backing { data_size: DEVICE, meta_size: None };
        is_free.then_some(Command::Attach(0, backing))
    }

    /// The name of a command.
    pub(super) fn command(&mut self, command: &Command) -> CommandId {
        let id = CommandId(self.next());
        self.commands.insert(id, *command == Command::Down);
        id
    }

    /// A client's request, if there is room for it.
    pub(super) fn request(&mut self, op: RequestOp) -> Option<Request> {
        if self.requests.len() >= 16 {
            if let RequestOp::Write { buffer, .. } = op {
                self.buffers.remove(&buffer);
            }
            return None;
        }
        let id = RequestId(self.next());
        self.requests.insert(id);
        Some(Request { id, volume: 0, op })
    }

    pub(super) fn open(&mut self) -> OpenId {
        let open = OpenId(self.next());
        self.opens.push(open);
        open
    }

    /// The client that goes next; it has had all its answers.
    pub(super) fn close(&mut self) -> Option<OpenId> {
        if self.requests.is_empty() { self.opens.pop() } else { None }
    }
}

/// The read that a message asks for.
fn asked_by(message: &Message) -> Option<(u64, Kind, u64)> {
    match *message {
        Message::Read { id, range, .. } => Some((id, Kind::Client, range.len())),
        Message::SyncRead { id, range, .. } => Some((id, Kind::Sync, range.len())),
        Message::SyncCompare { id, range, .. } => Some((id, Kind::Compare, range.len())),
        _ => None,
    }
}

/// The read that a message answers.
fn answered_by(message: &Message) -> Option<u64> {
    match *message {
        Message::ReadData { id, .. }
        | Message::SyncData { id, .. }
        | Message::SyncDiffers { id, .. } => Some(id),
        _ => None,
    }
}

//! Two nodes over disks and a link that take no time. The metadata is kept, the data is not: nodes never see payload.

use bitmap::{Bytes, FormatParams, MetaWrite, Metadata, NodeId, Placement};
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::digest::Digest;
use replicator::node::{
    Action, Backing, BufferId, Command, CommandId, DiskDone, DiskOp, DiskState, Event, LinkDown,
    LinkEvent, LinkId, Node, OpenId, Protocol, Request, RequestId, RequestOp, Time,
};
use replicator::wire::{Content, Message};
use std::collections::VecDeque;

const DATA_SIZE: u64 = 256 << 20;
const META_SIZE: u64 = 4 << 20;
/// Time that passes with each request, in nanoseconds.
const STEP: u64 = 10_000;

/// Two nodes.
pub(crate) struct Pair {
    sides: [Side; 2],
    queue: VecDeque<(usize, Event)>,
    actions: Vec<Action>,
    now: Time,
    requests: u64,
    replies: u64,
    buffers: u64,
    /// Events handled, by both.
    pub(crate) events: u64,
}

struct Side {
    node: Node,
    metadata: Vec<u8>,
    /// Asked for, not yet up.
    wanted: Option<LinkId>,
    link: Option<LinkId>,
}

impl Pair {
    /// Connected, both UpToDate, the first one Primary and open.
    pub(crate) fn in_sync() -> Self {
        let mut pair = Self {
            sides: [0, 1].map(Side::new),
            queue: VecDeque::new(),
            actions: Vec::new(),
            now: Time(1),
            requests: 0,
            replies: 0,
            buffers: 1 << 32,
            events: 0,
        };
        let backing = Backing { data_size: DATA_SIZE, meta_size: Some(META_SIZE) };
        for side in [0, 1] {
            pair.take(side, Event::Admin(CommandId(0), Command::Attach(0, backing)));
            let connect = Command::Connect { discard_my_data: false };
            pair.take(side, Event::Admin(CommandId(0), connect));
        }
        pair.take(0, Event::Admin(CommandId(0), Command::Primary { force: true }));
        pair.take(0, Event::Open(OpenId(0)));
        for _ in 0..1000 {
            let peer = &pair.sides[0].node.status().peers[0];
            if peer.volumes[0].disk == DiskState::UpToDate {
                return pair;
            }
            pair.now = pair.now.plus_ms(10);
            pair.tick();
            pair.settle();
        }
        panic!("never in sync: {:?}", pair.sides[0].node.status());
    }

    fn take(&mut self, side: usize, event: Event) {
        self.queue.push_back((side, event));
        self.settle();
    }

    /// A client asks the Primary.
    pub(crate) fn submit(&mut self, op: RequestOp) {
        self.now = Time(self.now.0 + STEP);
        self.requests += 1;
        let request = Request { id: RequestId(self.requests), volume: 0, op };
        self.queue.push_back((0, Event::Request(request)));
    }

    /// Goes on until nothing is left to do: every request is answered then.
    pub(crate) fn settle(&mut self) {
        self.tick();
        while let Some((side, event)) = self.queue.pop_front() {
            self.events += 1;
            let mut actions = std::mem::take(&mut self.actions);
            self.sides[side].node.handle(self.now, event, &mut actions);
            for action in actions.drain(..) {
                self.perform(side, action);
            }
            self.actions = actions;
        }
        assert_eq!(self.replies, self.requests, "each request gets its reply");
    }

    fn tick(&mut self) {
        for side in [0, 1] {
            if self.sides[side].node.deadline().is_some_and(|at| at <= self.now) {
                self.queue.push_back((side, Event::Tick));
            }
        }
    }

    fn perform(&mut self, side: usize, action: Action) {
        match action {
            Action::Disk { io, op, .. } => {
                let done = self.sides[side].disk(op);
                self.queue.push_back((side, Event::Disk(io, Ok(done))));
            }
            Action::Send(link, message) => {
                let peer = &self.sides[1 - side];
                if let (true, Some(theirs)) = (self.sides[side].link == Some(link), peer.link) {
                    let message = self.rename(message);
                    self.queue.push_back((1 - side, Event::Peer(theirs, message)));
                }
            }
            Action::Connect(link, _) => {
                self.sides[side].wanted = Some(link);
                self.link_up();
            }
            Action::Close(link) if self.sides[side].link == Some(link) => {
                self.sides[side].link = None;
                if let Some(theirs) = self.sides[1 - side].link.take() {
                    let broken = LinkEvent::Down(LinkDown::Broken);
                    self.queue.push_back((1 - side, Event::Link(theirs, broken)));
                }
            }
            Action::Reply(_, result) => {
                result.expect("nothing fails here");
                self.replies += 1;
            }
            Action::Opened(_, result) | Action::Done(_, result) => {
                result.expect("nothing is refused here");
            }
            // Nobody has anything against a resync.
            Action::Handler(id, _) => self.queue.push_back((side, Event::Handler(id, Ok(0)))),
            Action::Close(_)
            | Action::CloseDisk(_)
            | Action::CloseExports(_)
            | Action::Release(_)
            | Action::Notice(_) => {}
        }
    }

    /// Both have asked: the link is up.
    fn link_up(&mut self) {
        let [Some(ours), Some(theirs)] = [self.sides[0].wanted, self.sides[1].wanted] else {
            return;
        };
        for (side, link) in [(0, ours), (1, theirs)] {
            self.sides[side].wanted = None;
            self.sides[side].link = Some(link);
            let incarnation = self.sides[1 - side].node.incarnation();
            self.queue.push_back((side, Event::Link(link, LinkEvent::Up { incarnation })));
        }
    }

    /// The receiver names payload itself.
    fn rename(&mut self, mut message: Message) -> Message {
        let name = match &mut message {
            Message::Write(write) => match &mut write.content {
                Content::Data(buffer) => Some(buffer),
                Content::Zero { .. } => None,
            },
            Message::ReadData { buffer, .. } | Message::SyncData { buffer, .. } => buffer.as_mut(),
            _ => None,
        };
        if let Some(name) = name {
            self.buffers += 1;
            *name = BufferId(self.buffers);
        }
        message
    }
}

impl Side {
    fn new(number: u8) -> Self {
        let (me, peer) = (NodeId(number), NodeId(1 - number));
        let config = Config {
            node: me,
            volumes: vec![VolumeConfig { number: 0, placement: Placement::External, size: 0 }],
            peers: vec![peer],
            protocol: Protocol::C,
            flush_peer: true,
            suspend_no_data: false,
            fencing: Fencing::DontCare,
            auto_promote: false,
            timing: Timing::default(),
            limits: Limits::default(),
        };
        let params = FormatParams {
            placement: Placement::External,
            device_size: META_SIZE,
            data_size: Some(DATA_SIZE),
            size: None,
            node_id: me,
            device_uuid: 1 + u64::from(number),
            slots: vec![peer],
            al_slots: 1237,
            al_sectors: 256,
            block_size: 4096,
            extent_size: 4 << 20,
            logical_block_size: 512,
        };
        let (_, stages) = Metadata::format(params).expect("a valid layout");
        let mut side = Self {
            node: Node::new(config, Time(0), 1000 + u64::from(number)),
            metadata: vec![0; META_SIZE as usize],
            wanted: None,
            link: None,
        };
        side.store(stages.into_iter().flatten().collect());
        side
    }

    fn disk(&mut self, op: DiskOp) -> DiskDone {
        match op {
            DiskOp::Read { detect_zero: true, .. } => DiskDone::Zero,
            DiskOp::ReadMeta(ranges) => {
                let read = |(at, len): (u64, u32)| {
                    Ok(self.metadata[at as usize..][..len as usize].to_vec())
                };
                DiskDone::Meta(ranges.into_iter().map(read).collect())
            }
            DiskOp::WriteMeta(writes) => {
                self.store(writes);
                DiskDone::Ok
            }
            DiskOp::Digest { range, block } => {
                let blocks = range.len().div_ceil(u64::from(block));
                DiskDone::Digests(vec![Digest::default(); blocks as usize])
            }
            DiskOp::Read { .. } | DiskOp::Write { .. } | DiskOp::Zero { .. } | DiskOp::Flush => {
                DiskDone::Ok
            }
        }
    }

    fn store(&mut self, writes: Vec<MetaWrite>) {
        for MetaWrite { offset, bytes } in writes {
            let area = &mut self.metadata[offset as usize..][..bytes.len() as usize];
            match bytes {
                Bytes::Data(data) => area.copy_from_slice(&data),
                Bytes::Zeros(_) => area.fill(0),
            }
        }
    }
}

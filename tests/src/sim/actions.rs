//! What a node wants done, done: each action turned into what happens in the world, and watched on the way.

use super::disk::{DiskCommand, Finished, Payload};
use super::host::{Io, IoKind};
use super::link::Parcel;
use super::names;
use super::script::Stream;
use super::volume::{self, Volume};
use super::world::{MS, What, World, brief};
use crate::model::{Token, Violation};
use bitmap::ByteRange;
use replicator::node::{Action, BufferId, DiskDone, DiskError, DiskOp, Event, IoId, Level};
use replicator::node::{LinkDown, LinkEvent, LinkId, Role};
use replicator::wire::{Content, Message};
use std::sync::Arc;

pub(super) fn sectors(range: ByteRange) -> (u32, u32) {
    assert!(range.start.is_multiple_of(512) && range.end.is_multiple_of(512), "{range:?}");
    ((range.start / 512) as u32, ((range.end - range.start) / 512) as u32)
}

impl World {
    pub(super) fn act(&mut self, n: usize, action: Action) {
        if self.trace > 1 && !matches!(action, Action::Release(_)) {
            self.say(&format!("{n}      -> {}", brief(&format!("{action:?}"))));
        }
        self.counters.count_one("action", names::action(&action));
        match action {
            Action::Disk { io, volume, op } => self.submit(n, volume::index(volume), io, op),
            Action::CloseDisk(volume) => self.close_disk(n, volume::index(volume)),
            Action::Send(link, message) => self.send(n, link, message),
            Action::Connect(link, _) => self.connect(n, link),
            Action::Close(link) => self.close(n, link),
            Action::Reply(id, result) => self.replied(n, id, result),
            Action::Opened(id, result) => self.opened(n, id, result),
            Action::CloseExports(_) => self.close_exports(n),
            Action::Release(buffer) => {
                self.hosts[n].client_buffers.remove(&buffer.0);
                self.hosts[n].resync_buffers.remove(&buffer.0);
                if self.hosts[n].buffers.remove(&buffer.0).is_none() {
                    self.violate(
                        "LIM",
                        format!("node {n} released {buffer:?}, which nobody holds"),
                    );
                }
            }
            Action::Done(id, result) => self.done(n, id, result),
            Action::Handler(id, handler) => self.run_handler(n, id, &handler),
            Action::Notice(notice) => {
                if notice.text.contains("broke the protocol") {
                    // Nobody here lies.
                    self.violate("NET-1", format!("node {n}: {}", notice.text));
                }
                if self.trace == 1 && !(self.tells_a_story() && notice.level == Level::Info) {
                    self.say(&format!("{n} {:?}: {}", notice.level, notice.text));
                }
                if notice.level == Level::Warning {
                    self.hosts[n].warning = notice.text;
                }
            }
        }
    }

    fn buffer(&mut self, n: usize, id: BufferId) -> Arc<[u64]> {
        match self.hosts[n].buffers.get(&id.0) {
            Some(content) => content.clone(),
            None => {
                self.violate("LIM", format!("node {n} names {id:?}, which nobody holds"));
                Arc::new([])
            }
        }
    }

    fn submit(&mut self, n: usize, v: usize, io: IoId, op: DiskOp) {
        if !self.disk(n, v).in_use {
            return self.violate("IO-4", format!("node {n} uses a disk that is closed: {op:?}"));
        }
        let (kind, command, into) = match op {
            DiskOp::Read { range, into, detect_zero } => {
                let (start, len) = sectors(range);
                self.hosts[n].buffers.insert(into.0, Arc::new([]));
                (IoKind::Read, DiskCommand::Read { start, len }, Some((into.0, detect_zero)))
            }
            DiskOp::Digest { range, block } => {
                let (start, len) = sectors(range);
                (IoKind::Digest, DiskCommand::Digest { start, len, block: block / 512 }, None)
            }
            DiskOp::Write { range, buffer, fua } => {
                let (start, len) = sectors(range);
                let content = self.buffer(n, buffer);
                if content.len() != len as usize {
                    let text =
                        format!("{} sectors of {buffer:?} written to {range:?}", content.len());
                    return self.violate("DUR-5", text);
                }
                self.watch_write(n, v, range, Some(buffer.0));
                let payload = Payload::Data(content);
                (IoKind::Write, DiskCommand::Write { start, len, payload, fua }, None)
            }
            DiskOp::Zero { range, fua, .. } => {
                let (start, len) = sectors(range);
                self.watch_write(n, v, range, None);
                let payload = Payload::Zeros;
                (IoKind::Write, DiskCommand::Write { start, len, payload, fua }, None)
            }
            DiskOp::Flush => (IoKind::Flush, DiskCommand::Flush, None),
            DiskOp::ReadMeta(ranges) => (IoKind::ReadMeta, DiskCommand::ReadMeta(ranges), None),
            DiskOp::WriteMeta(writes) => {
                self.fork_soon |= self.rng.one_in(16);
                (IoKind::WriteMeta, DiskCommand::WriteMeta(writes), None)
            }
        };
        if self.disk(n, v).flush_failed && matches!(kind, IoKind::Write | IoKind::Flush) {
            let story = format!("node {n} goes on using a disk whose flush failed ({kind:?})");
            return self.violate("IO-4", story);
        }
        let mut place = 0;
        if let DiskCommand::Read { start, len }
        | DiskCommand::Digest { start, len, .. }
        | DiskCommand::Write { start, len, .. } = command
        {
            place = start;
            if start + len > self.disk(n, v).sectors {
                return self
                    .violate("IO-1", format!("node {n}: {start}+{len} is outside the volume"));
            }
            let writes = matches!(command, DiskCommand::Write { .. });
            if let Some(other) = self.disk(n, v).overlapping(start, len, writes) {
                let story = format!(
                    "node {n}: operation {io:?} on sectors {start}+{len} overlaps operation {other} under way"
                );
                return self.violate("CONV", story);
            }
        }
        self.disk(n, v).submit(io.0, command);
        self.hosts[n].ios.insert(io.0, Io { kind, volume: v, into });
        if self.disk(n, v).hangs {
            return self.counters.mark("disk: operation hung");
        }
        let (low, high) = self.knobs.disk_delay;
        let slow = self.disk(n, v).slow;
        let stream = Stream::Disk { node: n, volume: v, kind, start: place };
        let delay = self.rng.of(stream, |rng| match rng.between(low, high) {
            delay if slow => delay * 20 + rng.below(200 * MS),
            delay => delay,
        });
        let life = self.hosts[n].life;
        self.after(delay, What::Disk { node: n, life, io: io.0 });
    }

    /// COV-1 and RES-1 at the moment a write leaves for the disk.
    fn watch_write(&mut self, n: usize, v: usize, range: ByteRange, buffer: Option<u64>) {
        let Volume { model, disks, facts, .. } = &mut self.volumes[v];
        let view = *model.view(n);
        if let Some(b) = buffer.filter(|b| self.hosts[n].resync_buffers.contains(b)) {
            let check = model.resync_write(n, &mut |n| facts.read(disks, n));
            self.check(check);
            return self.watch_older(n, v, sectors(range).0, b);
        }
        let by_client = match buffer {
            Some(b) => self.hosts[n].client_buffers.contains(&b),
            None => view.own_good(),
        };
        if by_client && view.role == Role::Primary {
            self.watch_coverage(n, v, range, "its disk");
        }
    }

    /// COV-5: resync data replaces nothing that was written since the resync began.
    fn watch_older(&mut self, n: usize, v: usize, start: u32, buffer: u64) {
        let content = self.buffer(n, BufferId(buffer));
        let Volume { disks, model, resync_since, .. } = &self.volumes[v];
        for (s, &token) in (start..).zip(content.iter()) {
            let Some((there, _)) = disks.0[n].visible(s).writer() else { continue };
            if model.history.op(there).invoked > *resync_since
                && let Err(why) = model.history.judge(s, Token(token), there)
            {
                let story = format!("node {n} copies older data over newer: {why}");
                return self.violate("COV-5", story);
            }
        }
    }

    /// An operation of a disk ends.
    pub(super) fn disk_done(&mut self, n: usize, io: u64) {
        let Some(info) = self.hosts[n].ios.remove(&io) else { return };
        let v = info.volume;
        let eio = self.knobs.eio;
        let million = match info.kind {
            IoKind::Read | IoKind::Digest => eio[0],
            IoKind::Write => eio[1],
            IoKind::Flush => eio[2],
            IoKind::ReadMeta => 0,
            IoKind::WriteMeta => eio[1] / 4,
        };
        let quiet = self.calm || self.forked;
        let failed = self.disk(n, v).dead || (!quiet && self.fails(n, v, info.kind, million));
        let id = IoId(io);
        if failed {
            self.volumes[v].disks.0[n].fail(io, &mut self.rng);
            self.excused = true;
            self.counters.mark(match info.kind {
                IoKind::Read | IoKind::Digest | IoKind::ReadMeta => "disk: read failed",
                IoKind::Write => "disk: write failed",
                IoKind::Flush => "disk: flush failed",
                IoKind::WriteMeta => "disk: metadata write failed",
            });
            if matches!(info.kind, IoKind::Write | IoKind::Flush) {
                self.volumes[v].model.disk_failed(n);
            }
            if self.trace > 0 {
                self.say(&format!("{n} {:?} FAILS", info.kind));
            }
            self.disk(n, v).flush_failed |= info.kind == IoKind::Flush && !self.hosts[n].paused;
            return self.feed(n, Event::Disk(id, Err(DiskError)), None);
        }
        let order = self.disk(n, v).order_of(io);
        match self.disk(n, v).finish(io) {
            Finished::Done if info.kind == IoKind::Write => {
                self.feed(n, Event::Disk(id, Ok(DiskDone::Ok)), Some((v, order)));
            }
            Finished::Done => self.feed(n, Event::Disk(id, Ok(DiskDone::Ok)), None),
            Finished::Data(tokens) => {
                let (into, detect_zero) = info.into.expect("a read names its buffer");
                let done = if detect_zero && tokens.iter().all(|&t| t == 0) {
                    DiskDone::Zero
                } else {
                    self.hosts[n].buffers.insert(into, tokens.into());
                    DiskDone::Ok
                };
                self.feed(n, Event::Disk(id, Ok(done)), Some((v, 0)));
            }
            Finished::Digests(digests) => {
                self.feed(n, Event::Disk(id, Ok(DiskDone::Digests(digests))), Some((v, 0)));
            }
            Finished::Meta(results) => {
                self.feed(n, Event::Disk(id, Ok(DiskDone::Meta(results))), None);
            }
        }
    }

    fn close_disk(&mut self, n: usize, v: usize) {
        if self.disk(n, v).busy() > 0 {
            let story = format!("node {n} lets its disk go with operations under way");
            return self.violate("IO-4", story);
        }
        self.disk(n, v).close();
    }

    fn send(&mut self, n: usize, link: LinkId, message: Message) {
        let Some(id) = self.network.find(n, link) else { return };
        let payload = message.buffer().map(|b| self.buffer(n, b));
        self.watch_send(n, link, &message);
        let parcel = Parcel::Message(Box::new(message), payload);
        self.post(id, 1 - n, parcel);
    }

    fn post(&mut self, connection: u64, to: usize, parcel: Parcel) {
        let what = match &parcel {
            Parcel::Message(message, _) => Some(std::mem::discriminant(&**message)),
            Parcel::Hello(_) | Parcel::Torn(..) | Parcel::End => None,
        };
        let outer = self.rng.enter(Some(Stream::Link { to, what }));
        let arrives = self.network.send(connection, to, parcel, self.now, &mut self.rng);
        self.rng.enter(outer);
        if let Some(at) = arrives {
            self.at(at, What::Arrive { connection, to });
        }
    }

    fn connect(&mut self, n: usize, link: LinkId) {
        self.network.wanted[n] = Some(link);
        let life = self.hosts[n].life;
        let patience = self.rng.between(200, 1500) * MS;
        self.after(patience, What::Unreachable { node: n, life, link });
        let delay = self.rng.between(self.network.delay.0, self.network.delay.1) * 2;
        self.after(delay, What::Meet);
    }

    /// Node 0 dials and node 1 accepts; a fresh connection shows node 1 that an old one is dead.
    pub(super) fn meet(&mut self) {
        if self.network.partitioned {
            return;
        }
        if self.network.wanted == [None; 2] {
            return;
        }
        if self.network.wanted[0].is_some()
            && self.network.wanted[1].is_none()
            && self.hosts[1].running()
            && let Some(old) = self.network.held(1)
        {
            self.counters.mark("link: a fresh connection displaced an old one");
            return self.broken(old, 1);
        }
        let Some(id) = self.network.meet() else { return };
        if self.trace > 0 {
            self.say("link: made");
        }
        for n in 0..2 {
            let incarnation = self.hosts[n].process.as_ref().map_or(0, |p| p.incarnation());
            self.post(id, 1 - n, Parcel::Hello(incarnation));
        }
    }

    /// Something may arrive at this end.
    pub(super) fn arrive(&mut self, connection: u64, to: usize) {
        let (parcel, next) = self.network.arrive(connection, to, self.now);
        if let Some(at) = next {
            self.at(at, What::Arrive { connection, to });
        }
        let Some(parcel) = parcel else { return };
        let Some(c) = self.network.connections.get(&connection) else { return };
        if c.ends[to].gone || !self.hosts[to].running() {
            return;
        }
        let link = c.ends[to].link;
        self.as_bytes(connection, to, &parcel);
        self.deliver(to, link, parcel);
    }

    /// NET-2: a message is the same when it has been bytes, and a part of one is none.
    fn as_bytes(&mut self, connection: u64, to: usize, parcel: &Parcel) {
        let c = self.network.connections.get_mut(&connection).expect("it arrives there");
        let Some(frames) = &mut c.frames else { return };
        let held = match parcel {
            Parcel::Message(message, payload) => frames[to].pass(message, payload.as_deref()),
            Parcel::Torn(message, payload) => {
                self.counters.mark("link: cut inside a frame");
                frames[to].tear(message, payload.as_deref())
            }
            Parcel::Hello(_) | Parcel::End => Ok(()),
        };
        if let Err(why) = held {
            self.violate("NET-2", format!("node {to}: {why}"));
        }
    }

    /// Hands a parcel to a node.
    pub(super) fn deliver(&mut self, to: usize, link: LinkId, parcel: Parcel) {
        match parcel {
            Parcel::Hello(incarnation) => {
                if let Some(id) = self.network.find(to, link)
                    && let Some(c) = self.network.connections.get_mut(&id)
                {
                    c.ends[to].up = true;
                }
                self.feed(to, Event::Link(link, LinkEvent::Up { incarnation }), None);
            }
            Parcel::Torn(..) => {}
            Parcel::End => {
                if let Some(id) = self.network.find(to, link) {
                    self.broken(id, to);
                }
            }
            Parcel::Message(mut message, payload) => {
                let name = payload.map(|p| BufferId(self.hosts[to].new_buffer(p)));
                match &mut *message {
                    Message::Write(write) => {
                        if let (Content::Data(b), Some(name)) = (&mut write.content, name) {
                            *b = name;
                        }
                    }
                    Message::ReadData { buffer, .. } => *buffer = name,
                    Message::SyncData { buffer, .. } => {
                        *buffer = name;
                        self.hosts[to].resync_buffers.extend(name.map(|b| b.0));
                    }
                    _ => {}
                }
                self.feed(to, Event::Peer(link, *message), None);
            }
        }
    }

    /// NET-1: what comes of an earlier link is as if only time had passed.
    pub(super) fn stale(&mut self, to: usize, link: LinkId, parcel: Parcel) {
        let (now, host) = (self.now, &self.hosts[to]);
        let twin = host.process.clone().filter(|_| !host.paused).map(|mut twin| {
            twin.handle(host.clock.read(now), Event::Tick, &mut Vec::new());
            format!("{:?}", twin.status())
        });
        self.deliver(to, link, parcel);
        let status = self.hosts[to].process.as_ref().map(|p| format!("{:?}", p.status()));
        if let (Some(twin), Some(status)) = (twin, status)
            && twin != status
        {
            let story = format!("a message of {link:?} made of node {to} {status}, not {twin}");
            self.violate("NET-1", story);
        }
    }

    /// This end learns that its connection is no more.
    pub(super) fn broken(&mut self, connection: u64, node: usize) {
        let Some(c) = self.network.connections.get_mut(&connection) else { return };
        if c.ends[node].gone {
            return;
        }
        c.ends[node].gone = true;
        c.cut = true;
        c.to[node].clear();
        let link = c.ends[node].link;
        let up = c.ends[node].up;
        self.network.tidy();
        self.link_down(node, link, !up);
    }

    pub(super) fn link_down(&mut self, node: usize, link: LinkId, unreachable: bool) {
        let why = if unreachable { LinkDown::Unreachable } else { LinkDown::Broken };
        self.feed(node, Event::Link(link, LinkEvent::Down(why)), None);
    }

    fn close(&mut self, n: usize, link: LinkId) {
        if self.network.wanted[n] == Some(link) {
            self.network.wanted[n] = None;
        }
        let Some(id) = self.network.find(n, link) else { return };
        self.post(id, 1 - n, Parcel::End);
        let life = self.hosts[n].life;
        let Some(c) = self.network.connections.get_mut(&id) else { return };
        c.ends[n].gone = true;
        let left = std::mem::take(&mut c.to[n]);
        // What the surroundings had read from the socket already may still reach the node.
        let stale = self.rng.below(4) as usize;
        for (_, parcel) in left.into_iter().take(stale) {
            if matches!(parcel, Parcel::Message(..)) {
                let parcel = Box::new(parcel);
                self.after(0, What::Stale { node: n, life, link, parcel });
            }
        }
        self.network.tidy();
    }

    /// The process of a node died: what it had sent may still arrive; the other end learns of it soon if the machine
    /// still runs, else only by silence.
    pub(super) fn hang_up(&mut self, n: usize, power: bool) {
        self.network.wanted[n] = None;
        let mine: Vec<u64> = self.network.connections.keys().copied().collect();
        for id in mine {
            self.network.cut(id, &mut self.rng);
            let c = self.network.connections.get_mut(&id).expect("listed");
            c.to[n].clear();
            c.ends[n].gone = true;
            if !c.ends[1 - n].gone {
                let last = c.to[1 - n].back().map_or(0, |(at, _)| *at);
                if power {
                    self.counters.mark("link: half open, the peer lost power");
                } else {
                    let at = last.max(self.now) + self.rng.below(5 * MS);
                    self.at(at, What::Broken { connection: id, node: 1 - n });
                }
            }
        }
        self.network.tidy();
    }

    /// Breaks what connects the nodes now; each end learns of it soon, late, or never.
    pub(super) fn cut_link(&mut self, half_open: bool) {
        let ids: Vec<u64> = self.network.connections.keys().copied().collect();
        for id in ids {
            if self.network.cut(id, &mut self.rng) > 0 {
                self.counters.mark("link: cut with messages under way");
            }
            for node in 0..2 {
                let c = &self.network.connections[&id];
                if c.ends[node].gone {
                    continue;
                }
                let last = c.to[node].back().map_or(0, |(at, _)| *at);
                match self.rng.below(3) {
                    _ if half_open => {}
                    2 => self.counters.mark("link: one end never told"),
                    late => {
                        let delay = if late == 0 { 0 } else { self.rng.below(2000 * MS) };
                        let at = last.max(self.now) + delay;
                        self.at(at, What::Broken { connection: id, node });
                    }
                }
            }
        }
    }

    /// A violation with the run's seed.
    pub(super) fn verdict(&self) -> Option<Violation> {
        self.violation.clone()
    }
}

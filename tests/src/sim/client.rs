//! Programs that use the device: they open it where it is Primary, keep a few requests under way, and remember every answer.

use super::deed::Deed;
use super::volume::{self, Volume, operation};
use super::world::{InFlightOp, MS, What, World};
use crate::model::{Kind, OpId, Outcome, Token, View};
use bitmap::ByteRange;
use replicator::node::{
    BufferId, Event, OpenId, Refusal, Request, RequestError, RequestId, RequestOp, Role,
};
use std::sync::Arc;

/// Where a client stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere.
    #[default]
    Away,
    /// It asked this node to open.
    Opening(usize),
    /// It has the export of this node open.
    Open(usize),
    /// It sends no more and leaves when the last answer is there.
    Leaving(usize),
}

/// One client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) place: Place,
    pub(super) open: u64,
    pub(super) outstanding: usize,
    /// An `Issue` is in the heap.
    pub(super) armed: bool,
}

impl World {
    /// Looks for a Primary to use.
    pub(super) fn reopen(&mut self, c: usize) {
        if self.clients[c].place != Place::Away || self.hushed || self.is_scripted() {
            return;
        }
        let primary = (0..2).find(|&n| self.view(n).role == Role::Primary);
        let any = self.rng.below(2) as usize;
        let n = match primary {
            Some(n) if !self.rng.one_in(50) => n,
            _ if self.knobs.auto_promote || self.rng.one_in(4) => any,
            _ => {
                let delay = self.rng.between(50, 500) * MS;
                return self.after(delay, What::Reopen { client: c });
            }
        };
        if !self.hosts[n].running() || !self.initialised {
            let delay = self.rng.between(50, 500) * MS;
            return self.after(delay, What::Reopen { client: c });
        }
        self.perform(Deed::Open { client: c, node: n });
    }

    /// Opens the export of a node.
    pub(super) fn open_at(&mut self, c: usize, n: usize) {
        let may = self.clients[c].place == Place::Away && !self.hushed;
        if !may || !self.hosts[n].running() || !self.initialised {
            return;
        }
        self.next_command += 1;
        let open = self.next_command;
        self.clients[c] = Client { place: Place::Opening(n), open, outstanding: 0, armed: false };
        self.feed(n, Event::Open(OpenId(open)), None);
    }

    /// An open is answered.
    pub(super) fn opened(&mut self, n: usize, id: OpenId, result: Result<(), Refusal>) {
        let Some(c) = self.clients.iter().position(|c| c.open == id.0) else {
            return self.violate("IO-1", format!("node {n} answers {id:?}, which nobody asked"));
        };
        if self.clients[c].place != Place::Opening(n) {
            return self.violate("IO-1", format!("node {n} answers {id:?} twice"));
        }
        match result {
            Ok(()) => {
                self.clients[c].place = Place::Open(n);
                self.arm(c, 0);
            }
            Err(_) => {
                self.counters.mark("client: open refused");
                self.clients[c].place = Place::Away;
                let delay = self.rng.between(50, 1000) * MS;
                self.after(delay, What::Reopen { client: c });
            }
        }
    }

    /// The volume whose export it uses.
    fn volume_of(&self, c: usize) -> usize {
        c % self.volumes.len()
    }

    fn arm(&mut self, c: usize, delay: u64) {
        if !self.clients[c].armed {
            self.clients[c].armed = true;
            self.after(delay, What::Issue { client: c });
        }
    }

    /// Sends the next request.
    pub(super) fn issue(&mut self, c: usize) {
        self.clients[c].armed = false;
        let Place::Open(n) = self.clients[c].place else { return };
        if self.hushed {
            return self.leave(c);
        }
        if self.is_scripted() {
            return;
        }
        if self.knobs.depth > 0 && self.rng.one_in(1000) {
            return self.perform(Deed::Leave { client: c });
        }
        if self.clients[c].outstanding < self.knobs.depth {
            self.send_request(c, n);
        }
        if self.clients[c].outstanding < self.knobs.depth {
            let think = if self.calm { self.knobs.think.max(5 * MS) } else { self.knobs.think };
            let delay = if self.rng.one_in(100) { 500 * MS } else { self.rng.wait(think) };
            self.arm(c, delay);
        }
    }

    fn send_request(&mut self, c: usize, n: usize) {
        let sectors = self.disk(0, self.volume_of(c)).sectors;
        let rng = &mut self.rng;
        let kind = match rng.below(100) {
            0..20 => Kind::Read,
            20..22 => Kind::Zero,
            x if x >= 100 - self.knobs.flush_percent => Kind::Flush,
            _ => Kind::Write,
        };
        let hot = self.knobs.hot_blocks.min(sectors / 8);
        // Few blocks get most of the writes: repeated writes to the same place are what finds bugs.
        let block = match rng.below(10) {
            0..4 => rng.below(u64::from(hot.div_ceil(8))),
            4..7 => rng.below(u64::from(hot)),
            _ => rng.below(u64::from(sectors / 8)),
        } as u32;
        let mut start = block * 8;
        let mut len = 8;
        if rng.percent(30) {
            start += rng.below(8) as u32;
            len = rng.between(1, u64::from(self.knobs.longest)) as u32;
        } else if rng.percent(20) {
            len = rng.between(1, u64::from(self.knobs.longest) / 8) as u32 * 8;
        }
        len = len.min(sectors - start);
        if kind == Kind::Flush {
            (start, len) = (0, 0);
        }
        let fua = matches!(kind, Kind::Write | Kind::Zero) && rng.percent(5);
        self.perform(Deed::Request { client: c, node: n, kind, start, len, fua });
    }

    /// Sends one request of a client to a node; returns its number.
    pub(super) fn request(
        &mut self,
        c: usize,
        n: usize,
        kind: Kind,
        start: u32,
        len: u32,
        fua: bool,
    ) -> u32 {
        let v = self.volume_of(c);
        let model = &mut self.volumes[v].model;
        let op = model.invoke(n, kind, start, len, fua);
        let floors = if kind == Kind::Read { model.read_floors(op) } else { Vec::new() };
        self.stamp_blocks(v, op);
        let id = volume::request(v, op);
        self.ops.insert(id, InFlightOp { client: c, floors });
        self.clients[c].outstanding += 1;
        if self.hosts[n].accepted >= self.knobs.limits.requests {
            self.counters.mark("limit: the front end held a request back");
            self.hosts[n].waiting.push_back(id);
        } else {
            self.accept(n, id);
        }
        op
    }

    fn stamp_blocks(&mut self, v: usize, op: u32) {
        let Volume { model, block_stamps, .. } = &mut self.volumes[v];
        let op = model.history.op(op);
        if op.writes() {
            let touched = op.start as usize / 8..(op.start + op.len).div_ceil(8) as usize;
            block_stamps[touched].fill(model.history.stamp());
        }
    }

    /// What a write is going to meet.
    fn count_meetings(&mut self, n: usize, v: usize, id: OpId) {
        let Volume { disks, model, facts, .. } = &mut self.volumes[v];
        let op = *model.history.op(id);
        // Where somebody else has just read them: that is dear, and changes when the next one does.
        if facts.fresh(disks, n)
            && let Some(facts) = facts.read(disks, n)
            && facts.metadata.log_free() == 0
            && !facts.metadata.is_active(op.start * 512 / self.knobs.extent_size)
        {
            self.counters.mark("limit: a write to an extent that a full activity log lacks");
        }
        let copying = |n: &usize| model.view(*n).target();
        let met = (0..2).any(|n| disks.0[n].overlapping(op.start, op.len, true).is_some());
        let overlaps = |&other: &u64| {
            let (w, other) = operation(other);
            if (w, other) == (v, id) || w != v {
                return false;
            }
            let other = model.history.op(other);
            other.start < op.start + op.len && op.start < other.start + other.len
        };
        if met && (0..2).any(|n| copying(&n)) && !self.ops.keys().any(overlaps) {
            self.counters.mark("resync: a client writes what is being compared or copied");
        }
    }

    fn accept(&mut self, n: usize, request: u64) {
        let (v, id) = volume::operation(request);
        let op = *self.volumes[v].model.history.op(id);
        let range = ByteRange::new(u64::from(op.start) * 512, u64::from(op.len) * 512);
        if op.writes() {
            self.count_meetings(n, v, id);
        }
        self.hosts[n].accepted += 1;
        let wanted = match op.kind {
            Kind::Read => RequestOp::Read(range),
            Kind::Flush => RequestOp::Flush,
            Kind::Zero => RequestOp::Zero { range, unmap: id.is_multiple_of(2), fua: op.fua },
            Kind::Write => {
                let content: Arc<[u64]> = (0..op.len).map(|i| Token::write(id, i).0).collect();
                let buffer = self.hosts[n].new_buffer(content);
                self.hosts[n].client_buffers.insert(buffer);
                RequestOp::Write { range, buffer: BufferId(buffer), fua: op.fua }
            }
        };
        let request = Request { id: RequestId(request), volume: volume::number(v), op: wanted };
        self.feed(n, Event::Request(request), None);
    }

    /// A request is answered.
    pub(super) fn replied(
        &mut self,
        n: usize,
        id: RequestId,
        result: Result<Option<BufferId>, RequestError>,
    ) {
        let (v, op_id) = volume::operation(id.0);
        let Some(pending) = self.ops.remove(&id.0) else {
            return self.violate("IO-1", format!("node {n} answers {id:?} twice, or nobody asked"));
        };
        let op = *self.volumes[v].model.history.op(op_id);
        if self.tells_a_story() {
            let how = if result.is_ok() { "" } else { ": an error" };
            self.say(&format!("{n} answers #{op_id}, {:?} {}+{}{how}", op.kind, op.start, op.len));
        }
        if op.node != n {
            return self
                .violate("IO-1", format!("node {n} answers {id:?}, which was sent to the other"));
        }
        if let Some(since) = self.hosts[n].zombie_since
            && result.is_ok()
        {
            // ROLE-5: until a handshake answers, or the wait for the peer ends, it serves nothing.
            let waited = self.hosts[n].clock.read(self.now).ms_since(since);
            if waited < self.knobs.timing.connect_wait {
                let story = format!(
                    "node {n} slept longer than the detection time, and {waited} ms later, with no handshake since, \
                     answered #{op_id} {op:?}"
                );
                return self.violate("ROLE-5", story);
            }
            self.hosts[n].zombie_since = None;
        }
        if result.is_ok() {
            self.may_answer(n);
            if op.kind != Kind::Read {
                self.may_go_on(n);
            }
        }
        if op.kind == Kind::Read
            && let Ok(buffer) = result
        {
            let tokens: Vec<Token> = buffer
                .and_then(|b| self.hosts[n].buffers.get(&b.0))
                .map_or(Vec::new(), |content| content.iter().map(|&t| Token(t)).collect());
            let check = self.volumes[v].model.read_returned(op_id, &pending.floors, &tokens);
            self.check(check);
        }
        if result == Err(RequestError::Io) {
            self.watch_error(n, v, op_id);
        }
        let Volume { model, disks, facts, .. } = &mut self.volumes[v];
        let check = model.answered(op_id, result.is_ok(), disks, &mut |n| facts.read(disks, n));
        self.check(check);
        self.stamp_blocks(v, op_id);
        self.fork_soon |= (op.kind == Kind::Flush || op.fua) && self.rng.one_in(8);
        // Of two volumes one is being copied, and the other is written to.
        let uneven = self.volumes.len() > 1
            && self.volumes[v].model.view(n).mirrored()
            && !self.views(n).all(View::mirrored);
        self.fork_soon |= uneven && self.rng.one_in(2);
        self.hosts[n].accepted -= 1;
        if let Some(next) = self.hosts[n].waiting.pop_front() {
            // Through the heap, as a front end would find it in its next turn.
            self.hosts[n].waiting.push_front(next);
            self.release_waiting(n);
        }
        let c = pending.client;
        self.clients[c].outstanding -= 1;
        match self.clients[c].place {
            Place::Leaving(_) => self.leave(c),
            Place::Open(_) => {
                let delay = self.rng.wait(self.knobs.think.min(MS) + 1);
                self.arm(c, delay);
            }
            _ => {}
        }
    }

    /// IO-2: a client sees an error only if no copy could serve it.
    fn watch_error(&mut self, n: usize, v: usize, id: u32) {
        self.counters.mark("client: saw an error");
        let model = &self.volumes[v].model;
        let view = model.view(n);
        let within_reach = view.peer_good() && model.view(1 - n).own_good();
        if view.role == Role::Primary && !self.excused && (view.own_good() || within_reach) {
            let op = model.history.op(id);
            let story = format!("node {n} failed #{id} {op:?}, and a good copy is within reach");
            self.violate("IO-2", story);
        }
    }

    fn release_waiting(&mut self, n: usize) {
        self.after(0, What::Drain { node: n });
    }

    /// The front end passes on what it held back.
    pub(super) fn drain(&mut self, n: usize) {
        while self.hosts[n].running()
            && self.hosts[n].accepted < self.knobs.limits.requests
            && self.violation.is_none()
        {
            let Some(id) = self.hosts[n].waiting.pop_front() else { break };
            self.accept(n, id);
        }
    }

    /// Leaves if nothing is outstanding, else as soon as nothing is.
    pub(super) fn leave(&mut self, c: usize) {
        let (Place::Open(n) | Place::Leaving(n)) = self.clients[c].place else { return };
        if self.clients[c].outstanding > 0 {
            self.clients[c].place = Place::Leaving(n);
            return;
        }
        self.clients[c].place = Place::Away;
        let open = self.clients[c].open;
        let delay = self.rng.between(1, 500) * MS;
        self.after(delay, What::Reopen { client: c });
        self.after(0, What::CloseOpen { node: n, life: self.hosts[n].life, open });
    }

    /// The node wants every client gone.
    pub(super) fn close_exports(&mut self, n: usize) {
        for c in 0..self.clients.len() {
            if self.clients[c].place == Place::Open(n) {
                self.leave(c);
            }
        }
    }

    /// The node is gone; so are its clients.
    pub(super) fn lose_clients(&mut self, n: usize) {
        let ops: Vec<u64> = self.ops.keys().copied().collect();
        for id in ops {
            let (v, op_id) = volume::operation(id);
            let op = self.volumes[v].model.history.op(op_id);
            if op.node == n {
                debug_assert_eq!(op.outcome, Outcome::Lost, "the model was told first");
                self.ops.remove(&id);
                self.stamp_blocks(v, op_id);
            }
        }
        for c in 0..self.clients.len() {
            if matches!(self.clients[c].place, Place::Opening(m) | Place::Open(m) | Place::Leaving(m) if m == n)
            {
                self.clients[c] = Client::default();
                let delay = self.rng.between(50, 2000) * MS;
                self.after(delay, What::Reopen { client: c });
            }
        }
    }
}

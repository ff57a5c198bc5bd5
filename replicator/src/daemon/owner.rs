//! The owner of the node: it takes all that is ready, lets the node handle it, and runs the actions,
//! grouped by sink. No decision about roles or states is made here.
//!
//! Grouping is legal because actions to different sinks commute: the node emits one only when it
//! may happen now.

use super::buffer_table::BufferTable;
use super::clock;
use super::disks::Disks;
use super::front::{Client, Inbox, Incoming, Waiter};
use super::handlers::Handlers;
use super::in_sync;
use super::limits;
use super::orders::{Answer, Order};
use super::snapshot::{Snapshot, VolumeCounters};
use super::spin::{Awaited, Spin};
use crate::config::Config;
use crate::link::Links;
use crate::node::{
    Action, BufferId, Command, CommandId, ConnectionState, Event, Level, Node, Notice, OpenId,
    Refusal, RefusalKind, Request, RequestError, RequestId, RequestOp, Time, VolumeNumber,
};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::mem::take;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

/// What a client waits for.
struct Pending<W> {
    waiter: W,
    /// Its place in `counters`.
    volume: usize,
    op: RequestOp,
}

/// What an operator waits for.
struct Ordered {
    answer: Answer,
    is_down: bool,
}

pub(super) struct Owner<W: Waiter> {
    node: Node,
    disks: Disks,
    links: Links,
    handlers: Handlers,
    table: BufferTable,
    /// Requests the node has at most at a time.
    room: usize,
    requests: FxHashMap<RequestId, Pending<W>>,
    last_request: u64,
    clients: FxHashMap<OpenId, Client>,
    orders: mpsc::Receiver<Order>,
    commands: FxHashMap<CommandId, Ordered>,
    last_command: u64,
    counters: Vec<VolumeCounters>,
    in_sync: in_sync::Watch,
    /// Wakes the task when the node wants a tick; may be early, never late.
    timer: Pin<Box<Sleep>>,
    armed: Option<Time>,
    /// Ready now; empty between turns.
    events: Vec<Event>,
    actions: Vec<Action>,
    /// Who wants a snapshot at the end of the turn.
    curious: Vec<oneshot::Sender<Snapshot>>,
    spin: Spin,
    over: bool,
}

impl<W: Waiter> Owner<W> {
    pub(super) fn new(
        config: &Config,
        node: Node,
        links: Links,
        handlers: Handlers,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let counters = config.volumes.iter();
        let counters =
            counters.map(|v| VolumeCounters { number: v.number, ..VolumeCounters::default() });
        Self {
            node,
            disks: Disks::default(),
            links,
            handlers,
            table: BufferTable::default(),
            room: config.limits.requests,
            requests: FxHashMap::default(),
            last_request: 0,
            clients: FxHashMap::default(),
            orders,
            commands: FxHashMap::default(),
            last_command: 0,
            counters: counters.collect(),
            in_sync: in_sync::Watch::default(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            events: Vec::new(),
            actions: Vec::new(),
            curious: Vec::new(),
            spin: Spin::default(),
            over: false,
        }
    }

    /// One turn of the loop. Ready when the owner has ended; pending when there is nothing to do, or
    /// (then it has woken itself) when others on this thread shall have their turn, or it spins.
    pub(super) fn turn(&mut self, inbox: &RefCell<Inbox<W>>, cx: &mut Context<'_>) -> Poll<()> {
        self.gather(inbox, cx);
        // ROLE-5: the clock is read after all that is ready was taken. If this process is stopped
        // at any moment, what it handles with a time from before was asked for before.
        let now = clock::now();
        let due = self.node.deadline().is_some_and(|deadline| deadline <= now);
        let idle = self.events.is_empty() && self.curious.is_empty();
        if !idle || due {
            self.handle_all(now, due);
            self.spin.worked();
        }
        if self.over {
            self.end();
            return Poll::Ready(());
        }
        if !idle || due || self.spin.looks_again(now, self.awaited()) {
            cx.waker().wake_by_ref();
        }
        self.arm(now, cx);
        Poll::Pending
    }

    fn awaited(&self) -> Awaited {
        if self.node.awaits_stable() {
            Awaited::Stable
        } else if self.disks.busy() {
            Awaited::Disk
        } else {
            Awaited::Anybody
        }
    }

    /// Takes what is ready, as events, and leaves a waker with what is not.
    fn gather(&mut self, inbox: &RefCell<Inbox<W>>, cx: &mut Context<'_>) {
        let _ = self.disks.poll_ready(cx);
        self.disks.poll(&mut self.table, &mut self.events);
        let table = &mut self.table;
        self.links.poll(cx, |buffer| table.name(buffer), &mut self.events);
        self.handlers.poll(cx, &mut self.events);
        let mut inbox = inbox.borrow_mut();
        for _ in 0..limits::EVENTS_PER_TURN {
            let has_room = self.requests.len() < self.room;
            let fits = |next: &mut _| has_room || !matches!(next, Incoming::Request(..));
            let Some(incoming) = inbox.incoming.pop_front_if(fits) else { break };
            self.client(incoming);
        }
        if !inbox.owner.as_ref().is_some_and(|owner| owner.will_wake(cx.waker())) {
            inbox.owner = Some(cx.waker().clone());
        }
        // After the clients: who has gone is in nobody's way.
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            self.order(order);
        }
    }

    fn handle_all(&mut self, mut now: Time, due: bool) {
        if due {
            self.node.handle(now, Event::Tick, &mut self.actions);
        }
        loop {
            for event in self.events.drain(..) {
                self.node.handle(now, event, &mut self.actions);
            }
            self.run();
            // First the peers: they work on what they get while this disk does.
            self.links.flush_turn();
            self.disks.submit();
            // What the engines did at once is known now; the answers to it go out with the rest.
            self.disks.poll(&mut self.table, &mut self.events);
            if self.events.is_empty() {
                break;
            }
            now = clock::now();
        }
        self.in_sync.note(&self.node, now);
        for answer in take(&mut self.curious) {
            // Whoever asked may have gone.
            let _ = answer.send(self.snapshot());
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Snapshot(answer) => self.curious.push(answer),
            Order::End => self.over = true,
            Order::Command(command, disk, answer) => {
                if let (Command::Attach(volume, _), Some(disk)) = (&command, disk)
                    && let Err(error) = self.disks.open(*volume, *disk)
                {
                    let text = format!("volume {volume}: cannot watch the disk: {error}");
                    let _ = answer.send(Err(Refusal { kind: RefusalKind::State, text }));
                    return;
                }
                self.last_command += 1;
                let id = CommandId(self.last_command);
                let is_down = command == Command::Down;
                self.commands.insert(id, Ordered { answer, is_down });
                self.events.push(Event::Admin(id, command));
            }
        }
    }

    fn client(&mut self, incoming: Incoming<W>) {
        self.events.push(match incoming {
            Incoming::Open(id, client) => {
                self.clients.insert(id, client);
                Event::Open(id)
            }
            Incoming::Close(id) => {
                self.clients.remove(&id);
                Event::Close(id)
            }
            Incoming::Request(volume, op, waiter) => {
                if let RequestOp::Write { range, buffer, .. } = &op {
                    assert_eq!(buffer.len() as u64, range.len(), "a write of {range:?}");
                }
                let op = op.map(|buffer| self.table.name(buffer));
                self.last_request += 1;
                let id = RequestId(self.last_request);
                let place = self.counters.iter().position(|c| c.number == volume);
                let place = place.expect("front ends know the volumes there are");
                self.requests.insert(id, Pending { waiter, volume: place, op });
                self.counters[place].upper_pending += 1;
                Event::Request(Request { id, volume, op })
            }
        });
    }

    fn run(&mut self) {
        let mut actions = take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Disk { io, volume, op } => self.disks.add(io, volume, op, &self.table),
                Action::CloseDisk(volume) => self.disks.close(volume),
                Action::Send(link, message) => {
                    let table = &self.table;
                    self.links.send(link, message, |name| table.take(name));
                }
                Action::Connect(link, peer) => self.links.connect(link, peer),
                Action::Close(link) => self.links.close(link),
                Action::Reply(id, result) => self.reply(id, result),
                Action::Opened(id, result) => {
                    // The client may have gone meanwhile; then its Close is on the way.
                    if let Some(client) = self.clients.get_mut(&id)
                        && let Some(answer) = client.answer.take()
                    {
                        if result.is_err() {
                            self.clients.remove(&id);
                        }
                        let _ = answer.send(result);
                    }
                }
                Action::CloseExports(reason) => {
                    tracing::info!("all clients must go: {reason}");
                    for client in self.clients.values_mut() {
                        if let Some(must_go) = client.must_go.take() {
                            must_go(&reason);
                        }
                    }
                }
                Action::Release(buffer) => self.table.release(buffer),
                Action::Done(id, result) => {
                    let ordered = self.commands.remove(&id).expect("a command ends once");
                    self.over |= ordered.is_down && result.is_ok();
                    let _ = ordered.answer.send(result);
                }
                Action::Handler(id, handler) => self.handlers.run(id, &handler),
                Action::Notice(Notice { level, text }) => match level {
                    Level::Info => tracing::info!("{text}"),
                    Level::Warning => tracing::warn!("{text}"),
                    Level::Error => tracing::error!("{text}"),
                },
            }
        }
        self.actions = actions;
    }

    fn reply(&mut self, id: RequestId, result: Result<Option<BufferId>, RequestError>) {
        let pending = self.requests.remove(&id).expect("a request is answered once");
        let counters = &mut self.counters[pending.volume];
        counters.upper_pending -= 1;
        counters.failed += u64::from(result.is_err());
        match pending.op {
            RequestOp::Read(range) => {
                counters.reads += 1;
                counters.read += range.len();
            }
            RequestOp::Write { range, .. } | RequestOp::Zero { range, .. } => {
                counters.writes += 1;
                counters.written += range.len();
            }
            RequestOp::Flush => counters.flushes += 1,
        }
        let table = &self.table;
        pending.waiter.done(result.map(|buffer| buffer.map(|id| table.take(id))));
    }

    /// Sets the timer to the node's deadline, if it is not set to an earlier moment already: then
    /// this is called again. Deadlines mostly move away, so the timer is rarely touched.
    fn arm(&mut self, now: Time, cx: &mut Context<'_>) {
        while let Some(deadline) = self.node.deadline() {
            if self.armed.is_none_or(|armed| deadline < armed) {
                let wait = Duration::from_nanos(deadline.0.saturating_sub(now.0));
                self.timer.as_mut().reset(Instant::now() + wait);
                self.armed = Some(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            if self.armed.take().is_none_or(|armed| armed >= deadline) {
                // Due: the next turn sees it.
                cx.waker().wake_by_ref();
                return;
            }
        }
    }

    fn end(&mut self) {
        for (_, pending) in self.requests.drain() {
            pending.waiter.done(Err(RequestError::Shutdown));
        }
        for (_, client) in self.clients.drain() {
            if let Some(must_go) = client.must_go {
                must_go("the daemon ends");
            }
        }
        self.commands.clear();
        self.orders.close();
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let volumes = self.counters.iter().map(|counters| VolumeCounters {
            engine: self.disks.engine_name(counters.number),
            lower_pending: self.disks.pending(counters.number) as u64,
            ..counters.clone()
        });
        let mut status = self.node.status();
        for peer in &mut status.peers {
            // NET-3: somebody who has not proved to be the peer is told of here, and changes nothing.
            let is_sought = matches!(
                peer.connection,
                ConnectionState::Unconnected | ConnectionState::Connecting
            );
            if let Some(complaint) = self.links.complaint(peer.node).filter(|_| is_sought) {
                complaint.clone_into(&mut peer.reason);
            }
        }
        Snapshot {
            status,
            volumes: volumes.collect(),
            linked: self.links.linked(),
            in_sync: self.in_sync.told(clock::now()),
        }
    }

    pub(super) fn size(&self, volume: VolumeNumber) -> Option<u64> {
        let status = self.node.status();
        let size = status.volumes.iter().find(|v| v.number == volume)?.size;
        (size > 0).then_some(size)
    }

    /// After the end: ready when what was said to peers has gone out, or had its time.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pin!(self.links.closed()).poll(cx)
    }
}

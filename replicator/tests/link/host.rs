//! One node as far as links see it, and two that are linked.

use crate::samples::{Sample, write};
use bitmap::NodeId;
use replicator::buffers::{Buffer, Pool};
use replicator::link::{LinkConfig, LinkTiming, Links, PeerAddress, SEND_BYTES};
use replicator::node::{BufferId, Event, LinkDown, LinkEvent, LinkId};
use replicator::wire::{Integrity, Message, UNNAMED};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const LOW: NodeId = NodeId(0);
pub(crate) const HIGH: NodeId = NodeId(1);

/// One node as far as links see it: what arrived, and the payloads by name.
pub(crate) struct Host {
    pub(crate) links: Links,
    pub(crate) arrivals: Vec<Event>,
    pub(crate) buffers: HashMap<BufferId, Buffer>,
    pub(crate) pool: Pool,
}

pub(crate) type Seen = (LinkId, Message, Option<Vec<u8>>);

impl Host {
    pub(crate) async fn new(config: LinkConfig) -> Self {
        let pool = Pool::new(64 << 20);
        let links = Links::new(config, pool.clone()).await.unwrap();
        Self { links, arrivals: vec![], buffers: HashMap::new(), pool }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) {
        let buffers = &mut self.buffers;
        let name = |buffer| {
            let id = BufferId(1 + buffers.len() as u64);
            buffers.insert(id, buffer);
            id
        };
        self.links.poll(context, name, &mut self.arrivals);
    }

    pub(crate) fn send(&mut self, link: u64, sample: &Sample) {
        let payload = sample.payload.as_ref().map(|bytes| self.pool.copy_of(bytes));
        let payload = |id| {
            assert_eq!(id, UNNAMED);
            payload.expect("the sample has one")
        };
        self.links.send(LinkId(link), sample.message.clone(), payload);
    }

    pub(crate) fn up(&mut self) -> Option<(LinkId, u64)> {
        let up = |arrival: &mut Event| matches!(arrival, Event::Link(_, LinkEvent::Up { .. }));
        match self.arrivals.extract_if(.., up).next()? {
            Event::Link(id, LinkEvent::Up { incarnation }) => Some((id, incarnation)),
            _ => unreachable!(),
        }
    }

    pub(crate) fn down(&mut self) -> Option<(LinkId, LinkDown)> {
        let down = |arrival: &mut Event| matches!(arrival, Event::Link(_, LinkEvent::Down(_)));
        match self.arrivals.extract_if(.., down).next()? {
            Event::Link(id, LinkEvent::Down(why)) => Some((id, why)),
            _ => unreachable!(),
        }
    }

    /// The messages that stand first, without the names of their buffers.
    pub(crate) fn messages(&mut self) -> Vec<Seen> {
        let count = self.arrivals.iter().take_while(|a| matches!(a, Event::Peer(..))).count();
        let seen = |arrival| match arrival {
            Event::Peer(id, mut message) => {
                let payload = message.buffer().map(|name| self.buffers[&name].as_ref().to_vec());
                if message.buffer().is_some() {
                    message.name_buffer(UNNAMED);
                }
                (id, message, payload)
            }
            _ => unreachable!(),
        };
        self.arrivals.drain(..count).map(seen).collect()
    }
}

/// Runs all hosts until `done` has an answer.
pub(crate) async fn until<T>(
    hosts: &mut [&mut Host],
    mut done: impl FnMut(&mut [&mut Host]) -> Option<T>,
) -> T {
    let run = poll_fn(|context| {
        for host in &mut *hosts {
            let before = host.arrivals.len();
            host.poll(context);
            host.links.flush_turn();
            if host.arrivals.len() > before {
                context.waker().wake_by_ref();
            }
        }
        done(hosts).map_or(Poll::Pending, Poll::Ready)
    });
    timeout(PATIENCE, run).await.expect("in time")
}

/// Runs the host while somebody else does something.
pub(crate) async fn during<T>(host: &mut Host, other: impl Future<Output = T>) -> T {
    let mut other = std::pin::pin!(other);
    let run = poll_fn(|context| {
        host.poll(context);
        host.links.flush_turn();
        other.as_mut().poll(context)
    });
    timeout(PATIENCE, run).await.expect("in time")
}

pub(crate) fn config(me: NodeId, peer: NodeId, address: SocketAddr) -> LinkConfig {
    LinkConfig {
        me,
        incarnation: 100 + u64::from(me.0),
        resource: "r0".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        peers: vec![PeerAddress { node: peer, address }],
        secret: None,
        integrity: Integrity::None,
        send_bytes: SEND_BYTES,
        timing: LinkTiming::default(),
    }
}

/// The acceptor's configuration; its peer's address is that of loopback.
pub(crate) fn high() -> LinkConfig {
    config(HIGH, LOW, "127.0.0.1:1".parse().unwrap())
}

/// Two hosts that know each other, with what is to be changed on both, then on the lower.
pub(crate) async fn hosts(
    change: impl Fn(&mut LinkConfig),
    lower: impl Fn(&mut LinkConfig),
) -> (Host, Host) {
    let mut high = high();
    change(&mut high);
    let high = Host::new(high).await;
    let mut low = config(LOW, HIGH, high.links.address().unwrap());
    change(&mut low);
    lower(&mut low);
    (Host::new(low).await, high)
}

pub(crate) async fn connect(low: &mut Host, high: &mut Host, id: u64) {
    low.links.connect(LinkId(id), HIGH);
    high.links.connect(LinkId(id + 100), LOW);
    let (mut a, mut b) = (None, None);
    until(&mut [low, high], |hosts| {
        a = a.or(hosts[0].up());
        b = b.or(hosts[1].up());
        a.zip(b)
    })
    .await;
    assert_eq!((a, b), (Some((LinkId(id), 101)), Some((LinkId(id + 100), 100))));
}

pub(crate) async fn linked(change: impl Fn(&mut LinkConfig)) -> (Host, Host) {
    let (mut low, mut high) = hosts(change, |_| {}).await;
    connect(&mut low, &mut high, 1).await;
    (low, high)
}

/// A write of these bytes.
pub(crate) fn writing(dagtag: u64, bytes: Vec<u8>) -> Sample {
    Sample { name: "", message: write(dagtag, 0, bytes.len() as u64), payload: Some(bytes) }
}

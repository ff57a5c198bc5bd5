//! The network between the two nodes: connection attempts that must meet, and connections, each two first-in
//! first-out queues. Nothing is duplicated or reordered inside a stream: TCP does not do that. What TCP does is here: delay,
//! batching, stalls of one direction, a cut with any prefix delivered, and an end that learns of it late or never.

use super::Rng;
use super::frames::Frames;
use replicator::node::LinkId;
use replicator::wire::{Agreed, Facts, Integrity, Message};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    /// The first of a stream: the sender's incarnation.
    Hello(u64),
    /// A message, and its payload.
    Message(Box<Message>, Option<Arc<[u64]>>),
    /// Some bytes of a message, and then no more.
    Torn(Box<Message>, Option<Arc<[u64]>>),
    /// The last of a stream.
    End,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The name its node gave it.
    pub(super) link: LinkId,
    /// Its node was told that it is up.
    pub(super) up: bool,
    /// Its node closed it, or was told that it is down, or is dead.
    pub(super) gone: bool,
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) ends: [End; 2],
    /// What each end told of itself.
    pub(super) told: [Option<Facts>; 2],
    /// The verdict each end came to.
    pub(super) agreed: [Option<Agreed>; 2],
    /// What is under way *to* each node, with the earliest time of arrival.
    pub(super) to: [VecDeque<(u64, Parcel)>; 2],
    /// Nothing that is sent from now on arrives.
    pub(super) cut: bool,
    /// When something last arrived at each end.
    pub(super) heard: [u64; 2],
    /// Each direction is stalled until then.
    pub(super) stalled: [u64; 2],
    /// What travels to each node is bytes.
    pub(super) frames: Option<[Frames; 2]>,
    /// A wake-up for this direction is in the world's heap.
    pub(super) armed: [bool; 2],
}

/// The network.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) connections: BTreeMap<u64, Connection>,
    /// Attempts that wait for the other side.
    pub(super) wanted: [Option<LinkId>; 2],
    /// No new connection can be made.
    pub(super) partitioned: bool,
    /// With which checksum messages become bytes, if they do.
    pub(super) framed: Option<Integrity>,
    /// Delay range of a message in nanoseconds.
    pub(super) delay: (u64, u64),
    next: u64,
}

impl Network {
    /// A network with this delay.
    pub(super) fn new(delay: (u64, u64), framed: Option<Integrity>) -> Self {
        Self {
            connections: BTreeMap::new(),
            wanted: [None, None],
            partitioned: false,
            framed,
            delay,
            next: 0,
        }
    }

    /// The connection a node knows under this name.
    pub(super) fn find(&self, node: usize, link: LinkId) -> Option<u64> {
        let mine = |c: &Connection| c.ends[node].link == link && !c.ends[node].gone;
        self.connections.iter().rev().find(|(_, c)| mine(c)).map(|(&id, _)| id)
    }

    /// The connection both nodes hold to be alive, if there is one.
    pub(super) fn live(&self) -> Option<&Connection> {
        let alive = |c: &&Connection| c.ends.iter().all(|e| e.up && !e.gone) && !c.cut;
        self.connections.values().rev().find(alive)
    }

    /// Nothing but pings is under way.
    pub(super) fn quiet(&self) -> bool {
        let ping = |p: &Parcel| match p {
            Parcel::Message(m, _) => matches!(**m, Message::Ping | Message::Pong),
            Parcel::Hello(_) | Parcel::Torn(..) | Parcel::End => false,
        };
        self.connections.values().all(|c| c.to.iter().flatten().all(|(_, p)| ping(p)))
    }

    /// A connection that this node still holds to be alive.
    pub(super) fn held(&self, node: usize) -> Option<u64> {
        self.connections.iter().rev().find(|(_, c)| !c.ends[node].gone).map(|(&id, _)| id)
    }

    /// Both sides want a connection: here it is.
    pub(super) fn meet(&mut self) -> Option<u64> {
        if self.partitioned {
            return None;
        }
        let [Some(a), Some(b)] = self.wanted else { return None };
        self.wanted = [None, None];
        self.next += 1;
        let end = |link| End { link, up: false, gone: false };
        let connection = Connection {
            ends: [end(a), end(b)],
            told: Default::default(),
            agreed: [None, None],
            to: Default::default(),
            cut: false,
            heard: [0; 2],
            stalled: [0; 2],
            frames: self.framed.map(|i| [0, 1].map(|to| Frames::new(i, self.next << 1 | to))),
            armed: [false; 2],
        };
        self.connections.insert(self.next, connection);
        Some(self.next)
    }

    /// Sends from one end; returns when the queue is next to be looked at, if nobody looks already.
    pub(super) fn send(
        &mut self,
        id: u64,
        to: usize,
        parcel: Parcel,
        now: u64,
        rng: &mut Rng,
    ) -> Option<u64> {
        let delay = rng.between(self.delay.0, self.delay.1);
        let c = self.connections.get_mut(&id)?;
        if c.cut || c.ends[to].gone {
            return None;
        }
        let last = c.to[to].back().map_or(0, |(at, _)| *at);
        c.to[to].push_back(((now + delay).max(last), parcel));
        if c.armed[to] {
            return None;
        }
        c.armed[to] = true;
        c.to[to].front().map(|(at, _)| (*at).max(c.stalled[to]))
    }

    /// What arrives at this end now; then when to look again.
    pub(super) fn arrive(&mut self, id: u64, to: usize, now: u64) -> (Option<Parcel>, Option<u64>) {
        let Some(c) = self.connections.get_mut(&id) else { return (None, None) };
        c.armed[to] = false;
        let due = |c: &Connection| c.to[to].front().map(|(at, _)| (*at).max(c.stalled[to]));
        let parcel = match due(c) {
            Some(at) if at <= now => c.to[to].pop_front().map(|(_, p)| p),
            _ => None,
        };
        if parcel.is_some() {
            c.heard[to] = now;
        }
        let next = due(c);
        c.armed[to] = next.is_some();
        (parcel, next)
    }

    /// The connection breaks: a prefix of what is under way still arrives on each side. Returns the messages lost.
    pub(super) fn cut(&mut self, id: u64, rng: &mut Rng) -> usize {
        let Some(c) = self.connections.get_mut(&id) else { return 0 };
        if c.cut {
            return 0;
        }
        c.cut = true;
        let mut lost = 0;
        for queue in &mut c.to {
            let kept = match rng.below(3) {
                0 => 0,
                1 => queue.len(),
                _ => rng.below(queue.len() as u64 + 1) as usize,
            };
            lost += queue.len() - kept;
            let torn = queue.drain(kept..).next();
            if let Some((at, Parcel::Message(message, payload))) = torn
                && c.frames.is_some()
            {
                queue.push_back((at, Parcel::Torn(message, payload)));
            }
        }
        lost
    }

    /// Forgets connections nobody holds.
    pub(super) fn tidy(&mut self) {
        self.connections
            .retain(|_, c| !c.ends.iter().all(|e| e.gone) || c.armed.iter().any(|&armed| armed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Network, u64, Rng) {
        let mut net = Network::new((10, 1000), None);
        net.wanted = [Some(LinkId(1)), Some(LinkId(7))];
        let id = net.meet().expect("both want");
        (net, id, Rng::new(1))
    }

    #[test]
    fn messages_arrive_once_and_in_order() {
        let (mut net, id, mut rng) = pair();
        for n in 0..50 {
            net.send(id, 1, Parcel::Hello(n), n, &mut rng);
        }
        let mut now = 0;
        let mut got = Vec::new();
        while let (parcel, Some(next)) = net.arrive(id, 1, now) {
            got.extend(parcel);
            now = next;
        }
        got.extend(net.arrive(id, 1, now).0);
        let numbers: Vec<u64> =
            got.iter().map(|p| if let Parcel::Hello(n) = p { *n } else { 999 }).collect();
        assert!(numbers.len() >= 49 && numbers.windows(2).all(|w| w[0] + 1 == w[1]), "{numbers:?}");
    }

    #[test]
    fn a_cut_lets_a_prefix_through_and_nothing_after() {
        let (mut net, id, mut rng) = pair();
        for n in 0..9 {
            net.send(id, 0, Parcel::Hello(n), 0, &mut rng);
        }
        let lost = net.cut(id, &mut rng);
        assert_eq!(net.connections[&id].to[0].len() + lost, 9);
        assert!(net.send(id, 0, Parcel::End, 0, &mut rng).is_none());
        assert_eq!(net.connections[&id].to[0].len() + lost, 9);
    }

    #[test]
    fn nothing_is_made_across_a_partition() {
        let mut net = Network::new((1, 1), None);
        net.partitioned = true;
        net.wanted = [Some(LinkId(1)), Some(LinkId(2))];
        assert!(net.meet().is_none());
    }
}

//! Two nodes, and somebody between them who alters, invents, repeats, delays and drops what they say. Nothing he says may make a node panic,
//! touch what is not the volume's, or name a buffer that is not there (`node/side.rs`). That data survives him is not promised.
//!
//! Input: a byte that says how the nodes are configured and how far they have come, then steps of a byte and its arguments, see `Step`.

mod side;

use crate::Seed;
use crate::frames::notation::{self, Frame};
use crate::input::Input;
use bitmap::ByteRange;
use replicator::config::Fencing;
use replicator::node::{Command, DiskError, Event, LinkDown, LinkEvent, Protocol, RequestOp, Time};
use replicator::wire::{Decoded, Decoder, Integrity, Message};
use side::{DATA, Item, Side};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Steps of one input, at most.
const STEPS: usize = 512;
/// Largest request of a client.
const REQUEST: u64 = 48 << 10;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut pair = Pair::begun(input.u8());
    for _ in 0..STEPS {
        if input.is_empty() || pair.over() {
            return;
        }
        let byte = input.u8();
        pair.step(Step::of(byte), usize::from(byte >> 4 & 1), byte >> 5, &mut input);
    }
}

/// What happens next: the low four bits of a byte. The next bit is the node it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Everything runs, as far as so many steps go (u8).
    Settle,
    /// The node gets the next message, as it is.
    Deliver,
    /// The same, with one byte of it (u8) changed (u8).
    Alter,
    /// It gets a frame that nobody sent ([`Frame`]).
    Say,
    /// It gets the next message, and will once more.
    Twice,
    /// The next message moves behind the others.
    Later,
    /// The next message is gone.
    Drop,
    /// Its oldest disk operation ends, badly if the next bit is set.
    Disk,
    /// The same, of any disk operation (u8).
    Any,
    /// So many milliseconds (u16).
    Time,
    /// The link breaks.
    Cut,
    /// A client's request: kind (u8), place and length (u16 sectors).
    Request,
    /// An operator's command (u8).
    Command,
    /// A handler ends with this code (u8).
    Handler,
    /// A client opens.
    Open,
    /// A client goes.
    Close,
}

impl Step {
    const ALL: [Self; 16] = [
        Self::Settle,
        Self::Deliver,
        Self::Alter,
        Self::Say,
        Self::Twice,
        Self::Later,
        Self::Drop,
        Self::Disk,
        Self::Any,
        Self::Time,
        Self::Cut,
        Self::Request,
        Self::Command,
        Self::Handler,
        Self::Open,
        Self::Close,
    ];

    fn of(byte: u8) -> Self {
        Self::ALL[usize::from(byte & 15)]
    }
}

/// The nodes, and what is between them.
#[derive(Clone)]
struct Pair {
    sides: [Side; 2],
    now: Time,
}

impl Pair {
    /// As [`Pair::new`]; each is brought that far once.
    fn begun(shape: u8) -> Self {
        static BEGUN: Mutex<BTreeMap<u8, Pair>> = Mutex::new(BTreeMap::new());
        let mut begun = BEGUN.lock().expect("who panicked has ended the process, or the test");
        begun.entry(shape).or_insert_with(|| Self::new(shape)).clone()
    }

    fn new(shape: u8) -> Self {
        let protocol = [Protocol::C, Protocol::A, Protocol::B, Protocol::C][usize::from(shape & 3)];
        let fencing = if shape & 4 == 0 { Fencing::DontCare } else { Fencing::ResourceAndStonith };
        let sides = [0, 1].map(|node| Side::new(node, protocol, fencing, shape & 8 != 0));
        let mut pair = Self { sides, now: Time(1) };
        let stage = shape >> 4;
        if stage > 0 {
            pair.both(1);
            pair.settle(200);
        }
        if stage > 1 {
            pair.both(3);
            pair.settle(if stage == 2 { 20 } else { 200 });
        }
        if stage > 3 {
            pair.command(0, 7);
            pair.settle(stage as usize * 50);
        }
        pair
    }

    fn over(&self) -> bool {
        self.sides.iter().any(|side| side.ended)
    }

    fn both(&mut self, command: u8) {
        for at in 0..2 {
            self.command(at, command);
        }
    }

    fn handle(&mut self, at: usize, event: Event) {
        let sent = self.sides[at].handle(self.now, event);
        let other = &mut self.sides[1 - at];
        for item in sent {
            if other.link.is_some() || matches!(item, Item::End) {
                other.inbox.push_back(item);
            }
        }
        self.meet();
    }

    /// Two that look for each other find each other.
    fn meet(&mut self) {
        while self.sides.iter().all(|side| side.link.is_some() && !side.up) {
            let told = [0, 1].map(|at| self.sides[1 - at].node.incarnation());
            for side in &mut self.sides {
                side.up = true;
                side.inbox.clear();
            }
            for (at, incarnation) in told.into_iter().enumerate() {
                if let Some(link) = self.sides[at].link {
                    self.handle(at, Event::Link(link, LinkEvent::Up { incarnation }));
                }
            }
        }
    }

    fn down(&mut self, at: usize, why: LinkDown) {
        if let Some(link) = self.sides[at].link.take() {
            self.sides[at].unlink();
            self.handle(at, Event::Link(link, LinkEvent::Down(why)));
        }
    }

    fn cut(&mut self) {
        for at in 0..2 {
            let was_up = self.sides[at].up;
            self.down(at, if was_up { LinkDown::Broken } else { LinkDown::Unreachable });
        }
    }

    /// Hands a message over, unless the link itself sees that it cannot be.
    fn deliver(&mut self, at: usize, mut message: Message, payload: u64) {
        let side = &mut self.sides[at];
        let Some(link) = side.link.filter(|_| side.up) else { return };
        if side.fits(&message, payload) {
            if message.buffer().is_some() {
                message.name_buffer(side.name(payload));
            }
            self.handle(at, Event::Peer(link, message));
        } else {
            self.cut();
        }
    }

    fn take(&mut self, at: usize) {
        match self.sides[at].inbox.pop_front() {
            Some(Item::Message(message, payload)) => self.deliver(at, message, payload),
            Some(Item::End) => self.down(at, LinkDown::Broken),
            None => {}
        }
    }

    fn disk(&mut self, at: usize, which: usize, fails: bool) {
        let Some((io, op)) = self.sides[at].disk.remove(which) else { return };
        let result = if fails { Err(DiskError) } else { Ok(self.sides[at].carry_out(&op)) };
        self.handle(at, Event::Disk(io, result));
    }

    fn settle(&mut self, steps: usize) {
        for _ in 0..steps {
            let busy = |side: &Side| !side.inbox.is_empty() || !side.disk.is_empty();
            if self.over() || !self.sides.iter().any(busy) {
                return;
            }
            for at in 0..2 {
                self.disk(at, 0, false);
                self.take(at);
            }
        }
    }

    fn command(&mut self, at: usize, which: u8) {
        let force = which & 1 != 0;
        let side = &mut self.sides[at];
        let command = match which % 24 / 2 {
            0 => {
                let Some(attach) = side.attach() else { return };
                attach
            }
            1 => Command::Connect { discard_my_data: !force },
            2 => Command::Detach(0),
            3 => Command::Primary { force },
            4 => Command::Secondary { force },
            5 => Command::Disconnect,
            6 if force => Command::Invalidate,
            6 => Command::InvalidateRemote,
            7 => Command::Outdate,
            8 => Command::SuspendIo,
            9 => Command::ResumeIo,
            10 => Command::Lease(force.then_some(self.now.plus_ms(3000))),
            _ => Command::Down,
        };
        let id = side.command(&command);
        self.handle(at, Event::Admin(id, command));
    }

    fn request(&mut self, at: usize, input: &mut Input<'_>) {
        let (kind, sector, sectors) = (input.u8(), input.u16(), input.u16());
        let start = u64::from(sector) * 512 % *DATA;
        let len = (u64::from(sectors) + 1) * 512 % REQUEST;
        let range = ByteRange::new(start, len.min(*DATA - start).max(512));
        let fua = kind & 8 != 0;
        let op = match kind & 3 {
            0 => RequestOp::Read(range),
            1 => RequestOp::Write { range, buffer: self.sides[at].name(range.len()), fua },
            2 => RequestOp::Zero { range, unmap: kind & 16 != 0, fua },
            _ => RequestOp::Flush,
        };
        if let Some(request) = self.sides[at].request(op) {
            self.handle(at, Event::Request(request));
        }
    }

    fn step(&mut self, step: Step, at: usize, more: u8, input: &mut Input<'_>) {
        match step {
            Step::Settle => self.settle(input.u8().into()),
            Step::Deliver => self.take(at),
            Step::Alter => {
                let (place, change) = (input.u8(), input.u8());
                match self.sides[at].inbox.pop_front() {
                    Some(Item::Message(message, payload)) => {
                        if let Some((message, payload)) = altered(&message, payload, place, change)
                        {
                            self.deliver(at, message, payload);
                        }
                    }
                    Some(Item::End) => self.down(at, LinkDown::Broken),
                    None => {}
                }
            }
            Step::Say => {
                if let Some((message, payload)) = decoded(&Frame::read(input)) {
                    self.deliver(at, message, payload);
                }
            }
            Step::Twice => {
                if let Some(Item::Message(message, payload)) = self.sides[at].inbox.front().cloned()
                {
                    self.deliver(at, message, payload);
                }
            }
            Step::Later => {
                if let Some(item) = self.sides[at].inbox.pop_front() {
                    self.sides[at].inbox.push_back(item);
                }
            }
            Step::Drop => {
                if let Some(Item::End) = self.sides[at].inbox.pop_front() {
                    self.down(at, LinkDown::Broken);
                }
            }
            Step::Disk => self.disk(at, 0, more & 1 != 0),
            Step::Any => self.disk(at, input.u8().into(), more & 1 != 0),
            Step::Time => {
                self.now = self.now.plus_ms(input.u16().into());
                for at in 0..2 {
                    self.handle(at, Event::Tick);
                }
            }
            Step::Cut => self.cut(),
            Step::Request => self.request(at, input),
            Step::Command => self.command(at, input.u8()),
            Step::Handler => {
                let code = input.u8();
                let result = if code == 255 { Err("killed".into()) } else { Ok(code.into()) };
                if let Some(handler) = self.sides[at].handlers.pop_front() {
                    self.handle(at, Event::Handler(handler, result));
                }
            }
            Step::Open => {
                let open = self.sides[at].open();
                self.handle(at, Event::Open(open));
            }
            Step::Close => {
                if let Some(open) = self.sides[at].close() {
                    self.handle(at, Event::Close(open));
                }
            }
        }
    }
}

/// The message of a frame, if it is one, and the length of its payload.
fn decoded(frame: &Frame<'_>) -> Option<(Message, u64)> {
    let mut bytes = Vec::new();
    frame.put(0, Integrity::None, &mut bytes);
    let mut decoder = Decoder::new(Integrity::None);
    let mut input = &bytes[..];
    match decoder.decode(&mut input).ok()? {
        Decoded::Need(_) => None,
        Decoded::Message(message, payload) => {
            Some((message, payload.map_or(0, |it| it.len() as u64)))
        }
        Decoded::Payload(len) => Some((decoder.payload_received(&input[..len]).ok()?, len as u64)),
    }
}

fn altered(message: &Message, payload: u64, place: u8, change: u8) -> Option<(Message, u64)> {
    // A longer one cannot be written down; it is lost.
    let payload = u16::try_from(payload).ok()?;
    let notation = notation::of(message, payload.into());
    let mut frame = Frame::read(&mut Input(&notation));
    let mut body = frame.body.to_vec();
    let len = body.len().max(1);
    if let Some(byte) = body.get_mut(usize::from(place) % len) {
        *byte ^= change;
    }
    frame.body = &body;
    decoded(&frame)
}

/// Nodes that come together and work, at each stage; each message said where it may not be.
pub fn seeds() -> Vec<Seed> {
    let to = |step: Step, at: u8| {
        Step::ALL.iter().position(|&it| it == step).unwrap_or(0) as u8 | at << 4
    };
    let settle = [to(Step::Settle, 0), 200];
    let command = |at, which| [to(Step::Command, at), which];
    let request = |kind, sector: u16| {
        let place = sector.to_le_bytes();
        [to(Step::Request, 0), kind, place[0], place[1], 7, 0]
    };
    let work =
        [&request(1, 8)[..], &request(9, 640), &request(2, 100), &request(3, 0), &request(0, 8)]
            .concat();
    let together = [
        &command(0, 1)[..],
        &command(1, 1),
        &settle,
        &command(0, 3),
        &command(1, 3),
        &settle,
        &command(0, 7),
        &settle,
    ]
    .concat();
    let altered: Vec<u8> =
        (0..12).flat_map(|place| [to(Step::Alter, place & 1), place, 1]).collect();
    let delivered: Vec<u8> =
        (0..40).flat_map(|n| [to(Step::Deliver, n & 1), to(Step::Disk, n & 1)]).collect();
    let again = [&[to(Step::Cut, 0)][..], &work, &[to(Step::Time, 0), 0, 8], &settle].concat();
    let stories = [
        ("together", [&together[..], &work, &settle].concat()),
        ("work", [&work[..], &settle].concat()),
        ("steps", [&work[..], &delivered].concat()),
        ("altered", [&work[..], &altered, &settle].concat()),
        ("cut", [&work[..], &delivered[..9], &again].concat()),
        ("switch", [&command(0, 8)[..], &settle, &command(1, 6), &settle].concat()),
        (
            "split",
            [
                &[to(Step::Cut, 0)][..],
                &command(1, 7),
                &settle,
                &work,
                &[to(Step::Time, 0), 0, 8],
                &settle,
            ]
            .concat(),
        ),
        ("leave", [&work[..], &settle, &command(0, 10), &settle, &command(0, 4), &settle].concat()),
        (
            "invalidate",
            [&command(0, 12)[..], &delivered, &settle, &command(1, 13), &settle].concat(),
        ),
        ("fail", [&work[..], &[to(Step::Disk, 0) | 32, to(Step::Disk, 1) | 32], &settle].concat()),
        (
            "open",
            [&[to(Step::Open, 0)][..], &settle, &work, &settle, &[to(Step::Close, 0)], &settle]
                .concat(),
        ),
        ("down", [&command(1, 22)[..], &settle].concat()),
    ];
    let mut seeds = Vec::new();
    for (name, steps) in stories {
        for (kind, shape) in [("new", 0x1b), ("sync", 0x40), ("in-sync", 0xf4), ("b", 0x92)] {
            seeds.push((format!("{name}-{kind}"), [&[shape], &steps[..]].concat()));
        }
    }
    for (name, message, payload) in notation::samples() {
        let mut steps = vec![to(Step::Say, 1)];
        steps.extend(notation::of(&message, payload));
        for (kind, shape) in [("handshake", 0x24), ("in-sync", 0xf0)] {
            let more = [&steps[..], &settle, &work, &settle].concat();
            seeds.push((format!("say-{name}-{kind}"), [&[shape], &more[..]].concat()));
        }
    }
    seeds
}

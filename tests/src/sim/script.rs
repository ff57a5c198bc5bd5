//! The script of a run: what was done to the two nodes, and when; and the tape of all other chance, by whom it befell. A run can be
//! noted from its seed, and told again with some deeds left out: then what befell everybody else stays what it was.
//!
//! Who decides on a deed (`client`, `operator`, `faults`) is silent when a script is told. What follows of itself does not stand in
//! it: the end of a pause, a start after a crash, the answer of a handler, a manager before the first Primary and while all heals.

use super::Rng;
use super::deed::Deed;
use super::host::IoKind;
use super::world::{What, World};
use replicator::wire::Message;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::Discriminant;
use std::rc::Rc;

/// Whose chance it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    /// The deed of this number: what survives a power cut, how long a pause is.
    Deed(usize),
    /// How long an operation takes there.
    Disk { node: usize, volume: usize, kind: IoKind, start: u32 },
    /// How long a message takes.
    Link { to: usize, what: Option<Discriminant<Message>> },
    /// What else happens on a machine.
    Node(usize),
    /// Its agent.
    Agent(usize),
    /// When the manager looks.
    Rounds,
    /// What the manager does of itself.
    Manager,
    /// The beginning and the end.
    Frame,
    /// What the forks are like.
    Forks,
}

/// All numbers drawn, by stream. They are looked up, never walked through.
pub(super) type Drawn = HashMap<Stream, Vec<u64>>;

/// Where random numbers go to, or come from.
#[derive(Clone, Debug)]
pub(super) struct Tape {
    stream: Option<Stream>,
    side: Side,
}

#[derive(Clone, Debug)]
enum Side {
    Recording(Drawn),
    /// Of each stream: how many were taken, and where more come from.
    Playing {
        drawn: Rc<Drawn>,
        salt: u64,
        taken: HashMap<Stream, (usize, Rng)>,
    },
}

impl Tape {
    /// An empty one.
    pub(super) fn recording() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { stream: None, side: Side::Recording(Drawn::new()) }))
    }

    /// One to be heard again. With a salt, other numbers.
    pub(super) fn playing(drawn: &Rc<Drawn>, salt: u64) -> Rc<RefCell<Self>> {
        let drawn = if salt == 0 { drawn.clone() } else { Rc::default() };
        let side = Side::Playing { drawn, salt, taken: HashMap::new() };
        Rc::new(RefCell::new(Self { stream: None, side }))
    }

    /// What was recorded.
    pub(super) fn take(&mut self) -> Drawn {
        match &mut self.side {
            Side::Recording(drawn) => std::mem::take(drawn),
            Side::Playing { .. } => Drawn::new(),
        }
    }

    pub(super) fn enter(&mut self, stream: Option<Stream>) -> Option<Stream> {
        std::mem::replace(&mut self.stream, stream)
    }

    /// The next number, where the seed would give this one.
    pub(super) fn next(&mut self, own: u64) -> u64 {
        let Some(stream) = self.stream else { return own };
        match &mut self.side {
            Side::Recording(drawn) => {
                drawn.entry(stream).or_default().push(own);
                own
            }
            Side::Playing { drawn, salt, taken } => {
                let (count, more) = taken.entry(stream).or_insert_with(|| {
                    let mut hasher = DefaultHasher::new();
                    (stream, *salt).hash(&mut hasher);
                    (0, Rng::new(hasher.finish()))
                });
                *count += 1;
                let known = drawn.get(&stream).and_then(|numbers| numbers.get(*count - 1));
                known.copied().unwrap_or_else(|| more.next())
            }
        }
    }
}

/// A deed, its number in the script of the seed, and when it was done.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) number: usize,
    pub(super) at: u64,
    /// What else had happened at that very time.
    beat: u32,
    pub(super) deed: Deed,
}

/// How much has happened at this very time, but for decisions on deeds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat(u32);

impl Beat {
    /// This happens; has time passed?
    pub(super) fn next(&mut self, later: bool, what: &What) {
        self.0 = if later { 0 } else { self.0 } + u32::from(!is_decision(what));
    }
}

/// Where the deeds of a run come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Seed,
    /// From the seed, and they are noted.
    Noted(Rc<RefCell<Vec<Scene>>>),
    Script(Rc<[Scene]>),
}

impl World {
    /// Somebody outside decides to do something.
    pub(super) fn perform(&mut self, deed: Deed) {
        match self.note(deed.clone()) {
            Some(number) => self.enact_as(number, deed),
            None => self.enact(deed),
        }
    }

    /// Writes a deed down, if somebody wants to know; returns its number.
    pub(super) fn note(&mut self, deed: Deed) -> Option<usize> {
        let Source::Noted(scenes) = &self.source else { return None };
        let mut scenes = scenes.borrow_mut();
        let number = scenes.len();
        let Beat(mut beat) = self.beat;
        if let Deed::DiskFails { .. } = deed {
            // Said before the operation ends.
            beat -= 1;
        }
        scenes.push(Scene { number, at: self.now, beat, deed });
        Some(number)
    }

    /// The manager does something: by the script, but for what it has to do anyway.
    pub(super) fn manage(&mut self, deed: Deed) {
        if self.calm || !self.initialised { self.enact(deed) } else { self.perform(deed) }
    }

    fn enact_as(&mut self, number: usize, deed: Deed) {
        let outer = self.rng.enter(Some(Stream::Deed(number)));
        self.enact(deed);
        self.rng.enter(outer);
    }

    /// Nobody decides anything: it is all written.
    pub(super) fn is_scripted(&self) -> bool {
        matches!(self.source, Source::Script(_))
    }

    /// Puts all deeds of the script into the future.
    pub(super) fn arm_script(&mut self) {
        let Source::Script(scenes) = self.source.clone() else { return };
        for (index, scene) in scenes.iter().enumerate() {
            self.at(scene.at, What::Scene { index });
        }
    }

    /// The time of a deed has come.
    pub(super) fn play(&mut self, index: usize) {
        let Source::Script(scenes) = self.source.clone() else { return };
        let Some(Scene { number, beat, deed, .. }) = scenes.get(index).cloned() else { return };
        if self.beat.0 < beat && self.more_now() {
            return self.at(self.now, What::Scene { index });
        }
        if self.trace > 0 {
            self.say(&format!("* {deed}"));
        }
        self.enact_as(number, deed);
    }
}

/// Whose chance it is while this happens. Nobody's that would be needed again where somebody decides on deeds.
pub(super) fn stream_of(what: &What, free: bool) -> Option<Stream> {
    match *what {
        What::Disk { node, .. }
        | What::Stale { node, .. }
        | What::Unreachable { node, .. }
        | What::Broken { node, .. }
        | What::Tick { node, .. }
        | What::Unhang { node, .. }
        | What::DiskFound { node, .. }
        | What::Resume { node, .. }
        | What::Start { node }
        | What::Drain { node }
        | What::CloseOpen { node, .. }
        | What::NewDisk { node, .. }
        | What::Exit { node, .. }
        | What::Retry { node }
        | What::ResumeIo { node, .. }
        | What::Fence { node, .. }
        | What::Handled { node, .. }
        | What::Arrive { to: node, .. } => Some(Stream::Node(node)),
        What::Agent { node } => Some(Stream::Agent(node)),
        What::Meet | What::Mend => Some(Stream::Frame),
        What::Manager => free.then_some(Stream::Manager),
        What::Issue { .. }
        | What::Reopen { .. }
        | What::Strike(_)
        | What::Operator
        | What::Cut
        | What::Scene { .. } => None,
    }
}

/// Nothing happens then but that somebody decides on a deed, or does it.
pub(super) fn is_decision(what: &What) -> bool {
    stream_of(what, true).is_none()
}

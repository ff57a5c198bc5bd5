//! What the states, the events and the actions of a node are called where they are counted. No behaviour.

use replicator::node::{
    Action, Command, ConnectionState, DiskDone, DiskOp, DiskState, Event, LinkDown, LinkEvent,
    RefusalKind, Relation, RequestError, RequestOp, Role, Tie,
};
use replicator::wire::{Agreed, Message, RefuseReason};

/// The variant's name, whatever it carries.
macro_rules! variant {
    ($it:expr, $prefix:literal $type:ident: $($variant:ident)*) => {
        match $it { $($type::$variant { .. } => concat!($prefix, stringify!($variant))),* }
    };
}

pub(super) fn role(it: Role) -> &'static str {
    variant!(it, "" Role: Unknown Primary Secondary)
}

pub(super) fn disk(it: DiskState) -> &'static str {
    variant!(it, "" DiskState: Diskless Attaching Detaching Failed Inconsistent Outdated DUnknown Consistent UpToDate)
}

pub(super) fn connection(it: ConnectionState) -> &'static str {
    variant!(it, "" ConnectionState: StandAlone Unconnected Connecting Handshaking Connected)
}

macro_rules! message {
    ($it:expr, $prefix:literal) => {
        variant!($it, $prefix Message: Facts Agreed Ready Write Received Written Flush Flushed Read ReadData Bits SyncRead SyncData
            SyncCompare SyncDiffers SyncCommit SyncCommitted SyncFinish SyncGrant InSync PromoteRequest PromoteReply RoleIs
            Invalidate Bye Ping Pong)
    };
}

/// What happened to it.
pub(super) fn event(it: &Event) -> &'static str {
    match it {
        Event::Request(request) => {
            let op = &request.op;
            variant!(op, "client asks: " RequestOp: Read Write Zero Flush)
        }
        Event::Disk(_, Ok(done)) => variant!(done, "disk: " DiskDone: Ok Zero Digests Meta),
        Event::Disk(_, Err(_)) => "disk: failed",
        Event::Peer(_, message) => message!(message, "got "),
        Event::Link(_, LinkEvent::Up { .. }) => "link: up",
        Event::Link(_, LinkEvent::Down(why)) => {
            variant!(why, "link: " LinkDown: Unreachable Broken Rejected)
        }
        Event::Admin(_, command) => {
            variant!(command, "operator: " Command: Attach Detach Connect Disconnect Primary Secondary Invalidate InvalidateRemote
                Outdate SuspendIo ResumeIo Lease Down)
        }
        Event::Handler(_, Ok(0)) => "handler: 0",
        Event::Handler(_, Ok(_)) => "handler: another code",
        Event::Handler(_, Err(_)) => "handler: none",
        Event::Open(_) => "client opens",
        Event::Close(_) => "client closes",
        Event::Tick => "tick",
    }
}

/// What it wants done.
pub(super) fn action(it: &Action) -> &'static str {
    match it {
        Action::Disk { op, .. } => {
            variant!(op, "disk: " DiskOp: Read Digest Write Zero Flush ReadMeta WriteMeta)
        }
        Action::Send(_, message) => message!(message, "send "),
        Action::Reply(_, Ok(_)) => "reply: ok",
        Action::Reply(_, Err(error)) => {
            variant!(error, "reply: " RequestError: Io NotPrimary Shutdown)
        }
        Action::Done(_, Ok(())) => "done",
        Action::Done(_, Err(refusal)) => {
            let kind = refusal.kind;
            variant!(kind, "refused: " RefusalKind: TwoPrimaries PeerNotOutdated Primary Connected NotOutdatable NoUpToDateData NoDisk
                InUse Busy NotConnected State Metadata Peer)
        }
        Action::Opened(_, Ok(())) => "opened",
        Action::Opened(_, Err(_)) => "opened: refused",
        Action::Handler(_, handler) => handler.occasion.name(),
        Action::CloseDisk(_) => "close disk",
        Action::Connect(..) => "connect",
        Action::Close(_) => "close link",
        Action::CloseExports(_) => "close exports",
        Action::Release(_) => "release",
        Action::Notice(_) => "notice",
    }
}

/// What two nodes agreed upon.
pub(super) fn agreed(it: &Agreed) -> &'static str {
    match it {
        Agreed::Refuse(reason) => {
            variant!(reason, "refused: " RefuseReason: SplitBrain Unrelated Stale TwoPrimaries Incompatible)
        }
        Agreed::Go(_) => "go",
        Agreed::IStepDown | Agreed::YouStepDown => "one steps down",
    }
}

/// How the data of one volume relates, whichever side is asked.
pub(super) fn relation(it: Relation) -> &'static str {
    match it {
        Relation::Idle => "idle",
        Relation::Same => "same",
        Relation::Ahead { full, forked } | Relation::Behind { full, forked } => {
            match (full, forked) {
                (false, false) => "one is ahead, known by bits",
                (true, false) => "one is ahead, known by its history",
                (false, true) => "two generations, one has bits",
                (true, true) => "two generations, and a full copy",
            }
        }
        Relation::Split { full: false } => "split, known by bits",
        Relation::Split { full: true } => "split, a full copy",
        Relation::OthersRuined | Relation::OursRuined => "the newer is ruined",
        Relation::Unrelated => "unrelated",
    }
}

/// Which of two with the same generation is the source, and why.
pub(super) fn tie(it: Tie) -> &'static str {
    variant!(it, "" Tie: Primary SawTheCrash Crashed Survived Current Bits NodeId)
}

//! Every decision of the agent for one resource on one node: facts and ends of jobs go in, jobs come out. No clock, no socket, no chance:
//! the same events give the same actions. It does not know how a lock is taken or a mount is made.
//!
//! Authority is never a timeout. With etcd it is the lock, and lasts until [`Event::Renewed`] says; the daemon is told ([`Action::Lease`])
//! before it is promoted, and holds I/O from then on by itself, whatever becomes of this agent. Without a third machine it is the
//! peer's word, or the peer verified off.

mod decider;

pub use decider::Decider;

use core::fmt;
use serde::{Deserialize, Serialize};

/// Milliseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
pub type Ms = u64;

/// Who says which node may be Primary; by these words also in the configuration and the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arbiter {
    /// A lock in etcd.
    Etcd,
    /// The peer's word, or the peer verified off.
    Fencing,
}

/// What was configured, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who decides.
    pub arbiter: Arbiter,
    /// A plug-in can turn the peer off.
    pub stonith: bool,
    /// Silence after which a peer counts as dead; with etcd the life of the lock.
    pub dead_time: Ms,
    /// This node's place in `prefer`; 0 is first.
    pub place: u32,
    /// How long after the end of its authority a suspended Primary waits for its return.
    pub grace: Ms,
    /// The first back-off after a failure; each further one is twice as long.
    pub back_off: Ms,
    /// The longest.
    pub back_off_limit: Ms,
}

/// A disk, the worst of all volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// None, or failed.
    Diskless,
    /// In the middle of a resync.
    Inconsistent,
    /// The other went on alone.
    Outdated,
    /// Good unless the other went on alone.
    Consistent,
    /// Good.
    UpToDate,
}

/// What the daemon of this node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// It is Primary.
    pub primary: bool,
    /// The worst disk.
    pub disk: Disk,
    /// Connected to the peer; then, whether that is Primary.
    pub peer_primary: Option<bool>,
    /// Connected, and the peer's copies are all good.
    pub peer_good: bool,
}

/// Why the daemon of this node does not say how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It does not run, so it is not Primary.
    Down,
    /// It runs, and may be Primary.
    Hangs,
}

impl NoAnswer {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Down => "the daemon does not run",
            Self::Hangs => "the daemon does not answer",
        }
    }
}

/// The lock, as it was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The arbiter does not answer.
    Unknown,
    /// Nobody has it.
    Free,
    /// Nobody has it, and this node must not: the other went on alone.
    Barred,
    /// This node has it, perhaps from its last life.
    Mine,
    /// The other has it.
    Other,
}

/// What the peer's agent said in an authenticated message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Counts its lives.
    pub incarnation: u64,
    /// It is Primary, or on the way there or back, or not known not to be.
    pub busy: bool,
}

/// What was set going; each ends once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Take the lock, or take it up again; ends as [`Event::Granted`] or [`Event::Denied`], and fails where neither is known.
    Ask,
    /// Turn the peer off and see that it is.
    Fence,
    /// Make the daemon Primary.
    Promote,
    /// Start the services in order.
    Start,
    /// Stop them in reverse. Ends a start under way.
    Stop,
    /// Make the daemon Secondary; by force, its clients are cut off.
    Demote {
        /// Cut clients off, and fail what they wait for.
        force: bool,
    },
    /// Give the lock back.
    Release,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time goes on.
    Tick,
    /// The daemon was asked how it is.
    Local {
        /// When.
        asked: Ms,
        /// What it said.
        local: Result<Local, NoAnswer>,
    },
    /// The lock was looked at.
    Lock(Lock),
    /// The peer's agent was heard.
    Heard(Word),
    /// The lock is ours, and nobody else's before this instant.
    Granted(Ms),
    /// It is not to be had: why.
    Denied(String),
    /// It goes on to be.
    Renewed(Ms),
    /// It is another's, or gone.
    Lost,
    /// A job other than Ask ended well.
    Done(Job),
    /// A job failed: why.
    Failed(Job, String),
    /// What the health check says of this node: fit, or why not.
    Health(Result<(), String>),
    /// A service that should run does not: which.
    Down(String),
    /// The operator's word: stay away, or not.
    Standby(bool),
    /// SIGTERM.
    Shutdown,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set a job going.
    Begin(Job),
    /// Tell the daemon to answer nobody from this instant on.
    Lease(Ms),
    /// Renew the lock no more: it ends when the daemon's lease has, unless it can be given back before.
    Abandon,
    /// The last resort: this machine must go down.
    SelfFence,
    /// For the log, and for people.
    Alert(String),
    /// Nothing is left to do.
    Exit,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not Primary.
    Waiting,
    /// The lock was asked for; `adopt`: the daemon is Primary already.
    Asking {
        /// Left over from an earlier life of the agent.
        adopt: bool,
    },
    /// The lock is ours; is the peer Primary still, as it was?
    Looking,
    /// The peer is being turned off.
    Fencing,
    /// The daemon is being promoted; `None`: asked, else when it is asked again.
    Promoting(Option<Ms>),
    /// Services are being started.
    Starting,
    /// Primary, and all runs.
    Active,
    /// Services are being stopped; `demoted`: the device is gone already.
    Stopping {
        /// Was demoted by force before.
        demoted: bool,
    },
    /// The daemon is being demoted; then, the services are stopped, or were.
    Demoting {
        /// As in [`Job::Demote`].
        force: bool,
        /// Services are down.
        stopped: bool,
    },
    /// The lock is being given back.
    Releasing,
    /// It would not be demoted; tried again at this instant.
    Stuck(Ms),
    /// It has ended.
    Ended,
}

impl Phase {
    /// Primary, or on the way there or back.
    pub const fn is_busy(self) -> bool {
        !matches!(
            self,
            Self::Waiting | Self::Asking { adopt: false } | Self::Releasing | Self::Ended
        )
    }

    /// May this node fence the other, or have it outdated?
    pub const fn wants_peer_gone(self) -> bool {
        matches!(
            self,
            Self::Promoting(_) | Self::Starting | Self::Active | Self::Stopping { demoted: false }
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Asking { .. } => "asking",
            Self::Looking => "looking",
            Self::Fencing => "fencing",
            Self::Promoting(_) => "promoting",
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Stopping { .. } => "stopping",
            Self::Demoting { .. } => "demoting",
            Self::Releasing => "releasing",
            Self::Stuck(_) => "stuck",
            Self::Ended => "ended",
        })
    }
}

/// What has been counted, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Became active.
    pub takeovers: u64,
    /// Times the plug-in was run by decision.
    pub fences: u64,
    /// Promotions, starts, stops, fences that failed.
    pub failures: u64,
}

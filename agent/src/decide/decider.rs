//! The state machine itself: one resource on one node. What its words mean is in [`super`].

use super::{
    Action, Arbiter, Counters, Disk, Event, Job, Local, Lock, Ms, NoAnswer, Phase, Plan, Word,
};

/// Between two attempts at something cheap.
const RETRY: Ms = 250;
/// Between two attempts to demote what would not be demoted.
const STUCK: Ms = 5_000;
/// How long a daemon may be silent at the start before it counts as not running.
const LOOK: Ms = 1_000;
/// How long a promotion may be refused before the lock is given back.
const PATIENCE: Ms = 15_000;
/// A better copy, or a node named earlier in `prefer`, is so much ahead for each step.
const STEP: Ms = 150;
/// The side without the resource lets the other fence first.
const POLITE: Ms = 600;

/// One resource on one node.
#[derive(Clone, Debug)]
pub struct Decider {
    plan: Plan,
    /// Where it stands.
    pub phase: Phase,
    since: Ms,
    started: Ms,
    /// Nobody else is Primary before this instant.
    pub until: Option<Ms>,
    /// What the daemon said last.
    pub local: Result<Local, NoAnswer>,
    /// The daemon was asked, whether it answered or not, after `news`.
    looked: bool,
    /// When its role was last changed from here, or the lock got: what it says of before is old.
    news: Ms,
    /// What was seen of the lock last.
    pub lock: Lock,
    heard: Option<(Ms, Word)>,
    /// The peer was verified off, in this incarnation, and has not been heard of since.
    fenced: Option<u64>,
    may_since: Option<Ms>,
    barred_until: Ms,
    failures: u32,
    /// Why this node is in no state to serve, or to judge the other.
    pub unfit: Option<String>,
    /// Told to stay away.
    pub standby: bool,
    leaving: bool,
    /// What is to be let go may hang: the peer is not to wait for it.
    abandoned: bool,
    /// What an earlier life left running is stopped, or was taken up.
    clean: bool,
    /// The last decision, and why.
    pub why: String,
    /// What has been counted.
    pub counters: Counters,
    out: Vec<Action>,
}

impl Decider {
    /// Knows nothing yet.
    pub fn new(plan: Plan, now: Ms, standby: bool) -> Self {
        Self {
            plan,
            phase: Phase::Waiting,
            since: now,
            started: now,
            until: None,
            local: Err(NoAnswer::Hangs),
            looked: false,
            news: 0,
            lock: Lock::Unknown,
            heard: None,
            fenced: None,
            may_since: None,
            barred_until: 0,
            failures: 0,
            unfit: None,
            standby,
            leaving: false,
            abandoned: false,
            clean: false,
            why: "just started".into(),
            counters: Counters::default(),
            out: Vec::new(),
        }
    }

    /// Is the peer off, by what was verified?
    pub const fn is_fenced(&self) -> bool {
        self.fenced.is_some()
    }

    /// To be said to the peer: this node is Primary, or on the way there or back, or what an earlier life left is not known yet.
    pub const fn is_busy(&self) -> bool {
        self.phase.is_busy() || !self.clean
    }

    /// Without a third machine nothing is said to the peer while this node cannot let go, or its daemon hangs: that may be Primary, and, if
    /// not, cannot give its word that it is outdated. So the peer counts this node as dead, and turns it off if it wants to be Primary.
    pub fn is_silent(&self) -> bool {
        self.abandoned || (self.looked && self.local == Err(NoAnswer::Hangs))
    }

    /// How long the peer's agent has been silent.
    pub fn silence(&self, now: Ms) -> Ms {
        now.saturating_sub(self.heard.map_or(self.started, |(at, _)| at))
    }

    /// The peer was turned off on the daemon's wish, not by a job of ours.
    pub fn fenced_for_daemon(&mut self) {
        self.counters.fences += 1;
        self.fenced = Some(self.incarnation());
    }

    fn incarnation(&self) -> u64 {
        self.heard.map_or(0, |(_, word)| word.incarnation)
    }

    /// Takes an event; what is to be done, in order.
    pub fn handle(&mut self, now: Ms, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => {}
            Event::Local { asked, local } if asked > self.news => {
                if local.as_ref().is_ok_and(|local| local.peer_primary.is_some()) {
                    self.fenced = None;
                }
                (self.local, self.looked) = (local, true);
            }
            Event::Local { .. } => {}
            Event::Lock(lock) => self.lock = lock,
            Event::Heard(word) => {
                if self.heard.is_none_or(|(_, old)| word.incarnation >= old.incarnation) {
                    self.heard = Some((now, word));
                    self.fenced = None;
                }
            }
            Event::Granted(until) => self.granted(now, until),
            Event::Denied(why) => self.denied(now, &why),
            Event::Renewed(until) => {
                if self.until.is_some() {
                    self.until = Some(until);
                    self.out.push(Action::Lease(until));
                }
            }
            Event::Lost => {
                if self.until.take().is_some() {
                    self.lost(now, "the lock is lost");
                }
            }
            Event::Done(job) => {
                self.role_changed(now, job);
                self.done(now, job);
            }
            Event::Failed(job, why) => {
                self.role_changed(now, job);
                self.failed(now, job, &why);
            }
            Event::Health(Ok(())) => self.unfit = None,
            Event::Health(Err(why)) => self.unfit = Some(why),
            Event::Down(why) => {
                if self.phase == Phase::Active {
                    self.fault(now, &why);
                    self.begin(now, Phase::Stopping { demoted: false }, Job::Stop, &why);
                }
            }
            Event::Standby(standby) => self.standby = standby,
            Event::Shutdown => self.leaving = true,
        }
        self.step(now);
        self.abandoned &= self.phase.is_busy();
        core::mem::take(&mut self.out)
    }

    fn role_changed(&mut self, now: Ms, job: Job) {
        if matches!(job, Job::Promote | Job::Demote { .. }) {
            (self.looked, self.news) = (false, now);
        }
    }

    // ---- ends of jobs; one that comes too late is nobody's ----

    fn granted(&mut self, now: Ms, until: Ms) {
        let Phase::Asking { adopt } = self.phase else { return };
        self.until = Some(until);
        self.lock = Lock::Mine;
        if adopt {
            self.adopted(now, until);
        } else if self.plan.stonith && self.peer_primary() == Some(true) {
            // It may have been demoted before it gave the lock back: nobody is shot for an orderly handover.
            (self.looked, self.news) = (false, now);
            self.go(now, Phase::Looking, "is the peer still Primary?");
        } else {
            self.fence_or_promote(now);
        }
    }

    fn adopted(&mut self, now: Ms, until: Ms) {
        match &self.local {
            Ok(local) if local.primary => {
                self.out.push(Action::Lease(until));
                let why = "the daemon was Primary, and the lock is ours";
                self.begin(now, Phase::Starting, Job::Start, why);
            }
            Ok(_) => self.release(now, "the daemon is not Primary any more"),
            // If it hangs, it is Primary still, with a lease of an earlier life: HA-3.
            Err(_) => self.retreat(now, "the daemon does not answer any more"),
        }
    }

    fn is_primary(&self) -> bool {
        self.local.as_ref().is_ok_and(|local| local.primary)
    }

    fn peer_primary(&self) -> Option<bool> {
        self.local.as_ref().ok()?.peer_primary
    }

    fn denied(&mut self, now: Ms, why: &str) {
        let Phase::Asking { adopt } = self.phase else { return };
        if adopt {
            self.out.push(Action::Alert(format!("Primary without the lock: {why}")));
            self.retreat(now, why);
        } else {
            self.barred_until = self.barred_until.max(now + RETRY);
            self.go(now, Phase::Waiting, why);
        }
    }

    fn fence_or_promote(&mut self, now: Ms) {
        if self.must_fence(now) {
            self.counters.fences += 1;
            self.begin(
                now,
                Phase::Fencing,
                Job::Fence,
                "the peer must be off before the promotion",
            );
        } else {
            self.go(now, Phase::Promoting(Some(now)), "may be Primary");
        }
    }

    fn done(&mut self, now: Ms, job: Job) {
        match (self.phase, job) {
            (Phase::Fencing, Job::Fence) => {
                self.fenced = Some(self.incarnation());
                self.go(now, Phase::Promoting(Some(now)), "the peer is off");
            }
            (Phase::Promoting(None), Job::Promote) => {
                self.begin(now, Phase::Starting, Job::Start, "promoted");
            }
            (Phase::Starting, Job::Start) => {
                self.counters.takeovers += 1;
                self.go(now, Phase::Active, "all services run");
            }
            (Phase::Stopping { demoted: true }, Job::Stop) => self.release(now, "all is stopped"),
            (Phase::Stopping { demoted: false }, Job::Stop) => {
                let next = Phase::Demoting { force: false, stopped: true };
                self.begin(now, next, Job::Demote { force: false }, "services are stopped");
            }
            (Phase::Demoting { force, stopped }, Job::Demote { force: was }) if force == was => {
                if stopped {
                    self.release(now, "demoted");
                } else {
                    self.begin(
                        now,
                        Phase::Stopping { demoted: true },
                        Job::Stop,
                        "demoted by force",
                    );
                }
            }
            (Phase::Releasing, Job::Release) => self.rest(now),
            (_, Job::Ask | Job::Fence | Job::Promote | Job::Start | Job::Stop)
            | (_, Job::Demote { .. } | Job::Release) => {}
        }
    }

    fn failed(&mut self, now: Ms, job: Job, why: &str) {
        match (self.phase, job) {
            // One that is Primary is bound by the lease that it has.
            (Phase::Asking { .. }, Job::Ask) => {
                self.barred_until = self.barred_until.max(now + RETRY);
                self.go(now, Phase::Waiting, why);
            }
            (Phase::Fencing, Job::Fence) => {
                self.fault(now, &format!("the peer could not be fenced: {why}"));
                self.release(now, "fencing failed");
            }
            (Phase::Promoting(None), Job::Promote) => {
                self.why = format!("promotion refused: {why}");
                if now >= self.since + PATIENCE {
                    self.fault(now, &format!("promotion refused: {why}"));
                    self.release(now, "promotion refused");
                } else {
                    self.phase = Phase::Promoting(Some(now + RETRY));
                }
            }
            (Phase::Starting, Job::Start) => {
                self.fault(now, &format!("services could not be started: {why}"));
                self.begin(now, Phase::Stopping { demoted: false }, Job::Stop, "a start failed");
            }
            (Phase::Stopping { demoted: false }, Job::Stop) => {
                self.fault(now, &format!("services could not be stopped: {why}"));
                self.retreat(now, "a stop failed");
            }
            (Phase::Stopping { demoted: true }, Job::Stop) => {
                self.fault(
                    now,
                    &format!("services could not be stopped after the demotion: {why}"),
                );
                self.out.push(Action::SelfFence);
                self.release(now, "demoted; services may be left over");
            }
            (Phase::Demoting { force: false, stopped }, Job::Demote { force: false }) => {
                let next = Phase::Demoting { force: true, stopped };
                self.begin(
                    now,
                    next,
                    Job::Demote { force: true },
                    &format!("demotion refused: {why}"),
                );
            }
            (Phase::Demoting { force: true, .. }, Job::Demote { force: true }) => {
                self.fault(
                    now,
                    &format!("cannot be demoted: {why}; its lease is not renewed any more"),
                );
                self.until = None;
                self.out.extend([Action::Abandon, Action::SelfFence]);
                self.phase = Phase::Stuck(now + STUCK);
            }
            // It ends by itself with its lease.
            (Phase::Releasing, Job::Release) => self.rest(now),
            (_, Job::Ask | Job::Fence | Job::Promote | Job::Start | Job::Stop)
            | (_, Job::Demote { .. } | Job::Release) => {}
        }
    }

    // ---- what is due, whatever came ----

    fn step(&mut self, now: Ms) {
        let over = self.until.is_some_and(|until| now >= until);
        let given_up = self.until.is_some_and(|until| now >= until.saturating_add(self.plan.grace));
        let is_mute = self.looked && self.local.is_err();
        match self.phase {
            Phase::Waiting if self.looked => self.wait(now),
            Phase::Looking | Phase::Fencing if over => {
                self.release(now, "the lock ended before the promotion");
            }
            Phase::Looking if self.looked => self.fence_or_promote(now),
            Phase::Promoting(_) if over => self.lost(now, "the lock ended before the promotion"),
            Phase::Promoting(Some(_)) if is_mute => {
                self.fault(now, "the daemon does not answer");
                self.release(now, "the daemon does not answer");
            }
            Phase::Promoting(Some(at)) if now >= at => {
                if let Some(until) = self.until {
                    self.out.push(Action::Lease(until));
                }
                self.phase = Phase::Promoting(None);
                self.out.push(Action::Begin(Job::Promote));
            }
            Phase::Starting | Phase::Active if given_up => {
                self.lost(now, "the lock could not be renewed in time");
            }
            Phase::Active => self.keep(now),
            // What is suspended cannot be unmounted.
            Phase::Stopping { demoted: false } if given_up => {
                self.lost(now, "the lock ended while services were being stopped");
            }
            Phase::Stuck(at) if now >= at => {
                let next = Phase::Demoting { force: true, stopped: false };
                self.begin(now, next, Job::Demote { force: true }, "once more");
            }
            Phase::Waiting
            | Phase::Asking { .. }
            | Phase::Looking
            | Phase::Fencing
            | Phase::Promoting(_)
            | Phase::Starting
            | Phase::Stopping { .. }
            | Phase::Demoting { .. }
            | Phase::Releasing
            | Phase::Stuck(_)
            | Phase::Ended => {}
        }
        let leaves =
            matches!(self.phase, Phase::Stopping { demoted: false } | Phase::Demoting { .. });
        if is_mute && leaves {
            // The daemon may hang, and then what is to be stopped does, too: the other must not wait for that.
            self.abandoned = true;
            self.out.push(Action::Abandon);
        }
    }

    /// Primary by right: for how long?
    fn keep(&mut self, now: Ms) {
        let broken = |why: &'static str| (why, Some(why.to_owned()));
        let (reason, fault) = match (&self.unfit, &self.local) {
            _ if self.leaving => ("this agent is being shut down", None),
            _ if self.standby => ("standby", None),
            (Some(why), _) => ("what runs here is not healthy", Some(why.clone())),
            (None, _) if !self.looked => return,
            (None, Err(why)) => broken(why.text()),
            (None, Ok(local)) if !local.primary => broken("somebody demoted it"),
            (None, Ok(_)) => {
                if now >= self.since + self.plan.back_off_limit {
                    self.failures = 0;
                }
                return;
            }
        };
        if let Some(why) = fault {
            self.fault(now, &why);
        }
        self.begin(now, Phase::Stopping { demoted: false }, Job::Stop, reason);
    }

    fn wait(&mut self, now: Ms) {
        if self.is_primary() {
            return self.found_primary(now);
        }
        if !self.clean {
            // The daemon may just be starting, too, or be slow to answer.
            if self.local.is_ok() || now >= self.started + LOOK {
                self.clean = true;
                let why = "services may be left over from before";
                self.begin(now, Phase::Stopping { demoted: true }, Job::Stop, why);
            }
            return;
        }
        if self.leaving {
            self.out.push(Action::Exit);
            return self.go(now, Phase::Ended, "shut down");
        }
        if let Err(why) = self.may(now) {
            self.may_since = None;
            why.clone_into(&mut self.why);
            return;
        }
        let since = *self.may_since.get_or_insert(now);
        if now < since + self.turn() {
            return;
        }
        self.may_since = None;
        match self.plan.arbiter {
            Arbiter::Etcd => {
                self.begin(now, Phase::Asking { adopt: false }, Job::Ask, "the lock is free");
            }
            Arbiter::Fencing => self.fence_or_promote(now),
        }
    }

    /// From an earlier life of this agent, or an operator's.
    fn found_primary(&mut self, now: Ms) {
        self.clean = true;
        if self.leaving || self.standby || self.unfit.is_some() {
            let why = "Primary, and must not stay so";
            return self.begin(now, Phase::Stopping { demoted: false }, Job::Stop, why);
        }
        match self.plan.arbiter {
            Arbiter::Etcd => {
                if now < self.barred_until.min(self.since + RETRY) {
                    return;
                }
                let why = "the daemon is Primary: is the lock ours?";
                self.begin(now, Phase::Asking { adopt: true }, Job::Ask, why);
            }
            // Nobody else can be: it would have turned this machine off.
            Arbiter::Fencing => {
                self.begin(now, Phase::Starting, Job::Start, "the daemon is Primary already");
            }
        }
    }

    /// May this node try to become Primary? If not, why.
    fn may(&self, now: Ms) -> Result<(), &'static str> {
        let local = self.local.as_ref().map_err(|why| why.text())?;
        let no = |refused: bool, why| if refused { Err(why) } else { Ok(()) };
        no(self.standby, "standby")?;
        no(self.unfit.is_some(), "this node is not healthy")?;
        no(now < self.barred_until, "after a failure this node waits")?;
        no(local.disk < Disk::Consistent && !local.peer_good, "no good data is within reach")?;
        let alone = local.peer_primary.is_none() && self.heard.is_none();
        no(alone && now < self.started + self.plan.dead_time, "just started; the peer may come")?;
        match self.plan.arbiter {
            Arbiter::Etcd => match self.lock {
                Lock::Free | Lock::Mine => Ok(()),
                Lock::Unknown => Err("the lock is not known: etcd does not answer, or not yet"),
                Lock::Barred => Err("the peer went on alone: its data is newer; connect to it"),
                Lock::Other => Err("the peer has the lock"),
            },
            Arbiter::Fencing => {
                no(
                    self.lock == Lock::Barred,
                    "the peer went on alone: its data is newer; connect to it",
                )?;
                let is_silent = self.silence(now) >= self.plan.dead_time;
                let busy = self.heard.is_some_and(|(_, word)| word.busy);
                no(!is_silent && busy, "the peer has the resource")?;
                no(!is_silent && self.heard.is_none(), "just started; the peer may come")?;
                no(!is_silent && local.peer_primary == Some(true), "the peer is Primary")
            }
        }
    }

    /// How long to leave it to a better one.
    fn turn(&self) -> Ms {
        let steps = match self.local.as_ref().map(|local| local.disk) {
            Ok(Disk::UpToDate) => 0,
            Ok(Disk::Consistent) => 1,
            Ok(Disk::Outdated) => 2,
            Ok(Disk::Inconsistent) => 3,
            Ok(Disk::Diskless) | Err(_) => 6,
        };
        let polite = if self.plan.arbiter == Arbiter::Fencing { POLITE } else { 0 };
        STEP * (steps + u64::from(self.plan.place)) + polite
    }

    fn must_fence(&self, now: Ms) -> bool {
        if self.peer_primary() == Some(false) || self.fenced.is_some() {
            return false;
        }
        match self.plan.arbiter {
            Arbiter::Etcd => self.plan.stonith,
            // One that answers is asked by the handler: it may give its word.
            Arbiter::Fencing => self.silence(now) >= self.plan.dead_time,
        }
    }

    // ---- ways ----

    fn go(&mut self, now: Ms, phase: Phase, why: &str) {
        (self.phase, self.since) = (phase, now);
        why.clone_into(&mut self.why);
    }

    fn begin(&mut self, now: Ms, phase: Phase, job: Job, why: &str) {
        self.go(now, phase, why);
        self.out.push(Action::Begin(job));
    }

    /// Something failed: this node stays away for a time, longer with each failure.
    fn fault(&mut self, now: Ms, why: &str) {
        self.counters.failures += 1;
        let doubled = self.plan.back_off.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        self.barred_until = now + doubled.min(self.plan.back_off_limit);
        self.out.push(Action::Alert(why.to_owned()));
    }

    fn lost(&mut self, now: Ms, why: &str) {
        if self.phase.is_busy() && !matches!(self.phase, Phase::Demoting { .. } | Phase::Stuck(_)) {
            self.out.push(Action::Alert(why.to_owned()));
            match self.phase {
                Phase::Looking | Phase::Fencing => self.release(now, why),
                Phase::Stopping { demoted: true } => {}
                _ => self.retreat(now, why),
            }
        }
    }

    /// No time to stop services: what they do is not acknowledged any more, and they may hang on it.
    fn retreat(&mut self, now: Ms, why: &str) {
        let next = Phase::Demoting { force: true, stopped: false };
        self.begin(now, next, Job::Demote { force: true }, why);
    }

    fn release(&mut self, now: Ms, why: &str) {
        self.until = None;
        match self.plan.arbiter {
            Arbiter::Etcd => self.begin(now, Phase::Releasing, Job::Release, why),
            Arbiter::Fencing => {
                why.clone_into(&mut self.why);
                self.rest(now);
            }
        }
    }

    fn rest(&mut self, now: Ms) {
        if self.lock == Lock::Mine {
            self.lock = Lock::Unknown;
        }
        let why = self.why.clone();
        self.go(now, Phase::Waiting, &why);
    }
}

//! What an agent promises of each single step, watched from outside: who may try, who may serve, and until when. It knows only what the
//! agent was told.

use crate::world::BACK_OFF;
use agent::decide::{Action, Arbiter, Disk, Event, Job, Local, Lock, Ms, Phase, Plan};

/// What one life of an agent was told, and did.
#[derive(Default)]
pub(crate) struct Watch {
    local: Option<Local>,
    /// The daemon did not answer, when it was asked after its last change of role.
    pub(crate) mute: bool,
    changed: Ms,
    lock: Option<Lock>,
    standby: bool,
    unfit: bool,
    /// The daemon was made Primary by this agent, or was found so.
    primary: bool,
    failures: u64,
    rests_until: Ms,
}

impl Watch {
    pub(crate) fn told(&mut self, now: Ms, event: &Event) {
        match event {
            Event::Local { asked, local } => {
                self.mute = local.is_err() && *asked > self.changed;
                self.primary = local.as_ref().is_ok_and(|local| local.primary);
                self.local = local.clone().ok();
            }
            Event::Lock(lock) => self.lock = Some(*lock),
            Event::Standby(standby) => self.standby = *standby,
            Event::Health(health) => self.unfit = health.is_err(),
            Event::Done(Job::Promote) => {
                (self.primary, self.mute, self.changed) = (true, false, now);
            }
            Event::Done(Job::Demote { .. })
            | Event::Failed(Job::Promote | Job::Demote { .. }, _) => {
                (self.mute, self.changed) = (false, now);
            }
            _ => {}
        }
    }

    /// After an event: it stayed away long enough from its last failure.
    pub(crate) fn counted(&mut self, now: Ms, failures: u64) {
        if failures > self.failures {
            (self.failures, self.rests_until) = (failures, now + BACK_OFF);
        }
    }

    /// What is wrong with this action, taken in this phase (by an agent that comes from `from`) while its authority lasts `until`.
    pub(crate) fn wrong(
        &self,
        plan: &Plan,
        now: Ms,
        (from, phase): (Phase, Phase),
        until: Option<Ms>,
        action: &Action,
    ) -> Option<(&'static str, String)> {
        let Action::Begin(job) = action else { return None };
        let tries = matches!(job, Job::Ask | Job::Fence | Job::Promote)
            && from == Phase::Waiting
            && phase != Phase::Asking { adopt: true };
        if tries && let Some(why) = self.must_not_try(now) {
            return Some(("HA-5", format!("begins {job:?}: {why}")));
        }
        let by_right = plan.arbiter == Arbiter::Fencing || until.is_some_and(|until| now < until);
        match job {
            Job::Promote | Job::Start if !by_right => {
                Some(("HA-3", format!("begins {job:?} without the lock")))
            }
            Job::Start if !self.primary => Some(("HA-3", "starts services as Secondary".into())),
            _ => None,
        }
    }

    fn must_not_try(&self, now: Ms) -> Option<&'static str> {
        let good = self
            .local
            .as_ref()
            .is_some_and(|local| local.disk >= Disk::Consistent || local.peer_good);
        let reasons = [
            (self.standby, "on standby"),
            (self.unfit, "not healthy"),
            (!good, "no good data"),
            (now < self.rests_until, "after a failure"),
            (self.lock == Some(Lock::Other), "the peer has the lock"),
            (self.lock == Some(Lock::Barred), "barred"),
        ];
        reasons.into_iter().find(|(is, _)| *is).map(|(_, why)| why)
    }
}

//! A world that fails, from a seed: two agents, their storages, an arbiter. Whatever happens, no two nodes acknowledge, and nothing that
//! was acknowledged is missing where it goes on. The model of the storage knows only what Pollux promises (docs/guarantees.md).

mod storage;

use crate::parts::{Chance, Etcd, Held, Storage};
use crate::promises::Watch;
use agent::decide::{
    Action, Arbiter, Decider, Disk, Event, Job, Local, Lock, Ms, NoAnswer, Phase, Plan, Word,
};
use std::collections::VecDeque;

pub(crate) const TTL: Ms = 3_000;
const MARGIN: Ms = 500;
pub(crate) const BACK_OFF: Ms = 2_000;
const STEP: Ms = 50;
/// Between two looks at the daemon.
const LOOK: Ms = 200;
/// How long an agent waits for a daemon that hangs.
pub(crate) const PATIENCE: Ms = 1_000;

pub(crate) struct Node {
    pub(crate) agent: Option<Decider>,
    storage: Storage,
    jobs: Vec<(Ms, Job)>,
    /// A look at the daemon: when it is told, when it was asked, what it said.
    look: Option<(Ms, Ms, Result<Local, NoAnswer>)>,
    revision: u64,
    renew_at: Ms,
    /// Stopped (SIGSTOP) until.
    stalled: Ms,
    incarnation: u64,
    watch: Watch,
    /// The newest instant at which a lock that it had was to end in etcd.
    expires: Ms,
    /// The peer had it barred while its daemon was down.
    barred: bool,
    services: bool,
    /// The next starts fail.
    sick: u32,
    pub(crate) back_at: Ms,
    pub(crate) daemon_back_at: Ms,
    powered: bool,
    /// Its daemon is stopped until.
    pub(crate) hung: Ms,
}

pub(crate) struct World {
    seed: u64,
    /// What can be done is done.
    pub(crate) calm: bool,
    pub(crate) chance: Chance,
    plan: Plan,
    pub(crate) now: Ms,
    pub(crate) nodes: [Node; 2],
    etcd: Etcd,
    etcd_cut: [bool; 2],
    link_cut: bool,
    heartbeat_cut: bool,
    pub(crate) acknowledged: u64,
    pub(crate) told: VecDeque<String>,
    pub(crate) started: u64,
    pub(crate) shots: u64,
}

impl World {
    pub(crate) fn new(seed: u64, arbiter: Arbiter, stonith: bool) -> Self {
        let plan = Plan {
            arbiter,
            stonith,
            dead_time: TTL,
            place: 0,
            grace: 0,
            back_off: BACK_OFF,
            back_off_limit: 8_000,
        };
        let node = || Node {
            agent: None,
            storage: Storage::default(),
            jobs: Vec::new(),
            look: None,
            revision: 0,
            renew_at: 0,
            stalled: 0,
            incarnation: 0,
            watch: Watch::default(),
            expires: 0,
            barred: false,
            services: false,
            sick: 0,
            back_at: 0,
            daemon_back_at: 0,
            powered: false,
            hung: 0,
        };
        Self {
            seed,
            calm: true,
            chance: Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            plan,
            now: 1_000,
            nodes: [node(), node()],
            etcd: Etcd::default(),
            etcd_cut: [false; 2],
            link_cut: false,
            heartbeat_cut: false,
            acknowledged: 0,
            told: VecDeque::new(),
            started: 0,
            shots: 0,
        }
    }

    fn tell(&mut self, text: String) {
        if self.told.len() > 80 {
            self.told.pop_front();
        }
        self.told.push_back(format!("{:>7} {text}", self.now));
    }

    /// The line that begins with `seed` is what the runner of seeded bugs reads.
    pub(crate) fn fail(&self, id: &str, why: &str) -> ! {
        let told: Vec<_> = self.told.iter().cloned().collect();
        panic!("\nseed {} {id} {why}\n{}", self.seed, told.join("\n"));
    }

    fn awake(&self, n: usize) -> bool {
        self.nodes[n].powered && self.now >= self.nodes[n].stalled
    }

    fn daemon_awake(&self, n: usize) -> bool {
        self.awake(n) && self.now >= self.nodes[n].hung
    }

    /// The daemon dies; what is on its disk stays.
    fn daemon_ends(&mut self, n: usize, why: &str, back_at: Ms) {
        self.tell(format!("node {n}: {why}"));
        let node = &mut self.nodes[n];
        let Storage { version, outdated, .. } = node.storage;
        node.storage = Storage { version, outdated, ..Storage::default() };
        (node.daemon_back_at, node.hung) = (back_at, 0);
    }

    /// The agent is killed, and what it set going.
    pub(crate) fn agent_ends(&mut self, n: usize, back_at: Ms) {
        self.tell(format!("agent {n} is killed"));
        let node = &mut self.nodes[n];
        (node.agent, node.revision, node.back_at) = (None, 0, back_at);
        (node.jobs, node.look) = (Vec::new(), None);
    }

    pub(crate) fn power_off(&mut self, n: usize, why: &str) {
        self.daemon_ends(n, &format!("power off: {why}"), 0);
        let node = &mut self.nodes[n];
        (node.agent, node.services, node.powered) = (None, false, false);
        (node.jobs, node.look) = (Vec::new(), None);
        node.back_at = self.now + 2_000 + self.chance.below(12_000);
    }

    // ---- the agents and what they set going ----

    pub(crate) fn event(&mut self, n: usize, event: Event) {
        let (now, node) = (self.now, &mut self.nodes[n]);
        let Some(agent) = &mut node.agent else { return };
        let (from, why) = (agent.phase, agent.why.clone());
        node.watch.told(now, &event);
        let actions = agent.handle(now, event);
        let (to, until) = (agent.phase, agent.until);
        let failures = agent.counters.failures;
        if (to, &agent.why) != (from, &why) {
            let text = format!("agent {n}: {to}: {}", agent.why);
            self.tell(text);
        }
        for action in actions {
            let wrong = self.nodes[n].watch.wrong(&self.plan, now, (from, to), until, &action);
            if let Some((id, why)) = wrong {
                self.fail(id, &format!("agent {n} {why}"));
            }
            self.act(n, action);
        }
        let node = &mut self.nodes[n];
        node.watch.counted(now, failures);
    }

    fn act(&mut self, n: usize, action: Action) {
        let etcd = self.plan.arbiter == Arbiter::Etcd;
        match action {
            Action::Begin(job) => {
                let other = &self.nodes[1 - n].storage;
                if job == Job::Promote && self.plan.stonith && etcd && other.primary {
                    self.fail("HA-1", &format!("node {n} is promoted before the other is off"));
                }
                if matches!(job, Job::Start | Job::Stop) {
                    let serving = |job: &Job| matches!(job, Job::Start | Job::Stop);
                    self.nodes[n].jobs.retain(|(_, job)| !serving(job));
                }
                if job == Job::Release {
                    self.release(n);
                }
                // Another member of etcd may have to be asked.
                let slow = job == Job::Ask && self.refuses(4);
                let at = self.now + 10 + self.chance.below(if slow { 2 * PATIENCE } else { 250 });
                self.nodes[n].jobs.push((at, job));
            }
            Action::Lease(until) => {
                if until > self.nodes[n].expires {
                    self.fail("HA-1", &format!("the lease of node {n} outlives its lock"));
                }
                if self.daemon_awake(n) && self.nodes[n].storage.up {
                    self.nodes[n].storage.lease = Some(until);
                }
            }
            Action::Abandon => self.nodes[n].renew_at = Ms::MAX,
            // Not everybody has it configured.
            Action::SelfFence if self.chance.one_in(2) => self.power_off(n, "it fences itself"),
            Action::SelfFence => {}
            Action::Alert(text) => self.tell(format!("agent {n}: ALERT {text}")),
            // What does not answer cannot be told: it is bound by its lease, or the other turns it off.
            Action::Exit if self.nodes[n].storage.primary && !self.nodes[n].watch.mute => {
                self.fail("HA-3", &format!("agent {n} leaves a Primary behind"));
            }
            Action::Exit => self.nodes[n].agent = None,
        }
    }

    fn release(&mut self, n: usize) {
        let revision = std::mem::take(&mut self.nodes[n].revision);
        if self.nodes[n].storage.primary && revision != 0 {
            self.fail("HA-3", &format!("node {n} gives the lock back as Primary"));
        }
        let mine = |held: &Held| held.node == n && held.revision == revision;
        if !self.etcd_cut[n] && self.etcd.lock.as_ref().is_some_and(mine) {
            self.etcd.lock = None;
        }
    }

    /// What is done on request now and then is not.
    fn refuses(&mut self, one_in: u64) -> bool {
        self.chance.one_in(one_in) && !self.calm
    }

    fn finish(&mut self, n: usize, job: Job) {
        let ended: Result<(), String> = match job {
            Job::Ask => return self.ask(n),
            Job::Fence => {
                self.shots += 1;
                if self.refuses(4) {
                    Err("the switch hangs".into())
                } else {
                    self.power_off(1 - n, "the agent shot it");
                    Ok(())
                }
            }
            Job::Promote => self.promote(n),
            Job::Start => {
                if self.nodes[n].sick > 0 {
                    self.nodes[n].sick -= 1;
                    Err("sick".into())
                } else if !self.nodes[n].storage.primary {
                    Err("no device".into())
                } else {
                    self.nodes[n].services = true;
                    self.started += 1;
                    Ok(())
                }
            }
            Job::Stop => {
                // What hangs on a daemon that does is not stopped.
                let hangs = self.nodes[n].services && !self.daemon_awake(n);
                self.nodes[n].services = hangs || self.refuses(20);
                if self.nodes[n].services { Err("busy".into()) } else { Ok(()) }
            }
            Job::Demote { force } => {
                let used = self.nodes[n].services && !force;
                let hangs = !self.daemon_awake(n);
                if used || hangs || self.refuses(if force { 20 } else { 10 }) {
                    Err("in use".into())
                } else {
                    (self.nodes[n].storage.primary, self.nodes[n].storage.lease) = (false, None);
                    Ok(())
                }
            }
            Job::Release => Ok(()),
        };
        let event = match ended {
            Ok(()) => Event::Done(job),
            Err(why) => Event::Failed(job, why),
        };
        self.event(n, event);
    }

    /// The request took a while, and so did the answer: when it was sent, and when etcd had it.
    fn exchange(&mut self) -> (Ms, Ms) {
        let sent = self.now - self.chance.below(300);
        (sent, sent + self.chance.below(self.now - sent + 1))
    }

    /// The lock is this node's from the instant at which etcd had its request.
    fn holds(&mut self, n: usize, had: Ms) {
        let (held, node) = (self.etcd.lock.as_mut().expect("just looked"), &mut self.nodes[n]);
        held.expires = held.expires.max(had + TTL);
        (node.expires, node.revision) = (held.expires, held.revision);
        node.renew_at = self.now + TTL / 4;
    }

    fn ask(&mut self, n: usize) {
        let (sent, had) = self.exchange();
        if self.etcd_cut[n] {
            return self.event(n, Event::Failed(Job::Ask, "etcd is away".into()));
        }
        match self.etcd.look(n) {
            Lock::Other | Lock::Barred | Lock::Unknown => {
                return self.event(n, Event::Denied("not ours".into()));
            }
            Lock::Free => {
                self.etcd.revision += 1;
                let revision = self.etcd.revision;
                self.etcd.lock = Some(Held { node: n, revision, expires: 0 });
            }
            Lock::Mine => {}
        }
        self.holds(n, had);
        self.event(n, Event::Granted(sent + TTL - MARGIN));
    }

    fn renew(&mut self, n: usize) {
        let (sent, had) = self.exchange();
        let node = &self.nodes[n];
        if let Some(agent) = node.agent.as_ref().filter(|_| node.revision != 0) {
            let leaves =
                matches!(agent.phase, Phase::Stopping { demoted: false } | Phase::Demoting { .. });
            let mute = node.watch.mute && leaves;
            if node.renew_at != Ms::MAX && (mute || matches!(agent.phase, Phase::Stuck(_))) {
                let phase = agent.phase;
                self.fail("HA-3", &format!("agent {n}, {phase}, renews the lock of a daemon that does not do as it is told"));
            }
        }
        if self.nodes[n].revision == 0 || self.now < self.nodes[n].renew_at || self.etcd_cut[n] {
            return;
        }
        match &self.etcd.lock {
            Some(held) if held.node == n && held.revision == self.nodes[n].revision => {
                self.holds(n, had);
                self.event(n, Event::Renewed(sent + TTL - MARGIN));
            }
            Some(_) | None => {
                self.nodes[n].revision = 0;
                self.event(n, Event::Lost);
            }
        }
    }

    fn boot(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        if !node.powered && now >= node.back_at {
            node.powered = true;
        }
        node.storage.up |= node.powered && now >= node.daemon_back_at;
        if node.powered && node.agent.is_none() && now >= node.back_at {
            node.incarnation += 1;
            let plan = Plan { place: u32::try_from(n).expect("0 or 1"), ..self.plan.clone() };
            node.agent = Some(Decider::new(plan, now, false));
            (node.watch, node.look) = (Watch::default(), None);
            let lock = if node.barred { Lock::Barred } else { Lock::Free };
            self.tell(format!("agent {n} starts"));
            if self.plan.arbiter == Arbiter::Fencing {
                self.event(n, Event::Lock(lock));
            }
        }
    }

    fn still_by_right(&self, n: usize) {
        let Some(agent) = &self.nodes[n].agent else { return };
        let serves = matches!(agent.phase, Phase::Starting | Phase::Active);
        let over = agent.until.is_none_or(|until| self.now >= until);
        if serves && over && self.plan.arbiter == Arbiter::Etcd {
            self.fail("HA-3", &format!("agent {n} goes on without the lock"));
        }
    }

    fn local(&self, n: usize) -> Result<Local, NoAnswer> {
        let (storage, other) = (&self.nodes[n].storage, &self.nodes[1 - n]);
        if !storage.up {
            return Err(NoAnswer::Down);
        }
        if !self.daemon_awake(n) {
            return Err(NoAnswer::Hangs);
        }
        // A Secondary that vanished tells nothing; what it is, the daemon knows from before.
        Ok(Local {
            primary: storage.primary,
            disk: match storage {
                Storage { outdated: true, .. } => Disk::Outdated,
                Storage { connected: true, .. } => Disk::UpToDate,
                Storage { .. } => Disk::Consistent,
            },
            peer_primary: storage.connected.then_some(other.storage.primary),
            peer_good: storage.connected,
        })
    }

    /// The daemon is looked at now and then, and the answer takes a while: the role may change. One that hangs answers if it goes on in time.
    fn look(&mut self, n: usize) {
        let local = self.local(n);
        let hangs = local == Err(NoAnswer::Hangs);
        let takes = if hangs { PATIENCE } else { self.chance.below(LOOK) };
        let node = &mut self.nodes[n];
        match &mut node.look {
            Some((at, _, said)) if *said == Err(NoAnswer::Hangs) && !hangs => {
                (*at, *said) = (self.now, local);
            }
            None if (self.now + node.incarnation * STEP).is_multiple_of(LOOK) => {
                node.look = Some((self.now + takes, self.now, local));
            }
            Some(_) | None => {}
        }
    }

    /// What the agent of a node says to the other, if anything.
    fn word(&self, n: usize) -> Option<Word> {
        let node = &self.nodes[n];
        let agent = node.agent.as_ref().filter(|agent| !agent.is_silent())?;
        let heard = self.awake(n) && !self.heartbeat_cut;
        heard.then(|| Word { incarnation: node.incarnation, busy: agent.is_busy() })
    }

    pub(crate) fn step(&mut self) {
        self.now += STEP;
        if self.etcd.lock.is_some_and(|held| self.now >= held.expires) {
            self.etcd.lock = None;
        }
        self.connect();
        for n in 0..2 {
            self.boot(n);
            if !self.awake(n) {
                continue;
            }
            self.look(n);
            if let Some((_, asked, local)) = self.nodes[n].look.take_if(|it| it.0 <= self.now) {
                self.event(n, Event::Local { asked, local });
            }
            if self.plan.arbiter == Arbiter::Etcd {
                let lock = if self.etcd_cut[n] { Lock::Unknown } else { self.etcd.look(n) };
                self.event(n, Event::Lock(lock));
                self.renew(n);
            } else if let Some(word) = self.word(1 - n) {
                self.event(n, Event::Heard(word));
            }
            self.event(n, Event::Tick);
            self.still_by_right(n);
            let due: Vec<_> =
                self.nodes[n].jobs.iter().filter(|(at, _)| *at <= self.now).copied().collect();
            for (at, job) in due {
                if self.nodes[n].jobs.contains(&(at, job)) {
                    self.nodes[n].jobs.retain(|it| *it != (at, job));
                    self.finish(n, job);
                }
            }
        }
        for _ in 0..2 {
            self.write();
        }
        let both = (0..2).all(|n| self.answers(n) && self.nodes[n].services);
        if both && self.plan.arbiter == Arbiter::Etcd {
            self.fail("HA-1", "two Primaries with a valid lease");
        }
    }

    pub(crate) fn misfortune(&mut self) {
        let n = usize::try_from(self.chance.below(2)).expect("0 or 1");
        let until = self.now + 500 + self.chance.below(8_000);
        match self.chance.below(12) {
            0 if self.nodes[n].powered => self.power_off(n, "misfortune"),
            1 => self.agent_ends(n, until),
            8 if self.nodes[n].powered => self.daemon_ends(n, "its daemon is killed", until),
            9 => {
                let ill = self.chance.one_in(2);
                self.event(n, Event::Health(if ill { Err("ill".into()) } else { Ok(()) }));
            }
            2 => {
                self.etcd_cut[n] = !self.etcd_cut[n];
                self.tell(format!("etcd cut: {:?}", self.etcd_cut));
            }
            3 => {
                self.link_cut = !self.link_cut;
                self.tell(format!("link cut: {}", self.link_cut));
            }
            4 if self.nodes[n].powered => {
                self.tell(format!("node {n} is stopped until {until}"));
                self.nodes[n].stalled = until;
            }
            5 => self.nodes[n].sick = 1 + u32::try_from(self.chance.below(2)).expect("small"),
            6 => {
                let standby = self.chance.one_in(2);
                self.event(n, Event::Standby(standby));
            }
            7 => self.event(n, Event::Shutdown),
            10 => {
                self.tell(format!("daemon {n} is stopped until {until}"));
                self.nodes[n].hung = until;
            }
            _ => {
                self.heartbeat_cut = !self.heartbeat_cut;
                self.tell(format!("heartbeats cut: {}", self.heartbeat_cut));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.tell("all is whole again".into());
        (self.link_cut, self.heartbeat_cut, self.etcd_cut) = (false, false, [false; 2]);
        self.calm = true;
        for n in 0..2 {
            let node = &mut self.nodes[n];
            (node.sick, node.stalled, node.hung) = (0, 0, 0);
            self.nodes[n].back_at = self.nodes[n].back_at.min(self.now + 1_000);
            self.event(n, Event::Standby(false));
            self.event(n, Event::Health(Ok(())));
        }
    }

    pub(crate) fn serving(&self) -> Vec<usize> {
        let active = |n: &usize| {
            let node = &self.nodes[*n];
            node.agent.as_ref().is_some_and(|agent| agent.phase == Phase::Active)
                && node.services
                && self.answers(*n)
        };
        (0..2).filter(active).collect()
    }

    pub(crate) fn run(&mut self, time: Ms) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }
}

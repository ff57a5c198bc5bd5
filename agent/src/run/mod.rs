//! The shell around one resource: facts are fetched and told to `decide`, jobs it wants are set going, and their ends told to it. No
//! decision is made here.

mod look;

use crate::arbiter::etcd::{Asked, Etcd, Held};
use crate::arbiter::http::Members;
use crate::clock;
use crate::config::Resource;
use crate::control::{Reply, Verb};
use crate::daemon::Daemon;
use crate::decide::{Action, Arbiter, Decider, Disk, Event, Job, Local, Lock, Ms, NoAnswer, Phase};
use crate::handler::code::NOTHING;
use crate::handler::{Means, View};
use crate::peer::{Answer, Heard, Names, Peer};
use crate::services;
use crate::state::State;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::interval;

/// Facts that wait to be told.
const QUEUE: usize = 64;
/// The machine has no clock of its own.
const TICK: Duration = Duration::from_millis(100);
/// What the state directory notes.
const STANDBY: &str = "standby";
const BARRED: &str = "barred";

/// What comes to the loop.
enum Message {
    Event(Event),
    /// Of the daemon, asked then.
    Local(Ms, Result<Local, NoAnswer>),
    Granted(Held),
    /// The lock: renewed until.
    Renewed(Ms),
    /// The handler had the peer turned off.
    Shot,
    /// The peer had us barred while the daemon was down.
    Barred,
}

/// A resource that runs; its loop ends after SIGTERM.
pub(crate) struct Running {
    /// Operators and handlers.
    pub(crate) asked: mpsc::Sender<(Verb, oneshot::Sender<Reply>)>,
    /// SIGTERM.
    pub(crate) shutdown: mpsc::Sender<()>,
    pub(crate) task: JoinHandle<()>,
}

struct Loop {
    decider: Decider,
    means: Arc<Means>,
    state: State,
    messages: mpsc::Sender<Message>,
    renewal: Option<JoinHandle<()>>,
    serving: Option<JoinHandle<()>>,
    /// Barred by the peer while the daemon was down; since when.
    barred: Option<Ms>,
}

/// Starts it.
///
/// # Errors
/// If an address or a file of its cannot be had.
pub(crate) async fn start(
    resource: Resource,
    run_dir: &Path,
    state: &State,
    incarnation: u64,
) -> Result<Running, String> {
    let Resource { name, facts, plan, .. } = &resource;
    let (messages, inbox) = mpsc::channel(QUEUE);
    let etcd = resource.etcd.as_ref().map(|(said, access)| {
        let limit = Duration::from_millis((plan.dead_time / 4).min(1_000));
        Etcd {
            members: Members::new(said.endpoints.clone(), access.clone(), limit),
            prefix: format!("/pollux/{}/{name}", said.cluster),
            me: facts.me.name.clone(),
            peer: facts.peer.name.clone(),
            incarnation,
            ttl: plan.dead_time,
            margin: resource.margin,
        }
    });
    let (heard, hearing) = mpsc::channel(QUEUE);
    let peer = if resource.routes.is_empty() {
        None
    } else {
        let names = Names {
            resource: name.clone(),
            me: facts.me.name.clone(),
            peer: facts.peer.name.clone(),
            incarnation,
            secret: facts.secret.clone().unwrap_or_default(),
        };
        let every = Duration::from_millis((plan.dead_time / 10).clamp(100, 500));
        Some(Peer::start(names, &resource.routes, every, heard).await?)
    };
    let now = clock::now();
    let mut decider = Decider::new(plan.clone(), now, state.has(name, STANDBY));
    let barred = state.has(name, BARRED).then_some(now);
    if plan.arbiter == Arbiter::Fencing {
        decider.handle(now, Event::Lock(barred.map_or(Lock::Free, |_| Lock::Barred)));
    }
    let view = View {
        phase: Phase::Waiting,
        held: None,
        renewing: false,
        fenced: false,
        silent_since: now,
        unfit: None,
    };
    let means = Arc::new(Means {
        view: view.into(),
        daemon: Daemon::new(run_dir, name),
        etcd,
        peer,
        shooting: tokio::sync::Mutex::new(()),
        resource,
    });
    tokio::spawn(look::at_daemon(means.clone(), messages.clone()));
    tokio::spawn(look::at_lock(means.clone(), messages.clone()));
    tokio::spawn(look::at_health(means.clone(), messages.clone()));
    tokio::spawn(look::at_services(means.clone(), messages.clone()));
    let (asked, questions) = mpsc::channel(QUEUE);
    let (shutdown, ending) = mpsc::channel(1);
    let state = state.clone();
    let it = Loop { decider, means, state, messages, renewal: None, serving: None, barred };
    let task = tokio::spawn(it.run(inbox, hearing, questions, ending));
    Ok(Running { asked, shutdown, task })
}

impl Loop {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut hearing: mpsc::Receiver<Heard>,
        mut questions: mpsc::Receiver<(Verb, oneshot::Sender<Reply>)>,
        mut ending: mpsc::Receiver<()>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.event(Event::Tick),
                Some(message) = inbox.recv() => self.message(message),
                Some(heard) = hearing.recv() => self.heard(heard),
                Some((verb, answer)) = questions.recv() => self.question(verb, answer),
                Some(()) = ending.recv() => self.event(Event::Shutdown),
            }
            if self.decider.phase == Phase::Ended {
                return;
            }
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.event(event),
            Message::Local(asked, local) => {
                if self.barred.is_some_and(|since| since < asked) {
                    self.unbar(local.as_ref().ok());
                }
                self.event(Event::Local { asked, local });
            }
            Message::Granted(held) => {
                let every = Duration::from_millis(
                    (held.until.saturating_sub(clock::now()) / 4).clamp(100, 2_000),
                );
                let task =
                    look::renew(self.means.clone(), held.clone(), every, self.messages.clone());
                self.stop_renewing();
                self.renewal = Some(tokio::spawn(task));
                let until = held.until;
                self.change_view(|view| (view.held, view.renewing) = (Some(held), true));
                self.event(Event::Granted(until));
            }
            Message::Renewed(until) => self.event(Event::Renewed(until)),
            Message::Shot => self.decider.fenced_for_daemon(),
            Message::Barred => {
                // What the daemon said before it went down does not lift it.
                self.barred = Some(clock::now());
                self.event(Event::Lock(Lock::Barred));
            }
        }
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Word(word) => {
                self.change_view(|view| view.silent_since = clock::now());
                self.event(Event::Heard(word));
            }
            Heard::StayAway(answer) => self.stay_away(answer),
        }
    }

    fn name(&self) -> &str {
        &self.means.resource.name
    }

    fn change_view(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.means.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn stop_renewing(&mut self) {
        if let Some(task) = self.renewal.take() {
            task.abort();
        }
        self.change_view(|view| view.renewing = false);
    }

    fn event(&mut self, event: Event) {
        let before = (self.decider.phase, self.decider.why.clone());
        let now = clock::now();
        let actions = self.decider.handle(now, event);
        let decider = &self.decider;
        if (decider.phase, &decider.why) != (before.0, &before.1) {
            tracing::info!("{}: {}: {}", self.name(), decider.phase, decider.why);
        }
        let (phase, fenced) = (decider.phase, decider.is_fenced());
        let unfit = decider.unfit.clone();
        self.change_view(|view| (view.phase, view.fenced, view.unfit) = (phase, fenced, unfit));
        if let Some(peer) = &self.means.peer {
            peer.manner.busy.store(self.decider.is_busy(), Ordering::Release);
            peer.manner.silent.store(self.decider.is_silent(), Ordering::Release);
        }
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(job) => self.begin(job),
            Action::Lease(until) => {
                let means = self.means.clone();
                tokio::spawn(async move {
                    if let Err(why) = means.daemon.lease(until).await {
                        let name = &means.resource.name;
                        tracing::warn!("{name}: the daemon did not take its lease: {why}");
                    }
                });
            }
            Action::Abandon => self.stop_renewing(),
            Action::SelfFence => match &self.means.resource.self_fence {
                Some(line) => {
                    tracing::error!("{}: this node fences itself: {line}", self.name());
                    let mut shell = Command::new("sh");
                    shell.args(["-c", line]);
                    tokio::spawn(crate::program::run(shell, "", Duration::from_secs(60)));
                }
                None => tracing::error!(
                    "{}: this node should be turned off, and no `self-fence` is configured",
                    self.name()
                ),
            },
            Action::Alert(why) => tracing::error!("{}: {why}", self.name()),
            Action::Exit => {}
        }
    }

    fn begin(&mut self, job: Job) {
        let (means, to) = (self.means.clone(), self.messages.clone());
        let held = means.view().held;
        if job == Job::Release {
            self.stop_renewing();
            self.change_view(|view| view.held = None);
        }
        let work = async move {
            let Resource { name, plan, services, .. } = &means.resource;
            let ended = match job {
                Job::Ask => return ask(&means, &to).await,
                Job::Fence => means.shoot().await,
                Job::Promote => means.daemon.promote(plan.arbiter == Arbiter::Etcd).await,
                Job::Start => services::start(services, name).await,
                Job::Stop => services::stop(services, name).await,
                Job::Demote { force } => means.daemon.demote(force).await,
                Job::Release => match (&means.etcd, held) {
                    (Some(etcd), Some(held)) => etcd.release(&held).await,
                    _ => Ok(()),
                },
            };
            let event = match ended {
                Ok(()) => Event::Done(job),
                Err(why) => Event::Failed(job, why),
            };
            // The loop is gone: so is the need.
            let _ = to.send(Message::Event(event)).await;
        };
        let task = tokio::spawn(work);
        if matches!(job, Job::Start | Job::Stop) {
            // Two at a time would undo each other's steps; what it ran is killed with it.
            if let Some(old) = self.serving.replace(task) {
                old.abort();
            }
        }
    }

    // ---- without a third machine ----

    /// The peer, which has lost us, asks us to stay away: we say yes only if that outlives this agent and the daemon.
    fn stay_away(&mut self, answer: oneshot::Sender<Answer>) {
        let promoting = matches!(self.decider.phase, Phase::Promoting(_) | Phase::Fencing);
        let facts = &self.means.resource.facts;
        // Of two that cannot both have their will the lower has it.
        if promoting && facts.me.id < facts.peer.id {
            let _ = answer.send(Answer::Refused);
            return;
        }
        let (means, state, to) = (self.means.clone(), self.state.clone(), self.messages.clone());
        tokio::spawn(async move {
            let name = &means.resource.name;
            let said = match means.daemon.outdate().await {
                Some(said) => said,
                None => match state.set(name, BARRED, true) {
                    Ok(()) => {
                        // The loop is gone: so is the danger, the file stays.
                        let _ = to.send(Message::Barred).await;
                        Answer::Barred
                    }
                    Err(error) => {
                        tracing::error!("{name}: cannot be barred: {error}");
                        Answer::Refused
                    }
                },
            };
            let _ = answer.send(said);
        });
    }

    /// Ours is as good as the peer's again, as a daemon says that was down when we were barred.
    fn unbar(&mut self, local: Option<&Local>) {
        let same = local.is_some_and(|local| local.disk == Disk::UpToDate && local.peer_good);
        if !same || self.means.resource.plan.arbiter != Arbiter::Fencing {
            return;
        }
        match self.state.set(self.name(), BARRED, false) {
            Ok(()) => {
                self.barred = None;
                self.event(Event::Lock(Lock::Free));
            }
            Err(error) => tracing::error!("{}: stays barred: {error}", self.name()),
        }
    }

    // ---- operators, handlers ----

    fn question(&mut self, verb: Verb, answer: oneshot::Sender<Reply>) {
        match verb {
            Verb::Status => {
                let _ = answer.send(Reply::new(0, self.status().to_string()));
            }
            Verb::Standby | Verb::Unstandby => {
                let wanted = verb == Verb::Standby;
                let kept = self.state.set(self.name(), STANDBY, wanted);
                self.event(Event::Standby(wanted));
                let reply = match kept {
                    Ok(()) => Reply::new(0, ""),
                    Err(error) => {
                        let text = format!("{}: not kept over a restart: {error}", self.name());
                        Reply::new(tools::code::FAILED, text)
                    }
                };
                let _ = answer.send(reply);
            }
            Verb::FencePeer => {
                let (means, to) = (self.means.clone(), self.messages.clone());
                tokio::spawn(async move {
                    let (reply, shot) = means.fence_peer().await;
                    let name = &means.resource.name;
                    tracing::info!("{name}: fence-peer: {}: {}", reply.code, reply.text);
                    if shot {
                        let _ = to.send(Message::Shot).await;
                    }
                    let _ = answer.send(reply);
                });
            }
            Verb::UnfencePeer => {
                let means = self.means.clone();
                tokio::spawn(async move {
                    let reply = match means.unfence_peer().await {
                        Ok(()) => Reply::new(0, ""),
                        Err(text) => Reply::new(NOTHING, text),
                    };
                    let _ = answer.send(reply);
                });
            }
        }
    }

    fn status(&self) -> Value {
        let decider = &self.decider;
        let Resource { name, facts, plan, .. } = &self.means.resource;
        let now = clock::now();
        let left = |until: Ms| until.saturating_sub(now);
        let local = decider.local.as_ref().ok();
        json!({
            "resource": name,
            "phase": decider.phase.to_string(),
            "why": decider.why,
            "standby": decider.standby,
            "arbiter": plan.arbiter,
            "lock": format!("{:?}", decider.lock),
            "authority-ms": decider.until.map(left),
            "primary": local.map(|local| local.primary),
            "disk": local.map(|local| format!("{:?}", local.disk)),
            "connected": local.map(|local| local.peer_primary.is_some()),
            "peer": facts.peer.name,
            "peer-silent-ms": self.means.peer.as_ref().map(|_| decider.silence(now)),
            "peer-fenced": decider.is_fenced(),
            "unfit": decider.unfit,
            "takeovers": decider.counters.takeovers,
            "fences": decider.counters.fences,
            "failures": decider.counters.failures,
        })
    }
}

async fn ask(means: &Means, to: &mpsc::Sender<Message>) {
    let answer = match &means.etcd {
        Some(etcd) => etcd.ask().await,
        None => Err("no etcd is configured".into()),
    };
    let message = match answer {
        Ok(Asked::Granted(held)) => Message::Granted(held),
        Ok(Asked::Denied(why)) => Message::Event(Event::Denied(why)),
        Err(why) => Message::Event(Event::Failed(Job::Ask, why)),
    };
    let _ = to.send(message).await;
}

//! What Pollux's handlers come to: `fence-peer`, whose exit code says what became of a lost peer, and `unfence-peer`. They may take
//! their time, I/O is suspended meanwhile; a guess is never an answer.

use crate::arbiter::etcd::{Etcd, Held, Outdated};
use crate::config::Resource;
use crate::control::Reply;
use crate::daemon::Daemon;
use crate::decide::{Disk, Ms, NoAnswer, Phase};
use crate::peer::{Answer, Peer};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Exit codes of a `fence-peer` handler, as DRBD has them.
pub(crate) mod code {
    /// Nothing was achieved.
    pub(crate) const NOTHING: u8 = 1;
    pub(crate) const INCONSISTENT: u8 = 3;
    pub(crate) const OUTDATED: u8 = 4;
    pub(crate) const I_AM_OUTDATED: u8 = 6;
    /// The peer is verified off.
    pub(crate) const SHOT: u8 = 7;
}

const AGAIN: Duration = Duration::from_millis(200);
/// Power switches want to be left alone for a moment.
const AFTER_A_MISS: Duration = Duration::from_secs(1);

/// What the handlers see of the state of their resource: it is another task's.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) held: Option<Held>,
    /// And is being renewed.
    pub(crate) renewing: bool,
    /// The peer was verified off and has been silent since.
    pub(crate) fenced: bool,
    /// Since when the peer's agent has not been heard.
    pub(crate) silent_since: Ms,
    pub(crate) unfit: Option<String>,
}

/// What a handler works with.
pub(crate) struct Means {
    pub(crate) view: Mutex<View>,
    pub(crate) daemon: Daemon,
    pub(crate) etcd: Option<Etcd>,
    pub(crate) peer: Option<Peer>,
    /// One at a time: the second finds it done.
    pub(crate) shooting: tokio::sync::Mutex<()>,
    pub(crate) resource: Resource,
}

impl Means {
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon lost its peer, as Primary or on the way there. The second: the peer was turned off for that.
    pub(crate) async fn fence_peer(&self) -> (Reply, bool) {
        // The daemon's patience with a handler is longer.
        let patience = self.resource.facts.handler_timeout.saturating_sub(5).max(1);
        let until = Instant::now() + Duration::from_secs(patience);
        let mut why = String::from("there was no time");
        while Instant::now() < until {
            let answer = match &self.etcd {
                Some(etcd) => self.bar(etcd).await.map(Some),
                None => self.ask().await,
            };
            why = match answer {
                Ok(Some(reply)) => return (reply, false),
                Ok(None) => {
                    let _one = self.shooting.lock().await;
                    match self.off().await {
                        Ok(true) => {
                            return (Reply::new(code::SHOT, "the peer is verified off"), true);
                        }
                        Ok(false) => return (Reply::new(code::SHOT, "the peer is off"), false),
                        // Again, as long as there is time: I/O is suspended.
                        Err(why) => {
                            tracing::error!("fencing failed: {why}");
                            sleep(AFTER_A_MISS).await;
                            format!("fencing failed: {why}")
                        }
                    }
                }
                Err(why) => why,
            };
            sleep(AGAIN).await;
        }
        (Reply::new(code::NOTHING, why), false)
    }

    /// With etcd: the peer can never take the lock again, before it has our data.
    async fn bar(&self, etcd: &Etcd) -> Result<Reply, String> {
        let view = self.view();
        let Some(held) = view.held else {
            if view.phase.is_busy() {
                return Err("the lock is not known to be ours".into());
            }
            let text = "this node does not have the lock, and must not be Primary";
            return Ok(Reply::new(code::NOTHING, text));
        };
        Ok(match etcd.outdate_peer(&held).await? {
            Outdated::Peer => Reply::new(code::OUTDATED, "etcd knows that the peer is outdated"),
            Outdated::Me => {
                Reply::new(code::I_AM_OUTDATED, "the peer has gone on: this node is outdated")
            }
            Outdated::Neither => Reply::new(code::NOTHING, "the lock is lost"),
        })
    }

    /// Without a third machine: the peer's word; `None`: it must be off.
    async fn ask(&self) -> Result<Option<Reply>, String> {
        let view = self.view();
        let said = |code, text: &str| Ok(Some(Reply::new(code, text)));
        if !view.phase.wants_peer_gone() {
            let text = format!("the agent is {}: this node is not to be Primary", view.phase);
            return said(code::NOTHING, &text);
        }
        if view.fenced {
            return said(code::SHOT, "the peer was turned off before, and is silent");
        }
        let (Some(peer), Some(_)) = (&self.peer, &self.resource.stonith) else {
            return said(code::NOTHING, "no way to fence is configured");
        };
        let dead = view.silent_since + self.resource.plan.dead_time;
        let left = dead.saturating_sub(crate::clock::now());
        if left > 0 {
            // No longer than it takes to be dead: who has the resource shoots before the other does.
            let asking = tokio::time::timeout(Duration::from_millis(left), peer.stay_away());
            return match asking.await.ok().flatten() {
                Some(Answer::Outdated) => said(code::OUTDATED, "the peer's agent has it outdated"),
                // Out of the way as one that is off; that our data is the newest is not said with it.
                Some(Answer::Barred) => said(
                    code::SHOT,
                    "the peer's daemon is down, and its agent keeps it from being Primary",
                ),
                Some(Answer::Inconsistent) => {
                    said(code::INCONSISTENT, "the peer's data is Inconsistent or worse")
                }
                Some(Answer::Primary) if matches!(view.phase, Phase::Promoting(_)) => {
                    said(code::I_AM_OUTDATED, "the peer is Primary")
                }
                Some(Answer::Primary) => said(code::NOTHING, "both nodes are Primary"),
                Some(Answer::Refused) => Err("the peer's agent refuses to stay away".into()),
                None => Err("the peer's agent does not answer yet".into()),
            };
        }
        match view.unfit {
            Some(why) => {
                let text = format!("this node is not healthy, it shoots nobody: {why}");
                said(code::NOTHING, &text)
            }
            None => Ok(None),
        }
    }

    /// Both copies are good: the peer may be Primary again. What is removed is the note that was there before the copies were looked at.
    pub(crate) async fn unfence_peer(&self) -> Result<(), String> {
        let Some(etcd) = &self.etcd else { return Ok(()) };
        let Some(note) = etcd.peer_note().await? else { return Ok(()) };
        let local = self.daemon.local().await.map_err(NoAnswer::text)?;
        if local.disk != Disk::UpToDate || !local.peer_good {
            return Err("the copies are not both good any more".into());
        }
        etcd.forget(&note).await
    }

    /// While this node is Primary etcd says of the peer what is true: outdated as long as it is away, not when both copies are good.
    pub(crate) async fn tidy(&self) -> Result<(), String> {
        let (Some(etcd), view) = (&self.etcd, self.view()) else { return Ok(()) };
        let (Phase::Active, Some(held)) = (view.phase, view.held) else { return Ok(()) };
        let note = etcd.peer_note().await?;
        let local = self.daemon.local().await.map_err(NoAnswer::text)?;
        match note {
            Some(note) if local.disk == Disk::UpToDate && local.peer_good => {
                etcd.forget(&note).await
            }
            // An operator's `resume-io` may have let it go on alone.
            None if local.primary && local.peer_primary.is_none() => {
                etcd.outdate_peer(&held).await.map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Turns the peer off, unless it is.
    pub(crate) async fn shoot(&self) -> Result<(), String> {
        let _one = self.shooting.lock().await;
        self.off().await.map(drop)
    }

    /// The same for who has `shooting`; `false`: it was off before.
    async fn off(&self) -> Result<bool, String> {
        let stonith = self.resource.stonith.as_ref().ok_or("no stonith is configured")?;
        if self.view().fenced {
            return Ok(false);
        }
        stonith.off().await.map(|()| true)
    }
}

//! What is looked at now and then: the daemon, the lock, the health of this node, the services; and the renewal of the lock.

use super::Message;
use crate::arbiter::etcd::Held;
use crate::clock;
use crate::config::Resource;
use crate::decide::{Event, Lock, Phase};
use crate::handler::Means;
use crate::services;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Between two looks at the daemon, at the lock, at notes that may go.
const LOOK: Duration = Duration::from_millis(200);
const TIDY: Duration = Duration::from_secs(1);
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_millis(100);
/// So many looks in a row must find a service down.
const DOWN: u32 = 2;

pub(super) async fn at_daemon(means: Arc<Means>, to: mpsc::Sender<Message>) {
    let mut again = interval(LOOK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let asked = clock::now();
        let local = means.daemon.local().await;
        if to.send(Message::Local(asked, local)).await.is_err() {
            return;
        }
    }
}

pub(super) async fn at_lock(means: Arc<Means>, to: mpsc::Sender<Message>) {
    let Some(etcd) = &means.etcd else { return };
    let (mut again, mut tidy) = (interval(LOOK), interval(TIDY));
    let mut answers = true;
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = again.tick() => {
                // While it is ours the renewal looks.
                let lock = if means.view().renewing {
                    Lock::Mine
                } else {
                    let looked = etcd.look().await;
                    // Once; the same comes five times a second.
                    if let (Err(why), true) = (&looked, answers) {
                        tracing::warn!("nothing is known of the lock: {why}");
                    }
                    answers = looked.is_ok();
                    looked.unwrap_or(Lock::Unknown)
                };
                if to.send(Message::Event(Event::Lock(lock))).await.is_err() {
                    return;
                }
            }
            _ = tidy.tick() => {
                // Where the handlers could not, or were passed over by an operator.
                if let Err(why) = means.tidy().await {
                    tracing::debug!("the note about the peer is not as it should be: {why}");
                }
            }
        }
    }
}

pub(super) async fn at_health(means: Arc<Means>, to: mpsc::Sender<Message>) {
    let Some(said) = &means.resource.health else { return };
    let (mut again, mut failures) = (interval(said.every), 0_u32);
    loop {
        again.tick().await;
        let mut shell = Command::new("sh");
        shell.args(["-c", &said.program]);
        let ended = crate::program::run(shell, "", said.every).await.and_then(|ended| ended.well());
        let told = match ended {
            Ok(()) => {
                failures = 0;
                Ok(())
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                if failures < said.failures {
                    continue;
                }
                Err(format!("the health check failed {failures} times: {why}"))
            }
        };
        if to.send(Message::Event(Event::Health(told))).await.is_err() {
            return;
        }
    }
}

pub(super) async fn at_services(means: Arc<Means>, to: mpsc::Sender<Message>) {
    let Resource { name, services, monitor, .. } = &means.resource;
    let (mut again, mut failures) = (interval(*monitor), 0);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        if means.view().phase != Phase::Active {
            failures = 0;
            continue;
        }
        match services::all_run(services, name).await {
            Ok(()) => failures = 0,
            Err(why) => {
                failures += 1;
                tracing::warn!("{name}: {why}");
                if failures >= DOWN && to.send(Message::Event(Event::Down(why))).await.is_err() {
                    return;
                }
            }
        }
    }
}

pub(super) async fn renew(
    means: Arc<Means>,
    held: Held,
    every: Duration,
    to: mpsc::Sender<Message>,
) {
    let Some(etcd) = &means.etcd else { return };
    loop {
        sleep(every).await;
        let message = loop {
            match etcd.renew(&held).await {
                Ok(Some(until)) => break Message::Renewed(until),
                Ok(None) => break Message::Event(Event::Lost),
                Err(why) => tracing::warn!("the lock was not renewed: {why}"),
            }
            sleep(AGAIN).await;
        };
        let over = matches!(message, Message::Event(_));
        if to.send(message).await.is_err() || over {
            return;
        }
    }
}

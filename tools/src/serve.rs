//! What `polluxd` does: runs one resource with its NBD server and its control socket, until it is
//! brought down or told to end.

use crate::config::{Listen, Resource};
use crate::export::{ResourceExports, Waiting};
use crate::failure::{Failure, Result};
use crate::resource::setup;
use crate::status::{self, AttachErrors, list};
use bitmap::NodeId;
use nbd_server::{Address, Limits, Listener, Server};
use replicator::daemon::control::{Control, Names, Page, RunLock};
use replicator::daemon::{Daemon, OrderError, Remote};
use replicator::node::Command;
use sd_notify::NotifyState;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_local;

/// How long an orderly end may take; then the process ends as it is, which loses nothing either.
const ORDERLY_END: Duration = Duration::from_secs(30);
/// How long operators' questions may still be answered at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs `resource` of the configuration `config` until it ends. With `up`, attaches its disks and looks for its peers at once.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn serve(config: &Path, resource: &Resource, run_dir: &Path, up: bool) -> Result {
    let lock = RunLock::take(run_dir, &resource.name).map_err(Failure::failed)?;
    // The owner spins before it sleeps: meanwhile the kernel is asked often what clients and peers have sent.
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(2).build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| Failure::of("start", error))?;
    runtime.block_on(run(config, resource, run_dir, up, &lock))
}

async fn run(
    config: &Path,
    resource: &Resource,
    run_dir: &Path,
    up: bool,
    lock: &RunLock,
) -> Result {
    let mut signals = Signals::new(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let daemon =
        Daemon::<Waiting>::new(setup(resource, config, run_dir)).await.map_err(Failure::failed)?;
    let (handle, remote) = (daemon.handle(), daemon.remote());
    let volumes = resource.me.volumes.iter().map(|volume| volume.number).collect();
    let server =
        Server::new(ResourceExports::new(handle, &resource.name, volumes), Limits::DEFAULT);
    for listen in &resource.me.nbd {
        let address = match listen {
            Listen::Unix => Address::Unix(run_dir.join(format!("{}.nbd", resource.name))),
            Listen::Tcp(address) => Address::Tcp(*address),
        };
        let listener = Listener::bind(&address).await;
        let listener = listener.map_err(|error| Failure::of(&error, &error.source))?;
        tracing::info!("NBD clients are served at {address}");
        let server = server.clone();
        spawn_local(async move { server.listen(listener).await });
    }
    let errors = Arc::new(Mutex::new(AttachErrors::new()));
    let names = Names {
        resource: resource.name.clone(),
        node: resource.me.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        peers: resource.peers.iter().map(|p| (NodeId(p.node_id), p.name.clone())).collect(),
    };
    let control = Control::start(lock, remote.clone(), names, pages(resource, &errors));
    let control = control.map_err(Failure::failed)?;
    let mut running = spawn_local(daemon.run());
    tracing::info!("{} runs as node {} ({})", resource.name, resource.me.node_id, resource.me.name);
    let bring_up = async {
        if up {
            self::bring_up(resource, &remote, &errors).await;
        }
        notify(NotifyState::Ready);
        // Signals and the end of the daemon are waited for beside this.
        std::future::pending::<()>().await;
    };
    let is_over = tokio::select! {
        _ = &mut running => true,
        () = signals.next() => false,
        () = bring_up => unreachable!("it waits for ever"),
    };
    notify(NotifyState::Stopping);
    if !is_over {
        tracing::info!("told to end: clients first, then the peer, then the disks; once more: now");
        let orderly = tokio::time::timeout(ORDERLY_END, async {
            end(&server, &remote).await;
            let _ = (&mut running).await;
        });
        tokio::select! {
            ended = orderly => {
                if ended.is_err() {
                    tracing::warn!("no orderly end in time: ending as after a crash");
                }
            }
            () = signals.next() => tracing::warn!("told to end now: ending as after a crash"),
        }
    }
    server.shut_down("the daemon ends").await;
    control.end(LAST_ANSWERS);
    Ok(())
}

/// Attaches all disks and looks for the peers. What is refused is told, and the rest goes on.
async fn bring_up(resource: &Resource, remote: &Remote, errors: &Mutex<AttachErrors>) {
    for (volume, _) in remote.volumes().filter(|(_, has_disk)| *has_disk) {
        if let Err(error) = remote.attach(volume).await {
            tracing::error!("no disk: {error}");
            let text = format!(
                "the disk could not be attached: {error}; then `polluxadm attach {}/{volume}`",
                resource.name
            );
            errors.lock().unwrap_or_else(PoisonError::into_inner).insert(volume, text);
        }
    }
    if let Ok(snapshot) = remote.snapshot().await {
        let status = status::json(resource, &snapshot, &AttachErrors::new());
        for device in list(&status, "devices") {
            if let Some(reason) = device["reason"].as_str() {
                tracing::warn!("volume {}: {reason}", device["volume"]);
            }
        }
    }
    if !resource.peers.is_empty()
        && let Err(error) = remote.command(Command::Connect { discard_my_data: false }).await
    {
        tracing::error!("not connecting: {error}");
    }
}

/// Closes the exports, becomes Secondary, leaves the peer, lets the disks go.
async fn end(server: &Server<ResourceExports>, remote: &Remote) {
    server.shut_down("the daemon ends").await;
    let steps = [Command::Secondary { force: true }, Command::Down];
    for command in steps {
        match remote.command(command).await {
            Ok(()) => {}
            Err(OrderError::Ending) => return,
            Err(OrderError::Refused(refusal)) => {
                tracing::warn!("on the way down: {}", refusal.text);
            }
        }
    }
    // Also if going down was refused: it was the operator's word.
    remote.end().await;
}

fn pages(resource: &Resource, errors: &Arc<Mutex<AttachErrors>>) -> Vec<Page> {
    let errors = Arc::clone(errors);
    let (one, other) = (resource.clone(), resource.clone());
    let status = move |snapshot: &_| {
        let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
        status::json(&one, snapshot, &errors)
    };
    let generations = move |snapshot: &_| status::generations(&other, snapshot);
    vec![("/status", Box::new(status)), ("/generations", Box::new(generations))]
}

/// Signals that mean "end".
pub(crate) struct Signals(Vec<Signal>);

impl Signals {
    pub(crate) fn new(kinds: &[SignalKind]) -> Result<Self> {
        let signals = kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>();
        signals.map(Self).map_err(|error| Failure::of("listen to signals", error))
    }

    pub(crate) async fn next(&mut self) {
        let Self(signals) = self;
        poll_fn(|cx| match signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// Tells systemd, if it asked to be told.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("systemd cannot be told: {error}");
    }
}

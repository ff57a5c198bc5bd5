//! The operator's programs: each is a line for the shell, run beside the loop, bounded in time. What their exit codes mean
//! is the node's business.
//!
//! What they print goes where the daemon's log goes. When the daemon ends, those that run go on by themselves.

use super::limits;
use crate::node::{Event, Handler, HandlerId, Occasion};
use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Names and values.
pub type Variables = Vec<(String, String)>;

/// The programs of one resource.
#[derive(Clone)]
pub struct Programs {
    /// Lines for `/bin/sh -c`.
    pub lines: BTreeMap<Occasion, String>,
    /// How long one may run; then it is killed, with all that it started.
    pub patience: Duration,
    /// What it finds in its environment beside this process's own.
    pub environment: Arc<dyn Fn(&Handler) -> Variables>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Default for Programs {
    fn default() -> Self {
        let environment = Arc::new(|_: &Handler| Vec::new());
        Self { lines: BTreeMap::new(), patience: Duration::from_secs(60), environment }
    }
}

type Ended = (HandlerId, Result<i32, String>);

pub(super) struct Handlers {
    programs: Programs,
    /// Those whose exit code nobody waits for and that run now.
    unheard: Arc<()>,
    ends: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Handlers {
    pub(super) fn new(programs: Programs) -> Self {
        let (ends, ended) = mpsc::unbounded_channel();
        Self { programs, unheard: Arc::new(()), ends, ended }
    }

    /// Starts one, or says at once why not.
    pub(super) fn run(&self, id: HandlerId, handler: &Handler) {
        let name = handler.occasion.name();
        let Some(line) = self.programs.lines.get(&handler.occasion) else {
            let end = match handler.occasion {
                // Nobody has anything against it.
                Occasion::BeforeResyncTarget => Ok(0),
                _ => Err("is not configured (`handlers` of the resource)".into()),
            };
            return self.end(id, end);
        };
        let decides =
            matches!(handler.occasion, Occasion::FencePeer | Occasion::BeforeResyncTarget);
        // LIM: the node asks for one decision at a time of each peer.
        if !decides && Arc::strong_count(&self.unheard) > limits::HANDLERS {
            let why = format!("is not run: {} handlers run already", limits::HANDLERS);
            tracing::warn!("{name} {why}");
            return self.end(id, Err(why));
        }
        let ticket = (!decides).then(|| Arc::clone(&self.unheard));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).envs((self.programs.environment)(handler));
        command.stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0);
        tracing::info!("{name} runs: {line}");
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return self.end(id, Err(format!("cannot be started: {error}"))),
        };
        let (ends, patience) = (self.ends.clone(), self.programs.patience);
        tokio::spawn(async move {
            let end = wait(child, patience).await;
            match &end {
                Ok(code) => tracing::info!("{name} ended with exit code {code}"),
                Err(why) => tracing::error!("{name} {why}"),
            }
            // The loop may have ended.
            let _ = ends.send((id, end));
            drop(ticket);
        });
    }

    fn end(&self, id: HandlerId, end: Result<i32, String>) {
        self.ends.send((id, end)).expect("the receiver is here");
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        while let Poll::Ready(Some((id, end))) = self.ended.poll_recv(cx) {
            events.push(Event::Handler(id, end));
        }
    }
}

async fn wait(mut child: Child, patience: Duration) -> Result<i32, String> {
    if let Ok(end) = tokio::time::timeout(patience, child.wait()).await {
        let status: ExitStatus = end.map_err(|error| format!("was lost: {error}"))?;
        return status.code().ok_or_else(|| format!("was ended: {status}"));
    }
    if let Some(group) = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
        // It may end this very moment.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait().await;
    Err(format!("did not end in {} s and was killed", patience.as_secs()))
}

//! How operators and Pollux's handlers reach a running agent: a Unix socket, one line of JSON there, one back, for the agent's own user
//! only. What is asked is answered elsewhere.

use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Who talks at the same time, at most.
const CONNECTIONS: usize = 32;
/// Bytes of a line, at most.
const LONGEST: u64 = 64 << 10;
/// How long a line may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verb {
    Status,
    Standby,
    Unstandby,
    FencePeer,
    UnfencePeer,
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub(crate) verb: Verb,
    /// `None`: all.
    pub(crate) resource: Option<String>,
}

/// The answer: what to print, and the exit code.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// A question with the way back.
pub(crate) type Asked = (Question, oneshot::Sender<Reply>);

/// Where the socket is.
pub(crate) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

/// Says that this agent is the only one of its run directory; held until the process ends.
///
/// # Errors
/// If another runs, or the file cannot be had.
pub(crate) fn lock(run_dir: &Path) -> Result<std::fs::File, String> {
    let path = run_dir.join("agent.lock");
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(run_dir).map_err(failed)?;
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed)?;
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    match rustix::fs::flock(&file, exclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(format!("{}: another pollux-agent runs here already", path.display()))
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Listens; what is asked goes to `to`.
///
/// # Errors
/// If the socket cannot be had. Whoever calls holds the [`lock`].
pub(crate) fn listen(run_dir: &Path, to: mpsc::Sender<Asked>) -> Result<(), String> {
    let path = path(run_dir);
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let to = to.clone();
                    tokio::spawn(async move {
                        // Who goes away before his answer does not want it.
                        let _ = converse(stream, &to).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("the control socket: {error}");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    });
    Ok(())
}

async fn converse(stream: UnixStream, to: &mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await.map_err(io::Error::other)??;
    let question: Question = serde_json::from_str(&line)?;
    let (answer, answered) = oneshot::channel();
    to.send((question, answer)).await.map_err(io::Error::other)?;
    let reply = answered.await.map_err(io::Error::other)?;
    let text = serde_json::to_string(&reply)? + "\n";
    write.write_all(text.as_bytes()).await
}

/// Asks a running agent.
///
/// # Errors
/// If none runs, or it does not answer in time.
pub(crate) async fn ask(
    run_dir: &Path,
    question: &Question,
    limit: Duration,
) -> Result<Reply, String> {
    let path = path(run_dir);
    let exchange = async {
        let mut stream = UnixStream::connect(&path).await?;
        let text = serde_json::to_string(question)? + "\n";
        stream.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream.take(LONGEST)).read_line(&mut line).await?;
        Ok::<Reply, io::Error>(serde_json::from_str(&line)?)
    };
    let answer = tokio::time::timeout(limit, exchange).await;
    answer.map_err(|_| format!("pollux-agent did not answer in {} s", limit.as_secs()))?.map_err(
        |error| {
            format!("pollux-agent does not run here, or broke off: {}: {error}", path.display())
        },
    )
}

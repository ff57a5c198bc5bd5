//! Talks to the control socket of a running resource. One request, one connection.

use crate::resource::RunDir;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long a daemon may take to tell its state; it needs a turn of its loop.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer, at most.
const LONGEST: u64 = 16 << 20;

/// Why there is no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("{resource} is not running here: polluxadm up {resource}")]
    NotRunning {
        /// The resource.
        resource: String,
    },
    /// The command was refused; the text is the daemon's.
    #[error("{text}")]
    Refused {
        /// The class of refusal, which decides the exit code.
        kind: String,
        /// What was refused, the values on both sides, what to type.
        text: String,
    },
    /// Something else is wrong with the daemon.
    #[error("{}: {what}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What.
        what: String,
    },
}

/// A way to one resource.
#[derive(Clone, Debug)]
pub struct Client {
    resource: String,
    path: PathBuf,
}

impl Client {
    /// To `resource` as it runs in `run_dir`.
    pub fn new(run_dir: &RunDir, resource: &str) -> Self {
        Self { resource: resource.to_owned(), path: run_dir.control(resource) }
    }

    /// Gets a page.
    ///
    /// # Errors
    /// If the daemon does not run, or does not answer in time.
    pub async fn page<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.ask("GET", path, "");
        let value = tokio::time::timeout(ANSWER, answer).await.map_err(|_| {
            self.broken("the daemon does not answer: it is stopped, or hangs; see its log")
        })??;
        serde_json::from_value(value).map_err(|error| self.broken(&error.to_string()))
    }

    /// Has a command carried out: the fields of the body beside its name are in `with`.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or as for pages.
    pub async fn command(&self, name: &str, mut with: Value) -> Result<(), ClientError> {
        with["command"] = name.into();
        self.ask("POST", "/command", &with.to_string()).await.map(drop)
    }

    /// Waits for `connect` or `sync`, for so many seconds; 0: for ever. How it ended: `reached`,
    /// `stand-alone` or `timed-out`.
    ///
    /// # Errors
    /// As for pages.
    pub async fn wait(&self, what: &str, seconds: f64) -> Result<String, ClientError> {
        let path = format!("/wait/{what}?seconds={seconds}");
        let answer = self.ask("POST", &path, "{}").await?;
        answer["ended"].as_str().map(str::to_owned).ok_or_else(|| self.broken("no outcome"))
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, ClientError> {
        match self.ask_once(method, path, body).await {
            // It went away before it answered: has it gone for good?
            Err(error @ ClientError::Broken { .. }) => Err(match self.connect().await {
                Ok(_) => error,
                Err(gone) => gone,
            }),
            other => other,
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { resource: self.resource.clone() }
            }
            _ => self.broken(&error.to_string()),
        })
    }

    async fn ask_once(&self, method: &str, path: &str, body: &str) -> Result<Value, ClientError> {
        let mut stream = self.connect().await?;
        // HTTP/1.0: the answer is a head, and a body that ends with the stream.
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut answer = String::new();
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            stream.take(LONGEST).read_to_string(&mut answer).await
        };
        let went_away = |error| self.broken(&format!("the daemon went away: {error}"));
        exchange.await.map_err(went_away)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let value: Value = serde_json::from_str(body)
            .map_err(|_| self.broken(&format!("an answer that is no JSON ({head})")))?;
        if head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Ok(value);
        }
        let text = |key: &str| value[key].as_str().unwrap_or("?").to_owned();
        Err(ClientError::Refused { kind: text("kind"), text: text("text") })
    }

    fn broken(&self, what: &str) -> ClientError {
        ClientError::Broken { path: self.path.clone(), what: what.to_owned() }
    }
}

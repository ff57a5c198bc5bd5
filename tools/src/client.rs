//! Talks to the control socket of a running resource. One request, one connection.

use crate::resource::RunDir;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a daemon may take to tell its state; it needs a turn of its loop.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer, at most.
const LONGEST: usize = 16 << 20;

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
        let answer = self.ask(Method::GET, path, None);
        let value = tokio::time::timeout(ANSWER, answer).await.map_err(|_| {
            self.broken("the daemon does not answer: it is stopped, or hangs; see its log")
        })??;
        self.typed(value)
    }

    /// Has a command carried out: the fields of the body beside its name are in `with`.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or as for pages.
    pub async fn command(&self, name: &str, mut with: Value) -> Result<(), ClientError> {
        with["command"] = name.into();
        self.ask(Method::POST, "/command", Some(with)).await.map(drop)
    }

    /// Waits for `connect` or `sync`, for so many seconds; 0: for ever. How it ended: `reached`,
    /// `stand-alone` or `timed-out`.
    ///
    /// # Errors
    /// As for pages.
    pub async fn wait(&self, what: &str, seconds: f64) -> Result<String, ClientError> {
        let path = format!("/wait/{what}?seconds={seconds}");
        let answer = self.ask(Method::POST, &path, Some(json!({}))).await?;
        answer["ended"].as_str().map(str::to_owned).ok_or_else(|| self.broken("no outcome"))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
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

    async fn ask_once(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| self.broken(&format!("the daemon went away: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "pollux")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("the parts are constants and numbers");
        let answer = async {
            let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| self.broken(&error.to_string()))?.to_bytes();
            let value: Value = serde_json::from_slice(&body)
                .map_err(|_| self.broken(&format!("an answer that is no JSON ({parts:?})")))?;
            if parts.status.is_success() {
                return Ok(value);
            }
            let text = |key: &str| value[key].as_str().unwrap_or("?").to_owned();
            Err(ClientError::Refused { kind: text("kind"), text: text("text") })
        };
        // The connection does the work; it ends after the answer.
        let driven = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = answer => answer,
            never = driven => never,
        }
    }

    fn typed<T: DeserializeOwned>(&self, value: Value) -> Result<T, ClientError> {
        serde_json::from_value(value).map_err(|error| self.broken(&error.to_string()))
    }

    fn broken(&self, what: &str) -> ClientError {
        ClientError::Broken { path: self.path.clone(), what: what.to_owned() }
    }
}

//! Talks to the control socket of a running resource. One request, one connection.

use crate::failure::{Failure, Result, code};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use replicator::daemon::control::{Ended, Outcome, RunLock};
use serde::Serialize;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// How long a daemon may take to tell its state; it needs a turn of its loop.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer, at most.
const LONGEST: usize = 16 << 20;

/// Asks several resources for a page at the same time; the answers come in the order of `names`.
pub(crate) async fn ask_all(
    run_dir: &Path,
    names: &[String],
    path: &'static str,
    within: Duration,
) -> Vec<Result<String>> {
    let mut all = JoinSet::new();
    for (at, name) in names.iter().enumerate() {
        let client = Client::new(run_dir, name);
        all.spawn(async move { (at, client.text(path, within).await) });
    }
    let mut answers = all.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// A way to one resource.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) resource: String,
    path: PathBuf,
}

impl Client {
    /// To `resource` as it runs in `run_dir`.
    pub fn new(run_dir: &Path, resource: &str) -> Self {
        Self { resource: resource.to_owned(), path: RunLock::socket(run_dir, resource) }
    }

    /// Gets a page.
    ///
    /// # Errors
    /// If the daemon does not run, or does not answer in time.
    pub async fn page(&self, path: &str) -> Result<Value> {
        self.in_time(ANSWER, self.ask(Method::GET, path, String::new())).await
    }

    /// The same of a page that is no JSON, for whoever has only so long.
    async fn text(&self, path: &str, within: Duration) -> Result<String> {
        let exchange = self.exchange(Method::GET, path, String::new());
        let (status, body) = self.in_time(within, exchange).await?;
        let text = String::from_utf8(body.into()).ok().filter(|_| status.is_success());
        text.ok_or_else(|| self.broken(format_args!("an answer that is no page ({status})")))
    }

    async fn in_time<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::time::timeout(limit, answer).await.map_err(|_| {
            self.broken("the daemon does not answer: it is stopped, or hangs; see its log")
        })?
    }

    /// Has a command carried out.
    ///
    /// # Errors
    /// If it is refused, with the daemon's words; or as for pages.
    pub async fn command(&self, wanted: &impl Serialize) -> Result {
        self.ask(Method::POST, "/command", json!(wanted).to_string()).await.map(drop)
    }

    /// Waits for `connect` or `sync`, for so many seconds; 0: for ever.
    ///
    /// # Errors
    /// As for pages.
    pub(crate) async fn wait(&self, what: &str, seconds: f64) -> Result<Ended> {
        let path = format!("/wait/{what}?seconds={seconds}");
        let answer = self.ask(Method::POST, &path, "{}".to_owned()).await?;
        let outcome: Outcome = serde_json::from_value(answer).map_err(|e| self.broken(e))?;
        Ok(outcome.ended)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        let stream = self.connect().await?;
        let request = Request::builder().method(method).uri(path).header(HOST, "pollux");
        let request = request.body(body).expect("a path, a host and a body are a request");
        let exchange = async {
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await?.to_bytes();
            Ok::<_, Box<dyn Error + Send + Sync>>((head.status, body))
        };
        match exchange.await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // It went away before it answered: has it gone for good?
                self.connect().await?;
                Err(self.broken(format_args!("the daemon went away: {error}")))
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Value> {
        let (status, body) = self.exchange(method, path, body).await?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|_| self.broken(format_args!("an answer that is no JSON ({status})")))?;
        if status.is_success() {
            return Ok(value);
        }
        let text = |key: &str| value[key].as_str().unwrap_or("?");
        let code = match text("kind") {
            "no-up-to-date-data" => code::NO_UP_TO_DATE_DATA,
            "no-disk" => code::NEEDS_DISK,
            "not-outdatable" => code::WORSE_ALREADY,
            "primary" => code::IS_PRIMARY,
            "metadata" => code::CONFIGURATION,
            "usage" | "ending" => code::FAILED,
            _ => code::REFUSED,
        };
        Err(Failure::new(code, text("text")))
    }

    async fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let name = &self.resource;
                let text = format!("{name} is not running here: polluxadm up {name}");
                Failure { is_down: true, ..Failure::new(code::CONFIGURATION, text) }
            }
            _ => self.broken(error),
        })
    }

    /// Something is wrong with the daemon.
    fn broken(&self, what: impl Display) -> Failure {
        Failure::of(self.path.display(), what)
    }
}

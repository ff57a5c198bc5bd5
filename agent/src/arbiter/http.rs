//! One request to etcd's HTTP gateway: JSON there, JSON back, bounded in time and size. Which of the members is asked is decided here,
//! what is asked is not.

use super::access::Access;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Bytes of an answer, at most.
const LONGEST: usize = 1 << 20;

/// The members of one etcd cluster.
pub(crate) struct Members {
    /// `host:port` each.
    addresses: Vec<String>,
    access: Access,
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who answered last.
    first: usize,
    token: Option<String>,
}

type Failed = Box<dyn Error + Send + Sync>;

/// What an exchange came to.
type Answer = Result<(StatusCode, Value), String>;

impl Members {
    /// None is asked yet. Each is given `limit` to answer.
    pub(crate) fn new(addresses: Vec<String>, access: Access, limit: Duration) -> Self {
        Self { addresses, access, limit, state: Mutex::default() }
    }

    /// Asks the members in turn, from the one that answered last, until one answers.
    ///
    /// # Errors
    /// If none does in time, or one refuses. Whether what was asked was done is not known then.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        let had_token = self.state().token.is_some();
        if !had_token {
            self.authenticate().await?;
        }
        let mut answer = self.any(path, body).await?;
        if had_token && answer.0 == StatusCode::UNAUTHORIZED {
            // Its time is up, or etcd's new life does not know it.
            self.authenticate().await?;
            answer = self.any(path, body).await?;
        }
        match answer {
            (status, value) if status.is_success() => Ok(value),
            (status, value) => Err(said(status, &value)),
        }
    }

    async fn authenticate(&self) -> Result<(), String> {
        let Some((name, password)) = &self.access.user else { return Ok(()) };
        let credentials = json!({ "name": name, "password": password });
        self.state().token = None;
        let (status, answer) = self.any("/v3/auth/authenticate", &credentials).await?;
        let token = answer["token"].as_str().ok_or_else(|| said(status, &answer))?;
        self.state().token = Some(token.to_owned());
        Ok(())
    }

    async fn any(&self, path: &str, body: &Value) -> Answer {
        let (first, token) = {
            let state = self.state();
            (state.first, state.token.clone())
        };
        let mut complaints = Vec::new();
        for step in 0..self.addresses.len() {
            let index = (first + step) % self.addresses.len();
            let address = &self.addresses[index];
            let request = request(address, path, body, token.as_deref());
            let exchange = exchange(address, self.access.tls.as_ref(), request);
            let answer = tokio::time::timeout(self.limit, exchange).await;
            let why = match answer {
                Ok(Ok((status, value))) if status != StatusCode::SERVICE_UNAVAILABLE => {
                    self.state().first = index;
                    return Ok((status, value));
                }
                Ok(Ok((status, value))) => said(status, &value),
                Ok(Err(error)) => {
                    let cut = error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message);
                    let wants_tls = cut && self.access.tls.is_none();
                    let hint = if wants_tls { " (perhaps it wants TLS: add `cacert`)" } else { "" };
                    with_causes(&*error) + hint
                }
                Err(_) => "no answer in time".to_owned(),
            };
            complaints.push(format!("{address}: {why}"));
        }
        // Another is the first to be waited for next time.
        self.state().first = first + 1;
        Err(format!("etcd: {}", complaints.join("; ")))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while he holds it")
    }
}

fn said(status: StatusCode, value: &Value) -> String {
    let said = [&value["message"], &value["error"], value];
    let text = said.into_iter().find_map(Value::as_str).unwrap_or("no reason given");
    format!("etcd says {status}: {text}")
}

fn with_causes(error: &dyn Error) -> String {
    let (mut said, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let text = error.to_string();
        // Some say their cause themselves.
        if !said.ends_with(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

fn request(
    address: &str,
    path: &str,
    body: &Value,
    token: Option<&str>,
) -> hyper::http::Result<Request<String>> {
    let mut request = Request::post(path).header(HOST, address);
    request = request.header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    request.body(body.to_string())
}

async fn exchange(
    address: &str,
    tls: Option<&TlsConnector>,
    request: hyper::http::Result<Request<String>>,
) -> Result<(StatusCode, Value), Failed> {
    let (stream, request) = (TcpStream::connect(address).await?, request?);
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return converse(stream, request).await };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let stream = tls.connect(host, stream).await.map_err(|error| format!("TLS: {error}"))?;
    converse(stream, request).await
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<String>,
) -> Result<(StatusCode, Value), Failed> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let conversation = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let bytes = Limited::new(body, LONGEST).collect().await?.to_bytes();
        // A streaming call answers with a line for each message; there is one.
        let line = bytes.split(|&byte| byte == b'\n').find(|line| !line.is_empty());
        let line = line.unwrap_or_default();
        let plain = |_| Value::String(String::from_utf8_lossy(line).trim().to_owned());
        Ok((head.status, serde_json::from_slice(line).unwrap_or_else(plain)))
    };
    // The connection ends with the exchange, also when that is given up.
    tokio::pin!(connection);
    tokio::pin!(conversation);
    tokio::select! {
        biased;
        answer = &mut conversation => answer,
        ended = &mut connection => {
            ended?;
            conversation.await
        }
    }
}

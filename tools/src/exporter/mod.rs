//! `pollux-exporter`: all resources that run on this node as one page for Prometheus, `GET /metrics` over
//! TCP. It reads the pages of the daemons and joins them; it knows no metric but its own `pollux_up`.
//!
//! Whoever can reach the address may ask. So a client has one of a bounded number of connections for a
//! bounded time, and the daemons are asked at most once a second, whoever asks how often.

mod join;
mod limits;

use crate::cli::block_on;
use crate::client::ask_all;
use crate::failure::{Failure, Result};
use clap::Parser;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use join::Joined;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

/// Shows all resources that run on this node to Prometheus, as http://ADDRESS/metrics.
///
/// It must run as the user of the daemons: their control sockets answer nobody else.
#[derive(Parser)]
#[command(name = "pollux-exporter", version)]
struct Args {
    /// Where to listen. There is no password: whoever reaches the address reads it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9943")]
    listen: SocketAddr,
    /// Where the sockets of running resources are.
    #[arg(long, env = "POLLUX_RUN_DIR", value_name = "DIR", default_value = "/run/pollux")]
    run_dir: PathBuf,
}

/// Runs it with the arguments of the process.
pub fn main() -> ExitCode {
    crate::cli::program(|args: Args| block_on(serve(args))?)
}

/// For the log. If nobody reads it any more, that is no reason to end.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

struct Exporter {
    run_dir: PathBuf,
    /// Who asks while another gathers waits for what that one finds.
    page: Mutex<Option<(Instant, Bytes)>>,
}

async fn serve(args: Args) -> Result {
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| Failure::of(args.listen, error))?;
    let address = listener.local_addr().map_err(|error| Failure::of(args.listen, error))?;
    say(format_args!("listening on http://{address}/metrics"));
    let exporter = Arc::new(Exporter { run_dir: args.run_dir, page: Mutex::new(None) });
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // For want of descriptors, for instance: the next attempt may go better, but not at once.
                say(format_args!("cannot accept: {error}"));
                tokio::time::sleep(limits::FRESH).await;
                continue;
            }
        };
        let exporter = Arc::clone(&exporter);
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEAD)
                .max_buf_size(limits::REQUEST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service_fn(|r| exporter.answer(r)));
            // How it ended matters to the client only.
            let _ = tokio::time::timeout(limits::CONNECTION, connection).await;
            drop(place);
        });
    }
}

impl Exporter {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let plain = |status, text: &'static str| {
            let mut response = Response::new(Full::from(text));
            *response.status_mut() = status;
            response
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"));
        }
        Ok(match request.uri().path() {
            "/metrics" => match self.page().await {
                Ok(page) => {
                    let head =
                        Response::builder().header(CONTENT_TYPE, "text/plain; version=0.0.4");
                    head.body(Full::from(page)).expect("a valid header")
                }
                // An empty page would look as if there were nothing to tell.
                Err(error) => {
                    say(format_args!("{}: {error}", self.run_dir.display()));
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "the run directory cannot be read\n")
                }
            },
            "/" => plain(StatusCode::OK, "pollux-exporter: see /metrics\n"),
            _ => plain(StatusCode::NOT_FOUND, "only /metrics is here\n"),
        })
    }

    async fn page(&self) -> io::Result<Bytes> {
        let mut last = self.page.lock().await;
        if let Some((at, page)) = &*last
            && at.elapsed() < limits::FRESH
        {
            return Ok(page.clone());
        }
        let page = Bytes::from(gather(&self.run_dir).await?);
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }
}

/// Asks all daemons at the same time.
async fn gather(run_dir: &Path) -> io::Result<String> {
    let names = resources(run_dir)?;
    let answers = ask_all(run_dir, &names, "/metrics", limits::ANSWER).await;
    let mut joined = Joined::default();
    let help = "1 if the daemon of the resource answers; 0 if it was killed, is stopped or hangs.";
    joined.add(&format!("# HELP pollux_up {help}\n# TYPE pollux_up gauge\n"));
    for (name, answer) in names.iter().zip(&answers) {
        let label = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        joined.add(&format!("pollux_up{{resource=\"{label}\"}} {}\n", u8::from(answer.is_ok())));
    }
    answers.iter().flatten().for_each(|page| joined.add(page));
    Ok(joined.text())
}

/// The resources whose control sockets are there: an orderly end takes its socket away, a crash does not.
fn resources(run_dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(run_dir) {
        // Nothing was started since the boot.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // The name of a resource is plain text.
        if let Ok(name) = entry?.file_name().into_string() {
            names.extend(name.strip_suffix(".sock").map(str::to_owned));
        }
    }
    names.sort();
    if names.len() > limits::RESOURCES {
        say(format_args!("{} resources are more than {}", names.len(), limits::RESOURCES));
        names.truncate(limits::RESOURCES);
    }
    Ok(names)
}

//! `pollux-agent`: the agent itself, its operators' commands, and the two handlers. Exit codes: 0 done, 1 usage, 10 configuration,
//! 20 failed; those of `fence-peer` are DRBD's.

use crate::config;
use crate::control::{self, Question, Reply, Verb};
use crate::handler::code::{NOTHING, SHOT};
use crate::run::{self, Running};
use crate::state::State;
use clap::{Parser, Subcommand};
use sd_notify::NotifyState;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tools::{Failure, Place, Result, code};

/// How long an answer may take; a handler's patience is the daemon's.
const ANSWER: Duration = Duration::from_secs(10);
const HANDLER: Duration = Duration::from_secs(3_600);

/// Decides which of two nodes is Primary, and runs what needs the device there.
#[derive(Parser)]
#[command(name = "pollux-agent", version)]
#[command(mut_arg("config", |it| it.help("Pollux's configuration")))]
#[command(mut_arg("run_dir", |it| it.help("Where the sockets of running resources and of the agent are")))]
struct Args {
    /// The agent's configuration.
    #[arg(long, global = true, env = "POLLUX_AGENT_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/pollux/agent.toml")]
    agent_config: PathBuf,
    #[command(flatten)]
    place: Place,
    /// What the agent must remember.
    #[arg(long, global = true, env = "POLLUX_STATE_DIR", value_name = "DIR")]
    #[arg(default_value = "/var/lib/pollux")]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be the agent, until SIGTERM: then services are stopped, and the other node takes over at once.
    Run,
    /// Read the configuration and say what is wrong with it.
    Check,
    /// What the agent knows, decided last, and why.
    Status {
        /// One resource; else all.
        resource: Option<String>,
        /// As JSON, an object a line.
        #[arg(long)]
        json: bool,
    },
    /// Hand over, and stay away until `unstandby`, also over restarts.
    Standby {
        /// One resource; else all.
        resource: Option<String>,
    },
    /// May be Primary again.
    Unstandby {
        /// One resource; else all.
        resource: Option<String>,
    },
    /// Pollux's handler: what became of the lost peer? Exit code 3, 4, 6, 7; 1: not known.
    FencePeer {
        /// Else DRBD_RESOURCE.
        #[arg(env = "DRBD_RESOURCE")]
        resource: String,
    },
    /// Pollux's handler: both copies are good again.
    UnfencePeer {
        /// Else DRBD_RESOURCE.
        #[arg(env = "DRBD_RESOURCE")]
        resource: String,
    },
    /// Turn the peer off with the configured plug-in, without a running agent. Exit code 7 if it is verified off, else 1: also a
    /// `fence-peer` handler.
    Fence {
        /// Else DRBD_RESOURCE.
        #[arg(env = "DRBD_RESOURCE")]
        resource: String,
        /// Only ask whether it is on: exit code 0 on, 2 off, else not known.
        #[arg(long)]
        status: bool,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    tools::program(|args: Args| {
        let level = tracing_subscriber::EnvFilter::try_from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(level.unwrap_or_else(|_| "info".into()))
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::failed)?.block_on(act(&args)).map(ExitCode::from)
    })
}

async fn act(args: &Args) -> Result<u8> {
    match &args.command {
        Command::Run => run(args).await.map(|()| 0),
        Command::Check => load(args).map(|resources| {
            for resource in resources {
                println!("{}: {:?}", resource.name, resource.plan);
            }
            0
        }),
        Command::Status { resource, json } => {
            let reply =
                ask(args, Verb::Status, resource.as_ref()).await.map_err(Failure::failed)?;
            for line in reply.text.lines() {
                match serde_json::from_str::<BTreeMap<String, Value>>(line) {
                    Ok(status) if !json => print_status(&status),
                    Ok(_) | Err(_) => println!("{line}"),
                }
            }
            Ok(reply.code)
        }
        Command::Standby { resource } => tell(args, Verb::Standby, resource.as_ref()).await,
        Command::Unstandby { resource } => tell(args, Verb::Unstandby, resource.as_ref()).await,
        Command::FencePeer { resource } => handler(args, Verb::FencePeer, resource).await,
        Command::UnfencePeer { resource } => handler(args, Verb::UnfencePeer, resource).await,
        Command::Fence { resource, status } => fence(args, resource, *status).await,
    }
}

fn load(args: &Args) -> Result<Vec<config::Resource>> {
    config::load(&args.agent_config, &args.place)
        .map_err(|text| Failure::new(code::CONFIGURATION, text))
}

async fn ask(args: &Args, verb: Verb, resource: Option<&String>) -> Result<Reply, String> {
    let question = Question { verb, resource: resource.cloned() };
    let handlers = matches!(verb, Verb::FencePeer | Verb::UnfencePeer);
    let limit = if handlers { HANDLER } else { ANSWER };
    control::ask(&args.place.run_dir, &question, limit).await
}

async fn tell(args: &Args, verb: Verb, resource: Option<&String>) -> Result<u8> {
    let reply = ask(args, verb, resource).await.map_err(Failure::failed)?;
    if !reply.text.is_empty() {
        eprintln!("{}", reply.text);
    }
    Ok(reply.code)
}

fn nothing(text: String) -> Failure {
    Failure::new(NOTHING, text)
}

/// An agent that does not run has achieved nothing: I/O stays suspended.
async fn handler(args: &Args, verb: Verb, resource: &String) -> Result<u8> {
    let reply = ask(args, verb, Some(resource)).await.map_err(nothing)?;
    eprintln!("{}", reply.text);
    Ok(reply.code)
}

async fn fence(args: &Args, name: &str, status: bool) -> Result<u8> {
    let resource = load(args)?.into_iter().find(|resource| resource.name == name);
    let stonith = resource.and_then(|resource| resource.stonith).ok_or_else(|| {
        let file = args.agent_config.display();
        nothing(format!("{file}: no plug-in: add [resource.{name}.stonith]"))
    })?;
    if status {
        let ended = stonith.act("status").await.map_err(nothing)?;
        return Ok(ended.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(NOTHING));
    }
    stonith.off().await.map(|()| SHOT).map_err(nothing)
}

fn print_status(status: &BTreeMap<String, Value>) {
    let text = |key: &str| match &status.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(value) => value.to_string(),
    };
    println!("{} {}: {}", text("resource"), text("phase"), text("why"));
    for key in status.keys().filter(|key| !["resource", "phase", "why"].contains(&key.as_str())) {
        println!("  {key}: {}", text(key));
    }
}

async fn run(args: &Args) -> Result {
    let resources = load(args)?;
    let _alone = control::lock(&args.place.run_dir).map_err(Failure::failed)?;
    let counted = State::new(&args.state_dir).and_then(|state| Ok((state.incarnation()?, state)));
    let (incarnation, state) =
        counted.map_err(|error| Failure::of(args.state_dir.display(), error))?;
    let signal = |kind| signal(kind).map_err(Failure::failed);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut all: BTreeMap<String, Running> = BTreeMap::new();
    for resource in resources {
        let name = resource.name.clone();
        let running = run::start(resource, &args.place.run_dir, &state, incarnation).await;
        all.insert(name, running.map_err(Failure::failed)?);
    }
    let (asked, mut questions) = mpsc::channel(32);
    control::listen(&args.place.run_dir, asked).map_err(Failure::failed)?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!("pollux-agent runs, life {incarnation}");
    let mut leaving = false;
    loop {
        tokio::select! {
            Some((question, answer)) = questions.recv() => {
                let parts: Vec<_> = all
                    .iter()
                    .filter(|(name, _)| question.resource.as_ref().is_none_or(|it| it == *name))
                    .map(|(_, running)| running.asked.clone())
                    .collect();
                tokio::spawn(async move {
                    // Who asked may be gone.
                    let _ = answer.send(join(&question, parts).await);
                });
            }
            _ = terminate.recv() => leaving = true,
            _ = interrupt.recv() => leaving = true,
            () = ended(&mut all) => {
                let _ = std::fs::remove_file(control::path(&args.place.run_dir));
                return if leaving { Ok(()) } else { Err(Failure::failed("a resource's loop has ended")) };
            }
        }
        if leaving {
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            for running in all.values() {
                // It knows already.
                let _ = running.shutdown.try_send(());
            }
        }
    }
}

/// All have ended.
async fn ended(all: &mut BTreeMap<String, Running>) {
    for running in all.values_mut() {
        // This is begun anew after each question: one that was waited for to its end is not waited for again.
        if !running.task.is_finished() {
            let _ = (&mut running.task).await;
        }
    }
}

/// The answers of all that were asked, in one.
async fn join(
    question: &Question,
    parts: Vec<mpsc::Sender<(Verb, tokio::sync::oneshot::Sender<Reply>)>>,
) -> Reply {
    if parts.is_empty() {
        let name = question.resource.as_deref().unwrap_or("any");
        let text = format!("no resource `{name}` is in the agent's configuration");
        return Reply::new(NOTHING, text);
    }
    let mut whole = Reply::new(0, "");
    for part in parts {
        let (answer, answered) = tokio::sync::oneshot::channel();
        // One that has ended drops the question, and with it the way back.
        let _ = part.send((question.verb, answer)).await;
        let gone = |_| Reply::new(NOTHING, "the agent is ending");
        let reply = answered.await.unwrap_or_else(gone);
        whole.code = whole.code.max(reply.code);
        if !whole.text.is_empty() {
            whole.text.push('\n');
        }
        whole.text += &reply.text;
    }
    whole
}

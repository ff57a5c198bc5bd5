//! `polluxadm`: the words of `drbdadm`, its output and its exit codes. Each command reads the
//! configuration, asks the running daemons or the disks, and prints; it decides nothing.

mod metadata;
mod process;
mod query;
mod state;
mod target;
mod wait;

pub(crate) use process::polluxd;

use crate::client::ClientError;
use crate::config::{ConfigError, Configuration};
use crate::demo;
use crate::meta::MetaError;
use crate::resource::RunDir;
use crate::serve::{self, ServeError};
use clap::{Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use target::Target;

/// Exit codes, as in drbdadm and drbdsetup.
mod code {
    pub(super) const USAGE: u8 = 1;
    pub(super) const TIMED_OUT: u8 = 5;
    pub(super) const CONFIGURATION: u8 = 10;
    pub(super) const REFUSED: u8 = 11;
    pub(super) const NEEDS_DISK: u8 = 16;
    pub(super) const NO_UP_TO_DATE_DATA: u8 = 17;
    pub(super) const FAILED: u8 = 20;
}

/// Where a node is: several may live on one machine.
#[derive(Clone, Debug, clap::Args)]
struct Place {
    /// The configuration.
    #[arg(long, short, global = true, env = "POLLUX_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/pollux/pollux.conf")]
    config: PathBuf,
    /// Which host of the configuration this is; else what `uname -n` says.
    #[arg(long, global = true, env = "POLLUX_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Where the sockets of running resources are.
    #[arg(long, global = true, env = "POLLUX_RUN_DIR", value_name = "DIR")]
    #[arg(default_value = "/run/pollux")]
    run_dir: PathBuf,
}

impl Place {
    fn node(&self) -> String {
        self.node.clone().unwrap_or_else(|| {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        })
    }

    fn run_dir(&self) -> RunDir {
        RunDir(self.run_dir.clone())
    }

    /// Loads the configuration; warnings go to stderr.
    fn load(&self) -> Result<Configuration, Failure> {
        let (configuration, warnings) = Configuration::load(&self.config, &self.node())?;
        for warning in warnings {
            eprintln!("{warning}");
        }
        Ok(configuration)
    }
}

/// Controls resources that are mirrored between two nodes.
#[derive(Parser)]
#[command(name = "polluxadm", version)]
struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mirror something on this machine, now, to see how it works.
    Demo(demo::Options),
    /// Make the metadata of the disks.
    CreateMd {
        #[arg(value_name = "RESOURCE[/VOLUME] | all")]
        target: Target,
        /// Do not ask before metadata or data is overwritten.
        #[arg(long)]
        force: bool,
    },
    /// Print the metadata of disks that are not attached.
    DumpMd(On),
    /// Start the daemon if need be, attach the disks, look for the peer.
    Up(On),
    /// Become Secondary, leave the peer, let the disks go, end the daemon.
    Down(On),
    /// Attach the disks.
    Attach(On),
    /// Let the disks go; reads and writes go to the peer then.
    Detach(On),
    /// Look for the peer.
    Connect {
        #[arg(value_name = "RESOURCE | all")]
        target: Target,
        /// After a split brain: this node's changes are thrown away.
        #[arg(long)]
        discard_my_data: bool,
    },
    /// Leave the peer.
    Disconnect(On),
    /// Become Primary: accept reads and writes.
    Primary(Forced),
    /// Become Secondary: mirror only.
    Secondary(Forced),
    /// Copy everything from the peer again.
    Invalidate(On),
    /// Copy everything to the peer again.
    InvalidateRemote(On),
    /// Print the role; with RESOURCE:PEER, the peer's.
    Role(On),
    /// Print the state of the connection.
    Cstate(On),
    /// Print the states of the disks, this node's first.
    Dstate(On),
    /// Print the states of everything.
    Status(query::StatusOptions),
    /// Wait until the peer is connected.
    WaitConnect(wait::Options),
    /// Wait until the peer is connected and both disks are up to date.
    WaitSync(wait::Options),
    /// Print the generation identifiers.
    GetGi(On),
    /// Print the generation identifiers, and what they are.
    ShowGi(On),
    /// Print the configuration as it is understood.
    Dump {
        #[arg(value_name = "RESOURCE | all")]
        target: Option<Target>,
    },
}

#[derive(clap::Args)]
struct On {
    #[arg(value_name = "RESOURCE[/VOLUME] | all")]
    target: Target,
}

#[derive(clap::Args)]
struct Forced {
    #[arg(value_name = "RESOURCE | all")]
    target: Target,
    /// Also with data that is not known to be up to date; or, for secondary, with clients
    /// connected.
    #[arg(long, alias = "overwrite-data-of-peer")]
    force: bool,
}

/// Why a command ended badly: what to print, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(code::FAILED, text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(code::CONFIGURATION, error.to_string())
    }
}

impl From<MetaError> for Failure {
    fn from(error: MetaError) -> Self {
        let code = match &error {
            MetaError::Diskless(_) => code::NEEDS_DISK,
            MetaError::Layout { .. } | MetaError::Unusable { .. } => code::CONFIGURATION,
            MetaError::Open(_) | MetaError::Disk { .. } | MetaError::Random(_) => code::FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NotRunning { .. } => code::CONFIGURATION,
            ClientError::Broken { .. } => code::FAILED,
            ClientError::Refused { kind, .. } => match kind.as_str() {
                "no-up-to-date-data" => code::NO_UP_TO_DATE_DATA,
                "no-disk" => code::NEEDS_DISK,
                "metadata" => code::CONFIGURATION,
                "usage" | "ending" => code::FAILED,
                _ => code::REFUSED,
            },
        };
        Self::new(code, error.to_string())
    }
}

/// Runs `polluxadm` with the arguments of the process; or `polluxd`, if it was started as that.
pub fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("polluxd")) {
        return daemon();
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::failed(format!("cannot start: {error}")))),
    };
    end(runtime.block_on(run(args)))
}

/// Runs one resource of the configuration on this node, in the foreground.
#[derive(Parser)]
#[command(name = "polluxd", version)]
struct DaemonArgs {
    #[command(flatten)]
    place: Place,
    /// Attach no disk and look for no peer until `polluxadm` says so.
    #[arg(long)]
    no_up: bool,
    /// The resource.
    resource: String,
}

/// Runs `polluxd` with the arguments of the process.
pub fn daemon() -> ExitCode {
    let DaemonArgs { place, no_up, resource: name } = match DaemonArgs::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    // What `ps` and the message about a disk in use call it; it may have been started as another
    // program. Only a name: if it cannot be set, nothing is lost.
    let _ = std::fs::write("/proc/self/comm", "polluxd");
    // A failed assertion, on whichever thread and however it was built, ends the process: the peer
    // takes over from a state that is known to be good.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    let run = || {
        let filter = tracing_subscriber::EnvFilter::try_from_env("POLLUX_LOG");
        let filter = filter.unwrap_or_else(|_| "info".into());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
        let configuration = place.load()?;
        let resource = target::find(&configuration, &name)?;
        Ok(serve::serve(resource, &place.run_dir(), !no_up)?)
    };
    end(run())
}

/// What clap has to say: help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    // If nobody reads it, nobody reads that.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { code::USAGE } else { 0 })
}

fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            eprintln!("{text}");
            ExitCode::from(code)
        }
    }
}

/// Prints what is wanted of a command. A reader that has gone is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

async fn run(args: Args) -> Result<(), Failure> {
    use serde_json::json;
    let place = args.place;
    match args.command {
        Command::Demo(options) => demo::demo(options).await,
        Command::CreateMd { target, force } => metadata::create(&place, &target, force),
        Command::DumpMd(on) => metadata::dump(&place, &on.target),
        Command::Up(on) => process::up(&place, &on.target).await,
        Command::Down(on) => process::down(&place, &on.target).await,
        Command::Attach(on) => state::of_volumes(&place, &on.target, "attach").await,
        Command::Detach(on) => state::of_volumes(&place, &on.target, "detach").await,
        Command::Connect { target, discard_my_data } => {
            let with = json!({ "discard-my-data": discard_my_data });
            state::of_resources(&place, &target, "connect", with).await
        }
        Command::Disconnect(on) => {
            state::of_resources(&place, &on.target, "disconnect", json!({})).await
        }
        Command::Primary(Forced { target, force }) => {
            state::of_resources(&place, &target, "primary", json!({ "force": force })).await
        }
        Command::Secondary(Forced { target, force }) => {
            state::of_resources(&place, &target, "secondary", json!({ "force": force })).await
        }
        Command::Invalidate(on) => {
            state::of_resources(&place, &on.target, "invalidate", json!({})).await
        }
        Command::InvalidateRemote(on) => {
            state::of_resources(&place, &on.target, "invalidate-remote", json!({})).await
        }
        Command::Role(on) => query::role(&place, &on.target).await,
        Command::Cstate(on) => query::cstate(&place, &on.target).await,
        Command::Dstate(on) => query::dstate(&place, &on.target).await,
        Command::Status(options) => query::status(&place, options).await,
        Command::WaitConnect(options) => wait::wait(&place, options, "connect").await,
        Command::WaitSync(options) => wait::wait(&place, options, "sync").await,
        Command::GetGi(on) => query::gi(&place, &on.target, crate::status::get_gi).await,
        Command::ShowGi(on) => query::gi(&place, &on.target, crate::status::show_gi).await,
        Command::Dump { target } => query::dump(&place, target.as_ref()),
    }
}

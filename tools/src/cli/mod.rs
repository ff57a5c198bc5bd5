//! `polluxadm`: the words of `drbdadm`, its output and its exit codes. Each command reads the
//! configuration, asks the running daemons or the disks, and prints; it decides nothing.

mod metadata;
mod process;
mod query;
mod target;
mod wait;

pub(crate) use metadata::create;
pub(crate) use process::{down, up};
pub(crate) use target::{Subject, Target, whole};
pub(crate) use wait::wait_one;

use crate::client::Client;
use crate::config::Configuration;
use crate::failure::{Failure, Result, code};
use crate::{demo, serve};
use clap::{Parser, Subcommand};
use replicator::daemon::control::{RunLock, Wanted};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};

/// Where a node is: several may live on one machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The configuration.
    #[arg(long, short, global = true, env = "POLLUX_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/pollux/pollux.conf")]
    pub config: PathBuf,
    /// Which host of the configuration this is; else what `uname -n` says.
    #[arg(long, global = true, env = "POLLUX_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Where the sockets of running resources are.
    #[arg(long, global = true, env = "POLLUX_RUN_DIR", value_name = "DIR")]
    #[arg(default_value = "/run/pollux")]
    pub run_dir: PathBuf,
}

impl Place {
    pub(crate) fn node(&self) -> String {
        self.node.clone().unwrap_or_else(|| {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        })
    }

    /// Loads the configuration; warnings go to stderr.
    pub(crate) fn load(&self) -> Result<Configuration> {
        let (configuration, warnings) = Configuration::load(&self.config, &self.node())?;
        for warning in warnings {
            eprintln!("{warning}");
        }
        Ok(configuration)
    }

    /// Does something for each resource that is meant.
    async fn each(&self, target: &Target, act: impl AsyncFn(&Subject) -> Result) -> Result {
        for resource in target.resources(&self.load()?)? {
            act(&Subject::new(self, target, resource)?).await?;
        }
        Ok(())
    }

    /// The daemons that are meant. One that runs, and is named, also if the configuration cannot be
    /// read: a mistake in it must not keep a cluster manager from asking and demoting.
    fn daemons(&self, target: &Target) -> Result<Vec<Client>> {
        match (self.load(), &target.resource) {
            (Err(failure), Some(name)) if RunLock::is_held(&self.run_dir, name) => {
                eprintln!("{}\n{name} runs with what it was started with", failure.text);
                Ok(Vec::from([Client::new(&self.run_dir, name)]))
            }
            (configuration, _) => {
                let configuration = configuration?;
                let resources = target.resources(&configuration)?.iter();
                resources.map(|it| Ok(Subject::new(self, target, it)?.client)).collect()
            }
        }
    }

    /// Has the daemons carry out a command.
    async fn tell(&self, target: &Target, wanted: Wanted) -> Result {
        for daemon in self.daemons(target)? {
            daemon.command(&wanted).await?;
        }
        Ok(())
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
    Demo,
    /// Make the metadata of the disks.
    CreateMd {
        #[command(flatten)]
        on: On,
        /// Do not ask before metadata or data is overwritten.
        #[arg(long)]
        force: bool,
    },
    /// Print the metadata of disks that are not attached.
    DumpMd(On),
    /// Start the daemon if need be, attach the disks, look for the peer.
    Up(Whole),
    /// Become Secondary, leave the peer, let the disks go, end the daemon.
    Down(Whole),
    /// Attach the disks.
    Attach(On),
    /// Let the disks go; reads and writes go to the peer then.
    Detach(On),
    /// Look for the peer.
    Connect {
        #[command(flatten)]
        on: Whole,
        /// After a split brain: this node's changes are thrown away.
        #[arg(long)]
        discard_my_data: bool,
    },
    /// Leave the peer.
    Disconnect(Whole),
    /// Become Primary: accept reads and writes.
    Primary(Forced),
    /// Become Secondary: mirror only.
    Secondary(Forced),
    /// Copy everything from the peer again.
    Invalidate(Whole),
    /// Copy everything to the peer again.
    InvalidateRemote(Whole),
    /// This node's data is not the newest: do not promote it before it has met the peer. For
    /// handlers that fence it.
    Outdate(Whole),
    /// Answer no client until `resume-io`.
    SuspendIo(Whole),
    /// Answer clients again; where fencing has failed, on your word that the peer is down.
    ResumeIo(Whole),
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
        #[arg(value_name = "RESOURCE | all", value_parser = target::whole)]
        target: Option<Target>,
    },
}

#[derive(clap::Args)]
struct On {
    #[arg(value_name = "RESOURCE[/VOLUME] | all")]
    target: Target,
}

/// For a command that acts on whole resources.
#[derive(clap::Args)]
struct Whole {
    #[arg(value_name = "RESOURCE | all", value_parser = target::whole)]
    target: Target,
}

#[derive(clap::Args)]
struct Forced {
    #[command(flatten)]
    on: Whole,
    /// Also with data that is not known to be up to date; or, for secondary, with clients
    /// connected.
    #[arg(long, alias = "overwrite-data-of-peer")]
    force: bool,
}

/// Runs `polluxadm` with the arguments of the process; or `polluxd`, if it was started as that.
pub fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("polluxd")) {
        return daemon();
    }
    program(|args: Args| block_on(run(args))?)
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
    program(|DaemonArgs { place, no_up, resource: name }| {
        // What `ps` and the message about a disk in use call it; it may have been started as
        // another program. Only a name: if it cannot be set, nothing is lost.
        let _ = std::fs::write("/proc/self/comm", "polluxd");
        // A failed assertion, on whichever thread and however it was built, ends the process: the
        // peer takes over from a state that is known to be good.
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            std::process::abort();
        }));
        let filter = tracing_subscriber::EnvFilter::try_from_env("POLLUX_LOG");
        let filter = filter.unwrap_or_else(|_| "info".into());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
        let configuration = place.load()?;
        let resource = target::find(&configuration, &name)?;
        serve::serve(&place.config, resource, &place.run_dir, !no_up)
    })
}

/// Runs a program with the arguments of the process, and ends as it ended.
pub fn program<A: Parser, E: Termination>(run: impl FnOnce(A) -> Result<E>) -> ExitCode {
    match A::try_parse().map(run) {
        Ok(Ok(ended)) => ended.report(),
        Ok(Err(Failure { code, text, .. })) => {
            eprintln!("{text}");
            code.into()
        }
        // What clap has to say: help and version are no errors.
        Err(error) => {
            // If nobody reads it, nobody reads that.
            let _ = error.print();
            if error.use_stderr() { code::USAGE.into() } else { ExitCode::SUCCESS }
        }
    }
}

/// Runs what waits for sockets and signals.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| Failure::of("cannot start", error))?.block_on(work))
}

/// Prints what is wanted of a command. A reader that has gone is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout();
    // A question does not end with a line.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn run(Args { place, command }: Args) -> Result {
    match command {
        Command::Demo => demo::demo().await,
        Command::CreateMd { on: On { target }, force } => {
            place.each(&target, async |it| metadata::create(it, force)).await
        }
        Command::DumpMd(on) => place.each(&on.target, async |it| metadata::dump(it)).await,
        Command::Up(on) => place.each(&on.target, process::up).await,
        Command::Down(on) => {
            for daemon in place.daemons(&on.target)? {
                process::down(&place, &daemon).await?;
            }
            Ok(())
        }
        Command::Attach(on) => place.each(&on.target, process::attach).await,
        Command::Detach(on) => place.each(&on.target, process::detach).await,
        Command::Connect { on, discard_my_data } => {
            place.tell(&on.target, Wanted::Connect { discard_my_data }).await
        }
        Command::Disconnect(on) => place.tell(&on.target, Wanted::Disconnect {}).await,
        Command::Primary(Forced { on, force }) => {
            place.tell(&on.target, Wanted::Primary { force }).await
        }
        Command::Secondary(Forced { on, force }) => {
            place.tell(&on.target, Wanted::Secondary { force }).await
        }
        Command::Invalidate(on) => place.tell(&on.target, Wanted::Invalidate {}).await,
        Command::InvalidateRemote(on) => place.tell(&on.target, Wanted::InvalidateRemote {}).await,
        Command::Outdate(on) => place.tell(&on.target, Wanted::Outdate {}).await,
        Command::SuspendIo(on) => place.tell(&on.target, Wanted::SuspendIo {}).await,
        Command::ResumeIo(on) => place.tell(&on.target, Wanted::ResumeIo {}).await,
        Command::Role(on) => query::role(&place, &on.target).await,
        Command::Cstate(on) => place.each(&on.target, query::cstate).await,
        Command::Dstate(on) => place.each(&on.target, query::dstate).await,
        Command::Status(options) => query::status(&place, options).await,
        Command::WaitConnect(options) => wait::wait(&place, &options, "connect").await,
        Command::WaitSync(options) => wait::wait(&place, &options, "sync").await,
        Command::GetGi(on) => place.each(&on.target, async |it| query::gi(it, false).await).await,
        Command::ShowGi(on) => place.each(&on.target, async |it| query::gi(it, true).await).await,
        Command::Dump { target } => query::dump(&place, target.as_ref()),
    }
}

//! The daemon: runs one resource in the foreground and logs to stderr.

use clap::Parser;
use std::process::ExitCode;
use tools::cli;

/// Runs one resource of the configuration on this node.
#[derive(Parser)]
#[command(name = "polluxd", version)]
struct Args {
    #[command(flatten)]
    place: cli::Place,
    /// Attach no disk and look for no peer until `polluxadm` says so.
    #[arg(long)]
    no_up: bool,
    /// The resource.
    resource: String,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return cli::usage(&error),
    };
    cli::daemon(&args.place, &args.resource, !args.no_up)
}

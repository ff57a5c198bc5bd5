//! The daemon: runs one resource in the foreground and logs to stderr.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::cli::daemon()
}

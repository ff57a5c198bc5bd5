//! The agent: decides which of two nodes is Primary, and runs what needs the device there.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::cli::main()
}

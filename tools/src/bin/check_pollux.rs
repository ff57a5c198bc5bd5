//! The Nagios plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::check::main()
}

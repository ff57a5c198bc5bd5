//! The operator's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::cli::main()
}

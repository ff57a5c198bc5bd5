//! All resources of this node as one page for Prometheus, over TCP.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::exporter::main()
}

//! nbdkit's file plugin: a server of one file through the page cache. It sets TCP_NODELAY.

use super::{Contender, Running, image};
use crate::Error;
use crate::process::{Process, free_ports};
use std::ffi::OsString;
use std::path::Path;

/// The unreplicated contender.
pub(super) fn start(dir: &Path, size: u64) -> Result<Running, Error> {
    let file = image(dir, "a.raw", size)?;
    let (server, port) = serve(dir, "nbdkit", &file)?;
    let mut running = Running::new(Contender::NbdkitFile, port, "");
    running.processes.push(server);
    Ok(running)
}

/// A server of this file; it answers on the port returned, whatever export is asked for.
pub(super) fn serve(dir: &Path, name: &str, file: &Path) -> Result<(Process, u16), Error> {
    let [port] = free_ports()?;
    let port_text = port.to_string();
    let options = ["--foreground", "--ipaddr=127.0.0.1", "--port", &port_text, "file"];
    let arguments = options.iter().map(OsString::from).chain([file.into()]);
    let mut server = Process::start(dir, name, Path::new("nbdkit"), arguments)?;
    server.wait_for_port(port)?;
    Ok((server, port))
}

//! qemu-storage-daemon as a synchronous replicator, in its two ways. The NBD server of the qemu in Debian 12 does not set
//! TCP_NODELAY, which stalls a replicated write by 40 ms and would make the comparison cheap. So the remote end is nbdkit; past the
//! page cache, which nbdkit cannot pass by, it is qemu over a Unix socket.

use super::{Contender, Running, image, nbdkit};
use crate::Error;
use crate::process::{Process, free_ports};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the first copy to the remote end may take.
const SYNC: Duration = Duration::from_secs(120);
/// How a file is used past the page cache.
const DIRECT: &str = "cache.direct=on,aio=io_uring";

/// A quorum node over the local file and the remote export: a write is done when both have it, a read asks the local one.
pub(super) fn quorum(contender: Contender, dir: &Path, size: u64) -> Result<Running, Error> {
    let quorum = "driver=quorum,node-name=both,vote-threshold=1,read-pattern=fifo,\
        children.0=local,children.1=remote";
    start(contender, dir, size, &["--blockdev", quorum], "both")
}

/// A mirror job in write-blocking mode: after the first copy, a write is done when both have it.
pub(super) fn mirror(contender: Contender, dir: &Path, size: u64) -> Result<Running, Error> {
    let socket = dir.join("qmp");
    let chardev = format!("socket,id=c,path={},server=on,wait=off", socket.display());
    let monitor = ["--chardev", &chardev, "--monitor", "chardev=c"];
    let running = start(contender, dir, size, &monitor, "local")?;
    let stream = UnixStream::connect(&socket).map_err(Error::file(&socket))?;
    stream.set_read_timeout(Some(SYNC)).map_err(Error::file(&socket))?;
    let mut qmp = Qmp::greet(stream)?;
    let job = json!({ "job-id": "mirror", "device": "local", "target": "remote", "sync": "full",
        "copy-mode": "write-blocking" });
    // The job may be ready before the command is answered. It goes on when the socket closes.
    qmp.command("blockdev-mirror", &job, |line| {
        line["event"] == "JOB_STATUS_CHANGE" && line["data"]["status"] == "ready"
    })?;
    Ok(running)
}

/// The two files, the remote end, and the daemon that exports `node`.
fn start(
    contender: Contender,
    dir: &Path,
    size: u64,
    more: &[&str],
    node: &str,
) -> Result<Running, Error> {
    let (local, remote) = (image(dir, "a.raw", size)?, image(dir, "b.raw", size)?);
    let [port] = free_ports()?;
    let (secondary, address, access) = if contender.is_direct() {
        let socket = dir.join("remote");
        let address = format!("type=unix,addr.path={}", socket.display());
        let mut secondary = serve(dir, "secondary", &remote, DIRECT, &[], "local", &address)?;
        let listens = || UnixStream::connect(&socket).is_ok();
        secondary.wait_until("listening", Duration::from_secs(15), listens)?;
        (secondary, format!("type=unix,server.path={}", socket.display()), DIRECT)
    } else {
        let (secondary, port) = nbdkit::serve(dir, "secondary", &remote)?;
        (secondary, format!("type=inet,server.host=127.0.0.1,server.port={port}"), "aio=threads")
    };
    let peer = format!("driver=nbd,node-name=remote,server.{address}");
    let more: Vec<_> = ["--blockdev", &peer].iter().chain(more).copied().collect();
    let address = format!("type=inet,addr.host=127.0.0.1,addr.port={port}");
    let mut primary = serve(dir, "primary", &local, access, &more, node, &address)?;
    primary.wait_for_port(port)?;
    let mut running = Running::new(contender, port, "");
    running.processes = vec![primary, secondary];
    running.copies = vec![local, remote];
    Ok(running)
}

/// A daemon that exports `node`, which is this file (`local`) or made of it.
fn serve(
    dir: &Path,
    name: &str,
    file: &Path,
    access: &str,
    more: &[&str],
    node: &str,
    address: &str,
) -> Result<Process, Error> {
    let file = format!("driver=file,node-name=file,filename={},{access}", file.display());
    let server = format!("addr.{address}");
    let export = format!("type=nbd,id=export,node-name={node},name=,writable=on");
    let mut arguments = vec!["--blockdev", &file];
    arguments.extend(["--blockdev", "driver=raw,node-name=local,file=file"]);
    arguments.extend(more);
    arguments.extend(["--nbd-server", &server, "--export", &export]);
    Process::start(dir, name, Path::new("qemu-storage-daemon"), arguments)
}

/// QEMU's monitor protocol: a JSON object per line, answers and events mixed.
struct Qmp(BufReader<UnixStream>);

impl Qmp {
    fn greet(stream: UnixStream) -> Result<Self, Error> {
        let mut qmp = Self(BufReader::new(stream));
        qmp.line()?;
        qmp.command("qmp_capabilities", &json!({}), |line| line.get("return").is_some())?;
        Ok(qmp)
    }

    /// Gives a command and reads until the line that says that it is done.
    fn command(
        &mut self,
        name: &str,
        arguments: &Value,
        done: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        let text = json!({ "execute": name, "arguments": arguments }).to_string();
        writeln!(self.0.get_mut(), "{text}").map_err(Error::file("QMP socket"))?;
        loop {
            let line = self.line()?;
            if let Some(error) = line.get("error") {
                return Err(Error::Nonsense { what: "qemu", said: format!("{name}: {error}") });
            }
            if done(&line) {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(Error::file("QMP socket"))?;
        serde_json::from_str(&line)
            .map_err(|error| Error::Nonsense { what: "qemu", said: format!("{error}: {line:?}") })
    }
}

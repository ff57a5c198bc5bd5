//! Pollux as an operator would set it up, but for the two nodes being on one machine: two polluxd, protocol C, NBD over TCP.

use super::{Contender, Running, image};
use crate::Error;
use crate::process::{Process, free_port, run};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long one command may take, in seconds; the first full synchronisation is the longest.
const COMMAND_SECONDS: u64 = 120;
/// The nodes; the first becomes Primary.
const NODES: [&str; 2] = ["alpha", "beta"];

/// Builds both programs, in the profile in which this one was built. Without cargo they must be there.
pub(super) fn build() -> Result<(), Error> {
    let programs = programs()?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let profile = match programs.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        if profile != "release" {
            eprintln!("these are figures of the profile `{profile}`: use cargo run --release");
        }
        let target = programs.parent().unwrap_or(&programs);
        let status = Command::new(&cargo)
            .args(["build", "-p", "tools", "--bins", "--profile", profile, "--target-dir"])
            .arg(target)
            .stdin(Stdio::null())
            .status()
            .map_err(|source| Error::Start { program: "cargo".into(), source })?;
        if !status.success() {
            return Err(Error::Failed {
                what: "cargo build -p tools".into(),
                status,
                said: "see above".into(),
            });
        }
    }
    for name in ["polluxd", "polluxadm"] {
        if !programs.join(name).is_file() {
            return Err(Error::Missing(format!("{name} in {}", programs.display())));
        }
    }
    Ok(())
}

/// Both nodes connected and UpToDate, the first one Primary.
pub(super) fn start(dir: &Path, size: u64) -> Result<Running, Error> {
    let copies = vec![image(dir, "alpha.raw", size)?, image(dir, "beta.raw", size)?];
    let port = free_port()?;
    let config = dir.join("pollux.conf");
    let text = configuration(dir, [port, free_port()?], [free_port()?, free_port()?]);
    std::fs::write(&config, text).map_err(Error::file(&config))?;
    let node = |name: &'static str| Node { name, config: config.clone(), run: dir.join(name) };
    let nodes = NODES.map(node);
    let mut running = Running::new(Contender::Pollux, port, "r0");
    running.copies = copies;
    for node in &nodes {
        std::fs::create_dir_all(&node.run).map_err(Error::file(&node.run))?;
        node.adm(&["create-md", "--force", "r0"])?;
        running.processes.push(node.daemon(dir)?);
    }
    nodes[0].adm(&["wait-connect", "r0"])?;
    nodes[0].adm(&["primary", "--force", "r0"])?;
    nodes[0].adm(&["wait-sync", "r0"])?;
    running.processes[0].wait_for_port(port)?;
    Ok(running)
}

/// One of the two nodes on this machine.
struct Node {
    name: &'static str,
    config: PathBuf,
    run: PathBuf,
}

impl Node {
    /// The options that say which node is meant, then these words.
    fn arguments(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--config".into(), self.config.clone().into()];
        arguments.extend(["--node".into(), self.name.into()]);
        arguments.extend(["--run-dir".into(), self.run.clone().into()]);
        arguments.extend(words.iter().map(OsString::from));
        arguments
    }

    fn adm(&self, words: &[&str]) -> Result<(), Error> {
        run(COMMAND_SECONDS, &programs()?.join("polluxadm"), self.arguments(words))?;
        Ok(())
    }

    fn daemon(&self, dir: &Path) -> Result<Process, Error> {
        let program = programs()?.join("polluxd");
        let mut daemon = Process::start(dir, self.name, &program, self.arguments(&["r0"]))?;
        let control = self.run.join("r0.sock");
        daemon.wait_until("its control socket", Duration::from_secs(15), || control.exists())?;
        Ok(daemon)
    }
}

/// The directory of this program: the others of the same build are there too.
fn programs() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::file("this program"))?;
    Ok(program.parent().map_or_else(PathBuf::new, Path::to_owned))
}

fn configuration(dir: &Path, nbd: [u16; 2], peer: [u16; 2]) -> String {
    let mut text = String::from("resource r0 {\n    net { protocol C; }\n");
    for (i, name) in NODES.iter().enumerate() {
        let (nbd, peer, dir) = (nbd[i], peer[i], dir.display());
        text += &format!(
            "    on {name} {{
        node-id {i};
        address 127.0.0.1:{peer};
        nbd {{ listen 127.0.0.1:{nbd}; }}
        volume 0 {{
            device minor {i};
            disk \"{dir}/{name}.raw\";
            meta-disk \"{dir}/{name}.meta\";
        }}
    }}\n"
        );
    }
    text + "}\n"
}

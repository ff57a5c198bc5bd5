//! The Debian packages that the client and the other systems come from.

use crate::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs and the packages they are in.
const PACKAGES: [(&str, &str); 9] = [
    ("busybox", "busybox"),
    ("depmod", "kmod"),
    ("drbdadm", "drbd-utils"),
    ("fio", "fio"),
    ("nbd-client", "nbd-client"),
    ("nbdkit", "nbdkit"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-storage-daemon", "qemu-system-common"),
    ("valgrind", "valgrind"),
];

/// Makes sure that these programs are there. Installs what is missing if it may (root, and apt-get at hand); else says what
/// to install.
pub(crate) fn need(programs: &[&str]) -> Result<(), Error> {
    let missing = absent(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    if rustix::process::geteuid().is_root() && on_path("apt-get").is_some() {
        eprintln!("installing {}", packages.join(" "));
        apt_get(&["update"])?;
        let install = ["install", "-y", "--no-install-recommends"];
        apt_get(&[&install[..], &packages[..]].concat())?;
    }
    let missing = absent(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    Err(Error::Missing(format!(
        "{}; on Debian: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    )))
}

fn absent(programs: &[&str]) -> Vec<(&'static str, &'static str)> {
    let wanted = PACKAGES.iter().filter(|(program, _)| programs.contains(program));
    wanted.filter(|(program, _)| on_path(program).is_none()).copied().collect()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}

fn apt_get(arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: "apt-get".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Failed { what: format!("apt-get {}", arguments[0]), status: output.status, said })
}

//! Where the programs under test are: beside the test itself, built from the same tree.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The directory that holds `polluxd` and `polluxadm`.
///
/// They are built first, in the profile and target directory of the running test: a test must never meet a program older than itself. Cargo
/// does nothing if they are fresh. With `POLLUX_BIN_DIR` those programs are taken as they are, for instance an installed release.
///
/// # Panics
/// If they cannot be built.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| match std::env::var_os("POLLUX_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => build(),
    })
}

/// The path of one program.
///
/// # Panics
/// If it is not there.
pub fn path(name: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

/// A directory that holds them and that every user can reach: where they are, else a copy in `dir`.
///
/// # Panics
/// If they cannot be copied.
pub fn reachable_by_all(dir: &Path) -> PathBuf {
    let everybody_may_pass = |folder: &Path| {
        let mode = std::fs::metadata(folder).map(|metadata| metadata.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o001 != 0)
    };
    if directory().ancestors().all(everybody_may_pass) {
        return directory().to_owned();
    }
    let copies = dir.join("programs");
    std::fs::create_dir_all(&copies).expect("a directory");
    for name in ["polluxd", "polluxadm"] {
        std::fs::copy(path(name), copies.join(name)).expect("a program can be copied");
    }
    copies
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    // TARGET/PROFILE/deps/real_something-0123456789abcdef
    let directory = test.parent().and_then(Path::parent).expect("tests lie in TARGET/PROFILE/deps");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "-p", "tools", "--bins", "--profile", profile, "--target-dir"])
        .arg(directory.parent().expect("a profile lies in a target directory"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .expect("cargo can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "polluxd and polluxadm cannot be built:\n{said}");
    directory.to_owned()
}

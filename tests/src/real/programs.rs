//! Where the programs under test are: beside the test itself, built from the same tree.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The directory that holds `polluxd` and `polluxadm`.
///
/// If they are older than their sources they are built first, in the profile and target directory of the running test. With
/// `POLLUX_BIN_DIR` those programs are taken as they are, for instance an installed release.
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
    for name in PROGRAMS {
        std::fs::copy(path(name), copies.join(name)).expect("a program can be copied");
    }
    copies
}

/// A program of the tests' own crate, which cargo builds beside them; for a benchmark it is built now.
///
/// # Panics
/// If it cannot be built.
pub fn beside_tests(name: &str) -> PathBuf {
    let path = profile().join(name);
    if !path.is_file() {
        cargo_build(&["-p", "tests", "--bin", name]);
    }
    path
}

const PROGRAMS: [&str; 5] =
    ["polluxd", "polluxadm", "check_pollux", "pollux-exporter", "pollux-agent"];

/// Crates of which the programs are made.
const CRATES: [&str; 5] = ["agent", "bitmap", "nbd-server", "replicator", "tools"];

/// Is the program newer than all that it is made of? (Cargo itself could tell, but when asked for some packages it wants other features of
/// their dependencies than when asked for the whole workspace, and builds everything anew.)
fn is_fresh(program: &Path) -> bool {
    let Ok(built) = changed(program) else { return false };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a part");
    let is_older = |path: &Path| changed(path).is_ok_and(|at| at <= built);
    let all_older = |name: &str| {
        let crate_ = workspace.join(name);
        is_older(&crate_.join("Cargo.toml")) && sources(&crate_.join("src")).all(|s| is_older(&s))
    };
    is_older(&workspace.join("Cargo.lock")) && CRATES.into_iter().all(all_older)
}

fn changed(path: &Path) -> io::Result<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified())
}

/// All files below a directory.
fn sources(directory: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = std::fs::read_dir(directory).expect("sources can be read");
    Box::new(entries.flat_map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() { sources(&path) } else { Box::new(std::iter::once(path)) }
    }))
}

/// Where cargo puts programs of the profile by which the running one is made: TARGET/PROFILE. (Tests lie in `deps` there.)
pub fn profile() -> PathBuf {
    let running = std::env::current_exe().expect("a process knows its program");
    let directory = running.parent().expect("a file");
    let directory = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    directory.expect("tests lie in TARGET/PROFILE/deps").to_owned()
}

fn build() -> PathBuf {
    let directory = profile();
    if !PROGRAMS.iter().all(|name| is_fresh(&directory.join(name))) {
        cargo_build(&["-p", "tools", "-p", "agent", "--bins"]);
    }
    directory
}

/// Builds what is named, in the profile and target directory of the running program.
fn cargo_build(what: &[&str]) {
    let directory = profile();
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile])
        .args(what)
        .arg("--target-dir")
        .arg(directory.parent().expect("a profile lies in a target directory"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .expect("cargo can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what:?} cannot be built:\n{said}");
}

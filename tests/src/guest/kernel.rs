//! The kernel that guests boot, and the initramfs that leads to their root file system: fetched once (`fetch.sh`), kept in the target
//! directory, and made anew when what they are made by has changed.

use crate::real::process::{run, text};
use crate::real::{programs, seconds};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const FETCH: &str = include_str!("fetch.sh");
const INIT: &str = include_str!("init");

/// Where `vmlinuz` and `initramfs` are; or why they are not.
pub fn directory() -> Result<&'static Path, &'static str> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| find().map_err(|error| error.to_string()));
    directory.as_deref().map_err(String::as_str)
}

fn find() -> std::io::Result<PathBuf> {
    let profile = programs::profile();
    let target = profile.parent().expect("TARGET/PROFILE");
    let directory = target.join("guest-kernel");
    let turn = File::options().create(true).append(true).open(target.join("guest-kernel.lock"))?;
    flock(&turn, FlockOperation::LockExclusive)?;
    let (made_by, recipe) = (directory.join("made-by"), [FETCH, INIT].concat());
    if std::fs::read_to_string(&made_by).is_ok_and(|made_by| made_by == recipe) {
        return Ok(directory);
    }
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir(&directory)?;
    let (script, init) = (directory.join("fetch.sh"), directory.join("init"));
    std::fs::write(&script, FETCH)?;
    std::fs::write(&init, INIT)?;
    let output = run(seconds(600), "sh", [&script, &directory, &init]);
    if !output.status.success() {
        return Err(std::io::Error::other(format!("no kernel for guests: {}", text(&output))));
    }
    // Last: what is not whole does not count.
    std::fs::write(made_by, recipe)?;
    Ok(directory)
}

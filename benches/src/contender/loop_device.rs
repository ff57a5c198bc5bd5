//! A file as a block device, past the page cache: how Pollux is made to use O_DIRECT, for which it has no option (it uses it on
//! block devices, never on files). The loop driver's own work is not counted as the server's.

use crate::Error;
use crate::process::run;
use std::path::{Path, PathBuf};

/// How long the kernel may take, in seconds.
const SECONDS: u64 = 10;

/// A loop device. Dropped while somebody has it open, it goes when the last one closes it.
#[derive(Debug)]
pub(super) struct LoopDevice(PathBuf);

impl LoopDevice {
    pub(super) fn over(file: &Path) -> Result<Self, Error> {
        let options = ["--direct-io=on", "--find", "--show"].map(Path::new);
        let output = run(SECONDS, Path::new("losetup"), options.into_iter().chain([file]))?;
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self(path.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let options = [Path::new("--detach"), &self.0];
        if let Err(error) = run(SECONDS, Path::new("losetup"), options) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

//! What a story needs of the machine. Where something is missing it fails in CI, and elsewhere says aloud that it did not run.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program on the search path.
    Program(&'static str),
    /// The right to do everything.
    Root,
    /// FUSE, and the right to use it.
    Fuse,
    /// Loop devices, and the right to set them up.
    Loop,
    /// Namespaces of every kind, and the right to make them.
    Namespaces,
    /// A file that is part of something installed.
    File(&'static str),
    /// A kernel for guests, which is fetched once: see [`crate::guest::kernel`].
    GuestKernel,
}

impl Need {
    fn is_met(self) -> bool {
        let is_usable = |path: &str| {
            rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)
                .is_ok()
        };
        match self {
            Self::Program(name) => on_path(name).is_some(),
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Fuse => is_usable("/dev/fuse"),
            Self::Loop => is_usable("/dev/loop-control") && rustix::process::geteuid().is_root(),
            Self::Namespaces => {
                let all = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"];
                super::process::run(super::seconds(20), "unshare", all).status.success()
            }
            Self::File(path) => Path::new(path).exists(),
            Self::GuestKernel => match crate::guest::kernel::directory() {
                Ok(_) => true,
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "{error}");
                    false
                }
            },
        }
    }
}

/// Does this machine lack something? Then the story cannot be told here.
///
/// # Panics
/// With `CI=true`: there everything must be run.
pub fn lacks(needs: &[Need]) -> bool {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return false;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let text = format!("SKIPPED {test}: this machine lacks {missing:?}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{text}");
    // Not eprintln: the test harness would swallow it.
    let _ = writeln!(std::io::stderr(), "{text}");
    true
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Where an ordinary user's path does not lead, but whose programs serve ordinary users too.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

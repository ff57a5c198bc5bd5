//! What survives the agent: how many lives it had, and what each resource was told. Small files, each replaced whole and stably.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct State(PathBuf);

impl State {
    /// In `directory`, which is made.
    ///
    /// # Errors
    /// If it cannot be.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self(directory.to_owned()))
    }

    /// Counts this life; the count is higher than ever before.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub(crate) fn incarnation(&self) -> io::Result<u64> {
        let name = "agent.incarnation";
        let last = match std::fs::read_to_string(self.0.join(name)) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0_u64,
            Err(error) => return Err(error),
        };
        self.write(name, &(last + 1).to_string())?;
        Ok(last + 1)
    }

    /// Is `what` noted of this resource?
    pub(crate) fn has(&self, resource: &str, what: &str) -> bool {
        self.0.join(format!("{resource}.{what}")).exists()
    }

    /// Notes it, or no more.
    ///
    /// # Errors
    /// If that is not stable.
    pub(crate) fn set(&self, resource: &str, what: &str, wanted: bool) -> io::Result<()> {
        let name = format!("{resource}.{what}");
        if wanted {
            return self.write(&name, "");
        }
        match std::fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => File::open(&self.0)?.sync_all(),
        }
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let part = self.0.join(format!("{name}.part"));
        let mut file = File::create(&part)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(part, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }
}

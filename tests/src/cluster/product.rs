//! Pollux in a simulated host: installed by its own installer, asked by its own command line.

use super::host::{Answer, Host};
use crate::real::process::run_ok;
use crate::real::{Status, programs, seconds};
use std::path::Path;
use std::time::Duration;

/// The repository.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

impl Host {
    /// Installs all of the product, and this crate's own program as /mnt/lab/lab.
    ///
    /// # Panics
    /// If the installer fails.
    pub fn install(&self) {
        let (destination, programs) = (self.path("/"), programs::directory());
        let install = Path::new(ROOT).join("tools/install");
        let arguments = [Path::new("--destdir"), &destination, Path::new("--bin-dir"), programs];
        run_ok(seconds(60), install.to_str().expect("a simple path"), arguments);
        let lab = self.path("/mnt/lab/lab");
        if !lab.exists() {
            let program = programs::beside_tests("lab");
            // Shared by all hosts: nobody may see half of it.
            let part = lab.with_extension("part");
            std::fs::copy(program, &part).expect("it can be copied");
            std::fs::rename(part, lab).expect("the same directory");
        }
    }

    /// Starts what a unit of the product starts, for a resource; it logs to that log.
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn start_unit(&self, log: &str, unit: &str, resource: &str) {
        let text = self.text(&format!("/usr/lib/systemd/system/{unit}.service"));
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect(unit);
        self.spawn(log, &line.replace("%i", resource).split(' ').collect::<Vec<_>>());
    }

    /// `polluxadm` with these arguments.
    pub fn adm(&self, arguments: &[&str]) -> Answer {
        self.run(&[&["polluxadm"], arguments].concat())
    }

    /// `polluxadm`, which must succeed; what it printed.
    ///
    /// # Panics
    /// If it does not.
    pub fn adm_must(&self, arguments: &[&str]) -> String {
        self.must(&[&["polluxadm"], arguments].concat())
    }

    /// Status of a resource; `None`: it is not up here, or the host is off.
    pub fn status(&self, resource: &str) -> Option<Status> {
        if !self.is_on() {
            return None;
        }
        let answer = self.adm(&["status", "--json", resource]);
        if answer.is_ok() { Status::read(&answer.out) } else { None }
    }

    /// Waits for a status.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn wait_status(
        &self,
        resource: &str,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Status {
        let mut last = None;
        let begin = std::time::Instant::now();
        loop {
            let status = self.status(resource);
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            last = status.or(last);
            let shown = last.as_ref().map_or_else(|| "not up".into(), ToString::to_string);
            let late = begin.elapsed() >= limit;
            assert!(
                !late,
                "{}: waited {limit:?} for {what}; is: {shown}\n{}",
                self.name(),
                self.history()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until both copies are good and nothing is being copied.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_in_sync(&self, resource: &str, limit: Duration) {
        self.wait_status(resource, "both copies in sync", limit, Status::is_in_sync);
    }

    /// Is it Primary?
    pub fn is_primary(&self, resource: &str) -> bool {
        self.status(resource).is_some_and(|status| status.role == "Primary")
    }
}

//! Two hosts on loopback and the link between them: the stage of nearly every story.

use super::backing;
use super::daemon::forbidden_lines;
use super::host::{Host, RESOURCE};
use super::link::Link;
use super::ports::loopback;
use super::sandbox::Sandbox;
use super::{Ledger, programs, seconds};
use std::fmt::Write;
use std::os::unix::fs::chown;
use std::path::Path;

/// How the pair is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes of each backing file.
    pub size: u64,
    /// Metadata in a file of its own?
    pub external_meta: bool,
    /// Further lines of `net`.
    pub net: &'static str,
    /// Further lines of `disk`.
    pub disk: &'static str,
    /// Lines of `options`.
    pub options: &'static str,
    /// Lines of `handlers`; `DIR` stands for the directory of the pair.
    pub handlers: &'static str,
    /// As whom daemons and operators run.
    pub sandbox: Sandbox,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            size: 64 << 20,
            external_meta: false,
            net: "",
            disk: "",
            // A story says itself when a node is promoted.
            options: "auto-promote no;",
            handlers: "",
            // Nothing of ours runs as root if that can be helped, also where the tests do.
            sandbox: Sandbox::ordinary_user(),
        }
    }
}

/// Two hosts.
#[derive(Debug)]
pub struct Pair {
    /// Node-id 0.
    pub alpha: Host,
    /// Node-id 1.
    pub beta: Host,
    /// What lies between them.
    pub link: Link,
    plan: Plan,
    // The last: its files go when everything above has been stopped.
    dir: tempfile::TempDir,
}

impl Pair {
    /// Files and configuration; nothing runs.
    ///
    /// # Panics
    /// If they cannot be made.
    pub fn new(plan: Plan) -> Self {
        let dir =
            tempfile::Builder::new().prefix("pollux-").tempdir().expect("a temporary directory");
        let mut alpha = Host::new(dir.path(), "alpha", 0);
        let mut beta = Host::new(dir.path(), "beta", 1);
        let programs = match plan.sandbox.user {
            Some(_) => programs::reachable_by_all(dir.path()),
            None => programs::directory().to_owned(),
        };
        for host in [&mut alpha, &mut beta] {
            backing::sparse(&host.backing, plan.size);
            host.meta = plan.external_meta.then(|| host.backing.with_file_name("meta"));
            host.sandbox = plan.sandbox;
            host.programs.clone_from(&programs);
        }
        let link = Link::new([loopback(alpha.peer_port), loopback(beta.peer_port)]);
        let pair = Self { alpha, beta, link, plan, dir };
        pair.write_configuration();
        pair
    }

    /// (Again) after a story has changed a host.
    ///
    /// # Panics
    /// If the files cannot be written.
    pub fn write_configuration(&self) {
        // Each host has a file of its own, in which the peer's address is that of the link.
        for (me, peer) in [(&self.alpha, &self.beta), (&self.beta, &self.alpha)] {
            let Plan { net, disk, options, .. } = &self.plan;
            let handlers =
                self.plan.handlers.replace("DIR", &self.dir.path().display().to_string());
            let mut text = format!(
                "resource {RESOURCE} {{\n  net {{ protocol C; shared-secret \"castor\"; {net} }}\n  \
                 disk {{ {disk} }}\n  options {{ {options} }}\n  handlers {{ {handlers} }}\n"
            );
            for host in [me, peer] {
                let address = match host.name == me.name {
                    true => loopback(host.peer_port),
                    false => self.link.address_of(usize::from(host.node_id)),
                };
                let meta =
                    host.meta.as_ref().map_or("internal".into(), |m| m.display().to_string());
                let _ = writeln!(
                    text,
                    "  on {} {{\n    node-id {};\n    address {address};\n    device minor 0;\n    \
                     disk \"{}\";\n    meta-disk \"{meta}\";\n    \
                     nbd {{ listen unix; listen {}; }}\n  }}",
                    host.name,
                    host.node_id,
                    host.backing.display(),
                    loopback(host.nbd_port),
                );
            }
            std::fs::write(&me.config, text + "}\n").expect("a file can be written");
        }
        if let Some(user) = self.plan.sandbox.user {
            give(self.dir.path(), user);
        }
    }

    /// Where the files of both are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Both hosts.
    pub fn hosts(&mut self) -> [&mut Host; 2] {
        [&mut self.alpha, &mut self.beta]
    }

    /// Metadata on both, both daemons running, connected.
    pub fn start(&mut self) {
        for host in self.hosts() {
            host.must(&["create-md", "--force", RESOURCE]);
            host.start();
        }
        self.alpha.wait_status("the first connection", seconds(10), |status| status.is_connected());
    }

    /// As [`Self::start`]; then alpha is promoted for the first time, and all is copied.
    pub fn start_in_sync(plan: Plan) -> Self {
        let mut pair = Self::new(plan);
        pair.start_first();
        pair
    }

    /// Both daemons; then alpha is promoted for the first time, and all is copied.
    pub fn start_first(&mut self) {
        self.start();
        self.alpha.must(&["primary", "--force", RESOURCE]);
        self.wait_in_sync();
    }

    /// Both say that all is well.
    pub fn wait_in_sync(&self) {
        self.alpha.wait_in_sync(seconds(60));
        self.beta.wait_in_sync(seconds(60));
    }

    /// Ends the story: both copies are in sync and hold what the client was told, both daemons go down politely, no log holds the words
    /// of a bug, and the backing files are equal byte by byte outside of the metadata (CONV).
    ///
    /// # Panics
    /// If anything of that is not so.
    pub fn end(mut self, ledger: Option<&mut Ledger>) {
        self.wait_in_sync();
        if let Some(ledger) = ledger {
            let primary =
                if self.alpha.status().role == "Primary" { &self.alpha } else { &self.beta };
            if primary.status().role != "Primary" {
                primary.promote();
            }
            ledger.verify(&mut primary.client());
        }
        let size = self.alpha.status().size;
        assert_eq!(size, self.beta.status().size, "both offer the same size");
        // The Primary first: a Secondary that leaves is no fault, but the Primary would begin a new generation.
        if self.beta.status().role == "Primary" {
            self.beta.down();
            self.alpha.down();
        } else {
            self.alpha.down();
            self.beta.down();
        }
        self.assert_logs_clean();
        backing::assert_equal(&self.alpha.backing, &self.beta.backing, size);
    }

    /// # Panics
    /// If a log holds the words of a bug.
    pub fn assert_logs_clean(&self) {
        for host in [&self.alpha, &self.beta] {
            let lines = forbidden_lines(&host.log);
            assert!(lines.is_empty(), "{} said: {lines:#?}\n{}", host.name, host.history());
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The logs go with the directory; here is where they help.
            eprintln!("{}\n{}", self.alpha.history(), self.beta.history());
        } else {
            self.assert_logs_clean();
        }
    }
}

/// Everything below `path` belongs to `user`.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("root may give files away");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory can be read") {
            give(&entry.expect("an entry").path(), user);
        }
    }
}

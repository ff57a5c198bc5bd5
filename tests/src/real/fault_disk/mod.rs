//! A disk for real daemons that fails as a story wants, and that remembers everything: one FUSE mount, served by the test itself, which holds
//! the files below both nodes in memory. So all that happens on both has one order, and what a client notes stands in it, too ([`record`]).
//! What goes wrong is said by [`rules`]; `server` is what FUSE wants; [`sparse`] holds the bytes.
//!
//! The kernel keeps no write back (no writeback cache is asked for): each write(2), fallocate(2) and fdatasync(2) of a daemon comes here before
//! it returns. What the kernel does order: on one file it lets an fsync wait for writes that are under way, and without [`Cache::None`] a write for
//! another write. A flush that is sent too early is therefore not seen here; the simulator sees that.
//!
//! Whatever hangs must be let go before the processes that wait for it are waited for: a [`Set`] does so when it is dropped.

pub mod record;
pub mod rules;
mod server;
pub mod sparse;

pub use record::{At, Change, Entry, Record};
pub use rules::{Fault, On, Rule};
pub use sparse::Sparse;

use super::process::run;
use super::seconds;
use fuser::{Config, MountOption, SessionACL};
use rules::Rules;
use server::Server;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How the kernel treats the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// As those of any file system; O_DIRECT works.
    Page,
    /// Nothing is cached, whatever the daemon asks for; writes to one file run side by side.
    None,
}

/// A mounted fault disk.
pub struct FaultDisk {
    shared: Arc<Shared>,
    // In the order in which they go.
    session: Option<fuser::BackgroundSession>,
    dir: tempfile::TempDir,
}

impl FaultDisk {
    /// Mounts one with these files: names and sizes.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn mount(files: &[(&str, u64)], cache: Cache) -> Self {
        let state = State {
            files: files.iter().map(|&(name, size)| (name.into(), Sparse::new(size))).collect(),
            ..State::default()
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let dir = tempfile::Builder::new().prefix("pollux-disk-").tempdir();
        let dir = dir.expect("a temporary directory");
        // The daemons are somebody else.
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), all).expect("a directory of our own");
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("fault-disk".into())];
        config.n_threads = Some(4);
        if rustix::process::geteuid().is_root() {
            config.acl = SessionACL::All;
            // Also if the test is killed.
            config.mount_options.push(MountOption::AutoUnmount);
        }
        let server = Server { shared: Arc::clone(&shared), direct: cache == Cache::None };
        let session = fuser::Session::new(server, dir.path(), &config)
            .and_then(fuser::Session::spawn)
            .expect("FUSE can be mounted");
        Self { shared, session: Some(session), dir }
    }

    /// Where a file is, by its number.
    pub fn path(&self, file: usize) -> PathBuf {
        self.dir.path().join(&self.shared.lock().files[file].0)
    }

    /// A rule that holds from now on, until the answer is dropped.
    #[must_use]
    pub fn set(&self, rule: Rule) -> Set {
        Set { id: self.shared.lock().rules.set(rule), shared: Arc::clone(&self.shared) }
    }

    /// Something happened that its client wants to know the place of.
    pub fn stamp(&self) -> At {
        self.shared.lock().record.stamp()
    }

    /// What happened so far.
    pub fn record(&self) -> Record {
        self.shared.lock().record.clone()
    }

    /// What a file holds now.
    pub fn content(&self, file: usize) -> Sparse {
        self.shared.lock().files[file].1.clone()
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        // At once also if a process still holds a file; else the directory could not be removed.
        let words = ["-u", "-z"].map(std::path::Path::new);
        run(seconds(10), "fusermount3", words.into_iter().chain([self.dir.path()]));
        drop(self.session.take());
    }
}

/// A rule that holds. Dropped, it is lifted, and what hung goes on.
pub struct Set {
    id: u64,
    shared: Arc<Shared>,
}

impl Set {
    /// How often it was met.
    pub fn met(&self) -> u64 {
        self.shared.lock().rules.met(self.id)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        self.shared.lock().rules.lift(self.id);
        self.shared.changed.notify_all();
    }
}

/// What a daemon wants of a file.
enum Ask {
    Read(u64, u64),
    Change(Change),
}

impl Ask {
    fn kind(&self) -> (On, std::ops::Range<u64>) {
        match *self {
            Self::Read(offset, len) => (On::Read, offset..offset + len),
            Self::Change(Change::Write(offset, ref bytes)) => {
                (On::Write, offset..offset + bytes.len() as u64)
            }
            Self::Change(Change::Zero(offset, len)) => (On::Write, offset..offset + len),
            Self::Change(Change::Flush) => (On::Flush, 0..u64::MAX),
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// A rule was lifted.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    files: Vec<(OsString, Sparse)>,
    rules: Rules,
    record: Record,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A story that has failed still lets its daemons end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one operation out, now or, if a rule says so, later; `done` answers it.
    fn serve(
        this: &Arc<Self>,
        file: usize,
        ask: Ask,
        done: impl FnOnce(Result<Vec<u8>, i32>) + Send + 'static,
    ) {
        let mut state = this.lock();
        let (on, range) = ask.kind();
        let fate = state.rules.judge(file, on, &range);
        let entry = match &ask {
            Ask::Read(..) => None,
            Ask::Change(change) => Some(state.record.begin(file, change.clone())),
        };
        let fails = fate.fails;
        if fate.hangs.is_none() && fate.late.is_zero() {
            let result = state.perform(file, &ask, entry, fails);
            drop(state);
            done(result);
            return;
        }
        drop(state);
        let this = Arc::clone(this);
        let until = Instant::now() + fate.late;
        std::thread::spawn(move || {
            let mut state = this.lock();
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let hangs = fate.hangs.is_some_and(|rule| state.rules.holds(rule));
                let woken = match (hangs, left.is_zero()) {
                    (true, _) => this.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    (false, false) => {
                        let woken = this.changed.wait_timeout(state, left);
                        woken.unwrap_or_else(PoisonError::into_inner).0
                    }
                    (false, true) => break,
                };
                state = woken;
            }
            let result = state.perform(file, &ask, entry, fails);
            drop(state);
            done(result);
        });
    }

    fn find(&self, name: &OsStr) -> Option<usize> {
        self.lock().files.iter().position(|(known, _)| known == name)
    }

    fn names(&self) -> Vec<OsString> {
        self.lock().files.iter().map(|(name, _)| name.clone()).collect()
    }

    fn size(&self, file: usize) -> Option<u64> {
        self.lock().files.get(file).map(|(_, content)| content.size)
    }

    /// Sizes are stable at once: only `create-md` changes them.
    fn grow(&self, file: usize, size: u64) {
        let content = &mut self.lock().files[file].1;
        content.size = content.size.max(size);
    }

    fn seek(&self, file: usize, offset: u64, whence: i32) -> Option<u64> {
        let state = self.lock();
        let content = &state.files[file].1;
        if offset >= content.size {
            return None;
        }
        match whence {
            libc::SEEK_DATA => content.next_data(offset),
            _ => Some(content.next_hole(offset)),
        }
    }
}

impl State {
    fn perform(
        &mut self,
        file: usize,
        ask: &Ask,
        entry: Option<usize>,
        fails: Option<i32>,
    ) -> Result<Vec<u8>, i32> {
        if let Some(entry) = entry {
            self.record.end(entry, fails.is_none());
        }
        if let Some(errno) = fails {
            return Err(errno);
        }
        let content = &mut self.files[file].1;
        match ask {
            Ask::Read(offset, len) => return Ok(content.read(*offset, *len)),
            Ask::Change(Change::Write(offset, bytes)) => content.write(*offset, bytes),
            Ask::Change(Change::Zero(offset, len)) => content.zero(*offset, *len),
            Ask::Change(Change::Flush) => {}
        }
        Ok(Vec::new())
    }
}

//! A power switch, as fencing programs reach one by an independent wire: a Unix socket at /mnt/lab/power.sock in every host.
//!
//! One line a connection: `off NAME`, `status NAME` (answer `on` or `off`). It can be told to break. Inside of a host
//! `/mnt/lab/lab power off NAME` asks it.

use super::lab::{Cluster, Lab};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Where hosts find it.
pub const SOCKET: &str = "/mnt/lab/power.sock";

/// What it does when it is told to switch a host off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// That.
    #[default]
    Works,
    /// It says that it cannot.
    Fails,
    /// It says nothing.
    Hangs,
    /// It says that it did, and did not.
    Lies,
}

/// The switch. Dropped, it is gone.
#[derive(Debug)]
pub struct PowerSwitch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    path: std::path::PathBuf,
}

#[derive(Debug)]
struct Shared {
    lab: Arc<Lab>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    ended: bool,
    shot: Vec<(SystemTime, String)>,
    restarted: Vec<String>,
    /// Connections that get no answer, kept open.
    hanging: Vec<UnixStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PowerSwitch {
    /// Of this cluster.
    ///
    /// # Panics
    /// If its socket cannot be made.
    pub fn new(cluster: &Cluster) -> Self {
        let path = cluster.shared().join("power.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let shared = Arc::new(Shared { lab: Arc::clone(&cluster.lab), state: Mutex::default() });
        let served = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || serve(&served, &listener)));
        Self { shared, thread, path }
    }

    /// From now on.
    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.shared.state();
        state.mood = mood;
        state.hanging.clear();
    }

    /// Which hosts it has switched off, and when they were surely off.
    pub fn shot(&self) -> Vec<(SystemTime, String)> {
        self.shared.state().shot.clone()
    }

    /// Which hosts have switched themselves off, in this order.
    pub fn restarted_themselves(&self) -> Vec<String> {
        self.shared.state().restarted.clone()
    }
}

impl Drop for PowerSwitch {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One at a time: two hosts that shoot each other cannot both succeed.
fn serve(shared: &Shared, listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        if shared.state().ended {
            return;
        }
        // A host that loses its power while it asks is no failure of the switch.
        let _ = answer(shared, stream);
    }
}

fn answer(shared: &Shared, mut stream: UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !shared.lab.dir.join("hosts").join(name).is_dir() || name.is_empty() {
        return stream.write_all(b"unknown\n");
    }
    // No matter of the switch: its own processor does that.
    if verb == "restart-myself" {
        shared.state().restarted.push(name.to_owned());
        shared.lab.power_off(name);
        return Ok(());
    }
    let mood = shared.state().mood;
    if verb == "off" && mood == Mood::Works {
        shared.lab.power_off(name);
        shared.state().shot.push((SystemTime::now(), name.to_owned()));
    } else if mood == Mood::Lies {
        return stream.write_all(b"off\n");
    } else if mood == Mood::Fails {
        return stream.write_all(b"failed\n");
    } else if mood == Mood::Hangs {
        shared.state().hanging.push(stream);
        return Ok(());
    }
    stream.write_all(if shared.lab.pid(name).is_some() { b"on\n" } else { b"off\n" })
}

/// Asks it, from inside of a host: what it answers.
///
/// # Errors
/// If it cannot be reached, or says nothing.
pub fn ask(verb: &str, name: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.write_all(format!("{verb} {name}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

//! Ctrl-C and SIGTERM: the run ends after the piece of work it is at, and still stops what it started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Has somebody asked the run to end?
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for SIGINT and SIGTERM from now on, on a thread of its own.
    pub fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        let flag = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let (Ok(mut int), Ok(mut term)) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
                else {
                    return eprintln!("signals cannot be caught: Ctrl-C will not clean up");
                };
                loop {
                    tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
                    flag.0.store(true, Ordering::Relaxed);
                }
            });
        })?;
        Ok(stop)
    }

    /// Has it?
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

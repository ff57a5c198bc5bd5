//! Real processes, killed for real: what the tests in `tests/real_*.rs` are told with.
//!
//! Reading order: [`pair`] (two hosts on loopback, and a link between them that can be cut, and have bad [`weather`]), [`host`] (one node: its files,
//! its daemon, its operator), [`status`] (what the operator reads), [`nbd`] (a client that sees every single reply), [`blocks`] and [`load`]
//! (blocks that tell who wrote them, and a client that remembers which were acknowledged), [`mount`] (a file system on an export),
//! [`foreign`] (programs of other people), [`counted`] (what a daemon copies and allocates), [`fault_disk`] (disks that fail as a story wants, and
//! remember), [`power`] (power that fails at any instant such a disk remembers).
//!
//! A story never sleeps to synchronise: it waits for what the product says ([`wait_for`]), bounded in time. Every process is stopped by
//! its pid when its owner is dropped, also by a panic. This is not a model of the product: nothing here knows how a node decides.

pub mod backing;
pub mod blocks;
pub mod counted;
pub mod daemon;
pub mod fault_disk;
pub mod foreign;
pub mod host;
pub mod link;
pub mod load;
pub mod mount;
pub mod nbd;
pub mod needs;
pub mod pair;
pub mod ports;
pub mod power;
pub mod process;
pub mod programs;
pub mod random;
pub mod sandbox;
pub mod status;
pub mod weather;

pub use daemon::Daemon;
pub use fault_disk::FaultDisk;
pub use host::Host;
pub use load::{Ledger, Load};
pub use nbd::Client;
pub use needs::{Need, lacks};
pub use pair::{Pair, Plan};
pub use random::{Random, seed};
pub use status::Status;

use std::time::{Duration, Instant};

/// Pause between two looks at something that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `condition` holds; how long that took.
///
/// # Panics
/// If it does not hold in time.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "waited {limit:?} for: {what}");
        std::thread::sleep(LOOK);
    }
    begin.elapsed()
}

/// So many seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

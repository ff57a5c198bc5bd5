//! The state of a resource as `polluxadm status` shows it: what the daemon answers on its control
//! socket, the JSON of `status --json` (keys and units as in `drbdsetup status --json`, with
//! additions of ours), and what `text` and `lines` print. It holds no rule of replication.
//!
//! A number here was measured. A key of DRBD that Pollux would have to make up is left out: of a
//! resync `rs-dt0-ms`, `rs-db0-sectors` and `db0/dt0` (the rate of late), `rs-failed` and `want`.
//! What tells of something Pollux does not have stays, and says no, because scripts look for it:
//! suspension other than for lack of data, `force-io-failures`, `quorum` (always there),
//! `al-suspended`, `tls`, `resync-suspended`, `rs-paused-ms`, `rs-same-csum`, online verify.

mod lines;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use lines::{GenerationIds, cstate, dstate, get_gi, role, show_gi};
pub(crate) use text::{Layout, print};

/// One resource on this node. Field names are the JSON keys, with dashes; states are the words of
/// DRBD.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Status {
    pub name: String,
    pub node_id: u8,
    pub role: String,
    /// One of the four below.
    pub suspended: bool,
    pub suspended_user: bool,
    pub suspended_no_data: bool,
    pub suspended_fencing: bool,
    pub suspended_quorum: bool,
    pub force_io_failures: bool,
    /// `none`, `drain`, `flush` or `barrier`.
    pub write_ordering: String,
    pub devices: Vec<Device>,
    pub connections: Vec<Connection>,
    /// Ours: why it is not as it should be, what both sides hold, and what to type.
    pub reason: Option<String>,
}

/// One volume on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Device {
    pub volume: u16,
    pub minor: u32,
    pub disk_state: String,
    /// Diskless by configuration.
    pub client: bool,
    /// A client is connected.
    pub open: bool,
    pub quorum: bool,
    /// KiB, as `read` and `written`.
    pub size: u64,
    pub read: u64,
    pub written: u64,
    pub al_writes: u64,
    pub bm_writes: u64,
    /// Requests of clients not answered yet.
    pub upper_pending: u64,
    /// Requests to the backing device not answered yet.
    pub lower_pending: u64,
    pub al_suspended: bool,
    /// `no`, `upper` or `lower`: who makes requests wait.
    pub blocked: String,
    /// Ours: the backing device.
    pub backing_dev: Option<String>,
    /// Ours: what carries out its operations.
    pub engine: Option<String>,
    /// Ours: why it is not as it should be, what both sides hold, and what to type.
    pub reason: Option<String>,
}

/// One connection to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Connection {
    pub peer_node_id: u8,
    /// The peer's host name.
    pub name: String,
    pub connection_state: String,
    /// So much is on its way that further writes wait.
    pub congested: bool,
    pub peer_role: String,
    pub tls: bool,
    /// Sectors of clients' writes on their way.
    pub ap_in_flight: u64,
    /// Sectors of resync on their way.
    pub rs_in_flight: u64,
    pub paths: Vec<Path>,
    #[serde(rename = "peer_devices")]
    pub peer_devices: Vec<PeerDevice>,
    /// Ours: why it is not as it should be, what both sides hold, and what to type.
    pub reason: Option<String>,
}

/// One pair of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Path {
    pub this_host: Endpoint,
    pub remote_host: Endpoint,
    pub established: bool,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The IP address.
    pub address: String,
    /// The TCP port.
    pub port: u16,
    /// `ipv4` or `ipv6`.
    pub family: String,
}

/// One volume on a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PeerDevice {
    pub volume: u16,
    pub replication_state: String,
    pub peer_disk_state: String,
    /// Diskless by configuration.
    pub peer_client: bool,
    /// `no`, or the reasons: `user`, `peer`, `dependency`, with commas.
    pub resync_suspended: String,
    /// KiB, as `sent`, `out_of_sync` and `resync_copied`.
    pub received: u64,
    pub sent: u64,
    pub out_of_sync: u64,
    /// Requests the peer has not answered.
    pub pending: u64,
    /// Requests of the peer that are not answered.
    pub unacked: u64,
    pub has_sync_details: bool,
    pub has_online_verify_details: bool,
    pub percent_in_sync: f64,
    /// Ours: what the resync that runs, or ran last, sent or received as data.
    pub resync_copied: u64,
    /// While a resync runs.
    #[serde(flatten)]
    pub sync: Option<SyncDetails>,
}

/// How far a resync is. Made by [`SyncDetails::new`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SyncDetails {
    /// Sectors this resync began with.
    pub rs_total: u64,
    pub rs_dt_start_ms: u64,
    pub rs_paused_ms: u64,
    /// All of the time since it began. (What DRBD's `dt0` says, of late, is not measured.)
    pub rs_dt1_ms: u64,
    pub rs_db1_sectors: u64,
    pub rs_same_csum: u64,
    #[serde(rename = "db1/dt1 [MiB/s]")]
    pub rate1: f64,
    /// [`NEVER`] when not known.
    pub estimated_seconds_to_finish: u64,
    #[serde(rename = "db/dt [MiB/s]")]
    pub rate: f64,
    pub percent_resync_done: f64,
}

/// The time to finish when nothing moves (DRBD's number).
pub(crate) const NEVER: u64 = 987_654_321;

impl SyncDetails {
    /// From what a daemon knows: the sectors at the start and now, and how long it ran.
    pub(crate) fn new(total: u64, left: u64, milliseconds: u64) -> Self {
        let done = total.saturating_sub(left);
        let rate = match milliseconds {
            0 => 0.0,
            ms => done as f64 / 2048.0 / (ms as f64 / 1000.0),
        };
        Self {
            rs_total: total,
            rs_dt_start_ms: milliseconds,
            rs_dt1_ms: milliseconds,
            rs_db1_sectors: done,
            rate1: rate,
            rate,
            estimated_seconds_to_finish: match rate > 0.0 {
                true => (left as f64 / 2048.0 / rate).ceil().min(NEVER as f64) as u64,
                false => NEVER,
            },
            percent_resync_done: match total {
                0 => 100.0,
                total => done as f64 * 100.0 / total as f64,
            },
            // Nothing pauses it, and it compares no checksums.
            ..Self::default()
        }
    }
}

/// All of it, for `status --json`.
pub(crate) fn json(resources: &[Status]) -> String {
    serde_json::to_string_pretty(resources).expect("no map has a key that is no string") + "\n"
}

//! The state of a resource as `polluxadm status` shows it: what the daemon answers on its control
//! socket, the JSON of `status --json` (keys and units as in `drbdsetup status --json`, with
//! additions of ours), and what `text` and `lines` print. It holds no rule of replication.

mod lines;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use lines::{GI_FLAGS, GenerationIds, cstate, dstate, get_gi, role, show_gi};
pub use text::{Layout, print};

/// What a node may do with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Not known: a peer that is not connected.
    Unknown,
    /// Serves clients.
    Primary,
    /// Mirrors.
    Secondary,
}

/// How far a connection is; below `Connected` there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionState {
    /// No attempt is made: by command, or because the last one showed why it is useless.
    StandAlone,
    /// On the way to StandAlone.
    Disconnecting,
    /// Between two attempts.
    Unconnected,
    /// The peer did not answer in time.
    Timeout,
    /// The peer closed the stream.
    BrokenPipe,
    /// The network says the peer is unreachable.
    NetworkFailure,
    /// The peer sent what no peer may send.
    ProtocolError,
    /// The peer left politely.
    TearDown,
    /// Looking for the peer.
    Connecting,
    /// Shaken hands.
    Connected,
}

/// What happens between the two copies of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicationState {
    /// Not connected.
    Off,
    /// Every write goes to both.
    Established,
    /// A full resync to the peer is about to start.
    StartingSyncS,
    /// A full resync from the peer is about to start.
    StartingSyncT,
    /// Bitmaps are exchanged; the peer will be target.
    WFBitMapS,
    /// Bitmaps are exchanged; this node will be target.
    WFBitMapT,
    /// Waits for the generation of the source.
    WFSyncUUID,
    /// The peer is brought up to date.
    SyncSource,
    /// This node is brought up to date.
    SyncTarget,
    /// Compares, and asks.
    VerifyS,
    /// Compares, and answers.
    VerifyT,
    /// As SyncSource, paused.
    PausedSyncS,
    /// As SyncTarget, paused.
    PausedSyncT,
    /// Writes are only marked, the link is congested.
    Ahead,
    /// The peer is Ahead.
    Behind,
}

/// How good one copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskState {
    /// There is none.
    Diskless,
    /// Metadata is being read.
    Attaching,
    /// It is being given up.
    Detaching,
    /// It failed.
    Failed,
    /// The peer decides what it is.
    Negotiating,
    /// Not usable: a resync into it has not ended.
    Inconsistent,
    /// Usable, and known to be old.
    Outdated,
    /// Not known: a peer that is not connected.
    DUnknown,
    /// Usable; whether it is old is not known.
    Consistent,
    /// Usable and current.
    UpToDate,
}

macro_rules! shown_by_name {
    ($($state:ty),*) => { $(
        impl std::fmt::Display for $state {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self, f)
            }
        }
    )* };
}
shown_by_name!(Role, ConnectionState, ReplicationState, DiskState);

/// Why something is not as it should be, and what to type. Ours; DRBD leaves it to the kernel log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The last error, or the reason of a state, with what both sides hold.
    pub reason: Option<String>,
    /// The command that helps, and what it does.
    pub next: Option<String>,
}

/// One resource on this node. Field names are the JSON keys, with dashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what the states of the same name say")]
pub struct Status {
    pub name: String,
    pub node_id: u8,
    pub role: Role,
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
    #[serde(flatten)]
    pub advice: Advice,
}

/// One volume on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what DRBD's keys of the same name say")]
pub struct Device {
    pub volume: u16,
    pub minor: u32,
    pub disk_state: DiskState,
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
    #[serde(flatten)]
    pub advice: Advice,
}

/// One connection to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what DRBD's keys of the same name say")]
pub struct Connection {
    pub peer_node_id: u8,
    /// The peer's host name.
    pub name: String,
    pub connection_state: ConnectionState,
    pub congested: bool,
    pub peer_role: Role,
    pub tls: bool,
    /// Sectors of clients' writes on their way.
    pub ap_in_flight: u64,
    /// Sectors of resync on their way.
    pub rs_in_flight: u64,
    pub paths: Vec<Path>,
    #[serde(rename = "peer_devices")]
    pub peer_devices: Vec<PeerDevice>,
    #[serde(flatten)]
    pub advice: Advice,
}

/// One pair of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Path {
    pub this_host: Endpoint,
    pub remote_host: Endpoint,
    pub established: bool,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The IP address.
    pub address: String,
    /// The TCP port.
    pub port: u16,
    /// `ipv4` or `ipv6`.
    pub family: String,
}

/// One volume on a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what DRBD's keys of the same name say")]
pub struct PeerDevice {
    pub volume: u16,
    pub replication_state: ReplicationState,
    pub peer_disk_state: DiskState,
    /// Diskless by configuration.
    pub peer_client: bool,
    /// `no`, or the reasons: `user`, `peer`, `dependency`, with commas.
    pub resync_suspended: String,
    /// KiB, as `sent`, `out_of_sync` and `resync_copied`.
    pub received: u64,
    pub sent: u64,
    pub out_of_sync: u64,
    pub pending: u64,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what DRBD's keys of the same name say")]
pub struct SyncDetails {
    /// Sectors this resync began with.
    pub rs_total: u64,
    pub rs_dt_start_ms: u64,
    pub rs_paused_ms: u64,
    /// The time and sectors of the last second or so.
    pub rs_dt0_ms: u64,
    pub rs_db0_sectors: u64,
    /// The same over a longer time.
    pub rs_dt1_ms: u64,
    pub rs_db1_sectors: u64,
    pub rs_failed: u64,
    pub rs_same_csum: u64,
    /// KiB per second the controller aims at.
    pub want: u64,
    #[serde(rename = "db0/dt0 [MiB/s]")]
    pub rate0: f64,
    #[serde(rename = "db1/dt1 [MiB/s]")]
    pub rate1: f64,
    /// [`NEVER`] when not known.
    pub estimated_seconds_to_finish: u64,
    #[serde(rename = "db/dt [MiB/s]")]
    pub rate: f64,
    pub percent_resync_done: f64,
}

/// The time to finish when nothing moves (DRBD's number).
pub const NEVER: u64 = 987_654_321;

impl SyncDetails {
    /// From what a daemon knows: the sectors at the start and now, how long it ran and was paused,
    /// and (milliseconds, sectors) of a recent short and a recent longer time.
    pub fn new(
        total: u64,
        left: u64,
        run_ms: u64,
        paused_ms: u64,
        recent: [(u64, u64); 2],
    ) -> Self {
        let rate = |(ms, sectors): (u64, u64)| match ms {
            0 => 0.0,
            ms => sectors as f64 * 512.0 / 1_048_576.0 / (ms as f64 / 1000.0),
        };
        let done = total.saturating_sub(left);
        let mean = rate((run_ms.saturating_sub(paused_ms), done));
        let speed = if rate(recent[1]) > 0.0 { rate(recent[1]) } else { mean };
        Self {
            rs_total: total,
            rs_dt_start_ms: run_ms,
            rs_paused_ms: paused_ms,
            rs_dt0_ms: recent[0].0,
            rs_db0_sectors: recent[0].1,
            rs_dt1_ms: recent[1].0,
            rs_db1_sectors: recent[1].1,
            rs_failed: 0,
            rs_same_csum: 0,
            want: 0,
            rate0: rate(recent[0]),
            rate1: rate(recent[1]),
            estimated_seconds_to_finish: match speed > 0.0 {
                true => (left as f64 / 2048.0 / speed).ceil().min(NEVER as f64) as u64,
                false => NEVER,
            },
            rate: mean,
            percent_resync_done: match total {
                0 => 100.0,
                total => done as f64 * 100.0 / total as f64,
            },
        }
    }
}

/// All of it, for `status --json`.
pub fn json(resources: &[Status]) -> String {
    serde_json::to_string_pretty(resources).expect("no map has a key that is no string") + "\n"
}

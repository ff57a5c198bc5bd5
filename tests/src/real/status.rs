//! What `polluxadm status --json` says of a resource with one volume and one peer, read as a stranger's script would.

use serde_json::Value;
use std::fmt;

/// One node's view.
#[derive(Clone, Debug)]
pub struct Status {
    /// `Primary` or `Secondary`.
    pub role: String,
    /// State of the local disk.
    pub disk: String,
    /// State of the connection.
    pub connection: String,
    /// The peer's role.
    pub peer_role: String,
    /// State of the peer's disk.
    pub peer_disk: String,
    /// What happens between the two copies.
    pub replication: String,
    /// Bytes out of sync.
    pub out_of_sync: u64,
    /// Bytes that the running or last resync copied.
    pub resync_copied: u64,
    /// Percent of the running resync that is done.
    pub resync_done: Option<f64>,
    /// Bytes of the running resync at its start.
    pub resync_total: Option<u64>,
    /// Bytes clients see.
    pub size: u64,
    /// Operations of the backing disk that have not ended.
    pub lower_pending: u64,
    /// Is I/O held?
    pub suspended: bool,
    /// Every reason and every hint.
    pub advice: String,
    /// All of it.
    pub json: String,
}

impl Status {
    /// Reads the answer of `status --json`; `None`: no such resource runs.
    ///
    /// # Panics
    /// If it is not what drbdsetup would print for one volume and one peer.
    pub fn read(json: &str) -> Option<Self> {
        let value: Value =
            serde_json::from_str(json).unwrap_or_else(|error| panic!("no JSON ({error}): {json}"));
        let resource = value.as_array().expect("an array of resources").first()?;
        let device = &resource["devices"][0];
        let connection = &resource["connections"][0];
        let peer = &connection["peer_devices"][0];
        // While not connected there may be nothing said of the peer.
        let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let must = |value: &Value, key: &str| {
            let found = value[key].as_str();
            found.unwrap_or_else(|| panic!("no `{key}` in {json}")).to_owned()
        };
        let mut advice = String::new();
        collect(resource, &mut advice);
        let kib = |value: &Value| value.as_u64().unwrap_or(0) << 10;
        Some(Self {
            role: must(resource, "role"),
            disk: must(device, "disk-state"),
            connection: must(connection, "connection-state"),
            peer_role: word(&connection["peer-role"]),
            peer_disk: word(&peer["peer-disk-state"]),
            replication: word(&peer["replication-state"]),
            out_of_sync: kib(&peer["out-of-sync"]),
            resync_copied: kib(&peer["resync-copied"]),
            resync_done: peer["percent-resync-done"].as_f64(),
            resync_total: peer["rs-total"].as_u64().map(|sectors| sectors * 512),
            size: device["size"].as_u64().unwrap_or_else(|| panic!("no size in {json}")) << 10,
            lower_pending: device["lower-pending"].as_u64().unwrap_or(0),
            suspended: resource["suspended"].as_bool().unwrap_or(false),
            advice,
            json: json.to_owned(),
        })
    }

    /// Connected, both copies good, nothing being copied.
    pub fn is_in_sync(&self) -> bool {
        self.connection == "Connected"
            && self.replication == "Established"
            && self.disk == "UpToDate"
            && self.peer_disk == "UpToDate"
            && self.out_of_sync == 0
    }

    /// Shaken hands.
    pub fn is_connected(&self) -> bool {
        self.connection == "Connected"
    }
}

/// Reasons and hints, wherever they stand.
fn collect(value: &Value, advice: &mut String) {
    if let Some(object) = value.as_object() {
        for key in ["reason", "next"] {
            if let Some(text) = object.get(key).and_then(Value::as_str) {
                *advice += text;
                advice.push('\n');
            }
        }
        object.values().for_each(|inner| collect(inner, advice));
    }
    if let Some(array) = value.as_array() {
        array.iter().for_each(|inner| collect(inner, advice));
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, disk, connection, replication, peer_role, peer_disk, .. } = self;
        write!(f, "{role} {disk}, {connection} {replication}, peer {peer_role} {peer_disk}, ")?;
        let (left, copied) = (self.out_of_sync, self.resync_copied);
        write!(f, "{left} bytes out of sync, {copied} copied; {}", self.advice.trim())
    }
}

//! The commands that print a line or two: `role`, `cstate`, `dstate`, `get-gi`, `show-gi`.

use serde::{Deserialize, Serialize};

use super::Status;

/// `role RESOURCE`: this node's role; with a peer's name, that peer's. `None`: no such peer.
pub(crate) fn role<'a>(status: &'a Status, peer: Option<&str>) -> Option<&'a str> {
    let Some(name) = peer else { return Some(&status.role) };
    let mut connections = status.connections.iter();
    Some(&connections.find(|connection| connection.name == name)?.peer_role)
}

/// `cstate RESOURCE`: a line for each connection.
pub(crate) fn cstate(status: &Status) -> String {
    let connections = status.connections.iter();
    connections.map(|connection| format!("{}\n", connection.connection_state)).collect()
}

/// `dstate RESOURCE[/VOLUME]`: a line for each volume, this node's disk first, then the peers'.
/// Empty: no such volume.
pub(crate) fn dstate(status: &Status, volume: Option<u16>) -> String {
    let mut text = String::new();
    for device in status.devices.iter().filter(|d| volume.is_none_or(|number| number == d.volume)) {
        text += &device.disk_state;
        for connection in &status.connections {
            let mut peers = connection.peer_devices.iter();
            let peer = peers.find(|peer| peer.volume == device.volume);
            let state = peer.map_or("DUnknown", |peer| &peer.peer_disk_state);
            text += &format!("/{state}");
        }
        text.push('\n');
    }
    text
}

/// The flags of [`GenerationIds`], in their order.
pub(crate) const GI_FLAGS: [&str; 12] = [
    "consistent",
    "was-uptodate",
    "primary-ind",
    "crashed-primary",
    "al-clean",
    "al-disabled",
    "primary-lost-quorum",
    "peer-connected",
    "peer-outdated",
    "peer-fencing",
    "peer-fullsync",
    "peer-device-seen",
];

/// The data generation of a volume that has a disk, as it stands towards one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationIds {
    /// The volume.
    pub volume: u16,
    /// The peer's name.
    pub peer: String,
    /// The generation of this copy.
    pub current: u64,
    /// The generation the bitmap of that peer counts from; 0: none.
    pub bitmap: u64,
    /// The two youngest of the past.
    pub history: [u64; 2],
    /// In the order of [`GI_FLAGS`].
    pub flags: [bool; 12],
}

impl GenerationIds {
    fn fields(&self) -> Vec<String> {
        let ids = [self.current, self.bitmap, self.history[0], self.history[1]];
        let ids = ids.into_iter().map(|id| format!("{id:016X}"));
        ids.chain(self.flags.iter().map(|&flag| u8::from(flag).to_string())).collect()
    }
}

/// `get-gi`: one line.
pub(crate) fn get_gi(ids: &GenerationIds) -> String {
    ids.fields().join(":") + "\n"
}

/// `show-gi`: the same line, and under it what each field is.
pub(crate) fn show_gi(ids: &GenerationIds) -> String {
    let mut columns = vec![0];
    for field in ids.fields() {
        columns.push(columns[columns.len() - 1] + field.len() + 1);
    }
    let names = ["current", "bitmap", "history", "older history"].into_iter().chain(GI_FLAGS);
    let mut text = get_gi(ids);
    for (index, name) in names.enumerate().collect::<Vec<_>>().into_iter().rev() {
        let mut line = String::new();
        for &column in &columns[..index] {
            line = format!("{line:column$}|");
        }
        let column = columns[index];
        text += &format!("{line:column$}+- {name}\n");
    }
    text
}

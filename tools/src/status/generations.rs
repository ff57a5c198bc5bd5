//! The generation identifiers of a volume that has a disk, as they stand towards one peer: the line
//! of `get-gi`, and the legend of `show-gi`.

use crate::config::Resource;
use replicator::daemon::Snapshot;
use replicator::node::{ConnectionState, DiskState, Role};
use serde_json::{Value, json};

/// What the fields of the line are.
pub(super) const FIELDS: [&str; 16] = [
    "current",
    "bitmap",
    "history",
    "older history",
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

/// `get-gi`: the generation of this copy, the one the bitmap of that peer counts from (0: none), and
/// the two youngest of the past; then the flags, in the order of [`FIELDS`].
pub(crate) fn gi_line(ids: [u64; 4], flags: [bool; 12]) -> String {
    let ids = ids.map(|id| format!("{id:016X}")).join(":");
    let flags = flags.map(|flag| u8::from(flag).to_string()).join(":");
    format!("{ids}:{flags}\n")
}

/// `show-gi`: the same line, and under it what each field is.
pub(crate) fn show_gi(line: &str) -> String {
    let ends = line.match_indices(':').map(|(end, _)| end + 1);
    let columns: Vec<_> = std::iter::once(0).chain(ends).collect();
    let mut text = line.to_owned();
    for (index, (column, name)) in columns.iter().zip(FIELDS).enumerate().rev() {
        let mut legend = String::new();
        for column in &columns[..index] {
            legend = format!("{legend:column$}|");
        }
        text += &format!("{legend:column$}+- {name}\n");
    }
    text
}

/// The lines of all volumes that have a disk, towards all peers.
pub(crate) fn generations(resource: &Resource, snapshot: &Snapshot) -> Value {
    let status = &snapshot.status;
    let mut lines = Vec::new();
    for volume in status.volumes.iter().filter(|volume| volume.disk > DiskState::Failed) {
        for peer in &resource.peers {
            let state = status.peers.iter().find(|state| state.node.0 == peer.node_id);
            let towards = state.and_then(|s| s.volumes.iter().find(|v| v.number == volume.number));
            let history = |at: usize| volume.history.get(at).map_or(0, |generation| generation.0);
            let is_connected = state.is_some_and(|s| s.connection == ConnectionState::Connected);
            let bitmap = towards.map_or(0, |towards| towards.bitmap.0);
            let line = gi_line(
                [volume.current.0, bitmap, history(0), history(1)],
                [
                    volume.disk > DiskState::Inconsistent,
                    volume.disk == DiskState::UpToDate,
                    status.role == Role::Primary,
                    volume.crashed_primary,
                    volume.active_extents == 0,
                    false,
                    false,
                    is_connected,
                    towards.is_some_and(|towards| towards.disk == DiskState::Outdated),
                    false,
                    false,
                    is_connected,
                ],
            );
            lines.push(json!({ "volume": volume.number, "peer": peer.name, "line": line }));
        }
    }
    Value::Array(lines)
}

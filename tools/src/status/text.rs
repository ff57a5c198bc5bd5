//! What people and their scripts read, out of the status in JSON: `status` in the lines of `drbdadm
//! status` (two blanks before devices and connections, four before peer devices), and the short
//! forms `role`, `cstate`, `dstate`. Reasons are lines of their own that begin with `#`, so that
//! what reads the rest word by word is not disturbed.

use super::json::NEVER;
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// `--verbose`: also what is as usual.
    pub verbose: bool,
    /// `--statistics`: a second line of counters for each object.
    pub statistics: bool,
    /// Columns of the terminal, where lines wrap; `None` if the output is none.
    pub width: Option<usize>,
}

/// `devices`, `connections` or `peer_devices`.
pub(crate) fn list<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    of[key].as_array().into_iter().flatten()
}

/// `role RESOURCE`: this node's role; with a peer's name, that peer's. `None`: no such peer.
pub(crate) fn role(status: &Value, peer: Option<&str>) -> Option<String> {
    let Some(name) = peer else { return Some(word(&status["role"])) };
    let connection = list(status, "connections").find(|connection| connection["name"] == name)?;
    Some(word(&connection["peer-role"]))
}

/// `cstate RESOURCE`: a line for each connection.
pub(crate) fn cstate(status: &Value) -> String {
    let states = list(status, "connections").map(|c| word(&c["connection-state"]) + "\n");
    states.collect()
}

/// `dstate RESOURCE[/VOLUME]`: a line for each volume, this node's disk first, then the peers'.
/// Empty: no such volume.
pub(crate) fn dstate(status: &Value, volume: Option<u16>) -> String {
    let mut text = String::new();
    for device in list(status, "devices") {
        if volume.is_some_and(|number| device["volume"] != number) {
            continue;
        }
        text += &word(&device["disk-state"]);
        for connection in list(status, "connections") {
            let mut peers = list(connection, "peer_devices");
            let peer = peers.find(|peer| peer["volume"] == device["volume"]);
            let state = peer.map(|peer| word(&peer["peer-disk-state"]));
            text += &format!("/{}", state.as_deref().unwrap_or("DUnknown"));
        }
        text.push('\n');
    }
    text
}

/// All resources, each followed by an empty line.
pub(crate) fn print(resources: &[Value], layout: Layout) -> String {
    let mut page = Page { text: String::new(), layout };
    if resources.is_empty() {
        page.text += "# No resource is up here. Next: polluxadm up all\n";
    }
    for resource in resources {
        page.resource(resource);
        page.text.push('\n');
    }
    page.text
}

/// A value as one word.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The words of one line, out of one object.
struct Words<'a> {
    from: &'a Value,
    words: Vec<String>,
}

impl<'a> Words<'a> {
    fn of(from: &'a Value) -> Self {
        Self { from, words: Vec::new() }
    }

    fn word(&mut self, shown: bool, word: String) {
        self.words.extend(Some(word).filter(|_| shown));
    }

    /// `name:value`, if `shown`.
    fn named(&mut self, shown: bool, name: &str, key: &str) {
        self.word(shown, format!("{name}:{}", word(&self.from[key])));
    }

    /// What has the same name here and in JSON.
    fn all(&mut self, shown: bool, keys: &[&str]) {
        keys.iter().for_each(|key| self.named(shown, key, key));
    }
}

struct Page {
    text: String,
    layout: Layout,
}

impl Page {
    /// One line; a word that does not fit goes to the next, four columns further in.
    fn line(&mut self, indent: usize, words: &Words<'_>) {
        let width = self.layout.width.unwrap_or(usize::MAX);
        let length = |text: &str| text.chars().count();
        let mut line = String::new();
        for word in &words.words {
            if line.is_empty() {
                line = format!("{:indent$}{word}", "");
            } else if length(&line) + 1 + length(word) <= width {
                line += &format!(" {word}");
            } else {
                self.text += &format!("{line}\n");
                line = format!("{:1$}{word}", "", indent + 4);
            }
        }
        if !line.is_empty() {
            self.text += &format!("{line}\n");
        }
    }

    fn reason(&mut self, indent: usize, of: &Value) {
        if let Some(reason) = of["reason"].as_str() {
            // It may quote what a peer sent: it stays one line.
            let line = reason.replace(char::is_control, " ");
            self.text += &format!("{:indent$}# {line}\n", "");
        }
    }

    fn resource(&mut self, resource: &Value) {
        let Layout { verbose, statistics, .. } = self.layout;
        let is_set = |key| verbose || resource[key] == true;
        let reasons = ["user", "no-data", "fencing", "lease"];
        let is_set_for = |why: &&&str| resource[format!("suspended-{why}")] == true;
        let suspended = reasons.iter().find(is_set_for).copied().unwrap_or("no");
        let mut words = Words::of(resource);
        words.word(true, word(&resource["name"]));
        words.all(verbose, &["node-id"]);
        words.all(true, &["role"]);
        words.word(is_set("suspended"), format!("suspended:{suspended}"));
        words.all(is_set("force-io-failures"), &["force-io-failures"]);
        words.all(statistics, &["write-ordering"]);
        self.line(0, &words);
        self.reason(2, resource);
        let is_named = verbose || list(resource, "devices").count() > 1;
        for device in list(resource, "devices") {
            self.device(device, is_named);
        }
        let mut connections: Vec<_> = list(resource, "connections").collect();
        connections.sort_by_key(|connection| connection["name"].as_str());
        for connection in connections {
            self.connection(connection, is_named);
        }
    }

    fn device(&mut self, device: &Value, is_named: bool) {
        let Layout { verbose, statistics, .. } = self.layout;
        let mut words = Words::of(device);
        words.all(is_named || device["volume"] != 0, &["volume"]);
        words.all(verbose, &["minor"]);
        words.named(true, "disk", "disk-state");
        words.all(verbose || device["disk-state"] == "Diskless", &["client"]);
        words.named(verbose, "backing_dev", "backing-dev");
        words.all(verbose, &["engine"]);
        words.all(verbose || device["quorum"] == false, &["quorum"]);
        words.all(true, &["open"]);
        words.all(verbose || statistics || device["blocked"] != "no", &["blocked"]);
        self.line(2, &words);
        let mut words = Words::of(device);
        words.all(statistics, &["size", "read", "written", "al-writes", "bm-writes"]);
        words.all(statistics, &["upper-pending", "lower-pending", "al-suspended"]);
        self.line(6, &words);
        self.reason(4, device);
    }

    fn connection(&mut self, connection: &Value, is_named: bool) {
        let Layout { verbose, statistics, .. } = self.layout;
        let is_connected = connection["connection-state"] == "Connected";
        let mut words = Words::of(connection);
        words.word(true, word(&connection["name"]));
        words.named(verbose, "node-id", "peer-node-id");
        words.named(verbose || !is_connected, "connection", "connection-state");
        words.named(verbose || is_connected, "role", "peer-role");
        words.all(verbose || connection["tls"] == true, &["tls"]);
        let is_shown = verbose || statistics || connection["congested"] == true;
        words.all(is_shown, &["congested", "ap-in-flight", "rs-in-flight"]);
        self.line(2, &words);
        self.reason(4, connection);
        if is_connected || verbose {
            for peer_device in list(connection, "peer_devices") {
                self.peer_device(peer_device, is_named);
            }
        }
    }

    fn peer_device(&mut self, peer: &Value, is_named: bool) {
        let Layout { verbose, statistics, width } = self.layout;
        let is_quiet =
            ["Off", "Established"].iter().any(|quiet| peer["replication-state"] == *quiet);
        let is_diskless = peer["peer-disk-state"] == "Diskless";
        let mut words = Words::of(peer);
        words.all(is_named || peer["volume"] != 0, &["volume"]);
        words.named(verbose || !is_quiet, "replication", "replication-state");
        words.named(true, "peer-disk", "peer-disk-state");
        words.all(is_diskless && width.is_none() || verbose, &["peer-client"]);
        // Numbers of a resync, if one runs.
        let done = peer["percent-resync-done"].as_f64();
        let rate = peer["db/dt [MiB/s]"].as_f64().unwrap_or(0.0);
        let seconds = peer["estimated-seconds-to-finish"].as_u64().unwrap_or(NEVER);
        if let Some(done) = done {
            // 100.00 is not said before it is done.
            let done = if done < 100.0 { done.min(99.99) } else { done };
            words.word(true, format!("done:{done:.2}"));
        }
        words.word(rate > 0.0, format!("rate:{rate:.1}MiB/s"));
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let left = format!("left:{hours}:{minutes:02}:{:02}", seconds % 60);
        words.word(seconds < NEVER, left);
        words.all(verbose || peer["resync-suspended"] != "no", &["resync-suspended"]);
        self.line(4, &words);
        let mut words = Words::of(peer);
        words.all(statistics, &["received", "sent", "out-of-sync", "resync-copied"]);
        words.all(statistics, &["pending", "unacked"]);
        if done.is_some() {
            words.word(statistics, format!("dbdt1:{rate:.2}"));
            words.word(statistics, format!("eta:{seconds}"));
        }
        self.line(8, &words);
    }
}

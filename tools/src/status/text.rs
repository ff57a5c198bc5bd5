//! `polluxadm status` for people and their scripts, in the lines of `drbdadm status`: two blanks
//! before devices and connections, four before peer devices. Reasons are lines of their own
//! that begin with `#`, so that what reads the rest word by word is not disturbed.

use super::{Connection, Device, NEVER, PeerDevice, Status};

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

/// All resources, each followed by an empty line.
pub(crate) fn print(resources: &[Status], layout: Layout) -> String {
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

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// The words of one line.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    /// `key:value`, if `shown`.
    fn add(&mut self, shown: bool, key: &str, value: impl ToString) -> &mut Self {
        if shown {
            self.0.push(format!("{key}:{}", value.to_string()));
        }
        self
    }
}

struct Page {
    text: String,
    layout: Layout,
}

impl Page {
    /// One line; a word that does not fit goes to the next, four columns further in.
    fn line(&mut self, indent: usize, words: &Words) {
        let width = self.layout.width.unwrap_or(usize::MAX);
        let mut column = 0;
        for word in &words.0 {
            let length = word.chars().count();
            if column == 0 {
                self.text += &" ".repeat(indent);
                column = indent;
            } else if column + 1 + length > width {
                self.text.push('\n');
                self.text += &" ".repeat(indent + 4);
                column = indent + 4;
            } else {
                self.text.push(' ');
                column += 1;
            }
            self.text += word;
            column += length;
        }
        if column > 0 {
            self.text.push('\n');
        }
    }

    fn reason(&mut self, indent: usize, reason: Option<&String>) {
        if let Some(reason) = reason {
            // It may quote what a peer sent: it stays one line.
            let line = reason.replace(char::is_control, " ");
            self.text += &format!("{:indent$}# {line}\n", "");
        }
    }

    fn resource(&mut self, resource: &Status) {
        let Layout { verbose, statistics, .. } = self.layout;
        // The only reason there is.
        let suspended = if resource.suspended_no_data { "no-data" } else { "no" };
        let force = resource.force_io_failures;
        let mut words = Words(vec![resource.name.clone()]);
        words.add(verbose, "node-id", resource.node_id);
        words.add(true, "role", &resource.role);
        words.add(verbose || resource.suspended, "suspended", suspended);
        words.add(verbose || force, "force-io-failures", yes_no(force));
        words.add(statistics, "write-ordering", &resource.write_ordering);
        self.line(0, &words);
        self.reason(2, resource.reason.as_ref());
        let is_named = verbose || resource.devices.len() > 1;
        for device in &resource.devices {
            self.device(device, is_named);
        }
        let mut connections: Vec<_> = resource.connections.iter().collect();
        connections.sort_by(|a, b| a.name.cmp(&b.name));
        for connection in connections {
            self.connection(connection, is_named);
        }
    }

    fn device(&mut self, device: &Device, is_named: bool) {
        let Layout { verbose, statistics, .. } = self.layout;
        let mut words = Words::default();
        words.add(is_named || device.volume != 0, "volume", device.volume);
        words.add(verbose, "minor", device.minor);
        words.add(true, "disk", &device.disk_state);
        let is_diskless = device.disk_state == "Diskless";
        words.add(verbose || is_diskless, "client", yes_no(device.client));
        let backing_dev = device.backing_dev.as_deref().unwrap_or("none");
        words.add(verbose, "backing_dev", backing_dev);
        words.add(verbose, "engine", device.engine.as_deref().unwrap_or("none"));
        words.add(verbose || !device.quorum, "quorum", yes_no(device.quorum));
        words.add(true, "open", yes_no(device.open));
        words.add(verbose || statistics || device.blocked != "no", "blocked", &device.blocked);
        self.line(2, &words);
        let mut words = Words::default();
        words.add(statistics, "size", device.size).add(statistics, "read", device.read);
        words.add(statistics, "written", device.written);
        words.add(statistics, "al-writes", device.al_writes);
        words.add(statistics, "bm-writes", device.bm_writes);
        words.add(statistics, "upper-pending", device.upper_pending);
        words.add(statistics, "lower-pending", device.lower_pending);
        words.add(statistics, "al-suspended", yes_no(device.al_suspended));
        self.line(6, &words);
        self.reason(4, device.reason.as_ref());
    }

    fn connection(&mut self, connection: &Connection, is_named: bool) {
        let Layout { verbose, statistics, .. } = self.layout;
        let is_connected = connection.connection_state == "Connected";
        let mut words = Words(vec![connection.name.clone()]);
        words.add(verbose, "node-id", connection.peer_node_id);
        words.add(verbose || !is_connected, "connection", &connection.connection_state);
        words.add(verbose || is_connected, "role", &connection.peer_role);
        words.add(verbose || connection.tls, "tls", yes_no(connection.tls));
        let is_shown = verbose || statistics || connection.congested;
        words.add(is_shown, "congested", yes_no(connection.congested));
        words.add(is_shown, "ap-in-flight", connection.ap_in_flight);
        words.add(is_shown, "rs-in-flight", connection.rs_in_flight);
        self.line(2, &words);
        self.reason(4, connection.reason.as_ref());
        if is_connected || verbose {
            for peer_device in &connection.peer_devices {
                self.peer_device(peer_device, is_named);
            }
        }
    }

    fn peer_device(&mut self, peer: &PeerDevice, is_named: bool) {
        let Layout { verbose, statistics, width } = self.layout;
        let is_quiet = ["Off", "Established"].contains(&peer.replication_state.as_str());
        let is_client_shown = peer.peer_disk_state == "Diskless" && width.is_none() || verbose;
        let mut words = Words::default();
        words.add(is_named || peer.volume != 0, "volume", peer.volume);
        words.add(verbose || !is_quiet, "replication", &peer.replication_state);
        words.add(true, "peer-disk", &peer.peer_disk_state);
        words.add(is_client_shown, "peer-client", yes_no(peer.peer_client));
        if let Some(sync) = &peer.sync {
            // 100.00 is not said before it is done.
            let done = match sync.percent_resync_done {
                part if part < 100.0 => part.min(99.99),
                all => all,
            };
            words.add(true, "done", format!("{done:.2}"));
            words.add(sync.rate > 0.0, "rate", format!("{:.1}MiB/s", sync.rate));
            let seconds = sync.estimated_seconds_to_finish;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let left = format!("{hours}:{minutes:02}:{:02}", seconds % 60);
            words.add(seconds < NEVER, "left", left);
        }
        let is_suspended = peer.resync_suspended != "no";
        words.add(verbose || is_suspended, "resync-suspended", &peer.resync_suspended);
        self.line(4, &words);
        let mut words = Words::default();
        words.add(statistics, "received", peer.received).add(statistics, "sent", peer.sent);
        words.add(statistics, "out-of-sync", peer.out_of_sync);
        words.add(statistics, "resync-copied", peer.resync_copied);
        words.add(statistics, "pending", peer.pending).add(statistics, "unacked", peer.unacked);
        if let Some(sync) = &peer.sync {
            words.add(statistics, "dbdt1", format!("{:.2}", sync.rate1));
            words.add(statistics, "eta", sync.estimated_seconds_to_finish);
        }
        self.line(8, &words);
    }
}

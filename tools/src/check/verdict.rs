//! What is wrong with a resource, and how bad that is: from its status to findings and numbers.

use super::range::Range;
use crate::status::{HELD, list};
use serde_json::Value;
use std::str::FromStr;

/// What a plugin may say, in the order in which one outdoes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Ok,
    Warning,
    Unknown,
    Critical,
}

impl Severity {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Critical => "CRITICAL",
        }
    }

    pub(super) const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// The states there are. One that is not in here is critical: nobody has said that it is harmless.
const SEVERITIES: &[(&str, Severity)] = {
    use Severity::{Critical, Ok, Unknown, Warning};
    &[
        ("down", Unknown),
        ("silent", Unknown),
        ("suspended:user", Critical),
        ("suspended:fencing", Critical),
        ("suspended:lease", Critical),
        ("suspended:no-data", Critical),
        ("suspended:paused", Critical),
        // These pass by themselves.
        ("suspended:handshake", Ok),
        ("suspended:detach", Ok),
        ("suspended:peer is slow", Ok),
        ("disk:UpToDate", Ok),
        ("disk:Attaching", Critical),
        ("disk:Detaching", Critical),
        ("disk:Diskless", Critical),
        ("disk:Failed", Critical),
        ("disk:Inconsistent", Critical),
        ("disk:Outdated", Critical),
        ("disk:DUnknown", Critical),
        ("disk:Consistent", Critical),
        // Left by an operator, refused, or a split brain: nothing changes it but a command.
        ("connection:StandAlone", Critical),
        ("connection:Unconnected", Warning),
        ("connection:Connecting", Warning),
        ("connection:Connected", Ok),
        ("replication:Off", Ok),
        ("replication:Established", Ok),
        ("replication:WFBitMapS", Warning),
        ("replication:WFBitMapT", Warning),
        ("replication:SyncSource", Warning),
        ("replication:SyncTarget", Warning),
        // Of a connected peer; what one that is not connected has is not known.
        ("peer-disk:UpToDate", Ok),
        ("peer-disk:Attaching", Warning),
        ("peer-disk:Detaching", Warning),
        ("peer-disk:Diskless", Warning),
        ("peer-disk:Failed", Warning),
        ("peer-disk:Inconsistent", Warning),
        ("peer-disk:Outdated", Warning),
        ("peer-disk:DUnknown", Warning),
        ("peer-disk:Consistent", Warning),
    ]
};

/// `STATE=SEVERITY`, as an operator wants it for his site.
#[derive(Clone, Debug)]
pub(super) struct Override(String, Severity);

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (state, severity) = text.rsplit_once('=').ok_or("write STATE=SEVERITY")?;
        if !SEVERITIES.iter().any(|(known, _)| *known == state) {
            let known: Vec<_> = SEVERITIES.iter().map(|(state, _)| *state).collect();
            return Err(format!("there is no state `{state}`, but: {}", known.join(", ")));
        }
        let severity = match severity {
            "ok" => Severity::Ok,
            "warning" => Severity::Warning,
            "critical" => Severity::Critical,
            "unknown" => Severity::Unknown,
            _ => return Err("a severity is ok, warning, critical or unknown".to_owned()),
        };
        Ok(Self(state.to_owned(), severity))
    }
}

/// What is alerted about.
#[derive(clap::Args)]
pub(super) struct Rules {
    /// Bytes out of sync: warn outside of this range.
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true)]
    warning: Option<Range>,
    /// Bytes out of sync: critical outside of this range.
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true)]
    critical: Option<Range>,
    /// Seconds since both copies were good and equal: warn outside of this range.
    #[arg(long, value_name = "RANGE")]
    behind_warning: Option<Range>,
    /// Seconds since both copies were good and equal: critical outside of this range.
    #[arg(long, value_name = "RANGE")]
    behind_critical: Option<Range>,
    /// Another severity for a state, for instance `connection:Connecting=critical` or
    /// `down=critical`; may be repeated.
    #[arg(long, value_name = "STATE=SEVERITY")]
    state: Vec<Override>,
}

impl Rules {
    pub(super) fn severity(&self, state: &str) -> Severity {
        let said = self.state.iter().rev().find(|Override(of, _)| of == state);
        let known =
            || SEVERITIES.iter().find(|(of, _)| *of == state).map(|(_, severity)| *severity);
        said.map(|Override(_, severity)| *severity).or_else(known).unwrap_or(Severity::Critical)
    }
}

/// Of one resource, or several.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The worst first, when it is printed.
    pub(super) problems: Vec<(Severity, String)>,
    /// Each resource in a few words.
    pub(super) summary: Vec<String>,
    pub(super) perfdata: Vec<String>,
    /// Whole reasons: what both sides hold, and what to type.
    pub(super) reasons: Vec<String>,
}

impl Report {
    pub(super) fn problem(&mut self, severity: Severity, text: String) {
        if severity != Severity::Ok {
            self.problems.push((severity, text));
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.summary.extend(other.summary);
        self.perfdata.extend(other.perfdata);
        self.reasons.extend(other.reasons);
    }

    /// A number: `label=value[unit];warn;crit;min;max`.
    fn number(
        &mut self,
        label: &str,
        (value, unit): (f64, &str),
        [warn, crit]: [Option<&Range>; 2],
        ends: &str,
    ) {
        let text = |range: Option<&Range>| range.map(Range::to_string).unwrap_or_default();
        let thresholds = format!("{};{};{ends}", text(warn), text(crit));
        let thresholds = thresholds.trim_end_matches(';');
        let semicolon = if thresholds.is_empty() { "" } else { ";" };
        self.perfdata.push(format!("'{label}'={value}{unit}{semicolon}{thresholds}"));
    }

    /// A number that may be too high: a finding, too.
    fn limited(
        &mut self,
        label: &str,
        value: (f64, &str),
        limits: [&Option<Range>; 2],
        ends: &str,
    ) {
        let [warn, crit] = limits.map(Option::as_ref);
        self.number(label, value, [warn, crit], ends);
        let alerts = |range: Option<&Range>| range.is_some_and(|range| range.alerts(value.0));
        let (severity, range) = match (alerts(crit), alerts(warn)) {
            (true, _) => (Severity::Critical, crit),
            (false, true) => (Severity::Warning, warn),
            (false, false) => return,
        };
        let range = range.map(Range::to_string).unwrap_or_default();
        self.problem(severity, format!("{label} is {}{} (range {range})", value.0, value.1));
    }

    fn reason(&mut self, of: &str, object: &Value) {
        self.reasons.extend(object["reason"].as_str().map(|reason| format!("{of}: {reason}")));
    }

    fn flag(&mut self, label: &str, is: bool) {
        self.number(label, (f64::from(u8::from(is)), ""), [None, None], "0;1");
    }
}

/// What `status` says of a resource, judged.
pub(super) fn judge(status: &Value, rules: &Rules) -> Report {
    let mut report = Report::default();
    let name = text(&status["name"]);
    report.flag(&format!("{name}.primary"), status["role"] == "Primary");
    let is_suspended = status["suspended"] == true;
    report.flag(&format!("{name}.suspended"), is_suspended);
    if is_suspended {
        let why = text(&status["reason"]);
        let why = why.strip_prefix(HELD).unwrap_or(why);
        let severity = rules.severity(&format!("suspended:{why}"));
        report.problem(severity, format!("{name}: I/O is held ({why})"));
    }
    let mut words = vec![name.to_owned(), text(&status["role"]).to_owned()];
    let has_several = list(status, "devices").count() > 1;
    let named = |volume: &Value| match has_several {
        true => format!("{name}/{volume}"),
        false => name.to_owned(),
    };
    for device in list(status, "devices") {
        let (state, volume) = (text(&device["disk-state"]), &device["volume"]);
        words.push(state.to_owned());
        // Diskless by configuration is as it should be.
        if device["client"] != true || state != "Diskless" {
            let severity = rules.severity(&format!("disk:{state}"));
            report.problem(severity, format!("{}: disk {state}", named(volume)));
        }
        report.reason(&named(volume), device);
        let label = |what| format!("{name}.{volume}.{what}");
        report.flag(&label("up_to_date"), state == "UpToDate");
        let counter = |key: &str| device[key].as_f64().unwrap_or_default();
        report.number(&label("log_writes"), (counter("al-writes"), "c"), [None, None], "0");
        report.number(&label("bitmap_writes"), (counter("bm-writes"), "c"), [None, None], "0");
    }
    for connection in list(status, "connections") {
        let (peer, state) = (text(&connection["name"]), text(&connection["connection-state"]));
        let is_connected = state == "Connected";
        words.push(format!("- {peer} {state}"));
        let short = connection["reason"].as_str().map(|reason| format!(" ({})", first(reason)));
        let severity = rules.severity(&format!("connection:{state}"));
        report.problem(severity, format!("{name}: {peer} {state}{}", short.unwrap_or_default()));
        report.reason(&format!("{name}: {peer}"), connection);
        report.flag(&format!("{name}.{peer}.connected"), is_connected);
        report.flag(&format!("{name}.{peer}.primary"), connection["peer-role"] == "Primary");
        for pair in list(connection, "peer_devices") {
            let (volume, disk) = (&pair["volume"], text(&pair["peer-disk-state"]));
            let is_client = pair["peer-client"] == true && disk == "Diskless";
            if is_connected {
                words.push(disk.to_owned());
            }
            if is_connected && !is_client {
                let severity = rules.severity(&format!("peer-disk:{disk}"));
                report.problem(severity, format!("{}: {peer}'s disk {disk}", named(volume)));
            }
            let replication = text(&pair["replication-state"]);
            let done = pair["percent-resync-done"].as_f64();
            let done_text = done.map(|done| format!(" {done:.1} % done"));
            let severity = rules.severity(&format!("replication:{replication}"));
            let text = format!(
                "{}: {replication} with {peer}{}",
                named(volume),
                done_text.unwrap_or_default()
            );
            report.problem(severity, text);
            let label = |what| format!("{name}.{volume}.{peer}.{what}");
            report.flag(&label("up_to_date"), is_connected && disk == "UpToDate");
            let size = list(status, "devices").find(|device| device["volume"] == *volume);
            let size = size.and_then(|device| device["size"].as_u64()).unwrap_or(0) * 1024;
            let bytes = pair["out-of-sync"].as_f64().unwrap_or_default() * 1024.0;
            let ends = format!("0;{size}");
            let limits = [&rules.warning, &rules.critical];
            report.limited(&label("out_of_sync"), (bytes, "B"), limits, &ends);
            if let Some(seconds) = pair["seconds-since-in-sync"].as_f64() {
                let limits = [&rules.behind_warning, &rules.behind_critical];
                report.limited(&label("since_in_sync"), (seconds, "s"), limits, "0");
            }
            if let Some(done) = done {
                report.number(&label("resync"), (done, "%"), [None, None], "0;100");
            }
        }
    }
    report.summary.push(words.join(" "));
    report
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// The beginning of a reason, which tells what; what to do is in the rest.
fn first(reason: &str) -> &str {
    let end = [". ", "; ", ": "].iter().filter_map(|sign| reason.find(sign)).min();
    &reason[..end.unwrap_or(reason.len())]
}

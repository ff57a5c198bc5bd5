//! The table of all options DRBD knows: section, kind, range, default, and whether Pollux honours
//! it yet. It is the only place that knows them, and it reads their values. What an option means to
//! a running resource is not here.

use Kind::{Choice, ChoiceOr, Flag, Number, Text};
use Support::{Always, Honoured, NotYet, Only};
use Unit::{Bytes, Count, KibPerSecond, Milliseconds, Seconds, Sectors, Tenths};

/// What a bare number counts. Times take no suffix; the others take K, M, G; sizes and rates also s
/// (sectors of 512 bytes), and are kept in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Count,
    Seconds,
    Tenths,
    Milliseconds,
    Bytes,
    Sectors,
    KibPerSecond,
}

/// What values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From, to (included), in the unit the value is kept in.
    Number(Unit, u64, u64),
    /// `yes` or `no`; without a value, `yes`.
    Flag,
    /// One of these words, parted by blanks; one that ends in `*` stands for all that begin so.
    Choice(&'static str),
    /// One of these words, or a number up to this one.
    ChoiceOr(&'static str, u64),
    /// Any text of at most so many bytes.
    Text(usize),
}

/// What Pollux makes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// Does what is written.
    Honoured,
    /// Ignores it, and says so.
    NotYet,
    /// Always behaves as the default says; says so if something else is written.
    Always,
    /// Refuses anything but the default: to ignore it would be dangerous.
    Only,
}

/// One option. (DRBD's peer-device options stand in `disk`.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As the operator would write it; empty: unset.
    pub(super) default: &'static str,
    pub(super) support: Support,
}

/// A value as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Flag(bool),
    Text(String),
}

const fn row(
    section: &'static str,
    support: Support,
    name: &'static str,
    kind: Kind,
    default: &'static str,
) -> Row {
    Row { section, name, kind, default, support }
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// Every option DRBD knows, and ours.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // DRBD: yes. Pollux tells nobody.
    row("global", Always, "usage-count", Choice("yes no ask"), "no"),
    row("global", NotYet, "minor-count", Number(Count, 1, M - 1), ""),
    row("global", NotYet, "dialog-refresh", Number(Seconds, 0, 600), "1"),
    row("global", NotYet, "disable-ip-verification", Flag, "no"),
    row("global", NotYet, "udev-always-use-vnr", Flag, "no"),
    row("global", NotYet, "cmd-timeout-short", Number(Seconds, 0, 900), "5"),
    row("global", NotYet, "cmd-timeout-medium", Number(Seconds, 0, 900), "121"),
    row("global", NotYet, "cmd-timeout-long", Number(Seconds, 0, 900), "600"),

    row("net", Honoured, "protocol", Choice("A B C"), "C"),
    row("net", Honoured, "timeout", Number(Tenths, 1, 600), "60"),
    row("net", Honoured, "connect-int", Number(Seconds, 1, 120), "10"),
    // DRBD: 10. With ping-timeout it finds a dead peer within 2 s, not 10.5 s.
    row("net", Honoured, "ping-int", Number(Seconds, 1, 120), "1"),
    row("net", Honoured, "ping-timeout", Number(Tenths, 1, 300), "5"),
    row("net", Honoured, "max-buffers", Number(Count, 32, 131_072), "2048"),
    row("net", Honoured, "cram-hmac-alg", Text(63), ""),
    row("net", Honoured, "shared-secret", Text(63), ""),
    row("net", Honoured, "data-integrity-alg", Choice("crc32 crc32c"), ""),
    row("net", NotYet, "ko-count", Number(Count, 0, 200), "7"),
    row("net", NotYet, "max-epoch-size", Number(Count, 1, 20_000), "2048"),
    row("net", NotYet, "sndbuf-size", Number(Bytes, 0, 128 * M), "0"),
    row("net", NotYet, "rcvbuf-size", Number(Bytes, 0, 128 * M), "0"),
    row("net", NotYet, "rdma-ctrl-sndbuf-size", Number(Bytes, 0, 128 * M), "0"),
    row("net", NotYet, "rdma-ctrl-rcvbuf-size", Number(Bytes, 0, 128 * M), "0"),
    row("net", NotYet, "tcp-cork", Flag, "yes"),
    row("net", NotYet, "use-rle", Flag, "yes"),
    row("net", NotYet, "allow-two-primaries", Flag, "no"),
    row("net", NotYet, "allow-remote-read", Flag, "yes"),
    row("net", NotYet, "always-asbp", Flag, "no"),
    row("net", NotYet, "after-sb-0pri", Choice("disconnect discard-younger-primary \
        discard-older-primary discard-zero-changes discard-least-changes discard-local \
        discard-remote discard-node-*"), "disconnect"),
    row("net", NotYet, "after-sb-1pri", Choice("disconnect consensus violently-as0p \
        discard-secondary call-pri-lost-after-sb"), "disconnect"),
    row("net", NotYet, "after-sb-2pri", Choice("disconnect violently-as0p \
        call-pri-lost-after-sb"), "disconnect"),
    row("net", NotYet, "rr-conflict", Choice("disconnect violently call-pri-lost retry-connect \
        auto-discard"), "disconnect"),
    row("net", NotYet, "fencing", Choice("dont-care resource-only resource-and-stonith"),
        "dont-care"),
    row("net", NotYet, "on-congestion", Choice("block pull-ahead disconnect"), "block"),
    row("net", NotYet, "congestion-fill", Number(Sectors, 0, 10 * G), "0"),
    row("net", NotYet, "congestion-extents", Number(Count, 67, 65_534), "1237"),
    row("net", NotYet, "verify-alg", Text(63), ""),
    row("net", NotYet, "csums-alg", Text(63), ""),
    row("net", NotYet, "csums-after-crash-only", Flag, "no"),
    row("net", NotYet, "socket-check-timeout", Number(Tenths, 0, 300), "0"),
    row("net", NotYet, "load-balance-paths", Flag, "no"),
    row("net", Always, "transport", Choice("tcp lb-tcp rdma"), "tcp"),
    row("net", Only, "tls", Flag, "no"),
    row("net", NotYet, "tls-keyring", Text(255), ""),
    row("net", NotYet, "tls-privkey", Text(255), ""),
    row("net", NotYet, "tls-certificate", Text(255), ""),

    row("disk", Honoured, "on-io-error", Choice("detach pass_on call-local-io-error"), "detach"),
    row("disk", Honoured, "al-extents", Number(Count, 67, 65_534), "1237"),
    row("disk", Honoured, "disk-flushes", Flag, "yes"),
    // Ours: a client's FLUSH waits for the peer's (DESIGN 4.1). In DRBD it never does.
    row("disk", Honoured, "flush-peer", Flag, "yes"),
    row("disk", Honoured, "size", Number(Sectors, 0, G << 20), "0"),
    // DRBD: 100 MiB/s. Resync finds its own rate and yields to applications; no cap is needed.
    row("disk", Honoured, "c-max-rate", Number(KibPerSecond, 0, G << 12), "0"),
    row("disk", Always, "al-updates", Flag, "yes"),
    row("disk", Always, "disk-barrier", Flag, "no"),
    row("disk", Always, "disk-drain", Flag, "yes"),
    row("disk", Always, "md-flushes", Flag, "yes"),
    row("disk", NotYet, "disk-timeout", Number(Tenths, 0, 6000), "0"),
    row("disk", NotYet, "read-balancing", Choice("prefer-local prefer-remote round-robin \
        least-pending when-congested-remote 32K-striping 64K-striping 128K-striping \
        256K-striping 512K-striping 1M-striping"), "prefer-local"),
    row("disk", NotYet, "resync-after", Text(255), ""),
    row("disk", NotYet, "rs-discard-granularity", Number(Bytes, 0, M), "0"),
    row("disk", NotYet, "discard-zeroes-if-aligned", Flag, "yes"),
    row("disk", NotYet, "disable-write-same", Flag, "no"),
    row("disk", NotYet, "bitmap", Flag, "yes"),
    row("disk", NotYet, "resync-rate", Number(KibPerSecond, K, G << 13), "250"),
    row("disk", NotYet, "c-plan-ahead", Number(Tenths, 0, 300), "20"),
    row("disk", NotYet, "c-delay-target", Number(Tenths, 1, 100), "10"),
    row("disk", NotYet, "c-fill-target", Number(Sectors, 0, 512 * M), "100"),
    row("disk", NotYet, "c-min-rate", Number(KibPerSecond, 0, G << 12), "250"),
    row("disk", NotYet, "resync-without-replication", Flag, "yes"),
    row("disk", NotYet, "peer-tiebreaker", Flag, "yes"),

    row("options", Honoured, "on-no-data-accessible", Choice("io-error suspend-io"), "io-error"),
    row("options", Honoured, "auto-promote", Flag, "yes"),
    row("options", NotYet, "auto-promote-timeout", Number(Tenths, 0, 600), "20"),
    row("options", NotYet, "quorum", ChoiceOr("off majority all", 32), "off"),
    row("options", NotYet, "on-no-quorum", Choice("suspend-io io-error"), "suspend-io"),
    row("options", NotYet, "quorum-minimum-redundancy", ChoiceOr("off majority all", 32), "off"),
    row("options", NotYet, "on-suspended-primary-outdated", Choice("disconnect force-secondary"),
        "disconnect"),
    row("options", NotYet, "peer-ack-window", Number(Sectors, M, 100 * M), "4096"),
    row("options", NotYet, "peer-ack-delay", Number(Milliseconds, 1, 10_000), "100"),
    row("options", NotYet, "twopc-timeout", Number(Tenths, 50, 600), "300"),
    row("options", NotYet, "twopc-retry-timeout", Number(Tenths, 1, 50), "1"),
    row("options", NotYet, "max-io-depth", Number(Count, 4, 99_999_999), "8000"),
    row("options", NotYet, "cpu-mask", Text(255), ""),
    row("options", NotYet, "drbd8-api-compatibility", Flag, "no"),

    row("volume", NotYet, "max-bio-size", Number(Bytes, 4 * K, M), "1M"),
    row("volume", NotYet, "block-size", Number(Bytes, 512, 4 * K), "512"),
    row("volume", NotYet, "discard-granularity", Number(Bytes, 0, 128 * M), ""),
    row("volume", NotYet, "diskless", Flag, "no"),
    row("volume", NotYet, "tiebreaker", Flag, "yes"),

    row("startup", NotYet, "wfc-timeout", Number(Seconds, 0, 300_000), "0"),
    row("startup", NotYet, "degr-wfc-timeout", Number(Seconds, 0, 300_000), "0"),
    row("startup", NotYet, "outdated-wfc-timeout", Number(Seconds, 0, 300_000), "0"),
    row("startup", NotYet, "wait-after-sb", Flag, "no"),
    row("startup", NotYet, "stacked-timeouts", Flag, "no"),
    row("startup", NotYet, "become-primary-on", Text(255), ""),

    row("handlers", NotYet, "fence-peer", Text(255), ""),
    row("handlers", NotYet, "unfence-peer", Text(255), ""),
    row("handlers", NotYet, "initial-split-brain", Text(255), ""),
    row("handlers", NotYet, "split-brain", Text(255), ""),
    row("handlers", NotYet, "pri-lost", Text(255), ""),
    row("handlers", NotYet, "pri-lost-after-sb", Text(255), ""),
    row("handlers", NotYet, "pri-on-incon-degr", Text(255), ""),
    row("handlers", NotYet, "local-io-error", Text(255), ""),
    row("handlers", NotYet, "before-resync-target", Text(255), ""),
    row("handlers", NotYet, "before-resync-source", Text(255), ""),
    row("handlers", NotYet, "after-resync-target", Text(255), ""),
    row("handlers", NotYet, "out-of-sync", Text(255), ""),
    row("handlers", NotYet, "quorum-lost", Text(255), ""),
    row("handlers", NotYet, "disconnected", Text(255), ""),
    row("handlers", NotYet, "outdate-peer", Text(255), ""),
];

/// The row of an option, or what to say when there is none.
pub(super) fn find(section: &str, name: &str) -> Result<&'static Row, String> {
    let here = || TABLE.iter().filter(|row| row.section == section);
    if let Some(row) = here().find(|row| row.name == name) {
        return Ok(row);
    }
    let honoured: Vec<_> =
        here().filter(|row| row.support == Honoured).map(|row| row.name).collect();
    let hint = if let Some(row) = TABLE.iter().find(|row| row.name == name) {
        format!("move it to `{}`", row.section)
    } else if let Some(near) = closest(name, here().map(|row| row.name)) {
        format!("did you mean `{near}`?")
    } else if honoured.is_empty() {
        "delete it".to_owned()
    } else {
        format!("Pollux has {}", honoured.join(", "))
    };
    Err(format!("`{name}` is no option of `{section}`: {hint}"))
}

impl Row {
    /// Reads what stands behind the name. The error says what was found and what is allowed; the
    /// note, if any, how Pollux takes a value that it does not take as DRBD would.
    pub(super) fn read(&self, words: &[String]) -> Result<(Value, Option<String>), String> {
        let name = self.name;
        let word = match words {
            [word] => word.as_str(),
            [] if self.kind == Flag => "yes",
            _ => {
                return Err(format!(
                    "`{name}` takes one value, found {}; {} (is a `;` missing, or quotes?)",
                    words.len(),
                    self.allowed()
                ));
            }
        };
        // What is wanted, what is used instead, and why.
        let instead = |used: &str, why: &str| Some((used.to_owned(), why.to_owned()));
        let changed = match (name, word) {
            ("data-integrity-alg", "crc32c") => instead("crc32", "Pollux has no crc32c"),
            ("on-io-error", "call-local-io-error") => instead("detach", "not yet honoured"),
            ("cram-hmac-alg", word) if word != "sha256" => {
                instead("sha256", "Pollux always uses HMAC-SHA256")
            }
            ("al-extents", word) => match (self.kind, number(Count, word)) {
                (Number(_, min, _), Some(n)) if n < min => instead(&min.to_string(), "too small"),
                (Number(_, _, max), Some(n)) if n > max => instead(&max.to_string(), "too large"),
                _ => None,
            },
            _ => None,
        };
        let (used, note) = match changed {
            None => (word, None),
            Some((ref used, why)) => {
                (used.as_str(), Some(format!("`{name} {word}`: {why}; `{name} {used}` is used")))
            }
        };
        let value = self.value(used);
        // Messages end in logs: no secret.
        let shown = if name == "shared-secret" { "..." } else { word };
        let value = value.ok_or_else(|| format!("`{name} {shown}`: {}", self.allowed()))?;
        Ok((value, note))
    }

    fn value(&self, word: &str) -> Option<Value> {
        let among = |words: &str| {
            words.split(' ').any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => word.len() > prefix.len() && word.starts_with(prefix),
                None => word == allowed,
            })
        };
        let within = |unit, min, max| {
            number(unit, word).filter(|n| (min..=max).contains(n)).map(Value::Number)
        };
        match self.kind {
            Flag if among("yes no") => Some(Value::Flag(word == "yes")),
            Flag => None,
            Choice(words) | ChoiceOr(words, _) if among(words) => {
                Some(Value::Text(word.to_owned()))
            }
            Choice(_) => None,
            ChoiceOr(_, max) => within(Count, 1, max),
            Text(max) => (1..=max).contains(&word.len()).then(|| Value::Text(word.to_owned())),
            Number(unit, min, max) => within(unit, min, max),
        }
    }

    /// The default; `None`: unset.
    pub(super) fn default_value(&self) -> Option<Value> {
        if self.default.is_empty() {
            return None;
        }
        let value = self.value(self.default);
        assert!(value.is_some(), "the default of `{}` is not in its range", self.name);
        value
    }

    /// A value as the operator would write it, without quotes.
    pub(super) fn text(&self, value: &Value) -> String {
        match (value, self.kind) {
            (Value::Number(bytes), Number(Bytes | Sectors | KibPerSecond, ..)) => size_text(*bytes),
            (Value::Number(number), _) => number.to_string(),
            (Value::Flag(yes), _) => if *yes { "yes" } else { "no" }.to_owned(),
            (Value::Text(text), _) => text.clone(),
        }
    }

    fn allowed(&self) -> String {
        let range = match self.kind {
            Flag => "yes, no".to_owned(),
            Choice(words) => words.replace(' ', ", "),
            ChoiceOr(words, max) => format!("{}, 1..{max}", words.replace(' ', ", ")),
            Text(max) => format!("1 to {max} bytes"),
            Number(unit, min, max) => {
                let unit_text = match unit {
                    Count => "",
                    Seconds => ", seconds without a suffix",
                    Tenths => ", tenths of a second without a suffix",
                    Milliseconds => ", milliseconds without a suffix",
                    Bytes => ", bytes or with K, M, G, s",
                    Sectors => ", sectors of 512 bytes or with K, M, G, s",
                    KibPerSecond => ", KiB per second or with K, M, G, s",
                };
                let text = |number| self.text(&Value::Number(number));
                format!("{}..{}{unit_text}", text(min), text(max))
            }
        };
        let default = if self.default.is_empty() { "none" } else { self.default };
        format!("allowed: {range}; default: {default}")
    }
}

/// Up to 8 digits and a suffix, as a number in the unit it is kept in.
fn number(unit: Unit, word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let factor = match (word[digits.len()..].to_ascii_uppercase().as_str(), unit) {
        ("" | "S", Sectors) | ("S", Bytes | KibPerSecond) => 512,
        ("", KibPerSecond) => K,
        ("", _) => 1,
        (_, Seconds | Tenths | Milliseconds) => return None,
        ("K", _) => K,
        ("M", _) => M,
        ("G", _) => G,
        _ => return None,
    };
    digits.parse::<u64>().ok().map(|number| number * factor)
}

/// Bytes in the largest unit that divides them.
fn size_text(bytes: u64) -> String {
    let mut units = [(G, "G"), (M, "M"), (K, "K"), (512, "s")].into_iter();
    match units.find(|(unit, _)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, suffix)) => format!("{}{suffix}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// The word that `found` was probably meant to be.
pub(super) fn closest<'a>(
    found: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = words.into_iter().map(|word| (distance(found, word), word));
    near.filter(|(distance, word)| *distance <= word.len().div_ceil(4)).min().map(|(_, word)| word)
}

/// How many letters must be added, dropped or replaced to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

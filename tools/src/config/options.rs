//! The table of all options DRBD knows: section, kind, range, default, and whether Pollux honours
//! it yet. It is the only place that knows them, and it brings their values into their usual form:
//! as an operator would write them, each in one way only. What an option means to a running resource
//! is not here.

use std::net::SocketAddr;

use super::HOSTS_MAX;
use Kind::{Address, Choice, ChoiceOr, Device, Flag, Listen, Number, Path, Text};
use Support::{Always, Honoured, NotYet, Only, Partly};
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

impl Unit {
    /// A number that is kept in this unit, as an operator would write it.
    fn text(self, number: u64) -> String {
        let sizes = [(G, "G"), (M, "M"), (K, "K"), (512, "s")].into_iter();
        let is_size = matches!(self, Bytes | Sectors | KibPerSecond) && number != 0;
        // The largest that divides it.
        match sizes.filter(|_| is_size).find(|(size, _)| number.is_multiple_of(*size)) {
            Some((size, suffix)) => format!("{}{suffix}", number / size),
            None => number.to_string(),
        }
    }
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
    /// This word, or a path; absolute, because the daemon does not run where the operator typed.
    Path(&'static str),
    /// `[ipv4|ipv6] IP:PORT`
    Address,
    /// `minor N`, `NAME minor N` or `/dev/drbdN`
    Device,
    /// `unix` or `IP:PORT`
    Listen,
}

/// What Pollux makes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// Does what is written.
    Honoured,
    /// Does what is written, but for what is said here.
    Partly(&'static str),
    /// Ignores it, and says so.
    NotYet,
    /// Always behaves as the default says; says so if something else is written.
    Always,
    /// Refuses anything but the default: to ignore it would be dangerous.
    Only,
}

/// One option, or several of the same kind. (DRBD's peer-device options stand in `disk`.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) section: &'static str,
    /// Parted by blanks in the table; what [`rows`] returns has one name.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Empty: unset.
    pub(super) default: &'static str,
    pub(super) support: Support,
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
const TABLE: &[Row] = &[
    // DRBD: yes. Pollux tells nobody.
    row("global", Always, "usage-count", Choice("yes no ask"), "no"),
    row("global", NotYet, "minor-count", Number(Count, 1, M - 1), ""),
    row("global", NotYet, "dialog-refresh", Number(Seconds, 0, 600), "1"),
    row("global", NotYet, "disable-ip-verification udev-always-use-vnr", Flag, "no"),
    row("global", NotYet, "cmd-timeout-short cmd-timeout-medium cmd-timeout-long",
        Number(Seconds, 0, 900), ""),

    // What a host and a volume cannot do without.
    row("on", Honoured, "node-id", Number(Count, 0, HOSTS_MAX as u64 - 1), ""),
    row("on", Honoured, "address", Address, ""),

    row("volume", Honoured, "device", Device, ""),
    row("volume", Honoured, "disk", Path("none"), ""),
    row("volume", Honoured, "meta-disk", Path("internal"), ""),
    row("volume", NotYet, "max-bio-size", Number(Bytes, 4 * K, M), "1M"),
    row("volume", NotYet, "block-size", Number(Bytes, 512, 4 * K), "512"),
    row("volume", NotYet, "discard-granularity", Number(Bytes, 0, 128 * M), ""),
    row("volume", NotYet, "diskless", Flag, "no"),
    row("volume", NotYet, "tiebreaker", Flag, "yes"),

    row("nbd", Honoured, "listen", Listen, "unix"),

    row("net", Honoured, "protocol", Choice("A B C"), "C"),
    row("net", Partly("it bounds the handshake; whether a peer is alive say `ping-int` and \
        `ping-timeout`"), "timeout", Number(Tenths, 1, 600), "60"),
    // DRBD: 10. A peer that is back is found soon, and attempts cost little.
    row("net", Honoured, "connect-int", Number(Seconds, 1, 120), "2"),
    // DRBD: 10. With ping-timeout it finds a dead peer within 2 s, not 10.5 s.
    row("net", Honoured, "ping-int", Number(Seconds, 1, 120), "1"),
    row("net", Honoured, "ping-timeout", Number(Tenths, 1, 300), "5"),
    // DRBD: 2048. Pages of 4 KiB that writes on their way to the peer may fill.
    row("net", Honoured, "max-buffers", Number(Count, 32, 131_072), "16384"),
    row("net", Honoured, "cram-hmac-alg shared-secret", Text(63), ""),
    row("net", Honoured, "data-integrity-alg", Choice("crc32 crc32c"), ""),
    row("net", NotYet, "ko-count", Number(Count, 0, 200), "7"),
    row("net", NotYet, "max-epoch-size", Number(Count, 1, 20_000), "2048"),
    row("net", NotYet, "sndbuf-size rcvbuf-size rdma-ctrl-sndbuf-size rdma-ctrl-rcvbuf-size",
        Number(Bytes, 0, 128 * M), "0"),
    row("net", NotYet, "tcp-cork use-rle allow-remote-read", Flag, "yes"),
    row("net", NotYet, "allow-two-primaries always-asbp csums-after-crash-only load-balance-paths",
        Flag, "no"),
    row("net", NotYet, "after-sb-0pri", Choice("disconnect discard-younger-primary \
        discard-older-primary discard-zero-changes discard-least-changes discard-local \
        discard-remote discard-node-*"), "disconnect"),
    row("net", NotYet, "after-sb-1pri", Choice("disconnect consensus violently-as0p \
        discard-secondary call-pri-lost-after-sb"), "disconnect"),
    row("net", NotYet, "after-sb-2pri", Choice("disconnect violently-as0p \
        call-pri-lost-after-sb"), "disconnect"),
    row("net", NotYet, "rr-conflict", Choice("disconnect violently call-pri-lost retry-connect \
        auto-discard"), "disconnect"),
    row("net", Honoured, "fencing", Choice("dont-care resource-only resource-and-stonith"),
        "dont-care"),
    row("net", NotYet, "on-congestion", Choice("block pull-ahead disconnect"), "block"),
    row("net", NotYet, "congestion-fill", Number(Sectors, 0, 10 * G), "0"),
    row("net", NotYet, "congestion-extents", Number(Count, 67, 65_534), "1237"),
    row("net", NotYet, "verify-alg csums-alg", Text(63), ""),
    row("net", NotYet, "socket-check-timeout", Number(Tenths, 0, 300), "0"),
    row("net", Always, "transport", Choice("tcp lb-tcp rdma"), "tcp"),
    row("net", Only, "tls", Flag, "no"),
    row("net", NotYet, "tls-keyring tls-privkey tls-certificate", Text(255), ""),

    row("disk", Honoured, "on-io-error", Choice("detach call-local-io-error pass_on"), "detach"),
    row("disk", Honoured, "al-extents", Number(Count, 67, 65_534), "1237"),
    // Ours: a client's FLUSH waits for the peer's (DESIGN 4.1). In DRBD it never does.
    row("disk", Honoured, "flush-peer", Flag, "yes"),
    // Ours: whether data goes past the page cache. By itself that of a device does, that of a file does not.
    row("disk", Honoured, "direct-io", Choice("auto yes no"), "auto"),
    row("disk", Honoured, "size", Number(Sectors, 0, G << 20), "0"),
    row("disk", Always, "al-updates disk-drain disk-flushes md-flushes", Flag, "yes"),
    row("disk", Always, "disk-barrier", Flag, "no"),
    row("disk", NotYet, "disk-timeout", Number(Tenths, 0, 6000), "0"),
    row("disk", NotYet, "read-balancing", Choice("prefer-local prefer-remote round-robin \
        least-pending when-congested-remote 32K-striping 64K-striping 128K-striping \
        256K-striping 512K-striping 1M-striping"), "prefer-local"),
    row("disk", NotYet, "resync-after", Text(255), ""),
    row("disk", NotYet, "rs-discard-granularity", Number(Bytes, 0, M), "0"),
    row("disk", NotYet, "disable-write-same", Flag, "no"),
    row("disk", NotYet, "resync-rate", Number(KibPerSecond, K, G << 13), "250"),
    row("disk", NotYet, "c-plan-ahead", Number(Tenths, 0, 300), "20"),
    row("disk", NotYet, "c-delay-target", Number(Tenths, 1, 100), "10"),
    row("disk", NotYet, "c-fill-target", Number(Sectors, 0, 512 * M), "100"),
    // DRBD: 100 MiB/s. Resync finds its own rate and yields to applications.
    row("disk", NotYet, "c-max-rate", Number(KibPerSecond, 0, G << 12), "0"),
    row("disk", NotYet, "c-min-rate", Number(KibPerSecond, 0, G << 12), "250"),
    row("disk", NotYet, "discard-zeroes-if-aligned bitmap resync-without-replication \
        peer-tiebreaker", Flag, "yes"),

    row("options", Honoured, "on-no-data-accessible", Choice("io-error suspend-io"), "io-error"),
    row("options", Honoured, "auto-promote", Flag, "yes"),
    // Ours: how long a handler may run before it is killed, which counts as its failure.
    row("options", Honoured, "handler-timeout", Number(Seconds, 1, 3600), "60"),
    row("options", NotYet, "auto-promote-timeout", Number(Tenths, 0, 600), "20"),
    row("options", NotYet, "quorum quorum-minimum-redundancy", ChoiceOr("off majority all", 32),
        "off"),
    row("options", NotYet, "on-no-quorum", Choice("suspend-io io-error"), "suspend-io"),
    row("options", NotYet, "on-suspended-primary-outdated", Choice("disconnect force-secondary"),
        "disconnect"),
    row("options", NotYet, "peer-ack-window", Number(Sectors, M, 100 * M), "4096"),
    row("options", NotYet, "peer-ack-delay", Number(Milliseconds, 1, 10_000), "100"),
    row("options", NotYet, "twopc-timeout", Number(Tenths, 50, 600), "300"),
    row("options", NotYet, "twopc-retry-timeout", Number(Tenths, 1, 50), "1"),
    row("options", NotYet, "max-io-depth", Number(Count, 4, 99_999_999), "8000"),
    row("options", NotYet, "cpu-mask", Text(255), ""),
    row("options", NotYet, "drbd8-api-compatibility", Flag, "no"),

    row("startup", NotYet, "wfc-timeout degr-wfc-timeout outdated-wfc-timeout",
        Number(Seconds, 0, 300_000), "0"),
    row("startup", NotYet, "wait-after-sb stacked-timeouts", Flag, "no"),
    row("startup", NotYet, "become-primary-on", Text(255), ""),

    row("handlers", Honoured, "fence-peer unfence-peer initial-split-brain split-brain \
        pri-lost pri-on-incon-degr local-io-error before-resync-target after-resync-target disconnected",
        Text(255), ""),
    row("handlers", NotYet, "pri-lost-after-sb before-resync-source out-of-sync \
        quorum-lost outdate-peer", Text(255), ""),
];

/// All options, each by itself.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    TABLE.iter().flat_map(|row| row.name.split(' ').map(|name| Row { name, ..*row }))
}

/// The options of a section, each by itself.
pub(super) fn rows_of(section: &str) -> impl Iterator<Item = Row> {
    rows().filter(move |row| row.section == section)
}

/// The row of an option; an older name of it will do.
pub(super) fn find(section: &str, name: &str) -> Option<Row> {
    let name = if name == "flexible-meta-disk" { "meta-disk" } else { name };
    rows_of(section).find(|row| row.name == name)
}

impl Row {
    /// Pollux does something of what is written.
    pub(super) fn is_honoured(&self) -> bool {
        matches!(self.support, Honoured | Partly(_))
    }

    /// What stands behind the name, given as words and as one text, in its usual form. The error says
    /// what was found and what is allowed; the notes, what Pollux does not do of it.
    pub(super) fn read(
        &self,
        words: &[String],
        text: &str,
    ) -> Result<(String, Vec<String>), String> {
        let name = self.name;
        let word = match (words, self.kind) {
            ([], Flag) => "yes",
            ([_], _) | (_, Address | Device | Listen) => text,
            _ => {
                return Err(format!(
                    "`{name}` takes one value, found {}; {} (is a `;` missing, or quotes?)",
                    words.len(),
                    self.allowed()
                ));
            }
        };
        // What is used instead, and why.
        let changed = match (name, self.kind) {
            ("data-integrity-alg", _) if word == "crc32c" => {
                Some(("crc32".to_owned(), "Pollux has no crc32c"))
            }
            ("cram-hmac-alg", _) if word != "sha256" => {
                Some(("sha256".to_owned(), "Pollux always uses HMAC-SHA256"))
            }
            ("on-io-error", _) if word == "pass_on" => {
                let why = "while another copy is good, clients see no error of a disk";
                Some(("detach".to_owned(), why))
            }
            ("al-extents", Number(_, min, max)) => match number(Count, word) {
                Some(n) if n < min => Some((min.to_string(), "too small")),
                Some(n) if n > max => Some((max.to_string(), "too large")),
                _ => None,
            },
            _ => None,
        };
        let note = changed
            .as_ref()
            .map(|(used, why)| format!("`{name} {word}`: {why}; `{name} {used}` is used"));
        let value = self.usual(changed.as_ref().map_or(word, |(used, _)| used));
        // Messages end in logs: no secret.
        let shown = if name == "shared-secret" { "..." } else { word };
        let value = value.ok_or_else(|| format!("`{name} {shown}`: {}", self.allowed()))?;
        let default = self.default;
        let is_default = value == default;
        let support = match self.support {
            NotYet => Some(format!(
                "`{name}` is known to DRBD but not yet honoured by Pollux; it is ignored"
            )),
            Partly(but) if !is_default => Some(format!("`{name}` is honoured in part: {but}")),
            Always if !is_default => Some(format!(
                "`{name}` is ignored: Pollux always behaves as `{name} {default};` says"
            )),
            Only if !is_default => {
                return Err(format!(
                    "`{name}` is not supported yet, and to ignore it would be dangerous: write \
                     `{name} {default};`"
                ));
            }
            Honoured | Partly(_) | Always | Only => None,
        };
        Ok((value, support.into_iter().chain(note).collect()))
    }

    /// A value in its usual form; `None`: it is not allowed.
    pub(super) fn usual(&self, word: &str) -> Option<String> {
        let among = |words: &str| {
            words.split(' ').any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => word.len() > prefix.len() && word.starts_with(prefix),
                None => word == allowed,
            })
        };
        let within = |unit, min, max| {
            number(unit, word).filter(|n| (min..=max).contains(n)).map(|n| unit.text(n))
        };
        let text = |is_good: bool| is_good.then(|| word.to_owned());
        match self.kind {
            Flag => text(among("yes no")),
            Choice(words) => text(among(words)),
            ChoiceOr(words, max) => text(among(words)).or_else(|| within(Count, 1, max)),
            Text(max) => text((1..=max).contains(&word.len())),
            Path(special) => text(word == special || word.starts_with('/')),
            Number(unit, min, max) => within(unit, min, max),
            Address => address(word).map(|address| address.to_string()),
            Device => device(word).map(|device| match device {
                (Some(name), minor) => format!("{name} minor {minor}"),
                (None, minor) => format!("minor {minor}"),
            }),
            Listen => text(word == "unix" || listen(word).is_some()),
        }
    }

    /// The number that a value in its usual form is.
    pub(super) fn number(&self, text: &str) -> Option<u64> {
        match self.kind {
            Number(unit, ..) => number(unit, text),
            _ => None,
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
                format!("{}..{}{unit_text}", unit.text(min), unit.text(max))
            }
            Path(special) => return format!("write `{special}`, or the whole path, from `/` on"),
            Address => {
                return "an IP address the peer can reach, and a port: write `address \
                        10.7.0.1:7020;` or `address ipv6 [fd00::1]:7020;`"
                    .to_owned();
            }
            Listen => return "write `listen unix;` or `listen 10.0.0.1:10809;`".to_owned(),
            Device => {
                return "write `device minor 0;` or `device /dev/nbd0 minor 0;` (0..1048575)"
                    .to_owned();
            }
        };
        let default = if self.default.is_empty() { "none" } else { self.default };
        format!("allowed: {range}; default: {default}")
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    let (family, address) = text.split_once(' ').unwrap_or(("", text));
    let address: SocketAddr = address.parse().ok()?;
    let is_family = match family {
        "" => true,
        "ipv4" => address.is_ipv4(),
        "ipv6" => address.is_ipv6(),
        _ => false,
    };
    (is_family && address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
}

/// The device node, if it has a name, and the minor number.
pub(super) fn device(text: &str) -> Option<(Option<&str>, u32)> {
    let (name, minor) = match text.split(' ').collect::<Vec<_>>()[..] {
        ["minor", minor] => (None, minor),
        [name, "minor", minor] => (Some(name), minor),
        [name] => (Some(name), name.strip_prefix("/dev/drbd")?),
        _ => return None,
    };
    // As many as the kernel has.
    minor.parse().ok().filter(|minor| *minor < 1 << 20).map(|minor| (name, minor))
}

/// What `listen` says; `None`: `unix`, or nothing that is allowed.
pub(super) fn listen(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
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

/// The word that `found` was probably meant to be.
pub(super) fn closest<'a>(
    found: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = words.into_iter().map(|word| (strsim::levenshtein(found, word), word));
    near.filter(|(distance, word)| *distance <= word.len().div_ceil(4)).min().map(|(_, word)| word)
}

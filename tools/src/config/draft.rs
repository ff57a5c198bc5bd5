//! What was said about one host of a resource, level by level: which keyword may stand where, what
//! its values are, whether it is said twice. A draft is cloned where the configuration branches (the
//! common part into resources, a resource into hosts), so every statement is looked at once, and a
//! more specific level writes over a wider one. What the whole amounts to is `meant`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::options::{self, Support, Value};
use super::place::{ConfigError, Place, Warning};
use super::statement::Statement;
use super::{HOSTS_MAX, Listen, MetaDisk, VOLUMES_MAX};

/// How specific a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Common,
    Resource,
    Connection,
    On,
}

impl Level {
    /// The keywords that may stand here, parted by blanks.
    fn keywords(self) -> &'static str {
        match self {
            Self::Common => "net disk options startup handlers nbd protocol proxy",
            Self::Resource => {
                "net disk options startup handlers nbd protocol proxy on connection \
                 connection-mesh volume device meta-disk flexible-meta-disk"
            }
            Self::Connection => "net disk host hosts",
            Self::On => {
                "node-id address volume device disk meta-disk flexible-meta-disk options nbd"
            }
        }
    }
}

/// A value, and where it was said.
#[derive(Clone, Debug)]
pub(super) struct Slot<T> {
    pub(super) value: T,
    pub(super) place: Place,
    level: Level,
}

/// Options by section and name.
pub(super) type Options = BTreeMap<(&'static str, &'static str), Slot<Value>>;

/// What was said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) options: Options,
    pub(super) nbd: Vec<Slot<Listen>>,
    pub(super) node_id: Option<Slot<u8>>,
    pub(super) address: Option<Slot<SocketAddr>>,
    pub(super) volumes: BTreeMap<u16, VolumeDraft>,
}

/// What was said so far about one volume.
#[derive(Clone, Debug)]
pub(super) struct VolumeDraft {
    pub(super) place: Place,
    level: Level,
    /// In `volume N { }`, not as lines of the resource or host itself.
    is_explicit: bool,
    pub(super) options: Options,
    pub(super) device: Option<Slot<(Option<String>, u32)>>,
    pub(super) disk: Option<Slot<Option<PathBuf>>>,
    pub(super) meta_disk: Option<Slot<MetaDisk>>,
}

/// True if `name` is one of the `words`, which are parted by blanks.
fn is_word(name: &str, words: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

/// What to say of a keyword that may not stand where it stands.
pub(super) fn unknown(at: &Statement, inside: &str, allowed: &str) -> ConfigError {
    let name = at.name();
    let why = match name {
        "include" => "stands at the top level only, outside of all braces",
        "floating" => {
            "is not supported: name each host, `on NAME { address ...; }`, as `uname -n` prints it \
             there"
        }
        "stacked-on-top-of" => "is not supported: resources do not stack",
        "template-file" => "is not supported: write what that file holds into `common`",
        "path" => "is not supported: each host has one address, in its `on` section",
        "tls" => "is not supported yet: NBD is served without encryption",
        _ => match options::closest(name, allowed.split(' ')) {
            Some(near) => &format!("is not known {inside}: did you mean `{near}`?"),
            None => &format!("is not known {inside}: allowed: {}", allowed.replace(' ', ", ")),
        },
    };
    at.error(format!("`{name}` {why}"))
}

/// The error of saying something again where `first` says it.
pub(super) fn twice(at: &Statement, first: &Place) -> ConfigError {
    at.error(format!("`{}`: said already at {first}: delete one", at.text()))
}

fn set<T>(
    slot: &mut Option<Slot<T>>,
    at: &Statement,
    level: Level,
    value: T,
) -> Result<(), ConfigError> {
    let place = at.place.clone();
    match slot.replace(Slot { value, place, level }) {
        Some(first) if first.level == level => Err(twice(at, &first.place)),
        _ => Ok(()),
    }
}

impl Draft {
    /// Takes one statement of a level.
    pub(super) fn take(
        &mut self,
        at: &Statement,
        level: Level,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ConfigError> {
        let name = at.name();
        if !is_word(name, level.keywords()) {
            let inside = format!("in `{level:?}`").to_lowercase();
            return Err(unknown(at, &inside, level.keywords()));
        }
        match name {
            "protocol" => option("net", at, level, &mut self.options, warnings)?,
            "disk" if at.body.is_none() && matches!(level, Level::Resource | Level::On) => {
                self.volume(0, false, at, level)?.line(at, level)?;
            }
            "net" | "disk" | "options" | "startup" | "handlers" => {
                for inner in at.plain_section()? {
                    option(name, inner, level, &mut self.options, warnings)?;
                }
            }
            "proxy" => warnings.push(at.place.warning("`proxy` is not supported; it is ignored")),
            "nbd" => self.nbd(at, level)?,
            "node-id" => {
                let word = at.value("node-id 0;")?;
                let id = word.parse().ok().filter(|id| usize::from(*id) < HOSTS_MAX);
                let allowed =
                    || at.error(format!("`node-id {word}`: allowed: 0..{}", HOSTS_MAX - 1));
                set(&mut self.node_id, at, level, id.ok_or_else(allowed)?)?;
            }
            "address" => set(&mut self.address, at, level, address(at)?)?,
            "volume" => {
                let number = match at.values() {
                    [number] => number.parse().ok().filter(|number| *number < u16::MAX),
                    _ => None,
                };
                let number = number.ok_or_else(|| {
                    at.error("a volume has a number, 0..65534: write `volume 0 { ... }`")
                })?;
                let volume = self.volume(number, true, at, level)?;
                for inner in at.section()? {
                    volume.take(inner, level, warnings)?;
                }
            }
            "device" | "meta-disk" | "flexible-meta-disk" => {
                self.volume(0, false, at, level)?.line(at, level)?;
            }
            _ => unreachable!("`{name}` opens a level of its own, which `meant` takes apart"),
        }
        Ok(())
    }

    fn nbd(&mut self, at: &Statement, level: Level) -> Result<(), ConfigError> {
        self.nbd.retain(|listen| listen.level == level);
        for inner in at.plain_section()? {
            if inner.name() != "listen" {
                return Err(unknown(inner, "in `nbd`", "listen"));
            }
            let text = inner.plain_values()?.concat();
            let value = match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => Listen::Tcp(address),
                _ if text == "unix" => Listen::Unix,
                _ => {
                    return Err(inner.error(format!(
                        "`listen {text}`: write `listen unix;` or `listen 10.0.0.1:10809;`"
                    )));
                }
            };
            if let Some(first) = self.nbd.iter().find(|first| first.value == value) {
                return Err(twice(inner, &first.place));
            }
            let place = inner.place.clone();
            self.nbd.push(Slot { value, place, level });
        }
        Ok(())
    }

    /// The draft of a volume that `at` says something about.
    fn volume(
        &mut self,
        number: u16,
        is_explicit: bool,
        at: &Statement,
        level: Level,
    ) -> Result<&mut VolumeDraft, ConfigError> {
        let is_new = !self.volumes.contains_key(&number);
        if let Some(other) = self.volumes.values().find(|v| v.is_explicit != is_explicit) {
            return Err(at.error(format!(
                "`{}` here and the volume at {} do not go together: write all of it inside of \
                 `volume N {{ ... }}`",
                at.name(),
                other.place
            )));
        }
        if self.volumes.len() == VOLUMES_MAX && is_new {
            return Err(at.error(format!("more than {VOLUMES_MAX} volumes in one resource")));
        }
        let volume = self.volumes.entry(number).or_insert_with(|| VolumeDraft {
            place: at.place.clone(),
            level,
            is_explicit,
            options: Options::new(),
            device: None,
            disk: None,
            meta_disk: None,
        });
        if is_explicit && !is_new && volume.level == level {
            return Err(twice(at, &volume.place));
        }
        volume.level = level;
        Ok(volume)
    }
}

impl VolumeDraft {
    fn take(
        &mut self,
        at: &Statement,
        level: Level,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ConfigError> {
        match at.name() {
            "disk" if at.body.is_some() => {
                for inner in at.plain_section()? {
                    option("disk", inner, level, &mut self.options, warnings)?;
                }
                Ok(())
            }
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" => self.line(at, level),
            name if options::find("volume", name).is_ok() => {
                option("volume", at, level, &mut self.options, warnings)
            }
            _ => Err(unknown(
                at,
                "in `volume`",
                "device disk meta-disk flexible-meta-disk max-bio-size block-size discard-granularity \
 diskless tiebreaker",
            )),
        }
    }

    fn line(&mut self, at: &Statement, level: Level) -> Result<(), ConfigError> {
        match at.name() {
            "device" => set(&mut self.device, at, level, device(at)?),
            "disk" => {
                let disk = match at.value("disk /dev/vg/name;")? {
                    "none" => None,
                    disk => Some(path(at, disk)?),
                };
                set(&mut self.disk, at, level, disk)
            }
            name => {
                let meta_disk = match at.value("meta-disk internal;")? {
                    "internal" if name == "meta-disk" => MetaDisk::Internal,
                    place => MetaDisk::External(path(at, place)?),
                };
                set(&mut self.meta_disk, at, level, meta_disk)
            }
        }
    }
}

/// Reads one option and says what Pollux does not do of it.
pub(super) fn option(
    section: &str,
    at: &Statement,
    level: Level,
    options: &mut Options,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    let row = options::find(section, at.name()).map_err(|message| at.error(message))?;
    let (value, note) = row.read(at.plain_values()?).map_err(|message| at.error(message))?;
    let (name, default) = (row.name, row.default);
    let said = match row.support {
        Support::NotYet => {
            Some(format!("`{name}` is known to DRBD but not yet honoured by Pollux; it is ignored"))
        }
        Support::Always | Support::Only if row.default_value().as_ref() == Some(&value) => None,
        Support::Always => {
            Some(format!("`{name}` is ignored: Pollux always behaves as `{name} {default};` says"))
        }
        Support::Only => {
            return Err(at.error(format!(
                "`{name}` is not supported yet, and to ignore it would be dangerous: write \
                 `{name} {default};`"
            )));
        }
        Support::Honoured => None,
    };
    warnings.extend(said.into_iter().chain(note).map(|message| at.place.warning(message)));
    let mut slot = options.remove(&(row.section, name));
    set(&mut slot, at, level, value)?;
    options.extend(slot.map(|slot| ((row.section, name), slot)));
    Ok(())
}

/// `[ipv4|ipv6] IP:PORT`
fn address(at: &Statement) -> Result<SocketAddr, ConfigError> {
    let words = at.plain_values()?;
    let (family, rest) = match words.first().map(String::as_str) {
        Some(family @ ("ipv4" | "ipv6")) => (family, &words[1..]),
        _ => ("", words),
    };
    let is_usable = |a: &SocketAddr| {
        let is_family = if a.is_ipv4() { "ipv4" } else { "ipv6" };
        a.port() != 0 && !a.ip().is_unspecified() && (family.is_empty() || family == is_family)
    };
    rest.concat().parse().ok().filter(is_usable).ok_or_else(|| {
        at.error(format!(
            "`{}`: an IP address the peer can reach, and a port: write `address \
             10.7.0.1:7020;` or `address ipv6 [fd00::1]:7020;`",
            at.text()
        ))
    })
}

/// `minor N`, `NAME minor N` or `/dev/drbdN`
fn device(at: &Statement) -> Result<(Option<String>, u32), ConfigError> {
    let words: Vec<&str> = at.plain_values()?.iter().map(String::as_str).collect();
    let (name, minor) = match words[..] {
        ["minor", minor] => (None, minor),
        [name, "minor", minor] => (Some(name), minor),
        [name] => (Some(name), name.strip_prefix("/dev/drbd").unwrap_or("")),
        _ => (None, ""),
    };
    // As many as the kernel has.
    let minor = minor.parse().ok().filter(|minor| *minor < 1 << 20);
    minor.map(|minor| (name.map(str::to_owned), minor)).ok_or_else(|| {
        at.error(format!(
            "`{}`: write `device minor 0;` or `device /dev/nbd0 minor 0;` (0..1048575)",
            at.text()
        ))
    })
}

/// Absolute, because the daemon does not run where the operator typed.
fn path(at: &Statement, text: &str) -> Result<PathBuf, ConfigError> {
    match text.strip_prefix('/') {
        Some(_) => Ok(PathBuf::from(text)),
        None => Err(at.error(format!("`{} {text}`: write the whole path, from `/` on", at.name()))),
    }
}

//! What was said about one host of a resource, level by level: which keyword may stand where, what
//! its values are, whether it is said twice. A draft is cloned where the configuration branches (the
//! common part into resources, a resource into hosts), so every statement is looked at once, and a
//! more specific level writes over a wider one. What the whole amounts to is `meant`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::options::{self, Row, Value};
use super::place::Place;
use super::statement::Statement;
use super::{Listen, VOLUMES_MAX};
use crate::failure::{Failure, Result};

/// How specific a statement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    #[default]
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
    /// What is taken now.
    pub(super) level: Level,
    pub(super) options: Options,
    pub(super) nbd: Vec<Slot<Listen>>,
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
}

/// What to say of a keyword that may not stand where it stands. `known` may, and the `useful` ones
/// are named; both are parted by blanks.
pub(super) fn unknown(at: &Statement, inside: &str, known: &str, useful: &str) -> Failure {
    let name = at.name();
    let home = options::rows().find(|row| row.name == name && at.body.is_none());
    let why = match (name, home) {
        ("include", _) => "stands at the top level only, outside of all braces",
        ("floating", _) => {
            "is not supported: name each host, `on NAME { address ...; }`, as `uname -n` prints it \
             there"
        }
        ("stacked-on-top-of", _) => "is not supported: resources do not stack",
        ("template-file", _) => "is not supported: write what that file holds into `common`",
        ("path", _) => "is not supported: each host has one address, in its `on` section",
        ("tls", _) => "is not supported yet: NBD is served without encryption",
        (_, Some(row)) => &format!("is not known {inside}: move it to `{}`", row.section),
        _ => match options::closest(name, known.split(' ')) {
            Some(near) => &format!("is not known {inside}: did you mean `{near}`?"),
            None if useful.is_empty() => &format!("is not known {inside}: delete it"),
            None => &format!("is not known {inside}: allowed: {}", useful.replace(' ', ", ")),
        },
    };
    at.error(format!("`{name}` {why}"))
}

/// The error of saying something again where `first` says it.
pub(super) fn twice(at: &Statement, first: &Place) -> Failure {
    at.error(format!("`{}`: said already at {first}: delete one", at.text()))
}

impl Draft {
    /// What was said so far, as more is said at another level.
    pub(super) fn at(&self, level: Level) -> Self {
        Self { level, ..self.clone() }
    }

    /// Takes one statement of the level.
    pub(super) fn take(&mut self, at: &Statement, warnings: &mut Vec<String>) -> Result {
        let (name, level) = (at.name(), self.level);
        let keywords = level.keywords();
        if !keywords.split(' ').any(|word| word == name) {
            let inside = format!("in `{level:?}`").to_lowercase();
            return Err(unknown(at, &inside, keywords, keywords));
        }
        let is_line = at.body.is_none() && matches!(level, Level::Resource | Level::On);
        match name {
            "protocol" => option("net", at, level, &mut self.options, warnings),
            "node-id" | "address" => option("on", at, level, &mut self.options, warnings),
            "device" | "meta-disk" | "flexible-meta-disk" | "disk" if is_line => {
                let volume = self.volume(0, at)?;
                option("volume", at, level, &mut volume.options, warnings)
            }
            "net" | "disk" | "options" | "startup" | "handlers" => {
                section(at, level, &mut self.options, warnings)
            }
            "proxy" => {
                warnings.push(at.place.warning("`proxy` is not supported; it is ignored"));
                Ok(())
            }
            "nbd" => self.nbd(at),
            "volume" => {
                let number = match at.values() {
                    [number] => number.parse().ok().filter(|number| *number < u16::MAX),
                    _ => None,
                };
                let number = number.ok_or_else(|| {
                    at.error("a volume has a number, 0..65534: write `volume 0 { ... }`")
                })?;
                let volume = self.volume(number, at)?;
                for inner in at.section()? {
                    match inner.name() {
                        "disk" if inner.body.is_some() => {
                            section(inner, level, &mut volume.options, warnings)?;
                        }
                        _ => option("volume", inner, level, &mut volume.options, warnings)?,
                    }
                }
                Ok(())
            }
            _ => Err(at.error(format!("`{name}` is no section: write `{name} ...;`"))),
        }
    }

    fn nbd(&mut self, at: &Statement) -> Result {
        let level = self.level;
        self.nbd.retain(|listen| listen.level == level);
        for inner in at.plain_section()? {
            if inner.name() != "listen" {
                return Err(unknown(inner, "in `nbd`", "listen", "listen"));
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
    fn volume(&mut self, number: u16, at: &Statement) -> Result<&mut VolumeDraft> {
        let (level, is_explicit) = (self.level, at.name() == "volume");
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
        });
        if is_explicit && !is_new && volume.level == level {
            return Err(twice(at, &volume.place));
        }
        volume.level = level;
        Ok(volume)
    }
}

/// Takes all options of a section, which has the name of theirs.
pub(super) fn section(
    at: &Statement,
    level: Level,
    options: &mut Options,
    warnings: &mut Vec<String>,
) -> Result {
    let mut inner = at.plain_section()?.iter();
    inner.try_for_each(|inner| option(at.name(), inner, level, options, warnings))
}

/// Reads one option and says what Pollux does not do of it.
fn option(
    section: &str,
    at: &Statement,
    level: Level,
    options: &mut Options,
    warnings: &mut Vec<String>,
) -> Result {
    let Some(row) = options::find(section, at.name()) else {
        let names = |is_wanted: fn(&Row) -> bool| {
            options::rows_of(section)
                .filter(is_wanted)
                .map(|row| row.name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let inside = format!("in `{section}`");
        return Err(unknown(at, &inside, &names(|_| true), &names(Row::is_honoured)));
    };
    let read = row.read(at.plain_values()?, &at.values_text());
    let (value, notes) = read.map_err(|message| at.error(message))?;
    warnings.extend(notes.into_iter().map(|note| at.place.warning(note)));
    let slot = Slot { value, place: at.place.clone(), level };
    match options.insert((row.section, row.name), slot) {
        Some(first) if first.level == level => Err(twice(at, &first.place)),
        _ => Ok(()),
    }
}

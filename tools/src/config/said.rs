//! What one part of a configuration says: `common`, a resource, a connection or a host. Which
//! keyword may stand where, what its values are, whether it is said twice in that part; and how a
//! part inherits from a wider one. Every statement is looked at once. What the whole amounts to is
//! `meant`'s.

use std::collections::BTreeMap;

use super::VOLUMES_MAX;
use super::options::{self, Row};
use super::place::Place;
use super::statement::Statement;
use crate::failure::{Failure, Result};

/// A part, from the widest to the most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Common,
    Resource,
    Connection,
    On,
}

impl Part {
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

/// The value of an option in its usual form, and where it was said.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// Options by section and name.
pub(super) type Options = BTreeMap<(&'static str, &'static str), Word>;

/// What a part says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) options: Options,
    /// `listen` of `nbd`.
    pub(super) nbd: Vec<Word>,
    /// Options by volume, and where the first of them was said.
    pub(super) volumes: BTreeMap<u16, (Place, Options)>,
    /// Volumes are written as `volume N { }`, or as lines of the part itself; and where.
    has_sections: Option<(bool, Place)>,
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

impl Said {
    /// A part of `wider`: takes these statements, and inherits what none of them says.
    pub(super) fn inside<'a>(
        wider: &Self,
        part: Part,
        statements: impl IntoIterator<Item = &'a Statement>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut said = Self { has_sections: wider.has_sections.clone(), ..Self::default() };
        for at in statements {
            said.take(part, at, warnings)?;
        }
        inherit(&mut said.options, &wider.options);
        if said.nbd.is_empty() {
            said.nbd.clone_from(&wider.nbd);
        }
        for (number, (place, options)) in &wider.volumes {
            let new = || (place.clone(), Options::new());
            let (first, own) = said.volumes.entry(*number).or_insert_with(new);
            first.clone_from(place);
            inherit(own, options);
        }
        Ok(said)
    }

    /// Takes one statement of the part.
    fn take(&mut self, part: Part, at: &Statement, warnings: &mut Vec<String>) -> Result {
        let (name, keywords) = (at.name(), part.keywords());
        if !keywords.split(' ').any(|word| word == name) {
            let inside = format!("in `{part:?}`").to_lowercase();
            return Err(unknown(at, &inside, keywords, keywords));
        }
        let is_line = at.body.is_none() && matches!(part, Part::Resource | Part::On);
        match name {
            "protocol" => option("net", at, &mut self.options, warnings),
            "node-id" | "address" => option("on", at, &mut self.options, warnings),
            "device" | "meta-disk" | "flexible-meta-disk" | "disk" if is_line => {
                option("volume", at, self.volume(0, at)?, warnings)
            }
            "net" | "disk" | "options" | "startup" | "handlers" => {
                section(at, &mut self.options, warnings)
            }
            "proxy" => {
                warnings.push(at.place.warning("`proxy` is not supported; it is ignored"));
                Ok(())
            }
            "nbd" => {
                for inner in at.plain_section()? {
                    let (_, listen) = read("nbd", inner, warnings)?;
                    if let Some(first) = self.nbd.iter().find(|first| first.text == listen.text) {
                        return Err(twice(inner, &first.place));
                    }
                    self.nbd.push(listen);
                }
                Ok(())
            }
            "volume" => {
                let number = match at.values() {
                    [number] => number.parse().ok().filter(|number| *number < u16::MAX),
                    _ => None,
                };
                let number = number.ok_or_else(|| {
                    at.error("a volume has a number, 0..65534: write `volume 0 { ... }`")
                })?;
                let options = self.volume(number, at)?;
                for inner in at.section()? {
                    match inner.name() {
                        "disk" if inner.body.is_some() => section(inner, options, warnings)?,
                        _ => option("volume", inner, options, warnings)?,
                    }
                }
                Ok(())
            }
            _ => Err(at.error(format!("`{name}` is no section: write `{name} ...;`"))),
        }
    }

    /// The options of a volume that `at` says something about.
    fn volume(&mut self, number: u16, at: &Statement) -> Result<&mut Options> {
        let is_section = at.name() == "volume";
        let (has_sections, first) =
            self.has_sections.get_or_insert_with(|| (is_section, at.place.clone()));
        if *has_sections != is_section {
            return Err(at.error(format!(
                "`{}` here and the volume at {first} do not go together: write all of it inside of \
                 `volume N {{ ... }}`",
                at.name()
            )));
        }
        match self.volumes.get(&number) {
            Some((first, _)) if is_section => return Err(twice(at, first)),
            None if self.volumes.len() == VOLUMES_MAX => {
                return Err(at.error(format!("more than {VOLUMES_MAX} volumes in one resource")));
            }
            _ => {}
        }
        let volume = self.volumes.entry(number);
        Ok(&mut volume.or_insert_with(|| (at.place.clone(), Options::new())).1)
    }
}

/// Options that are not said are as the wider part says.
pub(super) fn inherit(options: &mut Options, wider: &Options) {
    for (name, word) in wider {
        options.entry(*name).or_insert_with(|| word.clone());
    }
}

/// Takes all options of a section, which has the name of theirs.
pub(super) fn section(at: &Statement, options: &mut Options, warnings: &mut Vec<String>) -> Result {
    let mut inner = at.plain_section()?.iter();
    inner.try_for_each(|inner| option(at.name(), inner, options, warnings))
}

fn option(
    section: &str,
    at: &Statement,
    options: &mut Options,
    warnings: &mut Vec<String>,
) -> Result {
    let (row, word) = read(section, at, warnings)?;
    match options.insert((row.section, row.name), word) {
        Some(first) => Err(twice(at, &first.place)),
        None => Ok(()),
    }
}

/// Reads one option and says what Pollux does not do of it.
fn read(section: &str, at: &Statement, warnings: &mut Vec<String>) -> Result<(Row, Word)> {
    let Some(row) = options::find(section, at.name()) else {
        let names = |is_wanted: fn(&Row) -> bool| {
            let rows = options::rows_of(section).filter(is_wanted);
            rows.map(|row| row.name).collect::<Vec<_>>().join(" ")
        };
        let inside = format!("in `{section}`");
        return Err(unknown(at, &inside, &names(|_| true), &names(Row::is_honoured)));
    };
    let read = row.read(at.plain_values()?, &at.values_text());
    let (text, notes) = read.map_err(|message| at.error(message))?;
    warnings.extend(notes.into_iter().map(|note| at.place.warning(note)));
    Ok((row, Word { text, place: at.place.clone() }))
}

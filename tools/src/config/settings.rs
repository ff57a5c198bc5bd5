//! The options of one section that Pollux honours, as they count for one resource, host or volume:
//! what the most specific part said, else the default of the table.

use std::collections::BTreeMap;
use std::fmt;

use super::options::{Row, rows, rows_of};
use super::said::Options;

/// The honoured options of one section: what differs from the default, in its usual form.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Those of all that are said.
    pub(super) fn new(section: &'static str, options: &Options) -> Self {
        let said = rows_of(section).filter(Row::is_honoured).filter_map(|row| {
            let word = options.get(&(section, row.name))?;
            (word.text != row.default).then(|| (row.name, word.text.clone()))
        });
        Self(said.collect())
    }

    fn row(name: &str) -> Row {
        let mut honoured = rows().filter(Row::is_honoured);
        honoured.find(|row| row.name == name).expect("only what is honoured is asked for")
    }

    /// A number, in the unit it is kept in: bytes, bytes per second, or as it is written.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let number = self.text(name).and_then(|text| Self::row(name).number(text));
        number.unwrap_or_else(|| unreachable!("the table says `{name}` is a number"))
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("yes")
    }

    /// A word; `None`: unset, and there is no default.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let default = Self::row(name).default;
        let text = self.0.get(name).map_or(default, String::as_str);
        (!text.is_empty()).then_some(text)
    }

    /// What differs from the default, as an operator writes it.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        rows().filter_map(|row| Some((row.name, self.0.get(row.name)?.as_str())))
    }
}

/// Names only: a value may be a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

//! The options of one section that Pollux honours, as they count for one resource, host or volume:
//! what the most specific level said, else the default of the table.

use std::collections::BTreeMap;
use std::fmt;

use super::draft::Options;
use super::options::{Row, Value, find, rows_of};

/// The honoured options of one section.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    section: &'static str,
    /// What differs from the default.
    said: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Of several levels, the most specific first.
    pub(super) fn new(section: &'static str, levels: &[&Options]) -> Self {
        let mut said = BTreeMap::new();
        for row in rows_of(section).filter(Row::is_honoured) {
            let slot = levels.iter().find_map(|options| options.get(&(section, row.name)));
            if let Some(slot) =
                slot.filter(|slot| Some(&slot.value) != row.default_value().as_ref())
            {
                said.insert(row.name, slot.value.clone());
            }
        }
        Self { section, said }
    }

    fn value(&self, name: &str) -> Option<Value> {
        let row = find(self.section, name).expect("only names of the table are asked for");
        assert!(row.is_honoured(), "`{name}` is used, and not marked as honoured");
        self.said.get(name).cloned().or_else(|| row.default_value())
    }

    /// A number, in the unit it is kept in: bytes, bytes per second, or as it is written.
    pub(crate) fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Number(number)) => number,
            other => unreachable!("the table says `{name}` is a number, not {other:?}"),
        }
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Flag(yes)) => yes,
            other => unreachable!("the table says `{name}` is `yes` or `no`, not {other:?}"),
        }
    }

    /// A word; `None`: unset, and there is no default.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            other => unreachable!("the table says `{name}` is a word, not {other:?}"),
        }
    }

    /// What differs from the default, as an operator writes it.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let rows = rows_of(self.section);
        rows.filter_map(|row| Some((row.name, row.text(self.said.get(row.name)?))))
    }
}

/// Names only: a value may be a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.said.keys()).finish()
    }
}

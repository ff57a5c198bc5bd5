//! The options Pollux honours, out of the table and what was said, as the fields the programs read.
//! The only place that knows which option is which field.

use std::time::Duration;

use super::draft::Options;
use super::options::{self, Support, TABLE, Value};
use super::{
    DiskOptions, NetOptions, OnIoError, OnNoData, Protocol, ResourceOptions, Secret, Texts,
};

/// Options of several levels, the most specific first.
pub(super) struct Meant<'a>(pub(super) &'a [&'a Options]);

impl Meant<'_> {
    /// What was said, else the default of the table; `None`: unset.
    fn value(&self, section: &'static str, name: &'static str) -> Option<Value> {
        let row = options::find(section, name).expect("only names of the table are asked for");
        let mut levels = self.0.iter();
        let said = levels.find_map(|options| options.get(&(section, name)));
        said.map_or_else(|| row.default_value(), |slot| Some(slot.value.clone()))
    }

    fn number(&self, section: &'static str, name: &'static str) -> u64 {
        match self.value(section, name) {
            Some(Value::Number(number)) => number,
            other => unreachable!("the table says `{name}` is a number, not {other:?}"),
        }
    }

    fn small(&self, section: &'static str, name: &'static str) -> u32 {
        u32::try_from(self.number(section, name)).expect("the range in the table is below 2^32")
    }

    fn is(&self, section: &'static str, name: &'static str, wanted: &str) -> bool {
        match self.value(section, name) {
            Some(Value::Text(text)) => text == wanted,
            Some(Value::Flag(yes)) => yes == (wanted == "yes"),
            _ => false,
        }
    }

    /// The honoured options of a section that differ from the default, as an operator writes them.
    fn texts(&self, section: &'static str) -> Texts {
        let rows = TABLE.iter().filter(|r| r.section == section && r.support == Support::Honoured);
        rows.filter_map(|row| {
            let value =
                self.value(section, row.name).filter(|v| Some(v) != row.default_value().as_ref());
            Some((row.name, row.text(&value?)))
        })
        .collect()
    }

    pub(super) fn net(&self) -> NetOptions {
        let seconds = |name| Duration::from_secs(self.number("net", name));
        let tenths = |name| Duration::from_millis(100 * self.number("net", name));
        NetOptions {
            protocol: match () {
                () if self.is("net", "protocol", "A") => Protocol::A,
                () if self.is("net", "protocol", "B") => Protocol::B,
                () => Protocol::C,
            },
            timeout: tenths("timeout"),
            connect_int: seconds("connect-int"),
            ping_int: seconds("ping-int"),
            ping_timeout: tenths("ping-timeout"),
            max_buffers: self.small("net", "max-buffers"),
            shared_secret: match self.value("net", "shared-secret") {
                Some(Value::Text(text)) => Some(Secret(text)),
                _ => None,
            },
            data_integrity: self.is("net", "data-integrity-alg", "crc32"),
            texts: self.texts("net"),
        }
    }

    pub(super) fn disk(&self) -> DiskOptions {
        DiskOptions {
            on_io_error: match self.is("disk", "on-io-error", "pass_on") {
                true => OnIoError::PassOn,
                false => OnIoError::Detach,
            },
            al_extents: self.small("disk", "al-extents"),
            disk_flushes: self.is("disk", "disk-flushes", "yes"),
            flush_peer: self.is("disk", "flush-peer", "yes"),
            size: self.number("disk", "size"),
            c_max_rate: self.number("disk", "c-max-rate"),
            texts: self.texts("disk"),
        }
    }

    pub(super) fn options(&self) -> ResourceOptions {
        ResourceOptions {
            on_no_data_accessible: match self.is("options", "on-no-data-accessible", "suspend-io") {
                true => OnNoData::SuspendIo,
                false => OnNoData::IoError,
            },
            auto_promote: self.is("options", "auto-promote", "yes"),
            texts: self.texts("options"),
        }
    }
}

impl Default for NetOptions {
    fn default() -> Self {
        Meant(&[]).net()
    }
}

impl Default for DiskOptions {
    fn default() -> Self {
        Meant(&[]).disk()
    }
}

impl Default for ResourceOptions {
    fn default() -> Self {
        Meant(&[]).options()
    }
}

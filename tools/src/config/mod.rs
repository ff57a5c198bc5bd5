//! The configuration: drbd.conf's grammar in, checked and typed resources out.
//!
//! In layers: `token` and `statement` see words and braces, `include` joins the files, `options` is
//! the table of all options, `said` reads one part of the tree statement by statement, `meant` lets
//! the parts inherit from each other and checks the whole, `settings` are the options as they count,
//! `dump` writes it all back. Nothing here opens a disk or a socket, or knows whether a resource
//! runs.

mod dump;
mod include;
mod meant;
mod options;
mod place;
mod said;
mod settings;
mod statement;
mod token;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::failure::Result;

pub(crate) use dump::{dump, dump_resource};
pub(crate) use place::Place;
pub(crate) use settings::Settings;

/// What `polluxadm dump` prints of a configuration that is at hand as text and includes nothing, as `node` sees it.
///
/// # Errors
/// If a line is wrong; `file` stands for the file in the message.
pub fn normalised(text: &[u8], file: &Path, node: &str) -> Result<String> {
    let statements = statement::parse(text, Place { file: file.into(), line: 1 })?;
    if let Some(include) = statements.iter().find(|statement| statement.name() == "include") {
        return Err(include.error("nothing can be included here"));
    }
    let (resources, _) = meant::read(&statements, node)?;
    Ok(dump(&Configuration { file: file.to_owned(), node: node.to_owned(), resources }))
}

/// Most resources in one configuration.
pub(crate) const RESOURCES_MAX: usize = 1024;
/// Most volumes in one resource.
pub(crate) const VOLUMES_MAX: usize = 256;
/// Most hosts in one resource; node-ids are 0..31.
pub(crate) const HOSTS_MAX: usize = 32;

/// What a configuration file means for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// The file that was loaded.
    pub file: PathBuf,
    /// The node it was loaded for: `--node`, else what `uname -n` says.
    pub node: String,
    /// The resources this node takes part in, in the order of the file. (Nothing that DRBD has in
    /// `global` is honoured yet, so there is no such part here.)
    pub resources: Vec<Resource>,
}

/// One resource: the unit of role, write ordering and failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Its name; may stand in file names.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// How it talks to its peers: `net`.
    pub net: Settings,
    /// What is run on which occasion: `handlers`.
    pub handlers: Settings,
    /// This node.
    pub me: Host,
    /// The other nodes: at most one in this release.
    pub peers: Vec<Host>,
}

/// One node's part in a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// As `uname -n` prints it there, or as `--node` says.
    pub name: String,
    /// 0..31, unique in the resource.
    pub node_id: u8,
    /// Where it is reached by its peers.
    pub address: SocketAddr,
    /// How the resource behaves there: `options`.
    pub options: Settings,
    /// Where its NBD server listens; at least one.
    pub nbd: Vec<Listen>,
    /// By number, at least one, the same numbers on all hosts.
    pub volumes: Vec<Volume>,
}

/// One volume of a resource on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// 0..65534.
    pub number: u16,
    /// Unique on the host.
    pub minor: u32,
    /// The device node that `device` names, if it names one.
    pub device: Option<String>,
    /// The backing device or file, absolute; `None`: diskless.
    pub disk: Option<PathBuf>,
    /// The device or file of its metadata, absolute; `None`: internal, at the end of `disk`.
    pub meta_disk: Option<PathBuf>,
    /// How its disk is used: `disk`.
    pub options: Settings,
}

impl Volume {
    /// What holds its metadata; `None`: diskless.
    pub(crate) fn meta_path(&self) -> Option<&Path> {
        self.meta_disk.as_deref().or(self.disk.as_deref())
    }
}

/// Where an NBD server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A Unix socket in the run directory, named after the resource.
    Unix,
    /// A TCP address.
    Tcp(SocketAddr),
}

impl Configuration {
    /// Loads `path` and what it includes, as `node` sees it; also, warnings.
    ///
    /// # Errors
    /// If it cannot be read, or a line is wrong.
    pub(crate) fn load(path: &Path, node: &str) -> Result<(Self, Vec<String>)> {
        let (resources, warnings) = meant::read(&include::read(path)?, node)?;
        Ok((Self { file: path.to_owned(), node: node.to_owned(), resources }, warnings))
    }

    /// The resource of that name, if this node takes part in it.
    pub(crate) fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

//! The configuration: drbd.conf's grammar in, checked and typed resources out.
//!
//! In layers: `token` and `statement` see words and braces, `include` joins the files, `options` is
//! the table of all options, `said` reads the tree statement by statement (what was said), `meant`
//! lets the levels inherit from each other and checks the whole (what is meant), `dump` writes it
//! back. Nothing here opens a disk or a socket, or knows whether a resource runs.

mod draft;
mod dump;
mod include;
mod meant;
mod options;
mod place;
mod statement;
mod token;
mod typed;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use dump::{dump, dump_resource};
pub use place::{ConfigError, Place, Warning};

/// Most resources in one configuration.
pub const RESOURCES_MAX: usize = 1024;
/// Most volumes in one resource.
pub const VOLUMES_MAX: usize = 256;
/// Most hosts in one resource; node-ids are 0..31.
pub const HOSTS_MAX: usize = 32;

/// What a configuration file means for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
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
pub struct Resource {
    /// Its name; may stand in file names.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// How it talks to its peers.
    pub net: NetOptions,
    /// This node.
    pub me: Host,
    /// The other nodes: at most one in this release.
    pub peers: Vec<Host>,
}

/// One node's part in a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As `uname -n` prints it there, or as `--node` says.
    pub name: String,
    /// 0..31, unique in the resource.
    pub node_id: u8,
    /// Where it is reached by its peers.
    pub address: SocketAddr,
    /// How the resource behaves there.
    pub options: ResourceOptions,
    /// Where its NBD server listens; at least one.
    pub nbd: Vec<Listen>,
    /// By number, at least one, the same numbers on all hosts.
    pub volumes: Vec<Volume>,
}

/// One volume of a resource on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// 0..65534.
    pub number: u16,
    /// Unique on the host.
    pub minor: u32,
    /// The device node that `device` names, if it names one.
    pub device: Option<String>,
    /// The backing device or file, absolute; `None`: diskless.
    pub disk: Option<PathBuf>,
    /// Where its metadata is.
    pub meta_disk: MetaDisk,
    /// How its disk is used.
    pub options: DiskOptions,
}

/// Where the metadata of a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaDisk {
    /// At the end of the backing device.
    Internal,
    /// On a device or file of its own, absolute.
    External(PathBuf),
}

/// Where an NBD server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket in the run directory, named after the resource.
    Unix,
    /// A TCP address.
    Tcp(SocketAddr),
}

/// Names and values of options.
type Texts = Vec<(&'static str, String)>;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// When it is on the local disk and in the send buffer.
    A,
    /// When it is on the local disk and the peer has received it.
    B,
    /// When it is on both disks.
    C,
}

/// The `net` options that Pollux honours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// When a write is acknowledged.
    pub protocol: Protocol,
    /// How long a peer may take to answer a request.
    pub timeout: Duration,
    /// Longest pause between two attempts to connect.
    pub connect_int: Duration,
    /// An idle connection is probed this often.
    pub ping_int: Duration,
    /// How long the answer to a probe may take.
    pub ping_timeout: Duration,
    /// Pages of 4 KiB that requests from the peer may occupy.
    pub max_buffers: u32,
    /// Both nodes prove that they know it, by HMAC-SHA256.
    pub shared_secret: Option<Secret>,
    /// CRC-32 over the payload of every data frame.
    pub data_integrity: bool,
    /// What differs from the default, as it is written, for `dump`.
    texts: Texts,
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The `disk` options that Pollux honours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// What a failed disk does.
    pub on_io_error: OnIoError,
    /// Extents in the activity log.
    pub al_extents: u32,
    /// A client's FLUSH flushes the disk.
    pub disk_flushes: bool,
    /// A client's FLUSH waits for the peer's.
    pub flush_peer: bool,
    /// Bytes to use of the backing device; 0: all.
    pub size: u64,
    /// Bytes per second a resync may take; 0: as many as it finds.
    pub c_max_rate: u64,
    /// What differs from the default, as it is written, for `dump`.
    texts: Texts,
}

/// What happens when a local disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIoError {
    /// The disk is given up and the peer's is used.
    Detach,
    /// The error is passed to the client.
    PassOn,
}

/// The `options` that Pollux honours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceOptions {
    /// What a request gets when no up-to-date copy can be reached.
    pub on_no_data_accessible: OnNoData,
    /// The first client that may write makes a Secondary Primary.
    pub auto_promote: bool,
    /// What differs from the default, as it is written, for `dump`.
    texts: Texts,
}

/// What a request gets when no up-to-date copy can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoData {
    /// An error.
    IoError,
    /// No answer until a copy can be reached.
    SuspendIo,
}

impl Configuration {
    /// Loads `path` and what it includes, as `node` sees it.
    pub fn load(path: &Path, node: &str) -> Result<(Self, Vec<Warning>), ConfigError> {
        let (resources, warnings) = meant::read(&include::read(path)?, node)?;
        Ok((Self { file: path.to_owned(), node: node.to_owned(), resources }, warnings))
    }

    /// The resource of that name, if this node takes part in it.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

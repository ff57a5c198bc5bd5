//! Every bound of the exporter.

use std::time::Duration;

/// Connections served at a time; more wait in the kernel's queue.
pub(super) const CONNECTIONS: usize = 64;

/// How long a client may take to say what it wants.
pub(super) const HEAD: Duration = Duration::from_secs(2);

/// How long a connection may last: asking the daemons, and the client's reading.
pub(super) const CONNECTION: Duration = Duration::from_secs(10);

/// Bytes of a request, at most: it has a head only. (Less is not possible.)
pub(super) const REQUEST: usize = 8 << 10;

/// How long a daemon may take to answer. Prometheus itself waits ten seconds unless told otherwise.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// How long a page is good for further scrapes.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// Resources, at most; further ones are told of on stderr, and not shown.
pub(super) const RESOURCES: usize = 1024;

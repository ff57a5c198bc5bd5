//! Who may be Primary, by a third party. Only etcd so far; without one, see `peer` and `fence`.

pub(crate) mod access;
pub(crate) mod etcd;
pub(crate) mod http;

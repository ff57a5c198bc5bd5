//! What a human or a cluster manager touches: the daemon, the command line, the configuration.
//!
//! Reading order: `config` (what is wanted), `resource` (what the replicator runs of it), `serve`
//! (`polluxd`), `export` (NBD clients), `show` and `status` (what is told); `cli`, `client`, `meta`
//! and `demo` are `polluxadm`.

pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod export;
pub mod failure;
pub mod meta;
pub mod resource;
pub mod serve;
pub mod show;
pub mod status;

//! What a human or a cluster manager touches: the daemon, the command line, the configuration.
//!
//! Reading order: `config` (what is wanted), `resource` (what the replicator runs of it), `serve`
//! (`polluxd`), `export` (NBD clients), `status` (what is told); `cli`, `client`, `meta`
//! and `demo` are `polluxadm`.

#![forbid(unsafe_code)]

pub mod cli;
mod client;
mod config;
mod demo;
mod export;
mod failure;
mod meta;
mod resource;
mod serve;
mod status;

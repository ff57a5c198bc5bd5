//! What a human or a cluster manager touches: the daemon, the command line, the configuration.
//!
//! Reading order: `config` (what is wanted), `resource` (what the replicator runs of it), `serve`
//! (`polluxd`), `export` (NBD clients), `status` (what is told); `cli`, `client`, `meta`
//! and `demo` are `polluxadm`; `check` and `exporter` are for monitors; `facts`, and the client, for other programs.

#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
mod client;
mod config;
mod demo;
mod export;
pub mod exporter;
pub mod facts;
mod failure;
mod handlers;
mod meta;
mod resource;
mod serve;
mod status;

pub use cli::{Place, program};
pub use client::Client;
pub use config::normalised;
pub use failure::{Failure, Result, code};

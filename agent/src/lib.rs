//! `pollux-agent`: who of two nodes is Primary and runs what needs the device, for people without a cluster manager.
//!
//! Reading order: `decide` (every decision, without I/O), `config` (what is wanted), `run` (the shell around one resource: facts in, jobs
//! out), and what the jobs are: `arbiter` (the lock in etcd), `peer` (the other agent), `fence` (STONITH plug-ins), `daemon` (the
//! resource's control socket), `services` (what runs on top), `program` (any program, bounded in time); `control` is how operators
//! and Pollux's handlers reach a running agent, `state` what survives it.

#![forbid(unsafe_code)]

mod arbiter;
pub mod cli;
mod clock;
mod config;
mod control;
mod daemon;
pub mod decide;
mod fence;
mod handler;
mod peer;
mod program;
mod run;
mod services;
mod state;

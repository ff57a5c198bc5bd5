//! Keeps two copies of a device the same: decides (`node`), talks (`link`), stores (`disk`), runs (`daemon`).
//!
//! Reading order: `node` (the state machine), `wire` (what nodes say), then the shell around it: `disk`, `link`, `daemon`.
//! Without the feature `shell` only `config`, `digest`, `node` and `wire` are built, and they are `no_std`: the compiler keeps them pure.

#![cfg_attr(not(feature = "shell"), no_std)]

extern crate alloc;

#[cfg(feature = "shell")]
pub mod buffers;
pub mod config;
#[cfg(feature = "shell")]
pub mod daemon;
pub mod digest;
#[cfg(feature = "shell")]
pub mod disk;
#[cfg(feature = "shell")]
pub mod link;
pub mod node;
pub mod wire;

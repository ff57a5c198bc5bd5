//! Hostile bytes for everything of Pollux that parses: one target a file, each a plain function of bytes that panics if a promise
//! is broken (NET-2, MD-3). libFuzzer looks for such bytes (`run`); `tests/replay.rs` tries again, with any compiler, all that are kept.
//!
//! - [`nbd`]: a client of the NBD server, from its first byte.
//! - [`frames`]: the stream between two nodes, as bytes.
//! - [`node`]: two nodes, and somebody between them who alters what they say.
//! - [`control`]: the control socket of a running resource.
//! - [`metadata`]: a disk to be attached.
//! - [`configuration`]: a configuration file.
//!
//! Each file also makes the first inputs of its corpus, out of what the product itself writes, so that the search begins deep.
//! `corpus/NAME` holds these and what was found to reach more, `regressions/NAME` what once failed.

#![forbid(unsafe_code)]

pub mod configuration;
pub mod control;
pub mod frames;
pub mod input;
pub mod metadata;
pub mod nbd;
pub mod node;

/// What is fuzzed.
pub struct Target {
    /// As its program and its folders are called.
    pub name: &'static str,
    /// Panics if the bytes broke something.
    pub run: fn(&[u8]),
    /// The first inputs, by name.
    pub seeds: fn() -> Vec<Seed>,
}

/// An input, and the name of its file.
pub type Seed = (String, Vec<u8>);

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "nbd", run: nbd::run, seeds: nbd::seeds },
    Target { name: "frames", run: frames::run, seeds: frames::seeds },
    Target { name: "node", run: node::run, seeds: node::seeds },
    Target { name: "control", run: control::run, seeds: control::seeds },
    Target { name: "metadata", run: metadata::run, seeds: metadata::seeds },
    Target { name: "configuration", run: configuration::run, seeds: configuration::seeds },
];

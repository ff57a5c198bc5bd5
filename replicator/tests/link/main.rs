//! Links over loopback: two ends in one process, and strangers of all kinds.
#![allow(clippy::unwrap_used)]

mod by_hand;
mod handshake;
mod host;
mod limits;
#[path = "../samples/mod.rs"]
mod samples;
mod stream;

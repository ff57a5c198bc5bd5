//! The NBD protocol: fixed newstyle handshake, simple and structured replies.
//!
//! In reading order: [`protocol`] (the numbers), [`handshake`], [`transmission`], [`reply`] (pure);
//! [`limits`], `budget`, `receive`, `in_flight`, [`transport`] (what a connection is made of);
//! `negotiation` and `connection` (the drivers), `log` (what is told of strangers); [`exports`], [`listener`], [`server`] (what a
//! program uses). TLS and extended headers are not here yet.

mod budget;
mod connection;
pub mod exports;
pub mod handshake;
mod in_flight;
pub mod limits;
pub mod listener;
mod log;
mod negotiation;
mod options;
pub mod protocol;
mod receive;
pub mod reply;
pub mod server;
pub mod transmission;
pub mod transport;

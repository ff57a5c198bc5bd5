//! The side-by-side run: Pollux and what a user would pick instead, one client, one machine, one go.
//!
//! A contender (`contender`) is a handful of processes (`process`) that serve one device over NBD. The client (`fio`) runs
//! the same pieces of work (`workload`) against each in turn (`rounds`), and the figures become a table (`table`). A ratio
//! is only ever taken between two runs of the same round, since the machine changes its mind from minute to minute.
//! `packages` finds the programs, `machine` says where the figures come from. The command is `bin/side-by-side.rs`; the
//! micro benchmarks (`benches/*.rs`) share nothing with it.

pub mod contender;
mod error;
pub mod fio;
pub mod machine;
mod packages;
mod process;
pub mod rounds;
pub mod stop;
pub mod table;
pub mod workload;

pub use error::Error;

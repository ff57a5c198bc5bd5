//! Measurements of whole systems: Pollux and what a user would pick instead (`rounds`), and what becomes of Pollux when something grows
//! (`growth`). One client, one machine, one go. Beside DRBD, which needs a kernel of its own, in guests (`guests`).
//!
//! A contender (`contender`) is a handful of processes (`process`) that serve one device over NBD. The client (`fio`) runs
//! the same pieces of work (`workload`) against each in turn, and the figures become tables (`table`), with what was to be
//! reached (`target`). A ratio is only ever taken between two runs of the same round (`spread`), since the machine changes its
//! mind from minute to minute. `packages` finds the programs, `machine` says where the figures come from. The commands are
//! `bin/*.rs`. The core alone (`core`, on a `pair` of nodes) is measured by the clock in `benches/node.rs`, and without one in `cost`; the
//! other micro benchmarks (`benches/*.rs`) share nothing with all this.

pub mod chain;
pub mod contender;
pub mod core;
pub mod cost;
mod error;
pub mod fio;
pub mod growth;
pub mod guests;
pub mod machine;
mod packages;
mod pair;
mod process;
pub mod report;
pub mod resync;
pub mod rounds;
pub mod spread;
pub mod stop;
pub mod system_calls;
pub mod table;
pub mod target;
pub mod workload;

pub use error::Error;

//! The simulator: two nodes, their disks, the network between them, clients and an operator, all out of one seed.
//!
//! Reading order: `swarm` (the knobs of a seed), `world` (time), `host`, `volume`, `disk` (`medium`, `meta_area`), `link` (`frames`), `clock` (the parts), `actions` (what
//! a node wants, done), `watch` (what it says, looked at), `client`, `operator`, `faults`, `decay`, `fencing` (who moves things), `heal` (the second phase), `oracle`
//! (forks), `run` (a seed from start to end), `small` (every order of a few things, without seeds); `deed` (what is done to the nodes), `script` (all of
//! it in one run), `shrink`, `story` (the few that are needed). What must be true is not here: see `model`.

mod actions;
mod client;
mod clock;
mod counters;
mod decay;
mod deed;
mod disk;
mod disks;
mod faults;
mod fencing;
mod frames;
mod heal;
mod host;
mod lease;
mod link;
mod lives;
mod medium;
mod meta_area;
mod names;
mod operator;
mod oracle;
mod rng;
mod run;
mod script;
mod shrink;
mod small;
#[cfg(test)]
mod stories;
mod story;
mod swarm;
mod volume;
mod watch;
mod world;

use clock::Clock;
pub use counters::Counters;
use rng::Rng;
pub use run::{KINDS, Outcome, catch_panics, is_of_kind, run, run_checked};
pub use shrink::shrink;
pub use small::{Budget, Report, Scope, search};

//! The simulator (`sim`) and the checkers it shares with runs of real processes (`model`).
//!
//! Nothing here is part of the product. `model` is written from the promise (docs/guarantees.md), never from the
//! node's code: a checker that shares a misunderstanding with what it checks proves nothing.

pub mod cluster;
pub mod cookbook;
pub mod guest;
pub mod model;
pub mod real;
pub mod sim;

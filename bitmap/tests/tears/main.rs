//! Every crash inside every metadata operation (reliability: MD-1, MD-2).
//!
//! The writes of an operation's commit are recorded stage by stage. For every stage, every subset
//! of its sectors (every subset of its writes with every tear, or a sample, where there are too
//! many) is put on the disk before, and the result is opened. What must hold then is derived
//! from the state before and the state after, never from the code under test. From every
//! different state found that way the same is done again with the first commit after recovery.
#[path = "../common/mod.rs"]
mod common;
mod crash;
mod explore;
mod format;
mod operations;
mod truth;

//! Tests that need to see records and rings; what can be tested through the public interface is
//! tested in `bitmap/tests`.

mod codec;
mod generation;
mod journal;
mod leaf;

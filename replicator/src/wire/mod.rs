//! What nodes say to each other: messages, and their bytes. Pure; knows no sockets.
//!
//! Reading order: `message` (what is said), `header` (what stands before every message), `data` and `control` (messages as
//! bytes), `codec` (streams of them), `hello` (how a connection begins). Tables: `docs/protocol.md`.

mod codec;
mod control;
mod data;
mod error;
mod features;
mod header;
mod hello;
mod limits;
mod message;

pub use codec::{Decoded, Decoder, Encoder};
pub use control::SHAPES;
pub use data::UNNAMED;
pub use error::WireError;
pub use features::{FEATURES, Integrity, REQUIRED_FEATURES, VERSION_MAX, VERSION_MIN};
pub use header::{FrameType, HEADER_LEN, MAGIC, OPTIONAL};
pub use hello::{
    ANSWER_LEN, Answer, End, HELLO_LEN, Hello, HelloError, Mismatch, PROOF_LEN, Session,
    authenticable, identify, settle,
};
pub use limits::*;
pub use message::*;

/// Every fixed layout by name, for the test that compares `docs/protocol.md` with the code.
pub const LAYOUTS: [&[(&str, &[bitmap::Field])]; 2] = [header::LAYOUTS, data::LAYOUTS];

//! What nodes say to each other: messages, and their bytes. Pure; knows no sockets.

mod message;
pub use message::*;

//! The state of a resource, told once: `json` makes it in the daemon, from a snapshot; `GET /status`
//! of the control socket and `status --json` show it as it is, and what `text` prints in `polluxadm`
//! is taken from it. Beside it, the `generations`. It holds no rule of replication.

mod generations;
mod json;
mod text;

#[cfg(test)]
mod tests;

pub(crate) use generations::{generations, gi_line, show_gi};
pub(crate) use json::{AttachErrors, HELD, json};
pub(crate) use text::{Layout, cstate, dstate, list, print, role};

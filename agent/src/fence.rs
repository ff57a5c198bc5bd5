//! STONITH by the process API of the Linux fence agents: options as `name=value` lines on stdin, the action among them, the exit code
//! decides. Off means that the plug-in said so and its `status`, asked afterwards, says so too.

use crate::program;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::process::Command;

/// A plug-in and its options, as configured.
pub(crate) struct Stonith {
    /// The program.
    pub(crate) agent: String,
    /// What it is told, beside the action.
    pub(crate) options: BTreeMap<String, String>,
    /// For each call.
    pub(crate) limit: Duration,
}

/// What `status` says with its exit code.
const OFF: i32 = 2;

impl Stonith {
    /// Turns the target off, and sees that it is.
    ///
    /// # Errors
    /// If it may still be on.
    pub(crate) async fn off(&self) -> Result<(), String> {
        let agent = &self.agent;
        self.act("off").await?.well().map_err(|why| format!("{agent} off: {why}"))?;
        let status = self.act("status").await?;
        match status.code {
            Some(OFF) => Ok(()),
            Some(0) => {
                Err(format!("{agent} off succeeded, but its status says that the peer is on"))
            }
            Some(_) | None => {
                let why = status.well().err().unwrap_or_default();
                Err(format!("{agent} off succeeded, but its status is not known: {why}"))
            }
        }
    }

    /// Any action.
    ///
    /// # Errors
    /// If it does not end in time, or cannot be started.
    pub(crate) async fn act(&self, action: &str) -> Result<program::Ended, String> {
        let mut input = format!("action={action}\n");
        for (name, value) in &self.options {
            input += &format!("{name}={value}\n");
        }
        let ended = program::run(Command::new(&self.agent), &input, self.limit).await?;
        for line in ended.stderr.lines().filter(|line| !line.trim().is_empty()) {
            tracing::warn!("{} {action}: {line}", self.agent);
        }
        tracing::info!("{} {action}: {:?}", self.agent, ended.code);
        Ok(ended)
    }
}

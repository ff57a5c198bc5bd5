//! Runs a program to its end: input on stdin, a time limit, and nothing left behind. What the exit code means, others know.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Bytes of each output that are kept; the rest is read and thrown away.
const KEPT: usize = 4096;

/// How long what a program said may take to arrive after its end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code; none if it was killed.
    pub(crate) code: Option<i32>,
    /// The beginning of what it printed.
    pub(crate) stdout: String,
    /// The beginning of what it complained.
    pub(crate) stderr: String,
}

impl Ended {
    /// It succeeded; else, why not.
    ///
    /// # Errors
    /// With the exit code and the complaints.
    pub(crate) fn well(&self) -> Result<(), String> {
        match self.code {
            Some(0) => Ok(()),
            Some(code) => Err(format!("exit code {code}{}", self.complaint())),
            None => Err(format!("it was killed{}", self.complaint())),
        }
    }

    fn complaint(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let said: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
    }
}

/// Kills the process group when it is dropped: also when whoever waits for it is.
struct Group(rustix::process::Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // All may have ended already.
        let _ = rustix::process::kill_process_group(self.0, rustix::process::Signal::KILL);
    }
}

/// Runs it. A program that is given up, also because this future is dropped, is killed with all it started in its process group.
///
/// # Errors
/// If it cannot be started, or does not end in time.
pub(crate) async fn run(
    mut command: Command,
    input: &str,
    limit: Duration,
) -> Result<Ended, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let group = Group(pid.expect("a child that was not waited for has a pid"));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Who does not read his input does not want it.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let mut said = (Vec::new(), Vec::new());
        let status = {
            let mut reading = std::pin::pin!(async {
                tokio::join!(keep(stdout, &mut said.0), keep(stderr, &mut said.1))
            });
            let mut ending = std::pin::pin!(async { tokio::join!(child.wait(), feed).0 });
            let mut heard_all = false;
            let status = loop {
                tokio::select! {
                    status = &mut ending => break status,
                    _ = &mut reading, if !heard_all => heard_all = true,
                }
            };
            // The rest of what it said; its outputs may stay open, held by what it left running on purpose.
            if !heard_all {
                let _ = tokio::time::timeout(LAST_WORDS, reading).await;
            }
            status
        };
        (status, said)
    };
    match tokio::time::timeout(limit, work).await {
        Ok((status, said)) => {
            // What it started as a daemon is meant to stay.
            std::mem::forget(group);
            let status = status.map_err(|error| format!("{name}: {error}"))?;
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok(Ended { code: status.code(), stdout: text(said.0), stderr: text(said.1) })
        }
        Err(_) => Err(format!("{name} did not end in {} s and was killed", limit.as_secs_f32())),
    }
}

async fn keep(from: Option<impl tokio::io::AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let room = KEPT.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
}

//! What runs on top of the device: started in order, stopped in reverse, each step within its time limit. Stopping what does not run is
//! no error, nor is starting what runs.

use crate::program::{self, Ended};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// Where OCF agents are.
const OCF_ROOT: &str = "/usr/lib/ocf";
/// OCF's word for "does not run".
const OCF_NOT_RUNNING: i32 = 7;
/// What mounts.
const MOUNTER: &str = "/usr/lib/pollux/pollux-mount";
/// How long a start or a stop may take, if nothing else is said.
const CHANGE: Duration = Duration::from_secs(60);
/// How long `status` of a service may take.
const STATUS: Duration = Duration::from_secs(20);

/// One entry of `start`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Service {
    /// Where the device is mounted.
    mount: Option<PathBuf>,
    /// Of the file system; else what is found.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Mount options.
    options: Option<String>,
    /// The program that mounts.
    mounter: Option<String>,
    /// A service address, `10.0.0.100/24`.
    address: Option<String>,
    /// Its network device.
    device: Option<String>,
    /// A systemd unit.
    unit: Option<String>,
    /// `ocf:PROVIDER:AGENT`.
    ocf: Option<String>,
    /// Of the OCF agent.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// A program that takes `start`, `stop` and `status` as an init script does.
    program: Option<String>,
    start_timeout: Option<f64>,
    stop_timeout: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Status,
}

impl Service {
    /// What it is; one that was checked is one thing.
    fn names(&self) -> impl Iterator<Item = &str> {
        let mount = self.mount.as_deref().and_then(Path::to_str);
        let others = [&self.address, &self.unit, &self.ocf, &self.program];
        mount.into_iter().chain(others.into_iter().flatten().map(String::as_str))
    }

    /// Is it exactly one thing, and complete?
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.names().count() != 1 {
            return Err(
                "an entry of `start` has exactly one of mount, address, unit, ocf, program".into(),
            );
        }
        if self.address.is_some() && self.device.is_none() {
            return Err("an `address` needs the network `device` that gets it".into());
        }
        let is_ocf = |name: &String| name.split(':').count() == 3 && name.starts_with("ocf:");
        if !self.ocf.iter().all(is_ocf) {
            return Err("`ocf` is written ocf:PROVIDER:AGENT".into());
        }
        let fits = |seconds: &f64| *seconds > 0.0 && *seconds <= 86_400.0;
        if ![self.start_timeout, self.stop_timeout].iter().flatten().all(fits) {
            return Err("a timeout must be more than 0 seconds, and a day at most".into());
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.names().next().unwrap_or_default()
    }

    fn limit(&self, verb: Verb) -> Duration {
        match verb {
            Verb::Start => self.start_timeout.map_or(CHANGE, Duration::from_secs_f64),
            Verb::Stop => self.stop_timeout.map_or(CHANGE, Duration::from_secs_f64),
            Verb::Status => STATUS,
        }
    }

    /// The program of this step.
    fn command(&self, resource: &str, verb: Verb) -> Command {
        let word = match verb {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Status => "status",
        };
        let mut command;
        if let Some(at) = &self.mount {
            command = Command::new(self.mounter.as_deref().unwrap_or(MOUNTER));
            command.arg(word).arg(resource).arg(at);
            command.args(&self.kind).args(&self.options);
        } else if let Some(address) = &self.address {
            command = Command::new("ip");
            let device = self.device.as_deref().unwrap_or_default();
            match verb {
                Verb::Start => command.args(["address", "replace", address, "dev", device]),
                Verb::Stop => command.args(["address", "del", address, "dev", device]),
                Verb::Status => {
                    command.args(["-o", "address", "show", "dev", device, "to", bare(address)])
                }
            };
        } else if let Some(unit) = &self.unit {
            let word = if verb == Verb::Status { "is-active" } else { word };
            command = Command::new("systemctl");
            command.args([word, unit]);
        } else if let Some(name) = &self.ocf {
            let mut parts = name.split(':').skip(1);
            let (provider, agent) =
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            command = Command::new(format!("{OCF_ROOT}/resource.d/{provider}/{agent}"));
            command.arg(if verb == Verb::Status { "monitor" } else { word });
            command.env("OCF_ROOT", OCF_ROOT).env("OCF_RA_VERSION_MAJOR", "1");
            command.env("OCF_RA_VERSION_MINOR", "1").env("OCF_RESOURCE_PROVIDER", provider);
            command.env("OCF_RESOURCE_TYPE", agent);
            command.env("OCF_RESOURCE_INSTANCE", format!("{resource}-{agent}"));
            command.env("OCF_RESKEY_CRM_meta_timeout", self.limit(verb).as_millis().to_string());
            for (name, value) in &self.parameters {
                command.env(format!("OCF_RESKEY_{name}"), value);
            }
        } else {
            command = Command::new(self.program.as_deref().unwrap_or_default());
            command.arg(word);
        }
        command.env("POLLUX_RESOURCE", resource);
        command
    }

    async fn run(&self, resource: &str, verb: Verb) -> Result<Ended, String> {
        program::run(self.command(resource, verb), "", self.limit(verb)).await
    }

    async fn is_running(&self, resource: &str) -> Result<bool, String> {
        let ended = self.run(resource, Verb::Status).await?;
        match ended.code {
            // `ip` succeeds with nothing to show, too.
            Some(0) => Ok(self.address.is_none() || !ended.stdout.trim().is_empty()),
            Some(OCF_NOT_RUNNING) if self.ocf.is_some() => Ok(false),
            Some(_) if self.ocf.is_some() => Err(ended.well().err().unwrap_or_default()),
            Some(_) => Ok(false),
            None => Err("its status was killed".into()),
        }
    }

    async fn start(&self, resource: &str) -> Result<(), String> {
        if self.is_running(resource).await.unwrap_or(false) {
            return Ok(());
        }
        self.run(resource, Verb::Start).await?.well()?;
        if let (Some(address), Some(device)) = (&self.address, &self.device) {
            // Neighbours learn it from this, or in some seconds by themselves; so it may fail.
            let mut arping = Command::new("arping");
            arping.args(["-U", "-c", "2", "-w", "1", "-I", device, bare(address)]);
            tokio::spawn(async move {
                if let Err(why) = program::run(arping, "", Duration::from_secs(5)).await {
                    tracing::info!("no gratuitous ARP: {why}");
                }
            });
        }
        Ok(())
    }

    async fn stop(&self, resource: &str) -> Result<(), String> {
        let ended = self.run(resource, Verb::Stop).await?;
        match ended.well() {
            Ok(()) => Ok(()),
            // An address that is not there cannot be removed, and that is well.
            Err(_) if self.address.is_some() && !self.is_running(resource).await? => Ok(()),
            Err(why) => Err(why),
        }
    }
}

fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

/// Starts all in order; what runs already is left alone.
///
/// # Errors
/// At the first that fails.
pub(crate) async fn start(services: &[Service], resource: &str) -> Result<(), String> {
    for service in services {
        tracing::info!("{resource}: starting {}", service.name());
        service.start(resource).await.map_err(|why| format!("{}: {why}", service.name()))?;
    }
    Ok(())
}

/// Stops all in reverse. One that fails does not keep the others up.
///
/// # Errors
/// With all failures.
pub(crate) async fn stop(services: &[Service], resource: &str) -> Result<(), String> {
    let mut failures = Vec::new();
    for service in services.iter().rev() {
        tracing::info!("{resource}: stopping {}", service.name());
        if let Err(why) = service.stop(resource).await {
            failures.push(format!("{}: {why}", service.name()));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Does all run?
///
/// # Errors
/// With the first that does not.
pub(crate) async fn all_run(services: &[Service], resource: &str) -> Result<(), String> {
    for service in services {
        match service.is_running(resource).await {
            Ok(true) => {}
            Ok(false) => return Err(format!("{} does not run any more", service.name())),
            Err(why) => return Err(format!("{}: {why}", service.name())),
        }
    }
    Ok(())
}

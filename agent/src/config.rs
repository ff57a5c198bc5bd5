//! `/etc/pollux/agent.toml`, checked together with what Pollux' own configuration says of the same resources.
//!
//! ```toml
//! [etcd]
//! endpoints = ["10.0.0.3:2379"]
//!
//! [resource.r0]
//! arbiter = "etcd"
//! dead-time = 3
//! prefer = ["alpha"]
//! start = [
//!   { mount = "/srv", type = "ext4" },
//!   { unit = "postgresql.service" },
//!   { address = "10.0.0.100/24", device = "eth0" },
//! ]
//! ```

use crate::arbiter::access::{Access, Section};
use crate::decide::{self, Arbiter, Ms};
use crate::fence::Stonith;
use crate::services::Service;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use tools::Place;
use tools::facts::Facts;

/// The shortest and the longest dead time, in seconds; etcd itself needs two.
const DEAD_TIME: std::ops::RangeInclusive<f64> = 2.0..=40.0;

/// The file, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    etcd: Option<Section>,
    #[serde(default)]
    resource: BTreeMap<String, Spanned<Said>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Said {
    arbiter: Arbiter,
    dead_time: Option<f64>,
    margin: Option<f64>,
    grace: Option<f64>,
    #[serde(default)]
    prefer: Vec<String>,
    back_off: Option<f64>,
    back_off_limit: Option<f64>,
    #[serde(default)]
    start: Vec<Service>,
    monitor: Option<f64>,
    health: Option<HealthSection>,
    stonith: Option<StonithSection>,
    peer: Option<PeerSection>,
    self_fence: Option<String>,
}

/// A program that says whether this node is fit: exit code 0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HealthSection {
    program: String,
    /// Seconds between two runs; also the time limit of one.
    interval: Option<f64>,
    /// So many failures in a row count.
    failures: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StonithSection {
    agent: String,
    timeout: Option<f64>,
    /// Of each node, what turns that node off.
    options: BTreeMap<String, BTreeMap<String, String>>,
}

/// Where the two agents hear each other: as many addresses on both sides, the first with the first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PeerSection {
    /// Of each node.
    addresses: BTreeMap<String, Vec<SocketAddr>>,
}

/// The two ends of one path between the agents.
pub(crate) type Route = (SocketAddr, SocketAddr);

/// A health program, ready to be run.
pub(crate) struct Health {
    pub(crate) program: String,
    pub(crate) every: Duration,
    pub(crate) failures: u32,
}

/// One resource, ready to be run.
pub(crate) struct Resource {
    pub(crate) name: String,
    pub(crate) facts: Facts,
    pub(crate) plan: decide::Plan,
    pub(crate) margin: Ms,
    pub(crate) etcd: Option<(Section, Access)>,
    pub(crate) stonith: Option<Stonith>,
    pub(crate) routes: Vec<Route>,
    pub(crate) services: Vec<Service>,
    pub(crate) monitor: Duration,
    pub(crate) health: Option<Health>,
    pub(crate) self_fence: Option<String>,
}

/// Reads it.
///
/// # Errors
/// With `file:line:`, what is wrong, and what to type.
pub(crate) fn load(path: &Path, place: &Place) -> Result<Vec<Resource>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file: File = toml::from_str(&text).map_err(|error| {
        let at = line(&text, &error.span().unwrap_or_default());
        format!("{}:{at}: {}", path.display(), error.message())
    })?;
    if file.resource.is_empty() {
        return Err(format!("{}:1: no resource: add a table [resource.NAME]", path.display()));
    }
    let reached = |section: Section| section.access().map(|access| (section, access));
    let etcd = file.etcd.map(reached).transpose();
    let etcd = etcd.map_err(|why| format!("{}: {why}", path.display()))?;
    let mut all = Vec::new();
    for (name, said) in file.resource {
        let at = format!("{}:{}", path.display(), line(&text, &said.span()));
        let facts = tools::facts::facts(place, &name);
        let facts = facts.map_err(|failure| format!("{at}: {}", failure.text))?;
        let resource = meant(name, said.into_inner(), etcd.as_ref(), facts);
        all.push(resource.map_err(|why| match why.starts_with('/') {
            true => why,
            false => format!("{at}: {why}"),
        })?);
    }
    Ok(all)
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count() + 1
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    if value > 0.0 && value <= 86_400.0 {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(format!("`{name}` must be more than 0 seconds, and a day at most"))
    }
}

fn milliseconds(name: &str, value: f64) -> Result<Ms, String> {
    seconds(name, value).map(|time| u64::try_from(time.as_millis()).unwrap_or(Ms::MAX))
}

fn meant(
    name: String,
    said: Said,
    etcd: Option<&(Section, Access)>,
    facts: Facts,
) -> Result<Resource, String> {
    pollux_is_ready(&name, &facts)?;
    let dead_time = said.dead_time.unwrap_or(5.0);
    if !DEAD_TIME.contains(&dead_time) {
        let (least, most) = DEAD_TIME.into_inner();
        return Err(format!("`dead-time` must be {least} to {most} seconds"));
    }
    let (me, peer) = (&facts.me.name, &facts.peer.name);
    if let Some(stranger) = said.prefer.iter().find(|name| *name != me && *name != peer) {
        return Err(format!(
            "`prefer` names `{stranger}`; the nodes of `{name}` are {me} and {peer}"
        ));
    }
    let dead_time = milliseconds("dead-time", dead_time)?;
    let margin =
        said.margin.map_or(Ok((dead_time / 4).min(1_000)), |m| milliseconds("margin", m))?;
    if margin * 2 > dead_time {
        return Err("`margin` must be half of `dead-time` at most".into());
    }
    let arbiter = said.arbiter;
    let etcd = etcd.filter(|_| arbiter == Arbiter::Etcd).cloned();
    if arbiter == Arbiter::Etcd && etcd.as_ref().is_none_or(|etcd| etcd.0.endpoints.is_empty()) {
        return Err("`arbiter = \"etcd\"` needs [etcd] with endpoints = [\"HOST:PORT\", ..]".into());
    }
    let stonith = said.stonith.map(|it| stonith(it, peer)).transpose()?;
    let routes = said.peer.map_or(Ok(Vec::new()), |it| routes(&it, me, peer))?;
    if arbiter == Arbiter::Fencing {
        let needs = |what| Err(format!("`arbiter = \"fencing\"` needs {what}"));
        if stonith.is_none() {
            return needs(format!("[resource.{name}.stonith] with an agent"));
        }
        if routes.is_empty() {
            return needs(format!("[resource.{name}.peer] with addresses of both nodes"));
        }
        if facts.secret.is_none() {
            return needs(format!(
                "net {{ shared-secret \"..\"; }} of `{name}`: the agents' messages are signed with it"
            ));
        }
    }
    let place = said.prefer.iter().position(|name| name == me).unwrap_or(said.prefer.len());
    let plan = decide::Plan {
        arbiter,
        stonith: stonith.is_some(),
        dead_time,
        place: u32::try_from(place).unwrap_or(1),
        grace: said.grace.map_or(Ok(0), |grace| milliseconds("grace", grace))?,
        back_off: milliseconds("back-off", said.back_off.unwrap_or(10.0))?,
        back_off_limit: milliseconds("back-off-limit", said.back_off_limit.unwrap_or(600.0))?,
    };
    for service in &said.start {
        service.check()?;
    }
    Ok(Resource {
        plan,
        margin,
        etcd,
        stonith,
        routes,
        services: said.start,
        monitor: seconds("monitor", said.monitor.unwrap_or(10.0))?,
        health: said.health.map(health).transpose()?,
        self_fence: said.self_fence,
        name,
        facts,
    })
}

/// Without these the agent could not keep its promise.
fn pollux_is_ready(name: &str, facts: &Facts) -> Result<(), String> {
    let place = &facts.place;
    if facts.fencing == "dont-care" {
        return Err(format!(
            "{place}: `{name}` would go on without its peer unasked: add net {{ fencing resource-and-stonith; }}"
        ));
    }
    let uses = |line: &Option<String>, word| {
        line.as_ref().is_some_and(|line| line.contains("pollux-agent") && line.contains(word))
    };
    if !uses(&facts.fence_peer, "fence-peer") || !uses(&facts.unfence_peer, "unfence-peer") {
        return Err(format!(
            "{place}: the agent must be asked about a lost peer: add handlers {{ fence-peer \"pollux-agent fence-peer\"; unfence-peer \"pollux-agent unfence-peer\"; }}"
        ));
    }
    if facts.auto_promote {
        return Err(format!(
            "{place}: a client must not promote past the agent: add options {{ auto-promote no; }}"
        ));
    }
    Ok(())
}

fn stonith(said: StonithSection, peer: &str) -> Result<Stonith, String> {
    let options = said.options.get(peer).cloned().ok_or_else(|| {
        format!("`stonith` does not say how to turn {peer} off: add its table, options.{peer} = {{ .. }}")
    })?;
    Ok(Stonith {
        agent: said.agent,
        options,
        limit: seconds("timeout", said.timeout.unwrap_or(30.0))?,
    })
}

fn health(said: HealthSection) -> Result<Health, String> {
    let every = seconds("interval", said.interval.unwrap_or(5.0))?;
    Ok(Health { program: said.program, every, failures: said.failures.unwrap_or(3) })
}

fn routes(said: &PeerSection, me: &str, peer: &str) -> Result<Vec<Route>, String> {
    let of = |name: &str| {
        said.addresses.get(name).ok_or_else(|| format!("`peer` has no addresses of {name}"))
    };
    let (mine, theirs) = (of(me)?, of(peer)?);
    if mine.len() != theirs.len() || mine.is_empty() {
        return Err("`peer` must have as many addresses of one node as of the other".into());
    }
    Ok(mine.iter().copied().zip(theirs.iter().copied()).collect())
}

//! What is meant: resources out of statements, and the checks that need more than one of them. What
//! each part may say is `said`'s; here the most specific part counts.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::path::PathBuf;

use super::options::{device, listen};
use super::place::Place;
use super::said::{Options, Part, Said, inherit, section, twice, unknown};
use super::statement::Statement;
use super::{Host, Listen, RESOURCES_MAX, Resource, Settings, Volume};
use crate::failure::Result;

/// Reads all statements of a configuration. All resources are checked, and those that name `node`
/// are returned.
pub(super) fn read(statements: &[Statement], node: &str) -> Result<(Vec<Resource>, Vec<String>)> {
    let (claims, warnings) = (HashMap::new(), Vec::new());
    let mut reading = Reading { node, claims, warnings };
    let mut sections: HashMap<String, &Place> = HashMap::new();
    let (mut ignored, mut common) = (Options::new(), Said::default());
    let mut defined = Vec::new();
    for at in statements {
        match at.name() {
            "global" if !defined.is_empty() => {
                return Err(at.error("`global` must stand before the first resource: move it up"));
            }
            "global" => section(at, &mut ignored, &mut reading.warnings)?,
            "common" => {
                let inner = at.plain_section()?;
                common = Said::inside(&common, Part::Common, inner, &mut reading.warnings)?;
            }
            "resource" if defined.len() == RESOURCES_MAX => {
                return Err(at.error(format!("more than {RESOURCES_MAX} resources")));
            }
            "resource" => defined.push((name(at)?, at)),
            // There is no module whose version could matter.
            other if other.starts_with("require-drbd-module-version-") => continue,
            _ => {
                let known = "global common resource include skip";
                return Err(unknown(at, "at the top level", known, known));
            }
        }
        if let Some(first) = sections.insert(at.text(), &at.place) {
            return Err(twice(at, first));
        }
    }
    let mut resources = Vec::new();
    for (name, at) in defined {
        resources.extend(reading.resource(name, at, &common)?);
    }
    Ok((resources, reading.warnings))
}

/// The name stands in paths and URLs, and in `RESOURCE/VOLUME` and `RESOURCE:PEER`.
fn name(at: &Statement) -> Result<&str> {
    let is_bad = |c: char| c.is_whitespace() || "/:\\".contains(c);
    match at.values() {
        [name] if name.is_empty() || name.contains(is_bad) || name.starts_with(['-', '.']) => {}
        [name] if name != "all" => return Ok(name),
        _ => {}
    }
    Err(at.error(format!(
        "`{}`: write `resource NAME {{ ... }}`, the name without blanks, / : \\, no - or . \
         in front, and not `all`",
        at.text()
    )))
}

/// What all resources of a configuration have in common while they are read.
struct Reading<'a> {
    node: &'a str,
    /// Things of which a host or a resource has one each, and who claimed them first.
    claims: HashMap<String, Place>,
    warnings: Vec<String>,
}

impl Reading<'_> {
    fn claim(&mut self, owner: &str, what: impl Display, at: &Place) -> Result {
        match self.claims.insert(format!("{what} of {owner}"), at.clone()) {
            None => Ok(()),
            Some(first) => Err(at.error(format!(
                "{what} of {owner} is taken already at {first}: give each its own"
            ))),
        }
    }

    /// One resource; `None` if `node` has no part in it.
    fn resource(&mut self, name: &str, at: &Statement, common: &Said) -> Result<Option<Resource>> {
        let is_connection = |s: &&Statement| matches!(s.name(), "connection" | "connection-mesh");
        let (sections, others): (Vec<_>, Vec<_>) =
            at.section()?.iter().partition(|s| s.name() == "on");
        let (connections, own): (Vec<_>, Vec<_>) = others.into_iter().partition(is_connection);
        let own = Said::inside(common, Part::Resource, own, &mut self.warnings)?;
        let named: Vec<&str> =
            sections.iter().flat_map(|on| on.values()).map(String::as_str).collect();
        let mut joined = Vec::new();
        for connection in &connections {
            let inner = connection.section()?.iter();
            let inner = inner.filter(|at| !["host", "hosts"].contains(&at.name()));
            if named.len() <= 2 {
                joined.extend(inner);
            } else {
                // It does not speak for all of the hosts.
                Said::inside(&own, Part::Connection, inner, &mut self.warnings)?;
            }
        }
        let joined = Said::inside(&own, Part::Connection, joined, &mut self.warnings)?;
        connections.into_iter().try_for_each(|connection| check_ends(connection, &named))?;
        let mut hosts: Vec<Host> = Vec::new();
        for on in sections {
            let said = Said::inside(&joined, Part::On, on.section()?, &mut self.warnings)?;
            if on.values().is_empty() {
                return Err(on.error("`on` needs the name of a host: write `on NAME { ... }`"));
            }
            for host in on.values() {
                let host = self.host(name, host, on, &said)?;
                hosts.first().map_or(Ok(()), |first| check_pair(first, &host, &on.place))?;
                hosts.push(host);
            }
        }
        let Some(mine) = named.iter().position(|host| *host == self.node) else {
            let on = if named.is_empty() { "no host".to_owned() } else { named.join(", ") };
            let node = self.node;
            let text = format!(
                "resource `{name}` is ignored: it is on {on}, not on this host, `{node}`: write \
                 its name as `uname -n` prints it, or give --node"
            );
            self.warnings.push(at.place.warning(text));
            return Ok(None);
        };
        if named.len() > 2 {
            return Err(at.error(format!(
                "resource `{name}` has {} hosts, and this release mirrors to one peer only: leave \
                 two `on` sections, or write `skip` before `resource`",
                named.len()
            )));
        }
        if named.len() == 1 {
            self.warnings.push(at.place.warning(format!(
                "resource `{name}` is not mirrored: it has one `on` section, write a second"
            )));
        }
        let net = |name| joined.options.get(&("net", name));
        if let Some(digest) = net("cram-hmac-alg")
            && net("shared-secret").is_none()
        {
            return Err(digest.place.error(format!(
                "`cram-hmac-alg` without `shared-secret` would not authenticate the peers of \
                 `{name}`: write `shared-secret \"...\";` beside it"
            )));
        }
        if let Some(fencing) = net("fencing").filter(|w| w.text != "dont-care") {
            let is_a = net("protocol").is_some_and(|w| w.text == "A");
            if fencing.text == "resource-and-stonith" && is_a {
                return Err(fencing.place.error(format!(
                    "`fencing resource-and-stonith` of `{name}` needs protocol B or C: under A the \
                     peer may lack what clients were told was done"
                )));
            }
            if !own.options.contains_key(&("handlers", "fence-peer")) {
                self.warnings.push(fencing.place.warning(format!(
                    "`fencing {}` of `{name}` without a handler `fence-peer`: when the peer is \
                     lost, I/O stays suspended until `polluxadm resume-io {name}`",
                    fencing.text
                )));
            }
        }
        let me = hosts.remove(mine);
        let waits: BTreeSet<_> = me.volumes.iter().map(|v| v.options.flag("flush-peer")).collect();
        if waits.len() > 1 {
            self.warnings.push(at.place.warning(format!(
                "`flush-peer no` has no effect in `{name}`: a FLUSH is one for all volumes, and \
                 waits if one of them says so"
            )));
        }
        Ok(Some(Resource {
            name: name.to_owned(),
            place: at.place.clone(),
            net: Settings::new("net", &joined.options),
            handlers: Settings::new("handlers", &own.options),
            me,
            peers: hosts,
        }))
    }

    /// One host of a resource, of which this is `said`.
    fn host(&mut self, resource: &str, name: &str, on: &Statement, said: &Said) -> Result<Host> {
        let missing = |what, example| {
            on.error(format!("`on {name}` has no `{what}`: write `{example}` into it"))
        };
        let option =
            |what, example| said.options.get(&("on", what)).ok_or_else(|| missing(what, example));
        let node_id = option("node-id", "node-id 0;")?;
        let owner = format!("resource `{resource}`");
        self.claim(&owner, format!("`on {name}`"), &on.place)?;
        self.claim(&owner, format!("node-id {}", node_id.text), &node_id.place)?;
        let address = option("address", "address 10.7.0.1:7020;")?;
        self.claim(&owner, format!("address {}", address.text), &address.place)?;
        let owner = format!("host `{name}`");
        self.claim(&owner, format!("address {}", address.text), &address.place)?;
        let mut nbd = Vec::new();
        for word in &said.nbd {
            nbd.push(match listen(&word.text) {
                None => Listen::Unix,
                Some(address) => {
                    self.claim(&owner, format!("address {address}"), &word.place)?;
                    Listen::Tcp(address)
                }
            });
        }
        if nbd.is_empty() {
            nbd.push(Listen::Unix);
        }
        let volumes = said.volumes.keys().map(|number| self.volume(&owner, *number, said));
        let volumes = volumes.collect::<Result<Vec<_>>>()?;
        if volumes.is_empty() {
            let example = "volume 0 { device ...; disk ...; meta-disk internal; }";
            return Err(missing("volume", example));
        }
        Ok(Host {
            name: name.to_owned(),
            node_id: node_id.text.parse().expect("the table allows 0..31"),
            address: address.text.parse().expect("its usual form is an address"),
            options: Settings::new("options", &said.options),
            nbd,
            volumes,
        })
    }

    fn volume(&mut self, owner: &str, number: u16, said: &Said) -> Result<Volume> {
        let (place, mut options) = said.volumes[&number].clone();
        inherit(&mut options, &said.options);
        let option = |what, example| {
            options.get(&("volume", what)).ok_or_else(|| {
                let text = format!("volume {number} of {owner} has no `{what}`: write `{example}`");
                place.error(text)
            })
        };
        let word = option("device", "device minor 0;")?;
        let (device, minor) = device(&word.text).expect("its usual form is a device");
        self.claim(owner, format!("minor {minor}"), &word.place)?;
        if let Some(device) = device {
            self.claim(owner, format!("device {device}"), &word.place)?;
        }
        // The word that is no path, and the path.
        let mut path = |name, no_path: &str, example| match option(name, example)? {
            word if word.text == no_path => Ok(None),
            word => {
                self.claim(owner, format!("disk {}", word.text), &word.place)?;
                Ok(Some(PathBuf::from(&word.text)))
            }
        };
        let disk = path("disk", "none", "disk /dev/vg/name;")?;
        // Diskless: there is nothing that metadata could be about.
        let meta_disk = match disk.is_some() {
            true => path("meta-disk", "internal", "meta-disk internal;")?,
            false => None,
        };
        let device = device.map(str::to_owned);
        let options = Settings::new("disk", &options);
        Ok(Volume { number, minor, device, disk, meta_disk, options })
    }
}

/// A `connection` or `connection-mesh` joins hosts that there are, and has one `net` at most.
fn check_ends(at: &Statement, named: &[&str]) -> Result {
    let mut ends = BTreeSet::new();
    let mut net: Option<&Place> = None;
    for inner in at.section()? {
        let hosts = match inner.name() {
            "host" => vec![inner.value("host NAME;")?],
            "hosts" => inner.plain_values()?.iter().map(String::as_str).collect(),
            "net" => match net.replace(&inner.place) {
                Some(first) => return Err(twice(inner, first)),
                None => continue,
            },
            _ => continue,
        };
        for host in hosts {
            if !named.contains(&host) {
                let known = named.join(", ");
                return Err(inner.error(format!("there is no `on {host}`: known are {known}")));
            }
            if !ends.insert(host) {
                return Err(inner.error(format!("host `{host}` is named twice: delete one")));
            }
        }
    }
    if ends.len() < 2 || ends.len() > 2 && at.name() == "connection" {
        return Err(at.error(format!("found {} hosts: write `host A; host B;`", ends.len())));
    }
    Ok(())
}

/// Two hosts of one resource have the same volumes.
fn check_pair(one: &Host, other: &Host, at: &Place) -> Result {
    let numbers = |host: &Host| host.volumes.iter().map(|v| v.number).collect::<BTreeSet<_>>();
    let (ones, others) = (numbers(one), numbers(other));
    let Some(number) = ones.symmetric_difference(&others).next() else { return Ok(()) };
    let lacks = if ones.contains(number) { &other.name } else { &one.name };
    Err(at.error(format!(
        "volume {number} is missing on host `{lacks}`: write `volume {number} {{ ... }}` there (with \
         `disk none;` if it has no disk)"
    )))
}

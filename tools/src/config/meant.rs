//! What is meant: resources out of statements, and the checks that need more than one of them. Which
//! level says what is `draft`'s.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;

use super::draft::{Draft, Level, Options, VolumeDraft, option, twice, unknown};
use super::place::{ConfigError, Place, Warning};
use super::statement::Statement;
use super::typed::Meant;
use super::{HOSTS_MAX, Host, Listen, MetaDisk, RESOURCES_MAX, Resource, Volume};

/// Things of which a host has one each, and who claimed them first.
#[derive(Default)]
struct Claims(HashMap<String, Place>);

impl Claims {
    fn claim(&mut self, host: &str, what: impl Display, at: &Place) -> Result<(), ConfigError> {
        match self.0.insert(format!("{what} of host `{host}`"), at.clone()) {
            None => Ok(()),
            Some(first) => Err(at.error(format!(
                "{what} of host `{host}` is taken already at {first}: give each its own"
            ))),
        }
    }
}

/// Reads all statements of a configuration. All resources are checked, and those that name `node`
/// are returned.
pub(super) fn read(
    statements: &[Statement],
    node: &str,
) -> Result<(Vec<Resource>, Vec<Warning>), ConfigError> {
    let (mut globals, mut commons): (Vec<&Statement>, Vec<_>) = (Vec::new(), Vec::new());
    let mut names: HashMap<&str, &Place> = HashMap::new();
    let mut defined = Vec::new();
    for at in statements {
        match at.name() {
            "global" if !defined.is_empty() => {
                return Err(at.error("`global` must stand before the first resource: move it up"));
            }
            "global" => globals.push(at),
            "common" => commons.push(at),
            "resource" => {
                let name = name(at)?;
                if let Some(first) = names.insert(name, &at.place) {
                    return Err(twice(at, first));
                }
                if defined.len() == RESOURCES_MAX {
                    return Err(at.error(format!("more than {RESOURCES_MAX} resources")));
                }
                defined.push((name, at));
            }
            // There is no module whose version could matter.
            other if other.starts_with("require-drbd-module-version-") => {}
            _ => {
                return Err(unknown(at, "at the top level", "global common resource include skip"));
            }
        }
    }
    let mut warnings = Vec::new();
    for sections in [&globals, &commons] {
        if let [first, second, ..] = sections[..] {
            return Err(twice(second, &first.place));
        }
    }
    let mut ignored = Options::new();
    for at in globals {
        for inner in at.plain_section()? {
            option("global", inner, Level::Common, &mut ignored, &mut warnings)?;
        }
    }
    let mut common = Draft::default();
    for at in commons {
        for inner in at.plain_section()? {
            common.take(inner, Level::Common, &mut warnings)?;
        }
    }
    let mut claims = Claims::default();
    let mut resources = Vec::new();
    for (name, at) in defined {
        resources.extend(resource(name, at, &common, node, &mut claims, &mut warnings)?);
    }
    Ok((resources, warnings))
}

/// The name stands in paths and URLs, and in `RESOURCE/VOLUME` and `RESOURCE:PEER`.
fn name(at: &Statement) -> Result<&str, ConfigError> {
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

/// One resource; `None` if `node` has no part in it.
fn resource(
    name: &str,
    at: &Statement,
    common: &Draft,
    node: &str,
    claims: &mut Claims,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Resource>, ConfigError> {
    let is_connection = |s: &&Statement| matches!(s.name(), "connection" | "connection-mesh");
    let (sections, others): (Vec<_>, Vec<_>) = at.section()?.iter().partition(|s| s.name() == "on");
    let mut draft = common.clone();
    for inner in others.iter().filter(|s| !is_connection(s)) {
        draft.take(inner, Level::Resource, warnings)?;
    }
    let named: Vec<&str> = sections.iter().flat_map(|on| on.values()).map(String::as_str).collect();
    for at in others.into_iter().filter(is_connection) {
        let mut joined = draft.clone();
        connection(at, &named, &mut joined, warnings)?;
        // With more hosts, one connection does not speak for all of them.
        if named.len() <= 2 {
            draft = joined;
        }
    }
    let mut hosts: Vec<(Host, &Place)> = Vec::new();
    for on in sections {
        let mut draft = draft.clone();
        for inner in on.section()? {
            draft.take(inner, Level::On, warnings)?;
        }
        if on.values().is_empty() {
            return Err(on.error("`on` needs the name of a host: write `on NAME { ... }`"));
        }
        for name in on.values() {
            let host = host(name, on, &draft, claims)?;
            hosts.iter().try_for_each(|(other, _)| check_pair(other, &host, &on.place))?;
            hosts.push((host, &on.place));
            if hosts.len() > HOSTS_MAX {
                return Err(on.error(format!("more than {HOSTS_MAX} hosts in one resource")));
            }
        }
    }
    let Some(mine) = named.iter().position(|host| *host == node) else {
        let named = if named.is_empty() { "no host".to_owned() } else { named.join(", ") };
        warnings.push(at.place.warning(format!(
            "resource `{name}` is ignored: it is on {named}, not on this host, `{node}`: write its \
             name as `uname -n` prints it, or give --node"
        )));
        return Ok(None);
    };
    match named.len() {
        1 => warnings.push(at.place.warning(format!(
            "resource `{name}` is not mirrored: it has one `on` section, write a second"
        ))),
        2 => {}
        count => {
            return Err(at.error(format!(
                "resource `{name}` has {count} hosts, and this release mirrors to one peer only: leave \
                 two `on` sections, or write `skip` before `resource`"
            )));
        }
    }
    if let Some(digest) = draft.options.get(&("net", "cram-hmac-alg"))
        && !draft.options.contains_key(&("net", "shared-secret"))
    {
        return Err(digest.place.error(format!(
            "`cram-hmac-alg` without `shared-secret` would not authenticate the peers of `{name}`: \
             write `shared-secret \"...\";` beside it"
        )));
    }
    let (me, _) = hosts.remove(mine);
    Ok(Some(Resource {
        name: name.to_owned(),
        place: at.place.clone(),
        net: Meant(&[&draft.options]).net(),
        me,
        peers: hosts.into_iter().map(|(host, _)| host).collect(),
    }))
}

/// A `connection` or `connection-mesh`: which of the `named` hosts it joins, and what it adds.
fn connection(
    at: &Statement,
    named: &[&str],
    draft: &mut Draft,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    let mut ends = BTreeSet::new();
    let mut net: Option<&Place> = None;
    for inner in at.section()? {
        let hosts = match inner.name() {
            "host" => vec![inner.value("host NAME;")?],
            "hosts" => inner.plain_values()?.iter().map(String::as_str).collect(),
            name => {
                if let Some(first) = net.filter(|_| name == "net") {
                    return Err(twice(inner, first));
                }
                net = net.or(Some(&inner.place).filter(|_| name == "net"));
                draft.take(inner, Level::Connection, warnings)?;
                continue;
            }
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

fn host(
    name: &str,
    on: &Statement,
    draft: &Draft,
    claims: &mut Claims,
) -> Result<Host, ConfigError> {
    let missing =
        |what, example| on.error(format!("`on {name}` has no `{what}`: write `{example}` into it"));
    let node_id = draft.node_id.as_ref().ok_or_else(|| missing("node-id", "node-id 0;"))?.value;
    let address = draft.address.as_ref();
    let address = address.ok_or_else(|| missing("address", "address 10.7.0.1:7020;"))?;
    claims.claim(name, format!("address {}", address.value), &address.place)?;
    let mut nbd = Vec::new();
    for listen in &draft.nbd {
        if let Listen::Tcp(address) = listen.value {
            claims.claim(name, format!("address {address}"), &listen.place)?;
        }
        nbd.push(listen.value.clone());
    }
    if nbd.is_empty() {
        nbd.push(Listen::Unix);
    }
    let mut volumes = Vec::new();
    for (number, volume) in &draft.volumes {
        volumes.push(self::volume(name, *number, volume, &draft.options, claims)?);
    }
    if volumes.is_empty() {
        return Err(missing("volume", "volume 0 { device ...; disk ...; meta-disk internal; }"));
    }
    Ok(Host {
        name: name.to_owned(),
        node_id,
        address: address.value,
        options: Meant(&[&draft.options]).options(),
        nbd,
        volumes,
    })
}

fn volume(
    host: &str,
    number: u16,
    draft: &VolumeDraft,
    wide: &Options,
    claims: &mut Claims,
) -> Result<Volume, ConfigError> {
    let missing = |what, example| {
        draft
            .place
            .error(format!("volume {number} of host `{host}` has no `{what}`: write `{example}`"))
    };
    let device = draft.device.as_ref().ok_or_else(|| missing("device", "device minor 0;"))?;
    let disk = draft.disk.as_ref().ok_or_else(|| missing("disk", "disk /dev/vg/name;"))?;
    let meta_disk = match (&draft.meta_disk, &disk.value) {
        (Some(meta_disk), Some(_)) => {
            if let MetaDisk::External(path) = &meta_disk.value {
                claims.claim(host, format!("disk {}", path.display()), &meta_disk.place)?;
            }
            meta_disk.value.clone()
        }
        (None, Some(_)) => return Err(missing("meta-disk", "meta-disk internal;")),
        // Diskless: there is nothing that metadata could be about.
        (_, None) => MetaDisk::Internal,
    };
    let (name, minor) = device.value.clone();
    claims.claim(host, format!("minor {minor}"), &device.place)?;
    if let Some(name) = &name {
        claims.claim(host, format!("device {name}"), &device.place)?;
    }
    if let Some(path) = &disk.value {
        claims.claim(host, format!("disk {}", path.display()), &disk.place)?;
    }
    let options = Meant(&[&draft.options, wide]).disk();
    Ok(Volume { number, minor, device: name, disk: disk.value.clone(), meta_disk, options })
}

/// Two hosts of one resource: different names, node-ids and addresses, the same volumes.
fn check_pair(one: &Host, other: &Host, at: &Place) -> Result<(), ConfigError> {
    let both = format!("hosts `{}` and `{}`", one.name, other.name);
    if one.name == other.name {
        return Err(at.error(format!("host `{}` has two `on` sections: delete one", one.name)));
    }
    if one.node_id == other.node_id {
        let id = one.node_id;
        return Err(at.error(format!("{both} both have `node-id {id}`: give each its own")));
    }
    if one.address == other.address {
        let address = one.address;
        return Err(at.error(format!("{both} both have `address {address}`: give each its own")));
    }
    let numbers = |host: &Host| host.volumes.iter().map(|v| v.number).collect::<BTreeSet<_>>();
    let (ones, others) = (numbers(one), numbers(other));
    if let Some(number) = ones.symmetric_difference(&others).next() {
        let lacks = if ones.contains(number) { &other.name } else { &one.name };
        return Err(at.error(format!(
            "volume {number} is missing on host `{lacks}`: write `volume {number} {{ ... }}` there \
             (with `disk none;` if it has no disk)"
        )));
    }
    Ok(())
}

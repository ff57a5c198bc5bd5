//! What a command is for: `RESOURCE`, `RESOURCE/VOLUME`, `RESOURCE:PEER`, `RESOURCE:PEER/VOLUME` or
//! `all`.

use super::Place;
use crate::client::Client;
use crate::config::{Configuration, Host, Resource, Volume};
use crate::failure::{Failure, Result, code};
use serde_json::Value;
use std::slice;
use std::str::FromStr;

/// A target as it was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// `None`: all resources.
    pub(super) resource: Option<String>,
    pub(super) peer: Option<String>,
    volume: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (names, volume) = parts(text, '/');
        let (resource, peer) = parts(names, ':');
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no volume number"));
        let volume = volume.map(number).transpose()?;
        let peer = peer.map(str::to_owned);
        let is_all = resource == "all";
        if resource.is_empty() || is_all && (peer.is_some() || volume.is_some()) {
            return Err("write RESOURCE, RESOURCE/VOLUME, RESOURCE:PEER or all".to_owned());
        }
        Ok(Self { resource: (!is_all).then(|| resource.to_owned()), peer, volume })
    }
}

/// What stands before and, if it is there, behind the sign.
fn parts(text: &str, sign: char) -> (&str, Option<&str>) {
    text.split_once(sign).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// For a command that acts on whole resources: more than that must not be named.
pub(crate) fn whole(text: &str) -> Result<Target, String> {
    let target: Target = text.parse()?;
    match (&target.peer, target.volume) {
        (None, None) => Ok(target),
        _ => Err("this command acts on a whole resource: name the resource alone".to_owned()),
    }
}

impl Target {
    /// The resources meant.
    pub(crate) fn resources<'a>(&self, from: &'a Configuration) -> Result<&'a [Resource]> {
        match &self.resource {
            Some(name) => find(from, name).map(slice::from_ref),
            None if from.resources.is_empty() => {
                let (file, node) = (from.file.display(), &from.node);
                let text = format!("{file}: no resource is defined for host `{node}`");
                Err(Failure::new(code::USAGE, text))
            }
            None => Ok(&from.resources),
        }
    }

    /// No resource was named.
    pub(super) fn is_all(&self) -> bool {
        self.resource.is_none()
    }
}

/// One resource a command is for, and what of it was named.
pub(crate) struct Subject {
    pub(crate) place: Place,
    pub(crate) resource: Resource,
    pub(crate) client: Client,
    /// `None`: all.
    pub(super) volume: Option<u16>,
    /// `None`: this node, or all peers.
    pub(super) peer: Option<String>,
}

impl Subject {
    /// Fails if the resource has no such volume or peer.
    pub(crate) fn new(place: &Place, target: &Target, resource: &Resource) -> Result<Self> {
        let it = Self {
            place: place.clone(),
            resource: resource.clone(),
            client: Client::new(&place.run_dir, &resource.name),
            volume: target.volume,
            peer: target.peer.clone(),
        };
        let missing = match (target.volume, &target.peer) {
            (Some(number), _) if it.volumes().next().is_none() => format!("volume {number}"),
            (_, Some(name)) if it.peers().next().is_none() => format!("peer `{name}`"),
            _ => return Ok(it),
        };
        let text = format!("resource `{}` has no {missing}", resource.name);
        Err(Failure::new(code::CONFIGURATION, text))
    }

    /// What the daemon says.
    pub(crate) async fn status(&self) -> Result<Value> {
        self.client.page("/status").await
    }

    /// The volumes meant.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &Volume> {
        let volumes = self.resource.me.volumes.iter();
        volumes.filter(|volume| self.volume.is_none_or(|number| volume.number == number))
    }

    /// The volumes meant that have a disk, and the one that was named in any case.
    pub(super) fn disks(&self) -> impl Iterator<Item = &Volume> {
        self.volumes().filter(|volume| self.volume.is_some() || volume.disk.is_some())
    }

    /// The peers meant.
    pub(super) fn peers(&self) -> impl Iterator<Item = &Host> {
        let peers = self.resource.peers.iter();
        peers.filter(|peer| self.peer.as_ref().is_none_or(|name| peer.name == *name))
    }
}

/// The resource of that name, or an error that says which there are.
pub(super) fn find<'a>(configuration: &'a Configuration, name: &str) -> Result<&'a Resource> {
    configuration.resource(name).ok_or_else(|| {
        let known: Vec<_> = configuration.resources.iter().map(|r| r.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let (file, node) = (configuration.file.display(), &configuration.node);
        let text =
            format!("{file}: no resource `{name}` is defined for host `{node}` (defined: {known})");
        Failure::new(code::CONFIGURATION, text)
    })
}

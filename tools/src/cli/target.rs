//! What a command is for: `RESOURCE`, `RESOURCE/VOLUME`, `RESOURCE:PEER`, `RESOURCE:PEER/VOLUME` or
//! `all`.

use super::{Failure, code};
use crate::config::{Configuration, Host, Resource, Volume};
use std::str::FromStr;

/// A target as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `None`: all resources.
    resource: Option<String>,
    peer: Option<String>,
    volume: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (names, volume) = match text.split_once('/') {
            None => (text, None),
            Some((names, number)) => {
                let volume =
                    number.parse().map_err(|_| format!("`{number}` is no volume number"))?;
                (names, Some(volume))
            }
        };
        let (resource, peer) = match names.split_once(':') {
            None => (names, None),
            Some((resource, peer)) => (resource, Some(peer.to_owned())),
        };
        let is_all = resource == "all";
        if resource.is_empty() || is_all && (peer.is_some() || volume.is_some()) {
            return Err("write RESOURCE, RESOURCE/VOLUME, RESOURCE:PEER or all".to_owned());
        }
        Ok(Self { resource: (!is_all).then(|| resource.to_owned()), peer, volume })
    }
}

impl Target {
    /// The resources meant.
    pub(super) fn resources<'a>(
        &self,
        configuration: &'a Configuration,
    ) -> Result<Vec<&'a Resource>, Failure> {
        match &self.resource {
            Some(name) => Ok(vec![find(configuration, name)?]),
            None if configuration.resources.is_empty() => {
                let (file, node) = (configuration.file.display(), &configuration.node);
                let text = format!("{file}: no resource is defined for host `{node}`");
                Err(Failure::new(code::USAGE, text))
            }
            None => Ok(configuration.resources.iter().collect()),
        }
    }

    /// No resource was named.
    pub(super) fn is_all(&self) -> bool {
        self.resource.is_none()
    }

    /// For a command that acts on whole resources: more than that must not be named.
    pub(super) fn whole(&self) -> Result<&Self, Failure> {
        if self.volume.is_some() || self.peer.is_some() {
            let text = "this command acts on a whole resource: name the resource alone";
            return Err(Failure::new(code::USAGE, text));
        }
        Ok(self)
    }

    /// The volume that was named, if it is one of `resource`'s.
    pub(super) fn volume(&self, resource: &Resource) -> Result<Option<u16>, Failure> {
        let known = |number| resource.me.volumes.iter().any(|volume| volume.number == number);
        match self.volume {
            Some(number) if !known(number) => {
                let text = format!("resource `{}` has no volume {number}", resource.name);
                Err(Failure::new(code::CONFIGURATION, text))
            }
            volume => Ok(volume),
        }
    }

    /// The volumes meant.
    pub(super) fn volumes<'a>(&self, resource: &'a Resource) -> Result<Vec<&'a Volume>, Failure> {
        let named = self.volume(resource)?;
        let volumes = resource.me.volumes.iter();
        Ok(volumes.filter(|volume| named.is_none_or(|number| volume.number == number)).collect())
    }

    /// The name of the peer, if one was named and is one.
    pub(super) fn peer(&self, resource: &Resource) -> Result<Option<&str>, Failure> {
        if let Some(name) = &self.peer
            && !resource.peers.iter().any(|peer| peer.name == *name)
        {
            let text = format!("resource `{}` has no peer `{name}`", resource.name);
            return Err(Failure::new(code::CONFIGURATION, text));
        }
        Ok(self.peer.as_deref())
    }

    /// The peers meant: the one that was named, else all.
    pub(super) fn peers<'a>(&self, resource: &'a Resource) -> Result<Vec<&'a Host>, Failure> {
        let named = self.peer(resource)?;
        let peers = resource.peers.iter();
        Ok(peers.filter(|peer| named.is_none_or(|name| peer.name == name)).collect())
    }
}

/// The resource of that name, or an error that says which there are.
pub(super) fn find<'a>(
    configuration: &'a Configuration,
    name: &str,
) -> Result<&'a Resource, Failure> {
    configuration.resource(name).ok_or_else(|| {
        let known: Vec<_> = configuration.resources.iter().map(|r| r.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let (file, node) = (configuration.file.display(), &configuration.node);
        let text =
            format!("{file}: no resource `{name}` is defined for host `{node}` (defined: {known})");
        Failure::new(code::CONFIGURATION, text)
    })
}

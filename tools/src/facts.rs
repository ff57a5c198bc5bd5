//! What a program beside `polluxd` and `polluxadm` needs to know of a resource before it may drive it: who the two nodes are, and
//! whether fencing is as it must be. Not the whole configuration.

use crate::cli::Place;
use crate::config::{Configuration, Host};
use crate::failure::{Failure, Result, code};

/// One node of a resource.
#[derive(Clone, Debug)]
pub struct Node {
    /// As `uname -n` prints it there.
    pub name: String,
    /// 0..31.
    pub id: u8,
}

/// A resource of two nodes.
#[derive(Clone)]
pub struct Facts {
    /// Where it is defined, `file:line`.
    pub place: String,
    /// This node.
    pub me: Node,
    /// The other.
    pub peer: Node,
    /// `net { shared-secret; }`.
    pub secret: Option<String>,
    /// `net { fencing; }`.
    pub fencing: String,
    /// `handlers { fence-peer; }`.
    pub fence_peer: Option<String>,
    /// `handlers { unfence-peer; }`.
    pub unfence_peer: Option<String>,
    /// `options { auto-promote; }`.
    pub auto_promote: bool,
    /// `options { handler-timeout; }`, in seconds.
    pub handler_timeout: u64,
}

/// What the configuration says of `resource`, as this node sees it.
///
/// # Errors
/// If it cannot be read, does not name the resource or this node, or if the resource has no peer.
pub fn facts(place: &Place, resource: &str) -> Result<Facts> {
    let (configuration, _) = Configuration::load(&place.config, &place.node())?;
    let found = configuration.resource(resource).ok_or_else(|| {
        let (file, node) = (configuration.file.display(), &configuration.node);
        let text = format!("{file}: no resource `{resource}` is defined for host `{node}`");
        Failure::new(code::CONFIGURATION, text)
    })?;
    let place = found.place.to_string();
    let [peer] = &found.peers[..] else {
        let text = format!("{place}: resource `{resource}` has no peer: add another `on` section");
        return Err(Failure::new(code::CONFIGURATION, text));
    };
    let of = |host: &Host| Node { name: host.name.clone(), id: host.node_id };
    let word = |text: Option<&str>| text.map(str::to_owned);
    Ok(Facts {
        place,
        me: of(&found.me),
        peer: of(peer),
        secret: word(found.net.text("shared-secret")),
        fencing: found.net.text("fencing").unwrap_or_default().to_owned(),
        fence_peer: word(found.handlers.text("fence-peer")),
        unfence_peer: word(found.handlers.text("unfence-peer")),
        auto_promote: found.me.options.flag("auto-promote"),
        handler_timeout: found.me.options.number("handler-timeout"),
    })
}

//! A configuration as normalised text: what counts, every level folded into the resource it acts on,
//! options only where they differ from the default. Loaded again it means the same.

use std::fmt::{self, Display, Write};
use std::path::Path;

use super::token::is_bare;
use super::{Configuration, Host, Listen, Resource, Settings, Volume};

/// A word as the grammar wants it: in quotes if it needs them.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.len() <= 128 && self.0.bytes().all(is_bare) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// A path, or the word that stands for none.
fn path(path: Option<&Path>, none: &str) -> String {
    path.map_or_else(|| none.to_owned(), |path| Quoted(&path.to_string_lossy()).to_string())
}

/// The options of a section that differ from the default, if there are any.
fn section(name: &str, settings: &Settings) -> String {
    let lines: String =
        settings.texts().map(|(name, text)| format!("{name} {};\n", Quoted(text))).collect();
    if lines.is_empty() { lines } else { format!("{name} {{\n{lines}}}\n") }
}

fn volume(volume: &Volume) -> String {
    let Volume { number, minor, .. } = volume;
    let device = volume.device.as_ref().map_or(String::new(), |name| format!("{} ", Quoted(name)));
    let disk = path(volume.disk.as_deref(), "none");
    let meta_disk = path(volume.meta_disk.as_deref(), "internal");
    let options = section("disk", &volume.options);
    format!(
        "volume {number} {{\ndevice {device}minor {minor};\ndisk {disk};\nmeta-disk {meta_disk};\n\
         {options}}}\n"
    )
}

fn host(host: &Host) -> String {
    let Host { node_id, address, .. } = host;
    let name = Quoted(&host.name);
    let options = section("options", &host.options);
    let listen = host.nbd.iter().map(|listen| match listen {
        Listen::Unix => "listen unix;\n".to_owned(),
        Listen::Tcp(address) => format!("listen {address};\n"),
    });
    let nbd = match &host.nbd[..] {
        [Listen::Unix] => String::new(),
        _ => format!("nbd {{\n{}}}\n", listen.collect::<String>()),
    };
    let volumes: String = host.volumes.iter().map(volume).collect();
    format!("on {name} {{\nnode-id {node_id};\naddress {address};\n{options}{nbd}{volumes}}}\n")
}

/// Indents every line by the sections that are open.
fn indented(text: &str) -> String {
    let (mut result, mut depth) = (String::new(), 0);
    for line in text.lines() {
        depth -= usize::from(line == "}");
        writeln!(result, "{:1$}{line}", "", 4 * depth).expect("a String takes all that is written");
        depth += usize::from(line.ends_with(" {"));
    }
    result
}

/// A path in a comment: on one line, whatever it holds.
fn comment(text: &str) -> String {
    format!("# {}\n", text.replace(char::is_control, "?"))
}

/// The whole configuration, for `polluxadm dump`. Shows secrets, as the file does.
pub(crate) fn dump(configuration: &Configuration) -> String {
    let file = configuration.file.display();
    let mut text = comment(&format!("{file}, without what Pollux ignores"));
    for resource in &configuration.resources {
        text += &format!("\n{}", dump_resource(resource));
    }
    text
}

/// One resource, under a comment that names where it is defined.
pub(crate) fn dump_resource(resource: &Resource) -> String {
    let Resource { name, place, net, handlers, me, peers } = resource;
    // In the order of node-ids, so that all nodes print the same.
    let mut hosts: Vec<&Host> = peers.iter().chain([me]).collect();
    hosts.sort_by_key(|host| host.node_id);
    let hosts: String = hosts.into_iter().map(host).collect();
    let sections = section("net", net) + &section("handlers", handlers);
    let text = format!("resource {} {{\n{sections}{hosts}}}\n", Quoted(name));
    comment(&format!("resource {name} on {}, from {place}", me.name)) + &indented(&text)
}

//! A configuration as normalised text: what counts, every level folded into the resource it acts on,
//! options only where they differ from the default. Loaded again it means the same.

use std::fmt::{self, Display, Write};
use std::path::Path;

use super::token::is_bare;
use super::{Configuration, Host, Listen, Resource, Settings};

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

/// Lines, each indented by the sections that are open.
struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    /// A path in a comment: on one line, whatever it holds.
    fn comment(&mut self, comment: &str) {
        self.line(format_args!("# {}", comment.replace(char::is_control, "?")));
    }

    fn line(&mut self, line: impl Display) {
        let indent = 4 * self.depth;
        writeln!(self.text, "{:indent$}{line}", "").expect("a String takes all that is written");
    }

    fn section(&mut self, head: impl Display, body: impl FnOnce(&mut Self)) {
        self.line(format_args!("{head} {{"));
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.line("}");
    }

    /// A section of options, if any of them differs from the default.
    fn options(&mut self, name: &str, settings: &Settings) {
        let texts: Vec<_> = settings.texts().collect();
        if !texts.is_empty() {
            self.section(name, |w| {
                for (name, text) in texts {
                    w.line(format_args!("{name} {};", Quoted(&text)));
                }
            });
        }
    }

    fn resource(&mut self, resource: &Resource) {
        let (name, host, place) = (&resource.name, &resource.me.name, &resource.place);
        self.comment(&format!("resource {name} on {host}, from {place}"));
        self.section(format_args!("resource {}", Quoted(&resource.name)), |w| {
            w.options("net", &resource.net);
            // In the order of node-ids, so that all nodes print the same.
            let mut hosts: Vec<&Host> = resource.peers.iter().chain([&resource.me]).collect();
            hosts.sort_by_key(|host| host.node_id);
            hosts.into_iter().for_each(|host| w.host(host));
        });
    }

    fn host(&mut self, host: &Host) {
        self.section(format_args!("on {}", Quoted(&host.name)), |w| {
            w.line(format_args!("node-id {};", host.node_id));
            w.line(format_args!("address {};", host.address));
            w.options("options", &host.options);
            if host.nbd != [Listen::Unix] {
                w.section("nbd", |w| {
                    for listen in &host.nbd {
                        match listen {
                            Listen::Unix => w.line("listen unix;"),
                            Listen::Tcp(address) => w.line(format_args!("listen {address};")),
                        }
                    }
                });
            }
            for volume in &host.volumes {
                w.section(format_args!("volume {}", volume.number), |w| {
                    match &volume.device {
                        Some(name) => {
                            w.line(format_args!("device {} minor {};", Quoted(name), volume.minor));
                        }
                        None => w.line(format_args!("device minor {};", volume.minor)),
                    }
                    w.line(format_args!("disk {};", path(volume.disk.as_deref(), "none")));
                    let meta_disk = path(volume.meta_disk.as_deref(), "internal");
                    w.line(format_args!("meta-disk {meta_disk};"));
                    w.options("disk", &volume.options);
                });
            }
        });
    }
}

/// The whole configuration, for `polluxadm dump`. Shows secrets, as the file does.
pub(crate) fn dump(configuration: &Configuration) -> String {
    let mut writer = Writer { text: String::new(), depth: 0 };
    writer.comment(&format!("{}, without what Pollux ignores", configuration.file.display()));
    for resource in &configuration.resources {
        writer.line("");
        writer.resource(resource);
    }
    writer.text
}

/// One resource, under a comment that names where it is defined.
pub(crate) fn dump_resource(resource: &Resource) -> String {
    let mut writer = Writer { text: String::new(), depth: 0 };
    writer.resource(resource);
    writer.text
}

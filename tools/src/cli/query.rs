//! Commands that only tell: `status` and its short forms, generation identifiers, `dump`.

use super::target::{self, Subject, Target};
use super::{Place, print};
use crate::client::Client;
use crate::config;
use crate::failure::{Failure, Result, if_up};
use crate::meta;
use crate::status::{self, Layout};
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct StatusOptions {
    #[arg(value_name = "RESOURCE | all", value_parser = target::whole)]
    target: Option<Target>,
    /// As JSON, with the keys of `drbdsetup status --json`.
    #[arg(long)]
    json: bool,
    /// Also what is as usual.
    #[arg(long, short)]
    verbose: bool,
    /// Also counters.
    #[arg(long, short)]
    statistics: bool,
}

/// The resources that run; those that were named one by one must.
pub(super) async fn status(place: &Place, options: StatusOptions) -> Result {
    let daemons = match &options.target {
        Some(target) => place.daemons(target)?,
        None => {
            let all = place.load()?.resources;
            all.iter().map(|it| Client::new(&place.run_dir, &it.name)).collect()
        }
    };
    let target = options.target.unwrap_or_default();
    let mut running = Vec::new();
    for daemon in daemons {
        let status = daemon.page("/status").await;
        match target.is_all() {
            true => running.extend(if_up(status)?),
            false => running.push(status?),
        }
    }
    if options.json {
        print(&format!("{:#}\n", Value::Array(running)));
        return Ok(());
    }
    // An answer means that it is a terminal; 0, that nobody has told it its size.
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let width = size.map(|size| if size.ws_col == 0 { 80 } else { size.ws_col.into() });
    let layout = Layout { verbose: options.verbose, statistics: options.statistics, width };
    print(&status::print(&running, layout));
    Ok(())
}

pub(super) async fn role(place: &Place, target: &Target) -> Result {
    for daemon in place.daemons(target)? {
        let status = daemon.page("/status").await?;
        let Some(role) = status::role(&status, target.peer.as_deref()) else {
            // The daemon was started with another configuration.
            let name = target.peer.as_deref().unwrap_or_default();
            return Err(Failure::failed(format_args!(
                "the running resource has no peer {name}, its configuration was changed since: \
                 `polluxadm down`, then `polluxadm up`"
            )));
        };
        print(&format!("{role}\n"));
    }
    Ok(())
}

pub(super) async fn cstate(it: &Subject) -> Result {
    print(&status::cstate(&it.status().await?));
    Ok(())
}

/// Of a resource that does not run, what the metadata says.
pub(super) async fn dstate(it: &Subject) -> Result {
    if let Some(status) = if_up(it.status().await)? {
        print(&status::dstate(&status, it.volume));
        return Ok(());
    }
    for volume in it.volumes() {
        let state = match volume.disk {
            Some(_) => meta::disk_state(&meta::read_volume(volume)?),
            None => "Diskless",
        };
        print(&format!("{state}{}\n", "/DUnknown".repeat(it.resource.peers.len())));
    }
    Ok(())
}

/// A line, with or without a legend, for each volume and peer.
pub(super) async fn gi(it: &Subject, has_legend: bool) -> Result {
    let running = if_up(it.client.page("/generations").await)?.unwrap_or_default();
    for volume in it.volumes() {
        for peer in it.peers() {
            let is_it = |ids: &&Value| ids["volume"] == volume.number && ids["peer"] == *peer.name;
            let running = running.as_array().and_then(|all| all.iter().find(is_it));
            let line = match running.and_then(|ids| ids["line"].as_str()) {
                Some(line) => line.to_owned(),
                // Not attached: the disk says it.
                None => meta::generations(volume, peer)?,
            };
            print(&if has_legend { status::show_gi(&line) } else { line });
        }
    }
    Ok(())
}

pub(super) fn dump(place: &Place, target: Option<&Target>) -> Result {
    let configuration = place.load()?;
    let Some(target) = target.filter(|target| !target.is_all()) else {
        print(&config::dump(&configuration));
        return Ok(());
    };
    let named = target.resources(&configuration)?.iter();
    named.for_each(|resource| print(&config::dump_resource(resource)));
    Ok(())
}

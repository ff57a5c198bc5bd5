//! Commands that only tell: `status` and its short forms, generation identifiers, `dump`.

use super::target::Target;
use super::{Failure, Place, code, print};
use crate::client::{Client, ClientError};
use crate::config::{self, Configuration, Resource};
use crate::meta;
use crate::show::VolumeGenerations;
use crate::status::{self, DiskState, GenerationIds, Layout, Status};
use std::io::IsTerminal;

#[derive(clap::Args)]
pub(super) struct StatusOptions {
    #[arg(value_name = "RESOURCE | all")]
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

async fn fetch(place: &Place, resource: &Resource) -> Result<Status, ClientError> {
    Client::new(&place.run_dir(), &resource.name).page("/status").await
}

/// The resources that run; those that were named one by one must.
pub(super) async fn status(place: &Place, options: StatusOptions) -> Result<(), Failure> {
    let configuration = place.load()?;
    let resources = match &options.target {
        Some(target) => target.whole()?.resources(&configuration)?,
        None => configuration.resources.iter().collect(),
    };
    let is_named = options.target.as_ref().is_some_and(|target| !target.is_all());
    let mut running = Vec::new();
    for resource in resources {
        match fetch(place, resource).await {
            Ok(status) => running.push(status),
            Err(ClientError::NotRunning { .. }) if !is_named => {}
            Err(error) => return Err(error.into()),
        }
    }
    if options.json {
        print(&status::json(&running));
        return Ok(());
    }
    let width = std::io::stdout().is_terminal().then(width).flatten();
    let layout = Layout { verbose: options.verbose, statistics: options.statistics, width };
    print(&status::print(&running, layout));
    Ok(())
}

/// Columns of the terminal, as the shell tells.
fn width() -> Option<usize> {
    std::env::var("COLUMNS").ok()?.parse().ok().or(Some(80))
}

pub(super) async fn role(place: &Place, target: &Target) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        let peer = target.peer(resource)?;
        let status = fetch(place, resource).await?;
        print(&status::role(&status, peer).expect("the peer is one of the configuration's"));
    }
    Ok(())
}

pub(super) async fn cstate(place: &Place, target: &Target) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        print(&status::cstate(&fetch(place, resource).await?));
    }
    Ok(())
}

/// Of a resource that does not run, what the metadata says.
pub(super) async fn dstate(place: &Place, target: &Target) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        let volume = target.volume(resource)?;
        match fetch(place, resource).await {
            Ok(status) => print(&status::dstate(&status, volume)),
            Err(ClientError::NotRunning { .. }) => {
                for volume in target.volumes(resource)? {
                    let state = match volume.disk {
                        Some(_) => meta::disk_state(&meta::read_volume(volume)?),
                        None => DiskState::Diskless,
                    };
                    let peers = resource.peers.iter().map(|_| format!("/{}", DiskState::DUnknown));
                    print(&format!("{state}{}\n", peers.collect::<String>()));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A line, or a legend, for each volume and peer.
pub(super) async fn gi(
    place: &Place,
    target: &Target,
    text: fn(&GenerationIds) -> String,
) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        let client = Client::new(&place.run_dir(), &resource.name);
        let running: Vec<VolumeGenerations> = match client.page("/generations").await {
            Ok(all) => all,
            Err(ClientError::NotRunning { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for volume in target.volumes(resource)? {
            for peer in target.peers(resource)? {
                let found = running
                    .iter()
                    .find(|one| one.volume == volume.number && one.peer == peer.name)
                    .map(|one| one.ids.clone());
                let ids = match found {
                    Some(ids) => Some(ids),
                    // Not attached: the disk says it.
                    None => meta::generations(&meta::read_volume(volume)?, peer.node_id),
                };
                let ids = ids.ok_or_else(|| {
                    let (number, name) = (volume.number, &peer.name);
                    let text = format!("the metadata of volume {number} knows no peer `{name}`");
                    Failure::new(code::CONFIGURATION, text)
                })?;
                print(&text(&ids));
            }
        }
    }
    Ok(())
}

pub(super) fn dump(place: &Place, target: Option<&Target>) -> Result<(), Failure> {
    let configuration: Configuration = place.load()?;
    match target.filter(|target| !target.is_all()) {
        None => print(&config::dump(&configuration)),
        Some(target) => {
            for resource in target.whole()?.resources(&configuration)? {
                print(&config::dump_resource(resource));
            }
        }
    }
    Ok(())
}

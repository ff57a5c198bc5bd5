//! Commands that change the state of running resources: sent, waited for, and that is all.

use super::target::Target;
use super::{Failure, Place};
use crate::client::Client;
use serde_json::{Value, json};

/// A command for whole resources.
pub(super) async fn of_resources(
    place: &Place,
    target: &Target,
    command: &str,
    with: Value,
) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.whole()?.resources(&configuration)? {
        Client::new(&place.run_dir(), &resource.name).command(command, with.clone()).await?;
    }
    Ok(())
}

/// A command for volumes: the one named, or all.
pub(super) async fn of_volumes(
    place: &Place,
    target: &Target,
    command: &str,
) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        let volume = target.volume(resource)?;
        let with = json!({ "volume": volume });
        Client::new(&place.run_dir(), &resource.name).command(command, with).await?;
    }
    Ok(())
}

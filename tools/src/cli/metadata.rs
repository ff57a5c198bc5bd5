//! `create-md`, `dump-md`: metadata of disks that are not attached.

use super::target::Target;
use super::{Failure, Place, print};
use crate::config::{Resource, Volume};
use crate::meta::{self, Found};
use std::io::{BufRead, IsTerminal};

pub(super) fn create(place: &Place, target: &Target, force: bool) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        for volume in target.volumes(resource)? {
            // Diskless by configuration: nothing to do, unless it was asked for by number.
            if volume.disk.is_some() || target.volume(resource)?.is_some() {
                create_one(resource, volume, force)?;
            }
        }
    }
    Ok(())
}

fn create_one(resource: &Resource, volume: &Volume, force: bool) -> Result<(), Failure> {
    let mut blank = meta::open_blank(resource, volume)?;
    let path = blank.path().display().to_string();
    let what = match blank.found()? {
        Found::Nothing => None,
        Found::Metadata(what) => Some(what),
        Found::Data => {
            let kept = blank.data_size();
            Some(format!("data behind byte {kept}, where the metadata goes (a file system?)"))
        }
    };
    if let Some(what) = what
        && !force
    {
        let problem = format!("{path}: holds {what}");
        if !std::io::stdin().is_terminal() {
            let text = format!(
                "{problem}; not overwritten. To overwrite it: polluxadm create-md --force {}/{}",
                resource.name, volume.number
            );
            return Err(Failure::failed(text));
        }
        print(&format!("{problem}.\nOverwrite it? What it protects is lost. [type yes] "));
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_err() || answer.trim() != "yes" {
            return Err(Failure::failed("not overwritten"));
        }
    }
    let size = blank.data_size();
    blank.format()?;
    print(&format!("{path}: metadata made; {size} bytes for data\n"));
    Ok(())
}

pub(super) fn dump(place: &Place, target: &Target) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in target.resources(&configuration)? {
        for volume in target.volumes(resource)? {
            if volume.disk.is_none() && target.volume(resource)?.is_none() {
                continue;
            }
            let metadata = meta::read_volume(volume)?;
            print(&format!("# {}/{}\n{}", resource.name, volume.number, metadata.dump()));
        }
    }
    Ok(())
}

//! `create-md`, `dump-md`: metadata of disks that are not attached.

use super::print;
use super::target::Subject;
use crate::config::Volume;
use crate::failure::{Failure, Result};
use crate::meta;
use std::io::{BufRead, IsTerminal};

pub(crate) fn create(it: &Subject, force: bool) -> Result {
    it.disks().try_for_each(|volume| create_one(it, volume, force))
}

fn create_one(it: &Subject, volume: &Volume, force: bool) -> Result {
    let mut blank = meta::Blank::open(&it.resource, volume)?;
    let path = blank.path().display().to_string();
    let size = blank.size();
    if let Some(what) = blank.found()?
        && !force
    {
        let problem = format!("{path}: holds {what}");
        if !std::io::stdin().is_terminal() {
            let text = format!(
                "{problem}; not overwritten. To overwrite it: polluxadm create-md --force {}/{}",
                it.resource.name, volume.number
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
    blank.format()?;
    print(&format!("{path}: metadata made; {size} bytes for data\n"));
    Ok(())
}

pub(super) fn dump(it: &Subject) -> Result {
    for volume in it.disks() {
        let metadata = meta::read_volume(volume)?;
        print(&format!("# {}/{}\n{}", it.resource.name, volume.number, metadata.dump()));
    }
    Ok(())
}

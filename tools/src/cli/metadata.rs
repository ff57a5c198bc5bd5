//! `create-md`, `dump-md`: metadata of disks that are not attached.

use super::print;
use super::target::Subject;
use crate::failure::{Failure, Result};
use crate::meta;
use std::io::{BufRead, IsTerminal};

pub(crate) fn create(it: &Subject, force: bool) -> Result {
    for volume in it.disks() {
        let target = format!("{}/{}", it.resource.name, volume.number);
        let ask = |problem: &str| if force { Ok(()) } else { ask(problem, &target) };
        let size = meta::create(&it.resource, volume, ask)?;
        let path = volume.meta_path().expect("it has metadata now").display();
        print(&format!("{path}: metadata made; {size} bytes for data\n"));
    }
    Ok(())
}

/// Fails unless somebody at the terminal says yes.
fn ask(problem: &str, target: &str) -> Result {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::failed(format_args!(
            "{problem}; not overwritten. To overwrite it: polluxadm create-md --force {target}"
        )));
    }
    print(&format!("{problem}.\nOverwrite it? What it protects is lost. [type yes] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && answer.trim() == "yes" {
        true => Ok(()),
        false => Err(Failure::failed("not overwritten")),
    }
}

pub(super) fn dump(it: &Subject) -> Result {
    for volume in it.disks() {
        let metadata = meta::read_volume(volume)?;
        print(&format!("# {}/{}\n{}", it.resource.name, volume.number, metadata.dump()));
    }
    Ok(())
}

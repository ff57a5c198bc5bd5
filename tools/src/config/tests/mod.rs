//! Small texts in, what they mean or why they are refused out.

mod dump;
mod hostile;
mod include;
mod meaning;
mod messages;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;

/// Loads `text` as file `F`; the error or the warnings as text, one a line.
fn load(text: impl AsRef<[u8]>) -> Result<(Configuration, String), String> {
    load_on("oslo", text)
}

fn load_on(node: &str, text: impl AsRef<[u8]>) -> Result<(Configuration, String), String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("F");
    fs::write(&file, text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    let (mut configuration, warnings) =
        Configuration::load(&file, node).map_err(|error| error.text.replace(&prefix, ""))?;
    // Where it stands is compared by the tests that are about it.
    configuration.file = PathBuf::from("F");
    let nowhere = Place { file: Arc::from(Path::new("F")), line: 0 };
    configuration.resources.iter_mut().for_each(|resource| resource.place = nowhere.clone());
    let warnings: Vec<_> = warnings.iter().map(|w| w.replace(&prefix, "")).collect();
    Ok((configuration, warnings.join("\n")))
}

/// A resource on oslo and bergen, with something put into it.
fn around(inner: &str) -> String {
    format!(
        "resource r {{ volume 0 {{ device minor 0; disk /a; meta-disk internal; }} {inner}
         on oslo {{ node-id 0; address 10.0.0.1:70; }} on bergen {{ node-id 1; address 10.0.0.2:70; }} }}"
    )
}

/// A `volume 0`, and the lines of two hosts.
const V: &str = "volume 0 { device minor 0; disk /a; meta-disk internal; }";
const O: &str = "on oslo { node-id 0; address 10.0.0.1:70; }";
const B: &str = "on bergen { node-id 1; address 10.0.0.2:70; }";

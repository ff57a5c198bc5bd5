//! What a run leaves behind: text for people, JSON for programs.

use serde::Serialize;
use std::io::Error;
use std::path::Path;
use std::process::ExitCode;

/// Prints the text, writes it and `data` to the files that were asked for, tells the troubles, and says how the program ends: a
/// figure is never a failure, a run that is not whole is one.
pub fn finish(
    text: &str,
    data: &impl Serialize,
    markdown: Option<&Path>,
    json: Option<&Path>,
    troubles: &[String],
    cut_short: bool,
) -> ExitCode {
    println!("{text}");
    if cut_short {
        println!("cut short: the last turns are missing");
    }
    let mut troubles = troubles.to_vec();
    let json = json.map(|file| {
        let written = serde_json::to_vec_pretty(data).map_err(Error::from);
        (file, written.and_then(|bytes| std::fs::write(file, bytes)))
    });
    let markdown = markdown.map(|file| (file, std::fs::write(file, text)));
    for (file, written) in json.into_iter().chain(markdown) {
        if let Err(error) = written {
            troubles.push(format!("{}: {error}", file.display()));
        }
    }
    for trouble in &troubles {
        println!("TROUBLE: {trouble}");
    }
    if troubles.is_empty() && !cut_short { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! What a run leaves behind: text for people, JSON for programs.

use clap::Args;
use serde::Serialize;
use std::io::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where it goes beside the terminal.
#[derive(Args, Clone, Debug)]
pub struct Files {
    /// Every sample goes to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The tables go to this file, too.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Prints the text, writes it and `data` to the files that were asked for, tells the troubles, and says how the program ends: a
/// figure is never a failure, a run that is not whole is one.
pub fn finish(
    text: &str,
    data: &impl Serialize,
    files: &Files,
    troubles: &[String],
    cut_short: bool,
) -> ExitCode {
    println!("{text}");
    if cut_short {
        println!("cut short: the last turns are missing");
    }
    let mut troubles = troubles.to_vec();
    let json = files.json.as_ref().map(|file| {
        let written = serde_json::to_vec_pretty(data).map_err(Error::from);
        (file, written.and_then(|bytes| std::fs::write(file, bytes)))
    });
    let markdown = files.markdown.as_ref().map(|file| (file, std::fs::write(file, text)));
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

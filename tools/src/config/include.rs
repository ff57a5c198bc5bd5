//! The file named on the command line and all it includes, as one list of statements in the order
//! of reading. `include` stands at the top level only, is relative to the file it stands in, and
//! takes the wildcards of a shell.

use glob::{MatchOptions, Pattern};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::Place;
use super::statement::{Statement, parse};
use crate::failure::{Failure, Result, code};

/// Largest file, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Deepest chain of files that include each other.
const DEPTH_MAX: usize = 16;
/// Most files in one configuration.
const FILES_MAX: usize = 256;

/// Reads `path` and what it includes.
pub(super) fn read(path: &Path) -> Result<Vec<Statement>> {
    let bytes = contents(path).map_err(|error| {
        let file = path.display();
        let text = format!("{file}: cannot be read: {error}; name another file with --config");
        Failure::new(code::CONFIGURATION, text)
    })?;
    let mut statements = Vec::new();
    file(path, &bytes, 1, &mut 1, &mut statements)?;
    Ok(statements)
}

fn file(
    path: &Path,
    bytes: &[u8],
    depth: usize,
    files: &mut usize,
    statements: &mut Vec<Statement>,
) -> Result {
    for statement in parse(bytes, Place { file: Arc::from(path), line: 1 })? {
        if statement.name() != "include" {
            statements.push(statement);
            continue;
        }
        let named = statement.value("include \"pollux.d/*.res\";")?;
        let unreadable = |path: &Path, error: io::Error| {
            statement.error(format!("cannot include `{}`: {error}", path.display()))
        };
        for found in expand(path, named).map_err(|error| unreadable(Path::new(named), error))? {
            *files += 1;
            if depth == DEPTH_MAX || *files > FILES_MAX {
                let why = format!(
                    "at most {DEPTH_MAX} files deep and {FILES_MAX} in all (does a file include itself?)"
                );
                return Err(unreadable(&found, io::Error::other(why)));
            }
            let bytes = contents(&found).map_err(|error| unreadable(&found, error))?;
            file(&found, &bytes, depth + 1, files, statements)?;
        }
    }
    Ok(())
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("larger than {FILE_MAX} bytes")));
    }
    Ok(bytes)
}

/// The files that match what is `named` beside the file `from`, sorted; that none does is fine. A
/// path without wildcards stands for itself, and must be there.
fn expand(from: &Path, named: &str) -> io::Result<Vec<PathBuf>> {
    let directory = from.parent().unwrap_or(Path::new(""));
    if !named.contains(['*', '?', '[']) {
        return Ok(vec![directory.join(named)]);
    }
    // Its own name is no pattern, whatever is in it.
    let directory = Pattern::escape(&directory.to_string_lossy());
    let pattern = Path::new(&directory).join(named);
    // As in a shell.
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(&pattern.to_string_lossy(), options);
    let found = found.map_err(|error| io::Error::other(error.msg))?;
    found.map(|path| path.map_err(Into::into)).collect()
}

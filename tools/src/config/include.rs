//! The file named on the command line and all it includes, as one list of statements in the order
//! of reading. `include` stands at the top level only, is relative to the file it stands in, and
//! takes `*` and `?` in the name of a file, not of a directory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::{ConfigError, Place};
use super::statement::{Statement, parse};

/// Largest file, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Deepest chain of files that include each other.
const DEPTH_MAX: usize = 16;
/// Most files in one configuration.
const FILES_MAX: usize = 256;

/// Reads `path` and what it includes.
pub(super) fn read(path: &Path) -> Result<Vec<Statement>, ConfigError> {
    let bytes = contents(path).map_err(|source| {
        let file = path.to_owned();
        ConfigError::Unreadable { file, source }
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
) -> Result<(), ConfigError> {
    for statement in parse(bytes, Place::new(Arc::from(path), 1))? {
        if statement.name() != "include" {
            statements.push(statement);
            continue;
        }
        let named = statement.value("include \"pollux.d/*.res\";")?;
        let pattern = path.parent().unwrap_or(Path::new("")).join(named);
        let unreadable = |path: &Path, error: io::Error| {
            statement.error(format!("cannot include `{}`: {error}", path.display()))
        };
        for found in expand(&pattern).map_err(|error| unreadable(&pattern, error))? {
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

/// The files that match, sorted; that none does is fine, also if the directory is missing. A path
/// without wildcards stands for itself.
fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or("").as_bytes();
    let directory = pattern.parent().unwrap_or(Path::new(""));
    if directory.to_string_lossy().contains(['*', '?']) || name.contains(&b'[') {
        return Err(io::Error::other("only `*` and `?` in the name of a file are supported"));
    }
    if !name.contains(&b'*') && !name.contains(&b'?') {
        return Ok(vec![pattern.to_owned()]);
    }
    let entries = match directory.join(".").read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?.file_name();
        // As in a shell, only a pattern that begins with a dot matches a hidden file.
        let is_hidden = entry.as_encoded_bytes().starts_with(b".") && !name.starts_with(b".");
        if !is_hidden && is_match(name, entry.as_encoded_bytes()) {
            found.push(directory.join(entry));
        }
    }
    found.sort();
    Ok(found)
}

/// Never goes back, so no pattern is slow.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    // ends[i]: the pattern so far matches the first i bytes of the name.
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for &byte in pattern {
        for i in (0..name.len()).rev() {
            ends[i + 1] = ends[i] && byte != b'*' && (byte == b'?' || byte == name[i])
                || byte == b'*' && ends[..=i + 1].contains(&true);
        }
        ends[0] &= byte == b'*';
    }
    ends[name.len()]
}

//! House style as a test: what CONTRIBUTING.md asks for and a program can see. It reads files.

#![allow(clippy::unwrap_used)] // a test, helpers included

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a Rust file may have.
const LONGEST_FILE: usize = 600;
/// Bytes a file may have.
const LARGEST_FILE: usize = 500_000;

/// The crates, and those of them each may know (DESIGN: `bitmap <- replicator <- tools -> nbd-server`).
const ARROWS: [(&str, &[&str]); 5] = [
    ("bitmap", &[]),
    ("replicator", &["bitmap"]),
    ("nbd-server", &[]),
    ("tools", &["bitmap", "replicator", "nbd-server"]),
    ("agent", &["tools"]),
];

/// Families of invariants: those that are counted, and those of one.
const FAMILIES: [&str; 12] =
    ["DUR", "ORD", "COV", "GI", "ROLE", "SB", "RES", "MD", "IO", "NET", "LIVE", "HA"];
const SINGLE: [&str; 3] = ["CONV", "LIM", "DET"];

#[test]
fn every_rust_file_says_what_it_is_for() {
    let without = |file: &&File| !file.text.starts_with("//!");
    complain(rust_files().iter().filter(without).map(|file| file.path.clone()));
}

#[test]
fn files_are_short() {
    complain(rust_files().iter().filter_map(|file| {
        let lines = file.text.lines().count();
        let too_long = format!("{} has {lines} lines: split it by concept", file.path);
        (lines > LONGEST_FILE).then_some(too_long)
    }));
}

#[test]
fn the_core_knows_no_clock_no_io_and_no_hash_order() {
    const FORBIDDEN: [&str; 6] =
        ["std::", "HashMap", "HashSet", "Instant::now", "SystemTime", "rand::"];
    let core = |file: &&File| {
        let inside = ["replicator/src/node/", "bitmap/src/", "agent/src/decide/"]
            .iter()
            .any(|at| file.path.starts_with(at));
        inside && !file.is_test()
    };
    let mut complaints = Vec::new();
    for file in rust_files().iter().filter(core) {
        for (number, line) in file.code() {
            let found = FORBIDDEN.iter().filter(|word| line.contains(**word));
            complaints.extend(found.map(|word| format!("{}:{number}: `{word}`", file.path)));
        }
    }
    complain(complaints);
}

#[test]
fn node_and_wire_do_not_know_the_shell() {
    let pure = |file: &&File| {
        ["replicator/src/node/", "replicator/src/wire/"].iter().any(|at| file.path.starts_with(at))
    };
    let mut complaints = Vec::new();
    for file in rust_files().iter().filter(pure) {
        let code: String = file.code().map(|(_, line)| format!("{line}\n")).collect();
        let shell = ["link", "disk", "daemon"];
        let known = roots(&code).into_iter().filter(|root| shell.contains(&root.as_str()));
        complaints.extend(known.map(|root| format!("{}: crate::{root}", file.path)));
    }
    complain(complaints);
}

#[test]
fn crates_know_only_whom_they_may() {
    let names =
        ["bitmap", "replicator", "nbd-server", "tools", "agent", "tests", "benches", "fuzz"];
    let files = files();
    let mut complaints = Vec::new();
    for (name, may) in ARROWS {
        let path = format!("{name}/Cargo.toml");
        let manifest = files.iter().find(|file| file.path == path).expect("every crate has one");
        for line in manifest.text.lines().skip_while(|line| !line.contains("dependencies]")) {
            let key = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if names.contains(&key) && !may.contains(&key) {
                complaints.push(format!("{path}: {key}"));
            }
        }
    }
    // Not even in a comment: it serves any block device.
    let server = files.iter().filter(|file| file.path.starts_with("nbd-server/"));
    let knows = |file: &&File| file.text.contains("replicator");
    complaints.extend(server.filter(knows).map(|file| format!("{}: replicator", file.path)));
    complain(complaints);
}

#[test]
fn invariants_are_promised_and_checked() {
    let files = files();
    let guarantees = files.iter().find(|file| file.path == "docs/guarantees.md");
    let guarantees = &guarantees.expect("docs/guarantees.md lists the invariants").text;
    let promised: BTreeMap<String, &str> = guarantees.lines().filter_map(row).collect();
    assert!(promised.len() > FAMILIES.len(), "a table whose rows begin with `| ID |`");
    let mut complaints: Vec<_> = ids(guarantees)
        .filter(|id| !promised.contains_key(id))
        .map(|id| format!("docs/guarantees.md names {id}, its table does not"))
        .collect();

    let mut in_product = BTreeSet::new();
    let mut in_tests = BTreeSet::new();
    let mut in_fuzz = BTreeSet::new();
    for file in &files {
        if !(file.is_rust() || file.is_mutant()) || file.path == "tests/tests/tidy.rs" {
            continue;
        }
        let found = match file.path.split('/').next() {
            Some("tests") => &mut in_tests,
            Some("fuzz") => &mut in_fuzz,
            _ => &mut in_product,
        };
        for id in ids(&file.text) {
            if !promised.contains_key(&id) {
                complaints.push(format!("{}: {id} is not in docs/guarantees.md", file.path));
            }
            found.insert(id);
        }
    }
    for (id, places) in &promised {
        let claims = |words: &[&str]| words.iter().any(|word| places.contains(word));
        if !claims(&["sim", "real", "unit", "assert"]) {
            complaints.push(format!("{id}: docs/guarantees.md does not say where it is checked"));
        }
        if claims(&["sim", "real"]) && !in_tests.contains(id) {
            complaints.push(format!("{id}: checked by `{places}`, but nothing in tests/ names it"));
        }
        if claims(&["fuzz"]) && !in_fuzz.contains(id) {
            complaints.push(format!("{id}: checked by `{places}`, but nothing in fuzz/ names it"));
        }
        if claims(&["unit", "assert"]) && !in_product.contains(id) {
            complaints
                .push(format!("{id}: checked by `{places}`, but no crate beside tests/ names it"));
        }
    }
    complain(complaints);
}

#[test]
fn seeded_bugs_still_fit_the_code() {
    // Before it lists them, the runner makes sure that each bug's text occurs exactly once.
    let listed = Command::new(env!("CARGO_BIN_EXE_mutants")).arg("--list").output().unwrap();
    let complaints = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "\n{complaints}");
    let in_files = files().iter().filter(|file| file.is_mutant()).count();
    let listed = String::from_utf8_lossy(&listed.stdout).lines().count();
    assert!(in_files > 0 && listed == in_files, "{listed} seeded bugs in {in_files} files");
}

#[test]
fn every_program_that_a_test_needs_is_installed_by_the_test_command() {
    let all = files();
    let test_command = all.iter().find(|file| file.path == "tests/run").unwrap();
    let installs = |program: &str| {
        let word = format!("{program}:");
        test_command.text.split_whitespace().any(|it| it.starts_with(&word))
    };
    let mut complaints = Vec::new();
    let this = "tests/tests/tidy.rs";
    for file in rust_files().iter().filter(|file| file.path != this) {
        // How a test says what it cannot do without.
        for (before, after) in [("Need::Program(", ")"), ("installed(&[", "]"), ("lacks(&[", "]")] {
            for needs in file.text.split(before).skip(1) {
                let needs = needs.split(after).next().unwrap_or_default();
                let names = needs.split('"').skip(1).step_by(2).filter(|it| !it.starts_with('/'));
                for program in names.filter(|it| !installs(it)) {
                    complaints.push(format!("{}: tests/run does not install {program}", file.path));
                }
            }
        }
    }
    complain(complaints);
}

#[test]
fn no_tabs_no_trailing_blanks_no_large_files() {
    let mut complaints = Vec::new();
    for file in files() {
        if file.text.len() > LARGEST_FILE {
            complaints.push(format!("{}: {} bytes", file.path, file.text.len()));
        }
        let written_by_hand = matches!(file.extension(), "rs" | "md" | "toml" | "sh" | "");
        let lines = file.text.lines().enumerate().filter(|_| written_by_hand);
        for (number, line) in lines {
            if line.contains('\t') || line.ends_with(' ') {
                complaints.push(format!("{}:{}: tab or trailing blank", file.path, number + 1));
            }
        }
    }
    complain(complaints);
}

#[test]
fn no_paths_of_one_machine() {
    // In two parts, so that this file does not hold them.
    let machine: [String; 6] = [
        ["/wo", "rk/"],
        ["/tmp/br", "ief"],
        ["/tmp/tar", "get"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["../sha", "red"],
    ]
    .map(|parts| parts.concat());
    let mut complaints = Vec::new();
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            let found = machine.iter().filter(|path| line.contains(path.as_str()));
            complaints.extend(found.map(|path| format!("{}:{}: {path}", file.path, number + 1)));
        }
    }
    complain(complaints);
}

/// A file of the repository.
struct File {
    /// Below the root, parted by `/`.
    path: String,
    text: String,
}

impl File {
    fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn is_rust(&self) -> bool {
        self.extension() == "rs"
    }

    fn is_mutant(&self) -> bool {
        self.path.starts_with("tests/mutants/") && self.extension() == "toml"
    }

    /// Part of a test beside the code?
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// Its lines without comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(number, line)| {
            (number + 1, line.split_once("//").map_or(line, |(code, _)| code))
        })
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every text file of the repository, by path; not what git, cargo or libFuzzer made.
fn files() -> Vec<File> {
    let root = root();
    let made = ["target", "fuzz/corpus", "fuzz/regressions"].map(|path| root.join(path));
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // In a second working tree `.git` is a file.
            if path.ends_with(".git") || made.contains(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push(File { path, text });
            }
        }
    }
    assert!(files.len() > 50, "this is not the repository");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn rust_files() -> Vec<File> {
    files().into_iter().filter(File::is_rust).collect()
}

fn complain(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<_> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The first names of all paths that begin with `crate::`, also inside `crate::{...}`.
fn roots(code: &str) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let path = &code[at + found.len()..];
        let Some(group) = path.strip_prefix('{') else {
            roots.insert(first_name(path));
            continue;
        };
        let mut depth = 1;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                roots.insert(first_name(&group[start..at]));
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    roots
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The invariants a text names.
fn ids(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| is_id(word)).map(str::to_owned)
}

fn is_id(word: &str) -> bool {
    let counted = word.split_once('-').is_some_and(|(family, number)| {
        FAMILIES.contains(&family)
            && !number.is_empty()
            && number.chars().all(|c| c.is_ascii_digit())
    });
    counted || SINGLE.contains(&word)
}

/// `| ID | what | where |`: the ID, and where it is checked.
fn row(line: &str) -> Option<(String, &str)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let id = cells.next().filter(|cell| is_id(cell))?;
    Some((id.to_owned(), cells.nth(1)?))
}

#[test]
fn the_readers_of_this_test_can_read() {
    let code = "use crate::{disk::Op, node::{link, Node}, wire};\nuse crate::daemon;\nlet x = crate::config::Y;";
    let names: Vec<_> = roots(code).into_iter().collect();
    assert_eq!(names, ["config", "daemon", "disk", "node", "wire"]);

    let found: Vec<_> = ids("COV-1: see GI-2's, LIM (UTF-8, LIMIT, MD-x, COV-).").collect();
    assert_eq!(found, ["COV-1", "GI-2", "LIM"]);
    assert_eq!(row("| COV-1 | a write | sim, assert |"), Some(("COV-1".into(), "sim, assert")));
    assert_eq!(row("| ID | what | where |"), None);
}

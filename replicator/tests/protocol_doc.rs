//! `docs/protocol.md` says what the code does: every table, both ways.
#![allow(clippy::unwrap_used)]

use replicator::wire::{
    ANSWER_LEN, FEATURES, FrameType, HEADER_LEN, HELLO_LEN, LAYOUTS, MAX_BODY, MAX_HISTORY,
    MAX_PAYLOAD, MAX_RESOURCE_NAME, MAX_RUNS, MAX_TEXT, MAX_VOLUMES, REQUIRED_FEATURES, SHAPES,
    VERSION_MAX, VERSION_MIN,
};
use std::collections::BTreeMap;

const TEXT: &str = include_str!("../../docs/protocol.md");

/// Rows of the tables that begin with this line, without backticks, by the `###` heading above (or none).
fn tables(head: &str) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let mut found: BTreeMap<_, Vec<Vec<String>>> = BTreeMap::new();
    let (mut heading, mut inside) = ("", false);
    for line in TEXT.lines() {
        if let Some(title) = line.strip_prefix("##") {
            heading = title.strip_prefix("# ").unwrap_or("");
        }
        if line == head {
            assert!(found.insert(heading, vec![]).is_none(), "two tables under {heading:?}");
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|---") {
            let cells = line.trim_matches('|').split('|');
            let cells = cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
            found.get_mut(heading).expect("its head came first").push(cells);
        }
    }
    found
}

/// The first `columns` cells of the only such table.
fn table(head: &str, columns: usize) -> Vec<Vec<String>> {
    let mut tables = tables(head).into_values();
    let mut table = tables.next().expect("the table is there");
    assert!(tables.next().is_none(), "one table {head}");
    table.iter_mut().for_each(|row| row.truncate(columns));
    table
}

fn strings<const N: usize>(row: [&dyn ToString; N]) -> Vec<String> {
    row.map(ToString::to_string).into()
}

#[test]
fn fixed_layouts() {
    let mut tables = tables("| offset | size | field | meaning |");
    for (name, fields) in LAYOUTS.concat() {
        let mut table = tables.remove(name).unwrap_or_else(|| panic!("no table of {name}"));
        table.iter_mut().for_each(|row| row.truncate(3));
        let code: Vec<_> =
            fields.iter().map(|field| strings([&field.offset, &field.size, &field.name])).collect();
        assert_eq!(table, code, "{name}");
        // No padding: the fields follow each other.
        let ends = fields.iter().map(|field| field.offset + field.size);
        assert!(ends.zip(&fields[1..]).all(|(end, next)| end == next.offset), "{name}");
    }
    assert!(tables.is_empty(), "unknown layouts: {:?}", tables.keys());
    assert!(TEXT.contains(&format!("A header has {HEADER_LEN} bytes.")));
}

#[test]
fn blocks() {
    let code = [("Hello", HELLO_LEN), ("Answer", ANSWER_LEN)];
    let code: Vec<_> = code.iter().map(|(name, len)| strings([name, len])).collect();
    assert_eq!(table("| block | bytes | magic | fields |", 2), code);
}

#[test]
fn control_messages() {
    let mut tables = tables("| field | type | meaning |");
    for (name, fields) in SHAPES {
        if fields.is_empty() {
            assert!(TEXT.contains(&format!("`{name}` (empty)")), "{name}");
            continue;
        }
        let mut table = tables.remove(name).unwrap_or_else(|| panic!("no table of {name}"));
        table.iter_mut().for_each(|row| row.truncate(2));
        let code: Vec<_> = fields.iter().map(|(field, kind)| strings([field, kind])).collect();
        assert_eq!(table, code, "{name}");
    }
    assert!(tables.is_empty(), "unknown shapes: {:?}", tables.keys());
}

#[test]
fn frame_types() {
    let code: Vec<_> = FrameType::ALL
        .iter()
        .map(|&kind| strings([&format!("{:#04x}", kind as u16), &format!("{kind:?}")]))
        .collect();
    assert_eq!(table("| id | message | body |", 2), code);
    // Every body named there is described.
    let layouts = LAYOUTS.concat().into_iter().map(|(name, _)| name);
    let described: Vec<_> = layouts.chain(SHAPES.iter().map(|(name, _)| *name)).collect();
    for row in table("| id | message | body |", 3) {
        let body = row[2].split('`').next().unwrap();
        assert!(described.contains(&body), "{row:?}");
    }
    for row in table("| id | reserved |", 1) {
        let id = u16::from_str_radix(row[0].strip_prefix("0x").unwrap(), 16).unwrap();
        assert_eq!(FrameType::from_id(id), None, "{id:#04x} is taken");
    }
}

#[test]
fn limits_features_and_version() {
    let limits = [
        ("MAX_BODY", MAX_BODY),
        ("MAX_PAYLOAD", MAX_PAYLOAD),
        ("MAX_RUNS", MAX_RUNS),
        ("MAX_VOLUMES", MAX_VOLUMES),
        ("MAX_HISTORY", MAX_HISTORY),
        ("MAX_TEXT", MAX_TEXT),
        ("MAX_RESOURCE_NAME", MAX_RESOURCE_NAME),
    ];
    let limits: Vec<_> = limits.iter().map(|(name, value)| strings([name, value])).collect();
    assert_eq!(table("| limit | value | of |", 2), limits);
    assert_eq!((FEATURES, REQUIRED_FEATURES), (0, 0), "a feature in use is to be documented");
    assert_eq!((VERSION_MIN, VERSION_MAX), (1, 1));
    assert!(TEXT.contains("protocol version 1."));
}

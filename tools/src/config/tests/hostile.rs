//! Texts that are too long, too deep, or random.

use std::path::Path;
use std::sync::Arc;

use super::super::{meant, statement};
use super::dump::round_trip;
use super::*;

#[test]
fn everything_has_a_bound() {
    let bare = |n| format!("global {{ {} x; }}", "a".repeat(n));
    assert!(load(bare(128)).unwrap_err().contains("is not known in `global`"));
    assert_eq!(
        load(bare(129)).unwrap_err(),
        "F:1: a word of 129 characters: 128 are allowed, or 255 in \"...\""
    );
    let quoted = |n| around(&format!("handlers {{ split-brain \"{}\"; }}", "a".repeat(n)));
    assert!(load(quoted(255)).is_ok());
    assert_eq!(
        load(quoted(256)).unwrap_err(),
        "F:1: a quoted string of 256 characters: 255 are allowed"
    );
    let nested = |n| format!("{}{}", "a { ".repeat(n), "} ".repeat(n));
    assert!(load(nested(8)).unwrap_err().contains("is not known"));
    assert_eq!(load(nested(9)).unwrap_err(), "F:1: sections nest deeper than 8: close some");
    let many: String = (0..=RESOURCES_MAX).map(|n| format!("resource r{n} {{ }}\n")).collect();
    assert_eq!(load(many).unwrap_err(), "F:1025: more than 1024 resources");
    let many: String = (0..=VOLUMES_MAX).map(|n| format!("volume {n} {{ }}\n")).collect();
    assert_eq!(
        load(format!("resource r {{\n{many} }}")).unwrap_err(),
        "F:258: more than 256 volumes in one resource"
    );
    let hosts: String = (0..=HOSTS_MAX)
        .map(|n| format!("on h{n} {{ node-id {}; address 10.0.0.{}:70; }}\n", n % 32, n + 1))
        .collect();
    assert!(load(format!("resource r {{ {V}\n{hosts} }}")).is_err());
}

/// Random text, and the example with random changes, never panic; what loads, dumps and loads again.
#[test]
fn garbage_is_refused_or_means_something() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let example = include_bytes!("../example.conf");
    let words: Vec<&[u8]> =
        example.split(u8::is_ascii_whitespace).chain([&b"{"[..], b"}", b";"]).collect();
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..6000 {
        let mut text = match round % 3 {
            0 => (0..random(200)).map(|_| random(256) as u8).collect(),
            1 => {
                (0..random(60)).map(|_| words[random(words.len())]).collect::<Vec<_>>().join(&b' ')
            }
            _ => example.to_vec(),
        };
        for _ in 0..random(4) {
            let at = random(text.len() + 1);
            let end = (at + random(12)).min(text.len());
            let word = words[random(words.len())];
            text.splice(at..end, word.iter().copied());
        }
        let place = Place { file: Arc::from(Path::new("F")), line: 1 };
        let read = statement::parse(&text, place.clone())
            .map(|tree| tree.into_iter().filter(|s| s.name() != "include").collect::<Vec<_>>())
            .and_then(|tree| meant::read(&tree, "oslo"));
        match read {
            Err(error) => {
                assert!(error.text.starts_with("F:"), "{error:?}");
                refused += 1;
            }
            Ok((mut resources, _)) => {
                let place = Place { file: place.file, line: 0 };
                resources.iter_mut().for_each(|resource| resource.place = place.clone());
                round_trip(&Configuration { file: "F".into(), node: "oslo".into(), resources });
                loaded += 1;
            }
        }
    }
    assert!(loaded > 500 && refused > 500, "{loaded} loaded, {refused} refused");
}

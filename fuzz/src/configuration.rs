//! A configuration file: refused with the line that is wrong, or else what `polluxadm dump` prints of it means the same.
//!
//! Input: the text. What is included is not: that would be files.

use crate::Seed;
use std::path::Path;

const FILE: &str = "F";
const NODE: &str = "oslo";

/// See the module.
pub fn run(bytes: &[u8]) {
    let normalised = |text| tools::normalised(text, Path::new(FILE), NODE);
    let text = match normalised(bytes) {
        Ok(text) => text,
        Err(failure) => {
            let place = failure.text.strip_prefix("F:").and_then(|text| text.split_once(": "));
            let (line, why) = place.unwrap_or_else(|| panic!("no place: {}", failure.text));
            assert!(line.parse::<u32>().is_ok_and(|line| line > 0), "no line: {}", failure.text);
            assert!(!why.is_empty(), "no reason");
            return;
        }
    };
    let again = normalised(text.as_bytes());
    let again = again.unwrap_or_else(|failure| panic!("{}, of\n{text}", failure.text));
    assert_eq!(meaning(&again), meaning(&text));
}

/// Without the comments, which say where it was found.
fn meaning(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// The example; resources with one thing more each.
pub fn seeds() -> Vec<Seed> {
    const EXAMPLE: &str = include_str!("../../tools/src/config/example.conf");
    let inner = [
        ("plain", ""),
        (
            "net",
            "net { shared-secret \"a \\\"b\\\" \\\\c # {\"; connect-int 15; ping-timeout 7; protocol A; }",
        ),
        (
            "fencing",
            "net { fencing resource-and-stonith; } handlers { fence-peer \"/bin/x %r\"; unfence-peer /bin/y; }",
        ),
        (
            "disk",
            "disk { size 4095s; flush-peer no; al-extents 67; on-io-error call-local-io-error; }",
        ),
        (
            "options",
            "options { auto-promote no; on-no-data-accessible suspend-io; } nbd { listen [::1]:10809; listen unix; }",
        ),
        (
            "volumes",
            "volume 7 { device /dev/nbd7 minor 9; disk none; meta-disk internal; } volume 8 { device minor 10; disk \"/x y\"; meta-disk /z; disk { size 20G; } }",
        ),
        (
            "connection",
            "connection { host oslo address 10.0.0.3:1; host bergen address ipv6 [::1]:2; net { protocol B; } }",
        ),
        ("wrong", "disk { sise 4k; }"),
    ];
    let around = |inner: &str| {
        format!(
            "common {{ net {{ data-integrity-alg crc32; }} }} # all\nresource r {{\n volume 0 {{ device minor 0; disk /a; meta-disk internal; }}\n {inner}\n \
             on oslo {{ node-id 0; address 10.0.0.1:70; }}\n on bergen {{ node-id 1; address 10.0.0.2:70; }}\n}}\n"
        )
    };
    let resources =
        inner.iter().map(|(name, inner)| (format!("{name}.conf"), around(inner).into()));
    resources.chain([("example.conf".to_owned(), EXAMPLE.into())]).collect()
}

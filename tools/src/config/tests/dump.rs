//! What `dump` prints means what was read.

use std::fs;

use super::super::options::{self, Kind, Unit};
use super::*;

/// `dump` loads again, without a warning, to the same, and dumps to the same text.
pub(super) fn round_trip(configuration: &Configuration) {
    let text = dump(configuration);
    let (again, warnings) = load_on(&configuration.node, &text).expect(&text);
    let lone = configuration.resources.iter().filter(|resource| resource.peers.is_empty()).count();
    let partly = warnings.lines().filter(|warning| warning.contains("in part")).count();
    assert_eq!(warnings.lines().count(), lone + partly, "{warnings}");
    assert_eq!(again, *configuration, "{text}");
    assert_eq!(dump(&again), text);
}

#[test]
fn a_dump_is_the_same_configuration() {
    for node in ["oslo", "bergen"] {
        round_trip(&load_on(node, include_str!("../example.conf")).unwrap().0);
    }
    for inner in [
        "",
        r#"net { shared-secret "a \"b\" \\c # {"; connect-int 15; ping-timeout 7; protocol A; }"#,
        "disk { size 4095s; flush-peer no; }",
        "options { auto-promote no; } nbd { listen [::1]:10809; listen unix; }",
    ] {
        round_trip(&load(around(inner).replace("internal", "/b")).unwrap().0);
    }
    // Every option that is honoured, with a value that is not its default.
    let is_wanted =
        |row: &options::Row| row.is_honoured() && !["on", "volume", "nbd"].contains(&row.section);
    for row in options::rows().filter(is_wanted) {
        let value = match row.kind {
            Kind::Number(Unit::Count | Unit::Seconds | Unit::Tenths, _, max) => max.to_string(),
            Kind::Number(..) => "7M".to_owned(),
            Kind::Flag => if row.default == "yes" { "no" } else { "yes" }.to_owned(),
            Kind::Choice(words) => {
                words.split(' ').find(|word| *word != row.default).unwrap().to_owned()
            }
            _ => "sha256".to_owned(),
        };
        let beside = match row.name {
            "cram-hmac-alg" => "net { shared-secret x; }",
            "fencing" => "handlers { fence-peer /bin/x; }",
            _ => "",
        };
        let inner = format!("{} {{ {} {value}; }} {beside}", row.section, row.name);
        let text = around(&inner).replace("internal", "/b");
        let (configuration, _) = load(text).unwrap();
        let text = dump_resource(&configuration.resources[0]);
        assert!(text.contains(&format!(" {} {value};\n", row.name)), "{text}");
        round_trip(&configuration);
    }
}

#[test]
fn a_dump_says_where_it_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("main.conf");
    fs::write(&main, "include \"r.res\";").unwrap();
    fs::write(directory.path().join("r.res"), format!("\n{}", around("disk { al-extents 99; }")))
        .unwrap();
    let (configuration, _) = Configuration::load(&main, "bergen").unwrap();
    let volume = "        volume 0 {\n            device minor 0;\n            disk /a;\n            \
                  meta-disk internal;\n            disk {\n                al-extents 99;\n            }\n        }\n";
    assert_eq!(
        dump(&configuration).replace(&format!("{}/", directory.path().display()), ""),
        format!(
            "# main.conf, without what Pollux ignores\n\n# resource r on bergen, from r.res:2\nresource r \
             {{\n    on oslo {{\n        node-id 0;\n        address 10.0.0.1:70;\n{volume}    }}\n    on \
             bergen {{\n        node-id 1;\n        address 10.0.0.2:70;\n{volume}    }}\n}}\n"
        )
    );
}

//! Small texts in, what they mean or why they are refused out.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{self, Kind, Unit};
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
    let nowhere = Place::new(Arc::from(Path::new("F")), 0);
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

/// What the example means for oslo.
fn example() -> Configuration {
    let (configuration, warnings) = load(include_str!("example.conf")).unwrap();
    assert_eq!(warnings, "");
    configuration
}

#[test]
fn the_example_means_what_it_says() {
    let configuration = example();
    let names: Vec<_> = configuration.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["ledger", "archive"]);
    assert!(configuration.resource("no-such").is_none());

    let ledger = configuration.resource("ledger").unwrap();
    let texts: Vec<_> = ledger.net.texts().collect();
    assert_eq!(texts, [("shared-secret", "change me".to_owned())]);
    assert_eq!((ledger.me.name.as_str(), ledger.me.node_id), ("oslo", 0));
    assert_eq!(ledger.me.address, "10.7.0.1:7020".parse::<SocketAddr>().unwrap());
    assert_eq!(ledger.me.nbd, [Listen::Unix]);
    assert_eq!(ledger.me.volumes.len(), 1);
    let volume = &ledger.me.volumes[0];
    assert_eq!((volume.number, volume.minor), (0, 20));
    assert_eq!(volume.device.as_deref(), Some("/dev/nbd0"));
    assert_eq!(volume.disk.as_deref(), Some(Path::new("/dev/vg/ledger")));
    assert_eq!(volume.meta_disk, None);
    assert_eq!(ledger.peers.len(), 1);
    assert_eq!((ledger.peers[0].name.as_str(), ledger.peers[0].node_id), ("bergen", 1));
    assert_eq!(ledger.peers[0].volumes, ledger.me.volumes);

    let archive = configuration.resource("archive").unwrap();
    assert_eq!(archive.net.number("max-buffers"), 4096);
    assert_eq!(archive.net.text("data-integrity-alg").unwrap(), "crc32");
    assert_eq!(archive.me.options.text("on-no-data-accessible").unwrap(), "suspend-io");
    let promotes = |host: &Host| host.options.flag("auto-promote");
    assert!(!promotes(&archive.me) && promotes(&archive.peers[0]));
    let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
    assert_eq!(archive.me.nbd, [Listen::Unix, tcp("127.0.0.1:10809")]);
    assert_eq!(archive.peers[0].nbd, [tcp("10.7.0.2:10809")]);
    let [small, big] = &archive.me.volumes[..] else { panic!("two volumes") };
    assert_eq!((small.number, big.number, big.minor, &big.device), (0, 3, 33, &None));
    assert_eq!(big.disk.as_deref(), Some(Path::new("/srv/archive files.img")));
    assert_eq!(big.meta_disk, Some("/dev/vg/archive-meta".into()));
    let options = |volume: &Volume| {
        let options = &volume.options;
        (options.number("size"), options.flag("flush-peer"), options.number("al-extents"))
    };
    assert_eq!((options(small), options(big)), ((0, false, 1999), (20 << 30, false, 1999)));
    assert_eq!(archive.peers[0].volumes[1].disk, None);
}

#[test]
fn defaults_are_those_of_the_table() {
    let (configuration, _) = load(around("")).unwrap();
    let Resource { net, me, .. } = &configuration.resources[0];
    assert_eq!(net.text("protocol").unwrap(), "C");
    assert_eq!((net.number("timeout"), net.number("connect-int")), (60, 2));
    // A dead peer is found within 2 s.
    assert_eq!((net.number("ping-int"), net.number("ping-timeout")), (1, 5));
    assert_eq!((net.number("max-buffers"), net.text("shared-secret")), (16_384, None));
    assert_eq!(net.text("data-integrity-alg"), None);
    let disk = &me.volumes[0].options;
    assert_eq!((disk.number("al-extents"), disk.number("size")), (1237, 0));
    assert!(disk.flag("flush-peer") && me.options.flag("auto-promote"));
    assert_eq!(me.options.text("on-no-data-accessible").unwrap(), "io-error");
    let mut names = std::collections::BTreeSet::new();
    for row in options::rows() {
        assert_eq!(row.default_value().is_none(), row.default.is_empty(), "{row:?}");
        assert!(names.insert((row.section, row.name)), "twice: {row:?}");
    }
}

#[test]
fn the_most_specific_level_wins() {
    let extents = |[common, resource, connection, volume, on, both]: [&str; 6]| {
        let text = format!(
            "common {{ disk {{ {common} }} }}
             resource r {{ {O} on bergen {{ node-id 1; address 10.0.0.2:70; disk {{ {on} }}
               volume 0 {{ disk {{ {both} }} }} }}
               volume 0 {{ device minor 0; disk /a; meta-disk internal; disk {{ {volume} }} }}
               connection {{ host oslo; host bergen; disk {{ {connection} }} }} disk {{ {resource} }} }}"
        );
        let (configuration, _) = load_on("bergen", text).unwrap();
        configuration.resources[0].me.volumes[0].options.number("al-extents") - 100
    };
    let s = |n: u32| format!("al-extents {};", 100 + n);
    let (one, two, three, four, five, six) = (s(1), s(2), s(3), s(4), s(5), s(6));
    assert_eq!(extents(["", "", "", "", "", ""]), 1137);
    assert_eq!(extents([&one, "", "", "", "", ""]), 1);
    assert_eq!(extents([&one, &two, "", "", "", ""]), 2);
    assert_eq!(extents([&one, &two, &three, "", "", ""]), 3);
    assert_eq!(extents([&one, &two, &three, "", &five, ""]), 5);
    assert_eq!(extents([&one, &two, &three, &four, &five, ""]), 4);
    assert_eq!(extents([&one, &two, &three, &four, &five, &six]), 6);
}

#[test]
fn values_are_read_in_their_units() {
    let read = |section: &str, name: &str, word: &str| {
        options::find(section, name).unwrap().read(&[word.to_owned()], word).unwrap().0
    };
    for (word, bytes) in
        [("100", 100 << 10), ("100K", 100 << 10), ("3s", 1536), ("4G", 4 << 30), ("4096G", 4 << 40)]
    {
        assert_eq!(read("disk", "c-max-rate", word), options::Value::Number(bytes), "{word}");
    }
    for (word, bytes) in [("8", 4096), ("8s", 4096), ("8m", 8 << 20)] {
        assert_eq!(read("disk", "size", word), options::Value::Number(bytes), "{word}");
    }
    let disk = |option: &str| {
        let (configuration, warnings) = load(around(&format!("disk {{ {option} }}"))).unwrap();
        assert_eq!(warnings, "", "{option}");
        configuration.resources[0].me.volumes[0].options.clone()
    };
    assert_eq!(disk("size 8m;").number("size"), 8 << 20);
    assert!(!disk("flush-peer no;").flag("flush-peer"));
    assert!(disk("flush-peer;").flag("flush-peer"));
    let net = |option: &str| {
        load(around(&format!("net {{ {option} }}"))).unwrap().0.resources.remove(0).net
    };
    assert_eq!(net("protocol A;").text("protocol").unwrap(), "A");
    assert_eq!(net("max-buffers 128K;").number("max-buffers"), 131_072);
    // Escapes, and what 8.3 wrote outside of `net`.
    let (configuration, warnings) =
        load(around(r#"protocol B; net { shared-secret "a \"b\" \\c #{"; }"#)).unwrap();
    let net = &configuration.resources[0].net;
    assert_eq!((net.text("protocol").unwrap().as_str(), warnings.as_str()), ("B", ""));
    assert_eq!(net.text("shared-secret").unwrap(), r#"a "b" \c #{"#);
    assert!(!format!("{configuration:?}").contains("#{"), "Debug shows the secret");
}

#[test]
fn every_error_names_its_line_and_what_to_type() {
    let hosts = "on oslo { } on bergen { }";
    let cases: &[(&str, &str)] = &[
        // -- tokens
        (";", "F:1: found `;` with no word before it: delete it"),
        ("\n}", "F:2: found `}` where nothing is open: delete it"),
        ("{ }", "F:1: found `{` with no word before it: name the section, as in `net { ... }`"),
        ("\nresource r {\n net {\n }", "F:2: this `{` is never closed: add a `}`"),
        ("resource r { net }", "F:1: `net` ends without `;`: write `net;`"),
        ("#\n#\nresource", "F:3: `resource` ends without `;`: write `resource;`"),
        (
            "resource r {\n net \"x\n\"; }",
            "F:2: this string does not end on its line: close it with \" (and write \\\" for a quote \
             inside)",
        ),
        (
            "resource r { net \u{e9}; }",
            "F:1: found `\\xc3`, which no word may contain without quotes: a bare word is made of \
             A-Z a-z 0-9 / . _ -, everything else stands in \"...\"",
        ),
        ("resource \"\t\" { }", "F:1: a quoted string must be UTF-8 without control characters"),
        // -- the top level
        ("resouce r { }", "F:1: `resouce` is not known at the top level: did you mean `resource`?"),
        (
            "volume 0 { }",
            "F:1: `volume` is not known at the top level: allowed: global, common, resource, include, \
             skip",
        ),
        ("common { }\ncommon { }", "F:2: `common`: said already at F:1: delete one"),
        ("common x { }", "F:1: `common x`: write `common { ... }` (is a `;` missing?)"),
        ("common;", "F:1: `common;` is a section: write `common { ... }`"),
        (
            "common { on x { } }",
            "F:1: `on` is not known in `common`: allowed: net, disk, options, startup, handlers, nbd, \
             protocol, proxy",
        ),
        (
            "resource r { }\nglobal { }",
            "F:2: `global` must stand before the first resource: move it up",
        ),
        ("global { }\nglobal { }", "F:2: `global`: said already at F:1: delete one"),
        (
            "global { usage-cont no; }",
            "F:1: `usage-cont` is not known in `global`: did you mean `usage-count`?",
        ),
        ("global { \n foo; }", "F:2: `foo` is not known in `global`: delete it"),
        (
            "resource all { }",
            "F:1: `resource all`: write `resource NAME { ... }`, the name without blanks, / : \\, no - \
             or . in front, and not `all`",
        ),
        ("resource r { }\nresource r { }", "F:2: `resource r`: said already at F:1: delete one"),
        (
            "include missing;",
            "F:1: cannot include `missing`: No such file or directory (os error 2)",
        ),
        ("include \"a/[b\";", "F:1: cannot include `a/[b`: invalid range pattern"),
        // -- options
        (
            "resource r { net { timout 5; } }",
            "F:1: `timout` is not known in `net`: did you mean `timeout`?",
        ),
        (
            "resource r { disk { fencing resource-only; } }",
            "F:1: `fencing` is not known in `disk`: move it to `net`",
        ),
        (
            "resource r { options { xyzzy 3; } }",
            "F:1: `xyzzy` is not known in `options`: allowed: on-no-data-accessible, auto-promote",
        ),
        (
            "resource r { handlers { xyzzy 3; } }",
            "F:1: `xyzzy` is not known in `handlers`: delete it",
        ),
        (
            "resource r { net { timeout 5s; } }",
            "F:1: `timeout 5s`: allowed: 1..600, tenths of a second without a suffix; default: 60",
        ),
        (
            "resource r {\n net {\n ping-int 0;\n }\n}",
            "F:3: `ping-int 0`: allowed: 1..120, seconds without a suffix; default: 1",
        ),
        (
            "resource r { net { protocol C\n timeout 60; } }",
            "F:1: `protocol` takes one value, found 3; allowed: A, B, C; default: C (is a `;` missing, \
             or quotes?)",
        ),
        ("resource r { net { protocol D; } }", "F:1: `protocol D`: allowed: A, B, C; default: C"),
        (
            "resource r { protocol { } }",
            "F:1: `protocol` is no section here: write `protocol VALUE;` (is a `;` missing?)",
        ),
        (
            "resource r { disk { c-max-rate 5T; } }",
            "F:1: `c-max-rate 5T`: allowed: 0..4096G, KiB per second or with K, M, G, s; default: 0",
        ),
        (
            "resource r { disk { size 999999999; } }",
            "F:1: `size 999999999`: allowed: 0..1048576G, sectors of 512 bytes or with K, M, G, s; \
             default: 0",
        ),
        (
            "resource r { options { quorum 33; } }",
            "F:1: `quorum 33`: allowed: off, majority, all, 1..32; default: off",
        ),
        (
            "resource r { disk { flush-peer maybe; } }",
            "F:1: `flush-peer maybe`: allowed: yes, no; default: yes",
        ),
        (
            "resource r { net { after-sb-2pri discard-node-; } }",
            "F:1: `after-sb-2pri discard-node-`: allowed: disconnect, violently-as0p, \
             call-pri-lost-after-sb; default: disconnect",
        ),
        (
            "resource r { net { shared-secret \"\"; } }",
            "F:1: `shared-secret ...`: allowed: 1 to 63 bytes; default: none",
        ),
        (
            "common { net { shared-secret a; shared-secret b; } }",
            "F:1: `shared-secret ...`: said already at F:1: delete one",
        ),
        (
            "resource r { net { tls yes; } }",
            "F:1: `tls` is not supported yet, and to ignore it would be dangerous: write `tls no;`",
        ),
        (
            "resource r { net { ping-int 2; }\n net { ping-int 3; } }",
            "F:2: `ping-int 3`: said already at F:1: delete one",
        ),
        // -- resource, host
        (
            "resource r { protocl C; }",
            "F:1: `protocl` is not known in `resource`: did you mean `protocol`?",
        ),
        (
            "resource r { include x; }",
            "F:1: `include` stands at the top level only, outside of all braces",
        ),
        (
            "resource r { floating 10.0.0.1:70 { } }",
            "F:1: `floating` is not supported: name each host, `on NAME { address ...; }`, as `uname \
             -n` prints it there",
        ),
        (
            "resource r { template-file x; }",
            "F:1: `template-file` is not supported: write what that file holds into `common`",
        ),
        (
            "resource r { stacked-on-top-of x { } }",
            "F:1: `stacked-on-top-of` is not supported: resources do not stack",
        ),
        ("resource r { on { } }", "F:1: `on` needs the name of a host: write `on NAME { ... }`"),
        (
            "resource r { on oslo { nod-id 0; } }",
            "F:1: `nod-id` is not known in `on`: did you mean `node-id`?",
        ),
        (
            "resource r { on oslo { node-id 32; } }",
            "F:1: `node-id 32`: allowed: 0..31; default: none",
        ),
        (
            "resource r { on oslo { node-id; } }",
            "F:1: `node-id` takes one value, found 0; allowed: 0..31; default: none (is a `;` missing, \
             or quotes?)",
        ),
        (
            "resource r { on oslo { address host:70; } }",
            "F:1: `address host:70`: an IP address the peer can reach, and a port: write `address \
             10.7.0.1:7020;` or `address ipv6 [fd00::1]:7020;`",
        ),
        (
            "resource r { on oslo { address ipv4 [::1]:70; } }",
            "F:1: `address ipv4 [::1]:70`: an IP address the peer can reach, and a port: write \
             `address 10.7.0.1:7020;` or `address ipv6 [fd00::1]:7020;`",
        ),
        (
            "resource r {\n on oslo { } }",
            "F:2: `on oslo` has no `node-id`: write `node-id 0;` into it",
        ),
        (
            "resource r { on oslo { node-id 0; } }",
            "F:1: `on oslo` has no `address`: write `address 10.7.0.1:7020;` into it",
        ),
        (
            "resource r { on oslo { node-id 0; address 10.0.0.1:70; } }",
            "F:1: `on oslo` has no `volume`: write `volume 0 { device ...; disk ...; meta-disk \
             internal; }` into it",
        ),
        (
            &format!("resource r {{ {V} {O}\n {O} }}"),
            "F:2: `on oslo` of resource `r` is taken already at F:1: give each its own",
        ),
        (
            &format!(
                "resource r {{ {V} {O} }}\nresource s {{ {V} on oslo {{ node-id 1; address 10.0.0.2:70; }} }}"
            ),
            "F:2: minor 0 of host `oslo` is taken already at F:1: give each its own",
        ),
        (
            &format!("resource r {{ {V} {O}\n on bergen {{ node-id 0; address 10.0.0.2:70; }} }}"),
            "F:2: node-id 0 of resource `r` is taken already at F:1: give each its own",
        ),
        (
            &format!("resource r {{ {V} {O}\n on bergen {{ node-id 1; address 10.0.0.1:70; }} }}"),
            "F:2: address 10.0.0.1:70 of resource `r` is taken already at F:1: give each its own",
        ),
        (
            &format!(
                "resource r {{ {V} {O} {B}\n on tromso {{ node-id 2; address 10.0.0.3:70; }} }}"
            ),
            "F:1: resource `r` has 3 hosts, and this release mirrors to one peer only: leave two `on` \
             sections, or write `skip` before `resource`",
        ),
        (
            &around("net { cram-hmac-alg sha256; }"),
            "F:1: `cram-hmac-alg` without `shared-secret` would not authenticate the peers of `r`: \
             write `shared-secret \"...\";` beside it",
        ),
        // -- volumes
        (
            "resource r { on oslo { node-id 0; address 10.0.0.1:70;\n volume 0 { } } }",
            "F:2: volume 0 of host `oslo` has no `device`: write `device minor 0;`",
        ),
        (
            "resource r { device minor 0; on oslo { node-id 0; address 10.0.0.1:70; } }",
            "F:1: volume 0 of host `oslo` has no `disk`: write `disk /dev/vg/name;`",
        ),
        (
            "resource r { device minor 0; disk /a; on oslo { node-id 0; address 10.0.0.1:70; } }",
            "F:1: volume 0 of host `oslo` has no `meta-disk`: write `meta-disk internal;`",
        ),
        (
            "resource r { device /dev/nbd0; }",
            "F:1: `device /dev/nbd0`: write `device minor 0;` or `device /dev/nbd0 minor 0;` \
             (0..1048575)",
        ),
        (
            "resource r { device minor 1048576; }",
            "F:1: `device minor 1048576`: write `device minor 0;` or `device /dev/nbd0 minor 0;` \
             (0..1048575)",
        ),
        (
            "resource r { device minor 0;\n volume 1 { } }",
            "F:2: `volume` here and the volume at F:1 do not go together: write all of it inside of \
             `volume N { ... }`",
        ),
        (
            "resource r { volume 1 { }\n meta-disk internal; }",
            "F:2: `meta-disk` here and the volume at F:1 do not go together: write all of it inside of \
             `volume N { ... }`",
        ),
        (
            "resource r { volume 1 { } volume 1 { } }",
            "F:1: `volume 1`: said already at F:1: delete one",
        ),
        (
            "resource r { volume 65535 { } }",
            "F:1: a volume has a number, 0..65534: write `volume 0 { ... }`",
        ),
        ("resource r { disk a; }", "F:1: `disk a`: write `none`, or the whole path, from `/` on"),
        (
            "resource r { meta-disk none; }",
            "F:1: `meta-disk none`: write `internal`, or the whole path, from `/` on",
        ),
        (
            "resource r { meta-disk /dev/x [0]; }",
            "F:1: `meta-disk` takes one value, found 4; write `internal`, or the whole path, from `/` \
             on (is a `;` missing, or quotes?)",
        ),
        (
            "resource r { disk /dev/disk/pci-0:1; }",
            "F:1: `disk` takes one value, found 3; write `none`, or the whole path, from `/` on (is a \
             `;` missing, or quotes?)",
        ),
        ("resource r { disk /a;\n disk /b; }", "F:2: `disk /b`: said already at F:1: delete one"),
        (
            "resource r { volume 0 { block-sise 4K; } }",
            "F:1: `block-sise` is not known in `volume`: did you mean `block-size`?",
        ),
        (
            &format!(
                "resource r {{ {V} {O}\n on bergen {{ node-id 1; address 10.0.0.2:70; volume 1 {{ device \
                 minor 1; disk none; }} }} }}"
            ),
            "F:2: volume 1 is missing on host `oslo`: write `volume 1 { ... }` there (with `disk none;` \
             if it has no disk)",
        ),
        (
            &format!("{}\n{}", around(""), around("").replace("resource r", "resource s")),
            "F:4: address 10.0.0.1:70 of host `oslo` is taken already at F:2: give each its own",
        ),
        (
            &format!(
                "{}\nresource s {{ device minor 1; disk /a; meta-disk internal; on bergen {{ node-id 1; \
                 address 10.0.0.2:71; }} }}",
                around("")
            ),
            "F:3: disk /a of host `bergen` is taken already at F:1: give each its own",
        ),
        // -- nbd, connections
        (
            "common { nbd { listen 5; } }",
            "F:1: `listen 5`: write `listen unix;` or `listen 10.0.0.1:10809;`",
        ),
        (
            "common { nbd { liste 5; } }",
            "F:1: `liste` is not known in `nbd`: did you mean `listen`?",
        ),
        (
            "common { nbd { tls x; } }",
            "F:1: `tls` is not supported yet: NBD is served without encryption",
        ),
        (
            "common { nbd { listen unix;\n listen unix; } }",
            "F:2: `listen unix`: said already at F:1: delete one",
        ),
        (
            &around("nbd { listen 10.0.0.1:70; }"),
            "F:1: address 10.0.0.1:70 of host `oslo` is taken already at F:2: give each its own",
        ),
        (
            &format!("resource r {{ {hosts} connection {{ host oslo; }} }}"),
            "F:1: found 1 hosts: write `host A; host B;`",
        ),
        (
            &format!("resource r {{ {hosts} connection {{ host oslo; host begen; }} }}"),
            "F:1: there is no `on begen`: known are oslo, bergen",
        ),
        (
            &format!("resource r {{ {hosts} connection {{ host oslo; host oslo; }} }}"),
            "F:1: host `oslo` is named twice: delete one",
        ),
        (
            &format!("resource r {{ {hosts} connection {{ net {{ }}\n net {{ }} }} }}"),
            "F:2: `net`: said already at F:1: delete one",
        ),
        (
            &format!("resource r {{ {hosts} connection {{ path {{ }} }} }}"),
            "F:1: `path` is not supported: each host has one address, in its `on` section",
        ),
    ];
    let found: Vec<_> =
        cases.iter().map(|(text, _)| load(text).err().unwrap_or_default()).collect();
    let wrong: Vec<_> =
        cases.iter().zip(&found).filter(|((_, message), found)| message != found).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_warning_names_its_line_and_the_option() {
    let not_yet = |name: &str| {
        format!(
            "F:1: warning: `{name}` is known to DRBD but not yet honoured by Pollux; it is ignored"
        )
    };
    let always = |default: &str| {
        let (name, _) = default.split_once(' ').unwrap();
        format!("F:1: warning: `{name}` is ignored: Pollux always behaves as `{default};` says")
    };
    let cases = [
        ("net { ko-count 7; }", not_yet("ko-count")),
        ("net { after-sb-0pri discard-node-oslo; }", not_yet("after-sb-0pri")),
        ("options { quorum 2; }", not_yet("quorum")),
        ("startup { wait-after-sb; }", not_yet("wait-after-sb")),
        ("handlers { split-brain \"/bin/x \\\"a\\\"\"; }", not_yet("split-brain")),
        ("disk { disk-barrier no; md-flushes yes; } net { tls no; transport tcp; }", String::new()),
        ("disk { disk-barrier; }", always("disk-barrier no")),
        (
            "disk { al-extents 7; }",
            "F:1: warning: `al-extents 7`: too small; `al-extents 67` is used".to_owned(),
        ),
        (
            "disk { al-extents 65535; }",
            "F:1: warning: `al-extents 65535`: too large; `al-extents 65534` is used".to_owned(),
        ),
        (
            "net { data-integrity-alg crc32c; }",
            "F:1: warning: `data-integrity-alg crc32c`: Pollux has no crc32c; `data-integrity-alg crc32` \
             is used"
                .to_owned(),
        ),
        (
            "net { shared-secret x; cram-hmac-alg sha1; }",
            "F:1: warning: `cram-hmac-alg sha1`: Pollux always uses HMAC-SHA256; `cram-hmac-alg sha256` \
             is used"
                .to_owned(),
        ),
        (
            "net { timeout 15; }",
            "F:1: warning: `timeout` is honoured in part: it bounds the handshake; whether a peer is \
             alive say `ping-int` and `ping-timeout`"
                .to_owned(),
        ),
        (
            "volume 1 { device minor 1; disk /c; meta-disk internal; disk { flush-peer no; } }",
            "F:1: warning: `flush-peer no` has no effect in `r`: a FLUSH is one for all volumes, and \
             waits if one of them says so"
                .to_owned(),
        ),
        ("disk { c-max-rate 100M; }", not_yet("c-max-rate")),
        ("disk { disk-flushes no; }", always("disk-flushes yes")),
        ("disk { on-io-error pass_on; }", always("on-io-error detach")),
        ("disk { on-io-error call-local-io-error; }", always("on-io-error detach")),
        ("proxy { anything; }", "F:1: warning: `proxy` is not supported; it is ignored".to_owned()),
        ("skip net { nonsense; }", String::new()),
        ("connection-mesh { hosts oslo bergen; }", String::new()),
    ];
    for (inner, expected) in cases {
        let (configuration, warnings) = load(around(inner)).unwrap();
        assert_eq!(warnings, expected, "{inner}");
        assert_eq!(configuration.resources.len(), 1);
    }
    // Said once, however many resources and hosts inherit it.
    let text =
        format!("common {{ net {{ ko-count 3; }} }} skip resource x {{ y; }} {}", around(""));
    assert_eq!(load(text).unwrap().1, not_yet("ko-count"));
    // A resource without this host, with any number of hosts; and one without a peer.
    let text =
        format!("resource r {{ {V} {O} {B} on tromso {{ node-id 2; address 10.0.0.3:70; }} }}");
    let (configuration, warnings) = load_on("narvik", &text).unwrap();
    assert_eq!(configuration.resources, []);
    assert_eq!(
        warnings,
        "F:1: warning: resource `r` is ignored: it is on oslo, bergen, tromso, not on this host, \
         `narvik`: write its name as `uname -n` prints it, or give --node"
    );
    let (configuration, warnings) = load(format!("resource r {{ {V} {O} }}")).unwrap();
    assert_eq!(configuration.resources[0].peers, []);
    assert_eq!(
        warnings,
        "F:1: warning: resource `r` is not mirrored: it has one `on` section, write a second"
    );
}

/// `dump` loads again, without a warning, to the same, and dumps to the same text.
fn round_trip(configuration: &Configuration) {
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
        round_trip(&load_on(node, include_str!("example.conf")).unwrap().0);
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
        |row: &options::Row| row.is_honoured() && !["on", "volume"].contains(&row.section);
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
        let secret = if row.name == "cram-hmac-alg" { "shared-secret x;" } else { "" };
        let inner = format!("{} {{ {} {value}; {secret} }}", row.section, row.name);
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

#[test]
fn include_follows_patterns_from_the_file_it_stands_in() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
    let resource = |name: &str, n: u32| {
        format!(
            "resource {name} {{ device minor {n}; disk none; on oslo {{ node-id 0; address \
             10.0.0.1:{n}; }} }}"
        )
    };
    let names = |main: &str| {
        let (configuration, _) = Configuration::load(&at(main), "oslo")?;
        let names: Vec<_> = configuration.resources.into_iter().map(|r| r.name).collect();
        Ok::<_, crate::failure::Failure>(names.join(" "))
    };
    fs::create_dir(at("sub")).unwrap();
    write(
        "main",
        "include \"sub/*.res\"; include sub/more; include \"none/*\"; skip include gone;",
    );
    write("sub/b.res", &resource("b", 1));
    write("sub/a.res", &resource("a", 2));
    write("sub/.hidden.res", "nonsense");
    write("sub/c.rest", "nonsense");
    write("sub/more", &format!("include \"?.last\"; {}", resource("m", 3)));
    write("sub/x.last", &resource("x", 4));
    assert_eq!(names("main").unwrap(), "a b x m");
    // The directory a file stands in is no pattern; what it includes may name more of them.
    fs::create_dir_all(at("[s]*/deep")).unwrap();
    write("[s]*/main", "include \"*/[b-d].res\";");
    for name in ["a", "b", "c"] {
        write(&format!("[s]*/deep/{name}.res"), &resource(name, u32::from(name.as_bytes()[0])));
    }
    assert_eq!(names("[s]*/main").unwrap(), "b c");

    write("loop", "\ninclude loop;");
    let error = names("loop").unwrap_err().text;
    let path = at("loop").display().to_string();
    let bounds = "at most 16 files deep and 256 in all (does a file include itself?)";
    assert_eq!(error, format!("{path}:2: cannot include `{path}`: {bounds}"));
    fs::create_dir(at("many")).unwrap();
    for n in 0..256 {
        write(&format!("many/{n:03}"), "");
    }
    write("all", "include \"many/*\";");
    let error = names("all").unwrap_err().text;
    assert!(error.ends_with(&format!("many/255`: {bounds}")), "{error}");

    write("large", &" ".repeat((1 << 20) + 1));
    let error = names("large").unwrap_err().text;
    let path = at("large").display().to_string();
    let hint = "name another file with --config";
    assert_eq!(error, format!("{path}: cannot be read: larger than 1048576 bytes; {hint}"));
    write("large", &" ".repeat(1 << 20));
    assert_eq!(names("large").unwrap(), "");
    let error = names("no-such").unwrap_err().text;
    assert!(
        error.ends_with(&format!("cannot be read: No such file or directory (os error 2); {hint}"))
    );
}

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
    let example = include_bytes!("example.conf");
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
        let place = Place::new(Arc::from(Path::new("F")), 1);
        let read = statement::parse(&text, place.clone())
            .map(|tree| tree.into_iter().filter(|s| s.name() != "include").collect::<Vec<_>>())
            .and_then(|tree| meant::read(&tree, "oslo"));
        match read {
            Err(error) => {
                assert!(error.text.starts_with("F:"), "{error:?}");
                refused += 1;
            }
            Ok((mut resources, _)) => {
                let place = Place::new(place.file, 0);
                resources.iter_mut().for_each(|resource| resource.place = place.clone());
                round_trip(&Configuration { file: "F".into(), node: "oslo".into(), resources });
                loaded += 1;
            }
        }
    }
    assert!(loaded > 500 && refused > 500, "{loaded} loaded, {refused} refused");
}

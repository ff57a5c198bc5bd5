//! What an operator is told of a text: every error and every warning, word by word.

use super::*;

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
            "F:1: `xyzzy` is not known in `options`: allowed: on-no-data-accessible, auto-promote, \
             handler-timeout",
        ),
        (
            "resource r { handlers { xyzzy 3; } }",
            "F:1: `xyzzy` is not known in `handlers`: allowed: fence-peer, unfence-peer, \
             initial-split-brain, split-brain, pri-lost, pri-on-incon-degr, local-io-error, before-resync-target, \
             after-resync-target, disconnected",
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
        ("handlers { out-of-sync \"/bin/x \\\"a\\\"\"; }", not_yet("out-of-sync")),
        ("handlers { split-brain \"/bin/x \\\"a\\\"\"; }", String::new()),
        (
            "net { fencing resource-only; }",
            "F:1: warning: `fencing resource-only` of `r` without a handler `fence-peer`: when the peer is \
             lost, I/O stays suspended until `polluxadm resume-io r`"
                .to_owned(),
        ),
        ("net { fencing resource-only; } handlers { fence-peer /bin/x; }", String::new()),
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
        (
            "disk { on-io-error pass_on; }",
            "F:1: warning: `on-io-error pass_on`: while another copy is good, clients see no error of a \
             disk; `on-io-error detach` is used"
                .to_owned(),
        ),
        ("disk { on-io-error call-local-io-error; }", String::new()),
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

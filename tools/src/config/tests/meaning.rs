//! What a configuration means: values, defaults, which level counts.

use std::net::SocketAddr;
use std::path::Path;

use super::super::options;
use super::*;

/// What the example means for oslo.
fn example() -> Configuration {
    let (configuration, warnings) = load(include_str!("../example.conf")).unwrap();
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
    assert_eq!(texts, [("shared-secret", "change me")]);
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
        let usual = row.usual(row.default);
        assert_eq!(usual.is_none(), row.default.is_empty(), "{row:?}");
        // What is honoured is compared with it.
        assert!(!row.is_honoured() || usual.unwrap_or_default() == row.default, "{row:?}");
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
    for (word, usual, bytes) in [
        ("100", "100K", 100 << 10),
        ("100K", "100K", 100 << 10),
        ("3s", "3s", 1536),
        ("1024M", "1G", 1 << 30),
        ("4096G", "4096G", 4 << 40),
    ] {
        assert_eq!(read("disk", "c-max-rate", word), usual);
        let number = options::find("disk", "c-max-rate").unwrap().number(usual);
        assert_eq!(number, Some(bytes), "{word}");
    }
    for (word, usual) in [("8", "4K"), ("8s", "4K"), ("8m", "8M"), ("9", "9s")] {
        assert_eq!(read("disk", "size", word), usual);
    }
    assert_eq!(read("volume", "device", "/dev/drbd07"), "/dev/drbd07 minor 7");
    assert_eq!(read("on", "address", "ipv6 [fd00:0::1]:70"), "[fd00::1]:70");
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
    assert_eq!((net.text("protocol").unwrap(), warnings.as_str()), ("B", ""));
    assert_eq!(net.text("shared-secret").unwrap(), r#"a "b" \c #{"#);
    assert!(!format!("{configuration:?}").contains("#{"), "Debug shows the secret");
}

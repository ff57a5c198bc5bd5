//! Clients that other people wrote: what they say of our export, and of what they wrote through it.

use std::path::Path;
use tests::real::host::RESOURCE;
use tests::real::ports::loopback;
use tests::real::process::{run, run_ok, text};
use tests::real::{Need, Pair, Plan, lacks, seconds};

/// A file of so many bytes, half of it data that no two blocks share, half holes.
fn image(path: &Path, size: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create_new(path).expect("a new file");
    file.set_len(size).expect("a sparse file");
    for offset in (0..size).step_by(128 << 10) {
        for block in 0..16 {
            let at = offset + block * 4096;
            if at + 4096 <= size {
                file.write_all_at(&tests::real::blocks::encode(at, 1), at).expect("written");
            }
        }
    }
}

#[test]
fn libnbd_clients_read_what_they_wrote() {
    if lacks(&[Need::Program("nbdinfo"), Need::Program("nbdcopy")]) {
        return;
    }
    let pair = Pair::start_in_sync(Plan::default());
    let size = pair.alpha.status().size;
    let uri = pair.alpha.uri();
    let info: serde_json::Value =
        serde_json::from_str(&run_ok(seconds(20), "nbdinfo", ["--json", &uri])).expect("JSON");
    let export = &info["exports"][0];
    assert_eq!(export["export-size"].as_u64(), Some(size), "{info}");
    for can in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"] {
        assert_eq!(export[can].as_bool(), Some(true), "{can}: {info}");
    }
    assert_eq!(export["is_read_only"].as_bool(), Some(false), "{info}");
    let list = run_ok(seconds(20), "nbdinfo", ["--list", &uri]);
    assert!(list.contains(RESOURCE), "{list}");

    let (image_file, copy) = (pair.dir().join("image"), pair.dir().join("copy"));
    image(&image_file, size);
    let image_name = image_file.display().to_string();
    run_ok(seconds(60), "nbdcopy", ["--flush", "--connections=4", &image_name, &uri]);
    run_ok(seconds(60), "nbdcopy", [&uri, &copy.display().to_string()]);
    tests::real::backing::assert_equal(&image_file, &copy, size);
    let map = run_ok(seconds(20), "nbdinfo", ["--map", &uri]);
    assert!(map.lines().any(|line| line.contains("data")), "{map}");

    // The same over TCP.
    let tcp = format!("nbd://{}/{RESOURCE}", loopback(pair.alpha.nbd_port));
    run_ok(seconds(60), "nbdcopy", ["--connections=2", &tcp, "null:"]);
    pair.end(None);
}

#[test]
fn qemu_reads_what_it_wrote_on_either_node() {
    if lacks(&[Need::Program("qemu-img"), Need::Program("qemu-io")]) {
        return;
    }
    let pair = Pair::start_in_sync(Plan::default());
    let size = pair.alpha.status().size;
    let uri = pair.alpha.uri();
    let image_file = pair.dir().join("image");
    image(&image_file, size);
    let image_name = image_file.display().to_string();
    let convert = ["convert", "-n", "-f", "raw", "-O", "raw", &image_name, &uri];
    run_ok(seconds(60), "qemu-img", convert);
    let compare = |uri: &str| {
        run(seconds(60), "qemu-img", ["compare", "-f", "raw", "-F", "raw", &image_name, uri])
    };
    let output = compare(&uri);
    assert!(output.status.success(), "{}", text(&output));

    let commands = [
        "write -P 0xaa 0 64k",
        "write -z 64k 64k",
        "write -z -u 128k 64k",
        "write -f -P 0xbb 192k 4k",
        "discard 256k 64k",
        "flush",
        "read -P 0xaa 0 64k",
        "read -P 0 64k 128k",
        "read -P 0xbb 192k 4k",
        "read -P 0 256k 64k",
        "aio_write -P 0xcc 1M 256k",
        "aio_write -P 0xdd 2M 256k",
        "aio_flush",
        "read -P 0xcc 1M 256k",
        "read -P 0xdd 2M 256k",
    ];
    let arguments =
        ["-f", "raw"].into_iter().chain(commands.iter().flat_map(|command| ["-c", command]));
    let said = run_ok(seconds(60), "qemu-io", arguments.chain([uri.as_str()]));
    assert!(!said.contains("failed"), "{said}");
    // It compares, so it must also be able to tell a difference.
    assert_eq!(compare(&uri).status.code(), Some(1));

    run_ok(seconds(60), "qemu-img", convert);
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.beta.must(&["primary", RESOURCE]);
    let output = compare(&pair.beta.uri());
    assert!(output.status.success(), "on the other node: {}", text(&output));
    pair.end(None);
}

#[test]
fn a_client_of_a_secondary_is_told_why_it_is_refused() {
    if lacks(&[Need::Program("nbdinfo")]) {
        return;
    }
    let pair = Pair::start_in_sync(Plan::default());
    let lost = pair.beta.connect().expect_err("a Secondary serves nobody").to_string();
    assert!(lost.contains("Secondary"), "{lost}");
    let output = run(seconds(20), "nbdinfo", [pair.beta.uri()]);
    assert!(!output.status.success());
    println!("{lost}\n{}", text(&output));
    pair.end(None);
}

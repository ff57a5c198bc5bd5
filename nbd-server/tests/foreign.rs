//! Clients that other people wrote, against the server. A tool that is not installed fails the
//! test where the environment has `CI=true`, and is skipped aloud elsewhere.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

mod common;

use common::*;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whether all of `tools` are installed.
fn installed(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let missing: Vec<_> = tools.iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return true;
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing:?} must be installed in CI");
    eprintln!("SKIPPED: {missing:?} not installed");
    false
}

/// Runs a tool to its end, successfully; its standard output.
fn run(tool: &str, arguments: &[&str]) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let errors = tempfile::NamedTempFile::new().unwrap();
    // The distribution's python knows the distribution's libnbd; another in front may not.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new(tool)
        .env("PATH", path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.reopen().unwrap())
        .stderr(errors.reopen().unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + 4 * PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{tool} {arguments:?} does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let out = std::fs::read_to_string(&log).unwrap();
    let errors = std::fs::read_to_string(&errors).unwrap();
    assert!(status.success(), "{tool} {arguments:?}: {status}\n{out}\n{errors}");
    out
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file as large as the export, with data at its start, in the middle and at its end.
fn image(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("image");
    let mut file = std::fs::File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    let data: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    for offset in [0, SIZE / 2 + 777, SIZE - 2_000_000] {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&data).unwrap();
    }
    path
}

fn same_as_device(host: &Host, path: &Path) -> bool {
    let expected = std::fs::read(path).unwrap();
    host.device(move |device| device.contents(|bytes| bytes == expected))
}

#[test]
fn nbdinfo_understands_all_it_is_told() {
    if !installed(&["nbdinfo"]) {
        return;
    }
    let host = Host::start();
    assert_eq!(Client::connect(&host).simple("r0").write(128 << 10, &[1; 10]), 0);
    let json: String = run("nbdinfo", &["--json", &host.uri()]).split_whitespace().collect();
    for fact in [
        "\"structured\":true",
        "\"export-name\":\"r0\"",
        "\"description\":\"thefirst\"",
        "\"contexts\":[\"base:allocation\"]",
        "\"is_read_only\":false",
        "\"can_cache\":true",
        "\"can_df\":true",
        "\"can_fast_zero\":false",
        "\"can_flush\":true",
        "\"can_fua\":true",
        "\"can_multi_conn\":true",
        "\"can_trim\":true",
        "\"can_zero\":true",
        "\"block_size_minimum\":1",
        "\"block_size_preferred\":4096",
        "\"block_size_maximum\":33554432",
        "\"export-size\":67108864",
    ] {
        assert!(json.contains(fact), "{fact} not in {json}");
    }
    let map = run("nbdinfo", &["--map", &host.uri()]);
    let map: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(map.len(), 3);
    assert_eq!(map[0][..3], ["0", "131072", "3"]);
    assert_eq!(map[1][..3], ["131072", "65536", "0"]);
    assert_eq!(map[2][..3], ["196608", "66912256", "3"]);
    let list = run("nbdinfo", &["--list", "--no-content", &list_uri(&host)]);
    for name in ["r0", "ro", "blocks"] {
        assert!(list.contains(&format!("export=\"{name}\"")), "{list}");
    }
    run("nbdinfo", &["--is", "read-only", &host.uri().replace("/r0?", "/ro?")]);
    let tcp = format!("nbd://{}/r0", host.tcp);
    assert_eq!(run("nbdinfo", &["--size", &tcp]).trim(), "67108864");
}

/// The list stops at the first export that refuses, so it is asked of a server without one.
fn list_uri(host: &Host) -> String {
    host.run(|server| server.exports().set_refusal("second", None));
    host.uri().replace("/r0?", "/?")
}

#[test]
fn nbdcopy_copies_in_and_out() {
    if !installed(&["nbdcopy"]) {
        return;
    }
    let host = Host::start();
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    run(
        "nbdcopy",
        &["--flush", "--connections=4", "--threads=2", "--requests=64", text(&image), &host.uri()],
    );
    assert!(same_as_device(&host, &image));
    let back = directory.path().join("back");
    run("nbdcopy", &[&host.uri(), text(&back)]);
    assert!(std::fs::read(&image).unwrap() == std::fs::read(&back).unwrap());
    let tcp = format!("nbd://{}/r0", host.tcp);
    run("nbdcopy", &["--request-size=33554432", &tcp, text(&back)]);
    assert!(std::fs::read(&image).unwrap() == std::fs::read(&back).unwrap());
}

#[test]
fn libnbd_on_several_connections() {
    if !installed(&["nbdsh"]) {
        return;
    }
    let host = Host::start();
    let script = r#"
import errno, nbd
def connect():
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.set_strict_mode(0)
    h.connect_uri(URI)
    return h
hs = [connect() for _ in range(4)]
for n in range(200):
    data = bytes([n]) * (1 + n * 37)
    flags = nbd.CMD_FLAG_FUA if n % 3 == 0 else 0
    hs[n % 4].pwrite(data, n * 5000, flags)
    assert hs[(n + 1) % 4].pread(len(data), n * 5000) == data
hs[0].flush()
h = hs[1]
buffers = [nbd.Buffer(65536) for _ in range(64)]
cookies = [h.aio_pread(b, n * 65536, flags=nbd.CMD_FLAG_DF) for n, b in enumerate(buffers)]
while cookies:
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
    h.poll(-1) if cookies else None
for n, b in enumerate(buffers):
    assert h.pread(65536, n * 65536) == bytes(b.to_bytearray())
h.trim(65536, 0)
h.zero(65536, 65536, nbd.CMD_FLAG_NO_HOLE)
h.cache(65536, 0)
assert h.pread(131072, 0) == bytes(131072)
extents = []
h.block_status(h.get_size(), 0, lambda context, offset, e, error: extents.extend(e))
assert extents[:4] == [65536, 3, 16 * 65536 - 65536, 0], extents
def fails(number, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as e:
        assert e.errnum == number, (e.errnum, number)
    else:
        raise AssertionError("not refused")
size = h.get_size()
fails(errno.EINVAL, h.pread, 1, size)
fails(errno.ENOSPC, h.pwrite, b"x", size)
fails(errno.ENOSPC, h.zero, 2, size - 1)
fails(errno.EINVAL, h.trim, 1, size)
fails(errno.EINVAL, h.pwrite, b"x", 0, nbd.CMD_FLAG_DF)
h.pwrite(b"end", size - 3)
for h in hs:
    h.shutdown()
print("well")
"#;
    let script = script.replace("URI", &format!("{:?}", host.uri()));
    assert_eq!(run("nbdsh", &["-c", &script]).trim(), "well");
}

#[test]
fn qemu_img_converts_and_compares() {
    if !installed(&["qemu-img"]) {
        return;
    }
    let host = Host::start();
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let (image_text, uri) = (text(&image), &*host.uri());
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", image_text, uri]);
    assert!(same_as_device(&host, &image));
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", image_text, uri]);
    let bench = ["bench", "-f", "raw", "-w", "--flush-interval", "64", "-c", "2000", "-d", "32"];
    run("qemu-img", &[&bench[..], &["-s", "4096", "-t", "none", uri]].concat());
}

#[test]
fn qemu_io_writes_zeroes_discards_and_verifies() {
    if !installed(&["qemu-io"]) {
        return;
    }
    let host = Host::start();
    let commands = [
        "write -P 0xaa 0 64k",
        "write -P 0xbb 1000 500",
        "write -z 64k 64k",
        "write -z -u 128k 64k",
        "write -f -P 0xcc 1m 3m",
        "discard 1m 64k",
        "flush",
        "read -P 0xaa 0 1000",
        "read -P 0xbb 1000 500",
        "read -P 0 64k 128k",
        "read -P 0 1m 64k",
        "read -P 0xcc 1088k 2m",
        "map",
    ];
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    let uri = host.uri();
    arguments.push(&uri);
    // A pattern that does not match is told, and is no failure of the program.
    let out = run("qemu-io", &arguments);
    assert!(!out.contains("erification failed"), "{out}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !installed(&["fio"]) {
        return;
    }
    let host = Host::start();
    for (uri, block) in [(host.uri(), "4k"), (format!("nbd://{}/r0", host.tcp), "64k")] {
        let uri = format!("--uri={uri}");
        let block = format!("--bs={block}");
        let fixed = ["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--iodepth=32"];
        let verify = ["--size=16m", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1"];
        run("fio", &[&fixed[..], &verify, &[&uri, &block]].concat());
    }
}

/// The `nbd` crate: EXPORT_NAME, one request at a time, knows no flags.
#[test]
fn an_old_simple_client_is_served() {
    let host = Host::start();
    let mut stream = UnixStream::connect(&host.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let export = nbd::client::handshake(&mut stream, b"r0").unwrap();
    assert_eq!(export.size, SIZE);
    assert!(!export.readonly && export.send_flush && export.send_trim);
    let mut client = nbd::client::NbdClient::new(&mut stream, &export);
    let data: Vec<u8> = (0..100_000).map(|n| (n * 11) as u8).collect();
    client.seek(SeekFrom::Start(12345)).unwrap();
    client.write_all(&data).unwrap();
    client.flush().unwrap();
    client.seek(SeekFrom::Start(12345)).unwrap();
    let mut back = vec![0; data.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == data);

    let mut stream = UnixStream::connect(&host.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(nbd::client::handshake(&mut stream, b"unknown").is_err());
}

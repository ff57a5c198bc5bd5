//! LIVE-3: a disk that hangs for a while (here: a file system frozen for a snapshot) holds up who writes to it, and nobody else.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::real::backing;
use tests::real::blocks::{BLOCK, encode};
use tests::real::foreign::Loop;
use tests::real::host::RESOURCE;
use tests::real::process::{run, run_ok};
use tests::real::sandbox::Sandbox;
use tests::real::{Need, Pair, Plan, lacks, seconds, wait_for};

/// Longer than a silent peer is waited for, three times over.
const HANGS: Duration = seconds(5);

/// An ext4 of its own for one node's disk. Dropped, it is thawed and unmounted.
struct FileSystem {
    directory: PathBuf,
    // In the order in which they go.
    _device: Loop,
    _dir: tempfile::TempDir,
}

impl FileSystem {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let image = dir.path().join("image");
        backing::sparse(&image, 256 << 20);
        let device = Loop::over(&image);
        let directory = dir.path().join("files");
        std::fs::create_dir(&directory).expect("a directory");
        run_ok(seconds(60), "mkfs.ext4", [Path::new("-q"), Path::new("-F"), device.device()]);
        run_ok(seconds(60), "mount", [Path::new("-text4"), device.device(), &directory]);
        Self { directory, _device: device, _dir: dir }
    }

    fn freeze(&self, how: &str) {
        run_ok(seconds(20), "fsfreeze", [Path::new(how), &self.directory]);
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Both may fail: it is thawed, as a rule.
        run(seconds(20), "fsfreeze", [Path::new("--unfreeze"), &self.directory]);
        run(seconds(20), "umount", [Path::new("--lazy"), &self.directory]);
    }
}

#[test]
fn a_disk_that_hangs_holds_up_its_writers_and_nobody_else() {
    if lacks(&[Need::Root, Need::Loop, Need::Program("mkfs.ext4"), Need::Program("fsfreeze")]) {
        return;
    }
    let mut pair = Pair::new(Plan { sandbox: Sandbox::none(), ..Plan::default() });
    let files = FileSystem::new();
    pair.alpha.backing = files.directory.join("disk");
    backing::sparse(&pair.alpha.backing, 64 << 20);
    pair.write_configuration();
    pair.start();
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    pair.wait_in_sync();
    let (mut writer, mut reader) = (pair.alpha.client(), pair.alpha.client());
    let bytes = encode(BLOCK, 1);
    writer.write(BLOCK, &bytes).expect("written");

    files.freeze("--freeze");
    let writing = std::thread::spawn(move || {
        let result = writer.write(0, &encode(0, 2));
        (writer, result)
    });
    wait_for("the write to be with the disk", seconds(5), || pair.alpha.status().lower_pending > 0);
    let frozen = Instant::now();
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    while frozen.elapsed() < HANGS {
        let begun = Instant::now();
        assert!(reader.read(BLOCK, BLOCK as u32).expect("read") == bytes, "other bytes");
        // It answers, and so does its peer: keep-alives go to and fro.
        for host in [&pair.alpha, &pair.beta] {
            let status = host.status();
            assert!(status.is_connected(), "{}: {status}", host.name);
        }
        longest = longest.max(begun.elapsed());
        rounds += 1;
    }
    println!("{rounds} rounds of reads and questions, the longest took {longest:?}");
    assert!(!writing.is_finished(), "the disk did not hang");
    files.freeze("--unfreeze");
    let (writer, result) = writing.join().expect("the client");
    result.expect("it was late and not lost");
    drop((writer, reader));
    pair.end(None);
}

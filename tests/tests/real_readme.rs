//! What the README and the demo tell a newcomer to type works.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tests::real::process::{finish, text};
use tests::real::{Client, Need, lacks, programs, seconds, wait_for};

/// The demo; ended as by Ctrl-C, so that its daemons end, too.
struct Demo(Child);

impl Demo {
    fn interrupt(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), Signal::INT).expect("our child");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.interrupt();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn the_demo_mirrors_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut demo = Demo(
        Command::new(programs::path("polluxadm"))
            .arg("demo")
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started"),
    );
    let mut output = BufReader::new(demo.0.stdout.take().expect("piped"));
    let mut shown = String::new();
    while !shown.contains("Ctrl-C ends the demo") {
        let length = output.read_line(&mut shown).expect("text");
        assert!(length > 0, "the demo ended early:\n{shown}");
    }
    println!("{shown}");
    // "  alpha  nbd+unix:///r0?socket=PATH"
    let socket = |node: &str| {
        let line = shown
            .lines()
            .find(|line| line.trim_start().starts_with(node) && line.contains("socket="));
        PathBuf::from(line.and_then(|line| line.split("socket=").nth(1)).expect("an address"))
    };
    let mut client = Client::unix(&socket("alpha"), "r0").expect("alpha is Primary");
    client.write(4096, &[0x5a; 4096]).expect("it takes writes");
    client.flush().expect("it flushes");
    assert_eq!(client.read(4096, 4096).expect("it reads"), [0x5a; 4096]);
    drop(client);
    assert!(Client::unix(&socket("beta"), "r0").is_err(), "beta is Secondary");
    // The operator's lines: `export POLLUX_CONFIG=...` and `beta='...'`.
    let value = |key: &str| {
        let line = shown.lines().find_map(|line| line.trim_start().strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key}")).trim_matches('\'').to_owned()
    };
    for node in ["alpha", "beta"] {
        let words = value(&format!("{node}="));
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .args(["status", "r0"])
            .env("POLLUX_CONFIG", value("export POLLUX_CONFIG="));
        let output = finish(&mut command);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("disk:UpToDate"), "{}", text(&output));
    }

    let sockets = [socket("alpha"), socket("beta")];
    demo.interrupt();
    wait_for("the end of the demo", seconds(30), || {
        demo.0.try_wait().expect("our child").is_some()
    });
    let status = demo.0.wait().expect("our child");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("text");
    assert!(status.success(), "{status}\n{rest}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(sockets.iter().all(|socket| UnixStream::connect(socket).is_err()), "a daemon runs");
}

#[test]
fn the_configuration_of_the_readme_is_one() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README is there");
    let begin = readme.find("```\nresource ").expect("a configuration") + 4;
    let end = begin + readme[begin..].find("```").expect("its end");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("pollux.conf");
    std::fs::write(&config, &readme[begin..end]).expect("written");
    for node in ["alpha", "beta"] {
        let mut command = Command::new(programs::path("polluxadm"));
        command.arg("--config").arg(&config).args(["--node", node, "dump", "all"]);
        let output = finish(&mut command);
        assert!(output.status.success(), "{node}: {}", text(&output));
        assert!(output.stderr.is_empty(), "{node} is warned: {}", text(&output));
        assert!(text(&output).contains("10.0.0.2:7800"), "{}", text(&output));
    }
}

#[test]
fn what_the_readme_tells_about_failover_is_what_to_type() {
    if lacks(&[Need::Program("nbdinfo")]) {
        return;
    }
    use tests::real::{Pair, Plan};
    let mut pair = Pair::new(Plan::default());
    // Daemons in the background, as an operator has them, are not ours to wait for: what `up` starts, `down` ends.
    for host in pair.hosts() {
        host.must(&["create-md", "--force", "r0"]);
        host.must(&["up", "r0"]);
    }
    let down = Down(&pair);
    pair.alpha.must(&["wait-connect", "r0"]);
    pair.alpha.must(&["primary", "--force", "r0"]);
    pair.alpha.must(&["wait-sync", "r0"]);
    assert_eq!(pair.alpha.must(&["role", "r0"]), "Primary\n");
    assert_eq!(pair.alpha.must(&["dstate", "r0"]), "UpToDate/UpToDate\n");
    assert_eq!(pair.beta.must(&["cstate", "r0"]), "Connected\n");
    pair.alpha.client().write(0, &[1; 4096]).expect("it takes writes");

    // Planned.
    pair.alpha.must(&["secondary", "r0"]);
    pair.beta.must(&["primary", "r0"]);
    assert_eq!(pair.beta.client().read(0, 4096).expect("it reads"), [1; 4096]);
    // The other node is taken away, and returns.
    pair.alpha.must(&["down", "r0"]);
    pair.beta.client().write(0, &[2; 4096]).expect("it serves alone");
    pair.alpha.must(&["up", "r0"]);
    pair.alpha.must(&["wait-sync", "r0"]);
    drop(down);
    for host in [&pair.alpha, &pair.beta] {
        assert!(host.look().is_none(), "{} still runs", host.name);
    }
    let mut first = [0; 4096];
    use std::os::unix::fs::FileExt;
    std::fs::File::open(&pair.alpha.backing)
        .and_then(|file| file.read_exact_at(&mut first, 0))
        .expect("readable");
    assert_eq!(first, [2; 4096], "the returned node has what it missed");
}

/// Whatever happens, no daemon stays.
struct Down<'a>(&'a tests::real::Pair);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        for host in [&self.0.beta, &self.0.alpha] {
            let _ = host.adm(&["secondary", "--force", "r0"]);
            let _ = host.adm(&["down", "r0"]);
        }
    }
}

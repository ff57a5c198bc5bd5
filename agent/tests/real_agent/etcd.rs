//! Real etcd on loopback, with or without certificates that `openssl` makes.

use crate::stage::{Process, Stage, ip, port, wait_for};
use std::path::Path;
use std::process::Command;

pub(crate) struct Etcd {
    pub(crate) members: Vec<Process>,
    commands: Vec<Vec<String>>,
    /// `host:port` each.
    pub(crate) endpoints: Vec<String>,
    scheme: &'static str,
}

/// What etcdctl needs behind certificates.
const FILES: [&str; 6] = ["--cacert", "ca.pem", "--cert", "client.pem", "--key", "client.key"];

impl Etcd {
    /// With TLS it asks for certificates of clients, too.
    pub(crate) fn start(stage: &Stage, count: usize, tls: bool) -> Self {
        let scheme = if tls { "https" } else { "http" };
        let at = || format!("{}:{}", ip(), port());
        let endpoints: Vec<_> = (0..count).map(|_| at()).collect();
        let peers: Vec<_> = (0..count).map(|_| format!("http://{}", at())).collect();
        let all: Vec<_> = peers.iter().enumerate().map(|(n, url)| format!("m{n}={url}")).collect();
        let mut commands = Vec::new();
        for n in 0..count {
            let url = format!("{scheme}://{}", endpoints[n]);
            let data = stage.dir.join(format!("m{n}")).display().to_string();
            let mut words =
                vec!["etcd".to_owned(), format!("--name=m{n}"), format!("--data-dir={data}")];
            words.push(format!("--listen-client-urls={url}"));
            words.push(format!("--advertise-client-urls={url}"));
            words.push(format!("--listen-peer-urls={}", peers[n]));
            words.push(format!("--initial-advertise-peer-urls={}", peers[n]));
            words.push(format!("--initial-cluster={}", all.join(",")));
            if tls {
                let file = |name: &str| stage.dir.join(name).display().to_string();
                words.push(format!("--trusted-ca-file={}", file("ca.pem")));
                words.push(format!("--cert-file={}", file("server.pem")));
                words.push(format!("--key-file={}", file("server.key")));
                words.push("--client-cert-auth".into());
            }
            commands.push(words);
        }
        let mut etcd = Self { members: Vec::new(), commands, endpoints, scheme };
        etcd.members = (0..count).map(|n| etcd.member(stage, n)).collect();
        wait_for("etcd answers", 30, || etcd.ctl(stage, &["get", "x"]).0);
        etcd
    }

    fn member(&self, stage: &Stage, n: usize) -> Process {
        let mut command = stage.command(&self.commands[n][0]);
        Process::start(command.args(&self.commands[n][1..]), &stage.dir.join(format!("m{n}.log")))
    }

    pub(crate) fn restart(&mut self, stage: &Stage, n: usize) {
        self.members[n].kill();
        self.members[n] = self.member(stage, n);
    }

    /// The beginning of agent.toml.
    pub(crate) fn toml(&self) -> String {
        format!("[etcd]\nendpoints = {:?}\n", self.endpoints)
    }

    /// `etcdctl`: whether it succeeded, and what it said.
    pub(crate) fn ctl(&self, stage: &Stage, words: &[&str]) -> (bool, String) {
        let urls: Vec<_> =
            self.endpoints.iter().map(|at| format!("{}://{at}", self.scheme)).collect();
        let mut command = stage.command("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", urls.join(",")));
        if self.scheme == "https" {
            for pair in FILES.chunks(2) {
                command.arg(pair[0]).arg(stage.dir.join(pair[1]));
            }
        }
        let output = command.args(words).output().expect("etcdctl");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    pub(crate) fn must(&self, stage: &Stage, words: &[&str]) -> String {
        let (well, said) = self.ctl(stage, words);
        assert!(well, "etcdctl {words:?}: {said}");
        said
    }

    pub(crate) fn leader(&self, stage: &Stage) -> usize {
        let mut leader = None;
        wait_for("a leader", 20, || {
            let (_, said) = self.ctl(stage, &["endpoint", "status"]);
            let line = said.lines().find(|line| line.split(", ").nth(4) == Some("true"));
            leader = line.and_then(|line| self.endpoints.iter().position(|at| line.contains(at)));
            leader.is_some()
        });
        leader.expect("just waited for")
    }
}

/// A CA of that name with its certificate, and keys it vouches for: `server` for `host`, and `client`.
pub(crate) fn certificates(dir: &Path, ca: &str, host: &str) {
    let run = |words: &str| {
        let output = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(dir)
            .output()
            .expect("openssl");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    run(&format!("req -x509 {new} -days 2 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"));
    // With users etcd's gateway refuses a client whose certificate has a common name.
    for (name, subject, more) in [
        ("server", "/CN=etcd", format!("subjectAltName={host}\n")),
        ("client", "/O=pollux", String::new()),
    ] {
        let text = format!("{more}extendedKeyUsage=serverAuth,clientAuth\n");
        std::fs::write(dir.join("extensions"), text).expect("a file");
        run(&format!("req {new} -subj {subject} -keyout {name}.key -out {name}.csr"));
        run(&format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
        ));
    }
}

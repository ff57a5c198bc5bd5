//! What monitors are told of a real pair, by the programs that tell it: in sync, cut off, catching up, stopped, killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::real::host::RESOURCE;
use tests::real::process::{finish, run, text};
use tests::real::{Host, Ledger, Need, Pair, Plan, lacks, programs, seconds};

/// A page, line by line: what stands before the value, and the value.
type Samples = BTreeMap<String, f64>;

fn samples(page: &str) -> Samples {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    });
    let all: Vec<_> = samples.collect();
    let count = all.len();
    let samples: Samples = all.into_iter().collect();
    assert_eq!(samples.len(), count, "a sample twice:\n{page}");
    samples
}

/// What a server answered to `GET /metrics`.
fn get(mut stream: impl Read + Write) -> String {
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    page.to_owned()
}

/// The page of a daemon.
fn metrics(host: &Host) -> String {
    let stream = UnixStream::connect(host.run_dir.join("r0.sock")).expect("it runs");
    stream.set_read_timeout(Some(seconds(20))).expect("a timeout");
    get(stream)
}

/// `check_pollux`: its exit code, and what it said.
fn check(host: &Host, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(host.programs.join("check_pollux"));
    command.arg("--config").arg(&host.config).arg("--run-dir").arg(&host.run_dir);
    command.args(["--node", host.name]).args(words);
    host.sandbox.confine(&mut command);
    let output = finish(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("it ends by itself"), said)
}

/// What a number of the first line is.
fn number(said: &str, label: &str) -> f64 {
    let numbers = said.lines().next().and_then(|line| line.split_once(" | ")).expect("numbers").1;
    let begin = format!("'{label}'=");
    let value = numbers.split(' ').find_map(|word| word.strip_prefix(&begin));
    let value = value.unwrap_or_else(|| panic!("no {label}: {said}"));
    let end = value.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(value.len());
    value[..end].parse().expect("a number")
}

/// `pollux-exporter`, ended with its owner.
struct Exporter {
    child: Child,
    address: SocketAddr,
}

impl Exporter {
    fn start(host: &Host) -> Self {
        Self::start_in(host, &host.run_dir)
    }

    fn start_in(host: &Host, run_dir: &Path) -> Self {
        let mut command = Command::new(host.programs.join("pollux-exporter"));
        command.args(["--listen", "127.0.0.1:0"]).arg("--run-dir").arg(run_dir);
        host.sandbox.confine(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let said = BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line);
        let address = said.ok().and_then(|_| {
            let address = line.trim().strip_prefix("listening on http://")?;
            address.strip_suffix("/metrics")?.parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("it said: {line}"));
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(seconds(30))).expect("a timeout");
        stream
    }

    fn page(&self) -> String {
        get(self.connect())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

const OUT_OF_SYNC: &str =
    "pollux_peer_volume_out_of_sync_bytes{resource=\"r0\",peer=\"beta\",volume=\"0\"}";
const IN_SYNC: &str =
    "pollux_peer_volume_in_sync_timestamp_seconds{resource=\"r0\",peer=\"beta\",volume=\"0\"}";

#[test]
fn a_cut_pair_is_told_and_out_of_sync_is_zero_again_when_it_is_in_sync() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), [0, 4096]);
    let (code, said) = check(&pair.alpha, &["-w", "0", "--behind-critical", "1:", "r0"]);
    // 0 seconds are outside of `1:`.
    assert_eq!(code, 2, "{said}");
    let (code, said) = check(&pair.alpha, &["-w", "0", "-c", "1000000", "r0"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("POLLUX OK - r0 Primary UpToDate - beta Connected UpToDate | "));
    assert!(said.contains("'r0.0.beta.out_of_sync'=0B;0;1000000;0;"), "{said}");
    assert_eq!(number(&said, "r0.0.beta.since_in_sync"), 0.0);
    let well = samples(&metrics(&pair.alpha));
    assert_eq!(well[OUT_OF_SYNC], 0.0);
    assert!((well[IN_SYNC] - now()).abs() < 20.0, "{} is not now", well[IN_SYNC]);
    assert_eq!(well["pollux_resource_role{resource=\"r0\",role=\"Primary\"}"], 1.0);
    assert_eq!(well["pollux_resource_role{resource=\"r0\",role=\"Secondary\"}"], 0.0);
    assert!(well["pollux_connection_sent_bytes_total{resource=\"r0\",peer=\"beta\"}"] >= 8192.0);

    pair.beta.kill();
    let killed = now();
    pair.alpha.wait_status("the loss", seconds(20), |status| !status.is_connected());
    ledger.write(&mut pair.alpha.client(), [8192, 1 << 20]);
    let (code, said) = check(&pair.alpha, &["r0"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("r0: beta ") && number(&said, "r0.0.beta.out_of_sync") >= 8192.0,
        "{said}"
    );
    for (words, expected) in [(["-w", "4096"], 1), (["-c", "4096"], 2)] {
        let (code, said) = check(&pair.alpha, &[&words[..], &["r0"]].concat());
        assert_eq!(code, expected, "{said}");
        assert!(said.contains("out_of_sync is ") && said.contains("(range 4096)"), "{said}");
    }
    let cut = samples(&metrics(&pair.alpha));
    assert!(cut[OUT_OF_SYNC] >= 8192.0, "{}", cut[OUT_OF_SYNC]);
    // It stands still while time goes on.
    assert!((cut[IN_SYNC] - killed).abs() < 20.0, "{} is not {killed}", cut[IN_SYNC]);
    let begin = Instant::now();
    let later = loop {
        let (_, said) = check(&pair.alpha, &["r0"]);
        let age = number(&said, "r0.0.beta.since_in_sync");
        assert!(begin.elapsed() < seconds(20), "{said}");
        if age >= 2.0 {
            break samples(&metrics(&pair.alpha))[IN_SYNC];
        }
    };
    assert!((later - cut[IN_SYNC]).abs() < 0.5, "{later} and {}", cut[IN_SYNC]);
    let (code, said) = check(&pair.alpha, &["--behind-critical", "1", "r0"]);
    assert_eq!(code, 2, "{said}");
    // Its own side of it.
    assert_eq!(check(&pair.beta, &["r0"]).0, 3);
    assert_eq!(check(&pair.beta, &["--state", "down=critical"]).0, 2);

    pair.beta.start();
    // The other has not met its peer since it started: it cannot know, and does not say.
    pair.wait_in_sync();
    for host in [&pair.alpha, &pair.beta] {
        let (code, said) = check(host, &["-c", "0", "all"]);
        assert_eq!(code, 0, "{said}");
    }
    let well = samples(&metrics(&pair.alpha));
    assert_eq!(well[OUT_OF_SYNC], 0.0);
    assert!((well[IN_SYNC] - now()).abs() < 20.0);
    assert_eq!(well["pollux_volume_failed_requests_total{resource=\"r0\",volume=\"0\"}"], 0.0);
    pair.end(Some(&mut ledger));
}

#[test]
fn what_only_an_operator_can_end_is_critical() {
    let pair = Pair::start_in_sync(Plan::default());
    pair.alpha.must(&["suspend-io", RESOURCE]);
    let (code, said) = check(&pair.alpha, &["r0"]);
    assert!(code == 2 && said.contains("r0: I/O is held (user)"), "{code}: {said}");
    let held = samples(&metrics(&pair.alpha));
    assert_eq!(held["pollux_resource_suspended{resource=\"r0\",reason=\"user\"}"], 1.0);
    pair.alpha.must(&["resume-io", RESOURCE]);
    assert_eq!(check(&pair.alpha, &["r0"]).0, 0);
    // A split brain.
    for host in [&pair.alpha, &pair.beta] {
        host.must(&["disconnect", RESOURCE]);
    }
    pair.beta.must(&["primary", "--force", RESOURCE]);
    for host in [&pair.alpha, &pair.beta] {
        Ledger::default().write(&mut host.client(), [0]);
        host.must(&["secondary", RESOURCE]);
    }
    for host in [&pair.alpha, &pair.beta] {
        host.must(&["connect", RESOURCE]);
    }
    let split = |status: &tests::real::Status| status.advice.contains("split brain");
    pair.alpha.wait_status("the split brain", seconds(20), split);
    let (code, said) = check(&pair.alpha, &["r0"]);
    assert!(code == 2 && said.contains("beta StandAlone (split brain with node 1)"), "{said}");
    assert!(said.contains("connect --discard-my-data"), "what to type is told: {said}");
    let told = samples(&metrics(&pair.alpha));
    let state = |state| {
        format!("pollux_connection_state{{resource=\"r0\",peer=\"beta\",state=\"{state}\"}}")
    };
    assert_eq!((told[&state("StandAlone")], told[&state("Connected")]), (1.0, 0.0));
}

#[test]
fn silence_is_never_health() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let exporter = Exporter::start(&pair.alpha);
    let up = |resource: &str| {
        samples(&exporter.page())[&format!("pollux_up{{resource=\"{resource}\"}}")]
    };
    assert_eq!(up("r0"), 1.0);
    // A killed daemon leaves its socket; another accepts and says nothing, as long as it is held here.
    drop(UnixListener::bind(pair.alpha.run_dir.join("dead.sock")).expect("a socket"));
    let mute = UnixListener::bind(pair.alpha.run_dir.join("mute.sock")).expect("a socket");
    let path = pair.alpha.run_dir.join("mute.sock");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("set");
    // The page of a moment ago may still be good.
    let all = || samples(&exporter.page());
    tests::real::wait_for("the new sockets", seconds(20), || {
        all().contains_key("pollux_up{resource=\"mute\"}")
    });
    let page = all();
    let told = |resource: &str| page[&format!("pollux_up{{resource=\"{resource}\"}}")];
    assert_eq!((told("r0"), told("dead"), told("mute")), (1.0, 0.0, 0.0));
    assert_eq!(page[OUT_OF_SYNC], 0.0, "what answers is shown");
    drop(mute);

    pair.alpha.daemon().pause();
    let begin = Instant::now();
    let (code, said) = check(&pair.alpha, &["-t", "2", "r0"]);
    let took = begin.elapsed();
    assert!(code == 3 && said.starts_with("POLLUX UNKNOWN - r0: "), "{code}: {said}");
    assert!(said.contains("does not answer") && took < seconds(3), "{took:?}: {said}");
    assert_eq!(check(&pair.alpha, &["-t", "1", "--state", "silent=critical", "r0"]).0, 2);
    tests::real::wait_for("a new page", seconds(20), || up("r0") == 0.0);
    pair.alpha.daemon().resume();
    pair.wait_in_sync();
    assert_eq!(check(&pair.alpha, &["r0"]).0, 0);

    // Hostile clients: mute ones, endless ones, liars, far more than there is room for.
    let mut crowd = Vec::new();
    for n in 0..200 {
        let mut stream = exporter.connect();
        let said: &[u8] = match n % 4 {
            0 => b"",
            1 => b"GET /metrics HT",
            2 => b"\0\xff\r\n\r\n",
            _ => &[b'x'; 100_000],
        };
        stream.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        // It may hang up before all was said.
        let _ = stream.write_all(said);
        crowd.push(stream);
    }
    let begin = Instant::now();
    assert_eq!(up("r0"), 1.0);
    println!("a scrape behind 200 hostile clients took {:?}", begin.elapsed());
    drop(crowd);
    let mut post = exporter.connect();
    post.write_all(b"POST /metrics HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    post.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");

    pair.beta.down();
    pair.alpha.down();
    let (code, said) = check(&pair.alpha, &["r0"]);
    assert!(code == 3 && said.contains("r0 is not running here"), "{code}: {said}");
    for words in [&["--help"][..], &["--version"], &["-w", "x"], &["--nonsense"], &["r7"]] {
        assert_eq!(check(&pair.alpha, words).0, 3, "{words:?}");
    }
    // What cannot be read is an error, no empty page.
    let elsewhere = Exporter::start_in(&pair.alpha, &pair.alpha.config);
    let mut stream = elsewhere.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    // An orderly end takes its socket away: there is nothing to tell of.
    tests::real::wait_for("a new page", seconds(20), || {
        !all().contains_key("pollux_up{resource=\"r0\"}")
    });
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Words that begin with `pollux_`.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    let words = text.split(|sign| !is_part(sign));
    words.filter(|word| word.starts_with("pollux_")).map(str::to_owned).collect()
}

#[test]
fn metrics_rules_dashboard_and_their_description_agree() {
    let pair = Pair::start_in_sync(Plan::default());
    let page = Exporter::start(&pair.alpha).page();
    let announced: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let existing: BTreeSet<_> = announced.iter().cloned().collect();
    assert_eq!(existing.len(), announced.len(), "a metric is announced twice:\n{page}");
    let sampled: BTreeSet<_> = samples(&page)
        .keys()
        .map(|name| name.split('{').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(sampled, existing, "every metric has samples when a pair is in sync");

    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("it is there");
    for path in ["tools/monitoring/alerts.yml", "tools/monitoring/alerts_test.yml"] {
        let unknown: Vec<_> = names(&read(path)).difference(&existing).cloned().collect();
        assert!(unknown.is_empty(), "{path} names metrics that are not there: {unknown:?}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("tools/monitoring/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let mut count = 0;
    for target in targets {
        let named = names(target["expr"].as_str().expect("an expression"));
        assert!(!named.is_empty() && named.is_subset(&existing), "{target}");
        count += 1;
    }
    assert!(count >= panels.len() && panels.len() > 5, "{count} expressions");

    let table = read("docs/monitoring.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let described: Vec<_> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(described.iter().cloned().collect::<BTreeSet<_>>(), existing);
    assert_eq!(described.len(), existing.len(), "described once");
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    if lacks(&[Need::Program("promtool")]) {
        return;
    }
    let pair = Pair::start_in_sync(Plan::default());
    let page = Exporter::start(&pair.alpha).page();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool =
        promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}\n{page}", text(&output));
    let monitoring = root().join("tools/monitoring");
    let file = |name: &str| monitoring.join(name).display().to_string();
    for words in
        [["check", "rules", &file("alerts.yml")], ["test", "rules", &file("alerts_test.yml")]]
    {
        let output = run(seconds(60), "promtool", words);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("SUCCESS"), "{}", text(&output));
    }
    // Each alert is tested.
    let read = |name: &str| std::fs::read_to_string(monitoring.join(name)).expect("it is there");
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&fires), "no test in which {alert} fires");
    }
    assert!(programs::path("check_pollux").is_file());
}

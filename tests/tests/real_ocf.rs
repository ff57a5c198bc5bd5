//! The OCF agent `tools/ocf/pollux` without a cluster: it keeps the contract, as the checks of others see it; tells the right scores; comes to
//! the right end when it is killed in the middle; and its stop works whatever is broken. What a cluster does with it: `cluster_pacemaker.rs`.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::real::host::{Answer, RESOURCE};
use tests::real::process::{finish, text};
use tests::real::sandbox::Sandbox;
use tests::real::{Host, Need, Pair, Plan, lacks, programs, seconds, wait_for};

const NEEDS: &[Need] = &[Need::Root, Need::Program("ocf-tester"), Need::Program("xmllint")];
const SCHEMAS: &str = "/usr/share/resource-agents";

/// The exit codes of OCF.
const UNPROMOTED: i32 = 0;
const FAILED: i32 = 1;
const STOPPED: i32 = 7;
const PROMOTED: i32 = 8;

/// The agent on one host of a pair. Dropped, it stops what it started.
struct Agent {
    /// Its environment.
    variables: Vec<(String, String)>,
    /// Where `crm_attribute` writes what it is told.
    scores: PathBuf,
    config: PathBuf,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/ocf").join(name)
}

impl Agent {
    fn of(pair: &Pair, host: &Host) -> Self {
        let tools = pair.dir().join(format!("{}-cluster", host.name));
        std::fs::create_dir_all(&tools).expect("a directory");
        let scores = tools.join("scores");
        let recorder = format!("#!/bin/sh\necho \"$*\" >>{}\n", scores.display());
        let program = tools.join("crm_attribute");
        std::fs::write(&program, recorder).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("our own file");
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = programs::directory().display();
        let given = |name: &str, value: &dyn std::fmt::Display| {
            (format!("OCF_RESKEY_{name}"), value.to_string())
        };
        let variables = vec![
            ("PATH".into(), format!("{}:{programs}:{path}:/usr/sbin:/sbin", tools.display())),
            ("OCF_ROOT".into(), "/usr/lib/ocf".into()),
            ("OCF_RESOURCE_INSTANCE".into(), "p:0".into()),
            given("resource", &RESOURCE),
            given("config", &host.config.display()),
            given("run_dir", &host.run_dir.display()),
            given("node", &host.name),
            given("crm_feature_set", &"3.16.1"),
            given("CRM_meta_timeout", &30_000),
            given("CRM_meta_interval", &10_000),
            given("CRM_meta_clone_max", &2),
            given("CRM_meta_clone_node_max", &1),
            given("CRM_meta_promoted_max", &1),
            given("CRM_meta_notify", &"true"),
        ];
        Self { variables, scores, config: host.config.clone() }
    }

    fn command(&self, action: &str, more: &[(&str, &str)]) -> Command {
        let mut command = Command::new(file("pollux"));
        command.arg(action).envs(self.variables.iter().cloned()).envs(more.iter().copied());
        // As the cluster's executor starts it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run_with(&self, action: &str, more: &[(&str, &str)]) -> Answer {
        let mut command = self.command(action, more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().expect("it can be started");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Answer { code: output.status.code(), stdout, said: text(&output) }
    }

    fn run(&self, action: &str) -> Answer {
        self.run_with(action, &[])
    }

    fn must(&self, action: &str, code: i32) {
        let answer = self.run(action);
        assert_eq!(answer.code, Some(code), "{action}: {}", answer.said);
    }

    /// The score that the monitor sets now; `None`: it deletes it.
    fn score(&self) -> Option<u32> {
        let _ = std::fs::remove_file(&self.scores);
        self.run("monitor");
        let said = std::fs::read_to_string(&self.scores).expect("a score was set or deleted");
        let line = said.lines().last().expect("a line");
        if line == "--promotion --delete" {
            return None;
        }
        let score = line.strip_prefix("--promotion --update ").expect("a score");
        Some(score.parse().expect("a number"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.run("stop");
    }
}

fn plan(net: &'static str, handlers: &'static str) -> Plan {
    // Cluster agents are run by root.
    Plan { net, handlers, sandbox: Sandbox::none(), ..Plan::default() }
}

/// In sync, and nobody is promoted; alpha is stopped, and the agent's.
fn pair(net: &'static str, handlers: &'static str) -> (Pair, Agent) {
    let mut pair = Pair::start_in_sync(plan(net, handlers));
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.alpha.down();
    let agent = Agent::of(&pair, &pair.alpha);
    (pair, agent)
}

#[test]
fn the_checks_of_others_find_nothing() {
    if lacks(NEEDS) {
        return;
    }
    let (_pair, agent) = pair("", "");
    let mut tester = Command::new("timeout");
    tester.args(["300", "ocf-tester", "-n", "p"]).envs(agent.variables.iter().cloned());
    for (name, value) in &agent.variables {
        if let Some(name) = name.strip_prefix("OCF_RESKEY_").filter(|name| !name.contains("CRM")) {
            tester.arg("-o").arg(format!("{name}={value}"));
        }
    }
    let output = tester.arg(file("pollux")).stdin(Stdio::null()).output().expect("it can be run");
    println!("{}", text(&output));
    assert!(output.status.success(), "{}", text(&output));

    for name in ["pollux", "pollux-mount"] {
        let mut command = Command::new(file(name));
        // It needs nothing at all, and nobody's rights.
        let output = finish(command.arg("meta-data").env_clear().uid(65534).gid(65534));
        assert!(output.status.success(), "{}", text(&output));
        let meta = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(meta.path(), &output.stdout).expect("written");
        for schema in ["--dtdvalid=ra-api-1.dtd", "--relaxng=metadata.rng"] {
            let (option, schema) = schema.split_once('=').expect("two words");
            let mut lint = Command::new("xmllint");
            lint.args(["--noout", "--nonet", option]).arg(Path::new(SCHEMAS).join(schema));
            let output = finish(lint.arg(meta.path()));
            assert!(output.status.success(), "{name}: {}", text(&output));
        }
    }
}

#[test]
fn every_action_twice_and_out_of_order() {
    if lacks(NEEDS) {
        return;
    }
    let (_pair, agent) = pair("", "");
    let story = [
        ("monitor", STOPPED),
        ("stop", 0),
        ("demote", STOPPED),
        ("promote", STOPPED),
        ("notify", 0),
        ("no-such-action", 3),
        ("start", 0),
        ("start", 0),
        ("monitor", UNPROMOTED),
        ("demote", 0),
        ("promote", 0),
        ("promote", 0),
        ("monitor", PROMOTED),
        ("reload", 0),
        ("reload-agent", 0),
        // Only the cluster promotes: what is found promoted is demoted.
        ("start", 0),
        ("monitor", UNPROMOTED),
        ("promote", 0),
        ("stop", 0),
        ("monitor", STOPPED),
        ("stop", 0),
        ("start", 0),
        ("promote", 0),
        ("demote", 0),
        ("demote", 0),
    ];
    for (action, code) in story {
        agent.must(action, code);
    }
    for kind in ["pre", "post"] {
        for operation in ["start", "promote", "demote", "stop"] {
            let more = [
                ("OCF_RESKEY_CRM_meta_notify_type", kind),
                ("OCF_RESKEY_CRM_meta_notify_operation", operation),
            ];
            assert_eq!(agent.run_with("notify", &more).code, Some(0));
        }
    }
    for (name, value) in [
        ("resource", "r0;reboot"),
        ("resource", ""),
        ("resource", "-f"),
        ("config", "pollux.conf"),
        ("promotion_scores", "0 10 -1 10000"),
        ("promotion_scores", "0 10 1000"),
        ("CRM_meta_promoted_max", "2"),
        ("CRM_meta_clone_node_max", "2"),
    ] {
        let name = format!("OCF_RESKEY_{name}");
        let answer = agent.run_with("validate-all", &[(&name, value)]);
        assert_eq!(answer.code, Some(6), "{name}={value}: {}", answer.said);
        assert!(answer.said.contains("ocf-exit-reason:"), "{}", answer.said);
    }
}

#[test]
fn a_score_says_how_good_the_copy_is() {
    if lacks(NEEDS) {
        return;
    }
    let (mut pair, agent) = pair("", "");
    agent.must("start", 0);
    assert_eq!(agent.score(), Some(10_000));
    agent.must("promote", 0);
    assert_eq!(agent.score(), Some(10_000));
    // Without a disk of its own.
    pair.alpha.must(&["detach", RESOURCE]);
    assert_eq!(agent.score(), Some(10));
    pair.alpha.must(&["attach", RESOURCE]);
    pair.wait_in_sync();
    pair.beta.kill();
    pair.alpha.wait_status("the loss", seconds(5), |status| !status.is_connected());
    assert_eq!(agent.score(), Some(10_000));
    agent.must("demote", 0);
    assert_eq!(agent.score(), Some(1000));
    let answer = agent.run_with("monitor", &[("OCF_RESKEY_promotion_scores", "0 1 2 3")]);
    assert_eq!(answer.code, Some(0));
    assert!(std::fs::read_to_string(&agent.scores).expect("set").ends_with("--update 2\n"));
    // What beta wrote while it was alone is missing here.
    agent.must("stop", 0);
    pair.beta.start();
    pair.beta.promote();
    pair.beta.client().write(0, &[9; 4096]).expect("it takes writes");
    pair.link.cut();
    agent.must("start", 0);
    pair.alpha.must(&["outdate", RESOURCE]);
    assert_eq!(agent.score(), None);
    let begin = Instant::now();
    let answer = agent.run_with("promote", &[("OCF_RESKEY_CRM_meta_timeout", "6000")]);
    assert_eq!(answer.code, Some(FAILED));
    assert!(answer.said.contains("no UpToDate data"), "{}", answer.said);
    assert!(begin.elapsed() > seconds(3), "the cluster would try again at once");
    agent.must("monitor", UNPROMOTED);
    pair.link.heal();
    pair.wait_in_sync();
    assert_eq!(agent.score(), Some(10_000));
}

#[test]
fn inconsistent_is_never_promoted() {
    if lacks(NEEDS) {
        return;
    }
    let mut pair = Pair::new(plan("", ""));
    for host in pair.hosts() {
        host.must(&["create-md", "--force", RESOURCE]);
    }
    pair.beta.start();
    let agent = Agent::of(&pair, &pair.alpha);
    agent.must("start", 0);
    assert_eq!(agent.score(), None);
}

#[test]
fn with_fencing_the_one_who_mirrored_to_the_end_may_be_promoted_and_a_lonely_one_not() {
    if lacks(NEEDS) {
        return;
    }
    let handlers = "fence-peer \"exit `cat DIR/answer`\";";
    let (mut pair, agent) = pair("fencing resource-and-stonith;", handlers);
    let answer = pair.dir().join("answer");
    std::fs::write(&answer, "1").expect("a file");
    agent.must("start", 0);
    pair.wait_in_sync();
    pair.beta.promote();
    pair.beta.kill();
    pair.alpha.wait_status("the loss", seconds(5), |status| status.disk == "Consistent");
    assert_eq!(agent.score(), Some(1000));
    // Who cannot fence does not promote, and says so at once.
    let failed = agent.run_with("promote", &[("OCF_RESKEY_CRM_meta_timeout", "6000")]);
    assert_eq!(failed.code, Some(FAILED));
    assert!(failed.said.contains("fence-peer failed with exit code 1"), "{}", failed.said);
    std::fs::write(&answer, "7").expect("a file");
    agent.must("promote", 0);
    agent.must("stop", 0);
    // Beta may have gone on alone, for all that is known now.
    let alone = Agent::of(&pair, &pair.beta);
    alone.must("start", 0);
    pair.beta.wait_status("its disk", seconds(5), |status| status.disk == "Consistent");
    assert_eq!(alone.score(), None);
}

/// As an executor that has lost its patience: the group, or only the process that it started.
fn kill_after(agent: &Agent, action: &str, delay: Duration, group: bool) -> bool {
    let mut child = agent.command(action, &[]).spawn().expect("it can be started");
    let begin = Instant::now();
    while begin.elapsed() < delay {
        if child.try_wait().expect("our child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let pid = Pid::from_child(&child);
    // It is not reaped yet.
    let struck = match group {
        true => kill_process_group(pid, Signal::KILL),
        false => kill_process(pid, Signal::KILL),
    };
    struck.expect("our child");
    child.wait().expect("our child").code().is_none()
}

#[test]
fn killed_in_the_middle_of_each_action_and_run_again() {
    if lacks(NEEDS) {
        return;
    }
    let (_pair, agent) = pair("", "");
    // What comes before, the action, and the state after it.
    let stories: [(&[&str], &str, i32); 7] = [
        (&["stop"], "start", UNPROMOTED),
        (&["start"], "promote", PROMOTED),
        (&["start", "promote"], "monitor", PROMOTED),
        (&["start", "promote"], "notify", PROMOTED),
        (&["start", "promote"], "demote", UNPROMOTED),
        (&["start", "promote"], "stop", STOPPED),
        (&["start", "promote"], "reload", PROMOTED),
    ];
    // At each eighth of the time that the action takes here, whatever machine this is.
    const PARTS: u32 = 8;
    let mut in_all = 0;
    for (before, action, after) in stories {
        let prepare = || before.iter().for_each(|action| agent.must(action, 0));
        let whole = (0..3).map(|_| {
            prepare();
            let begin = Instant::now();
            agent.run(action);
            begin.elapsed()
        });
        let whole = whole.min().expect("three of them");
        let mut killed = 0;
        for (part, group) in (1..PARTS).zip([true, false].into_iter().cycle()) {
            prepare();
            let delay = whole * part / PARTS;
            killed += u32::from(kill_after(&agent, action, delay, group));
            let answer = agent.run(action);
            let wanted = if action == "monitor" { after } else { 0 };
            assert_eq!(answer.code, Some(wanted), "{action} after {delay:?}: {}", answer.said);
            agent.must("monitor", after);
        }
        println!("{action}: killed {killed} times of {}, it takes {whole:?}", PARTS - 1);
        in_all += killed;
    }
    assert!(in_all > 7 * PARTS / 2, "killed {in_all} times only");
    // A start that is killed leaves nothing that its stop does not find.
    agent.must("stop", 0);
    assert!(kill_after(&agent, "start", Duration::from_millis(40), true));
    agent.must("stop", 0);
    agent.must("monitor", STOPPED);
}

#[test]
fn whatever_is_broken_it_can_be_stopped() {
    if lacks(NEEDS) {
        return;
    }
    let (pair, agent) = pair("", "");
    let good = std::fs::read_to_string(&agent.config).expect("it is there");
    let lock = pair.alpha.run_dir.join(format!("{RESOURCE}.pid"));
    let pid = || std::fs::read_to_string(&lock).ok()?.trim().parse::<i32>().ok();
    let nothing = tempfile::tempdir().expect("a directory");
    for name in ["cat", "flock", "grep", "mkdir", "mv", "rm", "sleep", "timeout"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), nothing.path().join(name))
            .expect("a link");
    }
    let bare = [("PATH", nothing.path().to_str().expect("text"))];

    // A bad edit is of the next start; what runs goes on.
    agent.must("start", 0);
    agent.must("promote", 0);
    std::fs::write(&agent.config, "resource { nonsense").expect("written");
    agent.must("monitor", PROMOTED);
    assert_eq!(agent.score(), Some(10_000));
    agent.must("demote", 0);
    agent.must("promote", 0);
    assert_eq!(agent.run_with("stop", &bare).code, Some(0), "without polluxadm");
    agent.must("monitor", STOPPED);
    let answer = agent.run("start");
    assert_eq!(answer.code, Some(5), "{}", answer.said);
    std::fs::remove_file(&agent.config).expect("it is there");
    assert_eq!(agent.run_with("monitor", &bare).code, Some(STOPPED));
    agent.must("stop", 0);
    std::fs::write(&agent.config, good).expect("written");

    // Stopped by a signal: nothing hangs, and it is told.
    agent.must("start", 0);
    agent.must("promote", 0);
    let daemon = Pid::from_raw(pid().expect("it runs")).expect("a pid");
    kill_process(daemon, Signal::STOP).expect("it runs");
    wait_for("the stop", seconds(5), || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.as_raw_pid()));
        stat.is_ok_and(|stat| stat.contains(") T"))
    });
    let begin = Instant::now();
    for action in ["monitor", "demote", "promote", "start", "reload"] {
        let answer = agent.run(action);
        assert_eq!(answer.code, Some(FAILED), "{action}: {}", answer.said);
        assert!(answer.said.contains("ocf-exit-reason:"), "{action}: {}", answer.said);
    }
    agent.must("notify", 0);
    agent.must("stop", 0);
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
    agent.must("monitor", STOPPED);
    agent.must("start", 0);

    // A client that stays: not demoted, but stopped.
    agent.must("promote", 0);
    let mut client = pair.alpha.client();
    client.write(0, &[1; 4096]).expect("it takes writes");
    let short = [("OCF_RESKEY_CRM_meta_timeout", "4000")];
    let answer = agent.run_with("demote", &short);
    assert_eq!(answer.code, Some(FAILED), "{}", answer.said);
    assert!(answer.said.contains("have the device open"), "{}", answer.said);
    agent.must("stop", 0);
    assert!(client.write(0, &[2; 4096]).is_err(), "nobody serves");
}

//! STONITH plug-ins by their process API, run by `pollux-agent fence` as an operator does: 7 only when the peer is verified off.

use crate::stage::{Stage, lacks};
use std::path::PathBuf;
use std::time::Instant;

struct Place {
    stage: Stage,
    dir: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name, &["r0"]);
        Self { dir: stage.dir.clone(), stage }
    }

    fn run(&self, agent: &str, words: &[&str]) -> (Option<i32>, String) {
        self.stage.put("agent.toml", 0o600, agent);
        self.stage.cli(0, words)
    }

    fn fence(&self, agent: &str, options: &str) -> (Option<i32>, String) {
        self.run(&self.toml(agent, options), &["fence", "r0"])
    }

    fn toml(&self, agent: &str, options: &str) -> String {
        format!(
            "[etcd]\nendpoints = [\"127.0.0.1:1\"]\n[resource.r0]\narbiter = \"etcd\"\n\
             [resource.r0.stonith]\nagent = \"{agent}\"\ntimeout = 1.5\n\
             options.beta = {{ plug = \"beta\", state = \"{}\", {options} }}\n",
            self.dir.display()
        )
    }
}

fn plug_in(name: &str) -> String {
    format!("{}/../tools/fence/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn off_counts_when_status_says_so() {
    let place = Place::new("off");
    let null = plug_in("fence_pollux_null");
    let toml = place.toml(&null, "");
    assert_eq!(place.run(&toml, &["fence", "--status", "r0"]).0, Some(0));
    assert_eq!(place.fence(&null, "").0, Some(7));
    assert_eq!(place.run(&toml, &["fence", "--status", "r0"]).0, Some(2));
    // Twice is as once.
    assert_eq!(place.fence(&null, "").0, Some(7));

    let place = Place::new("fails");
    let (code, said) = place.fence(&null, "fail = \"yes\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("told to fail"), "{said}");
}

#[test]
fn one_that_hangs_is_killed_with_what_it_started() {
    let place = Place::new("hangs");
    let text = "#!/bin/sh\nsleep 1000 &\necho $! >\"$0.child\"\nwait\n";
    let agent = place.stage.put("hangs", 0o755, text);
    let begin = Instant::now();
    let (code, said) = place.fence(&agent, "");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not end in"), "{said}");
    assert!(begin.elapsed().as_secs() < 10);
    let child = std::fs::read_to_string(place.dir.join("hangs.child")).expect("it ran");
    let stat = format!("/proc/{}/stat", child.trim());
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    while !gone() {
        assert!(begin.elapsed().as_secs() < 20, "its child lives on");
        std::thread::yield_now();
    }
}

#[test]
fn one_that_lies_or_is_missing_achieves_nothing() {
    let place = Place::new("lies");
    // Success for everything, also for `status`: on.
    let (code, said) = place.fence("/bin/true", "");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("status says that the peer is on"), "{said}");
    let (code, said) = place.fence("/nowhere/fence", "");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nowhere/fence"), "{said}");
}

#[test]
fn commands_switch_and_only_their_status_is_believed() {
    let place = Place::new("command");
    let file = place.dir.join("is.off");
    let file = file.display();
    let status = format!("status_command = \"test -e {file} && exit 2 || exit 0\"");
    let off = format!("off_command = \"touch {file}; echo %p\"");
    let command = plug_in("fence_pollux_command");
    let (code, said) =
        place.fence(&command, &format!("{status}, off_command = \"false\", wait = \"1\""));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not known to be off"), "{said}");
    assert_eq!(place.fence(&command, &format!("{status}, {off}")).0, Some(7));
    // A status that knows nothing is not "off".
    let (code, said) =
        place.fence(&command, &format!("{off}, status_command = \"exit 1\", wait = \"1\""));
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn an_agent_of_debians_fence_agents_fits() {
    if lacks(&["fence_dummy"]) {
        return;
    }
    let place = Place::new("dummy");
    let file = place.dir.join("status");
    let options = format!("type = \"file\", status_file = \"{}\"", file.display());
    let mut toml =
        place.toml("/usr/sbin/fence_dummy", &options).replace("timeout = 1.5", "timeout = 20");
    toml = toml.replace(&format!("state = \"{}\", ", place.dir.display()), "");
    std::fs::write(&file, "on").expect("a file");
    assert_eq!(place.run(&toml, &["fence", "--status", "r0"]).0, Some(0));
    let (code, said) = place.run(&toml, &["fence", "r0"]);
    assert_eq!(code, Some(7), "{said}");
}

#[test]
fn what_is_wrong_in_the_configuration_is_said_with_its_line() {
    let place = Place::new("configuration");
    let good = place.toml("/bin/true", "");
    assert_eq!(place.run(&good, &["check"]).0, Some(0));
    for (from, to, line, why) in [
        ("arbiter =", "arbitre =", 4, "unknown field `arbitre`"),
        ("\"etcd\"", "\"luck\"", 4, "unknown variant `luck`"),
        ("[resource.r0]", "[resource.r1]", 3, "no resource `r1`"),
        (
            "arbiter = \"etcd\"",
            "arbiter = \"etcd\"\ndead-time = 1",
            3,
            "`dead-time` must be 2 to 40",
        ),
        ("arbiter = \"etcd\"", "arbiter = \"fencing\"", 3, "needs [resource.r0.peer]"),
        ("options.beta", "options.gamma", 3, "how to turn beta off"),
        ("timeout", "prefer = 3\ntimeout", 7, "prefer"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        let bad = if from == "[resource.r0]" {
            bad.replace("[resource.r0.", "[resource.r1.")
        } else {
            bad
        };
        let (code, said) = place.run(&bad, &["check"]);
        assert_eq!(code, Some(10), "{to}: {said}");
        assert!(
            said.contains(&format!("agent.toml:{line}:")) && said.contains(why),
            "{to}: {said}"
        );
    }
    let pollux = place.stage.text("pollux.conf");
    for (from, to, why) in [
        ("fencing resource-and-stonith", "fencing dont-care", "add net { fencing"),
        ("auto-promote no", "auto-promote yes", "auto-promote no"),
        ("unfence-peer \"pollux-agent", "unfence-peer \"other", "add handlers"),
    ] {
        place.stage.put("pollux.conf", 0o600, &pollux.replace(from, to));
        let (code, said) = place.run(&good, &["check"]);
        assert_eq!(code, Some(10), "{said}");
        assert!(said.contains("pollux.conf:") && said.contains(why), "{said}");
    }
}

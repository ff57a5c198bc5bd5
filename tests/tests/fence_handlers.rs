//! `pollux-fence-peer` and `pollux-unfence-peer` before a cluster that is only played, so that every state can be had: an exit code is given
//! only for what was verified (ROLE-4). With a real cluster: `cluster_pacemaker.rs`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tests::real::process::text;
use tests::real::{Need, lacks};

/// The cluster's programs. What they answer lies in files: `owner` (whom the constraint names; not there: no constraint), `owner-at-peer`
/// (not there: the peer does not answer), `peer` (how crm_mon shows it), `promoted`, `stonith`, `quorum`, `history`; `broken`: the configuration
/// cannot be written.
const PROGRAMS: [(&str, &str); 6] = [
    ("crm_node", "echo alpha\n"),
    ("polluxadm", "case $1 in cstate) cat DIR/cstate ;; dstate) cat DIR/dstate ;; esac\n"),
    ("stonith_admin", "cat DIR/history 2>/dev/null\n"),
    (
        "cibadmin",
        r##"show() { [ -e "$1" ] || exit 105; echo "<expression id=\"x\" attribute=\"#uname\" operation=\"ne\" value=\"$(cat "$1")\"/>"; }
case "$*" in
  *--create*)
    [ ! -e DIR/broken ] || exit 102
    [ ! -e DIR/owner ] || exit 108
    case $* in *'operation="ne" value="alpha"'*'role="Promoted" score="-INFINITY"'* | *'role="Promoted" score="-INFINITY"'*'operation="ne" value="alpha"'*) ;; *) exit 1 ;; esac
    echo alpha >DIR/owner
    if [ -e DIR/peer-hears ]; then echo alpha >DIR/owner-at-peer; fi ;;
  *--delete*"@value='alpha'"*)
    [ ! -e DIR/broken ] || exit 102
    if [ "$(cat DIR/owner 2>/dev/null)" = alpha ]; then rm DIR/owner; fi ;;
  *--node-path*) echo "/cib/configuration/resources/clone[@id='r0-clone']" ;;
  *--node\ beta*) [ -e DIR/owner-at-peer ] || exec sleep 100; show DIR/owner-at-peer ;;
  *--query*) show DIR/owner ;;
  *) exit 1 ;;
esac
"##,
    ),
    (
        "crm_mon",
        r#"cat <<X
<current_dc present="true" name="alpha" with_quorum="$(cat DIR/quorum)" mixed_version="false"/>
<cluster_options stonith-enabled="$(cat DIR/stonith)"/>
  <nodes>
    <node name="alpha" id="1" online="true" pending="false" unclean="false" type="member"/>
    <node name="beta" id="2" $(cat DIR/peer) type="member"/>
  </nodes>
    <clone id="r0-clone" multi_state="true">
      <resource id="r0" role="Promoted" active="true">
        <node name="$(cat DIR/promoted)" id="1" cached="true"/>
      </resource>
      <resource id="r0" role="Unpromoted" active="true">
        <node name="gamma" id="2" cached="true"/>
      </resource>
    </clone>
X
"#,
    ),
    // Not what is tested, but must not be the machine's own.
    ("crm_attribute", "exit 1\n"),
];

const ALIVE: &str = r#"online="true" standby="false" pending="false" unclean="false""#;
const LOST: &str = r#"online="false" standby="false" pending="false" unclean="true""#;
const GONE: &str = r#"online="false" standby="false" pending="false" unclean="false""#;

/// Alpha, whose handler is run, and the cluster.
struct Cluster(tempfile::TempDir);

impl Cluster {
    /// In which beta lives, and alpha is promoted.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, script) in PROGRAMS {
            let path = dir.path().join(name);
            let script = script.replace("DIR", dir.path().to_str().expect("text"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a file");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our own");
        }
        let it = Self(dir);
        let usual = [
            ("peer", ALIVE),
            ("promoted", "alpha"),
            ("stonith", "true"),
            ("quorum", "true"),
            ("peer-hears", ""),
            ("cstate", "Connected\n"),
            ("dstate", "UpToDate/UpToDate\nDiskless/UpToDate\n"),
        ];
        for (name, text) in usual {
            it.is(name, text);
        }
        it
    }

    fn is(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("a file");
    }

    fn is_not(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).expect("it is there");
    }

    fn owner(&self) -> Option<String> {
        std::fs::read_to_string(self.0.path().join("owner")).ok().map(|o| o.trim().to_owned())
    }

    fn run(&self, program: &str, good: &str) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/fence").join(program),
        );
        command
            .args(["--timeout", "2"])
            .env("PATH", format!("{}:{path}", self.0.path().display()))
            .env("POLLUX_RUN_DIR", self.0.path())
            .env("DRBD_RESOURCE", "r0")
            .env("DRBD_PEER", "beta")
            .env("DRBD_MY_NODE_ID", "0")
            .env("UP_TO_DATE_NODES", good)
            .stdin(Stdio::null());
        command.output().expect("it can be started")
    }

    /// The exit code; `newest`: alpha's data is good.
    fn fence(&self, newest: bool) -> Option<i32> {
        let output =
            self.run("pollux-fence-peer", if newest { "0x00000001" } else { "0x00000002" });
        println!("{:?}: {}", output.status.code(), text(&output).trim());
        output.status.code()
    }

    fn unfence(&self) -> Option<i32> {
        let output = self.run("pollux-unfence-peer", "0x00000003");
        println!("{:?}: {}", output.status.code(), text(&output).trim());
        output.status.code()
    }
}

#[test]
fn a_living_peer_is_barred_when_it_has_heard_of_it() {
    if lacks(&[Need::Program("flock")]) {
        return;
    }
    let cluster = Cluster::new();
    assert_eq!(cluster.fence(true), Some(4));
    assert_eq!(cluster.owner().as_deref(), Some("alpha"));
    assert_eq!(cluster.fence(true), Some(4), "once more");
    // Whose data may be old does not learn here that it is the newest.
    assert_eq!(cluster.fence(false), Some(1));
    // The cluster has not noticed yet that it is dead, or on the other side of a cut.
    cluster.is_not("owner-at-peer");
    assert_eq!(cluster.fence(true), Some(1));
    // It has an older configuration.
    cluster.is("owner-at-peer", "beta");
    assert_eq!(cluster.fence(true), Some(1));
    cluster.is("owner-at-peer", "alpha");
    cluster.is("promoted", "beta");
    assert_eq!(cluster.fence(true), Some(1), "it is promoted");
}

#[test]
fn a_lost_peer_is_out_of_the_way_when_the_cluster_has_fenced_it() {
    let cluster = Cluster::new();
    cluster.is_not("peer-hears");
    cluster.is("peer", LOST);
    assert_eq!(cluster.fence(true), Some(1), "not fenced yet");
    cluster.is("peer", GONE);
    assert_eq!(cluster.fence(true), Some(4), "it has left in order");
    assert_eq!(cluster.fence(false), Some(1), "it has left in order, with what is not here");
    cluster.is("history", "reboot of beta failed: delegate=alpha\n1 event found\n");
    assert_eq!(cluster.fence(false), Some(1));
    cluster.is("history", "reboot of beta successful: delegate=alpha\n1 event found\n");
    // Pollux asks itself whether its data is the newest, when it hears this.
    assert_eq!((cluster.fence(true), cluster.fence(false)), (Some(7), Some(7)));
    cluster.is("stonith", "false");
    assert_eq!(cluster.fence(true), Some(5), "nobody can have fenced it");
    cluster.is("quorum", "false");
    assert_eq!(cluster.fence(true), Some(1), "this side may be the one that is lost");
}

#[test]
fn who_comes_second_is_barred() {
    let cluster = Cluster::new();
    cluster.is("owner", "beta");
    cluster.is("owner-at-peer", "beta");
    assert_eq!(cluster.fence(true), Some(1), "its daemon may be dead");
    cluster.is("promoted", "beta");
    assert_eq!(cluster.fence(true), Some(6));
    cluster.is("peer", GONE);
    assert_eq!(cluster.fence(true), Some(1), "what it wrote is not here");
    assert_eq!(cluster.owner().as_deref(), Some("beta"));
}

#[test]
fn without_the_constraint_nothing_is_said() {
    let cluster = Cluster::new();
    cluster.is("broken", "");
    for peer in [ALIVE, GONE, LOST] {
        cluster.is("peer", peer);
        assert_eq!(cluster.fence(true), Some(1));
    }
    cluster.is_not("broken");
    cluster.is("peer", "");
    assert_eq!(cluster.fence(true), Some(1), "what is it?");
    cluster.is_not("crm_node");
    cluster.is("crm_node", "");
    assert_eq!(cluster.fence(true), Some(1), "no cluster runs here");
}

#[test]
fn only_the_own_constraint_goes_and_only_in_sync() {
    let cluster = Cluster::new();
    assert_eq!(cluster.unfence(), Some(0), "none is there");
    assert_eq!(cluster.fence(true), Some(4));
    for (file, text, usual) in [
        ("cstate", "Connected\nConnecting\n", "Connected\n"),
        ("dstate", "UpToDate/Inconsistent\n", "UpToDate/UpToDate\n"),
        ("dstate", "UpToDate/UpToDate\nUpToDate/Outdated\n", "UpToDate/UpToDate\n"),
    ] {
        cluster.is(file, text);
        assert_eq!(cluster.unfence(), Some(0));
        assert_eq!(cluster.owner().as_deref(), Some("alpha"), "still needed: {text}");
        cluster.is(file, usual);
    }
    cluster.is("broken", "");
    assert_eq!(cluster.unfence(), Some(1));
    cluster.is_not("broken");
    assert_eq!(cluster.unfence(), Some(0));
    assert_eq!(cluster.owner(), None);
    cluster.is("owner", "beta");
    assert_eq!(cluster.unfence(), Some(0));
    assert_eq!(cluster.owner().as_deref(), Some("beta"));
}

//! What an operator, systemd and a wrong configuration meet: questions at a terminal, readiness, `file:line:`, secrets.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use tests::real::host::RESOURCE;
use tests::real::nbd::{Client, Lost};
use tests::real::process::Process;
use tests::real::{Host, Ledger, Need, Pair, Plan, lacks, seconds, wait_for};

/// The words that name a host to our programs.
fn place(host: &Host) -> Vec<String> {
    let (config, run_dir) = (host.config.display(), host.run_dir.display());
    let words =
        ["--config", &config.to_string(), "--node", host.name, "--run-dir", &run_dir.to_string()];
    words.map(str::to_owned).to_vec()
}

/// Types `command` of `polluxadm` at a terminal, and `answer` when it asks; what was on the screen, and the exit code.
fn at_a_terminal(host: &Host, command: &str, answer: &str) -> (String, Option<i32>) {
    let line = format!(
        "{} {} {command}",
        host.programs.join("polluxadm").display(),
        place(host).join(" ")
    );
    // The terminal is `script`'s; it passes on what it reads, and the exit code.
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    host.sandbox.confine(&mut script);
    let mut script = script.spawn().expect("script can be started");
    let mut keyboard = script.stdin.take().expect("a pipe");
    let mut screen = script.stdout.take().expect("a pipe");
    let (seen, shown) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            if seen.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_err() {
                return;
            }
        }
    });
    let mut text = String::new();
    let mut asked = false;
    loop {
        match shown.recv_timeout(seconds(30)) {
            Ok(more) => text += &more,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                script.kill().expect("our own child");
                panic!("it neither asks nor ends: {text}");
            }
        }
        if !asked && text.contains("[type yes]") {
            asked = true;
            writeln!(keyboard, "{answer}").expect("it reads");
        }
    }
    reader.join().expect("it reads to the end");
    let status = script.wait().expect("our own child");
    (text.replace('\r', ""), status.code())
}

#[test]
fn create_md_asks_before_it_overwrites_metadata() {
    if lacks(&[Need::Program("script")]) {
        return;
    }
    let pair = Pair::new(Plan::default());
    let host = &pair.alpha;
    // Nothing there: nothing to ask.
    let (text, code) = at_a_terminal(host, "create-md r0", "no");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("metadata made") && !text.contains('?'), "{text}");
    let first = host.must(&["dump-md", RESOURCE]);
    // Anything but `yes` is no.
    for answer in ["no", "y", ""] {
        let (text, code) = at_a_terminal(host, "create-md r0", answer);
        assert_eq!(code, Some(20), "{text}");
        assert!(text.contains("holds metadata of node-id 0, generation"), "{text}");
        assert!(text.ends_with("not overwritten\n"), "{text}");
        assert_eq!(host.must(&["dump-md", RESOURCE]), first, "after `{answer}`");
    }
    // Nobody to ask.
    let refused = host.adm(&["create-md", RESOURCE]);
    assert_eq!(refused.code, Some(20), "{}", refused.said);
    let hint = "not overwritten. To overwrite it: polluxadm create-md --force r0/0";
    assert!(refused.said.contains(hint), "{}", refused.said);
    assert_eq!(host.must(&["dump-md", RESOURCE]), first);
    // Yes, and no question at all.
    let (text, code) = at_a_terminal(host, "create-md r0", "yes");
    assert_eq!(code, Some(0), "{text}");
    let second = host.must(&["dump-md", RESOURCE]);
    assert_ne!(second, first, "new metadata");
    let made = host.must(&["create-md", "--force", RESOURCE]);
    assert!(made.contains("metadata made") && !made.contains('?'), "{made}");
    assert_ne!(host.must(&["dump-md", RESOURCE]), second, "newer metadata");
}

#[test]
fn systemd_is_told_when_the_resource_is_served_and_when_it_ends() {
    let pair = Pair::new(Plan::default());
    let host = &pair.alpha;
    host.must(&["create-md", RESOURCE]);
    let path = pair.dir().join("notify");
    let notify = UnixDatagram::bind(&path).expect("a socket");
    chown(&path, host.sandbox.user, host.sandbox.user).expect("a socket can be given away");
    notify.set_read_timeout(Some(seconds(20))).expect("a timeout");
    let next = || {
        let mut bytes = [0; 256];
        let count = notify.recv(&mut bytes).expect("systemd is told");
        String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned()
    };
    let mut polluxd = Command::new(host.programs.join("polluxd"));
    polluxd.args(place(host)).arg(RESOURCE).env("NOTIFY_SOCKET", &path);
    host.sandbox.confine(&mut polluxd);
    let mut daemon = Process::start("polluxd", &mut polluxd, &host.log);
    assert_eq!(next(), "READY=1");
    // From then on: the export is there (its Secondary says why it does not serve), the disk attached, the operator heard.
    let answer = Client::unix(&host.nbd_socket(), RESOURCE);
    assert!(matches!(&answer, Err(Lost::Refused(why)) if why.contains("Secondary")), "{answer:?}");
    assert_eq!(host.status().disk, "Inconsistent");
    host.must(&["primary", "--force", RESOURCE]);
    host.client().write(0, &[1; 4096]).expect("written");
    // Once only.
    notify.set_nonblocking(true).expect("a socket");
    assert_eq!(notify.recv(&mut [0; 8]).expect_err("no more").kind(), ErrorKind::WouldBlock);
    notify.set_nonblocking(false).expect("a socket");
    assert!(daemon.terminate().success(), "{}", daemon.said());
    assert_eq!(next(), "STOPPING=1");
}

#[test]
fn a_wrong_configuration_is_told_by_file_and_line() {
    let pair = Pair::new(Plan::default());
    let host = &pair.alpha;
    let good = std::fs::read_to_string(&host.config).expect("the configuration");
    let included = pair.dir().join("alpha").join("more.res");
    let daemon = |host: &Host| {
        let mut polluxd = Command::new(host.programs.join("polluxd"));
        polluxd.args(place(host)).arg(RESOURCE);
        host.sandbox.confine(&mut polluxd);
        let output = polluxd.output().expect("polluxd starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let device =
        1 + good.lines().position(|line| line.contains("device minor 0;")).expect("it is there");
    let cases = [
        (good.replace("protocol C;", "\nprotocl C;"), &host.config, 3, "did you mean `protocol`?"),
        (
            good.replace("device minor 0;", "device major 0;"),
            &host.config,
            device,
            "device minor 0;",
        ),
        (format!("{good}}}"), &host.config, good.lines().count() + 1, "where nothing is open"),
        (format!("include more.res;\n{good}"), &included, 2, "`timeout 0`"),
    ];
    std::fs::write(&included, "common {\n net { timeout 0; } }").expect("written");
    for (text, file, line, what) in cases {
        std::fs::write(&host.config, text).expect("written");
        let begin = format!("{}:{line}: ", file.display());
        for words in [&["dump"][..], &["create-md", RESOURCE], &["up", RESOURCE], &["status"]] {
            let answer = host.adm(words);
            assert_eq!(answer.code, Some(10), "{words:?}: {}", answer.said);
            let is_told = answer.said.contains(&begin) && answer.said.contains(what);
            assert!(is_told, "{words:?}: no `{begin}` or `{what}` in: {}", answer.said);
        }
        let (code, said) = daemon(host);
        assert_eq!(code, Some(10), "polluxd: {said}");
        assert!(said.starts_with(&begin) && said.contains(what), "polluxd: {said}");
    }
    // A warning names its line, too, and the program goes on.
    std::fs::write(&host.config, good.replace("protocol C;", "\nko-count 7;")).expect("written");
    let answer = host.adm(&["create-md", RESOURCE]);
    assert_eq!(answer.code, Some(0), "{}", answer.said);
    let warning = format!("{}:3: warning: `ko-count`", host.config.display());
    assert!(answer.said.contains(&warning), "{}", answer.said);
}

#[test]
fn what_runs_can_be_asked_demoted_and_ended_whatever_the_configuration_says() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), [0, 4096]);
    let host = &pair.alpha;
    let good = std::fs::read_to_string(&host.config).expect("the configuration");
    std::fs::write(&host.config, good.replace("protocol C;", "protocl C;")).expect("written");
    for (words, output) in [
        (&["role", RESOURCE][..], "Primary\n"),
        (&["secondary", RESOURCE], ""),
        (&["role", "r0:beta"], "Secondary\n"),
        (&["primary", RESOURCE], ""),
        (&["secondary", RESOURCE], ""),
    ] {
        let answer = host.adm(words);
        assert_eq!((answer.code, &*answer.stdout), (Some(0), output), "{}", answer.said);
        assert!(answer.said.contains("did you mean `protocol`?"), "{}", answer.said);
    }
    assert!(host.must(&["status", RESOURCE]).contains("role:Secondary"));
    // Which others there are nobody knows; and what reads the configuration needs it.
    for words in [&["secondary", "all"][..], &["secondary", "r1"], &["up", RESOURCE]] {
        assert_eq!(host.adm(words).code, Some(10), "{words:?}");
    }
    pair.alpha.down();
    let host = &pair.alpha;
    assert_eq!(host.adm(&["role", RESOURCE]).code, Some(10), "it does not run");
    std::fs::write(&host.config, good).expect("written");
    pair.alpha.start();
    pair.wait_in_sync();
    pair.alpha.promote();
    pair.end(Some(&mut ledger));
}

#[test]
fn nodes_with_the_same_secret_connect_and_others_do_not() {
    let mut pair = Pair::new(Plan { net: "cram-hmac-alg sha256;", ..Plan::default() });
    let good = std::fs::read_to_string(&pair.beta.config).expect("the configuration");
    assert!(good.contains("shared-secret \"castor\"") && good.contains("cram-hmac-alg sha256"));
    let other = good.replace("\"castor\"", "\"someone else's\"");
    std::fs::write(&pair.beta.config, other).expect("written");
    for host in pair.hosts() {
        host.must(&["create-md", RESOURCE]);
        host.start();
    }
    // The one that dials has it in its status, the other in its log.
    let status = pair.alpha.wait_status("the reason", seconds(20), |status| {
        status.advice.contains("the shared secrets differ")
    });
    assert_ne!(status.connection, "Connected", "{status}");
    wait_for("the reason in the log", seconds(20), || {
        pair.beta.said().contains("the shared secrets differ")
    });
    pair.beta.down();
    std::fs::write(&pair.beta.config, good).expect("written");
    pair.beta.start();
    // It stands alone: no attempt could have ended otherwise until an operator acted.
    pair.alpha.must(&["connect", RESOURCE]);
    pair.alpha.wait_status("the connection", seconds(20), |status| status.is_connected());
    pair.alpha.must(&["primary", "--force", RESOURCE]);
    pair.wait_in_sync();
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.alpha.client(), [0, 4096]);
    pair.end(Some(&mut ledger));
}

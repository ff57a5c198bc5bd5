//! A lease on being Primary, as an agent gives it over the control socket: what the daemon answers, and when it does not (ROLE-6).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tests::real::host::{Host, RESOURCE};
use tests::real::nbd::{Ask, Client, Lost};
use tests::real::{Pair, Plan, seconds};

/// Says until when the node is Primary, from now; the status line of the answer.
fn lease(host: &Host, length: Option<Duration>) -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    let until = length.map_or("null".into(), |length| (now + length).as_millis().to_string());
    let body = format!(r#"{{"command":"lease","until":{until}}}"#);
    let mut stream = UnixStream::connect(host.run_dir.join("r0.sock")).expect("it listens");
    stream.set_read_timeout(Some(seconds(20))).expect("a socket");
    let length = body.len();
    write!(stream, "POST /command HTTP/1.1\r\nhost: r0\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.lines().next().unwrap_or_default().to_owned()
}

fn must_lease(host: &Host, length: Option<Duration>) {
    let answer = lease(host, length);
    assert!(answer.contains(" 200 "), "{answer}");
}

fn is_silent(client: &mut Client) {
    client.set_patience(Duration::from_millis(500));
    match client.receive() {
        Err(Lost::Connection(error)) if error.kind() == ErrorKind::WouldBlock => {}
        other => panic!("ROLE-6: answered without a lease: {other:?}"),
    }
    client.set_patience(seconds(20));
}

#[test]
fn who_holds_no_lease_answers_nobody() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut client = pair.alpha.client();
    must_lease(&pair.alpha, Some(Duration::from_millis(600)));
    client.write(0, &[1; 4096]).expect("the lease runs");
    pair.alpha.wait_status("the end", seconds(5), |status| status.suspended);
    let id = client.send(&Ask::Write(4096, &[2; 4096])).expect("the kernel takes it");
    is_silent(&mut client);
    assert!(pair.alpha.status().json.contains("\"suspended-lease\": true"));
    assert!(lease(&pair.alpha, Some(Duration::ZERO)).contains(" 409 "), "it ends in the past");
    must_lease(&pair.alpha, Some(seconds(3)));
    let (answered, result) = client.receive().expect("answered");
    assert_eq!((answered, result.is_ok()), (id, true));

    // Stopped while it runs, continued after its end: the clock comes before what waited.
    must_lease(&pair.alpha, Some(Duration::from_millis(300)));
    pair.alpha.daemon().pause();
    let id = client.send(&Ask::Write(8192, &[3; 4096])).expect("the kernel takes it");
    client.set_patience(Duration::from_millis(400));
    assert!(client.receive().is_err(), "it is stopped");
    pair.alpha.daemon().resume();
    is_silent(&mut client);
    // Lifted: roles are the operator's again.
    must_lease(&pair.alpha, None);
    let (answered, result) = client.receive().expect("answered");
    assert_eq!((answered, result.is_ok()), (id, true));
    drop(client);
    pair.end(None);
}

#[test]
fn who_holds_no_lease_steps_down_for_who_asks() {
    let pair = Pair::start_in_sync(Plan::default());
    let mut client = pair.alpha.client();
    let refused = pair.beta.adm(&["primary", RESOURCE]);
    assert_eq!(refused.code, Some(11), "{}", refused.said);
    must_lease(&pair.alpha, Some(Duration::from_millis(200)));
    pair.alpha.wait_status("the end", seconds(5), |status| status.suspended);
    client.send(&Ask::Write(4096, &[2; 4096])).expect("the kernel takes it");
    must_lease(&pair.beta, Some(seconds(60)));
    pair.beta.must(&["primary", RESOURCE]);
    assert_eq!(pair.alpha.status().role, "Secondary");
    assert!(!matches!(client.receive(), Ok((_, Ok(_)))), "it is not Primary any more");
    pair.beta.client().write(4096, &[3; 4096]).expect("beta serves");
    drop(client);
    pair.end(None);
}

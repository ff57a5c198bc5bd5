//! A node that is not dead but does not run: stopped by a signal, as a paused virtual machine would be. All times are the defaults.

use std::time::{Duration, Instant};
use tests::real::load::Work;
use tests::real::nbd::{Ask, Lost};
use tests::real::{Ledger, Load, Pair, Plan, seconds, wait_for};

#[test]
fn a_primary_that_suspended_serves_nothing_before_it_has_shaken_hands() {
    let handlers = "pri-lost \"echo lost-to-$DRBD_PEER >> DIR/told\";";
    let mut pair = Pair::start_in_sync(Plan { handlers, ..Plan::default() });
    let mut before = Ledger::default();
    before.write(&mut pair.alpha.client(), (0..64).map(|i| i * 4096));
    let work = Work { span: 16 << 20, depth: 8, flush_every: 30, seed: 5 };
    let load = Load::start(pair.alpha.client(), before, work);
    load.wait_for_more(100);
    // Block 5000 is beyond what the load writes to.
    let place = 5000 * 4096;
    let mut asking = pair.alpha.client();
    asking.write(place, &tests::real::blocks::encode(place, 1)).expect("a Primary serves");

    pair.alpha.daemon().pause();
    let paused = Instant::now();
    asking.send(&Ask::Read(place, 4096)).expect("the kernel takes it");
    let noticed = pair.beta.wait_status("the loss", seconds(4), |status| !status.is_connected());
    let noticed = (paused.elapsed(), noticed);
    assert!(noticed.0 < seconds(2), "noticed after {:?}", noticed.0);
    pair.beta.promote();
    let mut newer = Ledger::default();
    newer.begin_at(1_000_000);
    newer.write(&mut pair.beta.client(), (5000..5100).map(|i| i * 4096));
    wait_for("half a minute", seconds(31), || paused.elapsed() >= seconds(30));

    // ROLE-5. First it wakes up alone: nothing may be served, and status says why.
    pair.link.cut();
    pair.alpha.daemon().resume();
    let awake = Instant::now();
    asking.set_patience(std::time::Duration::from_millis(1500));
    match asking.receive() {
        Err(Lost::Connection(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        other => {
            panic!("served after {:?}, before it had shaken hands: {other:?}", awake.elapsed())
        }
    }
    let status = pair.alpha.status();
    println!("alone: {status}");
    assert!(status.suspended, "LIVE-2: I/O is held, and status says so: {status}");

    pair.link.heal();
    // The peer was promoted: what is pending fails, and never returns what was.
    asking.set_patience(seconds(20));
    match asking.receive() {
        Err(Lost::Connection(_)) | Ok((_, Err(_))) => {}
        Ok((_, Ok(bytes))) => {
            let found = tests::real::blocks::decode(place, &bytes);
            panic!("a stale read: {found:?}; {}", pair.alpha.status());
        }
        Err(other) => panic!("{other}"),
    }
    pair.wait_in_sync();
    assert_eq!(pair.alpha.status().role, "Secondary");
    let told = pair.dir().join("told");
    let told = || std::fs::read_to_string(&told).unwrap_or_default();
    wait_for("the word that it was replaced", seconds(10), || !told().is_empty());
    assert_eq!(told(), "lost-to-beta\n");
    let mut ended = load.join();
    println!("noticed after {:?}; {} writes acknowledged before", noticed.0, ended.acked);
    ended.ledger.verify(&mut pair.beta.client());
    newer.verify(&mut pair.beta.client());
    drop(asking);
    pair.end(Some(&mut newer));
}

/// LIVE-3: a link that only looks alive is given up in the configured time.
#[test]
fn a_secondary_that_does_not_run_is_given_up_within_two_seconds() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let work = Work { span: 16 << 20, depth: 1, flush_every: 10, seed: 6 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    load.wait_for_more(50);
    pair.beta.daemon().pause();
    let paused = Instant::now();
    pair.alpha.wait_status("the loss", seconds(4), |status| !status.is_connected());
    let noticed = paused.elapsed();
    assert!(noticed < seconds(2), "noticed after {noticed:?}");
    load.wait_for_more(100);
    pair.beta.daemon().resume();
    pair.wait_in_sync();
    let mut ended = load.stop();
    println!("noticed after {noticed:?}; the longest request took {:?}", ended.longest);
    assert!(ended.lost.is_none(), "a client noticed: {:?}", ended.lost);
    assert!(ended.longest < Duration::from_millis(2500), "a request took {:?}", ended.longest);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

/// A peer whose link is reset is not waited for: no timeout has a part in it.
#[test]
fn a_secondary_that_dies_holds_up_nobody() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let work = Work { span: 16 << 20, depth: 1, flush_every: 10, seed: 7 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    for _ in 0..3 {
        load.wait_for_more(50);
        pair.beta.kill();
        load.wait_for_more(50);
        pair.beta.start();
        pair.wait_in_sync();
    }
    let mut ended = load.stop();
    println!("the longest request took {:?}", ended.longest);
    assert!(ended.lost.is_none(), "a client noticed: {:?}", ended.lost);
    assert!(ended.longest < Duration::from_millis(500), "a request took {:?}", ended.longest);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

//! The link breaks in all its ways. Where both sides wrote meanwhile, both are told, and nothing is changed until an operator decides.

use tests::real::host::RESOURCE;
use tests::real::load::Work;
use tests::real::status::Status;
use tests::real::{Ledger, Load, Pair, Plan, seconds, wait_for};

fn tells_split_brain(status: &Status) -> bool {
    status.connection == "StandAlone" && status.advice.to_lowercase().contains("split brain")
}

#[test]
fn a_split_brain_is_told_on_both_and_resolved_only_by_command() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut kept = Ledger::default();
    kept.write(&mut pair.alpha.client(), (0..64).map(|i| i * 4096));
    pair.link.cut();
    for host in pair.hosts() {
        host.wait_status("the loss", seconds(3), |status| !status.is_connected());
    }
    pair.beta.must(&["primary", RESOURCE]);
    let mut given_up = kept.clone();
    given_up.begin_at(1_000_000);
    kept.write(&mut pair.alpha.client(), (0..200).step_by(3).map(|i| i * 4096));
    given_up.write(&mut pair.beta.client(), (0..200).step_by(2).map(|i| i * 4096));

    // SB-1: the first handshake, and every later one.
    pair.link.heal();
    for round in 0..2 {
        if round > 0 {
            for host in pair.hosts() {
                host.must(&["connect", RESOURCE]);
            }
        }
        for host in pair.hosts() {
            let status =
                host.wait_status("the split brain to be told", seconds(15), tells_split_brain);
            println!("{}: {}", host.name, status.advice.trim());
            assert_eq!((status.role.as_str(), status.disk.as_str()), ("Primary", "UpToDate"));
        }
        kept.verify(&mut pair.alpha.client());
        given_up.verify(&mut pair.beta.client());
    }

    // SB-2
    pair.beta.must(&["secondary", RESOURCE]);
    pair.beta.must(&["connect", "--discard-my-data", RESOURCE]);
    pair.alpha.must(&["connect", RESOURCE]);
    pair.wait_in_sync();
    kept.verify(&mut pair.alpha.client());
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.beta.must(&["primary", RESOURCE]);
    kept.verify(&mut pair.beta.client());
    pair.end(Some(&mut kept));
}

#[test]
fn no_split_brain_where_only_one_side_wrote() {
    let mut pair = Pair::start_in_sync(Plan::default());
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.link.cut();
    for host in pair.hosts() {
        host.wait_status("the loss", seconds(3), |status| !status.is_connected());
        host.must(&["primary", RESOURCE]);
    }
    // SB-4: two promotions without a write fork nothing.
    let mut ledger = Ledger::default();
    ledger.write(&mut pair.beta.client(), (0..50).map(|i| i * 4096));
    pair.alpha.must(&["secondary", RESOURCE]);
    pair.link.heal();
    pair.wait_in_sync();
    pair.end(Some(&mut ledger));
}

#[test]
fn a_link_that_breaks_in_the_midst_of_frames_loses_nothing() {
    let pair = Pair::start_in_sync(Plan::default());
    let work = Work { span: 32 << 20, depth: 16, flush_every: 30, seed: 21 };
    let load = Load::start(pair.alpha.client(), Ledger::default(), work);
    for flap in 0..12 {
        load.wait_for_more(50);
        pair.link.cut_after(10_000 + flap * 7919);
        wait_for("the cut", seconds(20), || pair.link.is_cut());
        load.wait_for_more(20);
        pair.link.heal();
        pair.alpha.wait_in_sync(seconds(30));
    }
    let mut ended = load.stop();
    println!("{} writes acknowledged, the longest took {:?}", ended.acked, ended.longest);
    assert!(ended.lost.is_none(), "a client noticed: {:?}", ended.lost);
    drop(ended.client);
    pair.end(Some(&mut ended.ledger));
}

#[test]
fn a_link_that_goes_silent_one_way_is_noticed() {
    let mut pair = Pair::start_in_sync(Plan::default());
    let mut ledger = Ledger::default();
    for node in [0, 1] {
        let work = Work { span: 16 << 20, depth: 4, flush_every: 30, seed: 31 };
        let load = Load::start(pair.alpha.client(), ledger, work);
        load.wait_for_more(50);
        pair.link.silence_to(node);
        let noticed = std::time::Instant::now();
        for host in pair.hosts() {
            host.wait_status("the silence to be noticed", seconds(4), |status| {
                !status.is_connected()
            });
        }
        let noticed = noticed.elapsed();
        load.wait_for_more(20);
        pair.link.heal();
        pair.wait_in_sync();
        let ended = load.stop();
        println!(
            "silent to {node}: noticed by both after {noticed:?}, longest request {:?}",
            ended.longest
        );
        assert!(ended.lost.is_none(), "a client noticed: {:?}", ended.lost);
        assert!(ended.longest < seconds(3), "{:?}", ended.longest);
        ledger = ended.ledger;
    }
    pair.end(Some(&mut ledger));
}

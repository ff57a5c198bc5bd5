//! A network of the worst kind, drawn from a seed, between two real daemons: what is sent arrives in pieces, late, after silence, with a
//! bit turned, or not at all. What was acknowledged is there, whichever node serves, and both copies become equal (DUR-3, DUR-5, CONV).

use tests::real::load::Work;
use tests::real::weather::Tally;
use tests::real::{Ledger, Load, Pair, Plan, Random, seconds, seed, wait_for};

/// What the weather has to have done in each round.
fn enough(now: Tally, before: Tally) -> bool {
    now.silences >= before.silences + 6
        && now.flips >= before.flips + 4
        && now.breaks >= before.breaks + 4
}

#[test]
fn nothing_is_lost_in_bad_weather() {
    let seed = seed();
    let mut random = Random::new(seed);
    let net = "data-integrity-alg crc32;";
    let mut pair = Pair::start_in_sync(Plan { net, ..Plan::default() });
    let mut ledger = Ledger::default();
    for round in 0..4 {
        let primary_is_alpha = round % 2 == 0;
        let before = pair.link.tally();
        let Pair { alpha, beta, link, .. } = &mut pair;
        let (primary, secondary) = if primary_is_alpha { (alpha, beta) } else { (beta, alpha) };
        let work = Work { span: 16 << 20, depth: 8, flush_every: 20, seed: seed ^ round };
        let load = Load::start(primary.client(), ledger, work);
        link.set_weather(Some(seed ^ round));
        // In half of the rounds the Secondary dies in it, too.
        if random.below(2) == 0 {
            load.wait_for_more(100);
            secondary.kill();
            load.wait_for_more(100);
            secondary.start();
        }
        wait_for("bad weather", seconds(120), || load.is_over() || enough(link.tally(), before));
        link.set_weather(None);
        let ended = load.stop();
        assert!(ended.lost.is_none(), "no client notices: {:?}\n{}", ended.lost, primary.history());
        println!("round {round}: {} writes, {:?} at most", ended.acked, ended.longest);
        ledger = ended.ledger;
        drop(ended.client);
        primary.wait_in_sync(seconds(60));
        primary.kill();
        secondary.promote();
        ledger.verify(&mut secondary.client());
        primary.start();
        secondary.wait_in_sync(seconds(60));
    }
    println!("{:?}", pair.link.tally());
    pair.end(Some(&mut ledger));
}

//! A handful of seeds as an ordinary test: the swarm proper is `cargo sim --seeds N`.

use tests::sim::{Counters, catch_panics, run, run_checked};

#[test]
fn thirty_seeds_break_nothing_and_reach_the_interesting_states() {
    catch_panics();
    let mut counters = Counters::default();
    for seed in 1000..1030 {
        let outcome = run_checked(seed);
        assert_eq!(outcome.violation, None, "cargo sim --seed {seed}");
        counters.add(&outcome.counters);
    }
    for reached in [
        "crash: with requests in flight",
        "power cut: lost completed unflushed writes",
        "resync: began",
        "fork: both came together",
        "fork: a survivor was promoted",
        "link: cut with messages under way",
    ] {
        assert!(counters.count(reached) > 0, "never seen: {reached}\n{}", counters.table());
    }
}

#[test]
fn a_seed_does_the_same_twice() {
    let (a, b) = (run(4242, 0, true), run(4242, 0, true));
    assert_eq!((a.hash, a.events), (b.hash, b.events));
    assert_ne!(a.hash, 0);
}

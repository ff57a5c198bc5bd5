//! A handful of seeds as an ordinary test: the swarm proper is `cargo sim --seeds N`. `POLLUX_SWARM_SEEDS` says how many, for who mutates the
//! node and wants more of them.

use tests::sim::{Counters, catch_panics, run, run_checked};

#[test]
fn a_few_seeds_break_nothing_and_reach_the_interesting_states() {
    catch_panics();
    let mut counters = Counters::default();
    for seed in 1000..1000 + seeds() {
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

/// How many: no fewer reach all of those states.
fn seeds() -> u64 {
    std::env::var("POLLUX_SWARM_SEEDS").map_or(30, |text| text.parse().expect("a number of seeds"))
}

#[test]
fn a_seed_does_the_same_twice() {
    let (a, b) = (run(4242, 0, true), run(4242, 0, true));
    assert_eq!((a.hash, a.events), (b.hash, b.events));
    assert_ne!(a.hash, 0);
}

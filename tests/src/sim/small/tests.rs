//! The search itself: it is whole, it does the same twice, and two states are one only where they are.

use super::fingerprint::renamed;
use super::{Budget, Report, Scope, search};
use replicator::node::{IoId, Protocol, Time};

fn scope(protocol: Protocol, budget: Budget, fork_one_in: u64, most_states: usize) -> Scope {
    Scope { protocol, volumes: 1, fencing: false, budget, fork_one_in, most_states }
}

fn searched(budget: Budget) -> Report {
    search(&scope(Protocol::C, budget, 1, 100_000))
}

#[test]
fn every_order_of_a_write_and_a_cut_breaks_nothing() {
    let report = searched(Budget { writes: 1, cuts: 1, ..Budget::default() });
    assert!(report.violation.is_none(), "{:?}", report.violation);
    assert!(report.whole && report.states > 1000 && report.ends > 10, "{report:?}");
    assert!(report.forks > report.states as u64, "what would become of each: {report:?}");
    let again = searched(Budget { writes: 1, cuts: 1, ..Budget::default() });
    assert_eq!((report.states, report.moves), (again.states, again.moves), "the same twice");
}

#[test]
fn a_search_that_ends_early_says_so() {
    let budget = Budget { writes: 2, ..Budget::default() };
    let report = search(&scope(Protocol::A, budget, 0, 50));
    assert!(!report.whole && report.violation.is_none(), "{report:?}");
}

#[test]
fn names_count_by_their_order_and_times_by_their_distance() {
    let same = |a: &(IoId, IoId, Time), b: &(IoId, IoId, Time), later: u64| {
        renamed(a, 1000) == renamed(b, 1000 + later)
    };
    let first = (IoId(7), IoId(9), Time(1500));
    assert!(same(&first, &(IoId(8), IoId(17), Time(1501)), 1));
    assert!(!same(&first, &(IoId(8), IoId(8), Time(1501)), 1), "one name, and not two");
    assert!(!same(&first, &first, 1), "nearer");
}

//! Scripts do what their seeds do, and shrinking ends with what it takes.

use super::*;
use replicator::node::Protocol;
use std::cell::Cell;

/// The hash of all actions of a script up to a time; of its whole life if there is none.
fn hash_of(case: &Case, until: Option<u64>) -> u64 {
    let mut world = case.stage();
    (world.until, world.hash) = (until, 1);
    catch(&mut world);
    assert_ne!(world.hash, 1, "nothing was done");
    world.hash
}

#[test]
fn a_whole_script_does_what_its_seed_does() {
    for seed in (0..16).map(|i| (1000 + i) ^ (i / 8 % 2) << 60) {
        // How long it heals hangs on when somebody looks: that is left out.
        let never = Some(u64::MAX);
        let (mut knobs, _) = draw(seed);
        knobs.fork_every = 0;
        let (case, first) = Case::of(seed, knobs, |world| (world.hash, world.until) = (1, never));
        assert_eq!(hash_of(&case, never), first.hash, "seed {seed}");
    }
}

#[test]
fn what_is_left_out_changes_nothing_before_it_and_is_deterministic() {
    for seed in 1000..1003 {
        let (mut knobs, _) = draw(seed);
        knobs.fork_every = 0;
        let (mut case, _) = Case::of(seed, knobs, |_| ());
        let mut rest = case.clone();
        let half = rest.scenes.len() / 2;
        let instant = rest.scenes[half].at - 1;
        rest.scenes.retain(|scene| scene.at <= instant);
        assert_eq!(hash_of(&case, Some(instant)), hash_of(&rest, Some(instant)), "seed {seed}");
        // Every third one is gone.
        case.scenes.retain(|scene| scene.number % 3 > 0);
        assert_eq!(hash_of(&case, None), hash_of(&case, None), "seed {seed}");
        assert_ne!(hash_of(&case, None), hash_of(&rest, None), "seed {seed}");
    }
}

#[test]
fn a_bug_that_is_put_in_is_found_by_the_script_and_shrunk_to_a_few_deeds() {
    let mut shrunk = 0;
    for seed in 2000..2040 {
        let (mut knobs, _) = draw(seed);
        (knobs.protocol, knobs.breaks_promise, knobs.fork_every) = (Protocol::C, true, 0);
        let (case, _) = Case::of(seed, knobs, |_| ());
        let (Some(found), before) = (case.violation.clone(), case.scenes.len()) else { continue };
        if before < 50 {
            continue;
        }
        assert_eq!(case.play(0).violation.as_ref(), Some(&found), "seed {seed}");
        let asked = Cell::new(0);
        let enough = || asked.replace(asked.get() + 1) > 500;
        let mut shrink = Shrink::new(case, &enough).expect("the script does the same");
        shrink.run();
        let Shrink { case, .. } = shrink;
        let left = case.scenes.len();
        assert!(left * 5 <= before, "seed {seed}: {left} of {before} deeds");
        // What is left does it again.
        let again = case.play(0).violation.expect("it breaks something");
        assert_eq!(Some(&again), case.violation.as_ref(), "seed {seed}");
        assert_eq!(again.invariant, found.invariant, "seed {seed}");
        shrunk += 1;
        if shrunk == 3 {
            return;
        }
    }
    panic!("only {shrunk} of the seeds break anything");
}

#[test]
fn time_that_is_up_ends_it() {
    let (mut knobs, _) = draw(2000);
    (knobs.protocol, knobs.breaks_promise) = (Protocol::C, true);
    let (case, _) = Case::of(2000, knobs, |_| ());
    let mut shrink = Shrink::new(case, &|| true).expect("the script does the same");
    let before = shrink.case.scenes.len();
    shrink.run();
    assert_eq!((shrink.tried, shrink.case.scenes.len()), (1, before));
}

#[test]
fn what_it_takes_is_all_that_is_left() {
    let all: Vec<u32> = (0..100).collect();
    let mut asked = 0;
    let mut keeps = |items: &[u32]| {
        asked += 1;
        let takes = [3, 4, 57, 99].iter().all(|n| items.contains(n));
        takes.then(|| items.to_vec())
    };
    assert_eq!(minimize(all.clone(), &mut keeps), [3, 4, 57, 99]);
    assert!(asked < 150, "{asked}");
    // An odd sum of two at least: whatever is left, no single one can go.
    let odd = |items: &[u32]| items.len() > 1 && items.iter().sum::<u32>() % 2 == 1;
    let left = minimize((0..7).collect(), &mut |items| odd(items).then(|| items.to_vec()));
    assert!(odd(&left) && (0..left.len()).all(|i| !odd(&[&left[..i], &left[i + 1..]].concat())));
    // What keeps nothing is left alone; what takes nothing ends empty.
    assert_eq!(minimize(all.clone(), &mut |_| None), all);
    assert!(minimize(all, &mut |items| Some(items.to_vec())).is_empty());
}

//! What is left of a failing seed's faults is less, and fails as before.

use pygmy_sim::minimize::{RUNS_MAX, minimize};
use pygmy_sim::mistake::Mistake;
use pygmy_sim::schedule::Reduction;
use pygmy_sim::{Options, run, run_reduced, schedule_of};

#[test]
fn a_minimized_seed_has_fewer_faults_and_fails_as_before() {
    let options = Options { mistake: Some(Mistake::TornForDamage), print: false };
    // One that fails after so many faults that most of them are not needed.
    let fails_late = |seed: &u64| {
        let outcome = run(*seed, &options);
        let came = schedule_of(*seed).faults.iter().filter(|fault| fault.at <= outcome.at).count();
        outcome.failure.is_some() && came >= 25
    };
    let seed = (0..400).find(fails_late).expect("a seed that shows the mistake");
    let found = minimize(seed, &options).expect("it fails");
    let left = found.faults.len() + found.kinds.len();
    // Damage needs a flip or a sector that cannot be read, and mostly somebody who dies and looks.
    assert!((1..found.before / 2).contains(&left), "{left} of {}: {:?}", found.before, found.faults);
    let (before, after) = (run(seed, &options), run_reduced(seed, &options, &found.reduction));
    let invariant = |outcome: &pygmy_sim::Outcome| outcome.failure.as_ref().map(|failure| failure.violation.invariant);
    assert_eq!(invariant(&before), invariant(&after));
    // Nothing of what is left could be left out, too.
    assert!(found.runs < RUNS_MAX, "the search was ended");
    let fails = |reduction: &Reduction| invariant(&run_reduced(seed, &options, reduction)) == invariant(&before);
    for kind in found.kinds {
        let mut less = found.reduction.clone();
        less.kinds.insert(kind);
        assert!(!fails(&less), "{kind:?} is not needed");
    }
    for index in (0..schedule_of(seed).faults.len()).filter(|index| !found.reduction.faults.contains(index)) {
        let mut less = found.reduction.clone();
        less.faults.insert(index);
        assert!(!fails(&less), "fault {index} is not needed");
    }
    // Without the mistake it does not fail.
    assert!(minimize(seed, &Options { mistake: None, print: false }).is_none());
}

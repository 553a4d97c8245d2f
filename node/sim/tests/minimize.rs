//! What is left of a failing seed's faults is less, and fails as before.

use pygmy_sim::minimize::minimize;
use pygmy_sim::mistake::Mistake;
use pygmy_sim::{Options, run, run_reduced};

#[test]
fn a_minimized_seed_has_fewer_faults_and_fails_as_before() {
    let options = Options { mistake: Some(Mistake::TornForDamage), print: false };
    let seed = (0..200).find(|seed| run(*seed, &options).failure.is_some()).expect("a seed that shows the mistake");
    let found = minimize(seed, &options).expect("it fails");
    let left = found.faults.len() + found.kinds.len();
    // Damage needs a flip or a sector that cannot be read, and mostly somebody who dies and looks.
    assert!((1..found.before / 2).contains(&left), "{left} of {}: {:?}", found.before, found.faults);
    let (before, after) = (run(seed, &options), run_reduced(seed, &options, &found.reduction));
    let invariant = |outcome: &pygmy_sim::Outcome| outcome.failure.as_ref().map(|failure| failure.violation.invariant);
    assert_eq!(invariant(&before), invariant(&after));
    // Without what is left it does not fail.
    assert!(minimize(seed, &Options { mistake: None, print: false }).is_none());
}

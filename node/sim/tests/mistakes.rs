//! A simulator that finds nothing in a broken build is itself broken.

use pygmy_sim::mistake::Mistake;
use pygmy_sim::{Options, run};

/// Finds a mistake within so many seeds; the invariant that it broke.
fn found(name: &str, seeds: u64) -> String {
    let mistake = Mistake::named(name);
    assert!(mistake.is_some(), "{name} is no mistake");
    let mut outcomes = (0..seeds).map(|seed| run(seed, &Options { mistake, print: false }));
    let failure = outcomes.find_map(|outcome| outcome.failure);
    failure
        .map_or_else(|| panic!("{name} was not found in {seeds} seeds"), |failure| failure.violation.invariant.into())
}

#[test]
fn a_sample_of_mistakes_is_found() {
    for name in ["no-deduplication", "apply-uncommitted", "notice-before-sync", "retry-under-new-id", "never-fetch"] {
        found(name, 100);
    }
}

#[test]
fn forgotten_floors_show_as_stale_reads() {
    assert_eq!(found("forget-floor", 500), "I11");
}

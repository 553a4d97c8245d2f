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
    for name in ["no-deduplication", "apply-uncommitted", "remake-token", "retry-under-new-id", "never-fetch"] {
        found(name, 100);
    }
}

/// It takes an epoch that many have promised and that never begins, and whoever was cut off before it.
#[test]
fn a_longer_log_of_an_older_epoch_is_found_out() {
    let invariant = found("choose-by-length", 1_000);
    assert!(["I1", "I14"].contains(&&*invariant), "{invariant}");
}

#[test]
fn what_is_said_and_not_on_the_platter_is_found_where_it_is_said() {
    assert_eq!(found("ack-before-sync", 100), "I7");
    for name in ["promise-not-durable", "lose-vote"] {
        assert_eq!(found(name, 200), "I6", "{name}");
    }
}

#[test]
fn what_the_files_do_wrong_shows_when_they_are_opened() {
    for name in ["notice-before-sync", "torn-for-damage"] {
        assert_eq!(found(name, 200), "I7", "{name}");
    }
    assert_eq!(found("vote-before-sync", 400), "I6");
    // The log or the vote may be what is missing first.
    for name in ["forget-directory", "rename-before-sync", "retry-sync"] {
        let invariant = found(name, 200);
        assert!(["I6", "I7"].contains(&&*invariant), "{name}: {invariant}");
    }
}

#[test]
fn whoever_did_not_run_and_accuses_others_is_found() {
    assert_eq!(found("accuse-when-late", 200), "detector");
}

#[test]
fn who_says_that_it_lives_and_does_not_run_is_found() {
    assert_eq!(found("beats-from-a-thread", 200), "detector");
}

#[test]
fn requests_that_wait_for_a_suspect_are_found() {
    assert_eq!(found("keep-sending-to-suspects", 200), "dispatch");
}

#[test]
fn a_write_that_moves_under_another_number_is_found() {
    let invariant = found("move-under-new-id", 200);
    assert!(["I2", "I3", "I4"].contains(&&*invariant), "{invariant}");
}

#[test]
fn a_feed_that_goes_on_in_the_past_is_found() {
    assert_eq!(found("feed-resumed-backwards", 500), "feed");
}

#[test]
fn what_a_front_promises_is_held_against_it_when_it_answers() {
    assert_eq!(found("forget-floor", 500), "I12");
    assert_eq!(found("fresh-on-arrival", 500), "I12");
}

#[test]
fn a_cache_that_keeps_the_wrong_thing_is_found_out() {
    let invariant = found("fill-races-invalidation", 500);
    assert!(["I12", "reads"].contains(&&*invariant), "{invariant}");
}

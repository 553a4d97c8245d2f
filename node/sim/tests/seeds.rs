//! Seeds in plain `cargo test`. `PYGMY_SIM_SEED=N` runs that one alone and prints its last events.

use pygmy_sim::rare::Rare;
use pygmy_sim::{Options, Outcome, run};

const SEEDS: u64 = 100;

fn must_hold(outcome: &Outcome) {
    if let Some(failure) = &outcome.failure {
        let tail = failure.tail.join("\n");
        let (seed, violation) = (outcome.seed, &failure.violation);
        panic!("{tail}\nPYGMY_SIM_SEED={seed}: {}: {}", violation.invariant, violation.detail);
    }
}

#[test]
fn nothing_breaks_in_a_hundred_seeds() {
    if let Some(seed) = std::env::var("PYGMY_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return must_hold(&run(seed, &Options::default()));
    }
    let mut rare = Rare::default();
    for seed in 0..SEEDS {
        let outcome = run(seed, &Options::default());
        must_hold(&outcome);
        rare.add(&outcome.rare);
    }
    // Faults that never happened prove nothing.
    let mut often =
        vec![rare.holder_crashes, rare.all_crashes, rare.wipes, rare.cuts, rare.truncations, rare.epochs_started];
    often.extend([rare.power_failures, rare.damaged_logs, rare.disks_healed, rare.votes_from_a_copy, rare.recycled]);
    often.extend([rare.disk_errors, rare.full_disks_recovered, rare.starts_refused]);
    often.extend([rare.snapshots_taken, rare.logs_cut, rare.snapshots_found, rare.snapshots_received]);
    often.extend([
        rare.cache_hits,
        rare.cache_invalidations,
        rare.fills_refused,
        rare.caches_emptied,
        rare.feeds_moved,
    ]);
    often.extend([rare.reads_of_others_writes, rare.cache_coalesced, rare.feeds_cut, rare.fed_paused]);
    often.extend([rare.silences_known, rare.suspects_spared]);
    assert!(often.iter().all(|count| *count > 0), "{rare:?}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 11, 56] {
        let (first, second) = (run(seed, &Options::default()), run(seed, &Options::default()));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!((first.events, first.at, first.rare), (second.events, second.at, second.rare), "seed {seed}");
    }
    assert_ne!(run(3, &Options::default()).trace_hash, run(4, &Options::default()).trace_hash);
}

/// A learner had promised itself an epoch that nobody else came into, and took nothing of the others' any more.
#[test]
fn a_wiped_catalog_that_asked_for_an_epoch_in_vain_learns_on() {
    must_hold(&run(5040498, &Options::default()));
}

/// A change of the voters named all servers again, and a front forgot that it suspected one of them.
#[test]
fn a_change_of_the_voters_brings_no_suspect_back() {
    must_hold(&run(16, &Options::default()));
}

/// A catalog was suspected before it was known that it had a place, and was given requests all the same.
#[test]
fn who_takes_a_place_and_is_silent_gets_nothing() {
    must_hold(&run(8001308, &Options::default()));
}

/// A catalog took a place with its link up already, and requests stayed with one that was suspected.
#[test]
fn requests_move_to_who_takes_a_place() {
    must_hold(&run(9000000, &Options::default()));
}

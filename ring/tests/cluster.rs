//! Whole clusters under faults, one seed each. `RING_SEED=7 cargo test -p pygmy-ring --test cluster replay -- --nocapture`
//! runs one of them with a trace; `RING_SEEDS=100000` runs that many, `RING_FROM=5000` from there on.

mod world;

use std::panic::catch_unwind;

use world::{Mix, Plan, Summary, run};

/// In so many seeds every rare state is reached.
const RARE_SEEDS: u64 = 1_000;

fn plan(seed: u64) -> Plan {
    Plan { seed, mistake: None, mix: Mix::All, trace: false }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What becomes of one seed. An assertion of the replica itself is a failure like any other.
fn outcome(seed: u64) -> Result<Summary, String> {
    catch_unwind(|| run(plan(seed))).unwrap_or_else(|_| Err(format!("seed {seed}: an invariant of the replica")))
}

#[test]
fn every_seed_is_safe_and_comes_to_an_end() {
    let mut total = Summary::default();
    let from = number("RING_FROM").unwrap_or(0);
    let seeds = number("RING_SEEDS").unwrap_or(250);
    let mut failed = Vec::new();
    for seed in from..from + seeds {
        let summary = match outcome(seed) {
            Ok(summary) => summary,
            Err(why) => {
                println!("{why}");
                failed.push(seed);
                continue;
            }
        };
        total.add(&summary);
    }
    println!("{total:?}");
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
    // Faults that never happened prove nothing.
    assert!(total.deaths > 0 && total.breaks > 0 && total.pauses > 0 && total.wipes > 0 && total.partitions > 0);
    assert!(total.snapshots > 0 && total.changes > 0);
    let counted = total.counters;
    assert!(counted.fetches_sent > 0 && counted.tokens_resent > 0 && counted.handed_back > 0);
    assert!(counted.duplicates_answered > 0 && counted.epochs_started > 0 && counted.truncations > 0);
    assert!(counted.unknown > 0 && counted.configurations > 0);
    assert!(counted.barriers_answered > 0 && counted.barriers_repeated > 0);
    assert!(seeds < RARE_SEEDS || total.rare.never().is_empty(), "never reached: {:?}", total.rare.never());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(plan(3)).unwrap(), run(plan(3)).unwrap());
}

#[test]
fn replay() {
    let Some(seed) = number("RING_SEED") else { return };
    let summary = run(Plan { trace: true, ..plan(seed) }).unwrap_or_else(|why| panic!("{why}"));
    println!("{summary:?}");
}

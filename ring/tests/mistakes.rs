//! A simulation that finds nothing in a broken build is itself broken: every planted mistake must be found.
//!
//! `cargo test -p pygmy-ring --features mistakes --test mistakes -- --nocapture` prints after how many seeds, and what.

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pygmy_ring::Mistake;
use world::{Plan, run};

const SEEDS_MAX: u64 = 2_000;

/// The first seed that finds `mistake`, and what it says. An assertion of the replica itself counts too.
fn find(mistake: Mistake) -> Option<(u64, String)> {
    (0..SEEDS_MAX).find_map(|seed| {
        let plan = Plan { seed, mistake: Some(mistake), trace: false };
        match catch_unwind(AssertUnwindSafe(|| run(plan))) {
            Ok(Ok(_)) => None,
            Ok(Err(why)) => Some((seed, why)),
            Err(_) => Some((seed, "an invariant of the replica".into())),
        }
    })
}

#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        let began = std::time::Instant::now();
        let found = find(mistake);
        eprintln!("{:?}", began.elapsed());
        match found {
            Some((seed, why)) => {
                println!("{mistake:?}: found after {} seeds: {}", seed + 1, why.chars().take(160).collect::<String>());
            }
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}

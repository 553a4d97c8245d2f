//! A simulation that finds nothing in a broken build is itself broken: every planted mistake must be found.
//!
//! `cargo test -p pygmy-ring --features mistakes --release --test mistakes -- --nocapture` prints after how many seeds,
//! and what. A seed counts only if it passes without the mistake. `RING_MISTAKE=Barrier` searches those alone whose names
//! hold that.

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use pygmy_ring::Mistake;
use world::{Mix, Plan, run};

/// Within so many seeds each is found.
const SEEDS_MAX: u64 = 2_000;

/// Which faults bring a mistake to light. Heartbeats make good within 50 ms what some of them leave unsaid, and another
/// epoch a token that was lost for nothing, so these show only where no heartbeat arrives and time is short; others need
/// what is rare when everything goes wrong at once.
fn mix(mistake: Mistake) -> Mix {
    match mistake {
        Mistake::ForgetWant | Mistake::ForgetPassedToken | Mistake::NoAckOnReturn | Mistake::NeverNotify => Mix::Links,
        Mistake::CountPromisesByOwnConfig | Mistake::DirectSwap | Mistake::ChangeTooEarly => Mix::Changes,
        Mistake::EmptyDiskVotes => Mix::Wipes,
        Mistake::ReadWithoutBarrier
        | Mistake::BarrierOfFew
        | Mistake::BarrierOfEpochAlone
        | Mistake::BarrierServesLater
        | Mistake::BarrierOfAnyEpoch => Mix::Reads,
        _ => Mix::All,
    }
}

/// What a run says. An assertion of the replica itself counts too.
fn outcome(plan: Plan) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(plan))) {
        Ok(outcome) => outcome.err(),
        Err(_) => Some(format!("seed {}: an invariant of the replica", plan.seed)),
    }
}

/// The first seed that finds `mistake`, and what it says.
fn find(mistake: Mistake) -> Option<(u64, String)> {
    (0..SEEDS_MAX).find_map(|seed| {
        let plan = Plan { seed, mistake: Some(mistake), mix: mix(mistake), trace: false };
        let why = outcome(plan)?;
        outcome(Plan { mistake: None, ..plan }).is_none().then_some((seed, why))
    })
}

#[test]
fn every_planted_mistake_is_found() {
    // What a replica says as it dies is of no interest here.
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("RING_MISTAKE").unwrap_or_default();
    let wanted: Vec<Mistake> =
        Mistake::ALL.into_iter().filter(|mistake| format!("{mistake:?}").contains(&only)).collect();
    let next = AtomicUsize::new(0);
    let search = || {
        let mut missed = Vec::new();
        while let Some(mistake) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            match find(*mistake) {
                Some((seed, why)) => {
                    println!("{mistake:?}: {} seeds: {}", seed + 1, why.chars().take(160).collect::<String>());
                }
                None => missed.push(*mistake),
            }
        }
        missed
    };
    let missed: Vec<Mistake> = std::thread::scope(|scope| {
        let searches: Vec<_> = (0..2).map(|_| scope.spawn(search)).collect();
        searches.into_iter().flat_map(|search| search.join().unwrap_or_default()).collect()
    });
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}

//! A deterministic simulator of a whole cluster: the real nodes, codec and framing, over a network, clocks, log writers
//! and clients that one seed decides, in one thread. Checkers watch every step; `README.md` explains what they demand,
//! how to read a trace and how each known mistake is found.
//!
//! ```
//! let outcome = pygmy_sim::run(7, &pygmy_sim::Options::default());
//! assert!(outcome.failure.is_none());
//! ```

pub mod chance;
pub mod check;
pub mod client;
pub mod disk;
mod disks;
pub mod events;
mod faults;
pub mod host;
mod lives;
pub mod minimize;
pub mod mistake;
pub mod net;
mod operator;
pub mod plan;
pub mod rare;
pub mod reads;
pub mod schedule;
mod settle;
pub mod threads;
pub mod trace;
mod wires;
pub mod workload;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use check::Violation;
use mistake::Mistake;
use rare::Rare;
use schedule::{Reduction, Schedule};
use trace::Trace;
use world::World;

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A mistake to plant.
    pub mistake: Option<Mistake>,
    /// Whether every event is printed.
    pub print: bool,
}

/// What a seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash over all events: the same in every run of the seed.
    pub trace_hash: u64,
    /// Events.
    pub events: u64,
    /// Simulated nanoseconds.
    pub at: u64,
    /// Rare states reached.
    pub rare: Rare,
    /// What does not hold, if anything.
    pub failure: Option<Failure>,
}

/// An invariant that does not hold, and what led there.
#[derive(Debug)]
pub struct Failure {
    /// What was found.
    pub violation: Violation,
    /// The last events.
    pub tail: Vec<String>,
}

/// Runs one seed. One that fails is run again to show its last events.
pub fn run(seed: u64, options: &Options) -> Outcome {
    run_reduced(seed, options, &Reduction::default())
}

/// As [`run`], with some of the seed's faults left out.
pub fn run_reduced(seed: u64, options: &Options, reduction: &Reduction) -> Outcome {
    if options.print {
        return run_with(seed, options, reduction, Trace::printed());
    }
    let outcome = run_silently(seed, options, reduction);
    if outcome.failure.is_none() { outcome } else { run_with(seed, options, reduction, Trace::last_lines()) }
}

fn run_silently(seed: u64, options: &Options, reduction: &Reduction) -> Outcome {
    run_with(seed, options, reduction, Trace::silent())
}

/// The faults that a seed has before it.
pub fn schedule_of(seed: u64) -> Schedule {
    World::new(seed, None, Trace::silent(), &Reduction::default()).schedule
}

fn run_with(seed: u64, options: &Options, reduction: &Reduction, trace: Trace) -> Outcome {
    let mut world = World::new(seed, options.mistake, trace, reduction);
    // A state machine that finds its own invariant broken panics: that is a finding like any other.
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { invariant: "panic", detail: text.unwrap_or_else(|| "without a word".to_owned()) })
    });
    let failure = result.err().map(|violation| Failure { violation, tail: world.trace.take_lines() });
    Outcome {
        seed,
        trace_hash: world.trace.hash(),
        events: world.trace.events(),
        at: world.at,
        rare: world.rare,
        failure,
    }
}

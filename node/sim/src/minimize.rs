//! Finds out which of a failing seed's faults it needs to fail.
//!
//! Faults are left out, half of them at first, then smaller parts, as long as the same invariant breaks: delta debugging.
//! Leaving one out changes what comes after it, so what is left is a small plan that fails, not the smallest one.

use std::collections::BTreeSet;

use crate::plan::MS;
use crate::schedule::{Planned, Quiet, Reduction, Schedule};
use crate::{Options, Outcome, run_silently, schedule_of};

/// More runs than this are not spent.
pub const RUNS_MAX: u64 = 600;

/// What a failing seed needs.
#[derive(Debug)]
pub struct Minimized {
    /// What is left out.
    pub reduction: Reduction,
    /// The faults that are left.
    pub faults: Vec<Planned>,
    /// The kinds without a moment that are left.
    pub kinds: Vec<Quiet>,
    /// Faults that had come before it failed, and kinds, at first.
    pub before: usize,
    /// How often it was run.
    pub runs: u64,
}

/// Something that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Fault(usize),
    Kind(Quiet),
}

struct Search<'a> {
    seed: u64,
    options: &'a Options,
    invariant: &'static str,
    all: Vec<Part>,
    runs: u64,
    chaos: Option<u64>,
}

/// Minimizes a seed; `None` when it does not fail.
pub fn minimize(seed: u64, options: &Options) -> Option<Minimized> {
    let first = run_silently(seed, options, &Reduction::default());
    let invariant = first.failure.as_ref()?.violation.invariant;
    let schedule = schedule_of(seed);
    let faults = (0..schedule.faults.len()).map(Part::Fault);
    let all: Vec<Part> = faults.chain(Quiet::ALL.map(Part::Kind)).collect();
    let mut search = Search { seed, options, invariant, all, runs: 1, chaos: None };
    let mut kept = search.all.clone();
    kept.retain(|part| has_come(*part, &schedule, &first));
    let before = kept.len();
    loop {
        let parts = kept.len();
        kept = shrink(kept, |kept| search.fails(kept));
        let shorter = search.shorten(&kept);
        if !shorter && kept.len() == parts {
            break;
        }
    }
    Some(search.result(&kept, &schedule, before))
}

/// What comes later than the failure has no part in it.
fn has_come(part: Part, schedule: &Schedule, outcome: &Outcome) -> bool {
    match part {
        Part::Fault(index) => schedule.faults.get(index).is_some_and(|fault| fault.at <= outcome.at),
        Part::Kind(_) => true,
    }
}

/// Takes parts away as long as it still fails without them.
fn shrink<T: Copy>(mut kept: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut pieces = 2;
    while !kept.is_empty() {
        let size = kept.len().div_ceil(pieces);
        let without = |from: usize| -> Vec<T> {
            kept[..from].iter().chain(&kept[(from + size).min(kept.len())..]).copied().collect()
        };
        match (0..kept.len()).step_by(size).map(without).find(|rest| fails(rest)) {
            Some(rest) => {
                kept = rest;
                pieces = (pieces - 1).max(2);
            }
            None if size == 1 => break,
            None => pieces = (2 * pieces).min(kept.len()),
        }
    }
    kept
}

impl Search<'_> {
    fn reduction(&self, kept: &[Part]) -> Reduction {
        let gone = || self.all.iter().filter(|part| !kept.contains(part));
        let faults = gone().filter_map(|part| if let Part::Fault(index) = part { Some(*index) } else { None });
        let kinds = gone().filter_map(|part| if let Part::Kind(kind) = part { Some(*kind) } else { None });
        Reduction { faults: faults.collect(), kinds: kinds.collect(), chaos: self.chaos }
    }

    fn fails(&mut self, kept: &[Part]) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let outcome = run_silently(self.seed, self.options, &self.reduction(kept));
        outcome.failure.is_some_and(|failure| failure.violation.invariant == self.invariant)
    }

    /// Lets the faults end earlier; whether that is possible.
    fn shorten(&mut self, kept: &[Part]) -> bool {
        let longest = self.chaos.unwrap_or(u64::MAX).min(crate::plan::CHAOS_MAX);
        let mut chaos = longest;
        while chaos > MS {
            let before = self.chaos.replace(chaos / 2);
            if !self.fails(kept) {
                self.chaos = before;
                break;
            }
            chaos /= 2;
        }
        chaos < longest
    }

    fn result(&self, kept: &[Part], schedule: &Schedule, before: usize) -> Minimized {
        let reduction = self.reduction(kept);
        let ends = reduction.chaos.unwrap_or(u64::MAX);
        let left = schedule
            .faults
            .iter()
            .enumerate()
            .filter(|(index, fault)| !reduction.faults.contains(index) && fault.at < ends);
        let mut faults: Vec<Planned> = left.map(|(_, fault)| *fault).collect();
        faults.sort_unstable_by_key(|fault| fault.at);
        let gone: &BTreeSet<Quiet> = &reduction.kinds;
        let kinds = Quiet::ALL.into_iter().filter(|kind| !gone.contains(kind)).collect();
        Minimized { faults, kinds, before, runs: self.runs, reduction }
    }
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        for needed in [vec![], vec![7], vec![0, 99], vec![3, 4, 50]] {
            let kept = shrink((0..100).collect(), |rest| needed.iter().all(|part| rest.contains(part)));
            assert_eq!(kept, needed);
        }
    }
}

//! One measured point of a series: what a load came to, and the median of several such loads.

use serde::Serialize;

use crate::load::mix::RequestKind;
use crate::load::plan::LoadPlan;
use crate::load::record::{Outcome, Record};
use crate::load::report::Latency;

/// What the requests of one kind took that were done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Taken {
    /// The kind.
    pub request: RequestKind,
    /// From the moment each was due (open loop) or sent (closed loop) to its answer.
    #[serde(flatten)]
    pub latency: Latency,
}

/// A figure of a latency, with its name.
pub type Figure = (&'static str, fn(&Latency) -> f64);

/// What a load came to, or the median of several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Requests that were due, a second.
    pub offered_per_s: f64,
    /// Answers that said "done", a second.
    pub done_per_s: f64,
    /// Requests that were due and never sent.
    pub unsent: u64,
    /// Requests that were refused, turned away or lost.
    pub failed: u64,
    /// What those took that were done.
    pub taken: Vec<Taken>,
}

impl Point {
    /// That of one load.
    pub fn of(plan: &LoadPlan, record: &Record) -> Self {
        let per_s = |count: u64| count as f64 / plan.duration.as_secs_f64();
        let (mut taken, mut failed) = (Vec::new(), 0);
        for ((request, outcome), times) in record.latencies.iter() {
            if outcome == Outcome::Ok {
                taken.push(Taken { request, latency: Latency::of(times) });
            } else {
                failed += times.len();
            }
        }
        Self { offered_per_s: per_s(record.due), done_per_s: per_s(record.done), unsent: record.unsent, failed, taken }
    }

    /// Of each figure the median by itself; `None`: there are no points.
    pub fn median(points: &[Point]) -> Option<Self> {
        if points.is_empty() {
            return None;
        }
        let whole = |of: fn(&Point) -> u64| median(points.iter().map(|point| of(point) as f64)) as u64;
        let latency = |request: RequestKind| {
            let own = points.iter().flat_map(|point| &point.taken).filter(|taken| taken.request == request);
            let all: Vec<Latency> = own.map(|taken| taken.latency).collect();
            let figure = |of: fn(&Latency) -> f64| median(all.iter().map(of));
            Latency {
                p50_us: figure(|own| own.p50_us),
                p90_us: figure(|own| own.p90_us),
                p99_us: figure(|own| own.p99_us),
                p999_us: figure(|own| own.p999_us),
                max_us: figure(|own| own.max_us),
            }
        };
        let taken = |request: RequestKind| Taken { request, latency: latency(request) };
        Some(Self {
            offered_per_s: median(points.iter().map(|point| point.offered_per_s)),
            done_per_s: median(points.iter().map(|point| point.done_per_s)),
            unsent: whole(|point| point.unsent),
            failed: whole(|point| point.failed),
            taken: kinds(points.iter()).into_iter().map(taken).collect(),
        })
    }

    /// The worst 99th percentile of any kind, in microseconds; nothing done: endless.
    pub fn p99_us(&self) -> f64 {
        self.taken.iter().map(|taken| taken.latency.p99_us).max_by(f64::total_cmp).unwrap_or(f64::INFINITY)
    }
}

/// Kinds of requests of which any were done at one of these points.
pub fn kinds<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<RequestKind> {
    let mut kinds: Vec<RequestKind> = points.flat_map(|point| &point.taken).map(|taken| taken.request).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The median of figures; of an even number the higher of the two in the middle; of none 0.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(buys_us: &[u64], busy: u64) -> Record {
        let mut record = Record::new().unwrap();
        buys_us.iter().for_each(|us| record.latencies.add((RequestKind::Buy, Outcome::Ok), us * 1_000));
        (0..busy).for_each(|_| record.latencies.add((RequestKind::Buy, Outcome::Busy), 1));
        (record.due, record.done) = (buys_us.len() as u64 + busy, buys_us.len() as u64);
        record
    }

    fn point(buys_us: &[u64], busy: u64) -> Point {
        let plan = LoadPlan::new("buy=1".parse().unwrap());
        Point::of(&plan, &record(buys_us, busy))
    }

    #[test]
    fn what_was_turned_away_is_neither_done_nor_fast() {
        let one = point(&[100, 300], 3);
        assert_eq!((one.offered_per_s, one.done_per_s, one.failed), (0.5, 0.2, 3));
        assert!((one.p99_us() / 300.0 - 1.0).abs() < 0.01, "{one:?}");
        assert_eq!(point(&[], 1).p99_us(), f64::INFINITY);
    }

    #[test]
    fn the_median_of_each_figure_is_taken_by_itself() {
        let all = [point(&[100], 9), point(&[900], 0), point(&[200, 200], 1)];
        let median = Point::median(&all).unwrap();
        assert_eq!((median.done_per_s, median.failed), (0.1, 1));
        assert!((median.p99_us() / 200.0 - 1.0).abs() < 0.01, "{median:?}");
        assert_eq!(Point::median(&[]), None);
        // A round in which nothing was done does not hide the others.
        let median = Point::median(&[point(&[], 0), point(&[300], 0), point(&[300], 0)]).unwrap();
        assert_eq!((median.done_per_s, median.taken.len()), (0.1, 1));
    }
}

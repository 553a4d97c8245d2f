//! What a load run found, for people and for programs.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::mix::{Popularity, RequestKind};
use super::plan::LoadPlan;
use super::record::{Outcome, Record};

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50_us: f64,
    /// One in ten was slower.
    pub p90_us: f64,
    /// One in a hundred was slower.
    pub p99_us: f64,
    /// One in a thousand was slower.
    pub p999_us: f64,
    /// The slowest, as measured: not clamped.
    pub max_us: f64,
}

impl Latency {
    /// That of times in nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p999_us: at(0.999), max_us: at(1.0) }
    }
}

/// Requests of one kind that ended in the same way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was asked.
    pub request: RequestKind,
    /// What became of it: `ok`, `busy`, `lost`, or the name of an error code.
    pub result: String,
    /// How many.
    pub count: u64,
    /// From the moment it was due (open loop) or sent (closed loop) to its answer.
    #[serde(flatten)]
    pub latency: Latency,
}

/// What a load run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// True when this program was built without optimisation: then its figures are no measurement.
    pub debug_build: bool,
    /// True when requests were sent at a given rate, false when each waited for one before it.
    pub open_loop: bool,
    /// How requests at a given rate spread over time: `fixed` or `poisson`.
    pub arrivals: Option<&'static str>,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each, at most.
    pub depth: usize,
    /// Threads of this program.
    pub threads: usize,
    /// Shares of the kinds of requests.
    pub mix: String,
    /// How requests spread over the books.
    pub books: String,
    /// Books to choose from.
    pub books_count: usize,
    /// Length of the window that was measured, in seconds.
    pub window_s: f64,
    /// Requests that were due in the window, per second.
    pub offered_per_s: f64,
    /// Answers of any kind that came in the window, per second.
    pub answered_per_s: f64,
    /// Answers in the window that said "done", per second.
    pub done_per_s: f64,
    /// Requests that were due in the window and never sent: no connection had room for them until the end.
    pub unsent: u64,
    /// How long after they were due requests left this program.
    pub lateness: Latency,
    /// Counts and latencies of the requests that were due in the window.
    pub rows: Vec<Row>,
}

impl LoadReport {
    /// That of a load that was run.
    pub fn new(plan: &LoadPlan, popularity: &Popularity, books_count: usize, record: &Record) -> Self {
        let window_s = plan.duration.as_secs_f64();
        let per_s = |count: u64| count as f64 / window_s;
        let row = |((request, outcome), histogram): (&(RequestKind, Outcome), &Histogram<u64>)| Row {
            request: *request,
            result: outcome.name(),
            count: histogram.len(),
            latency: Latency::of(histogram),
        };
        Self {
            debug_build: cfg!(debug_assertions),
            open_loop: plan.rate.is_some(),
            arrivals: plan.rate.map(|_| plan.arrivals.name()),
            connections: plan.connections,
            depth: plan.depth,
            threads: plan.threads,
            mix: plan.mix.to_string(),
            books: popularity.to_string(),
            books_count,
            window_s,
            offered_per_s: per_s(record.due),
            answered_per_s: per_s(record.answered),
            done_per_s: per_s(record.done),
            unsent: record.unsent,
            lateness: Latency::of(&record.lateness),
            rows: record.latencies.iter().map(row).collect(),
        }
    }

    /// What became of requests of one kind in one way.
    pub fn row(&self, request: RequestKind, result: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.request == request && row.result == result)
    }

    /// Whether anything at all was done.
    pub fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.result != "ok")
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.debug_build {
            writeln!(out, "DEBUG BUILD: these figures measure the compiler's mood, not the store\n")?;
        }
        let Self { connections, depth, threads, mix, books, books_count, window_s, .. } = self;
        writeln!(out, "{mix} over {books_count} books ({books}); {connections} connections, {threads} threads")?;
        if let Some(arrivals) = self.arrivals {
            writeln!(out, "open loop ({arrivals}), at most {depth} in flight on each; window {window_s:.1} s")?;
            writeln!(out, "offered   {:>12.0} requests/s", self.offered_per_s)?;
        } else {
            writeln!(out, "closed loop, {depth} in flight on each; window {window_s:.1} s")?;
        }
        writeln!(out, "answered  {:>12.0} /s", self.answered_per_s)?;
        writeln!(out, "done      {:>12.0} /s\n", self.done_per_s)?;
        writeln!(
            out,
            "{:<8} {:<18} {:>10} {:>10} {:>10} {:>10} {:>10} {:>11}",
            "request", "result", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for row in &self.rows {
            let Row { request, result, count, latency } = row;
            let Latency { p50_us, p90_us, p99_us, p999_us, max_us } = latency;
            let times = [p50_us, p90_us, p99_us, p999_us].map(|us| format!("{:>10}", micros(*us))).join(" ");
            writeln!(out, "{:<8} {result:<18} {count:>10} {times} {:>11}", request.name(), micros(*max_us))?;
        }
        self.explain(out)
    }

    /// What the numbers mean, and what to distrust.
    fn explain(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        if self.open_loop {
            writeln!(
                out,
                "Latency runs from the moment a request was due, so that waiting behind a stalled one counts."
            )?;
            let Latency { p50_us, p99_us, max_us, .. } = self.lateness;
            let [p50, p99, max] = [p50_us, p99_us, max_us].map(micros);
            writeln!(out, "Requests left this program late by p50 {p50}, p99 {p99}, max {max}.")?;
        } else {
            writeln!(
                out,
                "Latency runs from the moment a request was sent. In a closed loop a slow answer delays the requests"
            )?;
            writeln!(out, "behind it unseen: take the rate from here, and latencies from a run with --rate.")?;
        }
        if self.unsent > 0 {
            writeln!(
                out,
                "{} requests were due and never sent: the store or this program is overloaded, and the latencies",
                self.unsent
            )?;
            writeln!(out, "above lack the worst. Offer less.")?;
        }
        Ok(())
    }
}

/// Microseconds with a unit that suits them.
fn micros(us: f64) -> String {
    if us < 1_000.0 {
        format!("{us:.0} us")
    } else if us < 1_000_000.0 {
        format!("{:.2} ms", us / 1_000.0)
    } else {
        format!("{:.2} s", us / 1_000_000.0)
    }
}

//! What a load run found, for people and for programs.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::costs::{Cost, Costs};
use super::mix::{Popularity, RequestKind};
use super::plan::LoadPlan;
use super::record::Record;
use super::series::Key;
use super::traces::{Band, Breakdown};

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
    /// Where the time of those went that were traced.
    pub breakdowns: Vec<Breakdown>,
    /// What the load cost, where that was measured.
    pub costs: Option<Costs>,
}

impl LoadReport {
    /// That of a load that was run.
    pub fn new(plan: &LoadPlan, popularity: &Popularity, books_count: usize, record: &Record) -> Self {
        let window_s = plan.duration.as_secs_f64();
        let per_s = |count: u64| count as f64 / window_s;
        let row = |((request, outcome), histogram): (Key, &Histogram<u64>)| Row {
            request,
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
            breakdowns: record.traces.breakdowns(),
            costs: None,
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
        self.explain(out)?;
        self.breakdowns.iter().try_for_each(|breakdown| print_breakdown(out, breakdown))?;
        self.costs.as_ref().map_or(Ok(()), |costs| self.print_costs(out, costs))
    }

    /// Requests that were answered in the window.
    pub fn answered(&self) -> f64 {
        self.answered_per_s * self.window_s
    }

    fn print_costs(&self, out: &mut impl Write, costs: &Costs) -> io::Result<()> {
        writeln!(out, "\nWhat it took, for each 1,000 of the {:.0} requests that were answered:", self.answered())?;
        let heads = ["CPU ms", "calls", "syncs", "KiB in", "KiB out", "KiB disk", "switches"];
        writeln!(out, "{:<16}{}", "", heads.map(|head| format!(" {head:>9}")).concat())?;
        for cost in costs.rows() {
            let cells = per_thousand(cost, self.answered()).map(|value| match value {
                Some(value) => format!(" {value:>9.1}"),
                None => format!(" {:>9}", "-"),
            });
            writeln!(out, "{:<16}{}", cost.name, cells.concat())?;
        }
        costs.gaps().iter().try_for_each(|gap| writeln!(out, "{gap}"))
    }

    /// What the numbers mean, and what to distrust.
    fn explain(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{}", self.latency_means())?;
        if self.open_loop {
            let Latency { p50_us, p99_us, max_us, .. } = self.lateness;
            let [p50, p99, max] = [p50_us, p99_us, max_us].map(micros);
            writeln!(out, "Requests left this program late by p50 {p50}, p99 {p99}, max {max}.")?;
        }
        self.overload().map_or(Ok(()), |why| writeln!(out, "{why}"))
    }

    /// From when on latency is measured, and what follows from that.
    pub(super) fn latency_means(&self) -> &'static str {
        if self.open_loop {
            "Latency runs from the moment a request was due, so that waiting behind a stalled one counts."
        } else {
            "Latency runs from the moment a request was sent. In a closed loop a slow answer delays the requests\n\
             behind it unseen: take the rate from here, and latencies from a run with --rate."
        }
    }

    /// Why the latencies are not to be believed, if they are not.
    pub(super) fn overload(&self) -> Option<String> {
        (self.unsent > 0).then(|| {
            format!(
                "{} requests were due and never sent: the store or this program is overloaded, and the latencies\n\
                 above lack the worst. Offer less.",
                self.unsent
            )
        })
    }
}

/// CPU milliseconds, system calls, syncs, KiB received, sent and written, context switches, for each 1,000 requests.
fn per_thousand(cost: &Cost, requests: f64) -> [Option<f64>; 7] {
    let each = |value: Option<f64>, unit: f64| value.map(|value| value / unit * 1_000.0 / requests.max(1.0));
    let count = |value: Option<u64>| value.map(|value| value as f64);
    let Cost { cpu_s, system_calls, syncs, received, sent, written, switches, .. } = cost;
    [
        each(*cpu_s, 1e-3),
        each(count(*system_calls), 1.0),
        each(count(*syncs), 1.0),
        each(count(*received), 1_024.0),
        each(count(*sent), 1_024.0),
        each(count(*written), 1_024.0),
        each(count(*switches), 1.0),
    ]
}

/// Means of each band, one column each, and the 99th percentiles.
fn print_breakdown(out: &mut impl Write, breakdown: &Breakdown) -> io::Result<()> {
    let Breakdown { kind, count, bands, p99_s, total_p99_s } = breakdown;
    writeln!(out, "\nWhere the time of {count} traced requests {} went, in the mean:", kind.name())?;
    let head = |name: &str| format!(" {name:>18}");
    let heads: String = bands.iter().map(|band| head(band.name)).collect();
    writeln!(out, "{:<16}{heads}{}", "", head("p99 by itself"))?;
    for tier in breakdown.tiers() {
        let seconds = bands.iter().map(|band| band.tiers_s[tier as usize]).chain([p99_s[tier as usize]]);
        let cells: String = seconds.map(|seconds| head(&micros(seconds * 1e6))).collect();
        writeln!(out, "{:<16}{cells}", tier.name())?;
    }
    let totals = bands.iter().map(Band::total_s).chain([*total_p99_s]);
    let cells: String = totals.map(|seconds| head(&micros(seconds * 1e6))).collect();
    writeln!(out, "{:<16}{cells}", "all of it")
}

/// Microseconds with a unit that suits them.
pub(crate) fn micros(us: f64) -> String {
    if us < 1_000.0 {
        format!("{us:.0} us")
    } else if us < 1_000_000.0 {
        format!("{:.2} ms", us / 1_000.0)
    } else {
        format!("{:.2} s", us / 1_000_000.0)
    }
}

//! What a load found, as numbers and panels of a run.

use super::costs::Cost;
use super::keep;
use super::mix::RequestKind;
use super::record::{Outcome, Record};
use super::report::LoadReport;
use super::series::{INTERVAL_NS, Key, Sparse};
use super::traces::{Band, Breakdown, Tier};
use crate::run::{
    Axis, Better, Cell, Distribution, Line, Panel, Percentiles, Run, Stack, Table, Timeline, Track, Unit,
};

/// Adds the numbers, panels and notes of a load.
pub(super) fn fill(run: &mut Run, report: &LoadReport, record: &Record) {
    numbers(run, report);
    notes(run, report);
    run.panels.push(results(report));
    let lines = record.latencies.iter().map(|(key, times)| Distribution::of(name(key), times)).collect();
    run.panels.push(Panel::Percentiles(Percentiles { title: "Latency".into(), lines }));
    run.panels.push(timeline(record, report.window_s));
    for breakdown in &report.breakdowns {
        run.panels.push(stack(breakdown));
        run.panels.push(tiers(breakdown));
    }
    if let Some(costs) = &report.costs {
        let rows = || costs.rows();
        run.panels.push(usage("What each process used", rows(), None));
        run.panels.push(usage("What each process used for 1,000 requests", rows(), Some(report.answered())));
    }
}

/// How a kind and result is called where both stand together.
fn name((kind, outcome): Key) -> String {
    format!("{} {}", kind.name(), outcome.name())
}

fn numbers(run: &mut Run, report: &LoadReport) {
    run.number("offered", report.offered_per_s, Unit::PerSecond, Better::Neither);
    run.number("answered", report.answered_per_s, Unit::PerSecond, Better::Higher);
    run.number("done", report.done_per_s, Unit::PerSecond, Better::Higher);
    run.number("unsent", report.unsent as f64, Unit::Count, Better::Lower);
    run.number("lateness p99", report.lateness.p99_us / 1e6, Unit::Seconds, Better::Lower);
    for kind in RequestKind::ALL {
        let Some(row) = report.row(kind, "ok") else { continue };
        let name = kind.name();
        run.number(format!("{name} done"), row.count as f64 / report.window_s, Unit::PerSecond, Better::Higher);
        let latency = row.latency;
        let times =
            [("p50", latency.p50_us), ("p99", latency.p99_us), ("p99.9", latency.p999_us), ("max", latency.max_us)];
        for (what, us) in times {
            run.number(format!("{name} {what}"), us / 1e6, Unit::Seconds, Better::Lower);
        }
    }
    let Some(costs) = report.costs.as_ref().filter(|_| report.answered() >= 1.0) else { return };
    let mut each = |what: &str, value: Option<f64>, unit| {
        if let Some(value) = value {
            run.number(what, value / report.answered(), unit, Better::Lower);
        }
    };
    let Cost { cpu_s, system_calls, syncs, written, .. } = &costs.all_servers;
    each("servers' CPU per request", *cpu_s, Unit::Seconds);
    each("CPU per request, all processes", costs.everything.cpu_s, Unit::Seconds);
    each("servers' system calls per request", system_calls.map(|count| count as f64), Unit::Count);
    each("servers' syncs per request", syncs.map(|count| count as f64), Unit::Count);
    let written = written.filter(|_| costs.replicas > 0).map(|bytes| bytes as f64 / costs.replicas as f64);
    each("bytes to disk per request and replica", written, Unit::Bytes);
}

fn notes(run: &mut Run, report: &LoadReport) {
    let LoadReport { connections, depth, threads, mix, books, books_count, window_s, .. } = report;
    let most = if report.open_loop { "at most " } else { "" };
    run.notes.push(format!(
        "{mix} over {books_count} books ({books}); {connections} connections, {most}{depth} in flight on each, {threads} threads; measured for {window_s:.1} s."
    ));
    run.notes.push(report.latency_means().replace('\n', " "));
    run.notes.push("The timeline shows the requests of the window by when their answers came.".into());
    if let Some(overload) = report.overload() {
        run.notes.push(overload.replace('\n', " "));
    }
    if !report.breakdowns.is_empty() {
        let what = "In the breakdown, client and network is what remains of the whole without the front end's time; sync is the time from numbering until the catalog's own log was durable, as far as commit waited for it, and replicate what commit waited beyond.";
        run.notes.push(what.into());
    }
    if let Some(costs) = &report.costs {
        run.notes.extend(costs.gaps());
    }
}

fn value(value: f64, unit: Unit) -> Cell {
    Cell::Value { value, unit }
}

fn results(report: &LoadReport) -> Panel {
    let row = |row: &super::report::Row| {
        let latency = row.latency;
        let times = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
        let mut cells = vec![
            Cell::Text(row.request.name().into()),
            Cell::Text(row.result.clone()),
            value(row.count as f64, Unit::Count),
        ];
        cells.extend(times.map(|us| value(us / 1e6, Unit::Seconds)));
        cells
    };
    Panel::Table(Table {
        title: "Requests that were due in the window".into(),
        columns: ["request", "result", "count", "p50", "p90", "p99", "p99.9", "max"].map(String::from).into(),
        rows: report.rows.iter().map(row).collect(),
    })
}

fn timeline(record: &Record, window_s: f64) -> Panel {
    let window_intervals = (window_s * 1e9 / INTERVAL_NS as f64).floor() as usize;
    let keys: Vec<Key> = record.latencies.iter().map(|(key, _)| key).collect();
    let per_s = |times: &Sparse| times.count() as f64 * 1e9 / INTERVAL_NS as f64;
    // An interval in which nothing came is a rate of 0, and behind the window only stragglers come.
    let rate = |key: &Key| {
        let intervals = record.series.intervals().iter().take(window_intervals).enumerate();
        let points = intervals.map(|(number, of)| (keep::seconds(number), of.get(key).map_or(0.0, per_s))).collect();
        Line { name: name(*key), points }
    };
    let rates = keys.iter().map(rate);
    let axis = |label: &str, unit, is_log| Axis { label: label.into(), unit, is_log };
    let mut tracks = vec![Track { axis: axis("answers", Unit::PerSecond, false), lines: rates.collect() }];
    for key in keys.into_iter().filter(|(_, outcome)| *outcome == Outcome::Ok) {
        let line = |(name, quantile): (&str, f64)| {
            let seconds = |times: &Sparse| times.at_quantile(quantile) as f64 / 1e9;
            Line { name: name.into(), points: keep::points(&record.series, key, seconds) }
        };
        let lines = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)].map(line).into();
        tracks.push(Track { axis: axis(&format!("{} latency", key.0.name()), Unit::Seconds, true), lines });
    }
    Panel::Timeline(Timeline { title: "Over time".into(), tracks, marks: Vec::new() })
}

fn stack(breakdown: &Breakdown) -> Panel {
    let times = |band: &Band| breakdown.tiers().map(|tier| band.tiers_s[tier as usize]).collect();
    Panel::Stack(Stack {
        title: format!("Where the time of a {} goes", breakdown.kind.name()),
        axis: Axis { label: "mean time".into(), unit: Unit::Seconds, is_log: false },
        parts: breakdown.tiers().map(|tier| tier.name().into()).collect(),
        bars: breakdown.bands.iter().map(|band| (band.name.into(), times(band))).collect(),
    })
}

fn tiers(breakdown: &Breakdown) -> Panel {
    let of = |name: &str, of_band: &dyn Fn(&Band) -> f64, p99_s: f64| {
        let mut cells = vec![Cell::Text(name.into())];
        cells.extend(breakdown.bands.iter().map(|band| value(of_band(band), Unit::Seconds)));
        cells.push(value(p99_s, Unit::Seconds));
        cells
    };
    let tier = |tier: Tier| of(tier.name(), &|band| band.tiers_s[tier as usize], breakdown.p99_s[tier as usize]);
    let mut columns = vec!["stage".to_owned()];
    columns.extend(breakdown.bands.iter().map(|band| format!("mean of {}", band.name)));
    columns.push("p99 by itself".into());
    let mut rows: Vec<Vec<Cell>> = breakdown.tiers().map(tier).collect();
    rows.push(of("all of it", &Band::total_s, breakdown.total_p99_s));
    let (kind, count) = (breakdown.kind.name(), breakdown.count);
    Panel::Table(Table { title: format!("Stages of a {kind}, by {count} traces"), columns, rows })
}

/// The table of processes; with `requests`, for each 1,000 of them.
fn usage<'a>(title: &str, costs: impl Iterator<Item = &'a Cost>, requests: Option<f64>) -> Panel {
    let share = requests.map_or(1.0, |requests| 1_000.0 / requests.max(1.0));
    let cell = |known: Option<f64>, unit| known.map_or(Cell::Text("-".into()), |known| value(known * share, unit));
    let count = |known: Option<u64>| known.map(|known| known as f64);
    let row = |cost: &Cost| {
        let Cost { name, cpu_s, system_calls, syncs, received, sent, written, switches } = cost;
        vec![
            Cell::Text(name.clone()),
            cell(*cpu_s, Unit::Seconds),
            cell(count(*system_calls), Unit::Count),
            cell(count(*syncs), Unit::Count),
            cell(count(*received), Unit::Bytes),
            cell(count(*sent), Unit::Bytes),
            cell(count(*written), Unit::Bytes),
            cell(count(*switches), Unit::Count),
        ]
    };
    let columns =
        ["process", "CPU", "system calls", "syncs", "received", "sent", "written to disk", "context switches"];
    Panel::Table(Table {
        title: title.into(),
        columns: columns.map(String::from).into(),
        rows: costs.map(row).collect(),
    })
}

//! What a run over values found, for people and for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::args::{Over, ScaleArgs};
use crate::load::mix::RequestKind;
use crate::load::report::{Latency, micros};
use crate::point::{Figure, Point, Taken, kinds};
use crate::run::{Axis, Better, Cell, Curve, Line, Panel, Run, Table, Unit};

/// A value and what was measured at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// How many there were of what is varied.
    pub value: u64,
    /// The median of each figure.
    #[serde(flatten)]
    pub point: Point,
    /// The least of all rounds that was done, a second.
    pub done_per_s_min: f64,
    /// And the most.
    pub done_per_s_max: f64,
    /// What was done, divided by what was done at the first value.
    pub ratio: f64,
}

/// Books that were brought in before a cluster was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BroughtIn {
    /// How many.
    pub books: u64,
    /// How long that took.
    pub seconds: f64,
}

/// What a run over values found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleReport {
    /// True when this program was built without optimisation: then its figures are no measurement.
    pub debug_build: bool,
    /// What was varied.
    pub over: Over,
    /// What was asked.
    pub mix: String,
    /// True when requests were sent at a given rate, false when each waited for one before it.
    pub open_loop: bool,
    /// Rounds.
    pub repeat: u32,
    /// Each cluster's books.
    pub brought_in: Vec<BroughtIn>,
    /// Each value, in the order given.
    pub steps: Vec<Step>,
}

impl ScaleReport {
    pub(super) fn new(args: &ScaleArgs, values: &[u64], points: Vec<Vec<Point>>, brought_in: Vec<(u64, f64)>) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for (value, points) in values.iter().zip(&points) {
            let Some(point) = Point::median(points) else { continue };
            let first = steps.first().map_or(point.done_per_s, |first| first.point.done_per_s);
            let done = || points.iter().map(|point| point.done_per_s);
            steps.push(Step {
                value: *value,
                done_per_s_min: done().fold(f64::INFINITY, f64::min),
                done_per_s_max: done().fold(0.0, f64::max),
                ratio: if first > 0.0 { point.done_per_s / first } else { 0.0 },
                point,
            });
        }
        Self {
            debug_build: cfg!(debug_assertions),
            over: args.over,
            mix: if args.over == Over::Command { "cart=1".into() } else { args.mix.clone() },
            open_loop: args.is_open(),
            repeat: args.repeat,
            brought_in: brought_in.into_iter().map(|(books, seconds)| BroughtIn { books, seconds }).collect(),
            steps,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { over, mix, repeat, .. } = self;
        let kind = if self.open_loop { "open loop" } else { "closed loop" };
        writeln!(out, "{mix} over {}, {kind}, medians of {repeat} rounds\n", over.noun())?;
        writeln!(
            out,
            "{:>15} {:>10} {:>21} {:>6} {:<8} {:>9} {:>9} {:>9} {:>9} {:>7}",
            over.noun(),
            "done/s",
            "min - max",
            "ratio",
            "request",
            "p50",
            "p99",
            "p99.9",
            "max",
            "failed"
        )?;
        for step in &self.steps {
            let Step { value, point, done_per_s_min, done_per_s_max, ratio } = step;
            let failed = point.failed + point.unsent;
            let spread = format!("{done_per_s_min:.0} - {done_per_s_max:.0}");
            if point.taken.is_empty() {
                writeln!(out, "{value:>15} {:>10.0} {spread:>21} {ratio:>6.2} nothing was done", point.done_per_s)?;
            }
            for Taken { request, latency } in &point.taken {
                let Latency { p50_us, p99_us, p999_us, max_us, .. } = latency;
                let times = [p50_us, p99_us, p999_us, max_us].map(|us| format!("{:>9}", micros(*us))).join(" ");
                let (done, name) = (point.done_per_s, request.name());
                writeln!(out, "{value:>15} {done:>10.0} {spread:>21} {ratio:>6.2} {name:<8} {times} {failed:>7}")?;
            }
        }
        writeln!(out)?;
        if self.over == Over::Books {
            for BroughtIn { books, seconds } in &self.brought_in {
                writeln!(out, "{books} books were brought in within {seconds:.1} s")?;
            }
        }
        if !self.open_loop {
            writeln!(
                out,
                "In a closed loop latency is what the requests in flight make of the throughput: compare that."
            )?;
        }
        if self.debug_build { writeln!(out, "a debug build: these are no figures") } else { Ok(()) }
    }

    /// For a report.
    pub(super) fn fill(&self, run: &mut Run) {
        let noun = self.over.noun();
        let turns = "Values take turns in every round, and the medians of the rounds count.";
        run.notes.push(turns.into());
        if !self.open_loop {
            let what = "A closed loop: latency is what the requests in flight make of the throughput.";
            run.notes.push(what.into());
        }
        for Step { value, point, ratio, .. } in &self.steps {
            run.number(format!("{value} {noun}, done"), point.done_per_s, Unit::PerSecond, Better::Higher);
            run.number(format!("{value} {noun}, to the first"), *ratio, Unit::Ratio, Better::Higher);
            for Taken { request, latency } in &point.taken {
                let name = format!("{value} {noun}, {} p99", request.name());
                run.number(name, latency.p99_us / 1e6, Unit::Seconds, Better::Lower);
            }
        }
        if self.over == Over::Books {
            for BroughtIn { books, seconds } in &self.brought_in {
                run.number(format!("{books} books brought in"), *seconds, Unit::Seconds, Better::Lower);
            }
        }
        run.panels.push(self.throughput());
        run.panels.push(self.latencies());
        run.panels.push(self.table());
    }

    fn axis(&self) -> Axis {
        Axis { label: self.over.noun().into(), unit: Unit::Count, is_log: self.over != Over::Catalogs }
    }

    /// Steps by rising value, as curves are drawn.
    fn rising(&self) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by_key(|step| step.value);
        steps
    }

    fn throughput(&self) -> Panel {
        let line = |name: &str, of: fn(&Step) -> f64| Line {
            name: name.into(),
            points: self.rising().into_iter().map(|step| (step.value as f64, of(step))).collect(),
        };
        let mut lines = vec![line("median", |step| step.point.done_per_s)];
        if self.repeat > 1 {
            lines.push(line("least", |step| step.done_per_s_min));
            lines.push(line("most", |step| step.done_per_s_max));
        }
        let y = Axis { label: "done".into(), unit: Unit::PerSecond, is_log: false };
        let title = format!("Throughput over {}", self.over.noun());
        Panel::Curve(Curve { title, x: self.axis(), y, lines, is_scatter: false, marks: Vec::new() })
    }

    fn latencies(&self) -> Panel {
        let quantiles: [Figure; 2] = [("p50", |own| own.p50_us), ("p99", |own| own.p99_us)];
        let line = |kind: RequestKind, (quantile, of): Figure| {
            let at = |step: &Step| {
                let own = step.point.taken.iter().find(|taken| taken.request == kind)?;
                Some((step.value as f64, of(&own.latency) / 1e6))
            };
            let points = self.rising().into_iter().filter_map(at).collect();
            Line { name: format!("{} {quantile}", kind.name()), points }
        };
        Panel::Curve(Curve {
            title: format!("Latency over {}", self.over.noun()),
            x: self.axis(),
            y: Axis { label: "latency".into(), unit: Unit::Seconds, is_log: true },
            lines: kinds(self.steps.iter().map(|step| &step.point))
                .into_iter()
                .flat_map(|kind| quantiles.map(|quantile| line(kind, quantile)))
                .collect(),
            is_scatter: false,
            marks: Vec::new(),
        })
    }

    fn table(&self) -> Panel {
        let value = |value: f64, unit: Unit| Cell::Value { value, unit };
        let us = |us: f64| Cell::Value { value: us / 1e6, unit: Unit::Seconds };
        let rows = self.steps.iter().flat_map(|step| {
            let failed = (step.point.failed + step.point.unsent) as f64;
            step.point.taken.iter().map(move |Taken { request, latency }| {
                vec![
                    value(step.value as f64, Unit::Count),
                    value(step.point.done_per_s, Unit::PerSecond),
                    value(step.done_per_s_min, Unit::PerSecond),
                    value(step.done_per_s_max, Unit::PerSecond),
                    value(step.ratio, Unit::Ratio),
                    Cell::Text(request.name().into()),
                    us(latency.p50_us),
                    us(latency.p99_us),
                    us(latency.p999_us),
                    us(latency.max_us),
                    value(failed, Unit::Count),
                ]
            })
        });
        let noun = self.over.noun();
        let columns =
            [noun, "done, median", "least", "most", "to the first", "request", "p50", "p99", "p99.9", "max", "failed"];
        Panel::Table(Table {
            title: format!("By {noun}"),
            columns: columns.map(String::from).into(),
            rows: rows.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ScaleArgs,
    }

    fn point(done_per_s: f64) -> Point {
        let latency = Latency { p50_us: 10.0, p90_us: 20.0, p99_us: 30.0, p999_us: 40.0, max_us: 50.0 };
        let taken = vec![Taken { request: RequestKind::Buy, latency }];
        Point { offered_per_s: done_per_s, done_per_s, unsent: 0, failed: 0, taken }
    }

    #[test]
    fn each_value_is_compared_with_the_first_by_medians() {
        let args = Cli::parse_from(["scale", "--over", "connections", "--values", "50,1,1000"]).args;
        let rounds = |all: [f64; 3]| all.map(point).to_vec();
        let points = vec![rounds([100.0, 300.0, 200.0]), rounds([20.0, 10.0, 900.0]), rounds([150.0, 150.0, 160.0])];
        let report = ScaleReport::new(&args, &args.values().unwrap(), points, vec![(7, 0.5)]);
        let ratios: Vec<f64> = report.steps.iter().map(|step| step.ratio).collect();
        assert_eq!(ratios, [1.0, 0.1, 0.75]);
        assert_eq!((report.steps[1].done_per_s_min, report.steps[1].done_per_s_max), (10.0, 900.0));
        let mut run = Run::begin("scale", "t");
        report.fill(&mut run);
        let Panel::Curve(curve) = &run.panels[0] else { panic!() };
        assert_eq!(curve.lines[0].points, [(1.0, 20.0), (50.0, 200.0), (1_000.0, 150.0)], "in rising order");
        let Panel::Table(table) = &run.panels[2] else { panic!() };
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("0.75"));
    }
}

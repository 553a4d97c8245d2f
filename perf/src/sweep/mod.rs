//! `pygmy-perf sweep`: rate against latency up to the knee: the highest rate at which the store still answers in time.

mod search;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::search::Search;
use crate::ask::Asker;
use crate::error::Error;
use crate::load::check_build;
use crate::load::mix::{Books, Mix, Popularity, RequestKind};
use crate::load::pace::Arrivals;
use crate::load::plan::LoadPlan;
use crate::load::report::{Latency, micros};
use crate::point::{Figure, Point, Taken, kinds};
use crate::run::{Axis, Better, Cell, Curve, Line, Mark, Panel, Run, Table, Unit};
use crate::shelf;
use crate::span;
use crate::target::{Target, TargetArgs};

/// Of the requests that are due, so many must be done for a rate to be borne: what is due at the very end is answered
/// behind it.
const DONE_SHARE_MIN: f64 = 0.98;
/// Copies of each book, so that no buy is refused.
const STOCK: u32 = 1_000_000_000;

/// Finds the highest rate at which the slowest hundredth of the requests still meets a bound, by open loops at rising
/// rates, and shows latency over rate
#[derive(Debug, Clone, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// What to ask, with weights: lookup, search, buy, cart, restock
    #[arg(long, default_value = "buy=1")]
    mix: String,
    /// The 99th percentile of each kind of requests must not be above this
    #[arg(long, default_value = "5ms", value_parser = span::parse)]
    bound: Duration,
    /// How close to each other the highest rate that is borne and the lowest that is not must be, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    precision: f64,
    /// Loads at each rate, of which the medians count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Connections, spread over the front ends
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests in flight on each connection, at most
    #[arg(long, default_value_t = 64)]
    depth: usize,
    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How requests spread over time
    #[arg(long, value_enum, default_value_t)]
    arrivals: Arrivals,
    /// How long to measure at each rate
    #[arg(long, default_value = "5s", value_parser = span::parse)]
    duration: Duration,
    /// How long to load before that
    #[arg(long, default_value = "1s", value_parser = span::parse)]
    warmup: Duration,
    /// Which books: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN; those of a file that the store does not have are
    /// brought in
    #[arg(long, default_value = "uniform")]
    books: String,
    /// Let reads go past what the front ends keep themselves
    #[arg(long)]
    no_cache: bool,
    /// What the requests are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the run in this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run although this is a debug build, and mark the figures
    #[arg(long)]
    allow_debug: bool,
}

impl SweepArgs {
    fn plan(&self) -> Result<LoadPlan, Error> {
        if !(self.precision.is_finite() && self.precision > 0.0) {
            return Err(Error::Usage(format!("--precision {}: more than 0", self.precision)));
        }
        if self.bound.is_zero() {
            return Err(Error::Usage("--bound must be longer than nothing".into()));
        }
        let mix: Mix = self.mix.parse().map_err(|why| Error::Usage(format!("--mix: {why}")))?;
        let plan = LoadPlan {
            connections: self.connections,
            depth: self.depth,
            threads: self.threads,
            arrivals: self.arrivals,
            warmup: self.warmup,
            duration: self.duration,
            no_cache: self.no_cache,
            seed: self.seed,
            ..LoadPlan::new(mix)
        };
        plan.check()?;
        Ok(plan)
    }

    fn is_borne(&self, point: &Point) -> bool {
        let is_in_time = point.p99_us() <= self.bound.as_secs_f64() * 1e6;
        let is_done = point.done_per_s >= point.offered_per_s * DONE_SHARE_MIN;
        is_in_time && is_done && point.unsent == 0 && point.failed == 0
    }
}

/// A rate and what it came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Requests a second that were asked for.
    pub rate: f64,
    /// Whether all of them were done in time.
    pub is_borne: bool,
    /// What was measured.
    #[serde(flatten)]
    pub point: Point,
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepReport {
    /// True when this program was built without optimisation: then its figures are no measurement.
    pub debug_build: bool,
    /// Shares of the kinds of requests.
    pub mix: String,
    /// How requests spread over the books.
    pub books: String,
    /// Books to choose from.
    pub books_count: usize,
    /// Connections.
    pub connections: usize,
    /// Loads at each rate.
    pub repeat: u32,
    /// The 99th percentile must not be above this, in microseconds.
    pub bound_us: f64,
    /// Requests a second that the store did in a closed loop.
    pub saturation_per_s: f64,
    /// The highest rate that was borne; none was: nothing.
    pub knee_per_s: Option<f64>,
    /// Whether a rate above that was too much. If not, the store may bear more than this program can ask for.
    pub is_bounded: bool,
    /// Every rate that was tried, in rising order.
    pub steps: Vec<Step>,
}

/// Does what `sweep` says.
///
/// # Errors
/// When the store cannot be reached, or this machine refuses something.
pub fn run(args: &SweepArgs) -> Result<SweepReport, Error> {
    check_build(args.allow_debug)?;
    let plan = args.plan()?;
    let popularity: Popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let named = popularity.named()?;
    let target = Target::find(&args.target)?;
    let title = format!("{}, p99 at most {}", args.mix, micros(args.bound.as_secs_f64() * 1e6));
    let mut run = Run::begin("sweep", title);
    let mut asker = Asker::connect(target.fronts()[0])?;
    let shelf = shelf::with(&mut asker, named, STOCK)?;
    if plan.mix.has_writes() {
        shelf::fill(&mut asker, &shelf, STOCK)?;
    }
    let books = Arc::new(Books::new(&shelf, &popularity, args.seed).map_err(Error::Usage)?);
    let report = sweep(args, &plan, &books, &target.front_addresses()?)?;
    if let Some(dir) = &args.out {
        report.fill(&mut run);
        run.save(dir)?;
    }
    Ok(report)
}

fn sweep(
    args: &SweepArgs,
    plan: &LoadPlan,
    books: &Arc<Books>,
    addresses: &[SocketAddr],
) -> Result<SweepReport, Error> {
    let measure = |rate: Option<f64>| -> Result<Point, Error> {
        let plan = LoadPlan { rate, ..plan.clone() };
        let one = |_| Ok(Point::of(&plan, &plan.run(books, addresses)?));
        let points = (0..args.repeat).map(one).collect::<Result<Vec<_>, Error>>()?;
        Point::median(&points).ok_or_else(|| Error::Usage("--repeat must be at least 1".into()))
    };
    let saturation = measure(None)?;
    tell(&format!("closed loop: {:.0} done/s", saturation.done_per_s));
    let mut search = Search::new(saturation.done_per_s, args.precision / 100.0);
    let mut steps: Vec<Step> = Vec::new();
    while let Some(rate) = search.next() {
        let point = measure(Some(rate))?;
        let is_borne = args.is_borne(&point);
        search.tell(rate, is_borne);
        let verdict = if is_borne { "borne" } else { "too much" };
        tell(&format!("{rate:.0}/s: p99 {}, {verdict}", micros(point.p99_us())));
        steps.push(Step { rate, is_borne, point });
    }
    steps.sort_unstable_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(SweepReport {
        debug_build: cfg!(debug_assertions),
        mix: args.mix.clone(),
        books: args.books.clone(),
        books_count: books.len(),
        connections: args.connections,
        repeat: args.repeat,
        bound_us: args.bound.as_secs_f64() * 1e6,
        saturation_per_s: saturation.done_per_s,
        knee_per_s: search.borne(),
        is_bounded: search.is_bounded(),
        steps,
    })
}

/// Says how far it is, as it takes minutes. Whoever closed standard error does not want to know.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl SweepReport {
    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { mix, books, books_count, connections, repeat, bound_us, saturation_per_s, .. } = self;
        writeln!(out, "{mix} over {books_count} books ({books}); {connections} connections; medians of {repeat}")?;
        writeln!(out, "closed loop: {saturation_per_s:.0} done/s")?;
        match self.knee_per_s {
            Some(knee) => writeln!(out, "highest rate with p99 <= {}: {knee:.0}/s", micros(*bound_us))?,
            None => writeln!(out, "no rate that was tried had p99 <= {}", micros(*bound_us))?,
        }
        if !self.is_bounded {
            writeln!(out, "no rate was too much: the store may bear more than this program asked for")?;
        }
        writeln!(
            out,
            "\n{:>10} {:>10} {:<8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
            "offered/s", "done/s", "request", "p50", "p99", "p99.9", "max", "unsent", "failed"
        )?;
        for Step { is_borne, point, .. } in &self.steps {
            let Point { offered_per_s, done_per_s, unsent, failed, taken } = point;
            if taken.is_empty() {
                writeln!(out, "{offered_per_s:>10.0} {done_per_s:>10.0} nothing was done in time to be counted")?;
            }
            for Taken { request, latency } in taken {
                let Latency { p50_us, p99_us, p999_us, max_us, .. } = latency;
                let times = [p50_us, p99_us, p999_us, max_us].map(|us| format!("{:>9}", micros(*us))).join(" ");
                let note = if *is_borne { "" } else { "  too much" };
                writeln!(
                    out,
                    "{offered_per_s:>10.0} {done_per_s:>10.0} {:<8} {times} {unsent:>8} {failed:>8}{note}",
                    request.name()
                )?;
            }
        }
        writeln!(
            out,
            "\nLatency runs from the moment a request was due. A rate is borne when every request was sent and"
        )?;
        writeln!(out, "done, and the 99th percentile of each kind is within the bound.")?;
        if self.debug_build { writeln!(out, "a debug build: these are no figures") } else { Ok(()) }
    }

    /// For a report.
    fn fill(&self, run: &mut Run) {
        run.notes
            .push("Open loops: latency runs from the moment a request was due, so that no stall is hidden.".into());
        if !self.is_bounded {
            run.notes.push("No rate was too much: the store may bear more than this program asked for.".into());
        }
        run.number("closed loop, done", self.saturation_per_s, Unit::PerSecond, Better::Higher);
        let bound = micros(self.bound_us);
        let knee = self.knee_per_s.unwrap_or(0.0);
        run.number(format!("highest rate with p99 <= {bound}"), knee, Unit::PerSecond, Better::Higher);
        let at_knee = self.steps.iter().find(|step| Some(step.rate) == self.knee_per_s);
        for Taken { request, latency } in at_knee.iter().flat_map(|step| &step.point.taken) {
            let name = request.name();
            run.number(format!("{name} p50 at that rate"), latency.p50_us / 1e6, Unit::Seconds, Better::Lower);
            run.number(format!("{name} p99.9 at that rate"), latency.p999_us / 1e6, Unit::Seconds, Better::Lower);
        }
        run.panels.push(self.curve());
        run.panels.push(self.table());
    }

    fn curve(&self) -> Panel {
        let quantiles: [Figure; 3] =
            [("p50", |own| own.p50_us), ("p99", |own| own.p99_us), ("p99.9", |own| own.p999_us)];
        let line = |kind: RequestKind, (quantile, of): Figure| {
            let at = |step: &Step| {
                let own = step.point.taken.iter().find(|taken| taken.request == kind)?;
                Some((step.rate, of(&own.latency) / 1e6))
            };
            Line { name: format!("{} {quantile}", kind.name()), points: self.steps.iter().filter_map(at).collect() }
        };
        let mark = |at: f64, label: String| Mark { at_s: at, until_s: None, label };
        let knee =
            self.knee_per_s.map(|knee| mark(knee, format!("knee: {knee:.0}/s with p99 <= {}", micros(self.bound_us))));
        let saturation = mark(self.saturation_per_s, format!("closed loop: {:.0}/s", self.saturation_per_s));
        Panel::Curve(Curve {
            title: "Latency over rate".into(),
            x: Axis { label: "requests offered".into(), unit: Unit::PerSecond, is_log: true },
            y: Axis { label: "latency".into(), unit: Unit::Seconds, is_log: true },
            lines: kinds(self.steps.iter().map(|step| &step.point))
                .into_iter()
                .flat_map(|kind| quantiles.map(|quantile| line(kind, quantile)))
                .collect(),
            is_scatter: false,
            marks: knee.into_iter().chain([saturation]).collect(),
        })
    }

    fn table(&self) -> Panel {
        let value = |value: f64, unit: Unit| Cell::Value { value, unit };
        let rows = self.steps.iter().flat_map(|step| {
            let Point { offered_per_s, done_per_s, unsent, failed, taken } = &step.point;
            taken.iter().map(move |Taken { request, latency }| {
                let us = |us: f64| value(us / 1e6, Unit::Seconds);
                vec![
                    value(*offered_per_s, Unit::PerSecond),
                    value(*done_per_s, Unit::PerSecond),
                    Cell::Text(request.name().into()),
                    us(latency.p50_us),
                    us(latency.p99_us),
                    us(latency.p999_us),
                    us(latency.max_us),
                    value(*unsent as f64, Unit::Count),
                    value(*failed as f64, Unit::Count),
                    Cell::Text(if step.is_borne { "borne" } else { "too much" }.into()),
                ]
            })
        });
        let columns = ["offered", "done", "request", "p50", "p99", "p99.9", "max", "unsent", "failed", ""];
        Panel::Table(Table { title: "Rates".into(), columns: columns.map(String::from).into(), rows: rows.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: SweepArgs,
    }

    fn point(p99_us: f64) -> Point {
        let latency = Latency { p50_us: 1.0, p90_us: 1.0, p99_us, p999_us: p99_us, max_us: 9e9 };
        let taken = vec![Taken { request: RequestKind::Buy, latency }];
        Point { offered_per_s: 1_000.0, done_per_s: 999.0, unsent: 0, failed: 0, taken }
    }

    #[test]
    fn a_rate_is_borne_when_all_is_done_in_time() {
        let args = Cli::parse_from(["sweep", "--bound", "2ms"]).args;
        assert!(args.is_borne(&point(2_000.0)));
        assert!(!args.is_borne(&point(2_001.0)));
        assert!(!args.is_borne(&Point { unsent: 1, ..point(1.0) }));
        assert!(!args.is_borne(&Point { failed: 1, ..point(1.0) }));
        assert!(!args.is_borne(&Point { done_per_s: 970.0, ..point(1.0) }));
        assert!(!args.is_borne(&Point { taken: Vec::new(), ..point(1.0) }), "nothing done is not fast");
        let lookup = Taken { request: RequestKind::Lookup, ..point(3_000.0).taken[0] };
        let mut mixed = point(1.0);
        mixed.taken.push(lookup);
        assert!(!args.is_borne(&mixed), "every kind must be in time");
    }

    #[test]
    fn the_picture_names_the_knee_and_has_every_kind() {
        let step = |rate: f64, p99_us: f64, is_borne| Step { rate, is_borne, point: point(p99_us) };
        let report = SweepReport {
            debug_build: false,
            mix: "buy=1".into(),
            books: "uniform".into(),
            books_count: 7,
            connections: 50,
            repeat: 1,
            bound_us: 2_000.0,
            saturation_per_s: 3_000.0,
            knee_per_s: Some(2_000.0),
            is_bounded: true,
            steps: vec![step(1_000.0, 100.0, true), step(2_000.0, 1_900.0, true), step(2_500.0, 9_000.0, false)],
        };
        let mut run = Run::begin("sweep", "t");
        report.fill(&mut run);
        let Panel::Curve(curve) = &run.panels[0] else { panic!() };
        assert_eq!(
            curve.lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(),
            ["buy p50", "buy p99", "buy p99.9"]
        );
        assert_eq!(curve.lines[1].points, [(1_000.0, 1e-4), (2_000.0, 0.0019), (2_500.0, 0.009)]);
        assert_eq!((curve.marks[0].at_s, curve.marks[1].at_s), (2_000.0, 3_000.0));
        assert_eq!(run.numbers[1].value, 2_000.0);
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("highest rate with p99 <= 2.00 ms: 2000/s") && text.contains("too much"), "{text}");
    }
}

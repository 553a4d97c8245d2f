//! What a consistency run found, for people and for programs.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use pygmy_proto::limits::STALENESS_MS_MAX;
use serde::Serialize;

use super::lag::Lag;
use super::{ConsistencyArgs, Front, Mode, Watched};
use crate::load::report::Latency;
use crate::run::{Axis, Better, Cell, Curve, Distribution, Line, Panel, Percentiles, Run, Table, Unit};

/// Digits of a figure that are kept.
const DIGITS: u8 = 3;
/// Points of a curve.
const POINTS_MAX: usize = 400;

/// Answers to lookups that were asked in one way through one front end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// How they were asked.
    pub asked: Mode,
    /// Through which front end.
    pub front: Front,
    /// How many.
    pub answers: u64,
    /// Of these, how many did not show a change of their book that had been acknowledged before they were asked for.
    pub stale: u64,
    /// Most changes of its book that an answer did not show.
    pub versions_max: u64,
    /// Positions behind the highest acknowledged one: the median.
    pub positions_p50: u64,
    /// One in a hundred was further behind.
    pub positions_p99: u64,
    /// The furthest.
    pub positions_max: u64,
    /// How long ago the oldest change that an answer did not show had been acknowledged, in milliseconds: one in a
    /// hundred lacked an older one.
    pub value_lag_p99_ms: f64,
    /// One in a thousand did.
    pub value_lag_p999_ms: f64,
    /// The oldest.
    pub value_lag_max_ms: f64,
    /// The same for the position that answers name, whatever was changed there: the longest.
    pub log_lag_max_ms: f64,
    /// The longest that is promised.
    pub promised_ms: f64,
    /// Answers that name a position and lack a change that lies below it.
    pub false_positions: u64,
    /// From the moment each was due to its answer.
    #[serde(flatten)]
    pub latency: Latency,
}

/// What was counted for a row.
struct Counted {
    asked: Mode,
    front: Front,
    lags: Vec<Lag>,
    value_lag: Histogram<u64>,
    latency: Histogram<u64>,
}

impl Counted {
    fn all(phases: &[Watched]) -> Vec<Self> {
        let fronts = [Front::Second, Front::Same];
        phases.iter().flat_map(|phase| fronts.map(|front| Self::of(phase, front))).flatten().collect()
    }

    /// `None`: this library does not keep so few digits, which it does.
    fn of(phase: &Watched, front: Front) -> Option<Self> {
        let new = || Histogram::new(DIGITS).ok();
        let (mut value_lag, mut latency, mut lags) = (new()?, new()?, Vec::new());
        let pairs = phase.noted.seen.iter().zip(&phase.lags);
        for (seen, lag) in pairs.filter(|(seen, _)| seen.front == front) {
            value_lag.record(lag.value_ns).ok()?;
            latency.record(seen.latency_ns).ok()?;
            lags.push(*lag);
        }
        Some(Self { asked: phase.mode, front, lags, value_lag, latency })
    }

    fn name(&self) -> String {
        name(self.asked, self.front)
    }

    fn sorted(&self, of: fn(&Lag) -> u64) -> Vec<u64> {
        let mut figures: Vec<u64> = self.lags.iter().map(of).collect();
        figures.sort_unstable();
        figures
    }

    fn row(&self) -> Row {
        let ms = |ns: u64| ns as f64 / 1e6;
        let positions = self.sorted(|lag| lag.positions);
        let max = |of: fn(&Lag) -> u64| self.lags.iter().map(of).max().unwrap_or(0);
        let count = |is: fn(&&Lag) -> bool| self.lags.iter().filter(is).count() as u64;
        Row {
            asked: self.asked,
            front: self.front,
            answers: self.lags.len() as u64,
            stale: count(|lag| lag.versions > 0),
            versions_max: max(|lag| lag.versions),
            positions_p50: at(&positions, 0.5),
            positions_p99: at(&positions, 0.99),
            positions_max: at(&positions, 1.0),
            value_lag_p99_ms: ms(self.value_lag.value_at_quantile(0.99)),
            value_lag_p999_ms: ms(self.value_lag.value_at_quantile(0.999)),
            value_lag_max_ms: ms(max(|lag| lag.value_ns)),
            log_lag_max_ms: ms(max(|lag| lag.log_ns)),
            promised_ms: promised_ms(self.asked, self.front),
            false_positions: count(|lag| lag.is_false),
            latency: Latency::of(&self.latency),
        }
    }
}

/// Longest time for which an answer may lack what had been acknowledged. Only a reader who has seen nothing, and asks
/// where it was not acknowledged, may be shown anything older at all.
fn promised_ms(asked: Mode, front: Front) -> f64 {
    if asked == Mode::Plain && front == Front::Second { STALENESS_MS_MAX.into() } else { 0.0 }
}

fn name(asked: Mode, front: Front) -> String {
    format!("{}, {}", asked.name(), front.name())
}

/// The value at a quantile of figures in rising order.
fn at(sorted: &[u64], quantile: f64) -> u64 {
    let place = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(0)
}

/// For figures in rising order: each that is above 0, and the share of all that are as high or higher.
fn tail(sorted: &[u64]) -> Vec<(u64, f64)> {
    let mut points: Vec<(u64, f64)> = Vec::new();
    let first = sorted.partition_point(|figure| *figure == 0);
    let step = ((sorted.len() - first) / POINTS_MAX).max(1);
    for (place, figure) in sorted.iter().enumerate().skip(first) {
        let is_last = place + 1 == sorted.len();
        if ((place - first).is_multiple_of(step) || is_last) && points.last().is_none_or(|(last, _)| last < figure) {
            let as_high = sorted.len() - sorted.partition_point(|other| other < figure);
            points.push((*figure, as_high as f64 / sorted.len() as f64));
        }
    }
    points
}

/// What a consistency run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConsistencyReport {
    /// True when this program was built without optimisation: then its figures are no measurement.
    pub debug_build: bool,
    /// Buys a second.
    pub rate: f64,
    /// Lookups a second at each front end.
    pub lookup_rate: f64,
    /// How requests spread over the books, as given.
    pub books: String,
    /// Books there are to choose from.
    pub books_count: usize,
    /// Seconds for which was asked in each way.
    pub window_s: f64,
    /// Buys that were acknowledged.
    pub bought: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that were due and not sent.
    pub unsent: u64,
    /// Whether every answer was as new as is promised.
    pub is_kept: bool,
    /// Answers by how and where they were asked for.
    pub rows: Vec<Row>,
}

impl ConsistencyReport {
    pub(super) fn new(args: &ConsistencyArgs, books_count: usize, phases: &[Watched]) -> Self {
        let rows: Vec<Row> = Counted::all(phases).iter().map(Counted::row).collect();
        let sum = |of: fn(&Watched) -> u64| phases.iter().map(of).sum();
        Self {
            debug_build: cfg!(debug_assertions),
            rate: args.rate,
            lookup_rate: args.lookups,
            books: args.books.clone(),
            books_count,
            window_s: args.duration.as_secs_f64(),
            bought: sum(|phase| phase.noted.changes.len() as u64),
            refused: sum(|phase| phase.noted.refused),
            unsent: sum(|phase| phase.noted.unsent),
            is_kept: rows.iter().all(Row::is_kept),
            rows,
        }
    }

    /// Whether every answer was as new as is promised, and there were answers and changes that they could have lacked.
    pub fn is_good(&self) -> bool {
        self.is_kept && self.bought > 0 && self.rows.iter().all(|row| row.answers > 0)
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { rate, lookup_rate, books, books_count, window_s, bought, refused, unsent, .. } = self;
        writeln!(
            out,
            "{rate} buys/s at one front, {lookup_rate} lookups/s there and at a second; {books_count} books"
        )?;
        writeln!(
            out,
            "({books}), {window_s:.1} s in each way; {bought} bought, {refused} refused, {unsent} not sent\n"
        )?;
        writeln!(
            out,
            "{:<22} {:>8} {:>8} {:>8} {:>17} {:>24} {:>8} {:>8} {:>15}",
            "", "answers", "stale", "changes", "positions behind", "oldest change not shown", "by log", "promised", ""
        )?;
        writeln!(
            out,
            "{:<22} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}  {:>8} {:>8} {:>7} {:>7}",
            "asked", "", "%", "at most", "p99", "max", "p99 ms", "p99.9", "max", "max ms", "ms", "p50 us", "p99 us"
        )?;
        for row in &self.rows {
            row.print(out)?;
        }
        writeln!(
            out,
            "\nstale: lacks a change of its book that was acknowledged to the buyer before it was asked for."
        )?;
        if self.debug_build {
            writeln!(out, "a debug build: these are no figures")?;
        }
        for row in self.rows.iter().filter(|row| !row.is_kept()) {
            writeln!(
                out,
                "BROKEN: {}: older than promised, or than the position it names",
                name(row.asked, row.front)
            )?;
        }
        if self.is_good() { writeln!(out, "ok: every answer was as new as promised") } else { Ok(()) }
    }

    /// For a report.
    pub(super) fn fill(&self, run: &mut Run, phases: &[Watched]) {
        run.notes.extend([
            "An answer is stale when it lacks a change of its book that was acknowledged before it was asked for."
                .into(),
            "Session: the lookup names the last position that was acknowledged to the buyers; fresh: whatever was \
             answered to anyone before must be in it."
                .into(),
        ]);
        for row in &self.rows {
            row.fill(run);
        }
        let counted = Counted::all(phases);
        run.panels.push(self.table());
        let stale = || counted.iter().filter(|counted| counted.lags.iter().any(|lag| lag.value_ns > 0));
        let lines = stale().map(|counted| Distribution::of(counted.name(), &counted.value_lag)).collect();
        let title = "How long ago what an answer lacks had been acknowledged (0: it lacks nothing)".into();
        run.panels.push(Panel::Percentiles(Percentiles { title, lines }));
        run.panels
            .push(curve("Answers that lack a change for longer than", Unit::Seconds, &counted, |lag| lag.value_ns));
        run.panels.push(curve("Answers behind by more positions than", Unit::Positions, &counted, |lag| lag.positions));
        let lines = counted.iter().map(|counted| Distribution::of(counted.name(), &counted.latency)).collect();
        let title = "What the lookups took, from when they were due".into();
        run.panels.push(Panel::Percentiles(Percentiles { title, lines }));
    }

    fn table(&self) -> Panel {
        let columns = [
            "asked",
            "answers",
            "stale",
            "changes lacking, max",
            "positions behind, p50",
            "p99",
            "max",
            "oldest change lacking, p99",
            "p99.9",
            "max",
            "position's age, max",
            "promised",
        ];
        let rows = self.rows.iter().map(Row::cells).collect();
        Panel::Table(Table { title: "Staleness".into(), columns: columns.map(String::from).into(), rows })
    }
}

/// The share of answers that are as far behind or further, over how far.
fn curve(title: &str, unit: Unit, counted: &[Counted], of: fn(&Lag) -> u64) -> Panel {
    let scale = if unit == Unit::Seconds { 1e9 } else { 1.0 };
    let line = |counted: &Counted| Line {
        name: counted.name(),
        points: tail(&counted.sorted(of)).into_iter().map(|(figure, share)| (figure as f64 / scale, share)).collect(),
    };
    let label = if unit == Unit::Seconds { "time" } else { "log positions" };
    Panel::Curve(Curve {
        title: title.into(),
        x: Axis { label: label.into(), unit, is_log: true },
        y: Axis { label: "share of answers".into(), unit: Unit::Ratio, is_log: true },
        lines: counted.iter().map(line).filter(|line| !line.points.is_empty()).collect(),
        is_scatter: false,
        marks: Vec::new(),
    })
}

impl Row {
    /// Whether every answer was as new as is promised.
    pub fn is_kept(&self) -> bool {
        self.value_lag_max_ms.max(self.log_lag_max_ms) <= self.promised_ms && self.false_positions == 0
    }

    fn stale_share(&self) -> f64 {
        self.stale as f64 / self.answers.max(1) as f64
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { asked, front, answers, versions_max, positions_p99, positions_max, .. } = self;
        let Self { value_lag_p99_ms, value_lag_p999_ms, value_lag_max_ms, log_lag_max_ms, promised_ms, .. } = self;
        let (what, percent, Latency { p50_us, p99_us, .. }) =
            (name(*asked, *front), self.stale_share() * 100.0, self.latency);
        writeln!(
            out,
            "{what:<22} {answers:>8} {percent:>8.3} {versions_max:>8} {positions_p99:>8} {positions_max:>8} \
             {value_lag_p99_ms:>7.2} {value_lag_p999_ms:>7.2} {value_lag_max_ms:>7.2}  {log_lag_max_ms:>8.2} \
             {promised_ms:>8.0} {p50_us:>7.0} {p99_us:>7.0}"
        )
    }

    fn fill(&self, run: &mut Run) {
        let name = name(self.asked, self.front);
        let mut number = |what: &str, value, unit, better| run.number(format!("{name}: {what}"), value, unit, better);
        number("stale answers", self.stale_share(), Unit::Ratio, Better::Lower);
        number("positions behind p99", self.positions_p99 as f64, Unit::Positions, Better::Lower);
        number("oldest change lacking p99", self.value_lag_p99_ms / 1e3, Unit::Seconds, Better::Lower);
        number("oldest change lacking max", self.value_lag_max_ms / 1e3, Unit::Seconds, Better::Lower);
        number("position's age max", self.log_lag_max_ms / 1e3, Unit::Seconds, Better::Lower);
        number("lookup p50", self.latency.p50_us / 1e6, Unit::Seconds, Better::Lower);
        number("lookup p99", self.latency.p99_us / 1e6, Unit::Seconds, Better::Lower);
    }

    fn cells(&self) -> Vec<Cell> {
        let value = |value: f64, unit: Unit| Cell::Value { value, unit };
        let (count, positions) = (|n: u64| value(n as f64, Unit::Count), |n: u64| value(n as f64, Unit::Positions));
        let ms = |ms: f64| value(ms / 1e3, Unit::Seconds);
        vec![
            Cell::Text(name(self.asked, self.front)),
            count(self.answers),
            value(self.stale_share(), Unit::Ratio),
            count(self.versions_max),
            positions(self.positions_p50),
            positions(self.positions_p99),
            positions(self.positions_max),
            ms(self.value_lag_p99_ms),
            ms(self.value_lag_p999_ms),
            ms(self.value_lag_max_ms),
            ms(self.log_lag_max_ms),
            ms(self.promised_ms),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::lag::Look;
    use crate::consistency::watch::{Noted, Seen};
    use pygmy_proto::BookId;

    fn counted(asked: Mode, front: Front, lags: &[Lag]) -> Row {
        let book = BookId::new("a").unwrap();
        let look = Look { asked_ns: 0, seq: 0, changed_seq: 0, book };
        let seen = lags.iter().map(|_| Seen { front, look, latency_ns: 5_000 }).collect();
        let noted = Noted { seen, ..Noted::default() };
        Counted::of(&Watched { mode: asked, noted, lags: lags.into() }, front).unwrap().row()
    }

    #[test]
    fn only_strangers_at_a_second_front_may_be_shown_anything_older() {
        let lag = |ms: u64| Lag { positions: 3, log_ns: ms * 1_000_000, versions: 1, value_ns: ms, is_false: false };
        for (asked, front, ms, is_kept) in [
            (Mode::Plain, Front::Second, 250, true),
            (Mode::Plain, Front::Second, 251, false),
            (Mode::Plain, Front::Same, 1, false),
            (Mode::Session, Front::Second, 1, false),
            (Mode::Fresh, Front::Second, 1, false),
        ] {
            let row = counted(asked, front, &[Lag::default(), lag(ms)]);
            assert_eq!((row.is_kept(), row.stale, row.answers), (is_kept, 1, 2), "{row:?}");
        }
        assert!(counted(Mode::Fresh, Front::Second, &[Lag::default()]).is_kept());
    }

    #[test]
    fn an_answer_that_lacks_what_its_position_promises_breaks_it() {
        let lag = Lag { is_false: true, ..Lag::default() };
        let row = counted(Mode::Plain, Front::Second, &[lag]);
        assert_eq!((row.is_kept(), row.false_positions), (false, 1));
    }

    #[test]
    fn the_tail_says_how_many_are_as_far_behind() {
        assert_eq!(tail(&[0, 0, 0, 1, 1, 2, 5, 5]), [(1, 0.625), (2, 0.375), (5, 0.25)]);
        assert_eq!(tail(&[0, 0]), []);
        assert_eq!(tail(&[]), []);
        let many: Vec<u64> = (1..=100_000).collect();
        let points = tail(&many);
        assert!(points.len() <= POINTS_MAX + 2, "{}", points.len());
        assert_eq!((points[0], *points.last().unwrap()), ((1, 1.0), (100_000, 0.000_01)));
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|quantile| at(&sorted, quantile)), [50, 99, 100]);
        assert_eq!(at(&[], 0.5), 0);
    }
}

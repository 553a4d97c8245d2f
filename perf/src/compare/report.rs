//! What a comparison found: medians over the rounds, ratios within each round, and what each system promises.

use std::io::{self, Write};

use comfy_table::Table as Printed;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

use super::peer::{Generator, Group, Peer, Shape};
use super::pygmy;
use super::tally::Measured;
use crate::report::quantity::full;
use crate::run::{Axis, Better, Cell, Curve, Line, Panel, Run, Table, Unit};

/// Letters in the longest cell that still suits a column.
const COLUMN_MAX: usize = 60;

/// One workload of one system in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// From 0.
    pub(super) round: usize,
    /// Place among the systems; 0 is Pygmy.
    pub(super) system: usize,
    /// What was asked.
    pub(super) shape: Shape,
    /// What came of it.
    pub(super) measured: Measured,
    /// Processors that all the system's processes kept busy.
    pub(super) server_cores: f64,
    /// Processors that whoever asked kept busy.
    pub(super) client_cores: f64,
}

impl Sample {
    /// For whoever waits.
    pub(super) fn line(&self) -> String {
        let Measured { per_s, failed, p50_s, p99_s, .. } = self.measured;
        let [rate, p50, p99] = [(per_s, Unit::PerSecond), (p50_s, Unit::Seconds), (p99_s, Unit::Seconds)]
            .map(|(value, unit)| text(&Cell::Value { value, unit }));
        let failed = if failed > 0 { format!(", {failed} FAILED") } else { String::new() };
        format!("{} {}: {rate}, p50 {p50}, p99 {p99}{failed}", self.shape.group.name(), self.shape)
    }

    /// By what systems are compared: the time an answer takes, if any came, or how many come.
    fn worth(&self) -> Option<f64> {
        let Measured { per_s, p50_s, .. } = self.measured;
        if self.shape.group.is_about_latency() { Some(p50_s).filter(|p50_s| *p50_s > 0.0) } else { Some(per_s) }
    }
}

/// Middle and ends of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// None of no values.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

/// A system and what it was asked, in all rounds.
#[derive(Debug, Clone, PartialEq)]
struct Series<'a> {
    name: &'a str,
    shape: Shape,
    /// Round and worth.
    worths: Vec<(usize, f64)>,
}

impl Series<'_> {
    fn spread(&self) -> Option<Spread> {
        Spread::of(self.worths.iter().map(|(_, worth)| *worth))
    }

    fn median(&self) -> f64 {
        self.spread().map_or(0.0, |spread| spread.median)
    }
}

/// Ours against theirs.
#[derive(Debug, Clone, PartialEq)]
struct Ratio<'a> {
    /// What is compared, alike in all runs.
    what: String,
    ours: &'a Series<'a>,
    theirs: &'a Series<'a>,
    spread: Spread,
}

impl<'a> Ratio<'a> {
    /// Over the rounds in which both were measured; none where theirs is nothing.
    fn of(what: String, ours: &'a Series<'a>, theirs: &'a Series<'a>) -> Option<Self> {
        let pairs = ours.worths.iter().filter_map(|(round, ours)| {
            let (_, theirs) = theirs.worths.iter().find(|(other, worth)| other == round && *worth > 0.0)?;
            Some(ours / theirs)
        });
        Some(Self { what, ours, theirs, spread: Spread::of(pairs)? })
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Comparison {
    /// For `report`.
    pub run: Run,
    /// Whether every turn of every system was taken to its end.
    #[serde(skip)]
    pub is_complete: bool,
}

impl Comparison {
    /// Puts it together. `skipped` is who was left out, `failed` which turns broke off.
    pub(super) fn new(
        mut run: Run,
        systems: &[Box<dyn Peer>],
        skipped: Vec<String>,
        failed: Vec<String>,
        samples: &[Sample],
    ) -> Self {
        let names: Vec<&'static str> = systems.iter().map(|system| system.name()).collect();
        let series = series(samples, &names);
        let ratios = ratios(&series, &names);
        let is_complete = failed.is_empty();
        run.notes.extend(systems.iter().map(|system| system.describe()));
        run.notes.extend(skipped);
        run.notes.extend(failed);
        run.notes.extend(NOTES.map(String::from));
        for ratio in &ratios {
            run.number(&ratio.what, ratio.spread.median, Unit::Ratio, better(ratio.ours.shape.group));
        }
        for (one, spread) in series.iter().filter_map(|one| Some((one, one.spread()?))) {
            let name = format!("{} {} {}", one.name, one.shape.group.name(), one.shape);
            run.number(name, spread.median, unit(one.shape.group), better(one.shape.group));
        }
        run.panels.push(Panel::Table(ratio_table(&ratios)));
        run.panels.extend([Group::Lookups, Group::Buys].into_iter().filter_map(|group| curve(&series, &names, group)));
        run.panels.push(Panel::Table(measured_table(samples, &series, &names)));
        run.panels.push(Panel::Table(promises(systems)));
        Self { run, is_complete }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.run.debug_build {
            writeln!(out, "DEBUG BUILD: these figures measure the compiler's mood, not the store\n")?;
        }
        for panel in &self.run.panels {
            let Panel::Table(table) = panel else { continue };
            writeln!(out, "{}", table.title)?;
            if table.rows.iter().flatten().any(is_sentence) {
                print_sentences(table, out)?;
            } else {
                print_rows(table, out)?;
            }
        }
        self.run.notes.iter().try_for_each(|note| writeln!(out, "- {note}"))
    }
}

/// Whether a cell is too long for a column.
fn is_sentence(cell: &Cell) -> bool {
    matches!(cell, Cell::Text(text) if text.len() > COLUMN_MAX)
}

fn print_rows(table: &Table, out: &mut impl Write) -> io::Result<()> {
    let mut printed = Printed::new();
    printed.load_style(ASCII_MARKDOWN).set_header(&table.columns);
    for row in &table.rows {
        printed.add_row(row.iter().map(text));
    }
    writeln!(out, "{printed}\n")
}

/// Under the first cell of each row the others, a line each.
fn print_sentences(table: &Table, out: &mut impl Write) -> io::Result<()> {
    for row in &table.rows {
        writeln!(out, "  {}", row.first().map(text).unwrap_or_default())?;
        for (column, cell) in table.columns.iter().zip(row).skip(1) {
            writeln!(out, "    {column}: {}", text(cell))?;
        }
    }
    writeln!(out)
}

/// What is to be known before the figures are believed.
const NOTES: [&str; 5] = [
    "Servers, replicas and generators share this machine's processors, its one disk and its loopback: this is what the \
     systems cost, not what they would do on machines of their own.",
    "Every workload is a closed loop; the median of the rounds, with the lowest and the highest beside it. A ratio is taken \
     within each round, between turns that follow each other, and then its median.",
    "`at best` is the workload of each system that its median is highest in. `together`: so many buys are acknowledged by \
     one WAIT, and the next go when it is answered; the time of a buy runs from its sending until it is acknowledged.",
    "The times of redis-benchmark run until the first answer of a batch, those of all others until the own answer.",
    "Cores: processor time of all processes of the system, and of whoever asks, by the time that passed, with \
     connecting and warm-up in it. Where both together come to what the machine has, the one slows the other.",
];

fn better(group: Group) -> Better {
    if group.is_about_latency() { Better::Lower } else { Better::Higher }
}

fn unit(group: Group) -> Unit {
    if group.is_about_latency() { Unit::Seconds } else { Unit::PerSecond }
}

/// What was measured, system by system and workload by workload, in the order of the first round.
fn series<'a>(samples: &[Sample], names: &[&'a str]) -> Vec<Series<'a>> {
    let mut all: Vec<Series<'a>> = Vec::new();
    for sample in samples {
        let name = names[sample.system];
        let place = all.iter().position(|one| one.name == name && one.shape == sample.shape);
        let place = place.unwrap_or_else(|| {
            all.push(Series { name, shape: sample.shape, worths: Vec::new() });
            all.len() - 1
        });
        all[place].worths.extend(sample.worth().map(|worth| (sample.round, worth)));
    }
    all
}

/// Every comparison that can be made.
fn ratios<'a>(series: &'a [Series<'a>], names: &[&str]) -> Vec<Ratio<'a>> {
    let of = |name: &'a str, group: Group| -> Vec<&'a Series<'a>> {
        series.iter().filter(|one| one.name == name && one.shape.group == group).collect()
    };
    let mut ratios = Vec::new();
    for name in names.iter().skip(1) {
        for group in [Group::Lookups, Group::Buys, Group::One, Group::Flash] {
            // The name as it stands in the series, which outlives the list of names.
            let Some(name) = series.iter().map(|one| one.name).find(|one| one == name) else { continue };
            let (ours, theirs) = (of(pygmy::NAME, group), of(name, group));
            if group == Group::Buys {
                ratios.extend(at_best(name, &ours, &theirs));
            } else {
                ratios.extend(alike(name, &ours, &theirs));
            }
        }
    }
    ratios.extend(names.iter().filter_map(|name| one_book(series, name)));
    ratios
}

/// Each at the workload that serves it best.
fn at_best<'a>(name: &str, ours: &[&'a Series<'a>], theirs: &[&'a Series<'a>]) -> Option<Ratio<'a>> {
    let best = |all: &[&'a Series<'a>]| all.iter().copied().max_by(|a, b| a.median().total_cmp(&b.median()));
    Ratio::of(format!("buys at best: pygmy / {name}"), best(ours)?, best(theirs)?)
}

/// The same workload on both; where theirs cannot have it, at their best.
fn alike<'a>(name: &str, ours: &[&'a Series<'a>], theirs: &[&'a Series<'a>]) -> Vec<Ratio<'a>> {
    let best = theirs.iter().copied().max_by(|a, b| a.median().total_cmp(&b.median()));
    let mut ratios = Vec::new();
    for own in ours {
        let what = format!("{} {}: pygmy / {name}", own.shape.group.name(), own.shape);
        let same: Vec<_> = theirs.iter().copied().filter(|one| one.shape.is_like(&own.shape)).collect();
        for one in &same {
            let by = if one.shape.generator == Generator::RedisBenchmark { ", redis-benchmark" } else { "" };
            ratios.extend(Ratio::of(format!("{what}{by}"), own, one));
        }
        if let (true, Some(best)) = (same.is_empty(), best) {
            ratios.extend(Ratio::of(format!("{what} at best"), own, best));
        }
    }
    ratios
}

/// What is left of a system's rate when all want the same book.
fn one_book<'a>(series: &'a [Series<'a>], name: &str) -> Option<Ratio<'a>> {
    let half = |is_one_book: bool| {
        let mut own = series.iter().filter(|one| one.name == name && one.shape.group == Group::Flash);
        own.find(|one| one.shape.is_one_book == is_one_book)
    };
    Ratio::of(format!("flash sale: {name}, one book / all books"), half(true)?, half(false)?)
}

fn ratio_table(ratios: &[Ratio<'_>]) -> Table {
    let columns = ["what", "ratio", "from", "to", "this", "its workload", "that", "its workload"].map(String::from);
    let rows = ratios.iter().map(|Ratio { what, ours, theirs, spread }| {
        let ratio = |value| Cell::Value { value, unit: Unit::Ratio };
        let of = |one: &Series<'_>| Cell::Value { value: one.median(), unit: unit(one.shape.group) };
        let how = |one: &Series<'_>| Cell::Text(one.shape.to_string());
        vec![
            Cell::Text(what.clone()),
            ratio(spread.median),
            ratio(spread.min),
            ratio(spread.max),
            of(ours),
            how(ours),
            of(theirs),
            how(theirs),
        ]
    });
    Table { title: "Ratios".into(), columns: columns.into(), rows: rows.collect() }
}

fn measured_table(samples: &[Sample], series: &[Series<'_>], names: &[&str]) -> Table {
    let columns = [
        "system",
        "what",
        "workload",
        "rate",
        "from",
        "to",
        "p50",
        "p99",
        "max",
        "failed",
        "server cores",
        "client cores",
    ];
    let mut ordered: Vec<&Series<'_>> = series.iter().collect();
    // By what is asked; within it, system by system.
    ordered.sort_by_key(|one| one.shape.group);
    let rows = ordered.into_iter().filter_map(|one| {
        let own: Vec<&Sample> =
            samples.iter().filter(|sample| names[sample.system] == one.name && sample.shape == one.shape).collect();
        let spread = |value: fn(&Sample) -> f64| Spread::of(own.iter().map(|sample| value(sample)));
        let cell = |value, unit| Cell::Value { value, unit };
        let middle = |value: fn(&Sample) -> f64, unit| Some(cell(spread(value)?.median, unit));
        let rate = spread(|sample| sample.measured.per_s)?;
        let failed: u64 = own.iter().map(|sample| sample.measured.failed).sum();
        Some(vec![
            Cell::Text(one.name.into()),
            Cell::Text(one.shape.group.name().into()),
            Cell::Text(one.shape.to_string()),
            cell(rate.median, Unit::PerSecond),
            cell(rate.min, Unit::PerSecond),
            cell(rate.max, Unit::PerSecond),
            middle(|sample| sample.measured.p50_s, Unit::Seconds)?,
            middle(|sample| sample.measured.p99_s, Unit::Seconds)?,
            middle(|sample| sample.measured.max_s, Unit::Seconds)?,
            cell(failed as f64, Unit::Count),
            middle(|sample| sample.server_cores, Unit::Ratio)?,
            middle(|sample| sample.client_cores, Unit::Ratio)?,
        ])
    });
    Table { title: "Measured".into(), columns: columns.map(String::from).into(), rows: rows.collect() }
}

/// Rate over requests in flight, a line for each system and generator.
fn curve(series: &[Series<'_>], names: &[&str], group: Group) -> Option<Panel> {
    let mut lines = Vec::new();
    for name in names {
        for generator in [Generator::Own, Generator::RedisBenchmark] {
            let own = series
                .iter()
                .filter(|one| one.name == *name && one.shape.group == group && one.shape.generator == generator);
            let mut points: Vec<(f64, f64)> = own.map(|one| (one.shape.in_flight() as f64, one.median())).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let by = if generator == Generator::RedisBenchmark { " by redis-benchmark" } else { "" };
            if !points.is_empty() {
                lines.push(Line { name: format!("{name}{by}"), points });
            }
        }
    }
    let axis = |label: &str, unit| Axis { label: label.into(), unit, is_log: true };
    let title = format!("{} a second over requests in flight", capitalised(group.name()));
    (!lines.is_empty()).then(|| {
        Panel::Curve(Curve {
            title,
            x: axis("in flight", Unit::Count),
            y: axis(group.name(), Unit::PerSecond),
            lines,
            is_scatter: false,
            marks: Vec::new(),
        })
    })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn promises(systems: &[Box<dyn Peer>]) -> Table {
    let heads = systems.first().map(|system| system.guarantees().rows().map(|(head, _)| head));
    let columns = std::iter::once("system").chain(heads.into_iter().flatten()).map(String::from).collect();
    let rows = systems.iter().map(|system| {
        let texts = system.guarantees().rows().map(|(_, text)| text);
        std::iter::once(system.name()).chain(texts).map(|text| Cell::Text(text.into())).collect()
    });
    Table { title: "What is promised".into(), columns, rows: rows.collect() }
}

/// A cell for a person.
fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Value { value, unit } => full(*value, *unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["pygmy", "redis"];

    fn sample(round: usize, system: usize, shape: Shape, per_s: f64) -> Sample {
        let measured = Measured { per_s, failed: 0, p50_s: 1.0 / per_s, p99_s: 2.0 / per_s, max_s: 1.0 };
        Sample { round, system, shape, measured, server_cores: 1.0, client_cores: 0.5 }
    }

    fn found(samples: &[Sample]) -> Vec<(String, f64, f64, f64)> {
        let series = series(samples, &NAMES);
        let ratios = ratios(&series, &NAMES);
        ratios.iter().map(|one| (one.what.clone(), one.spread.median, one.spread.min, one.spread.max)).collect()
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let shape = Shape::new(Group::Buys, 64, 1);
        // The second round is slow for both, the third only for us.
        let rates = [(400.0, 100.0), (80.0, 10.0), (60.0, 30.0)];
        let both = |(round, (ours, theirs)): (usize, (f64, f64))| {
            [sample(round, 0, shape, ours), sample(round, 1, shape, theirs)]
        };
        let samples: Vec<Sample> = rates.into_iter().enumerate().flat_map(both).collect();
        assert_eq!(found(&samples), [("buys at best: pygmy / redis".into(), 4.0, 2.0, 8.0)]);
        // A round that one of them has not ended is left out.
        assert_eq!(found(&samples[..3]), [("buys at best: pygmy / redis".into(), 4.0, 4.0, 4.0)]);
    }

    #[test]
    fn buys_are_compared_at_the_best_of_each() {
        let shape = |clients| Shape::new(Group::Buys, clients, 1);
        let samples = [
            sample(0, 0, shape(1), 10.0),
            sample(0, 0, shape(2), 90.0),
            sample(0, 1, shape(1).batched(32), 30.0),
            sample(0, 1, shape(4), 20.0),
        ];
        assert_eq!(found(&samples), [("buys at best: pygmy / redis".into(), 3.0, 3.0, 3.0)]);
    }

    #[test]
    fn lookups_are_compared_depth_by_depth_and_with_each_generator() {
        let shape = |depth| Shape::new(Group::Lookups, 50, depth);
        let tool = Shape { generator: Generator::RedisBenchmark, ..shape(16) };
        let samples = [
            sample(0, 0, shape(16), 60.0),
            sample(0, 0, shape(64), 90.0),
            sample(0, 1, shape(16), 20.0),
            sample(0, 1, tool, 30.0),
        ];
        let found: Vec<_> = found(&samples).into_iter().map(|(what, median, ..)| (what, median)).collect();
        let expected = [
            ("lookups 50 x 16: pygmy / redis", 3.0),
            ("lookups 50 x 16: pygmy / redis, redis-benchmark", 2.0),
            ("lookups 50 x 64: pygmy / redis at best", 3.0),
        ];
        assert_eq!(found, expected.map(|(what, median)| (what.to_string(), median)));
    }

    #[test]
    fn one_buy_is_compared_by_its_time_and_a_flash_sale_with_itself_too() {
        let one = Shape::new(Group::One, 1, 1);
        let [all, same] = Shape::flash()[..] else { panic!() };
        let samples = [
            sample(0, 0, one, 2_000.0),
            sample(0, 1, one, 1_000.0),
            sample(0, 0, all, 100.0),
            sample(0, 0, same, 95.0),
            sample(0, 1, all, 50.0),
            sample(0, 1, same, 5.0),
        ];
        let found: Vec<_> = found(&samples).into_iter().map(|(what, median, ..)| (what, median)).collect();
        let expected = [
            ("one buy 1 x 1: pygmy / redis", 0.5),
            ("flash sale 256 x 1: pygmy / redis", 2.0),
            ("flash sale 256 x 1, one book: pygmy / redis", 19.0),
            ("flash sale: pygmy, one book / all books", 0.95),
            ("flash sale: redis, one book / all books", 0.1),
        ];
        assert_eq!(found, expected.map(|(what, median)| (what.to_string(), median)));
    }

    #[test]
    fn where_no_answer_came_there_is_no_time_to_compare() {
        let one = Shape::new(Group::One, 1, 1);
        let mut ours = sample(0, 0, one, 2_000.0);
        (ours.measured.per_s, ours.measured.p50_s) = (0.0, 0.0);
        assert_eq!(found(&[ours, sample(0, 1, one, 1_000.0)]), []);
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        assert_eq!(Spread::of([3.0, 1.0].into_iter()), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn what_does_not_fit_a_column_is_told_beneath_its_row() {
        let cell = |text: &str| Cell::Text(text.into());
        let columns = vec!["system".into(), "durable".into()];
        let mut run = Run::begin("compare", "");
        let narrow = vec![vec![cell("redis"), Cell::Value { value: 0.0025, unit: Unit::Seconds }]];
        let wide = vec![vec![cell("redis"), cell(&"on disk ".repeat(9))]];
        for (title, rows) in [("Narrow", narrow), ("Wide", wide)] {
            run.panels.push(Panel::Table(Table { title: title.into(), columns: columns.clone(), rows }));
        }
        let mut out = Vec::new();
        Comparison { run, is_complete: true }.print(&mut out).unwrap();
        let printed = String::from_utf8(out).unwrap();
        assert!(printed.contains("| redis  | 2.5 ms  |"), "{printed}");
        assert!(printed.contains("Wide\n  redis\n    durable: on disk on disk"), "{printed}");
        assert_eq!(capitalised("one buy"), "One buy");
    }
}

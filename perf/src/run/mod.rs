//! A run that is kept: what was done, on which machine, and what was found, in one file that people can read, other
//! programs can use, and `pygmy-perf report` draws.
//!
//! Every experiment tells what it found in the same few forms: [`Number`]s, which are what two runs are compared by,
//! and [`Panel`]s, which are what is drawn. So the report knows no experiment, and a new experiment needs no report.

mod machine;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::machine::Machine;
use crate::error::Error;

/// Name of the file in a run's directory.
pub const FILE: &str = "run.json";
/// First word of that file.
const FORMAT: &str = "pygmy-run";
/// Form of the file that this program writes and reads.
const VERSION: u32 = 1;

/// What one run of an experiment found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    format: String,
    version: u32,
    /// The experiment: the name of its command.
    pub experiment: String,
    /// What it was asked to do, in a few words.
    pub title: String,
    /// The command that did it, word by word.
    pub command: Vec<String>,
    /// When it began, in milliseconds of Unix time.
    pub started_unix_ms: u64,
    /// Where it ran.
    pub machine: Machine,
    /// True when it was measured by a program that was built without optimisation: then its figures are no measurement.
    pub debug_build: bool,
    /// What is to be known before the figures are believed, a sentence each.
    pub notes: Vec<String>,
    /// What two runs are compared by.
    pub numbers: Vec<Number>,
    /// What is drawn, in this order.
    pub panels: Vec<Panel>,
}

impl Run {
    /// A run of this program that begins now and has found nothing yet.
    pub fn begin(experiment: &str, title: impl Into<String>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            format: FORMAT.into(),
            version: VERSION,
            experiment: experiment.into(),
            title: title.into(),
            command: machine::command(),
            started_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            machine: Machine::here(),
            debug_build: cfg!(debug_assertions),
            notes: Vec::new(),
            numbers: Vec::new(),
            panels: Vec::new(),
        }
    }

    /// Adds a number.
    pub fn number(&mut self, name: impl Into<String>, value: f64, unit: Unit, better: Better) {
        self.numbers.push(Number { name: name.into(), value, unit, better });
    }

    /// Keeps it in a directory, which is made if need be.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&path, text?))
            .map_err(Error::io(path.display().to_string()))
    }

    /// Reads one that was kept: the file, or the directory that holds it.
    ///
    /// # Errors
    /// When it cannot be read, is something else, or of a form that this program does not know.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join(FILE) } else { path.to_path_buf() };
        let name = || path.display().to_string();
        let text = std::fs::read(&path).map_err(Error::io(name()))?;
        Self::parse(&text).map_err(|why| Error::Run { path: name(), why })
    }

    fn parse(text: &[u8]) -> Result<Self, RunError> {
        let Head { format, version } = serde_json::from_slice(text).map_err(RunError::Foreign)?;
        if format != FORMAT {
            return Err(RunError::Format { found: format });
        }
        if version != VERSION {
            return Err(RunError::Version { found: version });
        }
        let run: Self = serde_json::from_slice(text).map_err(RunError::Broken)?;
        run.panels.iter().try_for_each(check)?;
        Ok(run)
    }
}

/// Why a file is no run that this program can read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has not even the head of one.
    #[error("this is no run: {0}")]
    Foreign(serde_json::Error),
    /// It says that it is something else.
    #[error("this is {found:?}, and no run ({FORMAT:?})")]
    Format {
        /// What it says that it is.
        found: String,
    },
    /// It is of another version of this program.
    #[error("a run of version {found}; this program reads version {VERSION}")]
    Version {
        /// The version that it says.
        found: u32,
    },
    /// Something in it is missing or is not what it should be.
    #[error("a run that is broken: {0}")]
    Broken(serde_json::Error),
    /// Something has more or fewer parts than its heads name.
    #[error("a run that is broken: {title:?}: {found} in one row, {expected} in its head")]
    Ragged {
        /// The panel.
        title: String,
        /// Parts of the row.
        found: usize,
        /// Parts that it should have.
        expected: usize,
    },
}

/// What the panel's form alone does not promise: rows have as many cells as there are heads.
fn check(panel: &Panel) -> Result<(), RunError> {
    let (title, expected, mut lengths): (_, _, Box<dyn Iterator<Item = usize>>) = match panel {
        Panel::Table(table) => (&table.title, table.columns.len(), Box::new(table.rows.iter().map(Vec::len))),
        Panel::Stack(stack) => (&stack.title, stack.parts.len(), Box::new(stack.bars.iter().map(|bar| bar.1.len()))),
        Panel::Percentiles(_) | Panel::Timeline(_) | Panel::Curve(_) => return Ok(()),
    };
    match lengths.find(|found| *found != expected) {
        Some(found) => Err(RunError::Ragged { title: title.clone(), found, expected }),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// A number by which runs are compared; runs that are alike name it alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// What it is, such as `buys done` or `lookup p99`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// Whether more is better.
    pub better: Better,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Events.
    Count,
    /// Events in a second.
    PerSecond,
    /// Seconds, shown as us, ms or s as suits them.
    Seconds,
    /// Bytes, shown as KiB, MiB or GiB as suits them.
    Bytes,
    /// A share or a ratio.
    Ratio,
    /// Log positions.
    Positions,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
    /// Neither: it says what was done, or how.
    Neither,
}

/// Something to draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "form")]
pub enum Panel {
    /// Distributions of times, drawn over a logarithmic axis of percentiles.
    Percentiles(Percentiles),
    /// What happened when, with marks where something was done to the cluster.
    Timeline(Timeline),
    /// One quantity over another.
    Curve(Curve),
    /// Bars that are sums of parts.
    Stack(Stack),
    /// Words and numbers in rows.
    Table(Table),
}

/// Distributions of times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// What it shows.
    pub title: String,
    /// One line each.
    pub lines: Vec<Distribution>,
}

/// A distribution of times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Of what.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Quantiles from 0 to 1, rising, and their times in seconds; the last is the maximum.
    pub points: Vec<(f64, f64)>,
}

impl Distribution {
    /// That of times in nanoseconds: in each half of what is left above, five steps; the maximum is the true one.
    pub fn of(name: impl Into<String>, histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let steps = histogram.iter_quantiles(5);
        let mut points: Vec<_> = steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to())).collect();
        // What a quantile stands for is the top of its bucket, which may be above what was ever measured.
        points.iter_mut().for_each(|(_, ns)| *ns = (*ns).min(histogram.max()));
        points.dedup();
        let points = points.into_iter().map(|(quantile, ns)| (quantile, seconds(ns))).collect();
        Self { name: name.into(), count: histogram.len(), points }
    }
}

/// What happened when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// What it shows.
    pub title: String,
    /// What is drawn beneath each other over one axis of seconds.
    pub tracks: Vec<Track>,
    /// What was done to the cluster.
    pub marks: Vec<Mark>,
}

/// One strip of a timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// What is measured.
    pub axis: Axis,
    /// Lines over seconds since the run's start.
    pub lines: Vec<Line>,
}

/// Something that was done at a moment, or held for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When, in seconds since the run's start.
    pub at_s: f64,
    /// Until when, if it held.
    pub until_s: Option<f64>,
    /// What, such as `kill catalog-2`.
    pub label: String,
}

/// One quantity over another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Lines or, where `is_scatter`, points.
    pub lines: Vec<Line>,
    /// Whether the points are not to be joined.
    pub is_scatter: bool,
    /// Values of `x` that are named, such as the knee.
    pub marks: Vec<Mark>,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What it counts.
    pub label: String,
    /// In what.
    pub unit: Unit,
    /// Whether it is logarithmic.
    pub is_log: bool,
}

/// Points with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// `(x, y)`, in rising order of `x`; where nothing was measured there is no point.
    pub points: Vec<(f64, f64)>,
}

/// Bars that are sums of parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// What it shows.
    pub title: String,
    /// What the parts count.
    pub axis: Axis,
    /// Names of the parts, from the bar's foot upwards.
    pub parts: Vec<String>,
    /// The bars: a name, and as many values as there are parts.
    pub bars: Vec<(String, Vec<f64>)>,
}

/// Words and numbers in rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// As many cells in each row as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A number with its unit.
    Value {
        /// How much.
        value: f64,
        /// Of what.
        unit: Unit,
    },
    /// Words.
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Run {
        let mut run = Run::begin("load", "buys");
        run.number("buys done", 1_000.0, Unit::PerSecond, Better::Higher);
        let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
        (1..=10_000_u64).for_each(|ns| histogram.record(ns * 1_000).unwrap());
        let lines = vec![Distribution::of("buy ok", &histogram)];
        run.panels.push(Panel::Percentiles(Percentiles { title: "latency".into(), lines }));
        let rows = vec![vec![Cell::Text("a".into()), Cell::Value { value: 1.5, unit: Unit::Seconds }]];
        run.panels.push(Panel::Table(Table { title: "t".into(), columns: vec!["x".into(), "y".into()], rows }));
        run
    }

    #[test]
    fn a_run_is_read_as_it_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let run = sample();
        run.save(&dir.path().join("new")).unwrap();
        assert_eq!(Run::load(&dir.path().join("new")).unwrap(), run);
        assert_eq!(Run::load(&dir.path().join("new").join(FILE)).unwrap(), run);
    }

    #[test]
    fn what_is_no_run_of_this_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let ragged = |panel: &str| {
            let run = serde_json::to_string(&Run { panels: Vec::new(), ..sample() }).unwrap();
            run.replace(r#""panels":[]"#, &format!(r#""panels":[{panel}]"#))
        };
        let cases = [
            ("[]".into(), "no run"),
            ("{}".into(), "no run"),
            (r#"{"format":"pygmy-history","version":1}"#.into(), "\"pygmy-history\", and no run"),
            (r#"{"format":"pygmy-run","version":2}"#.into(), "of version 2; this program reads version 1"),
            (r#"{"format":"pygmy-run","version":1}"#.into(), "broken: missing field"),
            (
                ragged(r#"{"form":"table","title":"CPU","columns":["a","b"],"rows":[["x"]]}"#),
                "\"CPU\": 1 in one row, 2 in its head",
            ),
            (
                ragged(
                    r#"{"form":"stack","title":"T","axis":{"label":"","unit":"bytes","is_log":false},
                    "parts":["a"],"bars":[["x",[1,2]]]}"#,
                ),
                "\"T\": 2 in one row, 1 in its head",
            ),
            (ragged(r#"{"form":"painting","title":"T"}"#), "unknown variant `painting`"),
        ];
        for (text, why) in cases {
            std::fs::write(&path, text).unwrap();
            let error = Run::load(dir.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Run { path: named, .. } if *named == path.display().to_string()),
                "{error}"
            );
            assert!(error.to_string().contains(why), "{error}");
        }
        let missing = Run::load(&dir.path().join("gone")).unwrap_err();
        assert!(matches!(&missing, Error::Io { what, .. } if what.ends_with("gone")), "{missing}");
    }

    #[test]
    fn a_distribution_ends_with_what_was_measured_at_most() {
        let Panel::Percentiles(panel) = &sample().panels[0] else { panic!() };
        let line = &panel.lines[0];
        assert_eq!(line.count, 10_000);
        let (quantile, seconds) = *line.points.last().unwrap();
        assert_eq!(quantile, 1.0);
        assert!((seconds - 0.01).abs() < 0.000_02, "{seconds}");
        assert!(line.points.is_sorted());
    }
}

//! The numbers of runs beside each other, and how many times those of one run they are.

use std::io::{self, Write};

use serde::Serialize;

use super::group::Labelled;
use super::html::plain;
use super::quantity::full;
use crate::run::{Better, Number, Unit};

/// Numbers that differ by less than this share are called the same.
const SAME: f64 = 0.005;
/// From so many runs on that have a number, its median is shown, too.
const MEDIAN_FROM: usize = 3;

/// The numbers of runs, name by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The run that all others are divided by.
    pub baseline: Option<String>,
    /// The others; behind them, where there are several, their median.
    pub runs: Vec<String>,
    /// What they found.
    pub rows: Vec<Row>,
}

/// A number of every run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The experiment that found it.
    pub experiment: String,
    /// What it is.
    pub name: String,
    /// Of what.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// The baseline's.
    pub baseline: Option<f64>,
    /// The others', in their order.
    pub found: Vec<Option<Found>>,
}

/// A number of a run, beside the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Found {
    /// How much.
    pub value: f64,
    /// How many times the baseline's, where that can be said.
    pub ratio: Option<f64>,
    /// What to think of it.
    pub verdict: Verdict,
}

/// What to think of a number beside the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is better.
    Better,
    /// It is worse.
    Worse,
    /// It is the same but for half a percent.
    Same,
    /// It differs, and neither way is better.
    Differs,
    /// There is nothing to compare it with.
    Alone,
}

impl Verdict {
    /// The word for it; none where there is nothing to say.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Alone => "",
        }
    }
}

impl Comparison {
    /// Collects the numbers of runs, of which the first may be the baseline.
    pub(super) fn of(baseline: Option<Labelled<'_>>, runs: &[Labelled<'_>]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for one in baseline.iter().chain(runs) {
            for number in &one.run.numbers {
                if !rows.iter().any(|row| is_of(row, one, number)) {
                    rows.push(row(one, number, baseline, runs));
                }
            }
        }
        let label = |one: &Labelled<'_>| plain(one.label);
        let mut labels: Vec<String> = runs.iter().map(label).collect();
        let has_median = rows.iter().any(|row| row.found[runs.len()].is_some());
        if has_median {
            labels.push("median".into());
        }
        rows.iter_mut().for_each(|row| row.found.truncate(labels.len()));
        Self { baseline: baseline.as_ref().map(label), runs: labels, rows }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As lines of text.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut lines = vec![self.heads()];
        lines.extend(self.rows.iter().map(|row| self.cells(row)));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        for line in &lines {
            let (first, rest) = (format!("{:<1$}", line[0], widths[0]), line.iter().zip(&widths).skip(1));
            let text: Vec<String> = rest.map(|(cell, width)| format!("{cell:>width$}")).collect();
            writeln!(out, "{}", format!("{first}  {}", text.join("  ")).trim_end())?;
        }
        Ok(())
    }

    /// The heads of the columns: the number, the baseline, and each run with what it is times the baseline.
    pub(super) fn heads(&self) -> Vec<String> {
        let mut heads = vec![String::from("number")];
        heads.extend(self.baseline.as_ref().map(|label| format!("{label} (baseline)")));
        for run in &self.runs {
            heads.push(run.clone());
            heads.extend(self.baseline.as_ref().map(|_| String::from("ratio")));
        }
        heads
    }

    /// A row's cells, as many as there are heads.
    pub(super) fn cells(&self, row: &Row) -> Vec<String> {
        let value = |value: Option<f64>| value.map_or("–".into(), |value| full(value, row.unit));
        let mut cells = vec![self.name_of(row)];
        if self.baseline.is_some() {
            cells.push(value(row.baseline));
        }
        for found in &row.found {
            cells.push(value(found.map(|found| found.value)));
            if self.baseline.is_some() {
                cells.push(found.map_or(String::new(), |found| found.words()));
            }
        }
        cells
    }

    /// A number's name, with its experiment where there are several.
    fn name_of(&self, row: &Row) -> String {
        let is_mixed = self.rows.iter().any(|other| other.experiment != row.experiment);
        if is_mixed { format!("{}: {}", row.experiment, row.name) } else { row.name.clone() }
    }
}

impl Found {
    /// Its ratio and verdict in words; nothing where there is nothing to compare it with.
    pub(super) fn words(&self) -> String {
        let ratio = self.ratio.map(|ratio| format!("{}×", times(ratio)));
        let words = [ratio.unwrap_or_default(), self.verdict.word().to_owned()];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn of(value: f64, baseline: Option<f64>, better: Better) -> Self {
        let Some(before) = baseline else { return Self { value, ratio: None, verdict: Verdict::Alone } };
        let ratio = Some(value / before).filter(|ratio| ratio.is_finite() && *ratio >= 0.0);
        let is_same = (value - before).abs() <= SAME * before.abs().max(value.abs());
        let verdict = match better {
            _ if is_same => Verdict::Same,
            Better::Neither => Verdict::Differs,
            Better::Higher if value > before => Verdict::Better,
            Better::Lower if value < before => Verdict::Better,
            Better::Higher | Better::Lower => Verdict::Worse,
        };
        Self { value, ratio, verdict }
    }
}

/// A ratio with two digits behind the point, or three that count where it is small or large.
fn times(ratio: f64) -> String {
    if (0.1..100.0).contains(&ratio) { format!("{ratio:.2}") } else { super::quantity::short(ratio, Unit::Ratio) }
}

fn is_of(row: &Row, one: &Labelled<'_>, number: &Number) -> bool {
    row.experiment == plain(&one.run.experiment) && row.name == plain(&number.name) && row.unit == number.unit
}

fn row(one: &Labelled<'_>, number: &Number, baseline: Option<Labelled<'_>>, runs: &[Labelled<'_>]) -> Row {
    let mut row = Row {
        experiment: plain(&one.run.experiment),
        name: plain(&number.name),
        unit: number.unit,
        better: number.better,
        baseline: None,
        found: Vec::new(),
    };
    let value = |one: &Labelled<'_>| {
        let found = one.run.numbers.iter().find(|number| is_of(&row, one, number));
        found.map(|number| number.value)
    };
    let before = baseline.as_ref().and_then(value);
    let values: Vec<Option<f64>> = runs.iter().map(value).collect();
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    let median = median(known).filter(|_| values.iter().flatten().count() >= MEDIAN_FROM);
    row.baseline = before;
    let all = values.into_iter().chain([median]);
    row.found = all.map(|value| Some(Found::of(value?, before, number.better))).collect();
    row
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = if values.len().is_multiple_of(2) { values[values.len() / 2 - 1] } else { upper };
    Some(lower / 2.0 + upper / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    fn run(numbers: &[(&str, f64, Better)]) -> Run {
        let mut run = Run::begin("load", "x");
        numbers.iter().for_each(|(name, value, better)| run.number(*name, *value, Unit::PerSecond, *better));
        run
    }

    fn text(baseline: Option<&Run>, runs: &[Run]) -> String {
        let labels = ["a", "b", "c"];
        let runs: Vec<Labelled<'_>> = runs.iter().zip(labels).map(|(run, label)| Labelled { label, run }).collect();
        let baseline = baseline.map(|run| Labelled { label: "base", run });
        let mut out = Vec::new();
        Comparison::of(baseline, &runs).print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn ratios_say_in_words_which_way_is_better() {
        let base = run(&[
            ("done", 100.0, Better::Higher),
            ("cpu", 8.0, Better::Lower),
            ("same", 5.0, Better::Lower),
            ("asked", 10.0, Better::Neither),
            ("lost", 0.0, Better::Lower),
            ("gone", 1.0, Better::Lower),
        ]);
        let new = run(&[
            ("done", 150.0, Better::Higher),
            ("cpu", 12.0, Better::Lower),
            ("same", 5.01, Better::Lower),
            ("asked", 20.0, Better::Neither),
            ("lost", 3.0, Better::Lower),
            ("new", 7.0, Better::Higher),
        ]);
        let expected = "\
number  base (baseline)       a          ratio
done              100/s   150/s   1.50× better
cpu                 8/s    12/s    1.50× worse
same                5/s  5.01/s     1.00× same
asked              10/s    20/s  2.00× differs
lost                0/s     3/s          worse
gone                1/s       –
new                   –     7/s
";
        assert_eq!(text(Some(&base), &[new]), expected);
    }

    #[test]
    fn several_runs_have_a_median() {
        let one = |value| run(&[("done", value, Better::Higher)]);
        let expected = "\
number  base (baseline)      a        ratio     b        ratio     c       ratio  median        ratio
done               10/s  100/s  10.0× better  20/s  2.00× better  5/s  0.50× worse    20/s  2.00× better
";
        let found = text(Some(&one(10.0)), &[one(100.0), one(20.0), one(5.0)]);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&found), squeezed(&expected.replace("10.0×", "10.00×")));
        assert_eq!(text(None, &[one(1.0), one(2.0)]).lines().last(), Some("done    1/s  2/s"));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn what_runs_say_cannot_steer_a_terminal() {
        let evil = run(&[("\u{1b}]0;x\u{7}", 1.0, Better::Higher)]);
        assert!(!text(None, &[evil]).contains('\u{1b}'));
    }
}

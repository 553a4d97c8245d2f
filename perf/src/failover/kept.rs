//! What a run under faults found, in the form from which reports are drawn.

use super::cluster::longest_gaps;
use super::faults::{FailoverReport, Gaps, Round};
use super::returns::ReturnReport;
use super::timeline::{self, Episode, Samples, distribution, longest_stop, mark};
use super::view::View;
use crate::history::judge::Judgement;
use crate::run::{Better, Cell, Mark, Panel, Run, Table, Unit};

/// What clients saw of one fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Views {
    pub(super) buys: View,
    pub(super) lookups: View,
}

const FAULT_COLUMNS: [&str; 10] = [
    "who",
    "no commit",
    "token",
    "no answer to a buy",
    "slowest buy",
    "failed buys",
    "no answer to a lookup",
    "slowest lookup",
    "failed lookups",
    "sent again",
];

fn ms(ms: f64) -> Cell {
    Cell::Value { value: ms / 1e3, unit: Unit::Seconds }
}

fn count(count: u64) -> Cell {
    Cell::Value { value: count as f64, unit: Unit::Count }
}

/// One fault's row of [`fault_table`], with cells that only some runs have behind it.
pub(super) fn fault_row(who: &str, gap_ms: f64, token_lost: bool, views: Views, more: &[Cell]) -> Vec<Cell> {
    let Views { buys, lookups } = views;
    let mut row = vec![
        Cell::Text(who.into()),
        ms(gap_ms),
        Cell::Text(if token_lost { "lost" } else { "kept" }.into()),
        ms(buys.gap_ms),
        ms(buys.slowest_ms),
        count(buys.failed),
        ms(lookups.gap_ms),
        ms(lookups.slowest_ms),
        count(lookups.failed),
        count(buys.repeated + lookups.repeated),
    ];
    row.extend_from_slice(more);
    row
}

/// Every fault of a run.
pub(super) fn fault_table(rows: Vec<Vec<Cell>>, more: &[&str]) -> Panel {
    let columns = FAULT_COLUMNS.iter().chain(more).map(|column| (*column).to_owned()).collect();
    Panel::Table(Table { title: "Faults".into(), columns, rows })
}

/// What the checkers say, in a sentence.
pub(super) fn judged_note(judgement: &Judgement) -> String {
    let (orders, reads) = (judgement.counts.orders, judgement.counts.reads);
    if judgement.ok {
        return format!(
            "Everything that was asked and answered was kept and judged, {orders} orders and {reads} reads, with what \
             every replica holds: nothing acknowledged is lost or doubled, and no other promise was found broken."
        );
    }
    let counts = judgement.findings.violation_counts.iter();
    let found: Vec<String> = counts.map(|(name, count)| format!("{name}: {count}")).collect();
    format!("PROMISES WERE BROKEN, of {orders} orders and {reads} reads: {}", found.join(", "))
}

/// Marks the longest time without a commit that reaches behind a fault.
pub(super) fn stop_mark(commits_ns: &[u64], at_ns: u64, until_ns: u64) -> Option<Mark> {
    let (begin_ns, end_ns) = longest_stop(commits_ns, at_ns, until_ns)?;
    Some(mark(format!("no commit for {:.0} ms", (end_ns - begin_ns) as f64 / 1e6), begin_ns, Some(end_ns)))
}

fn fill_gaps(run: &mut Run, gaps: &Gaps) {
    let mut number = |name: &str, ms: f64| run.number(name, ms / 1e3, Unit::Seconds, Better::Lower);
    number("time without a commit, median", gaps.median_ms);
    number("time without a commit, max", gaps.max_ms);
    run.number("time without a commit before a fault, max", gaps.before_max_ms / 1e3, Unit::Seconds, Better::Neither);
    run.number("faults", gaps.rounds as f64, Unit::Count, Better::Neither);
}

impl FailoverReport {
    /// For a report.
    pub(super) fn fill(&self, run: &mut Run, rounds: &[Round], samples: &[Samples]) {
        fill_gaps(run, &self.gaps);
        let mut number = |name: &str, ms: f64| run.number(name, ms / 1e3, Unit::Seconds, Better::Lower);
        number("time without an answer to a buy, max", self.buys.gap_max_ms);
        number("slowest buy, max", self.buys.slowest_max_ms);
        if self.lookups_sent > 0 {
            number("time without an answer to a lookup, max", self.lookups.gap_max_ms);
            number("slowest lookup, max", self.lookups.slowest_max_ms);
        }
        run.number("failed requests", (self.failed + self.lookups_failed) as f64, Unit::Count, Better::Lower);
        let not_judged = "No history was kept: losses and doubles would not have been seen.";
        run.notes.push(self.judgement.as_ref().map_or_else(|| not_judged.into(), judged_note));
        if rounds.iter().any(|round| !round.failure.counts) {
            run.notes
                .push("Faults that met the token otherwise than asked for are in no figure and no picture.".into());
        }
        let counted = || rounds.iter().filter(|round| round.failure.counts);
        let figures = |of: fn(&Round) -> f64| counted().map(of).collect::<Vec<_>>();
        let mut lines = vec![
            ("no commit", figures(|round| round.failure.gap_ms)),
            ("no answer to a buy", figures(|round| round.failure.buys.gap_ms)),
            ("slowest buy", figures(|round| round.failure.buys.slowest_ms)),
        ];
        if self.lookups_sent > 0 {
            lines.push(("no answer to a lookup", figures(|round| round.failure.lookups.gap_ms)));
            lines.push(("slowest lookup", figures(|round| round.failure.lookups.slowest_ms)));
        }
        run.panels.push(distribution("How long each fault was felt", &lines));
        let episodes: Vec<Episode> = counted().map(|round| round.episode.clone()).collect();
        run.panels.extend(timeline::panels(&episodes, samples));
        let rows = counted().map(|round| {
            let failure = &round.failure;
            let (views, after) = (Views { buys: failure.buys, lookups: failure.lookups }, |at_ms: Option<f64>| {
                at_ms.map_or_else(|| Cell::Text("-".into()), ms)
            });
            let more = [after(failure.suspected_ms), after(failure.recovered_ms), after(failure.trusted_ms)];
            fault_row(&failure.nodes.join(" "), failure.gap_ms, failure.token_lost, views, &more)
        });
        let more = ["suspected after", "commits again after", "trusted again after"];
        run.panels.push(fault_table(rows.collect(), &more));
    }
}

impl ReturnReport {
    /// For a report.
    pub(super) fn fill(&self, run: &mut Run, episodes: &[Episode], samples: &[Samples]) {
        fill_gaps(run, &self.gaps);
        run.number("slowest buy, median", self.slowest_median_ms / 1e3, Unit::Seconds, Better::Lower);
        run.number("slowest buy, max", self.slowest_max_ms / 1e3, Unit::Seconds, Better::Lower);
        run.number("caught up, median", self.entries_per_s_median, Unit::PerSecond, Better::Higher);
        run.number("caught up, min", self.entries_per_s_min, Unit::PerSecond, Better::Higher);
        let lines = [
            ("no commit", self.returns.iter().map(|one| one.gap_ms).collect()),
            ("slowest buy", self.returns.iter().map(|one| one.slowest_ms).collect()),
        ];
        run.panels.push(distribution("How long each return was felt", &lines));
        run.panels.extend(timeline::panels(episodes, samples));
        let row = |one: &super::Return| {
            vec![
                Cell::Text(one.node.clone()),
                ms(one.gap_ms),
                ms(one.before_ms),
                ms(one.slowest_ms),
                count(one.failed),
                Cell::Text(if one.token_lost { "lost" } else { "kept" }.into()),
                count(one.entries),
                ms(one.caught_up_ms),
                Cell::Value { value: one.entries_per_s, unit: Unit::PerSecond },
            ]
        };
        let columns = [
            "who",
            "no commit",
            "no commit before",
            "slowest buy",
            "failed buys",
            "token",
            "entries to get",
            "caught up after",
            "entries a second",
        ];
        run.panels.push(Panel::Table(Table {
            title: "Returns".into(),
            columns: columns.map(String::from).into(),
            rows: self.returns.iter().map(row).collect(),
        }));
    }
}

/// A return and the time around it.
pub(super) fn return_episode(what: String, commits_ns: &[u64], (at_ns, until_ns): (u64, u64), back_ns: u64) -> Episode {
    let (gap_ms, _) = longest_gaps(commits_ns, at_ns);
    let mut marks = vec![mark(&what, at_ns, Some(back_ns))];
    marks.extend(stop_mark(commits_ns, at_ns, until_ns));
    Episode { what, at_ns, until_ns, gap_ms, marks }
}

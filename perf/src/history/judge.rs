//! `pygmy-perf check`: both checkers over a history, and what they found in one piece.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use pygmy_proto::BookId;
use serde::Serialize;

use super::check::{Violation, check};
use super::linear::{self, Linear};
use super::{Action, Answer, History, Operation, file};
use crate::error::Error;

/// Violations that are told one by one; a broken store can have as many as it has orders.
const EXAMPLES_MAX: usize = 100;
/// Of these, those a person is shown.
const SHOWN_MAX: usize = 20;

/// Judges a history that was kept as a file.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The history, as `audit --out` and `chaos` write it
    history: PathBuf,
    /// Print the verdict as JSON
    #[arg(long)]
    pub json: bool,
}

/// Violations, counted, with examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Findings {
    /// How many there are of each kind.
    pub violation_counts: BTreeMap<String, u64>,
    /// The first of them.
    pub violations: Vec<Violation>,
}

impl Findings {
    /// Counts what was found.
    pub fn new(found: Vec<Violation>) -> Self {
        let mut findings = Self::default();
        for violation in found {
            *findings.violation_counts.entry(violation.name().into()).or_default() += 1;
            if findings.violations.len() < EXAMPLES_MAX {
                findings.violations.push(violation);
            }
        }
        findings
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.violation_counts.is_empty()
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (name, count) in &self.violation_counts {
            writeln!(out, "VIOLATION {name}: {count}")?;
        }
        self.violations.iter().take(SHOWN_MAX).try_for_each(|violation| writeln!(out, "  {violation}"))
    }
}

/// What is in a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Askings in all.
    pub operations: u64,
    /// Writes that were answered as done.
    pub done: u64,
    /// Of these, orders.
    pub orders: u64,
    /// Writes that the store refused.
    pub refused: u64,
    /// Writes that came to nothing.
    pub not_done: u64,
    /// Askings for writes that ended without an answer.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Of these, fresh ones.
    pub fresh_reads: u64,
    /// Replicas that were looked at afterwards.
    pub replicas: u64,
}

impl Counts {
    fn new(history: &History) -> Self {
        let count = |is: fn(&Operation) -> bool| history.operations.iter().filter(|op| is(op)).count() as u64;
        Self {
            operations: history.operations.len() as u64,
            done: count(|op| !op.action.is_read() && op.seq().is_some()),
            orders: count(|op| matches!(op.answer, Answer::Bought { .. })),
            refused: count(|op| !op.action.is_read() && matches!(op.answer, Answer::Refused { .. })),
            not_done: count(|op| !op.action.is_read() && matches!(op.answer, Answer::NotDone { .. })),
            unknown: count(|op| !op.action.is_read() && matches!(op.answer, Answer::Unknown { .. })),
            reads: count(|op| matches!(op.answer, Answer::Found { .. })),
            fresh_reads: count(|op| {
                matches!((&op.action, &op.answer), (Action::Lookup { fresh: true, .. }, Answer::Found { .. }))
            }),
            replicas: history.replicas.len() as u64,
        }
    }
}

/// What both checkers say of a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// True when no promise was found broken.
    pub ok: bool,
    /// What was judged.
    #[serde(flatten)]
    pub counts: Counts,
    /// By the positions that the answers name.
    #[serde(flatten)]
    pub findings: Findings,
    /// Without them: each book's history is linearizable, or is not, or that was too much to find out.
    pub linear: BTreeMap<BookId, Linear>,
}

impl Judgement {
    /// Judges a history.
    pub fn new(history: &History) -> Self {
        Self::with(history, Vec::new())
    }

    /// Judges a history of which something is known to be wrong already.
    pub fn with(history: &History, mut known: Vec<Violation>) -> Self {
        known.extend(check(history));
        let findings = Findings::new(known);
        let linear = linear::check(history);
        let is_broken = linear.values().any(|verdict| matches!(verdict, Linear::No { .. }));
        Self { ok: findings.is_empty() && !is_broken, counts: Counts::new(history), findings, linear }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Counts { operations, done, orders, refused, not_done, unknown, reads, fresh_reads, replicas } =
            &self.counts;
        writeln!(out, "{operations} askings: {done} writes done ({orders} of them orders), {refused} refused,")?;
        writeln!(out, "{not_done} not delivered, {unknown} unanswered; {reads} reads, {fresh_reads} of them fresh;")?;
        writeln!(out, "{replicas} replicas looked at")?;
        let count = |is: fn(&Linear) -> bool| self.linear.values().filter(|verdict| is(verdict)).count();
        let (yes, undecided) = (count(|v| *v == Linear::Yes), count(|v| *v == Linear::Undecided));
        writeln!(out, "linearizable without regard to positions: {yes} of {} books", self.linear.len())?;
        if undecided > 0 {
            writeln!(out, "  {undecided} undecided: there were too many ways")?;
        }
        for (book, verdict) in &self.linear {
            if let Linear::No { explained, of, stuck_before_ns } = verdict {
                let at = *stuck_before_ns as f64 / 1e9;
                writeln!(out, "NOT LINEARIZABLE {book}: {explained} of {of} explained, stuck before {at:.6} s")?;
            }
        }
        if self.ok {
            return writeln!(
                out,
                "ok: nothing acknowledged is lost or doubled, stock is initial + restocked - sold, writes are in one\n\
                 order that agrees with real time, and every read shows what it was promised"
            );
        }
        self.findings.print(out)
    }
}

/// Does what `check` says.
///
/// # Errors
/// When the file is no history.
pub fn run(args: &CheckArgs) -> Result<Judgement, Error> {
    let name = args.history.display().to_string();
    let input = File::open(&args.history).map_err(Error::io(&name))?;
    let history = file::read(BufReader::new(input)).map_err(|error| Error::Usage(format!("{name}: {error}")))?;
    Ok(Judgement::new(&history))
}

//! A catalog, an order server and a front that are killed and started again in turn, for as long as one likes; then
//! everything that was asked and answered meanwhile is judged.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::clients::{Seen, Shared};
use super::cluster::{REST, Watched, in_turn, longest_gaps};
use super::judged::{Judged, judged};
use super::kept::{Views, fault_row, fault_table, judged_note, stop_mark};
use super::timeline::{self, Episode, distribution, mark};
use super::view::{View, print_view};
use super::{FailoverArgs, FaultKind, poisoned};
use crate::error::Error;
use crate::history::judge::Judgement;
use crate::local;
use crate::run::{Better, Run, Unit};
use crate::span;

/// A server is left dead for so long.
const DEAD: Duration = Duration::from_millis(1_500);

/// One server that was killed and came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turn {
    /// Who.
    pub node: String,
    /// When it was killed, in nanoseconds of the history's clock.
    pub at_ns: u64,
    /// When the next one was, or the end came.
    pub until_ns: u64,
    /// Whether there was a new epoch before it was started again.
    pub token_lost: bool,
    /// Longest time without a commit, in milliseconds.
    pub gap_ms: f64,
    /// What clients saw while they bought.
    pub buys: View,
    /// And while they looked up.
    pub lookups: View,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InTurnReport {
    /// Whether this program was built without optimisation.
    pub debug_build: bool,
    /// Buys a second.
    pub rate: f64,
    /// Lookups a second.
    pub lookup_rate: f64,
    /// Seconds from the first kill until all was well behind the last.
    pub duration_s: f64,
    /// What clients saw in all this time while they bought.
    pub buys: View,
    /// And while they looked up.
    pub lookups: View,
    /// Requests that could not even be sent.
    pub unsent: u64,
    /// Where the history is kept.
    pub history: Option<PathBuf>,
    /// Whether any promise was broken.
    pub judgement: Judgement,
    /// Each that was killed.
    pub turns: Vec<Turn>,
}

impl InTurnReport {
    /// Whether no request failed and no promise was found broken.
    pub fn is_good(&self) -> bool {
        let failed = self.buys.failed + self.lookups.failed + self.unsent;
        failed == 0 && self.judgement.ok && !self.turns.is_empty()
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { rate, lookup_rate, duration_s, buys, lookups, unsent, turns, .. } = self;
        writeln!(
            out,
            "in-turn, {rate} buys/s and {lookup_rate} lookups/s: {} kills in {duration_s:.0} s",
            turns.len()
        )?;
        writeln!(out, "  {} buys, {} lookups; {unsent} could not be sent", buys.ended, lookups.ended)?;
        print_view("buys", buys, out)?;
        print_view("lookups", lookups, out)?;
        for Turn { node, token_lost, gap_ms, buys, lookups, .. } in turns {
            let token = if *token_lost { "token lost" } else { "token kept" };
            writeln!(out, "  {node:<10} {gap_ms:>8.1} ms without a commit, {token}")?;
            print_view("buys", buys, out)?;
            print_view("lookups", lookups, out)?;
        }
        self.judgement.print(out)?;
        if let Some(path) = &self.history {
            writeln!(out, "history: {}", path.display())?;
        }
        if self.debug_build { writeln!(out, "  a debug build: these are no figures") } else { Ok(()) }
    }

    /// For a report.
    fn fill(&self, run: &mut Run, watched: &Watched<'_>, seen: &Seen) -> Result<(), Error> {
        let figures = |of: fn(&Turn) -> f64| self.turns.iter().map(of).collect::<Vec<_>>();
        let longest = |of: fn(&Turn) -> f64| figures(of).into_iter().fold(0.0, f64::max) / 1e3;
        let mut number = |name: &str, value, unit| run.number(name, value, unit, Better::Lower);
        number("longest time without a commit", longest(|turn| turn.gap_ms), Unit::Seconds);
        number("slowest buy", self.buys.slowest_ms / 1e3, Unit::Seconds);
        number("slowest lookup", self.lookups.slowest_ms / 1e3, Unit::Seconds);
        number("failed buys", self.buys.failed as f64, Unit::Count);
        number("failed lookups", self.lookups.failed as f64, Unit::Count);
        run.notes.push(judged_note(&self.judgement));
        run.panels.push(distribution(
            "How long nothing was heard around each fault",
            &[
                ("no commit", figures(|turn| turn.gap_ms)),
                ("no answer to a buy", figures(|turn| turn.buys.gap_ms)),
                ("no answer to a lookup", figures(|turn| turn.lookups.gap_ms)),
            ],
        ));
        let episode = |turn: &Turn| {
            let Turn { node, at_ns, until_ns, gap_ms, .. } = turn;
            let what = format!("kill {node}");
            let mut marks = vec![mark(&what, *at_ns, Some(at_ns + span::ns(DEAD)))];
            marks.extend(stop_mark(&watched.commits(at_ns.saturating_sub(span::ns(REST)))?, *at_ns, *until_ns));
            Ok(Episode { what, at_ns: *at_ns, until_ns: *until_ns, gap_ms: *gap_ms, marks })
        };
        let episodes = self.turns.iter().map(episode).collect::<Result<Vec<_>, Error>>()?;
        run.panels.extend(timeline::panels(&episodes, &seen.samples()));
        let faults = self.turns.iter().map(|turn| {
            let views = Views { buys: turn.buys, lookups: turn.lookups };
            fault_row(&turn.node, turn.gap_ms, turn.token_lost, views, &[])
        });
        run.panels.push(fault_table(faults.collect(), &[]));
        Ok(())
    }
}

/// Kills one server after the other under a load, and judges what came of it.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub(super) fn run(
    args: &FailoverArgs,
    mut watched: Watched<'_>,
    shared: &Shared,
    load: impl FnOnce(&AtomicBool) + Send,
    run: &mut Run,
) -> Result<InTurnReport, Error> {
    let work = |watched: &mut Watched<'_>| kill_in_turn(args, watched);
    let (turns, judged) = judged(args.out.as_deref(), &mut watched, shared, load, work)?;
    let seen = shared.seen.lock().map_err(|_| poisoned())?;
    let report = report(args, &watched, &seen, turns, judged)?;
    report.fill(run, &watched, &seen)?;
    Ok(report)
}

/// Kills until the time is over; who, when, and whether the token was lost.
fn kill_in_turn(args: &FailoverArgs, watched: &Watched<'_>) -> Result<Vec<Turn>, Error> {
    sleep(REST);
    let end_ns = watched.clock.now_ns() + span::ns(args.duration);
    let mut turns: Vec<Turn> = Vec::new();
    while watched.clock.now_ns() < end_ns {
        let node = in_turn(&watched.target, FaultKind::InTurn.roles(), turns.len())?;
        let epoch = watched.epoch(&[]);
        let pid = watched.local.pid(&node)?;
        let at_ns = watched.clock.now_ns();
        local::send(&node, pid, Signal::KILL)?;
        sleep(DEAD);
        let token_lost = watched.epoch(std::slice::from_ref(&node)) != epoch;
        watched.local.start(&node)?;
        watched.wait_health()?;
        sleep(REST);
        let until_ns = watched.clock.now_ns();
        let (buys, lookups) = (View::default(), View::default());
        turns.push(Turn { node, at_ns, until_ns, token_lost, gap_ms: 0.0, buys, lookups });
    }
    Ok(turns)
}

/// Puts together what was seen, once every request has ended.
fn report(
    args: &FailoverArgs,
    watched: &Watched<'_>,
    seen: &Seen,
    mut turns: Vec<Turn>,
    judged: Judged,
) -> Result<InTurnReport, Error> {
    for turn in &mut turns {
        let Turn { at_ns, until_ns, .. } = *turn;
        let commits = watched.commits(at_ns.saturating_sub(span::ns(REST)))?;
        let within = commits.partition_point(|commit_ns| *commit_ns < until_ns);
        (turn.gap_ms, _) = longest_gaps(&commits[..within], at_ns);
        (turn.buys, turn.lookups) = (seen.buys.view(at_ns, until_ns), seen.lookups.view(at_ns, until_ns));
    }
    let at_ns = turns.first().map_or(0, |turn| turn.at_ns);
    let until_ns = turns.last().map_or(0, |turn| turn.until_ns);
    Ok(InTurnReport {
        debug_build: cfg!(debug_assertions),
        rate: args.rate,
        lookup_rate: args.lookups,
        duration_s: (until_ns - at_ns) as f64 / 1e9,
        buys: seen.buys.view(at_ns, u64::MAX),
        lookups: seen.lookups.view(at_ns, u64::MAX),
        unsent: seen.buys.unsent + seen.lookups.unsent,
        history: judged.history,
        judgement: judged.judgement,
        turns,
    })
}

//! A catalog, an order server and a front that are killed and started again in turn, for as long as one likes; then
//! everything that was asked and answered meanwhile is judged.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::clients::{Seen, Shared};
use super::cluster::{REST, Watched, in_turn, longest_gaps};
use super::faults::print_view;
use super::view::View;
use super::{FailoverArgs, poisoned, under};
use crate::error::Error;
use crate::history::judge::Judgement;
use crate::history::{History, file};
use crate::local;
use crate::replicas;
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
}

/// Kills one server after the other under a load, and judges what came of it.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub(super) fn run(
    args: &FailoverArgs,
    watched: Watched<'_>,
    shared: &Shared,
    load: impl FnOnce(&AtomicBool) + Send,
) -> Result<InTurnReport, Error> {
    watched.wait_health()?;
    // All of it before: nobody else may write while a history is kept.
    watched.stock_up()?;
    let target = watched.target.clone();
    let (initial, after) = replicas::read_initial(&target)?;
    shared.seen.lock().map_err(|_| poisoned())?.history = Some(Vec::new());
    let (turns, ()) = under(load, || kill_in_turn(args, &watched))?;
    let mut seen = shared.seen.lock().map_err(|_| poisoned())?;
    let operations = seen.history.take().unwrap_or_default();
    let mut history = History { initial, operations, replicas: Vec::new() };
    // Kept before anything else can go wrong: it may be what tells why.
    let looked = turns.and_then(|turns| Ok((turns, replicas::look(&target, after, &history.operations)?)));
    let (turns, looked) = match looked {
        Ok((turns, replicas)) => {
            history.replicas = replicas;
            (Ok(turns), keep(args, &history))
        }
        Err(error) => (Err(error), keep(args, &history)),
    };
    report(args, &watched, &seen, turns?, looked?, &history)
}

/// Writes the history where it is wanted.
fn keep(args: &FailoverArgs, history: &History) -> Result<Option<PathBuf>, Error> {
    let Some(dir) = &args.out else { return Ok(None) };
    let path: &Path = &dir.join("history.jsonl");
    let io = || Error::io(path.display().to_string());
    std::fs::create_dir_all(dir).map_err(io())?;
    file::write(history, BufWriter::new(File::create(path).map_err(io())?)).map_err(io())?;
    Ok(Some(path.to_path_buf()))
}

/// Kills until the time is over; who, when, and whether the token was lost.
fn kill_in_turn(args: &FailoverArgs, watched: &Watched<'_>) -> Result<Vec<Turn>, Error> {
    sleep(REST);
    let end_ns = watched.clock.now_ns() + span::ns(args.duration);
    let mut turns: Vec<Turn> = Vec::new();
    while watched.clock.now_ns() < end_ns {
        let node = in_turn(&watched.target, args.fault.roles(), turns.len())?;
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
    kept: Option<PathBuf>,
    history: &History,
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
        history: kept,
        judgement: Judgement::new(history),
        turns,
    })
}

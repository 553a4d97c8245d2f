//! Servers that fail: killed or paused one fault after the other, and brought back in between.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pygmy_proto::message::Role;
use rustix::process::Signal;
use serde::Serialize;

use super::clients::{Seen, Shared};
use super::cluster::{HEALTH_WITHIN, LOOK_EVERY, REST, Watched, longest_gaps};
use super::view::View;
use super::{FailoverArgs, FaultKind, failed, median, poisoned};
use crate::error::Error;
use crate::local;
use crate::span;
use crate::target::Server;

/// Commits are watched for so long after somebody was killed, which is noticed at once.
const WATCH_KILLED: Duration = Duration::from_millis(1_500);
/// The same for one that was paused, which takes heartbeats to notice.
const WATCH_PAUSED: Duration = Duration::from_secs(4);
/// Rounds of the other kind, for each wanted one, before it is given up: whoever is killed may have the token or not.
const MISSES_MAX: usize = 6;

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Who failed.
    pub nodes: Vec<String>,
    /// Longest time without a commit that reaches behind the fault, in milliseconds.
    pub gap_ms: f64,
    /// The same in the time just before, for comparison.
    pub before_ms: f64,
    /// Whether the token was lost: there is a new epoch.
    pub token_lost: bool,
    /// Whether it is of the kind that was asked for.
    pub counts: bool,
    /// What clients saw of it while they bought.
    pub buys: View,
    /// And while they looked up.
    pub lookups: View,
}

/// What clients saw of all faults that count: of each the worst, and of these the median and the maximum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Longest time without an answer to anyone, in milliseconds.
    pub gap_median_ms: f64,
    /// The longest of all.
    pub gap_max_ms: f64,
    /// Longest time without an answer to one client.
    pub client_gap_median_ms: f64,
    /// The longest of all.
    pub client_gap_max_ms: f64,
    /// The slowest request.
    pub slowest_median_ms: f64,
    /// The slowest of all.
    pub slowest_max_ms: f64,
    /// Requests that failed.
    pub failed: u64,
}

impl Summary {
    fn new(views: &[View]) -> Self {
        let figures = |of: fn(&View) -> f64| {
            let mut all: Vec<f64> = views.iter().map(of).collect();
            all.sort_unstable_by(f64::total_cmp);
            (median(&all), all.last().copied().unwrap_or_default())
        };
        let (gap_median_ms, gap_max_ms) = figures(|view| view.gap_ms);
        let (client_gap_median_ms, client_gap_max_ms) = figures(|view| view.client_gap_ms);
        let (slowest_median_ms, slowest_max_ms) = figures(|view| view.slowest_ms);
        let failed = views.iter().map(|view| view.failed).sum();
        Self {
            gap_median_ms,
            gap_max_ms,
            client_gap_median_ms,
            client_gap_max_ms,
            slowest_median_ms,
            slowest_max_ms,
            failed,
        }
    }

    fn print(&self, what: &str, out: &mut impl Write) -> io::Result<()> {
        let Self { gap_median_ms, gap_max_ms, client_gap_median_ms, client_gap_max_ms, .. } = self;
        let Self { slowest_median_ms, slowest_max_ms, failed, .. } = self;
        writeln!(
            out,
            "  {what}: longest time without an answer: median {gap_median_ms:.1} ms, max {gap_max_ms:.1} ms"
        )?;
        writeln!(out, "    to one client: median {client_gap_median_ms:.1} ms, max {client_gap_max_ms:.1} ms")?;
        writeln!(out, "    slowest: median {slowest_median_ms:.1} ms, max {slowest_max_ms:.1} ms; {failed} failed")
    }
}

/// What every run was, and how long nothing was committed in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gaps {
    /// What failed, or how it came back.
    pub fault: FaultKind,
    /// Whether this program was built without optimisation.
    pub debug_build: bool,
    /// Buys a second.
    pub rate: f64,
    /// Faults that count, or servers that came back.
    pub rounds: usize,
    /// The median of their gaps, in milliseconds.
    pub median_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// The longest gap just before any of them: what this machine does by itself.
    pub before_max_ms: f64,
}

impl Gaps {
    /// Of the gaps that count, and of those before any, all in milliseconds.
    pub(super) fn new(args: &FailoverArgs, gaps: impl Iterator<Item = f64>, before: impl Iterator<Item = f64>) -> Self {
        let gaps = sorted(gaps);
        Self {
            fault: args.fault,
            debug_build: cfg!(debug_assertions),
            rate: args.rate,
            rounds: gaps.len(),
            median_ms: median(&gaps),
            max_ms: gaps.last().copied().unwrap_or_default(),
            before_max_ms: before.fold(0.0, f64::max),
        }
    }
}

/// Figures in rising order.
pub(super) fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailoverReport {
    /// How long nothing was committed.
    #[serde(flatten)]
    pub gaps: Gaps,
    /// Buys sent.
    pub sent: u64,
    /// Of these, answered otherwise or lost.
    pub failed: u64,
    /// Requests that could not even be sent.
    pub unsent: u64,
    /// What clients saw while they bought.
    pub buys: Summary,
    /// And while they looked up.
    pub lookups: Summary,
    /// Lookups a second.
    pub lookup_rate: f64,
    /// Lookups asked.
    pub lookups_sent: u64,
    /// Of these, answered otherwise or not at all.
    pub lookups_failed: u64,
    /// Every fault, those that do not count included.
    pub failures: Vec<Failure>,
}

impl FailoverReport {
    fn new(args: &FailoverArgs, failures: Vec<Failure>, seen: &Seen) -> Self {
        let gaps = failures.iter().filter(|one| one.counts).map(|one| one.gap_ms);
        let gaps = Gaps::new(args, gaps, failures.iter().map(|one| one.before_ms));
        let views =
            |of: fn(&Failure) -> View| -> Vec<View> { failures.iter().filter(|one| one.counts).map(of).collect() };
        Self {
            buys: Summary::new(&views(|one| one.buys)),
            lookups: Summary::new(&views(|one| one.lookups)),
            lookup_rate: args.lookups,
            lookups_sent: seen.lookups.asked,
            lookups_failed: seen.lookups.failed(),
            gaps,
            sent: seen.buys.asked,
            failed: seen.buys.failed(),
            unsent: seen.buys.unsent + seen.lookups.unsent,
            failures,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Gaps { fault, rounds, median_ms, max_ms, before_max_ms, rate, .. } = &self.gaps;
        let Self { sent, failed, unsent, lookup_rate, lookups_sent, lookups_failed, .. } = self;
        let fault = fault.name();
        writeln!(out, "{fault}, {rate} buys/s and {lookup_rate} lookups/s, {rounds} faults")?;
        writeln!(out, "  longest time without a commit: median {median_ms:.1} ms, max {max_ms:.1} ms")?;
        writeln!(out, "    (before them: max {before_max_ms:.1} ms)")?;
        self.buys.print("buys", out)?;
        if *lookups_sent > 0 {
            self.lookups.print("lookups", out)?;
        }
        writeln!(out, "  in all {sent} buys, {failed} failed; {lookups_sent} lookups, {lookups_failed} failed;")?;
        writeln!(out, "    {unsent} could not be sent")?;
        for failure in &self.failures {
            let Failure { nodes, gap_ms, before_ms, token_lost, counts, buys, lookups } = failure;
            let token = if *token_lost { "token lost" } else { "token kept" };
            let note = if *counts { "" } else { ", does not count" };
            writeln!(out, "  {:<22} {gap_ms:>8.1} ms (before {before_ms:.1} ms), {token}{note}", nodes.join(" "))?;
            for (what, view) in [("buys", buys), ("lookups", lookups)].iter().filter(|(_, view)| view.ended > 0) {
                print_view(what, view, out)?;
            }
        }
        if self.gaps.debug_build { writeln!(out, "  a debug build: these are no figures") } else { Ok(()) }
    }
}

/// What clients saw of one fault, for a person.
pub(super) fn print_view(what: &str, view: &View, out: &mut impl Write) -> io::Result<()> {
    let View { gap_ms, client_gap_ms, slowest_ms, repeated, failed, .. } = view;
    writeln!(
        out,
        "    {what}: {gap_ms:.1} ms without an answer, {client_gap_ms:.1} ms to one client, slowest {slowest_ms:.1} ms, \
         {repeated} sent again, {failed} failed"
    )
}

/// Does one fault after the other.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub(super) fn run(args: &FailoverArgs, watched: Watched<'_>, shared: &Shared) -> Result<FailoverReport, Error> {
    let mut faults = Faults { args, watched, shared, turn: 0 };
    let failures = faults.run()?;
    let seen = shared.seen.lock().map_err(|_| poisoned())?;
    Ok(FailoverReport::new(args, failures, &seen))
}

struct Faults<'a> {
    args: &'a FailoverArgs,
    watched: Watched<'a>,
    shared: &'a Shared,
    /// Rounds so far: servers of a role take turns.
    turn: usize,
}

impl Faults<'_> {
    fn run(&mut self) -> Result<Vec<Failure>, Error> {
        let mut failures: Vec<Failure> = Vec::new();
        while failures.iter().filter(|failure| failure.counts).count() < self.args.rounds {
            if failures.len() > self.args.rounds * MISSES_MAX {
                break;
            }
            failures.push(self.round()?);
        }
        Ok(failures)
    }

    fn round(&mut self) -> Result<Failure, Error> {
        self.watched.prepare()?;
        let epoch = self.watched.epoch(&[]);
        let victims = self.victims()?;
        // Looked up before: nothing must lie between the two kills of one fault.
        let pids: Vec<_> = victims.iter().map(|victim| self.watched.local.pid(victim)).collect::<Result<_, _>>()?;
        let at_ns = self.watched.clock.now_ns();
        for (victim, pid) in victims.iter().zip(pids) {
            local::send(victim, pid, self.args.fault.signal())?;
        }
        let watched = self.watch(at_ns);
        let until_ns = self.watched.clock.now_ns();
        // Before anybody is brought back: a return must not be taken for the fault's own doing.
        let token_lost = self.watched.epoch(&victims) != epoch;
        for victim in &victims {
            match self.args.fault.signal() {
                Signal::STOP => self.watched.local.signal(victim, Signal::CONT)?,
                _ => self.watched.local.start(victim)?,
            }
        }
        let (gap_ms, before_ms) = watched?;
        let counts = self.args.fault.counts(token_lost);
        self.shared.wait_answers(until_ns)?;
        let seen = self.shared.seen.lock().map_err(|_| poisoned())?;
        let (buys, lookups) = (seen.buys.view(at_ns, until_ns), seen.lookups.view(at_ns, until_ns));
        Ok(Failure { nodes: victims, gap_ms, before_ms, token_lost, counts, buys, lookups })
    }

    /// Waits until commits have gone on for a while; the longest gap behind the fault, and the one before.
    fn watch(&self, at_ns: u64) -> Result<(f64, f64), Error> {
        let watch = if self.args.fault.signal() == Signal::STOP { WATCH_PAUSED } else { WATCH_KILLED };
        sleep(watch);
        let late = Instant::now() + HEALTH_WITHIN;
        while self.watched.commits(at_ns + span::ns(watch))?.is_empty() {
            if Instant::now() > late {
                return Err(failed("nothing was committed any more after a fault".into()));
            }
            sleep(LOOK_EVERY);
        }
        let all = self.watched.commits(at_ns.saturating_sub(span::ns(REST)))?;
        Ok(longest_gaps(&all, at_ns))
    }

    /// Servers of each role that fails, in turn; of catalogs, for a fault of the holder, the one that has the token.
    fn victims(&mut self) -> Result<Vec<String>, Error> {
        let wants_holder = matches!(self.args.fault, FaultKind::KillHolder | FaultKind::StopHolder);
        let holder = if wants_holder { self.watched.holder()? } else { None };
        let turn = self.turn;
        self.turn += 1;
        let victim = |role: &Role| {
            let servers: Vec<&Server> =
                self.watched.target.servers.iter().filter(|server| server.role == *role).collect();
            let chosen = holder.and_then(|number| servers.iter().find(|server| server.number == number));
            let none = || Error::Usage(format!("the cluster has no {} server", role.name()));
            let in_turn = || servers.get(turn % servers.len().max(1));
            Ok(chosen.or_else(in_turn).ok_or_else(none)?.name.clone())
        };
        self.args.fault.roles().iter().map(victim).collect()
    }
}

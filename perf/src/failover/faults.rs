//! Servers that fail: killed or paused one fault after the other, and brought back in between.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pygmy_proto::message::Role;
use rustix::process::Signal;
use serde::Serialize;

use super::clients::{Seen, Shared};
use super::cluster::{HEALTH_WITHIN, REST, Watched, longest_gaps};
use super::fault::{Action, Fault};
use super::judged::{Judged, judged};
use super::kept::stop_mark;
use super::sight::Sight;
use super::timeline::{Episode, longest_stop, mark};
use super::view::{View, print_view};
use super::{FailoverArgs, failed, median, poisoned, under};
use crate::error::Error;
use crate::history::judge::Judgement;
use crate::local;
use crate::run::Run;
use crate::span;
use crate::target::Server;

/// Commits are watched for so long after somebody was killed, which is noticed at once.
const WATCH_KILLED: Duration = Duration::from_millis(1_500);
/// The same for one that was paused, which takes heartbeats to notice.
const WATCH_PAUSED: Duration = Duration::from_secs(4);
/// Time for those who came back to be trusted again; it is shown where it is known, and nothing depends on it.
const TRUSTED_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at who is suspected.
const SIGHT_EVERY: Duration = Duration::from_millis(5);
/// Shown behind the return of whoever failed.
const SHOWN_BEHIND: Duration = Duration::from_millis(500);
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
    /// When another server took whoever failed for gone, in milliseconds from the fault; none: it did not, or nobody
    /// could be asked.
    pub suspected_ms: Option<f64>,
    /// When the longest time without a commit was over.
    pub recovered_ms: Option<f64>,
    /// When that other server no longer took anybody for gone.
    pub trusted_ms: Option<f64>,
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
    pub fault: String,
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
    pub(super) fn new(
        fault: &Fault,
        rate: f64,
        gaps: impl Iterator<Item = f64>,
        before: impl Iterator<Item = f64>,
    ) -> Self {
        let gaps = sorted(gaps);
        Self {
            fault: fault.name(),
            debug_build: cfg!(debug_assertions),
            rate,
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
    /// Whether any promise was broken, where a history was kept.
    pub judgement: Option<Judgement>,
    /// Where that is kept.
    pub history: Option<PathBuf>,
    /// Every fault, those that do not count included.
    pub failures: Vec<Failure>,
}

impl FailoverReport {
    fn new(args: &FailoverArgs, fault: &Fault, failures: Vec<Failure>, judged: Option<Judged>, seen: &Seen) -> Self {
        let gaps = failures.iter().filter(|one| one.counts).map(|one| one.gap_ms);
        let gaps = Gaps::new(fault, args.rate, gaps, failures.iter().map(|one| one.before_ms));
        let (judgement, history) = judged.map_or((None, None), |judged| (Some(judged.judgement), judged.history));
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
            judgement,
            history,
            failures,
        }
    }

    /// Whether as many faults were seen as were asked for, and no promise was found broken.
    pub(super) fn is_good(&self, args: &FailoverArgs) -> bool {
        self.gaps.rounds == args.rounds && self.judgement.as_ref().is_none_or(|judgement| judgement.ok)
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Gaps { fault, rounds, median_ms, max_ms, before_max_ms, rate, .. } = &self.gaps;
        let Self { sent, failed, unsent, lookup_rate, lookups_sent, lookups_failed, .. } = self;
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
            let Failure { nodes, gap_ms, before_ms, token_lost, counts, buys, lookups, .. } = failure;
            let token = if *token_lost { "token lost" } else { "token kept" };
            let note = if *counts { "" } else { ", does not count" };
            writeln!(out, "  {:<22} {gap_ms:>8.1} ms (before {before_ms:.1} ms), {token}{note}", nodes.join(" "))?;
            for (what, view) in [("buys", buys), ("lookups", lookups)].iter().filter(|(_, view)| view.ended > 0) {
                print_view(what, view, out)?;
            }
        }
        if let Some(judgement) = &self.judgement {
            judgement.print(out)?;
        }
        if let Some(path) = &self.history {
            writeln!(out, "history: {}", path.display())?;
        }
        if self.gaps.debug_build { writeln!(out, "  a debug build: these are no figures") } else { Ok(()) }
    }
}

/// One fault, for people and for a report.
pub(super) struct Round {
    pub(super) failure: Failure,
    pub(super) episode: Episode,
}

/// Does one fault after the other under a load.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub(super) fn run(
    args: &FailoverArgs,
    fault: &Fault,
    mut watched: Watched<'_>,
    shared: &Shared,
    load: impl FnOnce(&AtomicBool) + Send,
    run: &mut Run,
) -> Result<FailoverReport, Error> {
    let work = |watched: &mut Watched<'_>| Faults { args, fault, watched, shared, turn: 0 }.run();
    let (rounds, judged) = if args.check {
        let (rounds, judged) = judged(args.out.as_deref(), &mut watched, shared, load, work)?;
        (rounds, Some(judged))
    } else {
        let (rounds, ()) = under(load, || work(&mut watched))?;
        (rounds?, None)
    };
    let seen = shared.seen.lock().map_err(|_| poisoned())?;
    let failures = rounds.iter().map(|round| round.failure.clone()).collect();
    let report = FailoverReport::new(args, fault, failures, judged, &seen);
    report.fill(run, &rounds, &seen.samples());
    Ok(report)
}

struct Faults<'a, 'w> {
    args: &'a FailoverArgs,
    fault: &'a Fault,
    watched: &'a mut Watched<'w>,
    shared: &'a Shared,
    /// Rounds so far: servers of a role take turns.
    turn: usize,
}

impl Faults<'_, '_> {
    fn run(&mut self) -> Result<Vec<Round>, Error> {
        let mut rounds: Vec<Round> = Vec::new();
        while rounds.iter().filter(|round| round.failure.counts).count() < self.args.rounds {
            if rounds.len() > self.args.rounds * MISSES_MAX {
                break;
            }
            rounds.push(self.round()?);
        }
        Ok(rounds)
    }

    fn round(&mut self) -> Result<Round, Error> {
        self.watched.prepare()?;
        let epoch = self.watched.epoch(&[]);
        let victims = self.victims()?;
        let mut sight = Sight::new(&self.watched.target, &victims);
        let (at_ns, command) = self.strike(&victims)?;
        let stood = self.stand(at_ns, command, &mut sight);
        let until_ns = self.watched.clock.now_ns();
        // Before anybody is brought back: a return must not be taken for the fault's own doing.
        let token_lost = self.watched.epoch(&victims) != epoch;
        self.bring_back(&victims, &mut sight)?;
        stood?;
        let back_ns = self.watched.clock.now_ns();
        let commits = self.watched.commits(at_ns.saturating_sub(span::ns(REST)))?;
        let within = commits.partition_point(|commit_ns| *commit_ns < until_ns);
        let (gap_ms, before_ms) = longest_gaps(&commits[..within], at_ns);
        self.shared.wait_answers(until_ns)?;
        let seen = self.shared.seen.lock().map_err(|_| poisoned())?;
        let after_ms = |then_ns: u64| (then_ns - at_ns) as f64 / 1e6;
        let stop = longest_stop(&commits[..within], at_ns, until_ns);
        let failure = Failure {
            gap_ms,
            before_ms,
            token_lost,
            counts: self.fault.counts(token_lost),
            suspected_ms: sight.suspected_ns().map(after_ms),
            recovered_ms: stop.map(|(_, end_ns)| after_ms(end_ns)),
            trusted_ms: sight.trusted_ns().map(after_ms),
            buys: seen.buys.view(at_ns, until_ns),
            lookups: seen.lookups.view(at_ns, until_ns),
            nodes: victims,
        };
        let what = format!("{} {}", self.fault.action().verb(), failure.nodes.join(" and "));
        let mut marks = vec![mark(&what, at_ns, Some(back_ns))];
        marks.extend(sight.suspected_ns().map(|then_ns| mark("suspected", then_ns, sight.trusted_ns())));
        marks.extend(stop_mark(&commits[..within], at_ns, until_ns));
        let until_ns = until_ns.max(back_ns) + span::ns(SHOWN_BEHIND);
        Ok(Round { failure, episode: Episode { what, at_ns, until_ns, gap_ms, marks } })
    }

    /// Does it; when, and the command that does the rest.
    fn strike(&self, victims: &[String]) -> Result<(u64, Option<Child>), Error> {
        let local = self.watched.local;
        // Looked up before: nothing must lie between the two kills of one fault.
        let pids = victims.iter().map(|victim| local.pid(victim)).collect::<Result<Vec<_>, _>>()?;
        let at_ns = self.watched.clock.now_ns();
        let signal = match self.fault.action() {
            Action::Kill => Signal::KILL,
            Action::Pause => Signal::STOP,
            Action::Restart => Signal::TERM,
            Action::Replace => return Ok((at_ns, Some(local.begin_replace(&victims[0])?))),
        };
        for (victim, pid) in victims.iter().zip(pids) {
            local::send(victim, pid, signal)?;
        }
        // It waits until the process is gone.
        let command = if signal == Signal::TERM { Some(local.begin_start(&victims[0])?) } else { None };
        Ok((at_ns, command))
    }

    /// Waits until the command is done and commits have gone on for a while.
    fn stand(&mut self, at_ns: u64, command: Option<Child>, sight: &mut Sight) -> Result<(), Error> {
        let watch = if self.fault.action() == Action::Pause { WATCH_PAUSED } else { WATCH_KILLED };
        if let Some(command) = command {
            self.finish(command, sight)?;
            // A replacement may listen elsewhere.
            self.watched.target = self.watched.local.target()?;
        }
        let until_ns = self.watched.clock.now_ns().max(at_ns) + span::ns(watch);
        let late = Instant::now() + watch + HEALTH_WITHIN;
        while self.watched.clock.now_ns() < until_ns || self.watched.commits(until_ns)?.is_empty() {
            if Instant::now() > late {
                return Err(failed("nothing was committed any more after a fault".into()));
            }
            self.look(sight);
        }
        Ok(())
    }

    /// Lets whoever was killed or paused go on, and waits until nobody takes them for gone.
    fn bring_back(&self, victims: &[String], sight: &mut Sight) -> Result<(), Error> {
        for victim in victims {
            match self.fault.action() {
                Action::Pause => self.watched.local.signal(victim, Signal::CONT)?,
                Action::Kill => self.finish(self.watched.local.begin_start(victim)?, sight)?,
                Action::Restart | Action::Replace => {}
            }
        }
        let late = Instant::now() + TRUSTED_WITHIN;
        while sight.suspected_ns().is_some() && sight.trusted_ns().is_none() && Instant::now() < late {
            self.look(sight);
        }
        Ok(())
    }

    /// Looks until a command has ended.
    fn finish(&self, mut command: Child, sight: &mut Sight) -> Result<(), Error> {
        loop {
            match command.try_wait().map_err(Error::io("pygmy-node"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(failed(format!("a server does not come back: pygmy-node ended with {status}")));
                }
                None => self.look(sight),
            }
        }
    }

    fn look(&self, sight: &mut Sight) {
        sight.look(self.watched.clock.now_ns());
        sleep(SIGHT_EVERY);
    }

    /// The server asked for; else those of each role that fails, in turn; of catalogs, for a fault of the holder, the
    /// one that has the token.
    fn victims(&mut self) -> Result<Vec<String>, Error> {
        let kind = match self.fault {
            Fault::Node(node, _) => {
                let is_known = self.watched.target.servers.iter().any(|server| server.name == *node);
                let unknown = || Error::Usage(format!("--node {node}: the cluster has no such server"));
                return if is_known { Ok(vec![node.clone()]) } else { Err(unknown()) };
            }
            Fault::Kind(kind) => *kind,
        };
        let holder = if self.fault.wants_holder() { self.watched.holder()? } else { None };
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
        kind.roles().iter().map(victim).collect()
    }
}

//! Servers that come back: started again far behind the others, or replaced.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;

use super::cluster::{BEHIND_MAX, HEALTH_WITHIN, LOOK_EVERY, REST, Watched, in_turn, longest_gaps};
use super::fault::Fault;
use super::faults::{Gaps, sorted};
use super::kept::return_episode;
use super::stream::Orders;
use super::timeline::{Episode, Samples};
use super::{FailoverArgs, FaultKind, failed, median, poisoned};
use crate::error::Error;
use crate::local;
use crate::run::Run;
use crate::span;

/// Watched on behind the moment at which the server has caught up: it takes part from then on.
const WATCH_ON: Duration = Duration::from_millis(500);
/// Commits with no longer gap than this, in milliseconds, are steady.
const STEADY_MS: f64 = 20.0;
/// Time for commits to become steady; if they do not, the gap before the command shows it.
const STEADY_WITHIN: Duration = Duration::from_secs(30);
/// Time for all buys of a round to be answered.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// One server that came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Return {
    /// Who.
    pub node: String,
    /// Entries that it had to get: those that it had missed, or all.
    pub entries: u64,
    /// From the command until it had them, in milliseconds: what its process takes to open its files is in it.
    pub caught_up_ms: f64,
    /// The former in the latter.
    pub entries_per_s: f64,
    /// Longest time without a commit from the command until a moment after it had caught up, in milliseconds.
    pub gap_ms: f64,
    /// The same in the time just before, for comparison.
    pub before_ms: f64,
    /// The slowest buy that was due in that time, from when it was due, in milliseconds.
    pub slowest_ms: f64,
    /// Buys of that time that were answered otherwise, or not at all.
    pub failed: u64,
    /// Whether there is a new epoch.
    pub token_lost: bool,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReturnReport {
    /// How long nothing was committed.
    #[serde(flatten)]
    pub gaps: Gaps,
    /// The median of the slowest buys of each, in milliseconds.
    pub slowest_median_ms: f64,
    /// The slowest of all.
    pub slowest_max_ms: f64,
    /// The median of the entries a second.
    pub entries_per_s_median: f64,
    /// The fewest.
    pub entries_per_s_min: f64,
    /// Each of them.
    pub returns: Vec<Return>,
}

impl ReturnReport {
    fn new(args: &FailoverArgs, kind: FaultKind, returns: Vec<Return>) -> Self {
        let figures = |figure: fn(&Return) -> f64| returns.iter().map(figure);
        let slowest = sorted(figures(|one| one.slowest_ms));
        let rates = sorted(figures(|one| one.entries_per_s));
        Self {
            gaps: Gaps::new(&Fault::Kind(kind), args.rate, figures(|one| one.gap_ms), figures(|one| one.before_ms)),
            slowest_median_ms: median(&slowest),
            slowest_max_ms: slowest.last().copied().unwrap_or_default(),
            entries_per_s_median: median(&rates),
            entries_per_s_min: rates.first().copied().unwrap_or_default(),
            returns,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Gaps { fault, rounds, rate, median_ms, max_ms, before_max_ms, .. } = &self.gaps;
        let Self { slowest_median_ms, slowest_max_ms, entries_per_s_median, entries_per_s_min, .. } = self;
        writeln!(out, "{fault}, {rate} buys/s: {rounds} servers came back")?;
        writeln!(out, "  longest time without a commit: median {median_ms:.1} ms, max {max_ms:.1} ms")?;
        writeln!(out, "    (before them: max {before_max_ms:.1} ms)")?;
        writeln!(out, "  slowest buy: median {slowest_median_ms:.1} ms, max {slowest_max_ms:.1} ms")?;
        writeln!(out, "  caught up at: median {entries_per_s_median:.0} entries/s, min {entries_per_s_min:.0}")?;
        for Return { node, entries, caught_up_ms, gap_ms, before_ms, slowest_ms, failed, token_lost, .. } in
            &self.returns
        {
            let token = if *token_lost { "token lost" } else { "token kept" };
            writeln!(
                out,
                "  {node:<10} {gap_ms:>8.1} ms (before {before_ms:.1} ms), slowest buy {slowest_ms:.1} ms, {failed} \
                 failed, {token}; {entries} entries in {caught_up_ms:.0} ms"
            )?;
        }
        if self.gaps.debug_build { writeln!(out, "  a debug build: these are no figures") } else { Ok(()) }
    }
}

/// Lets one server after the other come back.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub(super) fn run(
    args: &FailoverArgs,
    kind: FaultKind,
    watched: Watched<'_>,
    run: &mut Run,
) -> Result<ReturnReport, Error> {
    let mut rounds = Returns { args, kind, watched, turn: 0 };
    let all = (0..args.rounds).map(|_| rounds.round()).collect::<Result<Vec<_>, _>>()?;
    let (returns, episodes): (Vec<Return>, Vec<Episode>) = all.into_iter().unzip();
    let report = ReturnReport::new(args, kind, returns);
    let samples = [Samples { name: "buys", all: rounds.orders()?.samples() }];
    report.fill(run, &episodes, &samples);
    Ok(report)
}

struct Returns<'a> {
    args: &'a FailoverArgs,
    kind: FaultKind,
    watched: Watched<'a>,
    /// Rounds so far: servers take turns, catalogs and orders as well.
    turn: usize,
}

impl Returns<'_> {
    fn round(&mut self) -> Result<(Return, Episode), Error> {
        self.watched.prepare()?;
        let victim = self.victim()?;
        let had = self.go(&victim)?;
        self.watched.flood(self.args.behind)?;
        self.wait_steady()?;
        let epoch = self.watched.epoch(std::slice::from_ref(&victim));
        let committed = self.watched.committed()?;
        let at_ns = self.watched.clock.now_ns();
        let command = self.begin(&victim)?;
        self.wait_caught_up(&victim, command)?;
        let caught_up_ns = self.watched.clock.now_ns() - at_ns;
        sleep(WATCH_ON);
        let until_ns = self.watched.clock.now_ns();
        self.wait_answers(until_ns)?;
        let before_ns = at_ns.saturating_sub(span::ns(REST));
        let commits = self.watched.commits(before_ns)?;
        let (gap_ms, before_ms) = longest_gaps(&commits, at_ns);
        let what = format!("{victim} comes back");
        let episode = return_episode(what, &commits, (at_ns, until_ns), at_ns + caught_up_ns);
        let (slowest_ns, failed) = self.orders()?.between(at_ns, until_ns);
        let entries = committed.saturating_sub(had);
        let done = Return {
            token_lost: self.watched.epoch(&[]) != epoch,
            node: victim,
            entries,
            caught_up_ms: caught_up_ns as f64 / 1e6,
            entries_per_s: entries as f64 * 1e9 / caught_up_ns as f64,
            gap_ms,
            before_ms,
            slowest_ms: slowest_ns as f64 / 1e6,
            failed,
        };
        Ok((done, episode))
    }

    /// Waits until commits go on without longer gaps, if they do so soon: after a flood snapshots are taken.
    fn wait_steady(&self) -> Result<(), Error> {
        let late = Instant::now() + STEADY_WITHIN;
        loop {
            sleep(REST);
            let now_ns = self.watched.clock.now_ns();
            let (gap_ms, _) = longest_gaps(&self.watched.commits(now_ns.saturating_sub(span::ns(REST)))?, 0);
            if gap_ms < STEADY_MS || Instant::now() > late {
                return Ok(());
            }
        }
    }

    fn orders(&self) -> Result<std::sync::MutexGuard<'_, Orders>, Error> {
        self.watched.orders.lock().map_err(|_| poisoned())
    }

    /// The log replicas in turn.
    fn victim(&mut self) -> Result<String, Error> {
        let name = in_turn(&self.watched.target, self.kind.roles(), self.turn)?;
        self.turn += 1;
        Ok(name)
    }

    /// Takes the server away, as far as it goes before it comes back; up to where what comes back has the log.
    fn go(&self, victim: &str) -> Result<u64, Error> {
        if self.kind == FaultKind::ReplaceLiving {
            return Ok(0);
        }
        let pid = self.watched.local.pid(victim)?;
        let status = self.watched.status_of(victim).and_then(|status| status.replica);
        let has = status.ok_or_else(|| failed(format!("{victim} does not answer")))?.last_seq;
        local::send(victim, pid, Signal::KILL)?;
        if self.kind == FaultKind::Rejoin {
            return Ok(has);
        }
        for dir in self.dirs(victim)? {
            std::fs::remove_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
        }
        Ok(0)
    }

    /// The directories of a server: its own, and those of the processes that took its place.
    fn dirs(&self, node: &str) -> Result<Vec<PathBuf>, Error> {
        let all = self.watched.local.dir();
        let io = || Error::io(all.display().to_string());
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(all).map_err(io())? {
            let path = entry.map_err(io())?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && is_of(name, node) {
                dirs.push(path);
            }
        }
        Ok(dirs)
    }

    fn begin(&self, victim: &str) -> Result<Child, Error> {
        match self.kind {
            FaultKind::Rejoin => self.watched.local.begin_start(victim),
            _ => self.watched.local.begin_replace(victim),
        }
    }

    /// Waits until the command is done and the server has applied what the others have.
    fn wait_caught_up(&mut self, victim: &str, mut command: Child) -> Result<(), Error> {
        let mut reached = (0, Instant::now());
        let mut is_done = false;
        loop {
            if !is_done && let Some(status) = command.try_wait().map_err(Error::io(victim))? {
                if !status.success() {
                    return Err(failed(format!("{victim} does not come back: pygmy-node ended with {status}")));
                }
                is_done = true;
                // A replacement may listen elsewhere.
                self.watched.target = self.watched.local.target()?;
            }
            let applied = self.watched.status_of(victim).and_then(|status| status.replica).map_or(0, |own| own.applied);
            if is_done && applied + BEHIND_MAX >= self.watched.committed()? {
                return Ok(());
            }
            if applied > reached.0 {
                reached = (applied, Instant::now());
            } else if reached.1.elapsed() > HEALTH_WITHIN {
                return Err(failed(format!("{victim} gets no further than seq {applied}")));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Waits until no buy that was due before is open.
    fn wait_answers(&self, until_ns: u64) -> Result<(), Error> {
        let late = Instant::now() + ANSWERS_WITHIN;
        while self.orders()?.is_open_before(until_ns) && Instant::now() < late {
            sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// Whether a directory with this name is that of a process of `node`.
fn is_of(name: &str, node: &str) -> bool {
    let rest = name.strip_prefix(node);
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('.').is_some_and(|number| number.parse::<u16>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_belong_to_the_node_whose_processes_they_are() {
        for own in ["catalog-1", "catalog-1.1", "catalog-1.12"] {
            assert!(is_of(own, "catalog-1"), "{own}");
        }
        for other in ["catalog-2", "catalog-11", "catalog-1.", "catalog-1.old", "catalog-1.70000", "cluster.toml"] {
            assert!(!is_of(other, "catalog-1"), "{other}");
        }
    }

    #[test]
    fn the_slowest_and_the_fewest_are_told() {
        let one = |gap_ms: f64, slowest_ms: f64, entries_per_s: f64| Return {
            node: "catalog-1".into(),
            entries: 1_000,
            caught_up_ms: 10.0,
            entries_per_s,
            gap_ms,
            before_ms: gap_ms / 2.0,
            slowest_ms,
            failed: 0,
            token_lost: false,
        };
        let returns = [one(9.0, 30.0, 5e5), one(40.0, 80.0, 3e5), one(3.0, 20.0, 9e5)];
        assert_eq!(sorted(returns.iter().map(|one| one.gap_ms)), [3.0, 9.0, 40.0]);
        assert_eq!(median(&sorted(returns.iter().map(|one| one.entries_per_s))), 5e5);
        assert_eq!(median(&[]), 0.0);
    }
}
